"""What tells one machine from another that has its name."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.stackfile import ContainerSpec, MachinePlan, MachineSpec


def fingerprint(*facts: object) -> str:
    """Return a short text that changes when any of ``facts`` does.

    A replaced domain keeps its UUID, so this is what tells its gate that it is another one.
    """
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def machine_facts(spec: ContainerSpec | MachineSpec, plan: MachinePlan) -> dict[str, object]:
    """Return what a machine is made of, without what stands inside it and how it is waited for.

    Otherwise a guest more or less in a nested host would look like another host, and in preview
    nothing would be known of all that is in it.
    """
    left_out = {"networks", "guests", "containers", "hypervisors", "ready", "drives"}
    planned = {key: value for key, value in asdict(plan).items() if key not in left_out}
    said = spec.model_dump(exclude=left_out)
    # As a lab has it that was made before there was any.
    for field, none in (("cloud_init", None), ("discs", ()), ("disks", {}), ("agent", False)):
        if said.get(field, ...) == none:
            del said[field]
    usual = {None, True} if plan.group == "hypervisors" else {None}
    if said.get("nested", ...) in usual:
        del said["nested"]
    return planned | {"spec": said}
