"""What the components are made from. Made by ``python -m components.stackfile.args``: edit the models."""

# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi import Input

    from components.args import HypervisorArgs
    from components.args.libvirt import LibvirtHostArgs
    from components.args.proxmox import ProxmoxHostArgs
    from components.args.vsphere import VsphereHostArgs


class BootArgs(TypedDict, total=False):
    """How machines are started and how long they are waited for."""

    concurrency: int | None
    """Machines starting at the same time; default: the host's cores."""
    ready_s: int
    """Longest wait for a nested hypervisor, seconds."""
    lease_s: int
    """Longest wait for a guest, seconds."""


class CloudInitArgs(TypedDict, total=False):
    """What cloud-init makes of a guest at its first boot, and anew when something here changes."""

    system: Literal["linux", "windows"]
    """What the image is: linux, with cloud-init; windows, with cloudbase-init and its NoCloud service."""
    user: str
    """Who logs in; sudo asks for no password, and on Windows it is an administrator."""
    keys: Sequence[str]
    """Public keys of people that open it beside the lab's own, OpenSSH's lines."""
    password: bool
    """Whether the user has a password, which is generated; `show` has it with SECRETS=1."""
    hostname: str | None
    """Host name, at most 63 characters; default: the guest's name."""
    packages: Sequence[str]
    """Packages that are installed, from where the image takes its own."""
    commands: Sequence[str]
    """Commands that root's sh, on Windows an administrator's PowerShell, runs in order after that, up to the first that fails."""


class ConsoleArgs(TypedDict, total=False):
    """Where a machine's screen can be seen."""

    type: Literal["vnc", "spice", "none"]
    """Protocol of the screen."""
    listen: str
    """Address of its host on which the console listens."""
    port: int | None
    """TCP port; default: the next free one from 5900."""
    websocket: int | None
    """WebSocket port for noVNC; -1 lets libvirt choose; default: none."""
    password: bool
    """Whether a password is generated; can't be off beyond loopback."""


class ContainerArgs(TypedDict, total=False):
    """A system container, made from a template by the hypervisor it lives on."""

    template: Required[str]
    """Name of a template: one of the lab's, or one built into the kind of its host."""
    memory_mib: int
    """Most memory it may use, MiB."""
    cores: int
    """Virtual cores it may use."""
    network: str | None
    """Network of the same place; default: none."""
    address: str | None
    """Fixed IPv4 address; default: a planned one."""
    command: Sequence[Input[str]] | None
    """What it runs, words of a command line; default: the template's init."""
    autostart: bool
    """Whether it starts with its host."""


class GuestArgs(TypedDict, total=False):
    """A guest made from an ISO, from a disk image, or from both."""

    memory_mib: int
    """Memory, MiB."""
    cores: int
    """Virtual cores; all machines together may exceed the real ones."""
    disk_gib: int
    """System disk, GiB; 0: no disk, or with an image the image's own size."""
    network: str | Sequence[NicArgs] | None
    """Network of the same place, or a list of NICs; default: no NIC."""
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
    """Chipset; pc has IDE, q35 has PCI Express."""
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"]
    """Graphics adapter; vga is understood by every installer."""
    console: ConsoleArgs
    """Where the screen can be seen."""
    autostart: bool
    """Whether it starts with its host."""
    nested: bool | None
    """Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)."""
    iso: str | None
    """Name of a medium: the ISO in its CD drive."""
    discs: Sequence[str]
    """Names of media: ISOs in further CD drives, in order, such as a disc with drivers or answers."""
    image: str | None
    """Name of a medium: the qcow2 or raw image its disk is a clone of."""
    disks: Mapping[str, int]
    """Further disks, empty at first: GiB by name. They stay with whatever else of the guest changes, and can grow; one that is removed is lost with what is on it."""
    boot: Sequence[Literal["cdrom", "hd", "network"]] | None
    """Boot order; of hd, cdrom and network, default: its image, its CD, its empty disk."""
    cloud_init: CloudInitArgs | None
    """User, keys, host name, packages, commands for an image with cloud-init, {} for the defaults; default: it is told nothing."""
    agent: bool
    """Whether its host speaks to QEMU's guest agent, which has to be installed in it; on libvirt its channel is always there."""
    ready: ReadyArgs
    """When it counts as up."""


