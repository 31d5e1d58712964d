"""The whole doctor on a fake machine: what it prints, keeps, and ends with."""

from __future__ import annotations

import json
import platform
import re
import sys
from typing import TYPE_CHECKING

import pytest

from components.kinds.libvirt.uplink.steps import Wanted
from tests.unit.toolchain.doctor_fakes import BOOTED, FakeSystem, Machine, qemu
from toolchain import stack_check
from toolchain.bootstrap import paths
from toolchain.bootstrap.ui import Problem
from toolchain.doctor import bootproof, checks, stack_needs, trial
from toolchain.doctor import command as doctor
from toolchain.doctor.report import State
from toolchain.machine import daemons, packages
from toolchain.machine.system import Result

if TYPE_CHECKING:
    from pathlib import Path

VIRSH = "virsh -q -c qemu:///system"
STACK = """\
config:
  nestlab:lab:
    name: tiny
    networks:
      lab: {mode: nat, subnet: 10.77.0.0/24}
    hypervisors:
      one: {kind: kvm, memory_mib: 2048, cores: 2, disk_gib: 9, network: lab}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.make_device()
    made.nested("kvm_intel", "Y")
    made.file("stacks/Pulumi.local.yaml", STACK)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(packages, "missing", lambda _system: [])
    monkeypatch.setattr(trial, "reaping", lambda _system: trial.Reaping(0.01, "process 1 (init)"))
    return made


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    made = FakeSystem(
        {
            "setpriv --reuid 64055": Result(0),
            qemu("kvm"): Result(0, BOOTED.format(vmx=1, svm=0)),
            qemu("tcg"): Result(0, BOOTED.format(vmx=0, svm=1)),
            f"{bootproof.QEMU} --version": Result(0, "QEMU emulator version 9.1.0"),
            "virsh -c qemu:///system version": Result(0, "Running against daemon: 10.0.0"),
            f"{VIRSH} list": Result(0),
            f"{VIRSH} -t create": Result(0, "(Time: 300.0 ms)\n(Time: 200.0 ms)\n"),
        }
    )
    monkeypatch.setattr(doctor, "System", lambda: made)
    return made


def test_a_sound_machine_is_told_row_by_row_and_ends_with_zero(
    machine: Machine, system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine, system
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    for row in ("processor", "nested KVM", "KVM guest", "emulation", "QEMU", "libvirt", "domain"):
        assert row in said
    assert "created in 0.3 s, destroyed in 0.2 s (type kvm)" in said
    assert "Guests run on KVM: a BIOS guest runs on KVM and sees vmx." in said
    assert "\033" not in said, "no colour into a pipe"
    assert json.loads(paths.HOST_JSON.read_text())["accelerator"] == "kvm"


def test_an_unusable_kvm_leads_to_emulated_domains(
    machine: Machine, system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine
    system.answers[qemu("kvm")] = Result(124, "nestlab: started vmx=0 svm=0\n")
    assert doctor.main([]) == 0, "labs run all the same"
    said = " ".join(capsys.readouterr().out.split())
    assert "(type qemu)" in said
    assert "Guests are emulated (TCG): " in said
    assert "did not come up within 10 s: its 32-bit code hangs or crawls." in said
    assert json.loads(paths.HOST_JSON.read_text())["accelerator"] == "tcg"


def test_without_qemu_the_doctor_ends_with_one_and_keeps_no_verdict(
    machine: Machine, system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine
    doctor.main([])
    system.lacking = frozenset({bootproof.QEMU})
    del system.answers[f"{bootproof.QEMU} --version"]
    system.asked.clear()
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "Labs can't run here until this is mended: emulation, QEMU." in said
    assert not paths.HOST_JSON.exists()
    assert not [line for line in system.asked if "create" in line], "nothing to make a domain with"


def test_without_libvirt_the_doctor_ends_with_one_and_tries_no_domain(
    machine: Machine, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine

    def refused() -> int | None:
        raise Problem("permission denied")

    monkeypatch.setattr(daemons, "libvirt_pid", refused)
    assert doctor.main([]) == 1
    assert doctor.main(["--quick"]) == 1
    assert not [line for line in system.asked if "create" in line]


def test_quick_starts_no_guest_while_the_last_verdict_holds(
    machine: Machine, system: FakeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    del machine
    doctor.main([])
    capsys.readouterr()
    system.asked.clear()
    assert doctor.main(["--quick"]) == 0
    started = [line for line in system.asked if "create" in line or "-accel" in line]
    assert not started
    said = capsys.readouterr().out
    assert "(tried " in said
    assert "opened as libvirt-qemu" in said


def test_quick_tries_once_where_nothing_is_known(machine: Machine, system: FakeSystem) -> None:
    del machine
    assert doctor.main(["--quick"]) == 0
    assert paths.HOST_JSON.exists()
    assert not [line for line in system.asked if "create" in line]


def test_a_stack_that_is_not_there_is_told(
    machine: Machine,
    system: FakeSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del system
    monkeypatch.setattr(paths, "ROOT", machine.root)
    assert doctor.main(["--stack", "nowhere"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    told = "There is no stacks/Pulumi.nowhere.yaml. Known stacks: local."
    assert f"fail stack nowhere can't be deployed {told}" in said
    assert said.count("not checked: see stack") == 5


def test_a_stack_too_large_for_the_machine_ends_with_one(
    machine: Machine,
    system: FakeSystem,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del machine, system
    needs = stack_needs.Needs(uri="qemu:///system", memory_mib=9000, cores=1)
    monkeypatch.setattr(stack_needs, "ask", lambda _system, _stack: needs)
    assert doctor.main(["--stack", "class"]) == 1
    assert "stack class takes 9000 MiB" in capsys.readouterr().out


def test_needs_are_asked_of_the_environments_python(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.file("stacks/Pulumi.tiny.yaml", STACK)
    monkeypatch.setattr(stack_needs, "PYTHON", machine.root / "none")
    assert "is not there yet" in stack_needs.ask(FakeSystem(), "tiny").why
    monkeypatch.setattr(stack_needs, "PYTHON", machine.file("python3", ""))
    told = json.dumps({"lab": "tiny", "memory_mib": 2048})
    system = FakeSystem({f"{machine.root}/python3 -B -c": Result(0, told)})
    assert stack_needs.ask(system, "tiny").memory_mib == 2048
    assert system.asked[0].endswith(" tiny")
    broken = FakeSystem({f"{machine.root}/python3 -B -c": Result(1, err="Trace\nKeyError: 'x'")})
    assert stack_needs.ask(broken, "tiny").why.endswith("failed: KeyError: 'x'")


def test_a_stacks_uplinks_are_needs_and_no_subnets_of_its_own(machine: Machine) -> None:
    networks = (
        "    networks:\n"
        "      lan: {mode: bridge, uplink: {nic: eno1, vlan: 7}}\n"
        "      air: {mode: route, subnet: 192.168.1.192/28, uplink: {nic: wlan0, proxy_arp: true}}\n"
    )
    text = f"config:\n  nestlab:lab:\n    name: tiny\n{networks}"
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", text))
    assert needs.subnets == {}, "it is a part of the network that the host is on"
    wanted = {name: Wanted(**each) for name, each in needs.uplinks.items()}
    assert (wanted["lan"].mode, wanted["lan"].port, wanted["lan"].vlan) == ("bridge", "eno1.7", 7)
    assert (wanted["air"].mode, wanted["air"].subnet) == ("proxy_arp", "192.168.1.192/28")


def test_needs_come_from_the_stacks_own_model(machine: Machine) -> None:
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", STACK))
    assert needs == stack_needs.Needs(
        lab="tiny",
        uri="qemu:///system",
        memory_mib=2048,
        disk_gib=9,
        cores=2,
        pool_path="/var/lib/libvirt/nestlab/tiny",
        subnets={"lab": "10.77.0.0/24"},
    )
    assert needs.networks == ("tiny-lab",)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("    host: {uri: qemu+ssh://lab@server/system, accelerator: kvm}\n", "one that you allow"),
        ("    media:\n      x: {path: /etc/shadow}\n", "a stack may name files of"),
        ("  nestlab:hostPassword: hunter2\n", "stands in the stack file in clear"),
        ("    boot: !!bool x\n", "which it is said to be"),
    ],
)
def test_what_up_refuses_at_once_is_not_ready_the_day_before(
    more: str, told: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.root))
    monkeypatch.delenv("NESTLAB_ALLOW")
    networks = STACK.partition("    hypervisors:")[0]
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", networks + more))
    assert told in needs.refused
    assert checks.stack_file("tiny", needs).state is State.FAIL


def test_files_that_a_stack_names_and_nobody_downloaded_are_told_the_day_before(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_check, "there", lambda path: path.endswith("/here.iso"))
    media = "    media:\n      here: {path: here.iso}\n      gone: {path: media/gone.iso}\n"
    guests = "    guests:\n      a: {iso: here, network: lab}\n      b: {iso: gone, network: lab}\n"
    text = STACK.replace("    networks:", f"{media}    networks:") + guests
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", text))
    row = checks.stack_file("tiny", needs)
    assert (row.state, needs.memory_mib) == (State.FAIL, 2048 + 2 * 512)
    assert row.found == "tiny names files that are not there: media/gone.iso"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "can't be read"),
        ("config: {}", "nestlab:lab is not in the stack file"),
        ("", "holds no mapping `config`"),
        (STACK.replace("kind: kvm", "kind: kvn"), r"lab\.hypervisors\.one\.kind: .*'kvm'"),
        (STACK.replace("cores: 2", "cores: 1"), r"lab\.hypervisors\.one\.cores: 1 core given"),
        (f"{STACK}      one: {{}}\n", "'one' given, but line 7 has it already"),
    ],
)
def test_a_stack_that_is_refused_is_told_once_in_the_words_of_a_preview(
    machine: Machine, text: str, told: str
) -> None:
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", text))
    row = checks.stack_file("tiny", needs)
    assert (row.state, needs.why) == (State.FAIL, "see stack")
    assert re.search(told, row.advice)
    assert "validation error" not in row.advice


def test_a_stack_that_only_the_engine_reads_is_not_refused(machine: Machine) -> None:
    text = STACK.replace("name: tiny", "name: {secure: v1:abc}")
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", text))
    assert checks.stack_file("tiny", needs).state is State.NA
    assert "only the engine reads" in needs.why


def test_a_model_that_is_not_there_yet_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "components.stackfile.plan", None)
    needs = stack_needs.read(machine.file("Pulumi.tiny.yaml", STACK))
    assert needs.why.startswith("the stack's model can't be loaded")


def test_a_polite_end_passes_through_the_clean_up() -> None:
    with pytest.raises(SystemExit) as ended:
        doctor._leave(15, None)
    assert ended.value.code == 143
