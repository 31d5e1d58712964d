"""What drivers are given: the contract between `components.place.orders`, which knows the plan, and them.

A driver knows its hypervisor's commands and nothing of stack files; who orders knows the plan and nothing
of commands. Orders cross the engine as they are (`components.gates.codec`). ``owner`` is a UUID that no
other lab has: it tells what is the lab's own from what somebody made by hand under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reservation:
    """The address that a DHCP server keeps for one NIC."""

    mac: str
    address: str
    name: str


@dataclass(frozen=True, slots=True)
class NetworkOrder:
    """What a network is made of; texts are empty and numbers 0 for none."""

    name: str
    mode: str
    bridge: str
    subnet: str
    prefix: int
    gateway: str
    dhcp: bool
    dhcp_start: str
    dhcp_end: str
    domain: str
    reservations: list[Reservation]
    owner: str


@dataclass(frozen=True, slots=True)
class MediumOrder:
    """A file of this machine, ``path``, that is uploaded as ``name`` into the folder ``store``."""

    name: str
    path: str
    sha256: str
    """Empty: any."""
    size: int
    """Bytes."""
    store: str
    owner: str
    private: bool = False
    """Whether nobody there but the hypervisor may read it."""


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card; ``model`` and ``address`` are empty where nothing is said."""

    network: str
    mac: str
    model: str
    address: str


@dataclass(frozen=True, slots=True)
class Console:
    """A guest's screen; ``port`` 0: any."""

    type: str
    listen: str
    port: int
    password: str


@dataclass(frozen=True, slots=True)
class Ready:
    """When a guest counts as up: ``probe`` is tcp, of ``host`` and ``port``, or none."""

    probe: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DataDisk:
    """A disk of a guest beside its system disk, empty when it is made."""

    name: str
    gib: int


@dataclass(frozen=True, slots=True)
class GuestOrder:
    """What a guest is made of."""

    name: str
    memory_mib: int
    cores: int
    disk_gib: int
    """0: none, or as large as its image."""
    disk_bus: str
    firmware: str
    machine: str
    video: str
    boot: list[str]
    """Of cdrom, hd, network."""
    nics: list[Nic]
    iso: str
    """Path at the place; empty for none."""
    image: str
    """Likewise."""
    autostart: bool
    console: Console
    ready: Ready
    store: str
    owner: str
    seed: str = ""
    """Path at the place of the disc that tells it who it is (NoCloud); empty for none."""
    nested: bool = False
    """Whether its CPU shows hardware virtualization."""
    discs: list[str] = field(default_factory=list)
    """Paths at the place of what is in its further CD drives, in order."""
    disks: list[DataDisk] = field(default_factory=list)
    """They can grow, and what was on one that is left out is gone."""


@dataclass(frozen=True, slots=True)
class ContainerOrder:
    """What a container is made of."""

    name: str
    template: str
    """Of its kind's own; empty with an ``archive``, a file of this machine."""
    archive: str
    sha256: str
    memory_mib: int
    cores: int
    command: list[str]
    autostart: bool
    bridge: str
    mac: str
    address: str
    """With its prefix."""
    gateway: str


Order = NetworkOrder | MediumOrder | GuestOrder | ContainerOrder
"""What a driver may be given."""
