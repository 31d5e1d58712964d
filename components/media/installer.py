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

from components.media import esxi, proxmox, windows, xenserver
from components.media.iso import Iso, remaster
from components.remote.waiting import say
from components.spec import sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from components.media.recipe import Recipe

RECIPES: Mapping[str, Recipe] = {
    "esxi": esxi.RECIPE,
    "esxi-usb": esxi.STICK,
    "hyperv": windows.RECIPE,
    "proxmox": proxmox.RECIPE,
    "xenserver": xenserver.RECIPE,
}
"""By kind of hypervisor, and by what its answers come on where that is no CD; the others have no
installer of their own."""


def installer(kind: str, iso: Path, cache: Path) -> Path:
    """Return the unattended installer made of the vendor's ``iso``, made now if it is not there.

    Raises:
        WrongMedium: it is not this kind's installer, or is damaged.
        NotMade: xorriso is missing or failed.
    """
    recipe = RECIPES[kind]
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
