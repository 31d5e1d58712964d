"""Layered nested-virtualization labs, for any Pulumi program; docs/components.md shows how.

The components lie in ``components``, whose module paths are kept in the state of every lab.
"""

from __future__ import annotations

from components.args import (
    ContainerArgs,
    EsxiArgs,
    GuestArgs,
    HypervArgs,
    HypervisorArgs,
    KvmArgs,
    LabArgs,
    MediumArgs,
    NetworkArgs,
    ProxmoxArgs,
    VirtualboxArgs,
    WorkstationArgs,
    XenArgs,
    XenServerArgs,
)
from components.bridged_network import BridgedNetwork
from components.container_from_template import ContainerFromTemplate
from components.contents import RefusedLab
from components.guest_from_iso import GuestFromIso
from components.lab import Lab
from components.nested_hypervisor_lab import NestedHypervisorLab
from components.stackfile.problems import Problem, SpecError

__all__ = [
    "BridgedNetwork",
    "ContainerArgs",
    "ContainerFromTemplate",
    "EsxiArgs",
    "GuestArgs",
    "GuestFromIso",
    "HypervArgs",
    "HypervisorArgs",
    "KvmArgs",
    "Lab",
    "LabArgs",
    "MediumArgs",
    "NestedHypervisorLab",
    "NetworkArgs",
    "Problem",
    "ProxmoxArgs",
    "RefusedLab",
    "SpecError",
    "VirtualboxArgs",
    "WorkstationArgs",
    "XenArgs",
    "XenServerArgs",
]
