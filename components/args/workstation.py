"""What the components are made from where workstation is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.args import HypervisorArgs
    from components.args.general import ConsoleArgs, ContainerArgs, GuestArgs, NetworkArgs, NicArgs


class WorkstationArgs(TypedDict, total=False):
    """A Linux host with VMware Workstation Pro 17 or newer, from the user's own installation bundle."""

    networks: Mapping[str, NetworkArgs]
    """Networks, by name."""
    guests: Mapping[str, GuestArgs]
    """Guests, by name."""
    containers: Mapping[str, ContainerArgs]
    """Containers, by name; in a nested hypervisor only."""
    hypervisors: Mapping[str, HypervisorArgs]
    """Nested hypervisors, by name; each is a place again."""
    memory_mib: int
    """Memory, MiB: its own 1024 and that of all it holds."""
    cores: int
    """Virtual cores."""
    disk_gib: int
    """System disk, GiB: its own 8 and those of all it holds."""
    network: Required[str | Sequence[NicArgs]]
    """Network of the place it stands in, or a list of NICs; nestlab reaches it on the first."""
    address: str | None
    """Fixed IPv4 address of the one NIC; default: a planned one."""
    nic_model: (
        Literal[
            "virtio",
            "e1000",
            "e1000e",
            "vmxnet3",
            "rtl8139",
            "synthetic",
            "legacy",
            "pcnet",
            "netfront",
        ]
        | None
    )
    """What NICs look like to the machine; default: the first its place offers."""
    disk_bus: Literal["virtio", "scsi", "sata", "ide", "xen"] | None
    """Bus of the system disk; default: the first its place offers."""
    firmware: Literal["bios", "uefi"]
    """Firmware that boots the machine."""
    machine: Literal["q35", "pc"]
    """Chipset."""
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"]
    """Graphics adapter; vga is understood by every installer."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    kind: Required[Literal["workstation"]]
    """What hypervisor it is: VMware Workstation Pro on a Debian or Ubuntu cloud image."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
    image: Required[str]
    """Name of a medium: a cloud image of Debian or Ubuntu, with cloud-init."""
    bundle: Required[str]
    """Name of a medium: its maker's VMware-Workstation-Full-*.x86_64.bundle, as downloaded with a Broadcom account; installing it accepts its licence agreement."""
