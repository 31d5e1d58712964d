"""BridgedNetwork: a network of one place, and the addresses of everything on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.hypervisors.handle import Hypervisor, NetworkMade
    from components.spec import NetworkPlan


class BridgedNetwork(pulumi.ComponentResource):
    """A network made by a hypervisor, with its own bridge or on one of its host.

    It creates the network and its gate, which starts it when somebody stopped it and holds the DHCP
    reservations. It leaves out bridges of the host itself: those belong to the host's administrator.
    """

    network: pulumi.Output[str]
    """Name of the network in its hypervisor, known once it is up."""
    subnet: pulumi.Output[str]
    """IPv4 subnet, such as 10.77.0.0/24; empty on a bridge of the host."""

    def __init__(
        self,
        name: str,
        plan: NetworkPlan,
        *,
        on: Hypervisor,
        reservations: Sequence[dict[str, Any]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nestlab:index:BridgedNetwork", name, {}, opts)
        self.made: NetworkMade = on.network(
            name, plan, reservations, pulumi.ResourceOptions(parent=self)
        )
        self.network = pulumi.Output.from_input(self.made.name)
        self.subnet = pulumi.Output.from_input(plan.subnet or "")
        self.register_outputs({"network": self.network, "subnet": self.subnet})
