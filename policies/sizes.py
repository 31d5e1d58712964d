"""sizes: a nested hypervisor is as large as its maker says.

Below these it does not install, or installs and can't hold a guest. What needs the whole stack (the
disk of a libvirt domain is a resource of its own) is `capacity`.
"""

from __future__ import annotations

from typing import Any

import machines
from domain_xml import Unjudgeable, domain
from inputs import note
from known import UNKNOWN, items, number
from limits import limits
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)

PROXMOX_MIB = 512
PROXMOX_GIB = 8
VSPHERE_MIB = 1024
"""The providers' own defaults."""


def cores(resource_type: str, props: Any) -> float | None:
    """Return a machine's virtual cores, None when they are not known yet."""
    if resource_type == machines.DOMAIN:
        given = domain(props).get("vcpu")
        return float(given) if given and given.strip().isdigit() else None
    if resource_type == machines.VSPHERE_VM:
        return number(props, "numCpus", default=1)
    each = number(props, "cpu", "cores", default=1)
    sockets = number(props, "cpu", "sockets", default=1)
    return None if each is None or sockets is None else each * sockets


def memory_mib(resource_type: str, props: Any) -> float | None:
    """Return a machine's memory, None when it is not known yet."""
    if resource_type == machines.DOMAIN:
        return domain(props).memory_mib()
    if resource_type == machines.VSPHERE_VM:
        return number(props, "memory", default=VSPHERE_MIB)
    return number(props, "memory", "dedicated", default=PROXMOX_MIB)


def disks_gib(resource_type: str, props: Any) -> list[float] | None:
    """Return the sizes of the disks that a machine itself names, None when one is not known."""
    if resource_type == machines.DOMAIN:
        return None
    default = None if resource_type == machines.VSPHERE_VM else PROXMOX_GIB
    found = items(props, "disks")
    if found is None or UNKNOWN in found:
        return None
    sizes = [number(disk, "size", default=default) for disk in found]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def too_small(name: str, what: str, unit: str, found: float | None, needed: int, by: str) -> str:
    """Return what to say of a size; empty when it is enough or not known yet."""
    if found is None or found >= needed:
        return ""
    return f"{name}: {what} is {found:g} {unit}; it needs {needed} ({by})"


def _is_large_enough(args: ResourceValidationArgs, report: ReportViolation) -> None:
    kind = machines.kind(args.resource_type, args.urn, args.props)
    if kind is None:
        return
    least = limits(kind)
    try:
        memory = memory_mib(args.resource_type, args.props)
        processors = cores(args.resource_type, args.props)
    except Unjudgeable as why:
        report(f"{args.name}: {why}", None)
        return
    disks = disks_gib(args.resource_type, args.props)
    largest = max(disks or (), default=None)
    for what, unit, found, needed, by in (
        ("memory", "MiB", memory, least.memory_mib, "memory_mib"),
        ("number of cores", "cores", processors, least.cores, "cores"),
        ("largest disk", "GiB", largest, least.disk_gib, "disk_gib"),
    ):
        if said := too_small(args.name, what, unit, found, needed, least.source[by]):
            report(said, None)


SIZES = ResourceValidationPolicy(
    name="sizes",
    description="A nested hypervisor is as large as its maker says.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    remediation_steps="Give it the memory, cores or disk that the message asks for.",
    validate=[note, _is_large_enough],
)
