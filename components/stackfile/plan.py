"""Every name, address and MAC of a lab, worked out before anything exists.

Nothing is read back from a host: what is planned here is reserved in the networks, so that a
readiness check knows where to knock, and a machine that is made again gets its old address.
The names inside a nested host are plain; on the outer host they begin with the lab's name.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, get_args

from components.stackfile import addresses
from components.stackfile.checks.capacity import disk_of, memory_of
from components.stackfile.checks.wiring import is_entered
from components.stackfile.machines import BootDevice, ContainerSpec, DiskBus, GuestSpec
from components.stackfile.networks import OUTER
from components.stackfile.nodes import Totals
from components.stackfile.places import (
    VIRTUALIZATION,
    Group,
    Hardware,
    HypervisorSpec,
    Machine,
    Place,
    ordered,
    places,
)
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address

    from components.stackfile.lab import LabSpec
    from components.stackfile.machines import Probe
    from components.stackfile.networks import Mode, NetworkSpec, NicModel, UplinkSpec

BRIDGE_DIGITS = 10
"""``nl`` and 10 digits: within the 15 characters of a bridge's name."""


@dataclass(frozen=True, slots=True)
class UplinkPlan:
    """What a network of the outer host reaches outside by."""

    nic: str
    vlan: int
    """0: none."""
    proxy_arp: bool
    confirm_s: int


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """A network as its host's libvirt makes it."""

    name: str
    """Its name in the place."""
    called: str
    mode: Mode
    bridge: str
    """Device of the bridge: made by libvirt, or the host's own in mode bridge; empty there for the
    place's own uplink, and in mode macvtap."""
    subnet: str | None
    """``10.77.0.0/24``; None on a bridge, like the four below."""
    prefix: int | None
    gateway: str | None
    """Address of the host itself on the network."""
    dhcp_start: str | None
    """First address that may be handed out; planned ones inside the range are reserved."""
    dhcp_end: str | None
    dhcp: bool
    domain: str | None
    # Gates of labs that were made before know a plan by its text (`fingerprint`).
    uplink: UplinkPlan | None = field(default=None, repr=False)
    closed: bool = field(default=False, repr=False)
    """Whether machines reach nothing of the host but DHCP, DNS and ping."""
    around: tuple[tuple[str, ...], str] | None = field(default=None, repr=False)
    """The place, by its path, and its network that this one is a part of, and that has its addresses."""


@dataclass(frozen=True, slots=True)
class NicPlan:
    """A NIC of a machine."""

    network: str
    """Name of a network of the machine's place."""
    mac: str
    address: str | None
    """IPv4; None on a bridge where none is pinned, and that is no part of a network of the lab's."""
    model: NicModel | None
    """None for a container."""


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """How a machine is waited for."""

    probe: Probe
    port: int | None
    deadline_s: int
    reset_s: int | None = None
    """Seconds until a guest that is not up is reset; None: never."""


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """A guest, a container or a nested hypervisor."""

    name: str
    group: Group
    at: str
    """Its path in the stack file."""
    place: tuple[str, ...]
    """Path of the place it stands in."""
    layer: int
    """1 on the outer host, one more in each hypervisor."""
    called: str
    """What its host calls it."""
    memory_mib: int
    cores: int
    disk_gib: int
    disk_bus: DiskBus | None
    """None for a container."""
    boot: tuple[BootDevice, ...]
    """Boot order of a guest; empty for the others."""
    nics: tuple[NicPlan, ...]
    ready: ReadyPlan
    hardware: Hardware = field(default_factory=Hardware)
    drives: tuple[str, ...] = field(default=(), repr=False)
    """What is in a guest's drives beside its system disk, in words, for people."""

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the outside in, its own last; the path of its place if it is one."""
        return (*self.place, self.name)

    @property
    def address(self) -> str | None:
        """The first known address, by which it is reached."""
        return next((nic.address for nic in self.nics if nic.address), None)


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """A place: the outer host or a nested hypervisor."""

    path: tuple[str, ...]
    """Empty for the outer host."""
    layer: int
    """0 for the outer host."""
    kind: str | None
    """None for the outer host."""
    networks: Mapping[str, NetworkPlan]
    machines: Mapping[str, MachinePlan]


@dataclass(frozen=True, slots=True)
class LabPlan:
    """The plan of a lab; places come before what is inside them."""

    name: str
    pool_path: str
    """What the path of the lab's own folder for disks begins with; see `LabSpec.pool_path`."""
    places: tuple[PlacePlan, ...]

    def place(self, *path: str) -> PlacePlan:
        """Return the place at ``path``, the outer host's without one.

        Raises:
            KeyError: there is no such place.
        """
        for place in self.places:
            if place.path == path:
                return place
        raise KeyError("/".join(path))

    def machine(self, name: str) -> MachinePlan:
        """Return the machine called ``name``, wherever it stands.

        Raises:
            KeyError: there is none.
        """
        for place in self.places:
            if name in place.machines:
                return place.machines[name]
        raise KeyError(name)

    def machines(self) -> Iterator[MachinePlan]:
        """Yield every machine, the outer layers first."""
        for place in self.places:
            yield from place.machines.values()

    def on(self, path: tuple[str, ...], network: str) -> Iterator[tuple[MachinePlan, NicPlan]]:
        """Yield the NICs on ``network`` of the place at ``path``, then those on networks that are a part of it."""
        for place in self.places:
            parts = {
                name for name, each in place.networks.items() if each.around == (path, network)
            }
            parts |= {network} if place.path == path else set()
            for machine in place.machines.values() if parts else ():
                yield from ((machine, nic) for nic in machine.nics if nic.network in parts)


