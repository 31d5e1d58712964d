"""The command itself: its verbs, what it says of wrong words, how it ends."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli import app
from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.doctor import command as doctor
from toolchain.doctor.report import Check, State
from toolchain.image import image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERBS = sorted(file.stem for file in app.VERBS.glob("[a-z]*.py"))


@pytest.fixture(autouse=True)
def spoken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever is called by `make`; and the umask of the caller afterwards."""
    monkeypatch.setenv("MAKELEVEL", "1")
    before = os.umask(0o022)
    yield
    os.umask(before)
    ui.speak("make")


def test_help_names_every_verb_and_imports_none_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("cli.verbs.")]:
        del sys.modules[name]
    assert app.main(["--help"]) == 0
    said = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in said
    assert "Exit status: 0 done" in said
    assert not [name for name in sys.modules if name.startswith("cli.verbs.")]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_it_is_for(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app._first_line(verb)
    assert app.main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: nestlab {verb} ")


def test_without_a_word_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == 2
    assert "Verbs:" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["class", "review", "snapshot"])
def test_a_verb_of_verbs_without_one_says_what_there_is(
    verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main([verb]) == 2
    said = "".join(capfd.readouterr())
    assert said.startswith(f"Usage: nestlab {verb} ")
    assert "\nCommands:\n" in said


def test_names_of_other_commands_are_no_verbs_of_ours() -> None:
    assert not app.ELSEWHERE.keys() & set(VERBS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["shwo"], "error: there is no verb 'shwo': did you mean 'show'?\nSee nestlab --help."),
        (["plan"], "no verb 'plan': `nestlab up --save-plan FILE` tells what would be done"),
        (["destroy"], "no verb 'destroy': it is `nestlab down`"),
        (["frobnicate"], "there are: class, clean, completion, doctor,"),
        (["up", "--los"], "--lose"),
        (["up", "kvm"], "got unexpected extra argument"),
        (["completion", "ksh"], "'ksh' is not one of"),
        (["up", "--stack", "../x"], "is no stack's name"),
    ],
)
def test_wrong_words_are_told_in_one_way(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(words) == (1 if "stack" in says else 2)
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert says in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (ui.Problem("found, rule: remedy"), 1),
        (OSError(28, "No space left on device", "/x"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
    ],
)
def test_what_a_verb_could_not_do_is_its_exit_status(
    trouble: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> int:
        raise trouble

    monkeypatch.setattr(os, "dup2", lambda *_: 0)
    monkeypatch.setattr(lab, "enter", fails)
    assert app.main(["enter", "box"]) == status


def test_what_ran_in_a_machine_ends_the_command_as_it_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def enter(*words: Any, **_: Any) -> int:
        asked.append(words)
        return 7

    monkeypatch.setattr(lab, "enter", enter)
    assert app.main(["enter", "-s", "xen", "box", "--", "ls", "-l", "--stack", "y", "--"]) == 7
    assert [words[:3] for words in asked] == [
        ("xen", "box", ("--", "ls", "-l", "--stack", "y", "--"))
    ]


@pytest.mark.parametrize(("verb", "mode"), [("down", 0o077), ("enter", 0o022)])
def test_what_it_makes_is_its_users_alone_but_for_what_people_start(
    verb: str, mode: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def look(*_: Any, **__: Any) -> int:
        seen.append(os.umask(0o022))
        return 0

    monkeypatch.setattr(paths, "LOCAL", tmp_path)
    monkeypatch.setattr(lab, verb, look)
    app.main([verb])
    assert seen == [mode]


# Hints --------------------------------------------------------------------------------------------


def hints(told: str, name: str) -> list[str]:
    """Return the commands that a message names, between backquotes."""
    return [part for part in told.split("`")[1::2] if part.startswith(name)]


SAID: list[Callable[[str], str]] = [
    lambda stack: ui.make("up", stack),
    lambda stack: ui.make("up", stack, "LOSE=1"),
    lambda stack: ui.make("down", stack),
    lambda stack: ui.make("show", stack),
    lambda stack: ui.make("show", stack, "SECRETS=1"),
    lambda stack: ui.make("enter", stack, "NAME=kvm1"),
]


@pytest.mark.parametrize("stack", ["local", "xen", "a.b-c_d"])
@pytest.mark.parametrize("by", ["make", "nestlab"])
def test_each_hint_runs_as_it_is_printed_and_is_about_its_stack(
    stack: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a shell: what `make` would run is taken from itself."""
    ran: list[tuple[str, dict[str, Any]]] = []
    for verb in ("up", "down", "show", "enter"):
        found = app.group.get_command(None, verb)  # type: ignore[arg-type]
        assert found is not None

        def note(_verb: str = verb, **given: Any) -> int:
            ran.append((_verb, given))
            return 0

        monkeypatch.setattr(found, "callback", note)
    # Where a shell stands, and what it finds there, is part of the hint.
    monkeypatch.chdir(paths.ROOT)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ui.speak(by)
    for say in SAID:
        told = say(stack)
        [line] = hints(told, "make" if by == "make" else "./nestlab")
        words = shlex.split(line)
        if by == "make":
            done = subprocess.run(
                ["make", "-s", "-n", *words[1:]],
                cwd=paths.ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            words = shlex.split(done.stdout)[1:]
            assert words[0] == "nestlab"
        else:
            assert (Path.cwd() / words[0]).resolve() == paths.ROOT / "nestlab"
        app.group.main(args=words[1:], standalone_mode=False)
    assert [verb for verb, _ in ran] == ["up", "up", "down", "show", "show", "enter"]
    assert {given["stack"] for _, given in ran} == {stack}
    assert [given["lose"] for _, given in ran[:2]] == [False, True]
    assert [given["secrets"] for _, given in ran[3:5]] == [False, True]
    assert ran[5][1]["name"] == "kvm1"


def test_who_did_not_come_by_make_is_not_sent_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MAKELEVEL")
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(lab, "exists", lambda _: False)
    assert app.main(["show", "-s", "xen"]) == 1
    assert "nestlab up -s xen` brings it up" in capsys.readouterr().err
    assert ui.make("toolchain", "xen") == "`make toolchain STACK=xen`", "no verb of the command"
    link = tmp_path / "nestlab"
    link.symlink_to(paths.ROOT / "nestlab")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ui.make("show", "local") == "`nestlab show`"


# Others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_a_script_for_the_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["completion", shell]) == 0
    assert "_NESTLAB_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("nestlab sh", {"show"}),
        ("nestlab up -s xe", {"xen", "xenserver"}),
        ("nestlab image ", {"kvm", "xen"}),
        ("nestlab test ", {"unit", "double", "host"}),
    ],
)
def test_what_is_completed_is_what_there_is(line: str, found: set[str]) -> None:
    *before, begun = line.split(" ")
    given = {
        "_NESTLAB_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(before)),
    }
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.app import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(paths.ROOT)],
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )
    del begun
    assert {row.partition(",")[2] for row in done.stdout.split()} == found


def test_the_images_and_the_host_are_the_set_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def make(words: list[str]) -> int:
        told.append(words)
        return 0

    monkeypatch.setattr(image, "main", make)
    assert app.main(["image"]) == 0
    assert app.main(["image", "xen"]) == 0
    assert told == [["kvm"], ["xen"]]


@pytest.mark.parametrize("ok", [True, False])
def test_up_sums_up_for_programs_what_it_did(
    ok: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def up(_: str, **given: Any) -> lab.Up:
        asked.append(given)
        return lab.Up(ok=ok, changed=True, seconds={"host": 0.5})

    monkeypatch.setattr(paths, "LOCAL", tmp_path)
    monkeypatch.setattr(lab, "up", up)
    monkeypatch.setattr(lab, "outputs", lambda _: {"sheet": [{"name": "kvm1"}]})
    timings = tmp_path / "timings.json"
    assert app.main(["up", "-s", "xen", "--json", "--timings", str(timings)]) == (0 if ok else 1)
    told = json.loads(capsys.readouterr().out)
    assert (told["stack"], told["up"], told["changed"]) == ("xen", ok, True)
    assert told["sheet"] == ([{"name": "kvm1"}] if ok else [])
    assert json.loads(timings.read_text()) == told["seconds"] == {"host": 0.5}
    flags = {"lose": False, "aside": True, "policies": True, "select": True}
    assert asked == [{**flags, "plan": None, "keep": None}], "what the engine prints is no JSON"


def test_the_doctor_tells_programs_the_same_as_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (Check("memory", State.FAIL, "1 GiB", "more"), Check("disk", State.OK, "9 GiB"))
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: doctor.Findings(rows, None))
    assert app.main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] is None
    assert [(row["name"], row["state"]) for row in told["checks"]] == [
        ("memory", "fail"),
        ("disk", "ok"),
    ]
    assert app.main(["doctor"]) == 1
    assert "memory" in capsys.readouterr().out
