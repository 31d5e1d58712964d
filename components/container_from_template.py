"""ContainerFromTemplate: a system container on a hypervisor that has containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.piece import Machine
from components.sheet import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.place.contract import NetworkMade, Place
    from components.stackfile import ContainerSpec


class ContainerFromTemplate(Machine):
    """A container made from a template, built-in or the user's own root file system.

    It creates the container and waits until it runs. It leaves out application containers: a
    container here is a small machine with an init of its own. Its args are `ContainerSpec`'s fields.
    """

    urn_type = "nestlab:index:ContainerFromTemplate"
    group = "containers"

    def make(self, place: Place, spec: ContainerSpec, networks: Mapping[str, NetworkMade]) -> Entry:
        """Make it, now that the lab is planned."""
        plan = place.plan.machines[self.key]
        made = place.container(
            self.logical, spec, plan, networks, pulumi.ResourceOptions(parent=self)
        )
        return self.done(Entry(plan, "container", made))
