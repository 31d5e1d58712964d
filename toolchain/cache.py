"""Making things in the shared cache so that a kill half-way leaves nothing half-made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import paths, ui

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def locked(name: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock ``name`` while the block runs; says so when it has to wait.

    The lock is the cache's, or one in ``folder``.

    The lock belongs to the process: the kernel drops it when the process ends, however it ends.
    """
    locks = folder or paths.cache() / "locks"
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
    """Make ``at`` a symbolic link to ``target``, replacing a link or file in one step.

    Raises:
        Problem: a folder is there, which is somebody's.
    """
    if at.is_symlink() and at.readlink() == target:
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_dir() and not at.is_symlink():
        raise ui.Problem(
            f"{at} is a folder that nestlab did not make, and it needs a link of that name.\n"
            "Move the folder away, and run the same command again."
        )
    fresh = at.with_name(f".{at.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(at)


def write(at: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` to ``at`` in one step, unless it is there already."""
    write_bytes(at, text.encode(), mode)


def write_bytes(at: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` to ``at`` in one step, unless it is there already."""
    if at.is_file() and at.read_bytes() == content and at.stat().st_mode & 0o777 == mode:
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    fresh = at.with_name(f".{at.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            # On the disk before it has its name: after a power cut it is the old one or the new one.
            os.fsync(handle.fileno())
        fresh.chmod(mode)
        fresh.replace(at)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def remove(what: Path) -> None:
    """Remove a file, link or folder that nestlab made; Go's read-only module folders included.

    Raises:
        Problem: something is mounted in it, which is not ours to empty.
    """
    if not os.path.lexists(what):
        return
    if what.is_symlink() or not what.is_dir():
        what.unlink()
        return
    device = what.lstat().st_dev
    folders = [Path(folder) for folder, _, _ in os.walk(what)]
    if elsewhere := [each for each in folders if each.lstat().st_dev != device or each.is_mount()]:
        raise ui.Problem(
            f"{what} is not removed: another file system is mounted at {elsewhere[0]}.\n"
            "Unmount it, and run the same command again."
        )
    for each in folders:
        each.chmod(0o755)
    shutil.rmtree(what)


def remove_known(folder: Path, known: Sequence[str]) -> None:
    """Remove from ``folder`` what is called as one of ``known`` (regular expressions), and no more.

    ``folder`` goes too when nothing else is in it. A link that stands for it is not followed.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if any(re.fullmatch(pattern, entry.name) for pattern in known):
            remove(entry)
    with contextlib.suppress(OSError):
        folder.rmdir()
