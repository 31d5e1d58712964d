"""Entries of the shared cache: whether they are still what was made, and taking them away again.

Each carries a manifest with size, time and SHA-256 of its files. A cheap look at sizes and times is
taken each time an entry is used; contents are read on demand, and when something has failed. What lies
in an entry beside those files was put there by somebody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MANIFEST = ".nestlab.json"
VERSION = 1
COMPILED = "__pycache__"
"""Folders that Python fills as it likes; their files go with the ones that they were made from."""


def seal(entry: Path) -> None:
    """Write down what is in ``entry``, and have all of it on the disk."""
    told = {name: _identity(entry / name, content=True) for name in _names(entry)}
    fresh = entry / f"{MANIFEST}.{os.getpid()}"
    fresh.write_text(json.dumps({"version": VERSION, "files": told}))
    flush(entry)
    fresh.replace(entry / MANIFEST)
    flush(entry)


def damage(entry: Path, *, full: bool = False) -> str:
    """Return what is not as it was made, in words; empty when all is. ``full``: contents are read."""
    told = _manifest(entry)
    if told is None:
        return (
            f"{entry} has no list of what belongs in it"
            if entry.exists()
            else f"{entry} is not there"
        )
    for name, known in told.items():
        found = _identity(entry / name, content=full)
        if found is None:
            return f"{entry / name} is not there any more"
        if found != known[: len(found)]:
            return f"{entry / name} is not what was made there"
    return next((f"others may write {path}" for path in _of_others(entry, told)), "")


def _of_others(entry: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield what everybody may write: they decide what runs, and can set size and time as they were."""
    beside = {each.name for each in os.scandir(entry)}
    for path in (entry, *(entry / name for name in {*names, *beside})):
        mode = path.lstat().st_mode
        if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
            yield path


def remove(entry: Path, others: Sequence[str] = ()) -> bool:
    """Remove what was made in ``entry``, and what is called as one of ``others``; whether that was all."""
    if entry.is_symlink() or not entry.is_dir():
        return not os.path.lexists(entry)
    ours = {MANIFEST, *(_manifest(entry) or {})}
    for folder, folders, names in os.walk(entry, topdown=False):
        inside = os.path.relpath(folder, entry)
        for name in names:
            path = os.path.normpath(f"{inside}/{name}")
            if path in ours or _compiled(path, ours) or any(re.fullmatch(o, path) for o in others):
                (entry / path).unlink()
        for name in folders:
            path = os.path.normpath(f"{inside}/{name}")
            if path in ours:  # a link to a folder
                (entry / path).unlink()
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 - texts are what os.walk gives
    return not entry.exists()


def _compiled(path: str, ours: set[str]) -> bool:
    folder, _, name = path.rpartition("/")
    above, _, last = folder.rpartition("/")
    return last == COMPILED and f"{above}/{name.partition('.')[0]}.py".lstrip("/") in ours


def _manifest(entry: Path) -> dict[str, list[object]] | None:
    try:
        told = json.loads((entry / MANIFEST).read_text())
        files = told["files"]
        whole = told["version"] == VERSION and all(
            isinstance(each, list) for each in files.values()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return files if whole else None


def _names(entry: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(entry):
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        folders[:] = [name for name in folders if name != COMPILED]
        found += [os.path.relpath(f"{folder}/{name}", entry) for name in (*names, *links)]
    return sorted(name for name in found if not name.startswith(MANIFEST))


def _identity(path: Path, *, content: bool) -> list[object] | None:
    """Return size, time and, on wish, digest of a file; of a link where it leads; None without one."""
    try:
        found = os.lstat(path)
        if os.path.islink(path):  # noqa: PTH114
            return [os.readlink(path)]  # noqa: PTH115
        told: list[object] = [found.st_size, found.st_mtime_ns]
        if content:
            with open(path, "rb") as handle:  # noqa: PTH123
                told.append(hashlib.file_digest(handle, "sha256").hexdigest())
    except OSError:
        return None
    return told


def flush(folder: Path) -> None:
    """Write what is in the file system of ``folder`` to its disk: one call for thousands of files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
