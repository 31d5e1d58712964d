"""Which commands make an uplink, and which take it back to what was: worked out from facts, done by nobody here.

The order is that in which a connection to the host survives: an address stands on the bridge before it leaves
the NIC, and on the NIC again before it leaves the bridge, so that it is the host's at every moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Literal

from components.kinds.libvirt.uplink import managed
from components.stackfile.addresses import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.kinds.libvirt.uplink.host import Address, Facts, Link, Neighbour, Route

LONGEST = 15
"""Characters of a device's name (linux/if.h, IFNAMSIZ without its end)."""
MARK = "nestlab:"
"""Begins the alias of each device that is made here."""
FLAGS = ("noprefixroute", "nodad", "home", "mngtmpaddr", "autojoin")
"""Of an address, as ip-address(8) takes them."""
MAC_OCTETS = 6
SET = frozenset({"boot", "static"})
"""Protocols of routes that people set (iproute2, rt_protos)."""
OWN = frozenset({"kernel", "ra", "redirect"})
"""Protocols of routes that the kernel makes by itself (iproute2, rt_protos)."""
Words = tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """An uplink, as a network asks for it."""

    mode: Literal["bridge", "macvtap", "proxy_arp"]
    nic: str
    vlan: int
    """VLAN, 1 to 4094; 0: none, what the NIC carries without a tag."""
    bridge: str
    """Name of the bridge to be made."""
    subnet: str
    """For proxy ARP: the part of the outer network that is the lab's."""
    addresses: list[str]
    """For proxy ARP: addresses that are answered for."""

    @property
    def port(self) -> str:
        """The device that is plugged into the bridge: the NIC, or the VLAN on it."""
        if not self.vlan:
            return self.nic
        name = f"{self.nic}.{self.vlan}"
        return name if len(name) <= LONGEST else f"nlv{digest(name, digits=LONGEST - 3)}"

    @property
    def mark(self) -> str:
        """Alias of the devices that are made for it."""
        return f"{MARK} {self.bridge} on {self.port}"


@dataclass(frozen=True)
class Steps:
    """Commands, each as words; what else is none's is a function of `trial.PROGRAM` (sysctl, write, has, reload)."""

    make: tuple[Words, ...]
    """In this order, until one fails."""
    back: tuple[Words, ...]
    """All of them, whatever was made; each may be done twice."""
    gateways: tuple[str, ...] = ()
    """Gateways behind the NIC: what answered before has to answer after."""
    addresses: tuple[str, ...] = ()
    """Addresses that move to the bridge, with their prefix."""
    routes: tuple[str, ...] = ()
    """Routes that move there, in words."""


def steps(facts: Facts, wanted: Wanted) -> Steps:
    """Return what makes ``wanted`` where ``facts`` are, and what takes it back."""
    if wanted.mode == "proxy_arp":
        return _proxies(facts, wanted)
    if wanted.vlan:
        return _vlan(facts, wanted)
    return _managed(facts, wanted) if managed.knows(facts, wanted.nic) else _bridge(facts, wanted)


def _managed(facts: Facts, wanted: Wanted) -> Steps:
    """Leave addresses, routes and DNS to the NIC's manager, but for what is looked for afterwards: those that stay."""
    nic, routes = facts.links[wanted.nic], movable(facts, wanted.nic)
    made = _made(wanted, nic.mtu, nic.address)
    make, back = managed.steps(facts, nic, wanted.bridge, wanted.mark, made)
    return Steps(
        make,
        back,
        gateways=tuple(dict.fromkeys(each.gateway for each in routes if each.gateway)),
        addresses=tuple(
            f"{each.local}/{each.prefixlen}"
            for each in nic.addresses
            # NetworkManager makes link-local ones itself, of the device's name.
            if each.lasts and each.scope != "link"
        ),
        routes=tuple(said(each) for each in routes if each.protocol in SET),
    )


def _proxies(facts: Facts, wanted: Wanted) -> Steps:
    there = {address for address, device in facts.proxies if device == wanted.nic}
    proxy = ("ip", "neigh", "replace", "proxy")
    forwards = f"net/ipv4/conf/{wanted.nic}/forwarding"
    off = facts.sysctl.get(forwards) == "0"
    return Steps(
        make=(
            *((*proxy, address, "dev", wanted.nic) for address in wanted.addresses),
            # Without it the kernel answers for nobody (net/ipv4/arp.c, IN_DEV_FORWARD).
            *([("sysctl", forwards, "1")] if off else []),
        ),
        back=(
            *(
                ("ip", "neigh", "del", "proxy", address, "dev", wanted.nic)
                for address in wanted.addresses
                if address not in there
            ),
            *([("sysctl", forwards, "0")] if off else []),
        ),
    )


