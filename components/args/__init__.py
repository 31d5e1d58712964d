"""What the components are made from. Made by ``python -m components.stackfile.args``: edit the models."""

from __future__ import annotations

from components.args.esxi import EsxiArgs
from components.args.general import (
    BootArgs,
    CloudInitArgs,
    ConsoleArgs,
    ContainerArgs,
    GuestArgs,
    LabArgs,
    MediumArgs,
    NetworkArgs,
    NicArgs,
    NodeArgs,
    ReadyArgs,
    TemplateArgs,
    UplinkArgs,
)
from components.args.hyperv import HypervArgs
from components.args.kvm import KvmArgs
from components.args.libvirt import LibvirtHostArgs
from components.args.proxmox import ProxmoxArgs, ProxmoxHostArgs
from components.args.virtualbox import VirtualboxArgs
from components.args.vsphere import VsphereHostArgs
from components.args.workstation import WorkstationArgs
from components.args.xen import XenArgs
from components.args.xenserver import XenServerArgs

__all__ = [
    "BootArgs",
    "CloudInitArgs",
    "ConsoleArgs",
    "ContainerArgs",
    "EsxiArgs",
    "GuestArgs",
    "HypervArgs",
    "HypervisorArgs",
    "KvmArgs",
    "LabArgs",
    "LibvirtHostArgs",
    "MediumArgs",
    "NetworkArgs",
    "NicArgs",
    "NodeArgs",
    "ProxmoxArgs",
    "ProxmoxHostArgs",
    "ReadyArgs",
    "TemplateArgs",
    "UplinkArgs",
    "VirtualboxArgs",
    "VsphereHostArgs",
    "WorkstationArgs",
    "XenArgs",
    "XenServerArgs",
]

HypervisorArgs = (
    EsxiArgs
    | HypervArgs
    | KvmArgs
    | ProxmoxArgs
    | VirtualboxArgs
    | WorkstationArgs
    | XenArgs
    | XenServerArgs
)
"""Of a nested hypervisor of any kind."""
