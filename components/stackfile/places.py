"""A place (the outer host, or a nested hypervisor) holds networks and machines, at any depth.

The recursion is closed by the registry of kinds: what may stand under ``hypervisors`` is looked up
there by ``kind`` when the models are first used, so a kind is one file and one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

from components.stackfile.addresses import FIRST, natural
from components.stackfile.machines import (
    ContainerSpec,
    DiskBus,
    GuestSpec,
    MachineSpec,
    Nics,
    Probe,
)
from components.stackfile.networks import (  # noqa: TC001 - pydantic reads them at run time
    Mode,
    NetworkSpec,
    NicModel,
)
from components.stackfile.problems import Problem
from components.stackfile.registry import HOSTS, KINDS
from components.stackfile.values import Cores, Gib, Mib, Name, Seconds, SpecModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.stackfile.images import ImageFormat
    from components.stackfile.lab import LabSpec

T = TypeVar("T")
CLONED: tuple[ImageFormat, ...] = ("qcow2", "raw")
"""What the image of a nested hypervisor may be."""
Group = Literal["hypervisors", "guests", "containers"]
"""In the order in which their addresses are planned: what moves at the highest price first."""


class _ByKind:
    """Validates a nested hypervisor with the model of its ``kind``."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        del source
        choices = {kind_tag(name): handler.generate_schema(it.model) for name, it in KINDS.items()}
        return core_schema.tagged_union_schema(choices, discriminator=_kind_of)


def kind_tag(kind: object) -> str:
    """Return what marks the branch of ``kind`` in an error's path, and can't be taken for a name."""
    return f"<{kind}>"


