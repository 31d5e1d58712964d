"""spoofing-need: what may pretend to be others is used by a nested hypervisor.

`teaching-safety` asks that it is stated; here it is asked whether any machine needs it. Over the
stack, because a port group does not know who is on it.
"""

from __future__ import annotations

from machines import MACHINES, REMOTE
from pulumi_policy import (
    EnforcementLevel,
    PolicyResource,
    ReportViolation,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from relations import Relations
from teaching_safety import allowed

NICS = ("networkInterfaces", "networkDevices")
"""Inputs of a machine that its networks are in."""


def _is_needed(args: StackValidationArgs, report: ReportViolation) -> None:
    stack = Relations(args.resources)
    for resource in stack.all:
        found = allowed(resource.resource_type, resource.props)
        if found and not _serves_a_hypervisor(stack, resource):
            report(
                f"{resource.name}: {', '.join(found)}, and no nested hypervisor of this stack uses it",
                resource.urn,
            )


def _serves_a_hypervisor(stack: Relations, resource: PolicyResource) -> bool:
    if resource.urn in stack.kinds:
        return True
    if resource.resource_type in MACHINES | {REMOTE}:
        # It is inside one, or on another host, and is none itself.
        return False
    # By values alone: machines also wait for one another, and for networks they are not on.
    if stack.takes(resource) & set(stack.kinds):
        return True
    return any(resource.urn in stack.takes(stack.by_urn[urn], *NICS) for urn in stack.kinds)


SPOOFING_NEED = StackValidationPolicy(
    name="spoofing-need",
    description="What may pretend to be others is used by a nested hypervisor.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.MEDIUM,
    remediation_steps="Turn it off, or put the nested hypervisor that needs it on it (in its "
    "networkInterfaces, by the resource's own output).",
    validate=_is_needed,
)
