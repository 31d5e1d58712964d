"""isolation: what happens in a lab stays in it.

A lab on a bridge of its host is on the network of the school: its DHCP servers answer there, its
scanners scan there. That is refused unless the stack says so, by naming the host's interface: in
our stack file as a network's ``bridge``, in others as ``nestlab:bridges``, or in this policy's
configuration as ``bridges``. What a network or NIC is, is judged after the stylesheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import machines
import stated
from domain_xml import Unjudgeable, domain, network, shown
from inputs import note
from known import items
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
    stack_says = stated.names(args.get_config(), "bridges", args.urn) | stated.lab_bridges(args.urn)
    for interface in found:
        if interface not in stack_says:
            report(
                f"{args.name}: it is on the host's {interface!r}, and the stack does not say so",
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


JUDGES: dict[str, Callable[[ResourceValidationArgs], list[str]]] = {
    NETWORK: _network,
    machines.DOMAIN: _domain,
    "proxmoxve:network/linux/bridge:Bridge": _proxmox_bridge,
    "proxmoxve:network/linux/bridgeLegacy:BridgeLegacy": _proxmox_bridge,
    "proxmoxve:Network/networkBridge:NetworkBridge": _proxmox_bridge,
    "vsphere:index/hostVirtualSwitch:HostVirtualSwitch": _vsphere_switch,
    "vsphere:index/distributedVirtualSwitch:DistributedVirtualSwitch": _vsphere_distributed,
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
