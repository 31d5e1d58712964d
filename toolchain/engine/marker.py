"""What notes that a lab was deployed as its stack file and our code stand, and so was judged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

POLICIES = "policies"
"""Folder of the policy pack."""


def file(stack: str) -> Path:
    """Return what is there of ``stack`` once it was deployed, until it is deployed anew or its files go."""
    return paths.LOCAL / "deployed" / stack


class Marker:
    """What notes that a stack was deployed as it stands."""

    def __init__(self, stack: str, *, policies: bool = True) -> None:
        self.file = file(stack)
        self.now = _fingerprint(stack, policies=policies)
        self.policies = policies

    @property
    def judges(self) -> tuple[str, ...]:
        """What has the engine ask the policy pack; by no path, in which a comma or quote would be the option's own."""
        return ("--policy-pack", POLICIES) if self.policies else ()

    @property
    def holds(self) -> bool:
        return self.file.is_file() and self.file.read_text() == self.now


def _fingerprint(stack: str, *, policies: bool) -> str:
    """Return a text that changes with everything that the sheet is made from but the world's state."""
    told = hashlib.sha256()
    sources = [paths.ROOT / "__main__.py", *sorted((paths.ROOT / "components").rglob("*.py"))]
    if policies:
        sources += sorted((paths.ROOT / POLICIES).rglob("*.py"))
    for file in (paths.ROOT / "stacks" / f"Pulumi.{stack}.yaml", *sources):
        told.update(f"{file.relative_to(paths.ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return told.hexdigest()
