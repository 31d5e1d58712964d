"""shared-objects: a student's stack brings its own networks and pools.

A machine on a network that its stack did not make is on one with whoever else uses it. Rules see
one stack at a time, so what is seen is the use of something that came from elsewhere. Many a lab of
one person does so rightly: an advice here, mandatory in a class by configuration.
"""

from __future__ import annotations

import machines
import stated
from domain_xml import Unjudgeable, domain, shown
from isolation import NETWORK
from known import text
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


def _brings_its_own(args: StackValidationArgs, report: ReportViolation) -> None:
    if not args.resources:
        return
    stack, urn = Relations(args.resources), args.resources[0].urn
    networks = _own(stack, NETWORK) | stated.names(args.get_config(), "networks", urn)
    pools = _own(stack, POOL) | stated.names(args.get_config(), "pools", urn)
    for machine in stack.named(machines.DOMAIN):
        for name in sorted(_networks(machine) - networks):
            report(
                f"{machine.name}: it is on network {name!r}, which this stack did not make",
                machine.urn,
            )
    for volume in stack.named(*IN_POOLS):
        pool = text(volume.props, "pool")
        if pool is not None and (pool or POOL_DEFAULT) not in pools:
            report(
                f"{volume.name}: it is in pool {pool or POOL_DEFAULT!r}, which this stack did not make",
                volume.urn,
            )


def _own(stack: Relations, kind: str) -> set[str]:
    made = stack.named(kind)
    return {name for each in made for key in ("name", "id") if (name := text(each.props, key))}


def _networks(machine: PolicyResource) -> set[str]:
    try:
        made = domain(machine.props)
    except Unjudgeable:
        return set()
    sources = made.all("devices/interface[@type='network']/source")
    return {name for source in sources if (name := shown(source.get("network")))}


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
