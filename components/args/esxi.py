"""What the components are made from where esxi is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi import Input

    from components.args import HypervisorArgs
    from components.args.general import ConsoleArgs, ContainerArgs, GuestArgs, NetworkArgs, NicArgs


class EsxiArgs(TypedDict, total=False):
    """ESXi 7.0, 8.0 or 9.0, managed on its own, without a vCenter."""

    networks: Mapping[str, NetworkArgs]
    """Networks, by name."""
    guests: Mapping[str, GuestArgs]
    """Guests, by name."""
    containers: Mapping[str, ContainerArgs]
    """Containers, by name; in a nested hypervisor only."""
    hypervisors: Mapping[str, HypervisorArgs]
    """Nested hypervisors, by name; each is a place again."""
    memory_mib: int
    """Memory, MiB: its own 2048 and that of all it holds."""
    cores: int
    """Virtual cores."""
    disk_gib: int
    """System disk, GiB: its own 33 and those of all it holds."""
    network: Required[str | Sequence[NicArgs]]
    """Network of the place it stands in, or a list of NICs; nestlab reaches it on the first."""
    address: str | None
    """Fixed IPv4 address of the one NIC; default: a planned one."""
    nic_model: Literal["vmxnet3", "e1000e"] | None
    """What NICs look like to it."""
    disk_bus: Literal["sata"] | None
    """Bus of the system disk: the only one that every ESXi from 7.0 on sees."""
    firmware: Literal["bios", "uefi"]
    """Firmware that boots the machine."""
    machine: Literal["q35", "pc"]
    """Chipset; pc to ESXi 8.0 only: the CD is on IDE there, which 9.0 can't read. On Proxmox VE it has to be pc."""
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"]
    """Graphics adapter; vga is understood by every installer."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    kind: Required[Literal["esxi"]]
    """What hypervisor it is: VMware ESXi, stand-alone."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
    iso: Required[str]
    """Name of a medium: its maker's installation ISO, as downloaded."""
    licence: Input[str] | None
    """Licence key, five groups; default: none, which is 60 days of everything."""
