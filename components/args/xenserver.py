"""What the components are made from where xenserver is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.args import HypervisorArgs
    from components.args.general import ConsoleArgs, ContainerArgs, GuestArgs, NetworkArgs, NicArgs


class XenServerArgs(TypedDict, total=False):
    """XCP-ng 8.3 or XenServer 8; older ones have other installers."""

    networks: Mapping[str, NetworkArgs]
    """Networks, by name."""
    guests: Mapping[str, GuestArgs]
    """Guests, by name."""
    containers: Mapping[str, ContainerArgs]
    """Containers, by name; in a nested hypervisor only."""
    hypervisors: Mapping[str, HypervisorArgs]
    """Nested hypervisors, by name; each is a place again."""
    memory_mib: int
    """Memory, MiB: its own, 1168 and 5.8 %, and that of all it holds."""
    cores: int
    """Virtual cores."""
    disk_gib: int
    """System disk, GiB: its own 42 and those of all it holds."""
    network: Required[str | Sequence[NicArgs]]
    """Network of the place it stands in, or a list of NICs; nestlab reaches it on the first."""
    address: str | None
    """Fixed IPv4 address of the one NIC; default: a planned one."""
    nic_model: Literal["e1000"]
    """What its NICs look like to it."""
    disk_bus: Literal["scsi", "sata"]
    """Bus of the system disk: scsi is LSI Logic's; it knows no virtio."""
    firmware: Literal["bios"]
    """Firmware: bios; with UEFI an installed one may not boot."""
    machine: Literal["pc"]
    """Chipset: pc, the one it is known to work on."""
    video: Literal["vga", "cirrus"]
    """Graphics adapter."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    kind: Required[Literal["xenserver"]]
    """What hypervisor it is: XCP-ng or XenServer."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
    iso: Required[str]
    """Name of a medium: its maker's installation ISO, as downloaded."""
    sr_type: Literal["ext", "lvm"]
    """Storage of its guests' disks: ext takes what they use, lvm all at once."""