def _made(wanted: Wanted, mtu: int, mac: str) -> tuple[Words, Words]:
    bridge = wanted.bridge
    # The NIC's own MAC, given: without it the bridge takes the lowest of its ports', and changes with guests.
    kind = ("type", "bridge", "stp_state", "0", "forward_delay", "0")
    return (
        ("ip", "link", "add", "name", bridge, "mtu", str(mtu), "address", mac, *kind),
        ("ip", "link", "set", "dev", bridge, "alias", wanted.mark),
    )


def _plugged(wanted: Wanted) -> Words:
    return ("ip", "link", "set", "dev", wanted.port, "master", wanted.bridge)


def _vlan(facts: Facts, wanted: Wanted) -> Steps:
    nic, port, bridge = facts.links[wanted.nic], wanted.port, wanted.bridge
    # The host has no address there, and is to take none by a router's advertisement.
    silent: list[Words] = [
        ("sysctl", f"net/ipv6/conf/{name}/disable_ipv6", "1") for name in (port, bridge)
    ]
    if f"net/ipv6/conf/{wanted.nic}/disable_ipv6" not in facts.sysctl:
        silent = []
    add = ("ip", "link", "add", "link", wanted.nic, "name", port, "type", "vlan", "id")
    return Steps(
        make=(
            (*add, str(wanted.vlan)),
            ("ip", "link", "set", "dev", port, "alias", wanted.mark),
            *_made(wanted, nic.mtu, nic.address),
            *silent,
            _plugged(wanted),
            ("ip", "link", "set", "dev", port, "up"),
            ("ip", "link", "set", "dev", bridge, "up"),
        ),
        back=(("ip", "link", "del", "dev", bridge), ("ip", "link", "del", "dev", port)),
    )


def _bridge(facts: Facts, wanted: Wanted) -> Steps:
    name, bridge = wanted.nic, wanted.bridge
    nic = facts.links[name]
    four = [each for each in nic.addresses if each.family == "inet"]
    # The kernel puts a new one first (net/ipv6/addrconf.c, ipv6_link_dev_addr).
    six = [
        each
        for each in reversed(nic.addresses)
        if each.family == "inet6" and each.lasts and not by_kernel(facts, nic, each)
    ]
    routes = movable(facts, name)
    fixed = [each for each in facts.neighbours if each.dev == name and "PERMANENT" in each.state]
    proxies = sorted(address for address, device in facts.proxies if device == name)
    six_off = f"net/ipv6/conf/{name}/disable_ipv6"
    has_six = facts.sysctl.get(six_off) == "0"
    return Steps(
        make=(
            *_made(wanted, nic.mtu, nic.address),
            *_settings(facts, name, bridge),
            ("ip", "link", "set", "dev", bridge, "up"),
            *(_added(each, bridge) for each in four),
            # Nobody else's: they were this host's a moment ago.
            *(_added(each.model_copy(update={"nodad": True}), bridge) for each in six),
            _plugged(wanted),
            # A port is nobody's way to the network any more, and takes no address by itself.
            *([("sysctl", six_off, "1")] if has_six else []),
            *(_routed(each, bridge) for each in routes),
            *(_removed(each, name) for each in reversed(four)),
            *_beside(fixed, proxies, bridge),
            *_resolving(facts, name, bridge),
        ),
        back=(
            *([("sysctl", six_off, "0")] if has_six else []),
            *(_added(each, name) for each in (*four, *six)),
            ("ip", "link", "set", "dev", name, "nomaster"),
            *(_routed(each, name) for each in routes),
            *_beside(fixed, proxies, name),
            ("ip", "link", "del", "dev", bridge),
            # Once more, as the first may have found the bridge's in its way.
            *(_routed(each, name) for each in routes),
            *_resolved(facts, name),
        ),
        gateways=tuple(dict.fromkeys(each.gateway for each in routes if each.gateway)),
        addresses=tuple(f"{each.local}/{each.prefixlen}" for each in (*four, *six)),
        routes=tuple(said(each) for each in routes),
    )


