"""NestedHypervisorLab: a hypervisor inside another, with everything that stands in it.

`fill` is the whole recursion: a place gets its networks, then its nested hypervisors, each of which
is a place again, then its guests and containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components import kinds as hypervisors
from components.bridged_network import BridgedNetwork
from components.container_from_template import ContainerFromTemplate
from components.contents import Contents
from components.guest_from_iso import GuestFromIso
from components.piece import Screened
from components.sheet import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.contents import Args, Holder
    from components.place.contract import HypervisorMade, NetworkMade, Place
    from components.stackfile import HypervisorSpec, PlaceSpec


class NestedHypervisorLab(Screened):
    """A nested hypervisor and all that is in it, at any depth.

    It creates the guest that becomes the hypervisor with its medium, the gate that waits until it
    takes orders, and then its networks, guests, containers and nested hypervisors, which go away
    with it. Its args are the fields of its kind's model, `HypervisorSpec` and more; what they hold
    beneath networks, guests, containers and hypervisors is in it beside what is made `on` it.
    """

    urn_type = "nestlab:index:NestedHypervisorLab"
    group = "hypervisors"
    holds: Contents
    """What is in it, for others that are made `on` it."""

    def __init__(
        self,
        name: str,
        args: Args,
        opts: pulumi.ResourceOptions | None = None,
        *,
        on: Holder,
    ) -> None:
        """As `components.piece.Piece`."""
        super().__init__(name, args, opts, on=on)
        at = f"{on.holds.at}.hypervisors.{name}"
        self.holds = Contents(self.draft, self.said, at, f"{self.logical}-", self)

    @property
    def url(self) -> pulumi.Output[str]:
        """Its web interface; empty without one."""
        return self.draft.later(lambda: self.up.made.url)

    def make(
        self, place: Place, spec: HypervisorSpec, networks: Mapping[str, NetworkMade]
    ) -> list[Entry]:
        """Make it and all that is in it, now that the lab is planned; return its part of the sheet."""
        plan = place.plan.machines[self.key]
        install = hypervisors.installer(spec.kind)
        made: HypervisorMade = install(
            self.logical,
            lab=place.lab,
            host=place,
            spec=spec,
            plan=plan,
            networks=networks,
            opts=pulumi.ResourceOptions(parent=self),
        )
        entries = [self.done(Entry(plan, spec.kind, made))]
        if made.place:
            entries += fill(made.place, spec, on=self)
        return entries


def fill(place: Place, spec: PlaceSpec, *, on: Holder) -> list[Entry]:
    """Make everything that ``spec`` puts into ``place``; return its part of the sheet.

    What a program made itself `on` the place is taken, the rest is made here. Logical names are the path
    from the outside in, so no two places can collide.
    """
    pieces = on.holds.pieces
    networks = {
        key: (pieces.get(("networks", key)) or BridgedNetwork(key, spec.networks[key], on=on)).make(
            place
        )
        for key in place.plan.networks
    }
    entries: list[Entry] = []
    for key, nested in spec.hypervisors.items():
        lab = pieces.get(("hypervisors", key)) or NestedHypervisorLab(key, nested, on=on)
        entries += lab.make(place, nested, networks)
    for key, guest in spec.guests.items():
        made = pieces.get(("guests", key)) or GuestFromIso(key, guest, on=on)
        entries.append(made.make(place, guest, networks))
    for key, container in spec.containers.items():
        box = pieces.get(("containers", key)) or ContainerFromTemplate(key, container, on=on)
        entries.append(box.make(place, container, networks))
    return entries
