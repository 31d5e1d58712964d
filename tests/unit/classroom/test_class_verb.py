"""`nestlab class` as it is typed: what it prints, how it ends, and what it runs for each student."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from classroom import acts, register
from cli import app
from tests.unit.classroom.test_class_work import NESTLAB
from toolchain import lab
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def roster(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A roster of two in a checkout whose `nestlab` does nothing but note its words."""
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(lab, "prepare", lambda *_: None)
    monkeypatch.setattr(acts, "_others", list)
    (checkout / "nestlab").write_text(NESTLAB.replace("words[1]", "words[2]"))
    file = checkout / "net1.csv"
    file.write_text("id,name\nana,Ana\nbob,Bob\n")
    return file


def calls(roster: Path) -> list[str]:
    file = roster.parent / "calls"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def test_a_plan_is_the_bill_and_the_stack_files(
    roster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["class", "plan", "net1.csv", "-s", "course"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["STUDENT", "MEMORY", "DISK", "CORES", "ADDRESSES"]
    assert lines[1] == ["ana", "4096", "MiB", "8", "GiB", "2", "256"]
    assert lines[3] == ["altogether", "8192", "MiB", "16", "GiB", "4", "512"]
    assert lines[4][:5] == ["on", "this", "machine", "40960", "MiB"]
    stacks = {each.name for each in (roster.parent / "stacks").iterdir()}
    assert {"Pulumi.net1.ana.yaml", "Pulumi.net1.bob.yaml"} < stacks
    assert calls(roster) == []
    # The class is known by its name from now on, with its template.
    assert app.main(["class", "plan", "net1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["template"] == "course"
    assert [each["stack"] for each in told["labs"]] == ["net1.ana", "net1.bob"]
    assert told["labs"][1]["subnets"] == {"lab": "10.112.1.0/24"}


def test_up_runs_the_command_for_each_or_for_those_named(
    roster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["class", "up", "net1.csv", "-s", "course"]) == 0
    assert calls(roster) == [
        "snapshot take --if-possible --stack net1.ana",
        "snapshot take --if-possible --stack net1.bob",
        "up --stack net1.ana --no-select",
        "up --stack net1.bob --no-select",
    ]
    (roster.parent / "calls").unlink()
    assert app.main(["class", "up", "net1", "bob", "--lose", "--no-policies", "--json"]) == 0
    assert calls(roster)[-1] == "up --stack net1.bob --no-select --lose --no-policies"
    out, err = capsys.readouterr()
    assert "the policy pack is off" in err
    assert json.loads(out.splitlines()[-1])["event"] == "ended"


def test_reset_is_the_commands_own_of_that_one(
    roster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "standing", lambda: {"net1.ana"})
    assert app.main(["class", "reset", "net1.csv", "-s", "course", "ana"]) == 0
    assert calls(roster) == ["reset --lose --stack net1.ana"]


def test_a_plan_warns_of_a_last_day_that_is_over(
    roster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roster.write_text("id,until\nana,2020-01-31\nbob,2999-01-31\n")
    assert app.main(["class", "plan", "net1.csv", "-s", "course"]) == 0
    told = capsys.readouterr().err
    assert "the lab of ana ended on 2020-01-31" in told
    assert "bob" not in told


def test_a_lab_that_was_never_made_is_not_made_by_a_reset(
    roster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["class", "reset", "net1.csv", "-s", "course", "ana"]) == 1
    assert "the lab of ana is not made yet; `nestlab class up net1`" in capsys.readouterr().err
    assert calls(roster) == []
    # A reset that was cut after the lab was taken down goes on.
    mark = paths.LOCAL / "deployed" / "net1.ana"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    assert app.main(["class", "reset", "net1.csv", "-s", "course", "ana"]) == 0
    assert calls(roster) == ["reset --lose --stack net1.ana"]


def test_reset_asks_for_no_more_memory(roster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lab takes it has, whatever the others of its roster would take."""
    roster.write_text("id\n" + "".join(f"s{number}\n" for number in range(13)))
    assert app.main(["class", "up", "net1.csv", "-s", "course"]) == 1
    monkeypatch.setattr(acts, "standing", lambda: {"net1.s1"})
    assert app.main(["class", "reset", "net1.csv", "-s", "course", "s1"]) == 0
    assert calls(roster) == ["reset --lose --stack net1.s1"]


def test_reset_has_no_word_for_too_little(roster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks for nothing more, so there is nothing to let pass: `--anyway` would change nothing."""
    words = ["class", "reset", "net1.csv", "-s", "course", "ana", "--anyway"]
    assert app.main(words) == app.USAGE
    assert "no such option '--anyway'" in capsys.readouterr().err
    assert calls(roster) == []


def test_a_broken_roster_makes_nothing_and_hinders_no_end(
    roster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["class", "plan", "net1.csv", "-s", "course"]) == 0
    roster.write_text("id,name\nana,Ana\nana,Ana\n")
    assert app.main(["class", "up", "net1"]) == 1
    assert "net1.csv:3:id: 'ana' given again" in capsys.readouterr().err
    assert calls(roster) == []
    monkeypatch.setattr(acts, "standing", lambda: {"net1.ana", "net1.bob"})
    assert app.main(["class", "down", "net1.csv"]) == 0
    assert calls(roster) == ["down --stack net1.ana", "down --stack net1.bob"]


def test_who_is_meant(roster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["class"]) == 2
    assert "one lab for each student" in capsys.readouterr().out.lower()
    assert app.main(["class", "status", "net1"]) == 1
    told = capsys.readouterr().err
    assert "no roster, and no class" in told
    assert "Give the path of a CSV or YAML file" in told
    assert app.main(["class", "plan", str(roster), "-s", "course"]) == 0
    assert app.main(["class", "up", "net1", "eve"]) == 1
    assert "the class has no student 'eve'; it has ana and bob: choose" in capsys.readouterr().err
    assert app.main(["class", "status", "net2"]) == 1
    assert "did you mean 'net1'?" in capsys.readouterr().err


def test_one_command_at_a_time_works_on_a_class(
    roster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []

    class Lock:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            held.append(self.name)

        def __exit__(self, *_: object) -> None:
            held.append(f"{self.name} free")

    monkeypatch.setattr(register, "alone", Lock)
    monkeypatch.setattr(acts, "standing", lambda: {"net1.ana"})
    for words in (["plan"], ["up"], ["reset", "ana"], ["down"]):
        more = [] if words[0] == "down" else ["-s", "course"]
        assert app.main(["class", words[0], str(roster), *words[1:], *more]) == 0
    assert held == ["net1", "net1 free"] * 4