def _kind_of(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return None if kind is None else kind_tag(kind)


if TYPE_CHECKING:
    Nested: TypeAlias = "HypervisorSpec"
else:
    # Not by its name: a forward reference would have to be resolved in each kind's module.
    Nested = Annotated[Any, _ByKind()]


class PlaceSpec(SpecModel):
    """What the outer host and a nested hypervisor alike can hold, everything by name."""

    networks: Mapping[Name, NetworkSpec] = Field(
        default_factory=dict, description="Networks, by name"
    )
    guests: Mapping[Name, GuestSpec] = Field(default_factory=dict, description="Guests, by name")
    containers: Mapping[Name, ContainerSpec] = Field(
        default_factory=dict, description="Containers, by name; in a nested hypervisor only"
    )
    hypervisors: Mapping[Name, Nested] = Field(
        default_factory=dict, description="Nested hypervisors, by name; each is a place again"
    )


class HypervisorSpec(MachineSpec, PlaceSpec):
    """A guest that is a place again once it answers; each kind has a model of its own."""

    kind: str = Field(description="What hypervisor it is")
    memory_mib: Mib = Field(description="Memory, MiB: its own and that of all it holds")
    cores: Cores = Field(2, description="Virtual cores")
    disk_gib: Gib = Field(description="System disk, GiB: its own and those of all it holds")
    network: Nics = Field(
        description="Network of the place it stands in, or a list of NICs; nestlab reaches it on the first"
    )
    machine: Literal["q35", "pc"] = Field("q35", description="Chipset")
    ready_s: Seconds | None = Field(
        None,
        description="Longest wait until it takes orders, its installation included, seconds; "
        "default: boot.ready_s, or its kind's usual time if that is longer",
    )

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        if not self.nics:
            rule = "what happens inside a hypervisor is asked for over the network"
            wrong.append(Problem("network", "an empty list given", rule, "add a NIC"))
        return wrong


class InstalledSpec(HypervisorSpec):
    """A nested hypervisor that its maker's installer puts onto an empty disk, unattended."""

    iso: str = Field(description="Name of a medium: its maker's installation ISO, as downloaded")

    @override
    def media(self) -> dict[str, str]:
        return {"iso": self.iso}


class ClonedSpec(HypervisorSpec):
    """A nested hypervisor that is a Linux cloud image, and what it is told at its first boot."""

    image: str = Field(
        description="Name of a medium: a cloud image of Debian or Ubuntu, with cloud-init"
    )

    @override
    def media(self) -> dict[str, str]:
        return {"image": self.image}


VIRTUALIZATION = ("svm", "vmx")
"""CPU features by which a machine can virtualize, libvirt's names: AMD's and Intel's."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine has to look like, beyond what its spec says, so that it can do its work."""

    cpu: str = ""
    """CPU model under emulation, libvirt's name; empty: all that QEMU can emulate."""
    cpu_without: tuple[str, ...] = ()
    """CPU features switched off, libvirt's names."""
    hyperv: bool = False
    """Whether it is told, by Hyper-V's own interface, that it is virtual; real KVM only."""
    hidden: bool = False
    """Whether KVM keeps from it that it is there."""
    scsi: str = "virtio-scsi"
    """Model of the SCSI controller, libvirt's name, for disk_bus scsi."""
    localtime: bool = False
    """Whether its clock is in local time, as Windows expects."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least a hypervisor runs with, and who says so."""

    value: int
    source: str


UPLINK = "nluplink"
"""What nestlab calls the bridge that a nested host's seed makes on its first NIC."""


@dataclass(frozen=True, slots=True)
class Drives:
    """How many CD drives a guest has beside those of its ``iso`` and its configuration."""

    most: int
    why: str
    """What has the places, and who says so."""


ONE_DRIVE = Drives(0, "its guests have one CD drive")


@dataclass(frozen=True, slots=True)
class Offers:
    """What machines and networks a place can hold; the first of each is the default there."""

    nic_models: tuple[NicModel, ...]
    disk_buses: tuple[DiskBus, ...]
    modes: tuple[Mode, ...]
    containers: bool
    virtio: tuple[DiskBus, ...] = ()
    """Of its buses of disks those that are virtio's."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Root file systems of containers that need no file: name and what it is."""
    packed: str = ""
    """Where a template has to be a compressed archive: how, and who says so."""
    apart: str = ""
    """Why containers belong into a hypervisor in it; empty: there is no such reason."""
    nests: bool = False
    """Whether it holds nested hypervisors."""
    golden: bool = False
    """Whether it boots nestlab's own images."""
    sticks: bool = False
    """Whether an installer can be given its answers on a USB stick there."""
    ahci: tuple[str, ...] = ()
    """Chipsets whose CDs are on AHCI, where that is all that an installer can be given its answers on."""
    ends: bool = False
    """Whether its own networks end there: nothing leads into them from the machine that deploys."""
    needs_nic: bool = False
    """Whether it makes no machine without a NIC."""
    dhcp: bool = False
    """Whether its own networks hand out the planned addresses."""
    keeps: Mapping[Mode, Mapping[int, str]] = field(default_factory=dict)
    """Addresses of its own in networks of a mode, by their number in the subnet, and what for: all from 2
    to the last of them."""
    probes: tuple[Probe, ...] = ("none", "tcp")
    """How its guests can be waited for."""
    beyond: tuple[Mode, ...] = ()
    """Modes of networks whose guests it does not reach itself, so that no SSH gets through it to them."""
    uplinks: bool = False
    """Whether a network may name a NIC of the place's own as its uplink."""
    closes: bool = False
    """Whether a network may be closed to the place itself."""
    uplink: str = ""
    """What mode bridge joins when the stack names nothing, in words; empty: it has to. Inside a nested hypervisor it is
    on its first NIC, so that guests get addresses planned on the network around."""
    uplink_device: str = ""
    """The bridge on the place's first NIC, where nestlab makes it."""
    images: bool = True
    """Whether a guest's disk may be a clone of an image."""
    image_formats: tuple[ImageFormat, ...] = CLONED
    """What such an image may be; the first is what others are best converted to."""
    nics: int = 16
    """The most NICs of one machine; who says so stands at the kind. 16: what QEMU's machine pc has slots
    for beside its own devices and a disk or two, of 32."""
    drives: Callable[[GuestSpec], Drives] = lambda _: ONE_DRIVE
    """The further CD drives of a guest of that spec."""
    disks: int = 0
    """The most further disks of a guest; who says so stands at the kind."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Fields of a guest that may not be given there, and what holds instead."""

    def first(self, mode: Mode) -> int:
        """Return the number of the first address that machines have in a network of ``mode``."""
        return max(self.keeps.get(mode, ()), default=FIRST - 1) + 1


@dataclass(frozen=True, slots=True)
class Kind:
    """All the spec knows of one kind of hypervisor, `model` in `components/kinds/NAME`."""

    name: str
    title: str
    """How people call it, in messages."""
    model: type[HypervisorSpec]
    memory_mib: Minimum
    cores: Minimum
    disk_gib: Minimum
    reserve_mib: int
    """Memory the hypervisor needs for itself, MiB, whatever it has."""
    reserve_gib: int
    """Disk the hypervisor needs for itself, GiB, whatever it has."""
    needs_dhcp: bool
    """Whether it can only take its planned address by DHCP."""
    offers: Offers
    golden: str = ""
    """The golden image it is a clone of, as ``make image`` calls it; empty: of none."""
    user: str = "root"
    """Who logs in over SSH, with the lab's key."""
    share_mib: int = 0
    """Of each 1000 MiB of memory, how many it needs for itself beside ``reserve_mib``."""
    share_gib: int = 0
    """Of each 1000 GiB of disk, likewise."""
    hardware: Hardware = field(default_factory=Hardware)
    reads_ahci: bool = True
    """Whether its installer reads its answers from a CD on QEMU's AHCI, where CDs of q35 are; where it
    does not, they come on a USB stick, which Proxmox VE can't make of an image."""
    stick: bool = False
    """Whether it is given its answers on a USB stick wherever the place it stands on can plug one in."""
    longest_name: int = 20
    """How long its own name may be, characters."""
    needs: Callable[[Any], bool] = lambda _: True
    """Whether the guests of one with that spec need hardware virtualization."""
    spares: Literal["", "emulated", "paravirtual"] = ""
    """What its guests are where it sees no hardware virtualization; empty: it starts none then."""
    lives_emulated: bool = False
    """Whether what an emulated processor shows of it is enough."""
    ready_s: int = 0
    """How long it may take to be installed and answer, seconds; 0: as boot.ready_s says."""

    def virtualizes(self, spec: HypervisorSpec, accelerator: str) -> bool:
        """Whether one of ``spec`` needs more than its host has: where that emulates, or KVM does not nest."""
        return self.needs(spec) and not (self.lives_emulated and accelerator == "tcg")


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest, a container or a nested hypervisor, where it stands."""

    place: Place
    group: Group
    name: str
    spec: GuestSpec | ContainerSpec | HypervisorSpec

    @property
    def at(self) -> str:
        """Its path in the file."""
        return f"{self.place.at}.{self.group}.{self.name}"

    @property
    def layer(self) -> int:
        """1 on the outer host, one more in each hypervisor."""
        return self.place.depth + 1


@dataclass(frozen=True, slots=True)
class Place:
    """A place and the way to it."""

    path: tuple[str, ...]
    """Names of the hypervisors from the outside in; empty for the outer host."""
    at: str
    """Its path in the file."""
    spec: PlaceSpec
    kind: Kind | None
    """None for the outer host."""
    above: Place | None
    offers: Offers
    """What it can hold."""

    @property
    def depth(self) -> int:
        """0 for the outer host."""
        return len(self.path)

    @property
    def title(self) -> str:
        """How a message calls it."""
        return repr(self.path[-1]) if self.path else "the outer host"

    def machines(self) -> Iterator[Machine]:
        """Yield what stands in it: hypervisors, guests, containers, each by name."""
        for name, hypervisor in ordered(self.spec.hypervisors):
            yield Machine(self, "hypervisors", name, hypervisor)
        for name, guest in ordered(self.spec.guests):
            yield Machine(self, "guests", name, guest)
        for name, container in ordered(self.spec.containers):
            yield Machine(self, "containers", name, container)

    def around(self, network: NetworkSpec) -> tuple[Place, str] | None:
        """Return the network, and its place, that ``network`` of this place is a part of by its uplink.

        None where it is one of its own, or nobody of the lab keeps addresses there.
        """
        if network.mode != "bridge" or network.bridge or not self.offers.uplink:
            return None
        if self.above is None or not isinstance(self.spec, HypervisorSpec):
            return None
        first = next(iter(self.spec.nics), None)
        outer = self.above.spec.networks.get(first.network) if first else None
        if first is None or outer is None:
            return None
        if outer.subnet is not None:
            kept = outer.serves_dhcp and self.above.offers.dhcp
            return (self.above, first.network) if kept else None
        return self.above.around(outer)

    def lineage(self) -> Iterator[Place]:
        """Yield the places around it, nearest first, without itself."""
        place = self.above
        while place is not None:
            yield place
            place = place.above


def own(reserve: int, share: int, have: int) -> int:
    """Return how much of ``have`` a hypervisor keeps: ``reserve`` and ``share`` per mille, rounded up."""
    return reserve - (-have * share // 1000)


def ordered(mapping: Mapping[str, T]) -> list[tuple[str, T]]:
    """Return the items by name, web9 before web10, whatever order they arrived in."""
    return sorted(mapping.items(), key=lambda item: natural(item[0]))


def places(lab: LabSpec) -> Iterator[Place]:
    """Yield every place of ``lab``, each before what is inside it."""
    waiting = [Place((), "lab", lab, None, None, HOSTS[lab.host.kind].offers)]
    while waiting:
        place = waiting.pop(0)
        yield place
        waiting += [
            Place(
                (*place.path, name),
                f"{place.at}.hypervisors.{name}",
                hypervisor,
                KINDS[hypervisor.kind],
                place,
                KINDS[hypervisor.kind].offers,
            )
            for name, hypervisor in ordered(place.spec.hypervisors)
        ]


def machines(lab: LabSpec) -> Iterator[Machine]:
    """Yield every machine of ``lab``, the outer layers first."""
    for place in places(lab):
        yield from place.machines()


def golden_images(lab: LabSpec) -> list[str]:
    """Return the golden images that ``lab`` has clones of, as `make image` calls them, in order."""
    return sorted({place.kind.golden for place in places(lab) if place.kind and place.kind.golden})
