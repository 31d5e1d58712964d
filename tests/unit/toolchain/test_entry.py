"""The one door to all set-up commands: what holds for each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from toolchain import __main__ as entry
from toolchain import start
from toolchain.bootstrap import entries, paths, python_env

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The umask of a careless user, and afterwards the one before."""
    before = os.umask(0)
    yield
    os.umask(before)


def writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each command write a file and a folder."""
    module: Any = ModuleType("writes")

    def main(_: list[str]) -> int:
        (folder / "made").mkdir()
        (folder / "made" / "file").write_text("secret")
        return 0

    module.main = main
    monkeypatch.setitem(sys.modules, "writes", module)
    told = dict.fromkeys(entry.COMMANDS, ("writes", ""))
    monkeypatch.setattr(entry, "COMMANDS", told)


@pytest.mark.parametrize("command", sorted(set(entry.COMMANDS) - {"test"}))
def test_what_a_command_writes_is_its_users_alone_whatever_the_umask(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes(tmp_path, monkeypatch)
    assert entry.main([command]) == 0
    for made in ("made", "made/file"):
        assert (tmp_path / made).stat().st_mode & 0o077 == 0, made


@pytest.mark.parametrize("name", ["a:b", "a\nb", "a\tb", "a\x7f", os.fsdecode(b"a\xff")])
def test_a_checkout_that_no_search_path_can_name_is_refused_in_words(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writes(tmp_path, monkeypatch)
    monkeypatch.setattr(paths, "ROOT", Path("/home/me") / name)
    assert entry.main(["host"]) == 1
    said = capsys.readouterr().err
    assert "can't name a folder with" in said
    assert "Move it" in said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("verb", sorted(entry.OF_LABS))
def test_what_is_about_labs_is_the_command_nestlabs(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []

    def become(program: str, words: list[str]) -> None:
        assert program == sys.executable
        became.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(KeyboardInterrupt):
        entry.main([verb, "--stack", "xen"])
    assert became == [[sys.executable, str(paths.ROOT / "nestlab"), verb, "--stack", "xen"]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What the command was run with; the search path is as before afterwards."""
    told: list[list[str]] = []
    module: Any = ModuleType("cli.app")

    def main(words: list[str]) -> int:
        told.append(words)
        return 5

    module.main = main
    monkeypatch.setitem(sys.modules, "cli.app", module)
    kept = list(sys.path)
    yield told
    sys.path[:] = kept


def test_the_command_finds_the_environments_packages_before_this_pythons_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[list[str]]
) -> None:
    """Debian's own PyYAML or click may be there, and older."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.setattr(python_env, "ensure", lambda: tmp_path)
    sys.path[:] = ["/here", "/usr/lib/python3.11", "/usr/lib/python3/dist-packages"]
    assert start.main(["up", "-s", "xen"]) == 5
    assert ran == [["up", "-s", "xen"]]
    assert sys.path[2:] == [str(packages), "/usr/lib/python3/dist-packages"]
    start.main(["up"])
    assert sys.path.count(str(packages)) == 1


@pytest.mark.parametrize("verb", ["doctor", "clean"])
@pytest.mark.parametrize("ready", [True, False])
def test_what_has_to_work_without_an_environment_makes_none(
    verb: str, ready: bool, monkeypatch: pytest.MonkeyPatch, ran: list[list[str]]
) -> None:
    told: list[list[str]] = []

    def by_itself(words: list[str]) -> int:
        told.append(words)
        return 7

    monkeypatch.setattr(entry, "main", by_itself)
    monkeypatch.setattr(python_env, "ready", lambda: ready)
    monkeypatch.setattr(
        python_env, "ensure", lambda: paths.VENV.resolve() if ready else pytest.fail("made")
    )
    assert start.main([verb]) == (5 if ready else 7)
    assert (ran, told) == (([[verb]], []) if ready else ([], [[verb]]))


def test_an_environment_that_this_process_has_looked_at_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Path] = []

    def damage(environment: Path, **_: object) -> str:
        looks.append(environment)
        return ""

    monkeypatch.setattr(entries, "damage", damage)
    monkeypatch.setattr(python_env, "_seen", set[Path]())
    place = python_env.ensure()
    assert python_env.ensure() == place
    assert looks == [place]
    python_env.ensure(full=True)
    assert looks == [place, place], "whoever asks for all of it to be read gets it"


BARE = ("start", "engine.before", "engine.child")
"""What runs ahead of the environment, or without its packages since their import takes long."""


@pytest.mark.parametrize(
    "module",
    [*(told for told, _ in entry.COMMANDS.values()), *(f"toolchain.{each}" for each in BARE)],
)
def test_a_bare_python_is_enough_for_the_set_up(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import {module}"],
        cwd=Path(entry.__file__).parents[1],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
