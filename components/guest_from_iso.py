"""GuestFromIso: a virtual machine on any hypervisor, from an ISO, a disk image, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.hypervisors.handle import Hypervisor, MachineMade, NetworkMade
    from components.spec import GuestSpec, MachinePlan


class GuestFromIso(pulumi.ComponentResource):
    """A guest that boots from an ISO, or from a disk that is a linked clone of an image.

    It creates the disk if one is asked for, the machine, and the gate that waits until it is up.
    It leaves out what is installed in the guest.
    """

    address: pulumi.Output[str]
    """Planned IPv4 address, dotted; empty where there is none."""
    console: pulumi.Output[str]
    """Its screen as a URI; known once the guest is up, empty without one."""

    def __init__(
        self,
        name: str,
        spec: GuestSpec,
        plan: MachinePlan,
        *,
        on: Hypervisor,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nestlab:index:GuestFromIso", name, {}, opts)
        self.made: MachineMade = on.guest(
            name, spec, plan, networks, pulumi.ResourceOptions(parent=self)
        )
        self.address = pulumi.Output.from_input(self.made.address)
        self.console = pulumi.Output.from_input(self.made.console)
        self.register_outputs({"address": self.address, "console": self.console})
