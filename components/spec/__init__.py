"""What a lab may be: models of the stack file, rules across the lab, and the plan of every name.

Pure: no pulumi, no network, and of files only whether media are what they are used as. `load`
refuses everything wrong at once, before anything exists; `plan` then says what exists where.
"""

from __future__ import annotations

from components.spec.facts import GoldenImage, HostFacts, resolve_accelerator
from components.spec.hosts.base import HostSpec
from components.spec.lab import BootSpec, LabSpec, MediumSpec, TemplateSpec
from components.spec.loader import load
from components.spec.machines import (
    ConsoleSpec,
    ContainerSpec,
    GuestSpec,
    MachineSpec,
    ReadySpec,
)
from components.spec.networks import NetworkSpec, NicSpec
from components.spec.nodes import Totals
from components.spec.places import HypervisorSpec, PlaceSpec
from components.spec.plan import (
    LabPlan,
    MachinePlan,
    NetworkPlan,
    NicPlan,
    PlacePlan,
    ReadyPlan,
    plan,
    totals,
)
from components.spec.problems import Problem, SpecError

__all__ = [
    "BootSpec",
    "ConsoleSpec",
    "ContainerSpec",
    "GoldenImage",
    "GuestSpec",
    "HostFacts",
    "HostSpec",
    "HypervisorSpec",
    "LabPlan",
    "LabSpec",
    "MachinePlan",
    "MachineSpec",
    "MediumSpec",
    "NetworkPlan",
    "NetworkSpec",
    "NicPlan",
    "NicSpec",
    "PlacePlan",
    "PlaceSpec",
    "Problem",
    "ReadyPlan",
    "ReadySpec",
    "SpecError",
    "TemplateSpec",
    "Totals",
    "load",
    "plan",
    "resolve_accelerator",
    "totals",
]
