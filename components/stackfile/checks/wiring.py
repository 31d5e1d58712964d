"""How machines are wired: networks, subnets along a line of nesting, pinned addresses and MACs."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from components.stackfile.addresses import capacity, gateway
from components.stackfile.machines import ContainerSpec, GuestSpec
from components.stackfile.networks import OUTER
from components.stackfile.places import HypervisorSpec, Machine, Place, machines, places
from components.stackfile.problems import Problem, choose, listed
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from components.stackfile.lab import LabSpec
    from components.stackfile.networks import NetworkSpec, NicSpec

SUGGESTED_FROM = IPv4Network("10.64.0.0/10")
"""Where a free subnet is looked for when one has to be suggested; seldom used by home routers."""
ASKED = {"tcp", "ssh"}
"""Probes that connect to a guest."""
CLOSED = {"nat", "isolated"}
"""Modes of networks that nothing beyond their host leads into; into routed ones somebody's routes may."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One NIC of a machine, with the paths of what was written about it."""

    machine: Machine
    nic: NicSpec
    at: str
    """Path of the NIC in the list form, of the machine in the short form."""

    @property
    def network(self) -> NetworkSpec | None:
        """The network it names, None where there is no such one."""
        return self.machine.place.spec.networks.get(self.nic.network)

    @property
    def kept(self) -> tuple[Place, str]:
        """The network, and its place, that has its address: the one it names, or the one that is a part of."""
        place, named = self.machine.place, self.network
        return (place.around(named) if named else None) or (place, self.nic.network)

    @property
    def subnet(self) -> IPv4Network | None:
        """The subnet that its address is one of; None where somebody else gives it."""
        place, name = self.kept
        network = place.spec.networks.get(name)
        return network.subnet if network else None


def wires(machine: Machine) -> Iterator[Wire]:
    """Yield the NICs of ``machine``."""
    short = isinstance(machine.spec.network, str)
    for number, nic in enumerate(machine.spec.nics):
        yield Wire(machine, nic, machine.at if short else f"{machine.at}.network.{number}")


def known_networks(lab: LabSpec) -> list[Problem]:
    """A machine names a network of the place it stands in."""
    found = []
    elsewhere: dict[str, list[str]] = {}
    for place in places(lab):
        for name in place.spec.networks:
            elsewhere.setdefault(name, []).append(place.at)
    said: dict[tuple[str, str], tuple[str, str]] = {}
    for wire in _wires(lab):
        if wire.network is not None:
            continue
        place, name = wire.machine.place, wire.nic.network
        if (place.at, name) not in said:
            known = list(place.spec.networks)
            rule = f"{place.title} has {_networks(known)}"
            if name in elsewhere:
                rule += f" (one of that name is out of reach, in {listed(elsewhere[name])})"
            remedy = choose(name, known) if known else f"add {name}: to {place.at}.networks"
            said[place.at, name] = rule, remedy
        found.append(Problem(f"{wire.at}.network", f"{name!r} given", *said[place.at, name]))
    return found


def _networks(known: list[str]) -> str:
    return f"the network{'s' if len(known) > 1 else ''} {listed(known)}" if known else "no network"


def _wires(lab: LabSpec) -> Iterator[Wire]:
    for machine in machines(lab):
        yield from wires(machine)


@dataclass(frozen=True, slots=True)
class _Subnet:
    """A subnet that a network of the lab has."""

    at: str
    """Path of the network."""
    net: IPv4Network

    @property
    def first(self) -> int:
        """Its first address, as a number."""
        return int(self.net.network_address)

    @property
    def last(self) -> int:
        """Its last address, as a number."""
        return int(self.net.broadcast_address)


def _subnets(place: Place) -> list[_Subnet]:
    return [
        _Subnet(f"{place.at}.networks.{name}", network.subnet)
        for name, network in place.spec.networks.items()
        if network.subnet is not None
    ]


def _outermost(subnets: Iterable[_Subnet]) -> list[_Subnet]:
    """Return those that lie in no other one, by address. Two subnets are apart, or one is in the other."""
    found: list[_Subnet] = []
    for each in sorted(subnets, key=lambda each: (each.first, -each.last, each.at)):
        if not found or each.first > found[-1].last:
            found.append(each)
    return found