def totals(spec: LabSpec) -> Totals:
    """Return what ``spec`` takes of its outer host."""
    outer = list(next(places(spec)).machines())
    return Totals(
        memory_mib=sum(map(memory_of, outer)),
        disk_gib=sum(map(disk_of, outer)),
        cores=sum(machine.spec.cores for machine in outer),
    )


def plan(spec: LabSpec) -> LabPlan:
    """Return the plan of ``spec``, which `load` has accepted."""
    found = list(places(spec))
    macs = {nic.mac for place in found for m in place.machines() for nic in m.spec.nics if nic.mac}
    where = _addresses(found)
    return LabPlan(
        spec.name,
        spec.pool_path,
        tuple(_place(spec, place, where[place.path], macs) for place in found),
    )


def _place(
    lab: LabSpec, place: Place, where: Mapping[tuple[str, int], IPv4Address], macs: set[str]
) -> PlacePlan:
    return PlacePlan(
        path=place.path,
        layer=place.depth,
        kind=place.kind.name if place.kind else None,
        networks={
            name: _network(lab, place, name, network)
            for name, network in ordered(place.spec.networks)
        },
        machines={m.name: _machine(lab, m, where, macs) for m in place.machines()},
    )


_Where = dict[tuple[str, int], "IPv4Address"]
"""Addresses of a place's NICs, by machine and number."""


def _addresses(found: list[Place]) -> dict[tuple[str, ...], _Where]:
    """Return the address of each NIC, by the path of its place.

    Pins are claimed first; then hypervisors, guests and containers, each group when the one before
    is settled: a hypervisor that moves takes all it holds with it, and a guest never moves it. Last come
    those inside hypervisors whose uplink is on the network: they move nobody on it.
    """
    where = {place.path: _pinned(place) for place in found}
    inside = defaultdict[tuple[tuple[str, ...], str], list[tuple[Place, str]]](list)
    for place in found:
        for name, network in place.spec.networks.items():
            if around := place.around(network):
                inside[around[0].path, around[1]].append((place, name))
    for place in found:
        for name, network in place.spec.networks.items():
            if network.subnet is None:
                continue
            inner = inside[place.path, name]
            taken = {addresses.gateway(network.subnet)}
            for each, own in [(place, name), *inner]:
                taken |= {where[each.path][at] for at in _on(each, own) if at in where[each.path]}
            first = place.offers.first(network.mode)
            for each, own in [(place, name), *inner]:
                for group in get_args(Group):
                    # A machine's first NIC goes by the bare name: adding a second one does not move it.
                    keys = {
                        f"{machine}/{number}" if number else machine: (machine, number)
                        for (machine, number), of in _on(each, own).items()
                        if of == group and (machine, number) not in where[each.path]
                    }
                    given = addresses.assign(keys, network.subnet, taken, first)
                    where[each.path] |= {keys[key]: address for key, address in given.items()}
    return where


def _pinned(place: Place) -> _Where:
    return {
        (machine.name, number): nic.address
        for machine in place.machines()
        for number, nic in enumerate(machine.spec.nics)
        if nic.address is not None
    }


def _on(place: Place, network: str) -> dict[tuple[str, int], Group]:
    """Return the NICs on a network of ``place``, and what group each one's machine is of."""
    return {
        (machine.name, number): machine.group
        for machine in place.machines()
        for number, nic in enumerate(machine.spec.nics)
        if nic.network == network
    }