class LabArgs(TypedDict, total=False):
    """A lab: what stands on the outer host, layer by layer."""

    networks: Mapping[str, NetworkArgs]
    """Networks, by name."""
    guests: Mapping[str, GuestArgs]
    """Guests, by name."""
    containers: Mapping[str, ContainerArgs]
    """Containers, by name; in a nested hypervisor only."""
    hypervisors: Mapping[str, HypervisorArgs]
    """Nested hypervisors, by name; each is a place again."""
    name: str
    """Name of the lab: machines on the outer host begin with it."""
    host: LibvirtHostArgs | ProxmoxHostArgs | VsphereHostArgs
    """The outer host."""
    boot: BootArgs
    """How machines are started and waited for."""
    media: Mapping[str, MediumArgs]
    """ISOs and disk images that guests use, by name."""
    templates: Mapping[str, TemplateArgs]
    """Root file systems of containers, by name, beside those built into a kind."""


class MediumArgs(TypedDict, total=False):
    """An ISO or a disk image of this machine."""

    path: Required[str]
    """File, relative to the project's folder; ~ is your home."""
    sha256: str | None
    """SHA-256 of the file; default: not checked."""


class NetworkArgs(TypedDict, total=False):
    """One network of a place; the place itself has the subnet's first address."""

    mode: Literal["nat", "isolated", "route", "open", "bridge", "macvtap"]
    """nat: machines reach outside through their host; isolated: each other and the host only; route: without NAT, so that others need a route to it; open: the same without firewall rules; bridge: an existing bridge of the host, or one made on the NIC of uplink; macvtap: the NIC of uplink, without a bridge: machines and their host do not reach each other."""
    subnet: str | None
    """IPv4 subnet, /16 to /28, such as 10.77.0.0/24; not with modes bridge and macvtap."""
    bridge: str | None
    """Existing bridge of the host, at most 15 characters; mode bridge only. Default in a nested hypervisor that has one: its own uplink."""
    uplink: UplinkArgs | None
    """What it reaches outside by, on the outer host; modes bridge, macvtap and route."""
    dhcp: bool
    """Whether the host hands out the planned addresses; never on a bridge."""
    closed: bool
    """Whether machines reach nothing of the outer host but DHCP, DNS and ping; modes nat, isolated and route."""
    domain: str | None
    """DNS domain of the machines, such as lab.test."""


class NicArgs(TypedDict, total=False):
    """One NIC of a machine, in the list form of ``network``."""

    network: Required[str]
    """Name of a network of the same place."""
    model: (
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
    """What the NIC looks like to the machine; default: its nic_model."""
    address: str | None
    """Fixed IPv4 address of the network's subnet; default: a planned one."""
    mac: str | None
    """Fixed MAC, in quotes; default: a planned one."""


class NodeArgs(TypedDict, total=False):
    """What one node of a cluster has for labs; each lab stands on one node, and has to fit there."""

    memory_mib: Required[int]
    """Memory for labs, MiB; labs are spread over the nodes in proportion to it."""
    disk_gib: Required[int]
    """Disk for labs, GiB."""
    cores: Required[int]
    """Virtual cores for one lab, which may exceed the node's real ones."""


class ReadyArgs(TypedDict, total=False):
    """When a guest counts as up."""

    probe: Literal["lease", "tcp", "none", "ssh"] | None
    """lease: it took its address by DHCP; tcp: it accepts a connection on `port`; none: it was started; ssh: its user logs in, and what cloud_init says is done. Default: ssh with cloud_init, lease where its network has DHCP, else none."""
    port: int | None
    """TCP port of probe tcp."""
    deadline_s: int | None
    """Longest wait, seconds; default: boot.lease_s, with probe ssh boot.ready_s."""
    reset_s: int | None
    """After how many seconds a guest that is not up is reset, repeated until the deadline: emulated firmware hangs now and then; not for installers. Default: never."""


class TemplateArgs(TypedDict, total=False):
    """A container's root file system: a tarball of this machine."""

    path: Required[str]
    """Tarball, relative to the project's folder; ~ is your home."""
    sha256: str | None
    """SHA-256 of the file; default: not checked."""


class UplinkArgs(TypedDict, total=False):
    """How a network of the outer host reaches outside."""

    nic: Required[str]
    """NIC of the host, as `ip link` shows it, such as enp3s0."""
    vlan: int | None
    """VLAN of the NIC that the bridge is made on; default: what goes without a tag."""
    proxy_arp: bool
    """Mode route: the host answers ARP on the NIC for the planned addresses, and the subnet is a free part of the network there; for Wi-Fi."""
    confirm_s: int
    """Time after which a bridge on the NIC is taken back if the host was not reached, seconds."""
