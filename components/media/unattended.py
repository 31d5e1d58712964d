"""The installer of a kind, changed so that it asks nothing: made once, and shared by every lab.

It holds no secret and nothing of one machine, so it is kept by what it is made of: the vendor's ISO,
by its SHA-256, and the recipe. What a machine is told comes on a second CD.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from components import kinds
from components.media import sums
from components.media.iso import Iso, remaster
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from components.media.remaster import Remaster

ON_STICK = "-usb"
"""End of the name of a kind's installer whose answers come on a USB stick."""


def remaster_of(kind: str) -> Remaster:
    """Return how the installer of ``kind`` is made unattended.

    Raises:
        AttributeError: the kind has no installer of its own.
    """
    media = kinds.part(kind.removesuffix(ON_STICK), "media")
    found: Remaster = media.STICK if kind.endswith(ON_STICK) else media.REMASTER
    return found


def unattended(kind: str, iso: Path, cache: Path) -> Path:
    """Return the unattended installer made of the vendor's ``iso``, made now if it is not there.

    Raises:
        WrongMedium: it is not this kind's installer, or is damaged.
        NotMade: xorriso is missing or failed.
    """
    recipe = remaster_of(kind)
    found = Iso(iso)
    cache.mkdir(parents=True, exist_ok=True)
    digest = sums.sha256([iso], cache / "sums.json")[iso]
    made = cache / f"{kind}-{recipe.version}-{digest}.iso"
    if made.is_file():
        return made
    recipe.check(found)
    with _alone(cache / f".{made.name}.lock"):
        if not made.is_file():
            for left in cache.glob(f".{made.name}.*/"):
                shutil.rmtree(left)
            say(f"{iso.name}: making its unattended copy, once on this machine")
            edits = recipe.edits(found)
            remaster(iso, edits.changes, edits.removes, made, uefi_image=edits.uefi_image)
    return made


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process at a time make the same medium; the lock goes with the process."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