def _overlapped(apart: Sequence[_Subnet], net: _Subnet) -> _Subnet | None:
    """Return which of ``apart``, by address and no two overlapping, ``net`` overlaps."""
    at = bisect_right(apart, net.last, key=lambda each: each.first) - 1
    return apart[at] if at >= 0 and apart[at].last >= net.first else None


def overlaps(lab: LabSpec) -> list[Problem]:
    """Subnets that one host has to tell apart do not overlap; told of each once."""
    inside = {place.path: _subnets(place) for place in places(lab)}
    free = _Free(each for subnets in inside.values() for each in subnets)
    found = []

    def wrong(it: _Subnet, other: _Subnet, reason: str) -> None:
        rule = f"it overlaps {other.net} of {other.at}, and {reason}"
        given = f"{str(it.net)!r} given"
        found.append(Problem(f"{it.at}.subnet", given, rule, free.remedy(it.net.prefixlen)))

    for place in places(lab):
        own = inside[place.path]
        if not own:
            continue
        order = {each.at: number for number, each in enumerate(own)}
        apart: list[_Subnet] = []
        for each in sorted(own, key=lambda each: (each.first, -each.last, each.at)):
            if apart and each.first <= apart[-1].last:
                earlier, later = sorted((apart[-1], each), key=lambda each: order[each.at])
                wrong(later, earlier, "a host can't tell them apart")
            else:
                apart.append(each)
        around = _outermost(each for outer in place.lineage() for each in inside[outer.path])
        for each in own:
            if other := _overlapped(around, each):
                wrong(each, other, "what is inside could not reach what is around it")
    return found


class _Free:
    """Which subnets no network of the lab has."""

    def __init__(self, taken: Iterable[_Subnet]) -> None:
        self._taken = _outermost(taken)
        self._remedies: dict[int, str] = {}

    def remedy(self, prefix: int) -> str:
        """Return the advice to take one that is free and as large as ``prefix`` says."""
        if prefix not in self._remedies:
            candidates = (_Subnet("", net) for net in SUGGESTED_FROM.subnets(new_prefix=prefix))
            found = next((c for c in candidates if not _overlapped(self._taken, c)), None)
            such = f", such as {found.net}" if found else ", or make others smaller"
            self._remedies[prefix] = f"take a free one{such}"
        return self._remedies[prefix]


def room(lab: LabSpec) -> list[Problem]:
    """A subnet has an address for each NIC on it."""
    found = []
    count = Counter((wire.kept[0].path, wire.kept[1]) for wire in _wires(lab))
    for place in places(lab):
        for name, network in place.spec.networks.items():
            subnet, need = network.subnet, count[place.path, name]
            first = place.offers.first(network.mode)
            if subnet is not None and need > capacity(subnet, first):
                most = capacity(subnet, first)
                rule = f"it has room for {most} machines, and {need} NICs are on it"
                remedy = f"widen it, at least to /{32 - (need + first).bit_length()}"
                at = f"{place.at}.networks.{name}.subnet"
                found.append(Problem(at, f"{str(subnet)!r} given", rule, remedy))
    return found


def pins(lab: LabSpec) -> list[Problem]:
    """A pinned address is one a machine of that network can have, and no other has it."""
    found = []
    owner: dict[tuple[str, str], Wire] = {}
    for wire in _wires(lab):
        address, network = wire.nic.address, wire.network
        if address is None or network is None:
            continue
        at, given = f"{wire.at}.address", f"{str(address)!r} given"
        place, name = wire.kept
        mode, subnet = place.spec.networks[name].mode, wire.subnet
        kept = place.offers.keeps.get(mode, {})
        if subnet is not None and (reason := _unusable(str(address), subnet, kept)):
            first, last = place.offers.first(mode), subnet[-2]
            remedy = f"take one from {subnet[first]} to {last}"
            found.append(Problem(at, given, reason, remedy))
        key = (f"{place.at}.{_where(place.spec.networks[name], name)}", str(address))
        if (other := owner.setdefault(key, wire)) is not wire:
            rule = f"{other.at}.address has it already"
            found.append(Problem(at, given, rule, "change one, or remove it and have one planned"))
    return found


