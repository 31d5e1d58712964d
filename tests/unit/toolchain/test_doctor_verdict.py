"""A wrong verdict means a class whose labs hang, or run thirty times slower than they could."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolchain.doctor_fakes import (
    BOOTED,
    FakeSystem,
    Machine,
    proof,
    qemu,
)
from toolchain.bootstrap import paths, ui
from toolchain.doctor import bootproof, kvm, trial, verdict
from toolchain.doctor import command as doctor
from toolchain.doctor.kvm import Access
from toolchain.doctor.verdict import Evidence, decide
from toolchain.machine import daemons
from toolchain.machine.system import Result

if TYPE_CHECKING:
    from pathlib import Path

OPEN = Access("libvirt-qemu", opens=True, tried=True)
CLOSED = Access("libvirt-qemu", opens=False, tried=True)
EMULATED = proof("tcg", nesting="svm")
DEVICE = "0:107 0660"
SETPRIV = "setpriv --reuid 64055 --regid 107 --init-groups sh -c"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def working(vmx: int = 1) -> FakeSystem:
    return FakeSystem(
        {
            SETPRIV: Result(0),
            qemu("kvm"): Result(0, BOOTED.format(vmx=vmx, svm=0)),
            qemu("tcg"): Result(0, BOOTED.format(vmx=0, svm=1)),
        }
    )


@pytest.mark.parametrize(
    ("found", "accelerator", "why", "nests"),
    [
        (Evidence("", None, None, EMULATED), "tcg", "there is no /dev/kvm", False),
        (
            Evidence("0:0 0600", CLOSED, None, EMULATED),
            "tcg",
            "/dev/kvm is there (0:0 0600), but libvirt-qemu can't open it",
            False,
        ),
        (
            Evidence(DEVICE, OPEN, proof(why="did not come up within 10 s: it hangs"), EMULATED),
            "tcg",
            "/dev/kvm is there, but a BIOS guest on it did not come up within 10 s: it hangs",
            False,
        ),
        (
            Evidence(DEVICE, OPEN, proof(nesting="vmx"), None),
            "kvm",
            "a BIOS guest runs on KVM and sees vmx",
            True,
        ),
        (
            Evidence(DEVICE, OPEN, proof(), None),
            "kvm",
            "a BIOS guest runs on KVM, but sees neither vmx nor svm",
            False,
        ),
    ],
    ids=["no device", "unopenable", "hangs", "boots", "no nesting"],
)
def test_the_verdict_follows_from_what_was_tried(
    found: Evidence, accelerator: str, why: str, nests: bool
) -> None:
    assert decide(found) == (accelerator, why, nests)


def test_there_is_no_verdict_where_not_even_emulation_runs_a_guest() -> None:
    with pytest.raises(ui.Problem, match="QEMU runs no guest here: the emulated one broke"):
        decide(Evidence("", None, None, proof("tcg", why="broke")))


def test_without_a_device_only_emulation_is_tried(machine: Machine) -> None:
    del machine
    system = working()
    found = verdict.gather(system)
    assert (found.kvm, found.access) == (None, None)
    assert not [line for line in system.asked if "-accel kvm" in line]
    assert found.control
    assert found.control.booted


def test_a_device_that_qemus_user_can_not_open_is_not_booted_on(machine: Machine) -> None:
    machine.make_device()
    system = working()
    system.answers[SETPRIV] = Result(2, err="sh: cannot open: Permission denied")
    found = verdict.gather(system)
    assert found.kvm is None
    assert decide(found)[0] == "tcg"


def test_emulation_is_not_tried_where_kvm_runs_the_guest(machine: Machine) -> None:
    machine.make_device()
    system = working()
    assert verdict.gather(system).control is None
    assert not [line for line in system.asked if "-accel tcg" in line]


def test_who_may_not_open_the_device_has_libvirt_boot_the_guest(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.make_device()
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(trial, "prove", lambda _system: proof(nesting="svm"))
    system = working()
    found = verdict.gather(system)
    assert found.kvm == proof(nesting="svm")
    assert not [line for line in system.asked if bootproof.QEMU in line]


def test_host_json_holds_what_the_stack_loader_reads(machine: Machine) -> None:
    machine.make_device()
    doctor.ensure(working())
    told = json.loads(paths.HOST_JSON.read_text())
    expected = {
        "version": 1,
        "accelerator": "kvm",
        "why": "a BIOS guest runs on KVM and sees vmx",
        "cores": 2,
        "memory_mib": 8192,
        "namespace": "nestlab",
        "kvm_nested": True,
        "boot_id": "boot-1",
    }
    assert expected.items() <= told.items()
    assert told["checked"].startswith("20")


def test_a_second_look_starts_nothing_and_says_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.make_device()
    first = doctor.ensure(working())
    said = capsys.readouterr().err.splitlines()
    assert said == ["guests run on KVM: a BIOS guest runs on KVM and sees vmx"]
    system = FakeSystem()
    assert doctor.ensure(system) == first
    assert not system.asked
    assert capsys.readouterr().err == ""


def test_what_changes_freely_is_looked_at_anew(machine: Machine) -> None:
    machine.make_device()
    first = doctor.ensure(working())
    machine.meminfo(total=4096, available=1)
    second = doctor.ensure(FakeSystem())
    assert (second.memory_mib, second.checked) == (4096, first.checked)
    assert json.loads(paths.HOST_JSON.read_text())["memory_mib"] == 4096


def _reboot(machine: Machine) -> None:
    machine.boot_id = "boot-2"


def _change_mode(machine: Machine) -> None:
    machine.device.chmod(0o600)


def _renew_device(machine: Machine) -> None:
    os.utime(machine.device, ns=(1, 1))


def _remove_device(machine: Machine) -> None:
    machine.device.unlink()


def _configure_qemu(machine: Machine) -> None:
    machine.file("qemu.conf", 'user = "root"\n')


def _tear_file(machine: Machine) -> None:
    del machine
    paths.HOST_JSON.write_text('{"version": 1')


def _newer_shape(machine: Machine) -> None:
    del machine
    told = json.loads(paths.HOST_JSON.read_text())
    paths.HOST_JSON.write_text(json.dumps(told | {"version": 2}))


@pytest.mark.parametrize(
    "change",
    [
        _reboot,
        _change_mode,
        _renew_device,
        _remove_device,
        _configure_qemu,
        _tear_file,
        _newer_shape,
    ],
)
def test_a_verdict_is_void_when_what_it_hangs_on_has_changed(
    machine: Machine, change: object
) -> None:
    machine.make_device()
    doctor.ensure(working())
    assert callable(change)
    change(machine)
    system = working()
    doctor.verdict(system)
    assert [line for line in system.asked if bootproof.QEMU in line], "it must be tried again"


def test_another_qemu_voids_the_verdict(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.make_device()
    binary = machine.file("qemu", "")
    monkeypatch.setattr(FakeSystem, "which", lambda *_: str(binary))
    doctor.ensure(working())
    assert verdict.remembered(FakeSystem()) is not None
    os.utime(binary, ns=(1, 1))
    assert verdict.remembered(FakeSystem()) is None


def test_a_refuted_verdict_does_not_stay_behind(machine: Machine) -> None:
    machine.make_device()
    doctor.ensure(working())
    machine.boot_id = "boot-2"
    with pytest.raises(ui.Problem):
        doctor.ensure(FakeSystem())
    assert not paths.HOST_JSON.exists()


def test_verdict_alone_writes_nothing(machine: Machine) -> None:
    machine.make_device()
    assert asdict(doctor.verdict(working()))["accelerator"] == "kvm"
    assert not paths.HOST_JSON.exists()


@pytest.mark.parametrize(
    ("mode", "groups", "opens"),
    [(0o660, {107}, True), (0o660, set(), False), (0o666, set(), True), (0o600, {107}, False)],
)
def test_without_root_the_mode_decides_who_can_open_the_device(
    machine: Machine, mode: int, groups: set[int], opens: bool
) -> None:
    machine.make_device(mode)
    found = machine.device.stat()
    mine = frozenset({found.st_gid} if groups else {found.st_gid + 1})
    user = kvm.User("libvirt-qemu", found.st_uid + 1, found.st_gid + 1, mine)
    system = FakeSystem(root=False)
    assert kvm.access(system, user) == Access("libvirt-qemu", opens=opens, tried=False)
    assert not system.asked


def test_as_root_the_device_is_really_opened_as_qemus_user(machine: Machine) -> None:
    machine.make_device()
    system = FakeSystem({SETPRIV: Result(0)})
    assert kvm.access(system, machine.user) == OPEN
    assert system.asked == [f"{SETPRIV} : <> {daemons.KVM}"]
