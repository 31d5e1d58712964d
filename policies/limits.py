"""The least a nested hypervisor runs with, by kind.

A table of its own, because a published pack carries only this folder; a test holds it against
`components/spec/kinds`, so that the model and the policy refuse the same labs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one kind of hypervisor needs, and who says so."""

    cores: int
    memory_mib: int
    disk_gib: int
    reserve_mib: int
    """Memory that the hypervisor keeps for itself, MiB; the rest is for what is inside."""
    reserve_gib: int
    """Disk that the hypervisor keeps for itself, GiB."""
    source: str
    share_mib: int = 0
    """Of each 1000 MiB of memory, how many it keeps beside ``reserve_mib``."""
    share_gib: int = 0
    """Of each 1000 GiB of disk, likewise."""


LIMITS = {
    "kvm": Limits(2, 2048, 8, 512, 2, "nestlab's settings for Debian with KVM"),
    "proxmox": Limits(
        2, 2048, 20, 1024, 16, "Proxmox VE's system requirements, for evaluation", share_gib=20
    ),
    "esxi": Limits(2, 8192, 37, 2048, 33, "VMware: 8 GB memory; 33 GB disk, 4 for a datastore"),
    "xenserver": Limits(2, 4096, 50, 1168, 42, "XCP-ng's guide to XCP-ng in a VM", share_mib=58),
    "hyperv": Limits(2, 4096, 32, 2048, 20, "Windows Server: 4 GB for nesting, 32 GB disk"),
    "xen": Limits(2, 3072, 8, 1664, 3, "nestlab's settings for Debian with Xen"),
    "virtualbox": Limits(2, 4096, 30, 1024, 8, "nestlab's settings for Linux with VirtualBox"),
    "workstation": Limits(4, 8192, 40, 1024, 8, "nestlab's settings for Linux with Workstation"),
}
ANY = LIMITS["kvm"]
"""For a hypervisor whose kind nobody says: the least of all kinds."""


def limits(kind: str) -> Limits:
    """Return what a hypervisor of ``kind`` needs."""
    return LIMITS.get(kind, ANY)
