"""Windows without its drivers: its installer has none for virtio, and shows no disk to install on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from components.media.iso import Iso
from components.refused import Refused
from components.stackfile.machines import GuestSpec
from components.stackfile.places import Machine, machines
from components.stackfile.problems import listed

if TYPE_CHECKING:
    from components.stackfile import LabSpec

INSTALLER = "/sources/boot.wim"
"""What Windows' installer boots."""
VIRTIO = "virtio"


def lacking(spec: LabSpec) -> list[str]:
    """Return what is to be said of guests that Windows is installed in, on virtio and with no further disc.

    No mistake for certain: an ISO may have got the drivers.
    """
    found = []
    # Many guests may have one ISO.
    boots = cache(_boots_windows)
    for machine in machines(spec):
        guest = machine.spec
        if not isinstance(guest, GuestSpec) or guest.iso is None or guest.image or guest.discs:
            continue
        seen = _virtio(machine, guest)
        told = guest.cloud_init is not None and guest.cloud_init.windows
        if seen and (told or boots(spec.media[guest.iso].path)):
            found.append(
                f"{machine.at}.discs: nothing given, and Windows' installer has no driver for virtio, which is "
                f"what it would see of {listed(seen)}: add a disc with drivers, such as virtio-win.iso, or write "
                "disk_bus: sata and nic_model: e1000"
            )
    return found


def _virtio(machine: Machine, guest: GuestSpec) -> list[str]:
    offers = machine.place.offers
    bus = guest.disk_bus or offers.disk_buses[0]
    usual = guest.nic_model or offers.nic_models[0]
    seen = ["its disk"] if guest.disk_gib and bus in offers.virtio else []
    return seen + (["its NIC"] if any((nic.model or usual) == VIRTIO for nic in guest.nics) else [])


def _boots_windows(path: str) -> bool:
    try:
        found = Iso(Path(path))
        # Microsoft's are UDF: nobody has to look into others.
        return found.udf is not None and found.find(INSTALLER) is not None
    except Refused:
        return False  # absent in a preview, or damaged: told by others