def _where(network: NetworkSpec, name: str) -> str:
    """Return what two networks of one place have in common that are the same one, by two names."""
    if network.uplink is not None and network.mode in OUTER:
        return f"{network.uplink.nic} {network.uplink.vlan}"
    return f"bridge {network.bridge}" if network.bridge else name


def uplinks(lab: LabSpec) -> list[Problem]:
    """A NIC that a bridge is made on has nothing of its own any more that another mode could use."""
    found = []
    for place in (each for each in places(lab) if each.offers.uplinks):
        used = [
            (name, network.mode, network.uplink.nic)
            for name, network in place.spec.networks.items()
            if network.uplink is not None and network.uplink.vlan is None
        ]
        # The first, where several share the bridge.
        bridged = {nic: name for name, mode, nic in reversed(used) if mode == "bridge"}
        for name, mode, nic in used:
            if mode != "bridge" and nic in bridged:
                rule = f"networks.{bridged[nic]} makes a bridge on it, which takes its addresses and frames"
                remedy = f"put the machines on {bridged[nic]}, or take another NIC"
                at = f"{place.at}.networks.{name}.uplink.nic"
                found.append(Problem(at, f"{nic!r} given", rule, remedy))
    return found


def _unusable(address: str, subnet: IPv4Network, kept: Mapping[int, str]) -> str:
    special = {str(subnet[number]): why for number, why in kept.items()} | {
        str(subnet.network_address): f"it is the address of the subnet {subnet} itself",
        str(gateway(subnet)): "its host has it, as the gateway of the network",
        str(subnet.broadcast_address): f"it is the broadcast address of the subnet {subnet}",
    }
    if address in special:
        return special[address]
    inside = IPv4Network(address).subnet_of(subnet)
    return "" if inside else f"it lies outside the network's subnet {subnet}"


def macs(lab: LabSpec) -> list[Problem]:
    """No two NICs of the lab have one MAC: bridged networks of several places may be the same."""
    found = []
    owner: dict[str, Wire] = {}
    for wire in _wires(lab):
        mac = wire.nic.mac
        if mac is None or (other := owner.setdefault(mac, wire)) is wire:
            continue
        rule = f"{other.at}.mac has it already, and a switch sends frames to one of the two"
        remedy = "change one, or remove it and have one planned"
        found.append(Problem(f"{wire.at}.mac", f"{mac!r} given", rule, remedy))
    return found


def management(lab: LabSpec) -> list[Problem]:
    """A nested hypervisor can be reached at an address that is known before it exists."""
    found = []
    for place in places(lab):
        for name, spec in place.spec.hypervisors.items():
            machine = Machine(place, "hypervisors", name, spec)
            first = next(wires(machine), None)
            if first is None or (network := first.network) is None:
                continue
            at = f"{first.at}.network"
            given = f"{first.nic.network!r} given"
            if network.mode == "macvtap":
                rule = (
                    "a host does not reach its own machines by macvtap, and a hypervisor is reached"
                )
                remedy = "set mode: bridge, or put its first NIC on another network"
                found.append(Problem(at, given, rule, remedy))
            elif network.mode == "bridge" and not _known(first):
                rule = (
                    "on a bridge no address is planned, and a hypervisor is reached by its address"
                )
                found.append(Problem(at, given, rule, "pin it with address: A.B.C.D"))
            elif network.mode in CLOSED and _is_elsewhere(place, lab):
                rule = (
                    f"the network ends at {lab.host.where!r}, nothing leads into it from here, and a "
                    "hypervisor is reached by its address"
                )
                remedy = "put its first NIC on a network of mode bridge, with a fixed address"
                found.append(Problem(at, given, rule, remedy))
            elif network.mode != "bridge" and place.offers.ends:
                rule = (
                    f"the network ends at {place.title}, and a hypervisor is reached by its address"
                )
                remedy = "put its first NIC on a network of mode bridge, with a fixed address"
                found.append(Problem(at, given, rule, remedy))
            elif network.mode != "bridge" and not network.dhcp and _kind_needs_dhcp(spec):
                rule = "the network has dhcp: false, and this kind takes its address by DHCP"
                found.append(
                    Problem(at, given, rule, "remove dhcp: false, or take another network")
                )
    return found


