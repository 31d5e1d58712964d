"""The node of a cluster that a lab stands on: chosen once, when the lab is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.gates.kept import Kept
from components.spec import totals
from components.spec.nodes import node_of

if TYPE_CHECKING:
    from components.hypervisors.handle import Lab
    from components.spec.hosts.base import ClusterSpec


def node(lab: Lab, host: ClusterSpec, owner: pulumi.Resource) -> tuple[pulumi.Output[str], int]:
    """Return the name of the node, and how many cores the one that would be chosen now has.

    A node more, or other sizes, move no lab that stands; `host.node` in the stack file does.
    """
    chosen = node_of(lab.spec.name, host, totals(lab.spec))
    kept = Kept(
        "host-chosen-node",
        chosen,
        wished=host.node is not None,
        opts=pulumi.ResourceOptions(parent=owner),
    )
    return kept.made_with, host.nodes[chosen].cores
