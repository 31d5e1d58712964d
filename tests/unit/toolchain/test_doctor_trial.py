"""What the doctor makes on a real libvirt must be gone afterwards, whatever happened."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from typing_extensions import override

from tests.unit.toolchain.doctor_fakes import BOOTED, FakeSystem
from toolchain.doctor import bootproof, trial
from toolchain.machine import processes
from toolchain.machine.system import Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

read = ET.fromstring  # XML that the code under test wrote
VIRSH = "virsh -q -c qemu:///system"
NAME = f"nestlab-doctor-{os.getpid()}"
TIMES = "\n(Time: 312.250 ms)\n\n\n(Time: 1620.000 ms)\n\n"
ERRORS = (
    "error: Failed to create domain from /dev/stdin\n"
    "error: internal error: 2026-01-01T00:00:00.000001Z qemu-system-x86_64: error: no memory\n"
    "error: failed to get domain\n"
)


def libvirt(**answers: Result) -> FakeSystem:
    system = FakeSystem({f"{VIRSH} list": Result(0, ""), f"{VIRSH} destroy": Result(0)})
    for verb, answer in answers.items():
        system.answers[f"{VIRSH} {verb.replace('_', ' ')}"] = answer
    return system


def test_a_round_trip_takes_both_times_on_one_connection_that_cleans_up() -> None:
    system = libvirt(_t=Result(0))
    system.answers[f"{VIRSH} -t create"] = Result(0, TIMES)
    assert trial.round_trip(system, "qemu") == trial.Trip(0.31225, 1.62)
    assert system.asked[-1].endswith(f"create --autodestroy /dev/stdin; destroy {NAME}")
    assert system.asked[0] == f"{VIRSH} list --name", "what was left over is swept up first"
    domain = read(system.given[-1])
    assert (domain.get("type"), domain.findtext("name")) == ("qemu", NAME)
    assert domain.findtext("memory") == "32"


def test_a_domain_that_can_not_be_made_is_told_by_libvirts_reason() -> None:
    system = libvirt()
    system.answers[f"{VIRSH} -t create"] = Result(1, "(Time: 9.0 ms)\n(Time: 1.0 ms)\n", ERRORS)
    assert trial.round_trip(system, "kvm").why == "internal error: no memory"


def test_a_domain_that_takes_for_ever_is_given_up() -> None:
    system = libvirt()
    system.answers[f"{VIRSH} -t create"] = Result(124, err="virsh did not end within 120 s")
    assert trial.round_trip(system, "kvm").why == "virsh did not end within 120 s"


def test_left_overs_of_dead_doctors_are_destroyed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def identify(pid: int) -> processes.Process | None:
        return processes.Process(pid, 1, "boot") if pid == 41 else None

    monkeypatch.setattr(processes, "identify", identify)
    names = "nestlab-doctor-40\nnestlab-doctor-41\nnestlab-doctor-x\nlocal-kvm1\n"
    system = libvirt(list=Result(0, names))
    trial.sweep(system)
    assert [line for line in system.asked if "destroy" in line] == [
        f"{VIRSH} destroy nestlab-doctor-40"
    ]


class Writing(FakeSystem):
    """A libvirt whose guest writes ``says`` when it is created, and runs ``rounds`` looks long."""

    says = ""
    rounds = 1

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        if "create" in argv:
            source = read(stdin).find("devices/serial/source")
            assert source is not None
            with open(source.get("path", ""), "a") as log:  # noqa: PTH123 - as QEMU does
                log.write(self.says)
        if "domstate" in argv:
            self.rounds -= 1
            super().run(argv)
            return Result(0 if self.rounds >= 0 else 1)
        return super().run(argv, timeout_s=timeout_s, stdin=stdin)


@pytest.mark.parametrize(
    ("says", "rounds", "booted", "why"),
    [
        (BOOTED.format(vmx=0, svm=1), 0, True, ""),
        (BOOTED.format(vmx=0, svm=1), 9, True, ""),
        ("", 1, False, "did not come up, its QEMU ended too soon"),
        ("nestlab: started vmx=0 svm=0\n", 999, False, "its 32-bit code hangs or crawls"),
    ],
)
def test_a_guest_booted_by_libvirt_is_judged_by_what_it_wrote(
    says: str, rounds: int, booted: bool, why: str
) -> None:
    system = Writing(libvirt(create=Result(0)).answers)
    system.says, system.rounds = says, rounds
    found = trial.prove(system, deadline_s=0.5)
    assert found.booted is booted
    assert why in found.why
    assert found.nesting == ("svm" if booted else "")
    assert system.asked[-1] == f"{VIRSH} destroy {NAME}"


def test_a_refusal_by_libvirt_is_told_and_swept_up() -> None:
    system = libvirt(create=Result(1, err=ERRORS))
    assert trial.prove(system).why == "was refused by libvirt: internal error: no memory"
    assert system.asked[-1] == f"{VIRSH} destroy {NAME}"


def test_an_interrupted_proof_still_destroys_its_domain() -> None:
    class Interrupted(FakeSystem):
        @override
        def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
            done = super().run(argv, timeout_s=timeout_s, stdin=stdin)
            if "create" in argv:
                raise KeyboardInterrupt
            return done

    system = Interrupted(libvirt(create=Result(0)).answers)
    with pytest.raises(KeyboardInterrupt):
        trial.prove(system)
    assert system.asked[-1] == f"{VIRSH} destroy {NAME}"


def test_qemus_user_may_open_what_the_proof_hands_to_it(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    class Looking(Writing):
        @override
        def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
            if "create" in argv:
                disk = read(stdin).find("devices/disk/source")
                assert disk is not None
                path = tmp_path / disk.get("file", "")
                seen.update(disk=path.stat().st_mode & 0o777, at=path.parent.stat().st_mode & 0o777)
                assert path.read_bytes() == bootproof.image()
            return super().run(argv, timeout_s=timeout_s, stdin=stdin)

    trial.prove(Looking(libvirt(create=Result(0)).answers), deadline_s=0.1)
    assert seen == {"disk": 0o666, "at": 0o755}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("dies", "collected", "slowest"),
    [(0.1, 0.1, 0.0), (0.1, 1.9, 1.8), (0.1, 999.0, trial.REAPING_DEADLINE_S - 0.1)],
)
def test_reaping_is_the_time_a_dead_orphan_stays(
    monkeypatch: pytest.MonkeyPatch, dies: float, collected: float, slowest: float
) -> None:
    clock = Clock()

    def state(pid: int) -> str:
        if pid == 8:  # collected at once
            return ""
        return "S" if clock.now < dies else "Z" if clock.now < collected else ""

    monkeypatch.setattr(
        trial, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep)
    )
    monkeypatch.setattr(trial, "_state", state)
    monkeypatch.setattr(processes, "parent", lambda _pid: 1)
    monkeypatch.setattr(processes, "name", lambda _pid: "init")
    found = trial.reaping(FakeSystem({"sh -c": Result(0, "7\n8\n")}))
    assert found.seconds == pytest.approx(slowest, abs=0.03)
    assert found.reaper == "process 1 (init)"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "PROC", tmp_path)
    return tmp_path


def test_a_state_is_read_behind_whatever_the_program_is_called(proc: Path) -> None:
    (proc / "9").mkdir()
    (proc / "9/stat").write_text("9 (a) b (c) Z 1 9 9")
    assert (trial._state(9), trial._state(10)) == ("Z", "")
