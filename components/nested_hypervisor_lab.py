"""NestedHypervisorLab: a hypervisor inside another, with everything that stands in it.

`fill` is the whole recursion: a place gets its networks, then its nested hypervisors, each of which
is a place again, then its guests and containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components import hypervisors
from components.bridged_network import BridgedNetwork
from components.container_from_template import ContainerFromTemplate
from components.guest_from_iso import GuestFromIso
from components.sheet import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.hypervisors.handle import Hypervisor, MachineMade, NetworkMade
    from components.spec import HypervisorSpec, MachinePlan, PlacePlan, PlaceSpec


class NestedHypervisorLab(pulumi.ComponentResource):
    """A nested hypervisor and all that is in it, at any depth.

    It creates the guest that becomes the hypervisor with its medium, the gate that waits until it
    takes orders, and then its networks, guests, containers and nested hypervisors, which go away
    with it.
    """

    address: pulumi.Output[str]
    """Planned IPv4 address of the hypervisor, dotted."""
    console: pulumi.Output[str]
    """Its screen as a URI; known once it is up."""

    def __init__(
        self,
        name: str,
        spec: HypervisorSpec,
        plan: MachinePlan,
        *,
        on: Hypervisor,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nestlab:index:NestedHypervisorLab", name, {}, opts)
        install = hypervisors.installer(spec.kind)
        self.made = install(
            name,
            lab=on.lab,
            host=on,
            spec=spec,
            plan=plan,
            networks=networks,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.address = pulumi.Output.from_input(self.made.address)
        self.console = pulumi.Output.from_input(self.made.console)
        self.entries: list[Entry] = [Entry(plan, spec.kind, self.made)]
        if self.made.place:
            self.entries += fill(self.made.place, spec, prefix=f"{name}-", parent=self)
        self.register_outputs({"address": self.address, "console": self.console})


def fill(
    place: Hypervisor, spec: PlaceSpec, *, prefix: str, parent: pulumi.Resource
) -> list[Entry]:
    """Make everything that ``spec`` puts into ``place``; return its part of the sheet.

    Logical names are the path from the outside in, so no two places can collide.
    """
    plan = place.plan
    child = pulumi.ResourceOptions(parent=parent)
    networks = {
        key: BridgedNetwork(
            f"{prefix}{key}", network, on=place, reservations=_reservations(plan, key), opts=child
        ).made
        for key, network in plan.networks.items()
    }
    entries: list[Entry] = []
    for key, nested in spec.hypervisors.items():
        lab = NestedHypervisorLab(
            f"{prefix}{key}", nested, plan.machines[key], on=place, networks=networks, opts=child
        )
        entries += lab.entries
    made: MachineMade
    for key, guest in spec.guests.items():
        made = GuestFromIso(
            f"{prefix}{key}", guest, plan.machines[key], on=place, networks=networks, opts=child
        ).made
        entries.append(Entry(plan.machines[key], "guest", made))
    for key, container in spec.containers.items():
        made = ContainerFromTemplate(
            f"{prefix}{key}", container, plan.machines[key], on=place, networks=networks, opts=child
        ).made
        entries.append(Entry(plan.machines[key], "container", made))
    return entries


def _reservations(plan: PlacePlan, network: str) -> list[dict[str, str]]:
    """Return who gets which address on ``network``, in the order of the file.

    Containers set their address themselves; reserving it keeps DHCP from giving it to another.
    libvirt takes a name once for a network: a machine's further NICs get a number to theirs.
    """
    found = []
    for machine in plan.machines.values():
        planned = [
            (nic.mac, nic.address) for nic in machine.nics if nic.network == network and nic.address
        ]
        for number, (mac, address) in enumerate(planned):
            name = f"{machine.name}-{number}" if number else machine.name
            found.append({"mac": mac, "address": address, "name": name})
    return found
