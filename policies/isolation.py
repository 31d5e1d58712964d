"""isolation: what happens in a lab stays in it.

A lab on a bridge of its host is on the network of the school: its DHCP servers answer there, its
scanners scan there. That is refused unless the stack says so, by naming the host's interface: in
our stack file as a network's ``bridge``, in others as ``nestlab:bridges``, or in this policy's
configuration as ``bridges``. What a network or NIC is, is judged after the stylesheet. For a network
inside a nested hypervisor that hypervisor is the host: what is on its way out is beside it, no longer in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import machines
import stated
from domain_xml import Unjudgeable, domain, network, shown
from inputs import note
from known import items, text, value
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK = "libvirt:index/network:Network"
OUTSIDE = {"bridge", "passthrough", "vepa", "private", "hostdev", "macvtap"}
"""Forward modes by which a libvirt network is the host's own."""


def _stays_inside(args: ResourceValidationArgs, report: ReportViolation) -> None:
    judge = JUDGES.get(args.resource_type)
    if judge is None:
        return
    try:
        found = judge(args)
    except Unjudgeable as why:
        if args.resource_type == NETWORK:
            report(f"{args.name}: {why}", None)
        # Of a domain `console-exposure` says so.
        return
    if not found:
        return
    logical = args.name.removesuffix("-gate").removesuffix("-network")
    uplinks = stated.lab_uplinks(args.urn)
    if args.resource_type == machines.DOMAIN:
        nested = any(place and args.name.startswith(place) for place in uplinks.values())
        found = [each for each in found if not (nested and each in stated.NESTED)]
    if logical in uplinks:
        driven = args.resource_type in DYNAMIC and text(args.props, "driver") != XEN_NETWORK
        way_out = stated.uplinks(args.urn) if driven else stated.NESTED
        found = [each for each in found if each not in way_out]
    stack_says = stated.names(args.get_config(), "bridges", args.urn) | stated.lab_bridges(args.urn)
    for interface in found:
        if interface not in stack_says:
            report(
                f"{args.name}: it is on the host's {interface or 'own network'!r}, and the stack does not "
                "say so",
                None,
            )


def _network(args: ResourceValidationArgs) -> list[str]:
    made = network(args.props)
    found = []
    for forward in made.all("forward"):
        if shown(forward.get("mode")) in OUTSIDE:
            bridge = made.get("bridge", "name")
            found += [bridge] if bridge else []
            devices = [forward, *forward.findall("interface")]
            named = [device for each in devices if (device := shown(each.get("dev")))]
            found += named or ([] if bridge or bridge is None else ["interface"])
    return found


def _domain(args: ResourceValidationArgs) -> list[str]:
    made = domain(args.props)
    found = []
    for nic in made.all("devices/interface"):
        source = nic.find("source")
        kind = shown(nic.get("type"))
        if kind == "bridge":
            found.append(shown(source.get("bridge")) if source is not None else "bridge")
        elif kind == "direct":
            found.append(shown(source.get("dev")) if source is not None else "interface")
        elif kind == "hostdev":
            found.append("PCI device")
    return [each for each in found if each]


def _proxmox_bridge(args: ResourceValidationArgs) -> list[str]:
    return [str(port) for port in items(args.props, "ports") or () if isinstance(port, str)]


def _vsphere_switch(args: ResourceValidationArgs) -> list[str]:
    adapters = [*(items(args.props, "activeNics") or ()), *(items(args.props, "standbyNics") or ())]
    return [nic for nic in dict.fromkeys(adapters) if isinstance(nic, str)]


def _vsphere_distributed(args: ResourceValidationArgs) -> list[str]:
    found = []
    for host in items(args.props, "hosts") or ():
        found += [device for device in items(host, "devices") or () if isinstance(device, str)]
    return list(dict.fromkeys(found))


def _driven(args: ResourceValidationArgs) -> list[str]:
    if machines.driven(args.resource_type, args.props) != "network":
        return []
    bridge = text(args.props, "wanted", "bridge")
    return [bridge] if text(args.props, "wanted", "mode") == "bridge" and bridge is not None else []


def _proxmox_gate(args: ResourceValidationArgs) -> list[str]:
    # One of the lab's own has an address, and is marked with its owner.
    marks = [text(args.props, key) for key in ("cidr", "owner")]
    return [text(args.props, "bridge") or ""] if marks[0] == "" or marks[1] == "" else []


def _vsphere_gate(args: ResourceValidationArgs) -> list[str]:
    if value(args.props, "own") is not False:
        return []
    switch = text(args.props, "switch")
    return [] if switch is None else [switch]


PROXMOX_NETWORK, VSPHERE_NETWORK = (
    machines.gate("PveNetworkGate"),
    machines.gate("VsphereNetworkGate"),
)
DYNAMIC = {machines.REMOTE, PROXMOX_NETWORK, VSPHERE_NETWORK}
"""Networks that our components make without a provider."""
XEN_NETWORK = "xen.network"
"""The one driver of them whose host has a bridge of nestlab's on its NIC."""
JUDGES: dict[str, Callable[[ResourceValidationArgs], list[str]]] = {
    NETWORK: _network,
    machines.DOMAIN: _domain,
    "proxmoxve:network/linux/bridge:Bridge": _proxmox_bridge,
    "proxmoxve:network/linux/bridgeLegacy:BridgeLegacy": _proxmox_bridge,
    "proxmoxve:Network/networkBridge:NetworkBridge": _proxmox_bridge,
    "vsphere:index/hostVirtualSwitch:HostVirtualSwitch": _vsphere_switch,
    "vsphere:index/distributedVirtualSwitch:DistributedVirtualSwitch": _vsphere_distributed,
    machines.REMOTE: _driven,
    PROXMOX_NETWORK: _proxmox_gate,
    VSPHERE_NETWORK: _vsphere_gate,
}
"""Names of the host's interfaces that each type is on, as far as they are known."""

ISOLATION = ResourceValidationPolicy(
    name="isolation",
    description="No lab is on its host's own network, unless the stack says so.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.CRITICAL,
    config_schema=PolicyConfigSchema(
        properties={
            "bridges": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Interfaces and bridges of the host that the stack may use",
            }
        }
    ),
    remediation_steps="Use a network of mode nat or none (isolated), or name the host's bridge in "
    "the stack: nestlab:bridges.",
    validate=[note, _stays_inside],
)
