"""The command runs once for each student, some at a time; what becomes of one is nobody else's matter."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from classroom import acts, planning, progress, register, roster, status
from classroom.work import Crew, Outcome, Task, Watch, shown
from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from classroom.planning import Planned

CHECKOUT = paths.ROOT
NESTLAB = """\
import os, signal, sys, time
words = sys.argv[1:]
with open("calls", "a") as calls:
    calls.write(" ".join(words) + "\\n")
def note(what):
    with open("times", "a") as times:
        times.write(f"{what} {words[1]}\\n")
note("began")
print("what would change ...", flush=True)
print("Updating (net1." + words[1] + "):", flush=True)
if {"slow", "cut"} & {*words}:
    try:
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        if "cut" in words:
            print("error: failed to run remediation: context canceled", file=sys.stderr)
            sys.exit(1)
        print("stopped; the same command carries on from here", file=sys.stderr)
        sys.exit(130)
time.sleep(0.3)
note("ended")
if "fails" in words:
    print("\\033[31merror:\\033[0m it can't be", file=sys.stderr)
    print("  because", file=sys.stderr)
    sys.exit(1)
print("all is well")
"""
"""What stands in for the command: it notes its words, and does as they say."""


class Heard(Watch):
    """Notes what it is told; ``then`` is done at the first sight of each phase."""

    def __init__(self, then: Callable[[str, str], None] = lambda *_: None) -> None:
        self.then = then
        self.phases: list[tuple[str, str]] = []
        self.results: list[Outcome] = []

    @override
    def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
        if (student, phase) not in self.phases:
            self.phases.append((student, phase))
            self.then(student, phase)

    @override
    def ended(self, result: Outcome) -> None:
        self.results.append(result)

    @override
    def tick(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "nestlab").write_text(NESTLAB)
    return tmp_path


def task(folder: Path, student: str, *more: str, again: bool = False) -> Task:
    words = ["up", student, *more]
    return Task(student, [["down", student, *more], words] if again else [words], folder / student)


def most_at_once(folder: Path) -> int:
    now = most = 0
    for line in (folder / "times").read_text().splitlines():
        now += 1 if line.startswith("began") else -1
        most = max(most, now)
    return most


def test_so_many_at_a_time_in_their_order(folder: Path) -> None:
    heard = Heard()
    results = Crew(2, heard).run([task(folder, f"s{n}") for n in range(5)])
    assert [each.student for each in results] == ["s0", "s1", "s2", "s3", "s4"]
    assert all(each.ok for each in results)
    assert most_at_once(folder) == 2
    assert heard.phases[:2] == [("s0", "checking"), ("s1", "checking")]
    assert ("s0", "making") in heard.phases
    assert len(heard.results) == 5


def test_one_that_fails_stops_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [task(folder, "ana", "fails"), task(folder, "bob")]
    ana, bob = results = Crew(1, Heard()).run(tasks)
    assert (ana.code, ana.last) == (1, "it can't be")
    assert (bob.code, bob.last) == (0, "")
    assert acts.summary("up", results) == 1
    said = capsys.readouterr().err
    assert "up: 1 of 2 labs" in said
    assert f"ana: it can't be (log: {os.path.relpath(folder / 'ana')})" in said
    log = (folder / "ana").read_text()
    assert log.startswith("# nestlab up ana fails\n")
    assert "because" in log


def test_what_one_command_said_last_is_not_told_of_the_next(folder: Path) -> None:
    told: list[tuple[str, str]] = []

    class Last(Heard):
        @override
        def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
            told.append((phase, last))

    Crew(1, Last()).run([task(folder, "ana", again=True)])
    assert ("checking", "") in told[1:], "the second command has said nothing when it begins"


def test_logs_are_their_owner_s_and_of_the_last_command_alone(folder: Path) -> None:
    (folder / "ana").write_text("old")
    (folder / "ana").chmod(0o666)
    old = os.umask(0)
    try:
        Crew(1, Heard()).run([task(folder, "ana")])
    finally:
        os.umask(old)
    assert (folder / "ana").stat().st_mode & 0o777 == 0o600
    assert "old" not in (folder / "ana").read_text()


def test_one_command_comes_after_the_other_if_that_did_what_it_should(folder: Path) -> None:
    ana, bob = Crew(1, Heard()).run(
        [task(folder, "ana", again=True), task(folder, "bob", "fails", again=True)]
    )
    assert (ana.code, bob.code) == (0, 1)
    assert (folder / "calls").read_text().splitlines() == ["down ana", "up ana", "down bob fails"]


@pytest.mark.parametrize("ends", ["slow", "cut"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_what_runs_and_begins_nothing(
    number: signal.Signals, ends: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(_: str, phase: str) -> None:
        if phase == "making":
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    crew = Crew(1, Heard(press))
    ana, bob = results = crew.run([task(folder, "ana", ends), task(folder, "bob")])
    assert (ana.code, bob.code, bob.last) == (130, None, "not begun")
    assert acts.summary("up", results) == 130
    assert "not up are ana and bob: the same command goes on from there" in capsys.readouterr().err
    assert "bob" not in (folder / "calls").read_text()
    assert signal.getsignal(number) is before


def test_between_two_commands_it_ends_too(folder: Path) -> None:
    """Down was done, up was not begun: the lab is not there, and that is told."""
    heard = Heard(lambda _, phase: crew.stop() if phase == "making" else None)
    crew = Crew(1, heard)
    text = NESTLAB.replace("    except KeyboardInterrupt:", "    except ValueError:")
    (folder / "nestlab").write_text("import signal\nsignal.signal(2, signal.SIG_IGN)\n" + text)
    (ana,) = crew.run([task(folder, "ana", again=True)])
    assert ana.code == 130
    assert (folder / "calls").read_text() == "down ana\n"


def test_in_the_background_ctrl_c_is_somebody_else_s(folder: Path) -> None:
    """A job that ignores SIGINT goes on; and its commands can be ended all the same."""
    text = f"""
