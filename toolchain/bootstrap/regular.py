"""Reading files in whose place somebody may have put anything: a pipe blocks its reader, a device never ends."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 1 << 20
"""Bytes: more than any file of a few lines has."""


class Irregular(ValueError):
    """It is no regular file, or larger than it can be; the message follows the file's name."""


def read(file: Path, most: int = SMALL) -> bytes:
    """Return what is in ``file``, of at most ``most`` bytes.

    Raises:
        OSError: it can't be read.
        Irregular: it is no regular file, or larger.
    """
    with open(file, "rb", opener=_at_once) as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise Irregular("is no regular file")
        told = handle.read(most + 1)
    if len(told) > most:
        raise Irregular(f"has more than {most >> 20} MiB")
    return told


def text(file: Path) -> str:
    """Return the text in ``file``, of a few lines.

    Raises:
        OSError, ValueError: it can't be read, is no regular file, too large, or no text.
    """
    return read(file).decode()


def waits(file: Path) -> bool:
    """Whether who opens ``file`` to read it waits for somebody who writes: it is a pipe."""
    try:
        return stat.S_ISFIFO(file.stat().st_mode)
    except OSError:
        return False


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
