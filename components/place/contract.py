"""The contract between a hypervisor and what is put into it.

A `Place` is the outer host, or a nested hypervisor that has answered. The four
components only speak to it, so that they are the same at every depth and for every kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, Unpack

import pulumi
from pulumi.resource import DependencyResource

from components.gates.probes import Probe
from components.reach.shell import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from components.findings import Accelerator, GoldenImage
    from components.gates.identity import Identity
    from components.gates.probes import Forward
    from components.gates.secrets import SshKey
    from components.reach.orders import Reservation
    from components.reach.shell import Target
    from components.stackfile import (
        ContainerSpec,
        GuestSpec,
        HypervisorSpec,
        LabPlan,
        LabSpec,
        MachinePlan,
        NetworkPlan,
        PlacePlan,
    )


def pool_of(lab: str) -> str:
    """Name of a lab's pool in the libvirt of its outer host."""
    return f"nestlab-{lab}"


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
    """What runs the first layer; deeper ones have KVM, real or emulated, but for what `nests` says."""
    golden: Mapping[str, pulumi.Output[GoldenImage]]
    """The golden images that the lab was made with, by the name that `make image` has for them."""
    identity: Identity
    key: SshKey
    """Key pair that opens every nested hypervisor of the lab."""
    nests: bool = True
    """Whether the outer host's KVM shows its guests hardware virtualization of their own."""
    prefix: str = ""
    """What the logical names of all that belongs to the lab begin with, where a stack has several."""
    home: Path | None = None
    """The checkout that set this machine up; None: the project's folder is it."""
    outputs: Mapping[str, pulumi.Output[Any]] = field(default_factory=dict)
    """What a program gave as outputs and was not planned by, by the path of the word in the stack file."""
    clears: bool = False
    """Whether its places clear away what a killed run left of it and is in the way; of a stack file's lab
    nestlab's own way to the engine has done that."""

    def file(self, path: str) -> Path:
        """Return the file of this machine that the stack calls ``path``."""
        return (self.root / path).expanduser()

    def medium(self, name: str) -> Path:
        """Return the file of the medium ``name``."""
        return self.file(self.spec.media[name].path)


@dataclass(frozen=True)
class Inside:
    """The guest a nested place lives in.

    What is in it goes with the domain, and is lost with the disk.
    """

    domain: pulumi.Resource
    disk: pulumi.Resource


class Options(TypedDict, total=False):
    """Of `pulumi.ResourceOptions` what a resource of a place may have beside where it is."""

    depends_on: Sequence[pulumi.Input[pulumi.Resource]]
    delete_before_replace: bool
    ignore_changes: list[str] | None
    replace_on_changes: list[str]
    env_var_mappings: dict[str, str]


def bound(
    inside: Inside | None,
    parent: pulumi.Resource | None,
    provider: pulumi.ProviderResource | None = None,
    **more: Unpack[Options],
) -> pulumi.ResourceOptions:
    """Options of a resource of a place that lives ``inside`` a guest, or on the outer host."""
    return pulumi.ResourceOptions(
        parent=parent,
        provider=provider,
        deleted_with=inside.domain if inside else None,
        replace_with=[inside.disk] if inside else None,
        **more,
    )


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """How a machine is known to have come up, and how its inside is reached then."""

    probe: Probe
    reach: pulumi.Input[Target] = NOWHERE
    """Secret; nowhere for a guest that nobody enters."""
    key_folder: str = ""
    """Where files with its keys go that other programs read."""
    stuck_s: float = 0.0
    """After how long it is reset once that has been up before, runs and does not answer; 0: never."""


RUNS = Awaited(probe=Probe(kind="none"))
"""A machine that runs is up."""


def asked(plan: MachinePlan) -> Awaited:
    """Return how a guest is waited for whose place keeps no leases."""
    if plan.ready.probe == "tcp":
        return Awaited(probe=Probe(kind="tcp", host=plan.address or "", port=plan.ready.port or 0))
    return RUNS


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
    user_password: pulumi.Input[str] = ""
    """Password of ``user``, secret; empty where only the lab's key opens, or there is no user."""
    url: pulumi.Input[str] = ""
    """Its web interface, such as https://10.77.0.5:8006; empty without one."""
    enter: pulumi.Input[Sequence[str]] = ()
    """Command on its hypervisor that opens it, a shell or a console; empty: by SSH, as ``user``."""
    serial: pulumi.Input[Sequence[str]] = ()
    """Command on its hypervisor that opens its text console, whatever else opens it; empty without one."""
    run: Sequence[str] = ()
    """What comes before a command that is to run in it, there; empty where ``enter`` takes none."""


@dataclass(frozen=True)
class Disc:
    """A CD in the drive of a nested hypervisor, or a USB stick in it."""

    name: str
    """Tells it from others of the same place; a slug."""
    path: pulumi.Input[str]
    """The ISO, or the stick's image, a file of this machine; another content has another path."""
    stick: bool = False
    shared: bool = False
    """Whether it is the same for all of its place, and so is uploaded once."""