import sys, pathlib
sys.path.insert(0, {str(CHECKOUT)!r})
from toolchain import lab
from toolchain.bootstrap import paths, ui
paths.ROOT = pathlib.Path({str(folder)!r})
import os, signal, threading
from classroom.work import Crew, Task
from tests.unit.classroom.test_class_work import Heard, task
crew = Crew(1, Heard(lambda _, phase: phase == "making" and os.kill(os.getpid(), {int(signal.SIGINT)})))
print(crew.run([task(paths.ROOT, "ana")])[0].code, crew.stopped)
crew = Crew(1, Heard(lambda _, phase: phase == "making" and os.kill(os.getpid(), {int(signal.SIGTERM)})))
print(crew.run([task(paths.ROOT, "bob", "slow")])[0].code, crew.stopped)
"""
    done = subprocess.run(
        ["sh", "-c", f"trap '' INT; exec {sys.executable} -c \"$TEXT\""],
        env={**os.environ, "TEXT": text},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["0 False", "130 True"], done.stderr


def test_what_is_shown_can_be_seen_and_has_an_end() -> None:
    assert shown("a\x07\u202eb") == "ab"
    assert len(shown("x" * 1000)) == 120


RESULT = Outcome("ana", 1, 12.4, "it can't be", paths.LOCAL / "ana.log")


def test_programs_are_told_in_json() -> None:
    out = io.StringIO()
    told = progress.Programs(out)
    told.seen("ana", "making", 3.14, 'a "b"')
    told.ended(RESULT)
    one, two = (json.loads(each) for each in out.getvalue().splitlines())
    assert one == {
        "event": "seen",
        "student": "ana",
        "phase": "making",
        "seconds": 3.1,
        "last": 'a "b"',
    }
    assert (two["event"], two["phase"], two["code"]) == ("ended", "failed", 1)


def test_a_log_has_a_line_for_each_phase_and_a_few_for_long_ones() -> None:
    out = io.StringIO()
    told = progress.Lines(out, 3)
    for seconds in range(0, 50, 5):
        told.seen("ana", "making", seconds, f"thing {seconds}")
    told.ended(RESULT)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[-1] for line in lines[:-1]] == ["thing 0", "thing 20", "thing 40"]
    assert lines[-1].split() == ["ana", "failed", "12", "s", "it", "can't", "be"]


def test_a_terminal_has_a_line_for_each_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_columns", lambda: 30)
    out = io.StringIO()
    told = progress.Terminal(out, 3)
    told.seen("ana", "making", 3, "x" * 100)
    told.seen("bob", "checking", 1, "")
    told.tick()
    told.ended(RESULT)
    drawn = out.getvalue()
    assert drawn.count("\033[A") == 2, "both lines are drawn anew"
    assert all(len(line.split("\r")[-1]) <= 30 + len("\033[K") for line in drawn.splitlines())
    assert drawn.rstrip().splitlines()[-1].startswith("bob  checking")


# Labs that go -----------------------------------------------------------------------------------


@pytest.fixture
def kept(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> register.Register:
    """A class of three whose labs stand, and of whom one has left."""
    made = register.Register("net1", roster="x", template="course")
    for number, id_ in enumerate(("ana", "bob", "eva")):
        made.students[id_] = register.Given(
            id_, {"lab": f"10.112.{number}.0/24"}, left=id_ == "bob", lab={"memory_mib": 2048}
        )
        (checkout / "stacks" / f"Pulumi.net1.{id_}.yaml").write_text(
            "# Made by `nestlab class`, which writes it anew and removes it: change the template or the roster.\n"
        )
    made.write()
    (checkout / "nestlab").write_text(NESTLAB.replace("words[1]", "words[2]"))
    stand = {"net1.ana", "net1.bob", "net1.eva"}

    def standing() -> set[str]:
        calls = checkout / "calls"
        gone = calls.read_text() if calls.exists() else ""
        return {each for each in stand if f"--stack {each}\n" not in gone}

    monkeypatch.setattr(acts, "standing", standing)
    return made


def stacks(checkout: Path) -> list[str]:
    return sorted(each.name for each in (checkout / "stacks").iterdir())


def test_who_left_is_taken_down_and_forgotten_and_the_others_keep_what_they_have(
    kept: register.Register, checkout: Path
) -> None:
    results = acts.down(kept, Crew(1, Heard()), left=True)
    assert [each.student for each in results] == ["bob"]
    assert sorted(register.read("net1").students) == ["ana", "eva"]
    assert stacks(checkout) == [
        "Pulumi.course.yaml",
        "Pulumi.net1.ana.yaml",
        "Pulumi.net1.eva.yaml",
    ]
    acts.down(kept, Crew(1, Heard()))
    again = register.read("net1").students
    assert {id_: each.subnets["lab"] for id_, each in again.items()} == {
        "ana": "10.112.0.0/24",
        "eva": "10.112.2.0/24",
    }
    assert stacks(checkout) == ["Pulumi.course.yaml"]


def test_a_lab_that_does_not_go_is_not_forgotten(
    kept: register.Register, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "standing", lambda: {"net1.ana", "net1.bob", "net1.eva"})
    acts.down(kept, Crew(3, Heard()))
    assert sorted(register.read("net1").students) == ["ana", "bob", "eva"]
    assert len(stacks(checkout)) == 4


def test_a_student_who_is_none(kept: register.Register) -> None:
    with pytest.raises(Exception, match="did you mean 'ana'"):
        acts.down(kept, Crew(1, Heard()), ["anna"])


def test_what_a_policy_stopped_is_the_reason(folder: Path) -> None:
    text = (
        "import sys\nprint('    - [mandatory]  isolation  (libvirt:index:Network: lab)')\n"
        "print('    error: update failed')\nsys.exit(1)\n"
    )
    (folder / "nestlab").write_text(text)
    (ana,) = Crew(1, Heard()).run([task(folder, "ana")])
    assert ana.last == "policy isolation  (libvirt:index:Network: lab)"


# Snapshots --------------------------------------------------------------------------------------


def of_three(checkout: Path, monkeypatch: pytest.MonkeyPatch, stand: set[str]) -> Planned:
    """A class of three of whom some have labs."""
    (checkout / "nestlab").write_text(NESTLAB.replace("words[1]", "words[-1]"))
    monkeypatch.setattr(acts, "standing", lambda: stand)
    monkeypatch.setattr(lab, "prepare", lambda *_: None)
    file = checkout / "net1.csv"
    file.write_text("id\nana\nbob\neva\n")
    return planning.planned(
        roster.read(file), "course", file=str(file), standing=stand, anyway=True
    )


def called(checkout: Path) -> list[str]:
    return sorted((checkout / "calls").read_text().splitlines())


@pytest.mark.parametrize("warm", [True, False])
def test_of_a_lab_that_is_new_a_snapshot_is_taken_and_of_no_other(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    """One that stands may have been worked in: a snapshot of it would be no beginning."""
    made = of_three(checkout, monkeypatch, {"net1.ana"})
    results = acts.up(made, Crew(3, Heard()), lose=False, policies=True, warm=warm)
    assert all(each.ok for each in results)
    taken = [f"snapshot take --if-possible --stack net1.{each}" for each in ("bob", "eva") if warm]
    ups = [f"up --stack net1.{each} --no-select" for each in ("ana", "bob", "eva")]
    assert called(checkout) == sorted([*taken, *ups])


@pytest.mark.parametrize("anew", [True, False])
def test_a_reset_is_the_command_s_own_and_counts_what_a_lab_that_went_has_used(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    began = dt.datetime.now(tz=dt.UTC) - dt.timedelta(hours=2)

    def since(_: str) -> dt.datetime:
        ran = (checkout / "calls").exists()
        return dt.datetime.now(tz=dt.UTC) if anew and ran else began

    monkeypatch.setattr(status, "since", since)
    made = of_three(checkout, monkeypatch, {"net1.ana", "net1.bob", "net1.eva"})
    acts.reset(made, Crew(3, Heard()), ["bob"], policies=False, cold=anew)
    more = "--cold --no-policies" if anew else "--no-policies"
    assert called(checkout) == [f"reset --lose {more} --stack net1.bob"]
    bob = register.read("net1").students["bob"]
    used = 2 * bob.lab["memory_mib"] / 1024
    assert bob.spent == pytest.approx(used if anew else 0, rel=0.01)


@pytest.mark.parametrize("may", [True, False])
def test_networks_that_this_user_cant_close_are_told_before_any_lab_is_begun(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    monkeypatch.setattr(System, "is_root", lambda _: False)
    monkeypatch.setattr(System, "can_sudo", lambda _: may)
    made = of_three(checkout, monkeypatch, set())
    if may:
        assert all(each.ok for each in acts.up(made, Crew(3, Heard()), lose=False, policies=True))
        return
    with pytest.raises(ui.Problem, match=r"takes root here \(.*write `closed: false`"):
        acts.up(made, Crew(3, Heard()), lose=False, policies=True)
    assert not (checkout / "calls").exists()
    assert register.read("net1").students == {}
