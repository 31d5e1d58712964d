"""Making things in the shared cache so that a kill half-way leaves nothing half-made."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bootstrap import entries, paths, ui

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDERS = ("programs", "venvs", "images", "locks")
BESIDE = (r"pulumi-language-python", r"pulumi-resource-pulumi-python", r"\.complete", r"\..+\.\d+")
"""What is put into an entry after it was made: the engine's hosts, the mark of a whole environment."""
NOBODY = 65534


@contextmanager
def locked(name: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock ``name`` while the block runs; says so when it has to wait.

    The lock is the cache's, or one in ``folder``.

    The lock belongs to the process: the kernel drops it when the process ends, however it ends.
    """
    locks = folder or checked() / "locks"
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    # For both, so that a pipe in its place is no lock that waits for a writer.
    handle = os.open(locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with ui.step(f"waiting for another nestlab command that holds {name}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def into_place(final: Path) -> Iterator[Path]:
    """Give an empty folder beside ``final`` to fill; rename it to ``final`` when all went well.

    Left-overs of killed runs (same folder, marked with ``.making``) are removed first, so call
    it under ``locked``. A damaged entry at ``final`` is replaced.
    """
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in final.parent.glob(f".{final.name}.making-*"):
        remove(stale)
    making = Path(tempfile.mkdtemp(prefix=f".{final.name}.making-", dir=final.parent))
    making.chmod(0o755)
    try:
        yield making
        entries.seal(making)
        vacate(final)
        making.rename(final)
        entries.flush(final.parent)
    except BaseException:
        remove(making)
        raise


def vacate(entry: Path) -> None:
    """Take away what nestlab made at ``entry``; what somebody else put there moves aside."""
    if entries.remove(entry, BESIDE):
        return
    number = next(n for n in itertools.count(1) if not os.path.lexists(f"{entry}.yours-{n}"))
    entry.rename(f"{entry}.yours-{number}")
    ui.warn(f"what nestlab did not make in {entry} is in {entry}.yours-{number} now")


def checked() -> Path:
    """Return the cache's folder, made if it is not there, when nobody but its owner may write in it.

    Programs in there are run, and found by names that anybody can foresee.

    Raises:
        Problem: others may, or it is somebody else's.
    """
    root = paths.cache()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = [root, *(place for name in FOLDERS if (place := root / name).is_dir())]
    for place in places:
        _refuse_others(place.resolve(), inside=True)
    for above in root.resolve().parents:
        _refuse_others(above, inside=False)
    return root


def _refuse_others(place: Path, *, inside: bool) -> None:
    found = place.stat()
    # Root in a container sees the host's root as nobody, who owns what is above its own files.
    nobody = set() if inside else {NOBODY}
    remedy = (
        "Programs are kept and found there, so whoever may write there decides what you run. Look what is in"
        " it, take the right away (`chmod go-w`), or have nestlab keep its cache elsewhere (NESTLAB_CACHE)."
    )
    if found.st_uid not in entries.trusted() | nobody:
        raise ui.Problem(
            f"the cache {paths.cache()} is not used: {place} is another user's.\n{remedy}"
        )
    world = found.st_mode & stat.S_IWOTH and not (not inside and found.st_mode & stat.S_ISVTX)
    group = inside and found.st_mode & stat.S_IWGRP and not entries.is_mine_alone(found.st_gid)
    if world or group:
        raise ui.Problem(
            f"the cache {paths.cache()} is not used: others may write in {place}"
            f" (mode {stat.S_IMODE(found.st_mode):04o}).\n{remedy}"
        )


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
    except BaseException as wrong:
        fresh.unlink(missing_ok=True)
        if isinstance(wrong, OSError):
            # Of a disk that is full the system names no file.
            wrong.filename = wrong.filename or str(at)
        raise


def hand_out(at: Path, content: bytes, mode: int = 0o644) -> None:
    """Write ``content`` to ``at``, which the user named: a file as `write_bytes` does, all else as it stands.

    A pipe, a terminal, /dev/null or /dev/stdout is written into: one that is put in its place would be a file of
    that name for everybody.
    """
    if _is_stream(at):
        with os.fdopen(os.open(at, os.O_WRONLY | os.O_APPEND), "wb") as stream:
            stream.write(content)
        return
    write_bytes(at, content, mode)


def _is_stream(at: Path) -> bool:
    """Whether ``at`` is no place for a file: it is something else, or leads to what this process has open."""
    if at.exists() and not at.is_file():
        return True
    # /dev/stdout, where that is a file: the links of these two lead to it.
    return at.is_symlink() and at.parent.resolve().parts[1:2] in {("dev",), ("proc",)}


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
