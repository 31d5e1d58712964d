"""teaching-safety: no network lets its machines pretend to be others, unless the stack says so.

Promiscuous mode, forged transmits and changed MAC addresses let a machine hear and answer for every
other one. A nested ESXi or Proxmox VE needs them, because its guests have MAC addresses of their
own; a class of networking exercises does not. What is stated has to be needed: `spoofing-need`.

Stated is a network, switch or machine by its name (of a network of ours: as the lab calls it), in ``nestlab:spoofing`` or in this policy's
configuration as ``spoofing``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import machines
import stated
from domain_xml import Unjudgeable, domain
from known import text, value
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

VSPHERE_SWITCHES = frozenset(
    f"vsphere:index/{name[0].lower()}{name[1:]}:{name}"
    for name in (
        "HostVirtualSwitch",
        "HostPortGroup",
        "DistributedVirtualSwitch",
        "DistributedPortGroup",
    )
)
PROXMOX_FIREWALLS = frozenset(
    {
        "proxmoxve:firewall/optionsLegacy:OptionsLegacy",
        "proxmoxve:Network/firewallOptions:FirewallOptions",
    }
)
VSPHERE_SWITCHES_AND_GATES = VSPHERE_SWITCHES | {machines.gate("VsphereNetworkGate")}
ALLOWS = ("allowPromiscuous", "allowForgedTransmits", "allowMacChanges")
DRIVEN = {"macspoofing", "macaddressspoofing", "promiscuous", "forgedtransmits", "macchanges"}
"""The same in the words of hypervisors' own commands, without capitals and signs."""
_LETTERS = re.compile(r"[^A-Za-z]")
SCHEMA = PolicyConfigSchema(
    properties={
        "spoofing": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Networks, switches and machines that may pretend to be others, by name",
        }
    }
)


def allowed(resource_type: str, props: Any) -> list[str]:
    """Return what a resource allows its machines, in the words of its inputs."""
    if resource_type in VSPHERE_SWITCHES_AND_GATES:
        return [key for key in ALLOWS if value(props, key) is True]
    if resource_type in PROXMOX_FIREWALLS:
        return ["macfilter off"] if value(props, "macfilter") is False else []
    if resource_type == machines.DOMAIN:
        try:
            nics = domain(props).all("devices/interface[@trustGuestRxFilters='yes']")
        except Unjudgeable:
            return []
        return ["trustGuestRxFilters"] if nics else []
    if resource_type == machines.REMOTE:
        return sorted(_switched_on(value(props, "wanted")))
    return []


def _switched_on(given: Any) -> set[str]:
    """Return what a hypervisor's own commands are told to allow, whatever they call it."""
    found = set[str]()
    if isinstance(given, Mapping):
        for key in given:
            inner = value(given, key)
            if inner is True and _LETTERS.sub("", str(key)).lower().removeprefix("allow") in DRIVEN:
                found.add(str(key))
            found |= _switched_on(inner)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for number in range(len(given)):
            found |= _switched_on(value(given, number))
    return found


def is_stated(args: ResourceValidationArgs) -> bool:
    """Return whether the stack says that a resource may do so."""
    said = stated.names(args.get_config(), "spoofing", args.urn)
    own = {args.name, args.name.removesuffix("-gate"), text(args.props, "name") or args.name}
    return bool(own & said)


def _is_stated(args: ResourceValidationArgs, report: ReportViolation) -> None:
    found = allowed(args.resource_type, args.props)
    if found and not is_stated(args):
        report(
            f"{args.name}: {', '.join(found)}: its machines can pretend to be others, and the stack "
            "does not say so",
            None,
        )


TEACHING_SAFETY = ResourceValidationPolicy(
    name="teaching-safety",
    description="No network lets its machines pretend to be others, unless the stack says so.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    config_schema=SCHEMA,
    remediation_steps="Set allowPromiscuous, allowForgedTransmits and allowMacChanges to false, leave "
    "macfilter on; for a nested ESXi or Proxmox VE name the network in nestlab:spoofing.",
    validate=_is_stated,
)
