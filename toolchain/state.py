"""Stacks and what the engine keeps of them: names, files of the file backend, what they hold.

What can't be read is never taken for empty: whoever asks whether a lab stands gets "yes, as far as
is known". File names and formats are those of Pulumi's own backend (pkg/backend/diy: ``state.go``).
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from toolchain import ui

PROJECT = "nestlab"
"""Name in Pulumi.yaml: others may keep stacks in the same backend."""
FORMS = ("", ".gz", ".zst")
"""What may follow ``STACK.json``: plain, PULUMI_DIY_BACKEND_GZIP, PULUMI_DIY_BACKEND_ZSTD."""
BACKUP = ".bak"
"""What follows those in turn where the engine kept what it has replaced."""
ATTRIBUTES = ".attrs"
"""Beside each file, written by the engine's store: no data."""
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
"""A stack's name as the engine takes it, without those two that are no names but ways in a tree."""


DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(RecursionError, zlib.error),
)
"""What reading a cut or foreign file raises."""


class Unreadable(Exception):
    """A stack's file can't be read, or holds no state; what is there is unknown."""


def named(stack: str) -> str:
    """Return ``stack``, which becomes part of paths, when it is one name.

    Raises:
        Problem: it is not.
    """
    if not NAME.fullmatch(stack):
        raise ui.Problem(
            f"{stack!r} is no stack's name: 1 to 100 letters, digits, - _ . and more than dots."
        )
    return stack


def folder(url: str | None = None) -> Path | None:
    """Return where the file backend at ``url`` (else the one in force) keeps its files.

    None: another kind of backend, or none is named.
    """
    chosen = os.environ.get("PULUMI_BACKEND_URL", "") if url is None else url
    if not chosen.startswith("file://"):
        return None
    # As the engine reads it: no host, ~ for a home, what follows ? or # is not of the path.
    path = re.split("[?#]", chosen.removeprefix("file://"), maxsplit=1)[0]
    return Path(unquote(path)).expanduser().absolute() / ".pulumi"


def files(backend: Path, project: str = PROJECT) -> list[Path]:
    """Return every file in ``backend`` that is, or was, the state of a stack of ``project``.

    Raises:
        OSError: the folder is there and can't be read.
    """
    place = backend / "stacks" / project
    try:
        found = sorted(place.iterdir())
    except FileNotFoundError:
        return []
    return [file for file in found if not file.name.endswith((ATTRIBUTES, BACKUP))]


def file_of(stack: str, backend: Path) -> Path | None:
    """Return the file that holds ``stack`` in ``backend``, the newest of its forms; None without one."""
    place = backend / "stacks" / PROJECT
    found = [file for form in FORMS if (file := place / f"{named(stack)}.json{form}").is_file()]
    return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)


def stack_in(file: Path) -> str:
    """Return the name of the stack that ``file`` holds, as far as it tells."""
    for form in FORMS:
        if file.name.endswith(f".json{form}"):
            return file.name.removesuffix(f".json{form}")
    return file.name


@dataclass
class Checkpoint:
    """What a file of a stack holds, with its wrapping as it was."""

    wrapped: dict[str, Any]

    @property
    def latest(self) -> dict[str, Any]:
        """The deployment; empty for a stack in which nothing was made yet."""
        told: dict[str, Any] = self.wrapped["checkpoint"].get("latest") or {}
        return told

    @property
    def pending(self) -> list[dict[str, Any]]:
        """Operations that began and of which nothing else is known."""
        return self.latest.get("pending_operations") or []

    @property
    def real(self) -> list[dict[str, Any]]:
        """Resources that are something beyond the state, not mere groups or providers."""
        resources: list[dict[str, Any]] = self.latest.get("resources") or []
        return [
            one
            for one in resources
            if one.get("custom") and not str(one["type"]).startswith("pulumi:providers:")
        ]


def read(file: Path) -> Checkpoint:
    """Return what ``file`` of a stack holds.

    Raises:
        Unreadable: it is cut, damaged, in a form this Python can't read, or no state at all.
    """
    try:
        raw = file.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        told = json.loads(raw)
        found = Checkpoint(told)
        if not isinstance(found.latest, dict):
            raise TypeError
        _ = found.real, found.pending
    except DAMAGE as wrong:
        reason = str(wrong) if isinstance(wrong, OSError) else "not a state that can be read"
        raise Unreadable(f"{file}: {reason}") from None
    return found
