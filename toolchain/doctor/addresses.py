"""Which address ranges are taken where the lab's guests will live: routes, addresses, networks.

Only the network namespace that libvirt lives in counts: what the machine itself uses outside of it
never meets a guest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from toolchain.machine import daemons

if TYPE_CHECKING:
    from collections.abc import Collection

    from toolchain.machine.system import System

WIDEST = 8
"""Shortest prefix of a route that is about some network; a tunnel's 0.0.0.0/1 is about all."""


@dataclass(frozen=True)
class Taken:
    """A range, and who has it in words."""

    subnet: IPv4Network
    owner: str
    active: bool = True


@dataclass(frozen=True)
class Network:
    """One of libvirt's networks."""

    name: str
    active: bool
    bridge: str
    subnets: tuple[IPv4Network, ...]


def networks(system: System) -> list[Network]:
    """Networks of libvirt that have an address; those without have nothing to collide with."""
    virsh = ["virsh", "-q", "-c", daemons.URI]
    # By UUID: a name may have blanks, or begin as an option does.
    active = set(system.run([*virsh, "net-list", "--uuid"]).out.split())
    found = []
    for uuid in system.run([*virsh, "net-list", "--all", "--uuid"]).out.split():
        told = system.run([*virsh, "net-dumpxml", uuid])
        if told.ok:  # it may have been removed since
            found.append(_network(uuid in active, told.out))
    return [network for network in found if network.subnets]


def _network(active: bool, xml: str) -> Network:
    tree = ET.fromstring(xml)  # noqa: S314 - libvirt's own XML, which it parsed and wrote itself
    bridge = tree.find("bridge")
    subnets = [
        _subnet(entry.get("address", ""), entry.get("prefix") or entry.get("netmask") or "32")
        for entry in tree.findall("ip")
        if entry.get("family", "ipv4") == "ipv4"
    ]
    return Network(
        tree.findtext("name") or "",
        active,
        bridge.get("name", "") if bridge is not None else "",
        tuple(subnet for subnet in subnets if subnet),
    )


def in_use(system: System, namespace: str) -> list[tuple[str, IPv4Network]] | None:
    """Ranges of addresses and routes in ``namespace``, each with its device; None: not to be seen.

    Routes wider than `WIDEST` are left out, as the default route is: a lab's own are preferred.
    """
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    devices = _json(system, [*inside, "ip", "-j", "addr"])
    routes = _json(system, [*inside, "ip", "-j", "route"])
    if devices is None or routes is None:
        return None
    found: dict[tuple[str, IPv4Network], None] = {}
    for device in devices:
        for entry in device.get("addr_info", []):
            subnet = _subnet(entry.get("local", ""), str(entry.get("prefixlen", 32)))
            if subnet:
                found[device["ifname"], subnet] = None
    for route in routes:
        address, _, prefix = route.get("dst", "").partition("/")
        subnet = _subnet(address, prefix or "32")
        if subnet and subnet.prefixlen >= WIDEST:
            found[route.get("dev", "?"), subnet] = None
    return list(found)


def _json(system: System, argv: list[str]) -> list[dict[str, Any]] | None:
    done = system.run(argv)
    try:
        return list(json.loads(done.out or "[]")) if done.ok else None
    except ValueError:
        return None


def _subnet(address: str, length: str) -> IPv4Network | None:
    try:
        network = ip_network(f"{address}/{length}", strict=False)
    except ValueError:  # "default", or nothing
        return None
    return network if isinstance(network, IPv4Network) else None


@dataclass(frozen=True)
class Usage:
    """All ranges in use, without the lab's own; ``unseen`` says what could not be looked at."""

    taken: tuple[Taken, ...]
    unseen: str = ""


def usage(system: System, namespace: str, own: Collection[str]) -> Usage:
    """What the subnets of a lab must keep clear of; ``own`` are its networks' names in libvirt."""
    known = networks(system)
    found = [
        Taken(subnet, f"libvirt's network {network.name}", network.active)
        for network in known
        if network.name not in own
        for subnet in network.subnets
    ]
    place = f"namespace {namespace}" if namespace else "this machine"
    ranges = in_use(system, namespace)
    if ranges is None:
        return Usage(tuple(found), f"the routes of {place} can't be read by this user")
    bridges = {network.bridge for network in known}
    found += [
        Taken(subnet, f"{device} of {place}") for device, subnet in ranges if device not in bridges
    ]
    return Usage(tuple(found))


@dataclass(frozen=True)
class Collision:
    """A subnet of the stack, by its network's name, and who has some of it already."""

    name: str
    subnet: IPv4Network
    other: Taken

    @property
    def blocks(self) -> bool:
        """Whether libvirt refuses to start the stack's network: the very range is routed already."""
        return self.other.active and self.other.subnet == self.subnet

    @property
    def words(self) -> str:
        """The collision as a phrase."""
        rest = "" if self.other.active else " (not active)"
        return f"{self.name} {self.subnet} overlaps {self.other.subnet} of {self.other.owner}{rest}"


def collisions(subnets: dict[str, str], used: Usage) -> list[Collision]:
    """Each overlap of ``subnets`` with what is in use."""
    return [
        Collision(name, IPv4Network(subnet), each)
        for name, subnet in subnets.items()
        for each in used.taken
        if IPv4Network(subnet).overlaps(each.subnet)
    ]
