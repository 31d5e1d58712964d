"""The numbers of guests: by their names, so that they stay."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.stackfile import (
        PlacePlan,
    )

VMIDS = range(1_000, 10_000)
"""Below 100 numbers are Proxmox' own; to 999 they are left to whoever makes guests by hand."""
CLUSTER_VMIDS = range(100_000, 1_000_000_000)
"""On a cluster, which labs share: so many that two of a thousand labs hardly ever meet."""


def vmids(lab: str, place: PlacePlan) -> dict[str, int]:
    """Return the number of each machine of a node: by its name, so that it stays (see `addresses`).

    The order in which names give way is theirs, as it is for addresses.
    """
    found: dict[str, int] = {}
    for name in sorted(place.machines):
        found[name] = number(lab, place, name, set(found.values()))
    return found


def number(lab: str, place: PlacePlan, name: str, taken: set[int]) -> int:
    """Return the number for what is called ``name`` on a node, not one of ``taken``."""
    room = VMIDS if place.path else CLUSTER_VMIDS
    seed = f"{lab}/{'/'.join(place.path)}/{name}"
    offset = int.from_bytes(sha256(seed.encode()).digest()[:8]) % len(room)
    while room[offset] in taken:
        offset = (offset + 1) % len(room)
    return room[offset]
