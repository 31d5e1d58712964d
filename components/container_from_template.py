"""ContainerFromTemplate: a system container on a hypervisor that has containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.hypervisors.handle import Hypervisor, MachineMade, NetworkMade
    from components.spec import ContainerSpec, MachinePlan


class ContainerFromTemplate(pulumi.ComponentResource):
    """A container made from a template, built-in or the user's own root file system.

    It creates the container and waits until it runs. It leaves out application containers: a
    container here is a small machine with an init of its own.
    """

    address: pulumi.Output[str]
    """Planned IPv4 address, dotted; empty without a network."""
    console: pulumi.Output[str]
    """Command that gives a shell in it, run on its hypervisor."""

    def __init__(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        *,
        on: Hypervisor,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("nestlab:index:ContainerFromTemplate", name, {}, opts)
        self.made: MachineMade = on.container(
            name, spec, plan, networks, pulumi.ResourceOptions(parent=self)
        )
        self.address = pulumi.Output.from_input(self.made.address)
        self.console = pulumi.Output.from_input(self.made.console)
        self.register_outputs({"address": self.address, "console": self.console})
