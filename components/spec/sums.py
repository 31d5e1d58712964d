"""Whether media and templates are the files that the stack means: their SHA-256.

A sum is worked out once for each state of a file and remembered beside the doctor's findings, since
an ISO of some gigabytes takes seconds and every `pulumi preview` asks.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from components.spec.problems import Problem

if TYPE_CHECKING:
    from components.spec.lab import LabSpec

Memo = dict[str, list[int | str]]
"""Size in bytes, time of change in nanoseconds, SHA-256, by path."""


def wrong(spec: LabSpec, memo: Path) -> list[Problem]:
    """Return a problem for each file whose SHA-256 is not the one given; remember sums in ``memo``."""
    known = _read(memo)
    before = dict(known)
    found = []
    for group in ("media", "templates"):
        for name, medium in getattr(spec, group).items():
            if medium.sha256 is None:
                continue
            actual = _sum(Path(medium.path), known)
            if actual != medium.sha256.lower():
                found.append(
                    Problem(
                        f"lab.{group}.{name}.sha256",
                        f"{medium.sha256} given",
                        f"{medium.path} has {actual}: it is damaged, or another file",
                        "get the file again, or correct the sum",
                    )
                )
    if known != before:
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.write_text(json.dumps(known))
    return found


def _sum(path: Path, known: Memo) -> str:
    state = path.stat()
    remembered = known.get(str(path))
    if remembered and remembered[:2] == [state.st_size, state.st_mtime_ns]:
        return str(remembered[2])
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    known[str(path)] = [state.st_size, state.st_mtime_ns, digest]
    return digest


def _read(memo: Path) -> Memo:
    try:
        told: Memo = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return told
