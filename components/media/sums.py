"""Whether media and templates are the files that the stack means: their SHA-256.

A sum is worked out once for each state of a file and remembered beside the doctor's findings, since
an ISO of some gigabytes takes seconds and every `pulumi preview` asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from components.stackfile.files import opened, there
from components.stackfile.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from components.stackfile.allow import Allowed
    from components.stackfile.lab import LabSpec

SAMPLE_BYTES, SAMPLE_DIGITS = 1 << 20, 8
Memo = dict[str, list[int | str]]
"""Size in bytes, time of change in nanoseconds, SHA-256, by path."""


def wrong(spec: LabSpec, memo: Path, allowed: Allowed | None = None) -> list[Problem]:
    """Return a problem for each file whose SHA-256 is not the one given; remember sums in ``memo``.

    What may not be named (``allowed``; None: everything may) is not read.
    """
    given = {
        f"lab.{group}.{name}": medium
        for group in ("media", "templates")
        for name, medium in getattr(spec, group).items()
        # One that is not there is told by `load`, but in a preview.
        if medium.sha256 is not None and there(medium.path)
        if not (allowed and allowed.file(medium.path))
    }
    actual = sha256((Path(medium.path) for medium in given.values()), memo)
    return [
        Problem(
            f"{where}.sha256",
            f"{medium.sha256} given",
            f"{medium.path} has {_shown(medium.path, actual)}: it is damaged, or another file",
            "get the file again, or correct the sum",
        )
        for where, medium in given.items()
        if actual[Path(medium.path)] != medium.sha256.lower()
    ]


def _shown(path: str, actual: dict[Path, str]) -> str:
    """Return the sum of a file that everybody may read anyway: it would tell a short secret."""
    try:
        open_to_all = Path(path).stat().st_mode & stat.S_IROTH
    except OSError:
        open_to_all = 0
    return actual[Path(path)] if open_to_all else "another one"


def sha256(paths: Iterable[Path], memo: Path) -> dict[Path, str]:
    """Return the SHA-256 of files, each read once for each of its states; remember in ``memo``."""
    known = _read(memo)
    before = dict(known)
    sums = {path: _sum(path, known) for path in paths}
    if known != before:
        memo.parent.mkdir(parents=True, exist_ok=True)
        # In one step: another process may be reading it.
        fresh = memo.with_name(f".{memo.name}.{threading.get_native_id()}")
        fresh.write_text(json.dumps(known))
        fresh.replace(memo)
    return sums


def _sum(path: Path, known: Memo) -> str:
    with opened(path) as handle:
        state = os.fstat(handle.fileno())
        remembered = known.get(str(path))
        if remembered and remembered[:2] == [state.st_size, state.st_mtime_ns]:
            return str(remembered[2])
        # typeshed's BinaryIO has no readinto, every file has.
        digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    known[str(path)] = [state.st_size, state.st_mtime_ns, digest]
    return digest


def sample(path: Path) -> str:
    """Return eight digits that tell whether a medium is another one, without reading gigabytes.

    Of its size, beginning, middle and end: the volume descriptors, tables and last files of an ISO, the
    headers of an image. A file that is not there, in a preview, has zeros.
    """
    if not there(path):
        return "0" * SAMPLE_DIGITS
    with opened(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        told = hashlib.sha256(str(size).encode())
        for at in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            handle.seek(at)
            told.update(handle.read(SAMPLE_BYTES))
    return told.hexdigest()[:SAMPLE_DIGITS]


def _read(memo: Path) -> Memo:
    try:
        told: Memo = json.loads(memo.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return told
