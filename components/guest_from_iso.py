"""GuestFromIso: a virtual machine on any hypervisor, from an ISO, a disk image, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.piece import Screened
from components.sheet import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.place.contract import NetworkMade, Place
    from components.stackfile import GuestSpec


class GuestFromIso(Screened):
    """A guest that boots from an ISO, or from a disk that is a linked clone of an image.

    It creates the disk if one is asked for, the machine, and the gate that waits until it is up.
    It leaves out what is installed in the guest. Its args are `GuestSpec`'s fields.
    """

    urn_type = "nestlab:index:GuestFromIso"
    group = "guests"

    def make(self, place: Place, spec: GuestSpec, networks: Mapping[str, NetworkMade]) -> Entry:
        """Make it, now that the lab is planned."""
        plan = place.plan.machines[self.key]
        made = place.guest(self.logical, spec, plan, networks, pulumi.ResourceOptions(parent=self))
        return self.done(Entry(plan, "guest", made))
