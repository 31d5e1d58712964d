"""What the components are made from where hyperv is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.args import HypervisorArgs
    from components.args.general import ConsoleArgs, ContainerArgs, GuestArgs, NetworkArgs, NicArgs


class HypervArgs(TypedDict, total=False):
    """Windows Server 2019, 2022 or 2025 with Hyper-V; the size is the course's."""

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
    """System disk, GiB: its own 20 and those of all it holds."""
    network: Required[str | Sequence[NicArgs]]
    """Network of the place it stands in, or a list of NICs; nestlab reaches it on the first."""
    address: str | None
    """Fixed IPv4 address of the one NIC; default: a planned one."""
    nic_model: Literal["e1000e", "e1000"]
    """What its NICs look like: Windows has no driver for virtio."""
    disk_bus: Literal["sata"]
    """Bus of the system disk: Windows' installer has no driver for virtio."""
    firmware: Literal["uefi"]
    """Firmware that boots it: its answers partition the disk for UEFI."""
    machine: Literal["q35"]
    """Chipset."""
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"]
    """Graphics adapter; vga is understood by every installer."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    kind: Required[Literal["hyperv"]]
    """What hypervisor it is: Windows Server with the Hyper-V role."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
    iso: Required[str]
    """Name of a medium: its maker's installation ISO, as downloaded."""
    edition: str
    """Which system of the ISO is installed, by number or name; on Microsoft's ISOs 2 is Standard with a desktop, 1 the same without, which shows no guest's screen."""
    locale: str
    """Language of the ISO and form of dates and numbers, such as es-ES."""
    time_zone: str | None
    """Time zone as Windows calls it, such as Romance Standard Time; default: UTC."""
    openssh: str | None
    """Name of a medium: an ISO with OpenSSH-Win64*.msi, or Microsoft's with Languages and Optional Features; default: it is downloaded by Windows (2025 has it)."""
