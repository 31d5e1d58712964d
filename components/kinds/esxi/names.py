"""Names of what stands on an ESXi: which it takes, and how what is the lab's own is told apart."""

from __future__ import annotations

import hashlib

LONGEST = 60
"""Bytes of a name: with what is added, a guest's or port group's stays below ESXi's 80."""
FORBIDDEN = '/\\"|[],%'
"""Letters that file names, .vmx files, lists of VMs or of port groups give another meaning."""


def unfit(name: str) -> str:
    """Say why ESXi can't have something of that ``name``; empty when it can."""
    if (
        name
        and len(name.encode(errors="replace")) <= LONGEST
        and name == name.strip()
        and name[0] not in "-."
        and name.isprintable()
        and not any(letter in FORBIDDEN for letter in name)
    ):
        return ""
    return (
        f"{name!r} can't be a name on ESXi: at most {LONGEST} bytes, no line breaks, none of "
        f"{' '.join(FORBIDDEN)}, no blank at either end, no - or . at the beginning: rename it"
    )


def digest(*words: str) -> str:
    """Return eight letters that stand for ``words`` where they don't fit into a name."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
