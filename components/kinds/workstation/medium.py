"""Media of Workstation: files as they are, which a guest's CD drive holds or its disk is copied from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kinds.workstation.names import bad_store, unquotable
from components.reach.media import FileMediumDriver

if TYPE_CHECKING:
    from components.reach.orders import MediumOrder

LONGEST = 200
"""Of a medium's name: a file's, and the ending it has while it grows."""


def _no_medium(wanted: MediumOrder) -> str:
    """Return why ``wanted`` is no medium; guests' disks are copies of an image, which is one."""
    name = wanted.name
    if wrong := unquotable(name, "medium"):
        return wrong
    reserved = {"", ".", "..", "guests"}
    if "/" in name or name.strip() != name or name in reserved or len(name) > LONGEST:
        return f"medium {name!r} is no name of a file: rename it"
    return bad_store(wanted)


DRIVER = FileMediumDriver(_no_medium)
