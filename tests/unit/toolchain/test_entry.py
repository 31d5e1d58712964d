"""The one door to all set-up commands: what holds for each of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from toolchain import __main__ as entry
from toolchain import paths

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
    assert entry.main(["up"]) == 1
    said = capsys.readouterr().err
    assert "can't name a folder with" in said
    assert "Move it" in said
    assert not (tmp_path / "made").exists()
