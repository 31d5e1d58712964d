"""Each row must say what a student in front of a strange machine needs to hear."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolchain.doctor_fakes import FakeSystem, Machine, proof
from toolchain.bootstrap import paths
from toolchain.bootstrap.ui import Problem
from toolchain.doctor import bootproof, capacity, checks, nics, stack_needs
from toolchain.doctor.kvm import Access
from toolchain.doctor.report import State
from toolchain.doctor.stack_needs import Needs
from toolchain.doctor.trial import Reaping, Trip
from toolchain.doctor.verdict import Evidence
from toolchain.machine import daemons, packages
from toolchain.machine.system import Result

if TYPE_CHECKING:
    from pathlib import Path

OPEN = Access("libvirt-qemu", opens=True, tried=True)
CLOSED = Access("libvirt-qemu", opens=False, tried=True)
GUESSED = Access("libvirt-qemu", opens=True, tried=False)
DEVICE = "0:107 0660"
QUICK = Reaping(0.02, "process 1 (systemd)")
SLOW = Reaping(1.7, "process 1 (init)")
NEEDS = Needs(
    lab="local",
    uri="qemu:///system",
    memory_mib=4096,
    disk_gib=8,
    cores=2,
    subnets={"lab": "10.77.0.0/24"},
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("flags", "state", "found", "advice"),
    [
        ("fpu lm vmx", State.OK, "64 bits (lm), hardware virtualization (vmx)", ""),
        ("fpu lm svm", State.OK, "64 bits (lm), hardware virtualization (svm)", ""),
        ("fpu lm", State.WARN, "neither vmx nor svm", "Enable VT-x or AMD-V"),
        ("fpu lm hypervisor", State.WARN, "neither vmx nor svm", "<cpu mode='host-passthrough'/>"),
        ("fpu vmx", State.FAIL, "no flag lm", "use another machine"),
    ],
)
def test_the_processors_flags_decide(
    machine: Machine, flags: str, state: State, found: str, advice: str
) -> None:
    machine.cpuinfo(flags)
    row = checks.processor()
    assert row.state is state
    assert found in row.found
    assert advice in row.advice


def test_another_architecture_can_not_run_labs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert checks.processor().state is State.FAIL


@pytest.mark.parametrize(
    ("module", "value", "state"),
    [
        ("kvm_intel", "Y", State.OK),
        ("kvm_amd", "1", State.OK),
        ("kvm_intel", "N", State.WARN),
        ("kvm_amd", "0", State.WARN),
    ],
)
def test_the_nested_parameter_is_read_of_either_vendors_module(
    machine: Machine, module: str, value: str, state: State
) -> None:
    machine.nested(module, value)
    row = checks.nested(FakeSystem(root=False))
    assert row.state is state
    assert module in row.found


def test_switching_nesting_on_is_told_as_commands(machine: Machine) -> None:
    machine.nested("kvm_intel", "N")
    assert checks.nested(FakeSystem(root=False)).commands == (
        "echo 'options kvm_intel nested=1' | sudo tee /etc/modprobe.d/kvm-nested.conf",
        "sudo modprobe -r kvm_intel",
        "sudo modprobe kvm_intel",
    )
    assert not any("sudo" in each for each in checks.nested(FakeSystem(root=True)).commands)


def test_without_a_vendors_module_there_is_no_parameter(machine: Machine) -> None:
    del machine
    assert checks.nested(FakeSystem()).state is State.NA


def test_a_missing_device_is_nothing_to_mend_without_the_extension(machine: Machine) -> None:
    machine.cpuinfo("lm")
    assert checks.device(FakeSystem(), "", None).state is State.NA


def test_a_missing_device_is_mended_by_its_module_where_the_processor_could(
    machine: Machine,
) -> None:
    machine.cpuinfo("lm svm")
    row = checks.device(FakeSystem(root=False), "", None)
    assert (row.state, row.commands) == (State.WARN, ("sudo modprobe kvm_amd",))


def test_an_open_device_tells_whether_that_was_tried(machine: Machine) -> None:
    del machine
    assert "opened as libvirt-qemu" in checks.device(FakeSystem(), DEVICE, OPEN).found
    assert "by its mode open to" in checks.device(FakeSystem(), DEVICE, GUESSED).found
    assert "mode 0660" in checks.device(FakeSystem(), DEVICE, OPEN).found


def test_a_device_that_qemus_user_can_not_open_is_mended_by_group_and_mode(
    machine: Machine,
) -> None:
    del machine
    row = checks.device(FakeSystem(root=False), "0:0 0640", CLOSED)
    assert row.state is State.WARN
    assert "libvirt-qemu, who runs libvirt's QEMU, could not open it" in row.found
    assert row.commands == (
        "sudo usermod -aG kvm libvirt-qemu",
        f"sudo chown root:kvm {daemons.KVM}",
        f"sudo chmod 0660 {daemons.KVM}",
        "sudo systemctl restart libvirtd",
    )


def test_without_a_service_manager_the_set_up_restarts_libvirt(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "SERVICE_MANAGER", machine.root / "none")
    assert checks.device(FakeSystem(), "0:0 0640", CLOSED).commands[-1] == checks.SET_UP
    monkeypatch.setattr(daemons, "wanted_kvm_state", lambda: DEVICE)
    assert checks.device(FakeSystem(), "0:0 0600", CLOSED).commands == (checks.SET_UP,)


@pytest.mark.parametrize(
    ("found", "state", "text"),
    [
        (Evidence("", None, None, None), State.NA, "not tried: no "),
        (Evidence("0:0 0600", CLOSED, None, None), State.NA, "can't be opened"),
        (Evidence(DEVICE, OPEN, proof(why="hung"), None), State.WARN, "BIOS guest on it hung"),
        (Evidence(DEVICE, OPEN, proof(), None), State.WARN, "neither vmx nor svm"),
        (Evidence(DEVICE, OPEN, proof(nesting="vmx"), None), State.OK, "in 0.4 s and sees vmx"),
    ],
)
def test_the_row_of_kvm_tells_how_the_guest_fared(found: Evidence, state: State, text: str) -> None:
    row = checks.kvm_guest(found)
    assert row.state is state
    assert text in row.found


def test_emulation_that_runs_no_guest_makes_labs_impossible() -> None:
    broken = Evidence("", None, None, proof("tcg", why="did not come up"))
    assert checks.emulated_guest(broken).state is State.FAIL
    works = Evidence("", None, None, proof("tcg", nesting="svm"))
    assert checks.emulated_guest(works).state is State.OK
    assert checks.emulated_guest(Evidence(DEVICE, OPEN, proof(), None)).state is State.NA


def test_missing_packages_make_labs_impossible_and_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "missing", lambda _system: ["xorriso", "ovmf"])
    row = checks.programs(FakeSystem(root=False))
    assert row.state is State.FAIL
    assert row.commands == ("sudo apt-get install --no-install-recommends xorriso ovmf",)
    assert checks.programs(FakeSystem(lacking=frozenset({"apt-get"}))).commands == ()
    monkeypatch.setattr(packages, "missing", lambda _system: [])
    assert checks.programs(FakeSystem()).state is State.OK


def test_qemus_version_is_told_and_its_absence_makes_labs_impossible() -> None:
    told = Result(0, "QEMU emulator version 7.2.22 (Debian 1:7.2)\n")
    row = checks.qemu(FakeSystem({f"{bootproof.QEMU} --version": told}))
    assert (row.state, row.found) == (State.OK, "7.2.22, /usr/bin/qemu-system-x86_64")
    gone = checks.qemu(FakeSystem())
    assert (gone.state, gone.commands) == (State.FAIL, (checks.SET_UP,))


VERSIONS = "Running hypervisor: QEMU 7.2.22\nRunning against daemon: 9.0.0\n"


def test_libvirt_is_told_with_its_version_and_home(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = FakeSystem({"virsh -c qemu:///system version --daemon": Result(0, VERSIONS)})
    row = checks.libvirt(system)
    expected = "9.0.0 with QEMU 7.2.22, in network namespace nestlab"
    assert (row.state, row.found) == (State.OK, expected)
    monkeypatch.setattr(daemons, "where", lambda _pid: "")
    assert checks.libvirt(system).found.endswith("run by systemd")
    monkeypatch.setattr(daemons, "SERVICE_MANAGER", machine.root / "none")
    assert checks.libvirt(system).found.endswith("not started by nestlab")


def _nobody() -> int | None:
    return None


def _refused() -> int | None:
    raise Problem("permission denied. Join the group.")


def test_a_libvirt_that_does_not_answer_makes_labs_impossible(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine
    assert checks.libvirt(FakeSystem()).state is State.FAIL, "virsh does not get through"
    monkeypatch.setattr(daemons, "libvirt_pid", _nobody)
    assert checks.libvirt(FakeSystem()).commands == (checks.SET_UP,)
    monkeypatch.setattr(daemons, "libvirt_pid", _refused)
    row = checks.libvirt(FakeSystem())
    assert (row.state, row.found) == (State.FAIL, "permission denied. Join the group.")


def test_a_quick_domain_is_fine_whatever_else_is_slow() -> None:
    row = checks.domain(FakeSystem(), "qemu", Trip(0.3, 1.6), SLOW, CLOSED)
    expected = "created in 0.3 s, destroyed in 1.6 s (type qemu)"
    assert (row.state, row.found) == (State.OK, expected)


def test_a_slow_domain_names_each_cause_that_is_met(machine: Machine) -> None:
    del machine
    slow = Trip(50.2, 12.0)
    both = checks.domain(FakeSystem(), "kvm", slow, SLOW, CLOSED)
    assert both.state is State.WARN
    assert f"libvirt-qemu can't open {daemons.KVM}" in both.found
    assert "process 1 (init) collects dead processes only after up to 1.7 s" in both.found
    assert any("chmod 0660" in command for command in both.commands)
    reaper = checks.domain(FakeSystem(), "kvm", slow, SLOW, OPEN)
    assert "can't open" not in reaper.found
    assert reaper.commands == ()
    assert "process 1" not in checks.domain(FakeSystem(), "kvm", slow, QUICK, CLOSED).found
    neither = checks.domain(FakeSystem(), "kvm", slow, QUICK, OPEN)
    assert "neither cause known" in neither.found


def test_a_domain_that_can_not_be_made_makes_labs_impossible() -> None:
    row = checks.domain(FakeSystem(), "qemu", Trip(why="no such machine type"), QUICK, OPEN)
    assert row.state is State.FAIL
    assert "no such machine type" in row.found


@pytest.mark.parametrize(("reaping", "state"), [(QUICK, State.OK), (SLOW, State.WARN)])
def test_a_process_one_that_collects_late_is_told(reaping: Reaping, state: State) -> None:
    row = checks.process_one(reaping)
    assert row.state is state
    assert reaping.reaper in row.found


@pytest.mark.parametrize(
    ("total", "available", "state"),
    [(8192, 6144, State.OK), (8192, 2048, State.WARN), (2048, 2000, State.FAIL)],
)
def test_memory_is_held_against_what_is_free_and_what_there_is(
    machine: Machine, total: int, available: int, state: State
) -> None:
    machine.meminfo(total=total, available=available)
    row = checks.memory("local", NEEDS)
    assert row.state is state
    assert f"4096 MiB, {available} MiB available of {total} MiB" in row.found


def test_a_containers_limit_is_its_memory(machine: Machine) -> None:
    machine.file("memory.max", f"{3 << 30}\n")
    assert checks.memory("local", NEEDS).state is State.FAIL
    machine.file("memory.max", "max\n")
    assert checks.memory("local", NEEDS).state is State.OK


@pytest.mark.parametrize(("free", "state"), [(100.0, State.OK), (5.0, State.WARN)])
def test_a_disk_that_could_fill_up_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, state: State
) -> None:
    monkeypatch.setattr(capacity, "disk_free_gib", lambda folder: (folder, free))
    assert checks.disk("local", NEEDS, tmp_path).state is state


def test_the_disk_is_looked_at_where_its_folder_would_be_made(tmp_path: Path) -> None:
    at, free = capacity.disk_free_gib(tmp_path / "not" / "yet")
    assert at == tmp_path
    assert free > 0


@pytest.mark.parametrize(("cores", "state"), [(2, State.OK), (8, State.OK), (9, State.WARN)])
def test_many_virtual_cores_on_few_real_ones_are_told(
    machine: Machine, cores: int, state: State
) -> None:
    del machine
    row = checks.cores("local", Needs(uri="qemu:///system", cores=cores))
    assert row.state is state
    assert f"{cores} virtual cores on 2 real ones" in row.found


@pytest.mark.parametrize(
    "needs",
    [Needs(why="there is no stacks/Pulumi.x.yaml"), Needs(uri="qemu+ssh://root@far/system")],
)
def test_what_can_not_be_held_against_a_stack_says_so(machine: Machine, needs: Needs) -> None:
    rows = [
        checks.memory("x", needs),
        checks.disk("x", needs, machine.root),
        checks.cores("x", needs),
        checks.address_ranges(FakeSystem(), needs, ""),
        nics.nics(FakeSystem(), needs, ""),
    ]
    assert {row.state for row in rows} == {State.NA}
    reason = needs.why or "the stack's outer host is qemu+ssh://root@far/system"
    assert all(f"not checked: {reason}" in row.found for row in rows)


@pytest.mark.parametrize(
    ("problems", "risks", "state"),
    [
        ([], [], State.OK),
        ([], ["network o: iptables drops what is forwarded"], State.WARN),
        (["network o: wlan0 is wireless"], ["network o: it drops"], State.FAIL),
    ],
)
def test_network_cards_are_told_with_who_manages_them(
    machine: Machine, problems: list[str], risks: list[str], state: State
) -> None:
    del machine
    found = [
        {"name": "eno1", "wireless": False, "manager": ""},
        {"name": "wlan0", "wireless": True, "manager": "NetworkManager"},
    ]
    told = json.dumps({"nics": found, "problems": problems, "risks": risks})
    system = FakeSystem({"ip netns exec nestlab": Result(0, told)})
    row = nics.nics(system, NEEDS, "nestlab")
    assert row.state is state
    assert "eno1 (no manager), wlan0 (wireless, NetworkManager)" in row.found
    assert row.advice == " ".join(problems or risks)
    assert nics.nics(FakeSystem(), NEEDS, "").state is State.NA


def test_the_engine_is_looked_for_where_the_commands_take_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = machine.file("venv/bin/python3", "")
    monkeypatch.setattr(paths, "ROOT", machine.root)
    monkeypatch.setattr(paths, "BIN", machine.root / "bin")
    monkeypatch.setattr(stack_needs, "PYTHON", machine.root / "none")
    assert "Python environment" in checks.engine().found
    monkeypatch.setattr(stack_needs, "PYTHON", python)
    assert (checks.engine().state, checks.engine().commands) == (State.WARN, (checks.BUILD,))
    machine.file("bin/pulumi", "")
    assert checks.engine().found == "bin/pulumi"