def by_kernel(facts: Facts, link: Link, address: Address) -> bool:
    """Whether the kernel gave ``link`` that ``address`` by itself, and will again."""
    if address.scope != "link" or address.family != "inet6":
        return False
    if address.stable_privacy:
        return True
    # Of EUI-64 (RFC 4291, appendix A), unless it was told to make none (addr_gen_mode).
    how = facts.sysctl.get(f"net/ipv6/conf/{link.ifname}/addr_gen_mode", "0")
    octets = [int(each, 16) for each in link.address.split(":")]
    if how != "0" or len(octets) != MAC_OCTETS:
        return False
    first, last = bytes([octets[0] ^ 2, *octets[1:3], 0xFF]), bytes([0xFE, *octets[3:]])
    return IPv6Address(address.local) == IPv6Address(b"\xfe\x80" + bytes(6) + first + last)


def movable(facts: Facts, nic: str) -> list[Route]:
    """Return the routes through ``nic`` that somebody set, those without a gateway first."""
    found = [
        each
        for each in facts.routes
        if each.uses(nic) and each.protocol not in OWN and not each.expires
    ]
    return sorted(found, key=lambda each: bool(each.gateway))


def said(route: Route) -> str:
    """Return a route in words, without its device."""
    via = f" via {route.gateway}" if route.gateway else ""
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{'-6 ' if route.six else ''}{route.dst}{via} table {route.table}{metric}"


def _settings(facts: Facts, nic: str, bridge: str) -> Iterator[Words]:
    for path, value in facts.sysctl.items():
        if f"/{nic}/" in path:
            yield ("sysctl", path.replace(f"/{nic}/", f"/{bridge}/"), value)


def _words(address: Address, device: str) -> Words:
    peer = ("peer", address.peer) if address.peer else ()
    local = (address.local, *peer)
    kept = address.label.partition(":")[0] == device
    return (
        *local[:-1],
        f"{local[-1]}/{address.prefixlen}",
        *(("brd", address.broadcast) if address.broadcast else ()),
        *(("scope", address.scope) if address.family == "inet" else ()),
        *(("label", address.label) if address.label and kept else ()),
        *(("metric", str(address.metric)) if address.metric else ()),
    )


def _added(address: Address, device: str) -> Words:
    flags = [flag for flag in FLAGS if getattr(address, flag)]
    # Deprecated: the host answers to it, and begins nothing with it.
    kept = ("preferred_lft", "0") if address.deprecated else ()
    return ("ip", "addr", "replace", *_words(address, device), "dev", device, *kept, *flags)


def _removed(address: Address, device: str) -> Words:
    peer = ("peer", address.peer) if address.peer else ()
    local = (address.local, *peer)
    return ("ip", "addr", "del", *local[:-1], f"{local[-1]}/{address.prefixlen}", "dev", device)


def _routed(route: Route, device: str) -> Words:
    return (
        *("ip", "-6" if route.six else "-4", "route", "replace", route.type, route.dst),
        *(("from", route.src) if route.src else ()),
        *(("via", route.gateway) if route.gateway else ()),
        *("dev", device, "table", route.table, "proto", route.protocol),
        *(() if route.six else ("scope", route.scope)),
        *(("src", route.prefsrc) if route.prefsrc else ()),
        *(("metric", str(route.metric)) if route.metric else ()),
        *(("pref", route.pref) if route.pref and route.pref != "medium" else ()),
        *(("onlink",) if "onlink" in route.flags else ()),
        *(word for key, value in route.metrics.items() for word in (key, str(value))),
    )


def _beside(fixed: list[Neighbour], proxies: list[str], device: str) -> Iterator[Words]:
    for each in fixed:
        known = ("lladdr", each.lladdr) if each.lladdr else ()
        yield ("ip", "neigh", "replace", each.dst, *known, "dev", device, "nud", "permanent")
    for address in proxies:
        yield ("ip", "neigh", "replace", "proxy", address, "dev", device)


def _resolving(facts: Facts, nic: str, bridge: str) -> Iterator[Words]:
    told = [(what, words) for (what, name), words in facts.resolved.items() if name == nic]
    for what, words in told:
        yield ("resolvectl", what, bridge, *words.split())
    if told:
        yield ("resolvectl", "revert", nic)


def _resolved(facts: Facts, nic: str) -> Iterator[Words]:
    for (what, name), words in facts.resolved.items():
        if name == nic:
            yield ("resolvectl", what, nic, *words.split())
