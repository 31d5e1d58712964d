"""shared-objects: a student's stack brings its own networks and pools.

A machine on a network that its stack did not make is on one with whoever else uses it. Rules see
one stack at a time, so what is seen is the use of something that came from elsewhere. Many a lab of
one person does so rightly: an advice here, mandatory in a class by configuration. On Proxmox VE and
vSphere that is all there is to be seen of a machine on the host's own bridge or port group; storages
and datastores are the host's there, and shared by all.
"""

from __future__ import annotations

import isolation
import machines
import stated
import teaching_safety
from domain_xml import Unjudgeable, domain, shown
from isolation import NETWORK
from known import UNKNOWN, items, text
from overlaps import POOL
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyResource,
    ReportViolation,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from relations import Relations

IN_POOLS = (
    "libvirt:index/volume:Volume",
    "libvirt:index/cloudInitDisk:CloudInitDisk",
    "libvirt:index/ignition:Ignition",
    "libvirt:index/combustion:Combustion",
)
POOL_DEFAULT = "default"
"""Where the provider puts a volume of which nothing is said."""


BRIDGE_DEFAULT = "vmbr0"
"""The same for Proxmox VE."""
BRIDGES = (
    "proxmoxve:network/linux/bridge:Bridge",
    "proxmoxve:network/linux/bridgeLegacy:BridgeLegacy",
    "proxmoxve:Network/networkBridge:NetworkBridge",
    "proxmoxve:sdn/vnet:Vnet",
    "proxmoxve:sdn/vnetLegacy:VnetLegacy",
    isolation.PROXMOX_NETWORK,
)
GROUPS = tuple(teaching_safety.VSPHERE_SWITCHES_AND_GATES)
NAMES = ("name", "id", "bridge", "network", "networkId", "network_id", "called")
"""Inputs and outputs by which a machine may name a network, whoever made that."""


def _brings_its_own(args: StackValidationArgs, report: ReportViolation) -> None:
    if not args.resources:
        return
    stack, urn = Relations(args.resources), args.resources[0].urn
    shared = stated.names(args.get_config(), "networks", urn)
    for machine in stack.named(*machines.MACHINES, machines.PROXMOX_CONTAINER, machines.REMOTE):
        for name in sorted(_networks(machine) - shared):
            if not _is_made(stack, machine, name):
                report(
                    f"{machine.name}: it is on network {name!r}, which this stack did not make",
                    machine.urn,
                )
    pools = _pools(stack) | stated.names(args.get_config(), "pools", urn)
    for volume in stack.named(*IN_POOLS):
        pool = text(volume.props, "pool")
        if pool is not None and (pool or POOL_DEFAULT) not in pools:
            report(
                f"{volume.name}: it is in pool {pool or POOL_DEFAULT!r}, which this stack did not make",
                volume.urn,
            )


def _pools(stack: Relations) -> set[str]:
    return {
        name
        for each in stack.named(POOL)
        for key in ("name", "id")
        if (name := text(each.props, key))
    }


def _is_made(stack: Relations, machine: PolicyResource, name: str) -> bool:
    """Return whether a network of this name is the stack's own, of the place that the machine is in."""
    if machine.resource_type in machines.PROXMOX_VMS | {machines.PROXMOX_CONTAINER}:
        types: tuple[str, ...] = BRIDGES
    elif machine.resource_type == machines.VSPHERE_VM:
        types = GROUPS
    elif machine.resource_type == machines.REMOTE:
        # Containers on a libvirt are on its networks' bridges.
        types = (machines.REMOTE, NETWORK)
    else:
        types = (NETWORK,)
    for each in stack.named(*types):
        if stack.host(each) is not stack.host(machine) or _elsewhere(each, machine):
            continue
        if machine.resource_type == machines.VSPHERE_VM and each.urn in stack.takes(
            machine, "networkInterfaces"
        ):
            # By its id, which is none of the port group's own.
            return True
        own = [text(each.props, key) for key in NAMES] + [text(each.props, "wanted", "name")]
        if name in own or (each.resource_type == NETWORK and text(each.props, "bridge") is None):
            return True
    return False


def _elsewhere(network: PolicyResource, machine: PolicyResource) -> bool:
    """Return whether a bridge is on another node of a cluster."""
    if network.resource_type not in BRIDGES:
        return False
    where = text(network.props, "node") or text(network.props, "nodeName")
    here = text(machine.props, "nodeName")
    return bool(where) and here is not None and where != here


def _networks(machine: PolicyResource) -> set[str]:
    """Return the networks that a machine is on, as far as they are known."""
    kind = machine.resource_type
    if kind == machines.DOMAIN:
        try:
            made = domain(machine.props)
        except Unjudgeable:
            return set()
        sources = made.all("devices/interface[@type='network']/source")
        return {name for source in sources if (name := shown(source.get("network")))}
    field, key, default = ("networkInterfaces", "bridge", BRIDGE_DEFAULT)
    if kind in machines.PROXMOX_VMS:
        field = "networkDevices"
    elif kind == machines.VSPHERE_VM:
        key, default = "networkId", ""
    elif kind == machines.REMOTE:
        if machines.driven(kind, machine.props) in {"network", "medium"}:
            return set()
        nics = items(machine.props, "wanted", "nics") or ()
        # A container has one NIC, on a bridge.
        named = [text(nic, "network") for nic in nics if nic is not UNKNOWN]
        return {name for name in (*named, text(machine.props, "wanted", "bridge")) if name}
    nics = [nic for nic in items(machine.props, field) or () if nic is not UNKNOWN]
    found = [text(nic, key) for nic in nics]
    return {name or default for name in found if name is not None} - {""}


SHARED_OBJECTS = StackValidationPolicy(
    name="shared-objects",
    description="A stack uses networks and pools of its own.",
    enforcement_level=EnforcementLevel.ADVISORY,
    severity=Severity.MEDIUM,
    config_schema=PolicyConfigSchema(
        properties={
            key: {
                "type": "array",
                "items": {"type": "string"},
                "description": f"{key.capitalize()} of the host that the stack may share",
            }
            for key in ("networks", "pools")
        }
    ),
    remediation_steps="Make a network and a pool in the stack, or name what it may share: "
    "nestlab:networks, nestlab:pools.",
    validate=_brings_its_own,
)
