"""Stack files of a branch, as data: out of a folder or a git ref, nothing of either is run or followed."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.refused import Refused
from toolchain.engine.stack_file import LARGEST
from toolchain.engine.state import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = "stacks"
BEGIN, END = "Pulumi.", ".yaml"
MOST = 200
"""Stack files of a branch: more are refused."""
LISTED = 1 << 22
"""Bytes that git may list."""


class NoSource(Refused):
    """There is no such branch, or it can't be read."""


@dataclass(frozen=True)
class StackText:
    """What is in the place of a stack file."""

    text: bytes = b""
    wrong: str = ""
    """Why there is no text: it is no file, or too large."""


def of(place: str, repository: Path) -> Mapping[str, StackText]:
    """Return the stack files of ``place``, a folder with a checkout or a ref of ``repository``, by their stacks.

    Raises:
        NoSource: there is neither, or it has too many.
    """
    found = dict(
        _in_folder(Path(place)) if place and Path(place).is_dir() else _in_git(place, repository)
    )
    if len(found) > MOST:
        raise NoSource(
            f"{place} has {len(found)} stack files, and {MOST} are the most that are compared"
        )
    return found


def _stack(file: str) -> str | None:
    """Return the stack that a file's name is for; None where it is no stack file, whatever is in it."""
    if not (file.startswith(BEGIN) and file.endswith(END) and len(file) > len(BEGIN + END)):
        return None
    name = file[len(BEGIN) : -len(END)]
    return name if NAME.fullmatch(name) else None


def _in_folder(root: Path) -> Iterator[tuple[str, StackText]]:
    folder = root / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if stack := _stack(entry.name):
            yield stack, _file(entry)


def _file(path: Path) -> StackText:
    """Read a file that may be anything: no link is followed, no pipe is waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return StackText(wrong="it is a link or can't be read: put the stack file itself there")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return StackText(wrong="it is no file: put the stack file itself there")
    with os.fdopen(handle, "rb") as stream:
        return _bounded(stream.read(LARGEST + 1))


def _bounded(text: bytes) -> StackText:
    if len(text) > LARGEST:
        return StackText(wrong=f"it is larger than {LARGEST} bytes, and no stack is")
    return StackText(text)


def _in_git(ref: str, repository: Path) -> Iterator[tuple[str, StackText]]:
    if ref.startswith("-"):
        raise NoSource(f"{ref!r} is no ref: a ref does not begin with -")
    commit = _git(
        repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
    )
    if commit is None:
        raise NoSource(f"{ref!r} is neither a folder nor a commit of {repository}: fetch it first")
    name = commit.decode().strip()
    listed = _git(repository, "ls-tree", "-z", "-l", name, "--", f"{FOLDER}/") or b""
    if len(listed) > LISTED:
        raise NoSource(f"{ref} has more in {FOLDER}/ than a project has")
    for line in filter(None, listed.split(b"\0")):
        about, _, path = line.partition(b"\t")
        mode, _, blob, size = about.split()
        stack = _stack(os.fsdecode(path).removeprefix(f"{FOLDER}/"))
        if stack is None:
            continue
        if mode not in {b"100644", b"100755"}:
            yield (
                stack,
                StackText(wrong="it is a link or a folder: put the stack file itself there"),
            )
        elif int(size) > LARGEST:
            yield stack, StackText(wrong=f"it is larger than {LARGEST} bytes, and no stack is")
        else:
            yield stack, _bounded(_git(repository, "cat-file", "blob", blob.decode()) or b"")


def _git(repository: Path, *words: str) -> bytes | None:
    """Return what git prints; None: it failed. Nothing of the user's or the repository's settings runs."""
    quiet = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }
    kept = {"PATH": os.environ.get("PATH", os.defpath), "GIT_NO_LAZY_FETCH": "1"}
    # A checkout that another user made, as CI's: it is read, and nothing in it is run.
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "-c",
        "core.hooksPath=/dev/null",
        "-C",
        str(repository),
    ]
    done = subprocess.run(
        [*command, *words], env=kept | quiet, capture_output=True, check=False, timeout=60
    )
    return None if done.returncode else done.stdout