@dataclass(frozen=True, kw_only=True)
class Build(Awaited):
    """What a nested hypervisor is made from, and how it is known to have come up."""

    discs: Sequence[Disc]
    image: str = ""
    """Medium that its disk is a clone of; empty: the disk is empty, and installed from a disc."""


@dataclass(frozen=True)
class Opened:
    """A nested hypervisor that has answered."""

    ready: pulumi.Resource
    reach: pulumi.Output[Target]
    """As in `Build`, known once it has answered."""
    answers: pulumi.Output[str]
    """What it answered, known once it has; not secret."""
    inside: Inside
    console: pulumi.Input[str]
    """Its screen as a URI."""
    password: pulumi.Input[str]
    """Password of the screen, secret; empty for none."""

    def made(
        self,
        plan: MachinePlan,
        place: Place,
        *,
        user: str,
        user_password: pulumi.Input[str] = "",
        url: pulumi.Input[str] = "",
    ) -> HypervisorMade:
        """Return it as the lab knows it, with the place inside it; see `MachineMade` for the rest."""
        return HypervisorMade(
            ready=self.ready,
            address=plan.address or "",
            console=self.console,
            password=self.password,
            user=user,
            user_password=user_password,
            url=url,
            place=place,
        )


@dataclass(frozen=True)
class Route:
    """By which addresses the inside of a nested hypervisor is reached from this machine."""

    address: str
    ports: Mapping[int, int]
    """Port by which each port of it is reached."""
    forward: Sequence[Forward]
    """What has to be carried by the hosts in between."""


@dataclass(frozen=True)
class HypervisorMade(MachineMade):
    """A nested hypervisor, and the place it is."""

    place: Place | None = None


async def _by_urn(resource: pulumi.Resource) -> pulumi.Resource:
    """Wait for ``resource``; return what stands for it and depends on nothing itself.

    The SDK walks, recursively, through all that a dependency depends on: along a queue that takes
    time by the square of its length, and ends at Python's limit of 1000 calls.
    """
    return DependencyResource(await resource.urn.future() or "")


@dataclass
class BootQueue:
    """Lets at most ``width`` machines of a place boot at the same time, in the order of the file.

    Two at a time on two cores give the first usable machine after 12 s where ten at once give it
    after 40 s, and the last one at the same time (measured).
    """

    width: int
    _ready: list[pulumi.Resource] = field(default_factory=list)

    def turn(self) -> list[pulumi.Input[pulumi.Resource]]:
        """Return what has to be up before the next machine may boot, for its ``depends_on``."""
        before = len(self._ready) - self.width
        return [pulumi.Output.from_input(_by_urn(self._ready[before]))] if before >= 0 else []

    def joined(self, ready: pulumi.Resource) -> None:
        """Say that a machine boots and is up when ``ready`` is."""
        self._ready.append(ready)


class Place(Protocol):
    """A place that holds networks, guests and containers.

    Where nested hypervisors can stand, it has `route` and `hypervisor` too: see `NestingPlace`.
    """

    lab: Lab
    plan: PlacePlan

    def network(
        self,
        name: str,
        plan: NetworkPlan,
        reservations: Sequence[Reservation],
        opts: pulumi.ResourceOptions,
    ) -> NetworkMade:
        """Make a network; ``reservations`` are those of its machines."""
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


class NestingPlace(Place, Protocol):
    """A place that nested hypervisors can stand on."""

    sticks: ClassVar[bool]
    """Whether it can plug a USB stick, made of an image, into a machine."""

    def bound(
        self, parent: pulumi.Resource | None, **more: Unpack[Options]
    ) -> pulumi.ResourceOptions:
        """Options of what belongs to a machine of this place: it goes and is lost with the place."""
        ...

    def route(self, plan: MachinePlan, ports: Sequence[int]) -> Route:
        """Say how ``ports`` of a machine are reached from the machine that deploys."""
        ...

    def hypervisor(
        self,
        name: str,
        spec: HypervisorSpec,
        plan: MachinePlan,
        networks: Mapping[str, NetworkMade],
        build: Build,
        opts: pulumi.ResourceOptions,
    ) -> Opened:
        """Make a guest that is a hypervisor, and wait until it takes orders."""
        ...


class Installer(Protocol):
    """How one kind of nested hypervisor comes to be on a `NestingPlace`."""

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


class Outer(Protocol):
    """How an outer host becomes a place; nothing is made for it but a provider, and a pool."""

    def __call__(
        self,
        lab: Lab,
        *,
        owner: pulumi.Resource,
        cores: int,
        password: pulumi.Output[str] | None,
    ) -> Place:
        """Return the place; ``owner`` is the parent of what belongs to it.

        ``cores`` are those of this machine, as far as known; ``password`` is what a remote host is
        entered with, a secret, which `components.settings` has seen to be there.
        """
        ...
