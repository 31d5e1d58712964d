"""The UUIDs of a lab's objects, computed from the random number that is its identity."""

from __future__ import annotations

import uuid


def uuid_of(identity: str, kind: str, name: str) -> str:
    """UUID that the lab with ``identity`` gives its ``kind`` ("domain", ...) called ``name``."""
    return str(uuid.uuid5(uuid.UUID(hex=identity * 2), f"{kind}:{name}"))
