"""Files written to this machine's own disk; those sent over SSH are tested against a real sshd.

A failure here means that a medium or a key is found half-written by whoever looks at its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from components.reach import interrupt, upload
from components.reach.shell import LocalShell
from components.reach.upload import PART, PutError
from components.reach.waiting import NotReady

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def put(source: Path | bytes, to: Path, mode: int = 0o644) -> None:
    LocalShell().put(source, str(to), mode=mode, timeout_s=1)


def test_a_file_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    to.write_text("old")
    blocks, seen = upload._blocks, []

    def look(source: Path | bytes, name: str, where: str) -> Iterator[bytes]:
        for block in blocks(source, name, where):
            seen.append((to.read_text(), (tmp_path / f"to{PART}").stat().st_mode & 0o777))
            yield block

    monkeypatch.setattr(upload, "_blocks", look)
    put(bytes(upload.BLOCK + 1), to, mode=0o600)
    assert seen == [("old", 0o600)] * 2
    assert to.read_bytes() == bytes(upload.BLOCK + 1)
    assert to.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [to]


def test_what_is_not_whole_is_cleared_away(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.write_text("old")
    interrupt.CANCELLED.set()
    with pytest.raises(NotReady, match=r"this machine: stopped while sending .*/to, 1 of 2 MiB"):
        put(bytes(2 << 20), to)
    assert to.read_text() == "old"
    assert list(tmp_path.iterdir()) == [to]


def test_what_can_not_be_read_or_written_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(PutError, match=r"none can't be read: No such file or directory"):
        put(tmp_path / "none", tmp_path / "to")
    with pytest.raises(PutError, match=r"^this machine: .*none/to can't be written: its folder is"):
        put(b"x", tmp_path / "none" / "to")
    assert not list(tmp_path.iterdir())
