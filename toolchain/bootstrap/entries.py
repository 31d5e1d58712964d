"""Entries of the shared cache: whether they are still what was made, and taking them away again.

Each carries a manifest with size, time and SHA-256 of its files. A cheap look at sizes and times is
taken each time an entry is used; contents are read on demand, and when something has failed. What lies
in an entry beside those files was put there by somebody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import hashlib
import json
import os
import pwd
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST = ".nestlab.json"
VERSION = 1
COMPILED = "__pycache__"
"""Folders that Python fills as it likes; their files go with the ones that they were made from."""


def seal(entry: Path) -> None:
    """Write down what is in ``entry``, and have all of it on the disk."""
    paths = {name: f"{entry}/{name}" for name in _names(entry)}
    told = {name: _identity(at, os.lstat(at), content=True) for name, at in paths.items()}
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
    # Thousands of files, looked at before each command: paths are texts, and each is asked for once.
    folders, mine = {""}, trusted()
    for name, known in told.items():
        path = f"{entry}/{name}"
        found = _state(path)
        if found is None:
            return f"{path} is not there any more"
        identity = _identity(path, found, content=full)
        if identity is None or identity != known[: len(identity)]:
            return f"{path} is not what was made there"
        if wrong := _of_others(path, found, mine):
            return wrong
        folders.add(name.rpartition("/")[0])
    beside = {each.name for each in os.scandir(entry)}
    for path in (f"{entry}/{name}".rstrip("/") for name in folders | beside):
        if wrong := _of_others(path, os.lstat(path), mine):
            return wrong
    return ""


def _of_others(path: str, found: os.stat_result, mine: frozenset[int]) -> str:
    """Say if somebody else may write ``path``: they decide what runs, and can set size and time as they were."""
    if found.st_uid not in mine:
        return f"{path} is another user's"
    mode = found.st_mode
    if stat.S_ISLNK(mode) or not mode & (stat.S_IWOTH | stat.S_IWGRP):
        return ""
    others = mode & stat.S_IWOTH or not is_mine_alone(found.st_gid)
    return f"others may write {path}" if others else ""


def trusted() -> frozenset[int]:
    """Return whose files may be run: the system's, the user's, and who became root by sudo."""
    me, before = os.geteuid(), os.environ.get("SUDO_UID", "")
    return frozenset({0, me, *([int(before)] if me == 0 and before.isdecimal() else [])})


def is_mine_alone(group: int) -> bool:
    """Whether ``group`` is a user's own, as Debian makes one for each, and nobody else is in it."""
    try:
        me, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == me.pw_gid and found.gr_name == me.pw_name and set(found.gr_mem) <= {me.pw_name}


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


def _state(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _identity(path: str, found: os.stat_result, *, content: bool) -> list[object] | None:
    """Return size, time and, on wish, digest of a file; of a link where it leads; None where it can't be read."""
    try:
        if stat.S_ISLNK(found.st_mode):
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