def _is_elsewhere(place: Place, lab: LabSpec) -> bool:
    """Whether ``place`` is another machine's libvirt, whose own networks end there."""
    return not place.path and lab.host.ends_networks


def _kind_needs_dhcp(spec: HypervisorSpec) -> bool:
    return KINDS[spec.kind].needs_dhcp


def probes(lab: LabSpec) -> list[Problem]:
    """A guest is only waited for in a way in which it can ever answer."""
    found = []
    for machine in machines(lab):
        if not isinstance(machine.spec, GuestSpec):
            continue
        probe = machine.spec.ready.probe
        mine = list(wires(machine))
        networks = [wire.network for wire in mine if wire.network is not None]
        if len(networks) < len(mine):
            continue  # told by known_networks
        at, given = f"{machine.at}.ready.probe", f"{probe!r} given"
        offers = machine.place.offers
        if probe is not None and probe not in offers.probes:
            rule = f"guests of {machine.place.title} can be waited for with {listed(offers.probes)}"
            found.append(Problem(at, given, rule, choose(probe, offers.probes)))
            continue
        if probe == "lease" and not any(network.serves_dhcp for network in networks):
            rule = "none of its networks hands out addresses by DHCP"
            found.append(Problem(at, given, rule, "set probe: none, or tcp with a port"))
        if probe in ASKED and not _is_led_into(lab, machine, probe):
            where = repr(lab.host.where) if not machine.place.path else machine.place.title
            rule = f"its network ends at {where}, and nothing leads into it from here"
            usual = "lease" if "lease" in offers.probes else "none"
            remedy = f"set probe: {usual}, or use a network of mode bridge"
            found.append(Problem(at, given, rule, remedy))
        elif probe in ASKED and mine and all(each.mode == "macvtap" for each in networks):
            rule = "a host does not reach its own machines by macvtap"
            found.append(Problem(at, given, rule, "set probe: none, or mode: bridge"))
        elif probe in ASKED and not any(_known(wire) for wire in mine):
            rule = "no address of it is known to connect to"
            found.append(Problem(at, given, rule, "set probe: none, or pin its address"))
    return found


def is_entered(lab: LabSpec, machine: Machine) -> bool:
    """Whether SSH can get to ``machine`` from here, through the hypervisors around it."""
    return any(map(_known, wires(machine))) and _is_led_into(lab, machine, "ssh")


def _is_led_into(lab: LabSpec, machine: Machine, probe: str) -> bool:
    """Whether something leads to the address of ``machine`` from where ``probe`` asks."""
    place = machine.place
    closed: set[str] = set()
    if _is_elsewhere(place, lab) or (probe == "ssh" and not place.path and place.offers.ends):
        closed |= CLOSED
    if probe == "ssh":
        closed |= set(place.offers.beyond)
    known = [wire.network for wire in wires(machine) if wire.network and _known(wire)]
    if probe == "ssh":
        known = known[:1]  # it is entered by its first address
    return not known or any(network.mode not in closed for network in known)


def _known(wire: Wire) -> bool:
    """Whether the NIC has an address at which its host reaches it, and that is known before it is up."""
    if wire.network is not None and wire.network.mode == "macvtap":
        return False
    return wire.subnet is not None or wire.nic.address is not None


def console_ports(lab: LabSpec) -> list[Problem]:
    """Two consoles of one host do not listen on one port."""
    found = []
    for place in places(lab):
        owner: dict[int, str] = {}
        for machine in place.machines():
            if isinstance(machine.spec, ContainerSpec):
                continue
            console = machine.spec.console
            for field, port in (("port", console.port), ("websocket", console.websocket)):
                if port is None or port < 0:
                    continue
                at = f"{machine.at}.console.{field}"
                if (other := owner.setdefault(port, at)) != at:
                    rule = f"{other} is the same port of the same host"
                    found.append(Problem(at, f"{port} given", rule, "change one or remove it"))
    return found


WIRING = (
    known_networks,
    overlaps,
    room,
    pins,
    uplinks,
    macs,
    management,
    probes,
    console_ports,
)
