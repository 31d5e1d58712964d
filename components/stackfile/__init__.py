"""What a lab may be: models of the stack file, rules across the lab, and the plan of every name.

Pure: no pulumi, no network, and of files only whether media are what they are used as. `load`
refuses everything wrong at once, before anything exists; `plan` then says what exists where.
"""

from __future__ import annotations

from components.stackfile.host import HostSpec
from components.stackfile.lab import BootSpec, LabSpec, MediumSpec, TemplateSpec
from components.stackfile.loader import load
from components.stackfile.machines import (
    ConsoleSpec,
    ContainerSpec,
    GuestSpec,
    MachineSpec,
    ReadySpec,
)
from components.stackfile.networks import NetworkSpec, NicSpec
from components.stackfile.nodes import Totals
from components.stackfile.places import HypervisorSpec, PlaceSpec
from components.stackfile.plan import (
    LabPlan,
    MachinePlan,
    NetworkPlan,
    NicPlan,
    PlacePlan,
    ReadyPlan,
    plan,
    totals,
)
from components.stackfile.problems import Problem, SpecError

__all__ = [
    "BootSpec",
    "ConsoleSpec",
    "ContainerSpec",
    "GuestSpec",
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
    "totals",
]
