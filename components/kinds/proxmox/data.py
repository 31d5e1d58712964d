"""The disks of a guest: its first one, and further ones at the places that they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_proxmoxve as px

from components.gates.codec import later
from components.kinds.proxmox.gates.disks import Disks, PveDisks
from components.stackfile import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.kinds.proxmox.place import ProxmoxPlace
    from components.stackfile import MachineSpec


def all_disks(
    node: ProxmoxPlace,
    name: str,
    spec: MachineSpec,
    number: int,
    first: list[px.VmLegacyDiskArgs],
    slot: pulumi.Resource,
    parent: pulumi.Resource | None,
) -> pulumi.Input[list[px.VmLegacyDiskArgs]]:
    """Return the disks of a machine: its ``first``, and in the order of their places a guest's further ones."""
    if not isinstance(spec, GuestSpec) or not spec.disks:
        return first
    sizes = dict(spec.disks)

    def listed(places: Mapping[str, str]) -> list[px.VmLegacyDiskArgs]:
        return first + [
            px.VmLegacyDiskArgs(
                interface=place, datastore_id=node.disks, size=sizes[disk], serial=disk
            )
            for disk, place in sorted(places.items(), key=lambda each: int(each[1][4:]))
        ]

    gate = PveDisks(
        f"{name}-disks",
        Disks(
            api=later(node.api),
            node=later(node.node),
            vmid=number,
            owner=later(node.lab.identity.uuid("domain", name)),
            called=name,
            storage=node.disks,
            disks=sizes,
        ),
        node.bound(parent, depends_on=[slot]),
    )
    return gate.places.apply(listed)
