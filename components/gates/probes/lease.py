"""The machine took its address by DHCP. ``{network, mac}``: of the place's libvirt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import none
from components.remote.census import census
from components.remote.shell import LocalShell
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Props
    from components.remote.virsh import Virsh


def probe(props: Props, place: Virsh) -> Seen:
    """See `components.gates.probes.probe`."""
    wanted = props["probe"]
    if isinstance(place.shell, LocalShell):
        address = place.lease(wanted["network"], wanted["mac"])
    else:
        address = census(place).leases.get(wanted["mac"])
    if address is None:
        return Seen(ok=False, text=f"no DHCP lease for {wanted['mac']} on {wanted['network']} yet")
    return Seen(ok=True, text=f"leased {address}")


# A lease expires while its guest sleeps, so on a diff a running domain is enough.
glance = none.probe
