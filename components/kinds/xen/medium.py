"""Media of Xen: files in dom0, ISOs and raw disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kinds.xen.xl import FILE, PATH, unfit
from components.reach.media import FileMediumDriver

if TYPE_CHECKING:
    from components.reach.orders import MediumOrder


def no_medium(wanted: MediumOrder) -> str:
    """Return why ``wanted`` is no medium: an ISO or a raw disk image."""
    name = wanted.name
    if name.endswith((".qcow2", ".vmdk", ".vdi", ".vhd", ".vhdx")):
        return f"medium {name!r}: without QEMU in dom0 Xen has raw disks only: convert it with qemu-img"
    return unfit(FILE, name, "medium") or unfit(PATH, wanted.store, "folder")


DRIVER = FileMediumDriver(no_medium)
