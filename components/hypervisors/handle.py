"""The contract between a hypervisor and what is put into it.

A `Hypervisor` is a place: the outer host, or a nested hypervisor that has answered. The four
components only speak to it, so that they are the same at every depth and for every kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import pulumi

    from components.gates.identity import Identity
    from components.gates.secrets import SshKey
    from components.spec import (
        ContainerSpec,
        GoldenImage,
        GuestSpec,
        HypervisorSpec,
        LabPlan,
        LabSpec,
        MachinePlan,
        NetworkPlan,
        PlacePlan,
    )
    from components.spec.facts import Accelerator

JsonMap = Mapping[str, Any]


@dataclass(frozen=True)
class Lab:
    """What all layers of one lab share."""

    spec: LabSpec
    plan: LabPlan
    root: Path
    """The project's folder, from which relative paths of media are meant."""
    private: Path
    """Folder for files of this lab that nobody else may read."""
    accelerator: Accelerator
    """What runs the first layer; deeper ones always have KVM, real or emulated."""
    golden: GoldenImage | None
    """The golden image of the nested KVM host; None when no kind in the lab needs it."""
    identity: Identity
    key: SshKey
    """Key pair that opens every nested hypervisor of the lab."""


@dataclass(frozen=True)
class Inside:
    """The guest a nested place lives in.

    What is in it goes with the domain, and is lost with the disk.
    """

    domain: pulumi.Resource
    disk: pulumi.Resource


@dataclass(frozen=True)
class NetworkMade:
    """A network that is up, or will be."""

    name: pulumi.Input[str]
    """What machines of the same place call it, known once it is up."""
    ready: pulumi.Resource


@dataclass(frozen=True)
class MachineMade:
    """A machine that is up, or will be."""

    ready: pulumi.Resource
    """The last resource of the machine: done when it is up."""
    address: pulumi.Input[str]
    """IPv4 address, empty where none is planned."""
    console: pulumi.Input[str]
    """How to see its screen or get a shell, in words or as a URI."""
    password: pulumi.Input[str] = ""
    """Password of the console, secret; empty for none."""
    user: str = ""
    """Who to log in as; empty where the machine knows no users."""


@dataclass(frozen=True)
class HypervisorMade(MachineMade):
    """A nested hypervisor, and the place it is."""

    place: Hypervisor | None = None


@dataclass
class BootQueue:
    """Lets at most ``width`` machines of a place boot at the same time, in the order of the file.

    Two at a time on two cores give the first usable machine after 12 s where ten at once give it
    after 40 s, and the last one at the same time (measured).
    """

    width: int
    _ready: list[pulumi.Resource] = field(default_factory=list)

    def turn(self) -> list[pulumi.Resource]:
        """Return what has to be up before the next machine may boot."""
        before = len(self._ready) - self.width
        return [self._ready[before]] if before >= 0 else []

    def joined(self, ready: pulumi.Resource) -> None:
        """Say that a machine boots and is up when ``ready`` is."""
        self._ready.append(ready)


class Hypervisor(Protocol):
    """A place that holds networks, guests and containers."""

    plan: PlacePlan

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[JsonMap],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """Make a network; ``reservations`` are ``{mac, address, name}`` of its machines."""
        ...

    def guest(
        self,
        name: str,
        spec: GuestSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """Make a guest from an ISO or image."""
        ...

    def container(
        self,
        name: str,
        spec: ContainerSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> MachineMade:
        """Make a container from a template."""
        ...

    def nested(
        self,
        name: str,
        spec: HypervisorSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> HypervisorMade:
        """Make a guest that is a hypervisor, wait for it, and return it as a place."""
        ...


class Installer(Protocol):
    """How one kind of nested hypervisor comes to be on a host with libvirt."""

    def __call__(
        self,
        name: str,
        *,
        lab: Lab,
        host: Any,
        spec: Any,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        opts: pulumi.ResourceOptions,
    ) -> HypervisorMade:
        """Make the guest, its medium and its gate; return it as a place."""
        ...
