"""What the components are made from where proxmox is meant. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.args import HypervisorArgs
    from components.args.general import (
        ConsoleArgs,
        ContainerArgs,
        GuestArgs,
        NetworkArgs,
        NicArgs,
        NodeArgs,
    )


class ProxmoxHostArgs(TypedDict, total=False):
    """A Proxmox VE cluster; the password or the token's secret is `nestlab:hostPassword`."""

    kind: Required[Literal["proxmox"]]
    """What the outer host is: a Proxmox VE cluster."""
    memory_mib: int | None
    """Budget for the memory of the first layer altogether, MiB; default: no limit."""
    disk_gib: int | None
    """Budget for the disks of the first layer altogether, GiB; default: no limit."""
    cores: int | None
    """Budget for the virtual cores of the first layer altogether, which may exceed the host's real ones; default: no limit."""
    insecure: bool
    """Whether any certificate will do; a self-signed one too, and the server is not verified."""
    nodes: Required[Mapping[str, NodeArgs]]
    """Nodes that labs may stand on, by name, with what each has for them."""
    node: str | None
    """Node the lab stands on; default: one with room for it, always the same for the same name of a lab."""
    endpoint: Required[str]
    """Its API, https://HOST:8006; any node of the cluster answers for all."""
    user: str
    """Who makes the lab: NAME@REALM, or NAME@REALM!TOKENID with a token."""
    files: str
    """Storage of the node for ISOs, disk images (content import), templates."""
    disks: str
    """Storage of the node for disks."""
    linked: bool
    """Whether guests made from an image are linked clones; false where `disks` can't: LVM without a thin pool."""
    uplink: str
    """Bridge of the node that networks of mode bridge join by default."""


class ProxmoxArgs(TypedDict, total=False):
    """Proxmox VE 8.4 or newer, the first that can be told to answer as the machine that was planned."""

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
    """System disk, GiB: its own, 16 and 2 %, and those of all it holds."""
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
    kind: Required[Literal["proxmox"]]
    """What hypervisor it is: Proxmox VE."""
    ready_s: int | None
    """Longest wait until it takes orders, its installation included, seconds; default: boot.ready_s, or its kind's usual time if that is longer."""
    iso: Required[str]
    """Name of a medium: its maker's installation ISO, as downloaded."""
    filesystem: Literal["ext4", "xfs"]
    """File system of its root; guests' disks are on LVM-thin beside it."""
    kvm: bool
    """Whether its guests use hardware virtualization; false where the outer host gives none."""
