"""The machine took the address planned for it by DHCP. ``{network, mac, address}``, of the place's libvirt.

A lease of another address is none: whoever looks for the machine looks where it was planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import none
from components.kinds.libvirt.census import census
from components.reach.shell import LocalShell
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.gates.probes import Asked
    from components.kinds.libvirt.virsh import Virsh


def probe(asked: Asked, place: Virsh) -> Seen:
    """See `components.gates.probes.probe`."""
    wanted = asked.probe
    network, mac, address = wanted.network, wanted.mac, wanted.address
    if isinstance(place.shell, LocalShell):
        leased = place.leases(network, mac)
    else:
        leased = census(place).leases.get(mac, ())
    if not leased:
        return Seen(ok=False, text=f"no DHCP lease for {mac} on {network} yet")
    if address not in leased:
        others = " and ".join(leased)
        text = f"{mac} leased {others} on {network}, and {address} is what is reserved for it"
        return Seen(ok=False, text=text)
    return Seen(ok=True, text=f"leased {address}")


# A lease expires while its guest sleeps, so on a diff a running domain is enough.
glance = none.probe
