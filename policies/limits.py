"""The least a nested hypervisor runs with, by kind, and what it keeps for itself.

Made by ``python3 -m components.stackfile.tables`` from the kinds' models, since a published pack carries only this folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one kind of hypervisor needs."""

    cores: int
    memory_mib: int
    disk_gib: int
    source: dict[str, str]
    """Who says so, by the names above."""
    reserve_mib: int
    """Memory that the hypervisor keeps for itself, MiB; the rest is for what is inside."""
    reserve_gib: int
    """Disk that the hypervisor keeps for itself, GiB."""
    share_mib: int
    """Of each 1000 MiB of memory, how many it keeps beside ``reserve_mib``."""
    share_gib: int
    """Of each 1000 GiB of disk, likewise."""
    spares: bool
    """Whether it can run its guests without hardware virtualization."""


LIMITS = {
    "esxi": Limits(
        cores=2,
        memory_mib=8192,
        disk_gib=37,
        source={
            "cores": "VMware: with less it does not install; 4 recommended",
            "memory_mib": "VMware's requirements for 7.0 and 8.0; 12288 to run guests",
            "disk_gib": "VMware: 33 for its system, and a datastore is made of 4 more or not at all",
        },
        reserve_mib=2048,
        reserve_gib=33,
        share_mib=0,
        share_gib=0,
        spares=False,
    ),
    "hyperv": Limits(
        cores=2,
        memory_mib=4096,
        disk_gib=32,
        source={
            "cores": "nestlab's guess",
            "memory_mib": "Microsoft's system requirements of Windows Server and of nested virtualization: 4 GB for nesting",
            "disk_gib": "Microsoft's system requirements of Windows Server and of nested virtualization: 32 GB",
        },
        reserve_mib=2048,
        reserve_gib=20,
        share_mib=0,
        share_gib=0,
        spares=False,
    ),
    "kvm": Limits(
        cores=2,
        memory_mib=2048,
        disk_gib=8,
        source={
            "cores": "nestlab's settings for Debian with KVM",
            "memory_mib": "nestlab's settings for Debian with KVM",
            "disk_gib": "size of the disk nestlab's own measurements ran with",
        },
        reserve_mib=512,
        reserve_gib=2,
        share_mib=0,
        share_gib=0,
        spares=True,
    ),
    "proxmox": Limits(
        cores=2,
        memory_mib=2048,
        disk_gib=20,
        source={
            "cores": "nestlab's guess",
            "memory_mib": "Proxmox VE Administration Guide, System Requirements: 1 GB for evaluation, and its guests'",
            "disk_gib": "nestlab's guess, for its installer's default layout",
        },
        reserve_mib=1024,
        reserve_gib=16,
        share_mib=0,
        share_gib=20,
        spares=True,
    ),
    "xenserver": Limits(
        cores=2,
        memory_mib=4096,
        disk_gib=50,
        source={
            "cores": "XCP-ng's guide to XCP-ng in a VM",
            "memory_mib": "XCP-ng's guide to XCP-ng in a VM",
            "disk_gib": "XCP-ng's guide to XCP-ng in a VM; its installer refuses less than 46",
        },
        reserve_mib=1168,
        reserve_gib=42,
        share_mib=58,
        share_gib=0,
        spares=False,
    ),
    "virtualbox": Limits(
        cores=2,
        memory_mib=4096,
        disk_gib=30,
        source={
            "cores": "nestlab's settings for Linux with VirtualBox",
            "memory_mib": "nestlab's settings for Linux with VirtualBox: Linux, VirtualBox' own, and a guest's 2 GiB",
            "disk_gib": "nestlab's settings for Linux with VirtualBox: Linux with a compiler, media, and guests' disks",
        },
        reserve_mib=1024,
        reserve_gib=8,
        share_mib=0,
        share_gib=0,
        spares=False,
    ),
    "workstation": Limits(
        cores=4,
        memory_mib=8192,
        disk_gib=40,
        source={
            "cores": "nestlab's settings for Linux with Workstation: each guest's core has a thread of its own there",
            "memory_mib": "nestlab's settings for Linux with Workstation; VMware itself asks for 2 GB at least and recommends 4 for the host alone",
            "disk_gib": "nestlab's settings for Linux with Workstation: Linux with a compiler, media, and guests' disks",
        },
        reserve_mib=1024,
        reserve_gib=8,
        share_mib=0,
        share_gib=0,
        spares=False,
    ),
    "xen": Limits(
        cores=2,
        memory_mib=3072,
        disk_gib=8,
        source={
            "cores": "nestlab's settings for Debian with Xen",
            "memory_mib": "nestlab's settings for Debian with Xen: dom0 has 1536 MiB, Xen itself 128, guests the rest",
            "disk_gib": "nestlab's settings for Debian with Xen: its system has 0.5 GiB of it, media and guests the rest",
        },
        reserve_mib=1664,
        reserve_gib=3,
        share_mib=0,
        share_gib=0,
        spares=True,
    ),
}
ANY = LIMITS["kvm"]
"""For a hypervisor whose kind nobody says: the least of all kinds."""


def limits(kind: str) -> Limits:
    """Return what a hypervisor of ``kind`` needs."""
    return LIMITS.get(kind, ANY)
