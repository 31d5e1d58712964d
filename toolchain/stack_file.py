"""Reading the stack file, which a branch may have put anything in the place of: never more of it than a stack is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from toolchain import paths, ui

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1 << 20
"""Of a stack file, bytes: 500 machines, the most of a lab, take half of it with every field written out,
and the engine takes seconds to read two."""


def content(file: Path) -> bytes:
    """Return what is in a stack file; a branch may hold a link to anything in its place.

    Raises:
        Problem: it leads out of the checkout, is no file, or larger than a stack can be.
    """
    try:
        real = file.resolve(strict=True)
    except RuntimeError:
        raise ui.Problem(f"{file} is a link that leads to itself.") from None
    if not real.is_relative_to(paths.ROOT.resolve()):
        raise ui.Problem(
            f"{file} is a link that leads out of the checkout: put the file itself there."
        )
    return regular(real)


def regular(file: Path) -> bytes:
    """Return what is in ``file``, which may be anything but for where it is.

    Raises:
        Problem: it is no file, or larger than a stack can be.
    """
    # What is no file may block whoever opens it.
    with open(file, "rb", opener=_at_once) as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise ui.Problem(f"{file} is no regular file.")
        told = handle.read(LARGEST + 1)
    if len(told) > LARGEST:
        raise ui.Problem(f"{file} has more than {LARGEST >> 20} MiB: no stack is as large.")
    return told


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def words(file: Path) -> str:
    """Return the text of a stack file as far as there is one to read, for who only looks for words in it."""
    try:
        return content(file).decode(errors="replace")
    except (OSError, ui.Problem):
        return ""  # so it is refused by whoever reads it
