"""BridgedNetwork: a network of one place, and the addresses of everything on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.piece import Piece
from components.reach.orders import Reservation

if TYPE_CHECKING:
    from components.place.contract import NetworkMade, Place
    from components.stackfile import LabPlan


class BridgedNetwork(Piece["NetworkMade"]):
    """A network made by a hypervisor, with its own bridge or on one of its host.

    It creates the network and its gate, which starts it when somebody stopped it and holds the DHCP
    reservations. It leaves out bridges of the host itself: those belong to the host's administrator.
    Its args are `NetworkSpec`'s fields.
    """

    urn_type = "nestlab:index:BridgedNetwork"
    group = "networks"
    _subnet = ""

    @property
    def network(self) -> pulumi.Output[str]:
        """Name of the network in its hypervisor, known once it is up."""
        return self.draft.later(lambda: self.up.name)

    @property
    def subnet(self) -> pulumi.Output[str]:
        """IPv4 subnet, such as 10.77.0.0/24; empty on a bridge of the host."""
        return self.draft.later(lambda: self._subnet)

    def make(self, place: Place) -> NetworkMade:
        """Make it, now that the lab is planned."""
        plan = place.plan.networks[self.key]
        self._subnet = plan.subnet or ""
        self.made = place.network(
            self.logical,
            plan,
            _reservations(place.lab.plan, place.plan.path, self.key),
            pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"network": self.made.name, "subnet": self._subnet})
        return self.made


def _reservations(plan: LabPlan, path: tuple[str, ...], network: str) -> list[Reservation]:
    """Return who gets which address on ``network`` of the place at ``path``, in the order of the file.

    Containers set their address themselves; reserving it keeps DHCP from giving it to another.
    libvirt takes a name once for a network: a machine's further NICs get a number to theirs.
    """
    found = []
    counted: dict[str, int] = {}
    for machine, nic in plan.on(path, network):
        if nic.address is None:
            continue
        number = counted[machine.name] = counted.get(machine.name, -1) + 1
        name = f"{machine.name}-{number}" if number else machine.name
        found.append(Reservation(nic.mac, nic.address, name))
    return found
