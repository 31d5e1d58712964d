"""Which node of a cluster a lab stands on: by its name, so that labs spread with nobody in between.

Weighted rendezvous hashing among the nodes that have room: each node draws a number for the lab, of
which larger nodes draw larger ones, and the largest wins. So another lab never moves this one; a node
more takes its share of the labs and moves no other; and what a node declares is what each lab
on it may need, not what is free there now, which no one here can know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from components.stackfile.problems import Problem, choose, counted, listed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.stackfile.host import ClusterSpec, NodeSpec


@dataclass(frozen=True, slots=True)
class Totals:
    """What the first layer takes of the outer host; all deeper layers are inside it."""

    memory_mib: int
    disk_gib: int
    cores: int


def fits(node: NodeSpec, need: Totals) -> bool:
    """Whether ``node`` declares room for all of ``need``."""
    return (
        need.memory_mib <= node.memory_mib
        and need.disk_gib <= node.disk_gib
        and need.cores <= node.cores
    )


def chosen(lab: str, nodes: Mapping[str, NodeSpec], need: Totals) -> str | None:
    """Return the node for the lab called ``lab``; None where it has room on none."""
    rooms = [name for name, node in nodes.items() if fits(node, need)]
    # The name decides between draws that are the same, which the order of the file can't.
    return max(
        rooms, key=lambda name: (_draw(lab, name, nodes[name].memory_mib), name), default=None
    )


def _draw(lab: str, node: str, weight: int) -> float:
    number = int.from_bytes(sha256(f"{lab}/{node}".encode()).digest()[:8])
    return -weight / math.log((number + 1) / (2**64 + 2))


def node_of(lab: str, host: ClusterSpec, need: Totals) -> str:
    """Return the node of an accepted lab: the one it is pinned to, else the chosen one."""
    found = host.node or chosen(lab, host.nodes, need)
    if found is None:
        raise ValueError(f"no node has room for {lab}, which `load` refuses")
    return found


def wrong(lab: str, host: ClusterSpec, need: Totals) -> list[Problem]:
    """Return why the lab can't stand on its host."""
    known = list(host.nodes)
    if host.node is not None and host.node not in host.nodes:
        rule = f"the nodes that labs may stand on are {listed(known)}"
        return [Problem("lab.host.node", f"{host.node!r} given", rule, choose(host.node, known))]
    asked = {host.node: host.nodes[host.node]} if host.node is not None else host.nodes
    if chosen(lab, asked, need) is not None:
        return []
    rule = f"the lab needs {_size(need)}, and a lab stands on one node"
    given = "; ".join(f"{name} with {_size(node)}" for name, node in asked.items())
    remedy = "make the lab smaller, or declare a larger node"
    if host.node is not None and chosen(lab, host.nodes, need) is not None:
        remedy += ", or remove node:"
    return [Problem("lab.host.nodes", f"{given} given", rule, remedy)]


def _size(of: NodeSpec | Totals) -> str:
    return listed(
        [f"{of.memory_mib} MiB", f"{of.disk_gib} GiB of disk", counted(of.cores, "cores")]
    )
