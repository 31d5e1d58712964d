"""capacity: a nested host holds what is put into it, and the lab stays within its budget.

Over several resources, so a rule over the stack: the disk of a libvirt domain, the guests of a
nested host (whatever makes them, containers included), and what the stack may take of its outer
host. The budget is stated by our stack file (``host`` in ``nestlab:lab``) or by the policy's own
configuration, in the same words: memory_mib, disk_gib, cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import machines
import sizes
import stated
from domain_xml import Unjudgeable
from known import number, text, value
from limits import limits
from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from relations import Relations

if TYPE_CHECKING:
    from pulumi_policy import PolicyResource

VOLUME = "libvirt:index/volume:Volume"
GIB = 1 << 30
UNITS = {"memory_mib": "MiB of memory", "disk_gib": "GiB of disk", "cores": "cores"}


@dataclass(frozen=True)
class Size:
    """What a machine takes of its place; None for what is not known."""

    name: str
    memory_mib: float | None
    cores: float | None
    disk_gib: float | None


def _holds_what_is_in_it(args: StackValidationArgs, report: ReportViolation) -> None:
    stack = Relations(args.resources)
    inside: dict[str, list[Size]] = {}
    outer = []
    for resource in stack.named(*machines.MACHINES, machines.REMOTE, machines.PROXMOX_CONTAINER):
        if value(resource.props, "template") is True:
            continue  # it never runs, and shares its disk with what is cloned from it
        if machines.driven(resource.resource_type, resource.props) in {"network", "medium"}:
            continue
        size = _size(resource)
        host = stack.host(resource)
        if host is None:
            outer.append(size)
        else:
            inside.setdefault(host.urn, []).append(size)
    for urn, kind in stack.kinds.items():
        host = stack.by_urn[urn]
        for said in _too_small_a_disk(host, kind) + _too_full(
            host, kind, inside.get(urn, []), sum(_own_disks(host))
        ):
            report(f"{host.name}: {said}", urn)
    for said in _over_budget(outer, args.get_config(), _budget(stack, args)):
        report(said, None)


def _size(resource: PolicyResource) -> Size:
    if resource.resource_type == machines.REMOTE:
        memory, cores, disk = (
            number(resource.props, "wanted", what) for what in ("memory_mib", "cores", "disk_gib")
        )
        return Size(resource.name, memory, cores, disk or 0)
    if resource.resource_type == machines.PROXMOX_CONTAINER:
        memory = number(resource.props, "memory", "dedicated", default=sizes.PROXMOX_MIB)
        cores = number(resource.props, "cpu", "cores", default=1)
        return Size(resource.name, memory, cores, number(resource.props, "disk", "size", default=4))
    try:
        memory = sizes.memory_mib(resource.resource_type, resource.props)
        cores = sizes.cores(resource.resource_type, resource.props)
    except Unjudgeable:
        # `sizes` and `nested-cpu` have said so of the resource.
        memory = cores = None
    return Size(resource.name, memory, cores, sum(_own_disks(resource)))


def _own_disks(machine: PolicyResource) -> list[float]:
    """Return the sizes of a machine's disks, GiB, as far as they are known."""
    if machine.resource_type != machines.DOMAIN:
        return sizes.disks_gib(machine.resource_type, machine.props) or []
    volumes = [
        volume
        for volume in machine.property_dependencies.get("disks", [])
        if volume.resource_type == VOLUME
    ]
    given = (number(volume.props, "size") for volume in volumes)
    return [size / GIB for size in given if size]


def _too_small_a_disk(host: PolicyResource, kind: str) -> list[str]:
    if host.resource_type != machines.DOMAIN:
        return []
    least = limits(kind)
    largest = max(_own_disks(host), default=None)
    if largest is None or largest >= least.disk_gib:
        return []
    by = least.source["disk_gib"]
    return [f"largest disk is {largest:g} GiB; it needs {least.disk_gib} ({by})"]


def _too_full(host: PolicyResource, kind: str, inside: list[Size], disk: float) -> list[str]:
    least, own = limits(kind), _size(host)
    found = []
    for what, have, always, share in (
        ("memory_mib", own.memory_mib, least.reserve_mib, least.share_mib),
        ("disk_gib", disk, least.reserve_gib, least.share_gib),
    ):
        need, parts = _sum(inside, what)
        reserve = always + math.ceil((have or 0) * share / 1000)
        if have and need and need + reserve > have:
            found.append(
                f"it has {have:g} {UNITS[what]}, and {reserve} for itself with {need:g} inside "
                f"({parts}) are {need + reserve:g}"
            )
    found += [
        f"it has {own.cores:g} cores, and {guest.name} in it has {guest.cores:g}: it would wait for itself"
        for guest in inside
        if own.cores and guest.cores and guest.cores > own.cores
    ]
    return found


def _budget(stack: Relations, args: StackValidationArgs) -> Any:
    """Return what our lab says of its outer host: of the one node it is on, where that is a cluster."""
    if not args.resources:
        return {}
    lab = stated.lab(args.resources[0].urn)
    nodes = value(lab, "host", "nodes")
    if not nodes:
        return value(lab, "host")
    outer = [each for each in stack.named(*machines.PROXMOX_VMS) if stack.host(each) is None]
    names = {text(each.props, "nodeName") for each in outer}
    names |= {text(each.props, "node") for each in stack.named(machines.gate("VsphereNode"))}
    found = [value(nodes, name) for name in names if name]
    return found[0] if len(found) == 1 else {}


def _over_budget(outer: list[Size], config: Any, lab: Any) -> list[str]:
    found = []
    for what, words in UNITS.items():
        have = number(config, what) or number(lab, what)
        need, parts = _sum(outer, what)
        if have is not None and need > have:
            found.append(
                f"the stack takes {need:g} {words} of its host ({parts}); its budget is {have:g}"
            )
    return found


def _sum(given: list[Size], what: str) -> tuple[float, str]:
    """Return the sum of what is known, and how it is made, largest first."""
    parts = [(getattr(size, what) or 0, size.name) for size in given]
    parts = sorted((part for part in parts if part[0]), key=lambda part: (-part[0], part[1]))
    return sum(size for size, _ in parts), " + ".join(f"{name} {size:g}" for size, name in parts)


CAPACITY = StackValidationPolicy(
    name="capacity",
    description="A nested host holds what is put into it, and the stack stays within its budget.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    config_schema=PolicyConfigSchema(
        properties={
            what: {"type": "number", "description": f"Budget of the outer host: {words}"}
            for what, words in UNITS.items()
        }
    ),
    remediation_steps="Make the nested host larger or what is inside smaller; raise the budget.",
    validate=_holds_what_is_in_it,
)
