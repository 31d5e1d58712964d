"""Making things in the shared cache so that a kill half-way leaves nothing half-made."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import paths, ui

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock ``name`` while the block runs; says so when it has to wait.

    The lock belongs to the process: the kernel drops it when the process ends, however it ends.
    """
    locks = paths.cache() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with ui.step(f"waiting for another nestlab command that holds {name}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def into_place(final: Path) -> Iterator[Path]:
    """Give an empty folder beside ``final`` to fill; rename it to ``final`` when all went well.

    Left-overs of killed runs (same folder, marked with ``.making``) are removed first, so call
    it under ``locked``. ``final`` must not exist.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for stale in final.parent.glob(f".{final.name}.making-*"):
        remove(stale)
    making = Path(tempfile.mkdtemp(prefix=f".{final.name}.making-", dir=final.parent))
    making.chmod(0o755)
    try:
        yield making
        making.rename(final)
    except BaseException:
        remove(making)
        raise


def link(at: Path, target: Path) -> None:
    """Make ``at`` a symbolic link to ``target``, replacing what was there in one step."""
    if at.is_symlink() and at.readlink() == target:
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_dir() and not at.is_symlink():
        remove(at)
    fresh = at.with_name(f".{at.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(at)


def write(at: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` to ``at`` in one step, unless it is there already."""
    if at.is_file() and at.read_text() == text and at.stat().st_mode & 0o777 == mode:
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    fresh = at.with_name(f".{at.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.chmod(mode)
    fresh.replace(at)


def remove(what: Path) -> None:
    """Remove a file, link or folder; Go's read-only module folders included."""
    if what.is_symlink() or what.is_file():
        what.unlink()
    elif what.exists():
        for folder, _, _ in os.walk(what):
            Path(folder).chmod(0o755)
        shutil.rmtree(what)
