"""Machines of vSphere in the provider's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi_vsphere as vs

from components.kinds.vsphere.gates.network import VsphereNetworkGate
from components.kinds.vsphere.hardware import UNCHECKED
from components.stackfile import GuestSpec
from components.stackfile.places import ordered

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.place.contract import NetworkMade
    from components.stackfile import MachinePlan, MachineSpec

STATIC = range(0x40)
"""Fourth byte of the addresses behind 00:50:56 that vSphere lets people give."""
DATA = "data-"
"""How labels of further disks begin."""
STEP_MIB = 4
"""vSphere gives memory in steps of so much."""
PATIENCE: Mapping[str, Any] = {
    "wait_for_guest_ip_timeout": 0,
    "wait_for_guest_net_timeout": 0,
    "shutdown_wait_timeout": 1,
    "force_power_off": True,
}
"""What the provider does not wait for: its gate does, for the machine itself."""


def memory_of(plan: MachinePlan) -> int:
    """Return a machine's memory, MiB, rounded up to vSphere's step."""
    return -(-plan.memory_mib // STEP_MIB) * STEP_MIB


def disks(spec: MachineSpec, plan: MachinePlan) -> list[vs.VirtualMachineDiskArgs]:
    """Return a machine's disk, as the provider makes no machine without one, and a guest's further ones.

    These are on SCSI, of which each machine has a controller; the provider knows them by their labels.
    """
    further = ordered(spec.disks) if isinstance(spec, GuestSpec) else []
    more = [
        vs.VirtualMachineDiskArgs(
            label=f"{DATA}{name}",
            size=gib,
            thin_provisioned=True,
            unit_number=unit,
            controller_type="scsi",
        )
        for unit, (name, gib) in enumerate(further, 1)
    ]
    return [
        vs.VirtualMachineDiskArgs(
            label="disk0",
            size=max(1, plan.disk_gib),
            thin_provisioned=True,
            controller_type=plan.disk_bus,
        ),
        *more,
    ]


def cards(plan: MachinePlan, networks: Mapping[str, NetworkMade]) -> dict[str, Any]:
    """Return a machine's network cards, and that vSphere lets those have MACs that are not its own."""
    return {
        "network_interfaces": [
            vs.VirtualMachineNetworkInterfaceArgs(
                network_id=_id_of(networks[nic.network]),
                adapter_type=nic.model,
                use_static_mac=True,
                mac_address=nic.mac,
            )
            for nic in plan.nics
        ],
        "extra_config": {
            f"ethernet{number}{UNCHECKED}": "FALSE"
            for number, nic in enumerate(plan.nics)
            if not _is_vmwares(nic.mac)
        },
    }


def _id_of(network: NetworkMade) -> pulumi.Output[str]:
    gate = network.ready
    if not isinstance(gate, VsphereNetworkGate):
        raise TypeError("a machine on vSphere is on a network of the same place")
    return gate.network_id


def _is_vmwares(mac: str) -> bool:
    return mac.startswith("00:50:56:") and int(mac[9:11], 16) in STATIC
