"""What the components are made from where xen is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.args import HypervisorArgs
    from components.args.general import ConsoleArgs, ContainerArgs, GuestArgs, NetworkArgs, NicArgs


class XenArgs(TypedDict, total=False):
    """A Debian host with Xen and its toolstack xl, cloned from a golden image."""

    networks: Mapping[str, NetworkArgs]
    """Networks, by name."""
    guests: Mapping[str, GuestArgs]
    """Guests, by name."""
    containers: Mapping[str, ContainerArgs]
    """Containers, by name; in a nested hypervisor only."""
    hypervisors: Mapping[str, HypervisorArgs]
    """Nested hypervisors, by name; each is a place again."""
    memory_mib: int
    """Memory, MiB: its own 1664 and that of all it holds."""
    cores: int
    """Virtual cores."""
    disk_gib: int
    """System disk, GiB: its own 3 and those of all it holds."""
    network: Required[str | Sequence[NicArgs]]
    """Network of the place it stands in, or a list of NICs; nestlab reaches it on the first."""
    address: str | None
    """Fixed IPv4 address of the one NIC; default: a planned one."""
    nic_model: Literal["virtio"]
    """What its NICs look like to it."""
    disk_bus: Literal["virtio"]
    """Bus of the system disk: the one its image has a driver for."""
    firmware: Literal["bios"]
    """Firmware: bios, for the image's GRUB."""
    machine: Literal["pc"]
    """Chipset: pc, the one its image boots on."""
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"]
    """Graphics adapter; vga is understood by every installer."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    kind: Required[Literal["xen"]]
    """What hypervisor it is: Debian with Xen."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