def _network(lab: LabSpec, place: Place, name: str, network: NetworkSpec) -> NetworkPlan:
    subnet = network.subnet
    dhcp = network.serves_dhcp and place.offers.dhcp
    made = f"nl{addresses.digest(lab.name, *place.path, name, digits=BRIDGE_DIGITS)}"
    around = place.around(network)
    return NetworkPlan(
        name=name,
        called=_physical(lab, place, name),
        mode=network.mode,
        bridge=network.bridge or _bridge(place, network, made),
        subnet=str(subnet) if subnet else None,
        prefix=subnet.prefixlen if subnet else None,
        gateway=str(addresses.gateway(subnet)) if subnet else None,
        dhcp_start=str(subnet[place.offers.first(network.mode)]) if subnet and dhcp else None,
        dhcp_end=str(subnet[-2]) if subnet and dhcp else None,
        dhcp=dhcp,
        domain=network.domain,
        uplink=_uplink(network.uplink) if network.uplink else None,
        closed=network.closed,
        around=(around[0].path, around[1]) if around else None,
    )


def _uplink(uplink: UplinkSpec) -> UplinkPlan:
    return UplinkPlan(uplink.nic, uplink.vlan or 0, uplink.proxy_arp, uplink.confirm_s)


def _bridge(place: Place, network: NetworkSpec, made: str) -> str:
    if network.mode not in OUTER:
        return made
    if network.uplink is None or network.mode != "bridge":
        return place.offers.uplink_device if network.mode == "bridge" else ""
    # Labs share the bridge of a NIC, as that can be in one only.
    port = (network.uplink.nic, str(network.uplink.vlan or ""))
    return f"nlb{addresses.digest(*port, digits=BRIDGE_DIGITS)}"


def _physical(lab: LabSpec, place: Place, name: str) -> str:
    # Several labs share the outer host; a nested host belongs to one lab.
    return name if place.path else f"{lab.name}-{name}"


def _machine(
    lab: LabSpec, machine: Machine, where: Mapping[tuple[str, int], IPv4Address], macs: set[str]
) -> MachinePlan:
    place, spec = machine.place, machine.spec
    offers = place.offers
    usual: NicModel | None = None
    disk_bus: DiskBus | None = None
    if not isinstance(spec, ContainerSpec):
        usual = spec.nic_model or offers.nic_models[0]
        disk_bus = spec.disk_bus or offers.disk_buses[0]
    nics = []
    for number, nic in enumerate(spec.nics):
        seed = (lab.name, *place.path, machine.name, str(number))
        mac = nic.mac or addresses.mac(seed, macs)
        macs.add(mac)
        address = where.get((machine.name, number))
        model = nic.model or usual
        nics.append(NicPlan(nic.network, mac, str(address) if address else None, model))
    return MachinePlan(
        name=machine.name,
        group=machine.group,
        at=machine.at,
        place=place.path,
        layer=machine.layer,
        called=_physical(lab, place, machine.name),
        memory_mib=memory_of(machine),
        cores=spec.cores,
        disk_gib=0 if isinstance(spec, ContainerSpec) else spec.disk_gib,
        disk_bus=disk_bus,
        boot=spec.boot_order if isinstance(spec, GuestSpec) else (),
        nics=tuple(nics),
        ready=_ready(lab, machine),
        hardware=_hardware(spec),
        drives=_drives(spec) if isinstance(spec, GuestSpec) else (),
    )


def _drives(spec: GuestSpec) -> tuple[str, ...]:
    cds = (spec.iso, *spec.discs) if spec.discs else ()
    disks = (f"{name} {gib} GiB" for name, gib in ordered(spec.disks))
    return (*(f"CD {name}" for name in cds if name), *disks)


def _hardware(spec: GuestSpec | ContainerSpec | HypervisorSpec) -> Hardware:
    found = KINDS[spec.kind].hardware if isinstance(spec, HypervisorSpec) else Hardware()
    if isinstance(spec, ContainerSpec) or spec.nested is not False:
        return found
    return replace(found, cpu_without=(*found.cpu_without, *VIRTUALIZATION))


def _ready(lab: LabSpec, machine: Machine) -> ReadyPlan:
    spec = machine.spec
    if isinstance(spec, HypervisorSpec):
        # What answers, and on which port, is a matter of its kind.
        usual_s = max(lab.boot.ready_s, KINDS[spec.kind].ready_s)
        return ReadyPlan("none", None, spec.ready_s or usual_s)
    offers = machine.place.offers
    networks = [machine.place.spec.networks[nic.network] for nic in spec.nics]
    leased = "lease" in offers.probes and any(network.serves_dhcp for network in networks)
    usual: Probe = "lease" if leased else "none"
    if isinstance(spec, ContainerSpec):
        return ReadyPlan(usual, None, lab.boot.lease_s)
    ready = spec.ready
    if spec.cloud_init and "ssh" in offers.probes and is_entered(lab, machine):
        usual = "ssh"
    probe = ready.probe or usual
    usual_s = lab.boot.ready_s if probe == "ssh" else lab.boot.lease_s
    return ReadyPlan(probe, ready.port, ready.deadline_s or usual_s, ready.reset_s)
