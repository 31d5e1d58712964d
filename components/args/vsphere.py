"""What the components are made from where vsphere is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.args.general import NodeArgs


class VsphereHostArgs(TypedDict, total=False):
    """ESXi hosts managed by a vCenter; the password is `nestlab:hostPassword`."""

    kind: Required[Literal["vsphere"]]
    """What the outer host is: ESXi hosts managed by a vCenter."""
    memory_mib: int | None
    """Budget for the memory of the first layer altogether, MiB; default: no limit."""
    disk_gib: int | None
    """Budget for the disks of the first layer altogether, GiB; default: no limit."""
    cores: int | None
    """Budget for the virtual cores of the first layer altogether, which may exceed the host's real ones; default: no limit."""
    insecure: bool
    """Whether any certificate will do; a self-signed one too, and the server is not verified."""
    nodes: Required[Mapping[str, NodeArgs]]
    """Nodes that labs may stand on, by name, with what each has for them."""
    node: str | None
    """Node the lab stands on; default: one with room for it, always the same for the same name of a lab."""
    server: Required[str]
    """The vCenter, HOST or HOST:PORT."""
    user: str
    """Who makes the lab: NAME@DOMAIN."""
    datacenter: Required[str]
    """Datacenter in the vCenter's inventory."""
    datastore: Required[str]
    """Datastore of the node for disks and ISOs."""
    switch: str
    """Standard switch of the node with its network cards: mode bridge."""
