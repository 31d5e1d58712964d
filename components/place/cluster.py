"""The node of a cluster that a lab stands on: chosen once, when the lab is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from components.gates.kept import Kept
from components.stackfile import totals
from components.stackfile.nodes import node_of

if TYPE_CHECKING:
    from components.place.contract import Lab
    from components.stackfile.host import ClusterSpec


def node(lab: Lab, host: ClusterSpec, owner: pulumi.Resource) -> tuple[pulumi.Output[str], int]:
    """Return the name of the node, and how many cores the one that would be chosen now has.

    A node more, or other sizes, move no lab that stands; `host.node` in the stack file does.
    """
    chosen = node_of(lab.spec.name, host, totals(lab.spec))
    kept = Kept(
        f"{lab.prefix}host-chosen-node",
        chosen,
        wished=host.node is not None,
        opts=pulumi.ResourceOptions(parent=owner),
    )
    return kept.made_with, host.nodes[chosen].cores
