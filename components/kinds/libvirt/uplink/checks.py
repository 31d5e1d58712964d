"""Whether an uplink can be made on a host, and whether it is as it was made: judged from facts, in words.

What nestlab can't take back exactly, or what another program would set again, is refused, with the commands that
make a bridge there which everybody knows of.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from components.kinds.libvirt.uplink import managed
from components.kinds.libvirt.uplink.steps import MARK, SET, by_kernel, movable, said
from components.stackfile.problems import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from components.kinds.libvirt.uplink.host import Address, Facts, Link, Manager, Route
    from components.kinds.libvirt.uplink.steps import Wanted

UPPER = {"macvlan", "macvtap", "ipvlan", "ipvtap"}
"""Devices that take a NIC's frames before a bridge can (linux/netdevice.h, rx_handler: one for each)."""
BESIDE = {"vlan", "veth"}
"""Devices on a NIC that a bridge leaves alone: the kernel takes a VLAN's frames before; the other end of a cable."""
METRICS = frozenset(
    ("mtu", "advmss", "hoplimit", "window", "ssthresh", "cwnd", "reordering", "initcwnd", "initrwnd",
     "quickack", "rto_min")
)  # fmt: skip
"""Of a route: those that `ip route` takes as it prints them (`rtt` it does not)."""
NAMED = re.compile(r"(?:\s-[io]|\b[io]if(?:name)?)\s+(?:[!=]=\s*)?(\{[^}]*\}|\S+)")
"""Devices in a rule of iptables or nftables."""
COMMANDS: dict[Manager, str] = {
    "NetworkManager": "`nmcli con add type bridge ifname br0 con-name br0 bridge.stp no bridge.mac-address {mac}`, "
    "`nmcli con add type ethernet ifname {nic} con-name br0-{nic} master br0`, `nmcli con up br0-{nic}` "
    "and `nmcli con up br0`",
    "systemd-networkd": "a br0.netdev ([NetDev] Name=br0, Kind=bridge, MACAddress={mac}), [Network] Bridge=br0 in the "
    ".network file of {nic}, what stood there in a .network file of br0, then `networkctl reload`",
    "ifupdown": "in /etc/network/interfaces `iface {nic} inet manual`, and `iface br0` with what {nic} had, "
    "`bridge_ports {nic}`, `bridge_stp off` and `bridge_fd 0`; then `ifdown {nic}; ifup br0` (package bridge-utils)",
}
"""How a bridge is made that the manager knows of (nmcli(1), systemd.netdev(5), bridge-utils-interfaces(5))."""
THEN = "then say mode: bridge and bridge: br0, without uplink"


def problems(facts: Facts, wanted: Wanted) -> Iterator[str]:
    """Yield why ``wanted`` can't be where ``facts`` are, each with what to do."""
    nic = facts.links.get(wanted.nic)
    if nic is None:
        known = [
            _called(facts, each)
            for each in facts.links.values()
            if each.link_type == "ether" and not each.alias.startswith(MARK)
        ]
        take = f"take one of {listed(known)}" if known else "there is none that a lab could be on"
        yield f"there is no NIC {wanted.nic}: {take}"
        return
    if not nic.up:
        yield f"{nic.ifname} is switched off: `ip link set {nic.ifname} up`"
    if nic.link_type != "ether":
        yield f"{nic.ifname} is no Ethernet device ({nic.link_type}), and guests are"
    elif wanted.mode == "proxy_arp":
        yield from _proxy(facts, nic, wanted)
    elif nic.ifname in facts.wireless:
        yield (
            f"{nic.ifname} is wireless, and an access point drops frames of MACs other than its own; the kernel "
            "refuses to bridge it: set mode: route, a subnet that is a free part of its network, and proxy_arp: "
            "true in uplink"
        )
    elif wanted.mode == "macvtap":
        yield from _macvtap(nic)
    elif not stands(facts, wanted):
        yield from _taken(facts, wanted)
        if not wanted.vlan:
            yield from _bridge(facts, nic, wanted.bridge)
            yield from _firewalled(facts, nic.ifname, wanted.bridge)


def no_bridge(facts: Facts, name: str) -> str:
    """Return why a network can't join the bridge ``name`` of the host, and what to do; empty where it can."""
    there = facts.links.get(name)
    if there is None:
        known = [
            each.ifname for each in facts.links.values() if each.linkinfo.info_kind == "bridge"
        ]
        return (
            f"there is no bridge {name}{f', but {listed(known)}' if known else ' and no other'}: make it, or "
            "have it made on a NIC (uplink: {nic: NIC} instead of bridge)"
        )
    if (kind := there.linkinfo.info_kind) != "bridge":
        return (
            f"{name} is no bridge of the kernel's ({kind or 'a NIC'}): name one, or have one made on it "
            f"(uplink: {{nic: {name}}} instead of bridge)"
        )
    return "" if there.up else f"bridge {name} is switched off: `ip link set {name} up`"


def stands(facts: Facts, wanted: Wanted) -> bool:
    """Whether the bridge is there, and was made here.

    NetworkManager makes one again by itself that somebody removed, without our mark: the record tells.
    """
    bridge = facts.links.get(wanted.bridge)
    if bridge is None:
        return False
    return bridge.alias.startswith(MARK) or facts.records.get(wanted.bridge) == "confirmed"


def _called(facts: Facts, link: Link) -> str:
    return f"{link.ifname} (wireless)" if link.ifname in facts.wireless else link.ifname


def _taken(facts: Facts, wanted: Wanted) -> Iterator[str]:
    names = [wanted.bridge, *([wanted.port] if wanted.vlan else [])]
    for name in names:
        there = facts.links.get(name)
        if there is not None and not there.alias.startswith(MARK):
            way = f"; or say mode: bridge, uplink.nic: {name}" if name == wanted.port else ""
            yield f"there is a device {name} already, which nestlab did not make: rename it{way}"
    for link in facts.links.values() if wanted.vlan else ():
        # A NIC has each VLAN once, whatever it is called.
        same = link.linkinfo.info_kind == "vlan" and link.linkinfo.info_data.vlan == wanted.vlan
        if same and link.lower == wanted.nic and link.ifname != wanted.port:
            yield (
                f"VLAN {wanted.vlan} of {wanted.nic} is there already, as {link.ifname}: say uplink.nic: {link.ifname}, "
                "without vlan"
            )


def _macvtap(nic: Link) -> Iterator[str]:
    if nic.master:
        yield (
            f"{nic.ifname} is a port of {nic.master}, which takes its frames before macvtap can: "
            f"set mode: bridge and bridge: {nic.master}"
        )


def _bridge(facts: Facts, nic: Link, bridge: str) -> Iterator[str]:
    name = nic.ifname
    if nic.linkinfo.info_kind == "bridge":
        yield f"{name} is a bridge: set mode: bridge and bridge: {name}, without uplink"
        return
    if nic.master:
        kind = facts.links[nic.master].linkinfo.info_kind if nic.master in facts.links else ""
        such = f"set bridge: {nic.master}, without uplink" if kind == "bridge" else "take another"
        yield f"{name} is a port of {nic.master} already: {such}"
        return
    yield from _upper(facts, name)
    if name in facts.answering:
        yield (
            f"a routed network of nestlab's is on {name} (proxy_arp), which would have no address for it any more: "
            "take that lab down first, or have these machines on such a network too"
        )
    if manager := facts.managers.get(name):
        leased = name in facts.leased or any(_renewed(each) for each in nic.addresses)
        if manager != "ifupdown" or leased:
            yield from _managed(facts, nic, bridge, manager)
            return
    yield from _unmovable(facts, nic)


def _managed(facts: Facts, nic: Link, bridge: str, manager: Manager) -> Iterator[str]:
    how = COMMANDS[manager].format(nic=nic.ifname, mac=nic.address)
    if not managed.knows(facts, nic.ifname):
        yield f"{manager} manages {nic.ifname} and would set its addresses again: {how}; {THEN}"
        return
    file = facts.setup[nic.ifname].file or "no file"
    if managed.ours(file, bridge) and facts.records.get(bridge) == "confirmed":
        # Somebody took the bridge away, and its manager still waits for it.
        return
    for why in managed.problems(facts, nic):
        yield f"{manager} manages {nic.ifname}, and its {file} {why}; or make a bridge yourself: {how}; {THEN}"
    yield from _ruled(facts, nic.ifname)


def _upper(facts: Facts, nic: str) -> Iterator[str]:
    above = [link for link in facts.links.values() if link.on(nic)]
    taking = [link.ifname for link in above if link.linkinfo.info_kind in UPPER]
    if taking:
        yield (
            f"{listed(taking)} on {nic} takes its frames before a bridge can (macvtap): "
            "take those machines down, or set mode: macvtap"
        )
    for link in above:
        if (kind := link.linkinfo.info_kind) not in UPPER | BESIDE:
            yield (
                f"{link.ifname} ({kind or 'a NIC'}) sends by {nic} itself, which would have no address any more: "
                f"make a bridge br0 yourself; {THEN}"
            )


def _renewed(address: Address) -> bool:
    """Whether a DHCP client gave it, for a time; the kernel renews what routers advertise by itself."""
    return not (address.lasts or address.mngtmpaddr or address.temporary)


def _firewalled(facts: Facts, nic: str, bridge: str) -> Iterator[str]:
    for rule in facts.firewall:
        names = {name for found in NAMED.findall(rule) for name in re.findall(r'[^\s"{},]+', found)}
        if any(_matches(each, nic) and not _matches(each, bridge) for each in names):
            yield (
                f"a rule of the firewall is about {nic} (`{rule}`), and would not be about a bridge, which would have "
                f"its addresses: make a bridge br0 yourself, with rules that name it; {THEN}"
            )
            return


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern[-1] in "+*" else name == pattern


def _unmovable(facts: Facts, nic: Link) -> Iterator[str]:
    name = nic.ifname
    for each in nic.addresses:
        if _renewed(each):
            yield (
                f"{each.local} of {name} ends in {each.valid_life_time} s, and who renews it (a DHCP client) knows "
                f"{name} only: give {name} a fixed address, or make a bridge br0 that has the client; {THEN}"
            )
    for route in movable(facts, name):
        unknown = {*(route.model_extra or {}), *(set(route.metrics) - METRICS)}
        if route.nexthops or unknown:
            odd = ", ".join(sorted(unknown)) or "several ways"
            yield (
                f"the route {said(route)} through {name} has what nestlab does not know to move ({odd}): "
                f"make a bridge br0 yourself; {THEN}"
            )
        # `ip route replace` takes the first of its kind, whichever way it leads.
        other = [each.dev for each in facts.routes if each.dev != name and _alike(each, route)]
        if other:
            yield (
                f"the route {said(route)} is there through {listed(other)} too, and moving one would take the other "
                f"away: give one of them another metric; or make a bridge br0 yourself; {THEN}"
            )
    yield from _ruled(facts, name)


def _ruled(facts: Facts, name: str) -> Iterator[str]:
    for rule in facts.rules:
        if name in {rule.iif, rule.oif}:
            yield (
                f"rule {rule.priority} (`ip rule`) is about {name}, and would not be about a bridge: "
                f"make a bridge br0 yourself; {THEN}"
            )


def _alike(one: Route, other: Route) -> bool:
    def key(route: Route) -> tuple[object, ...]:
        return (
            route.six,
            route.dst,
            route.table,
            route.metric,
            (route.model_extra or {}).get("tos"),
        )

    return key(one) == key(other)


def _proxy(facts: Facts, nic: Link, wanted: Wanted) -> Iterator[str]:
    subnet = IPv4Network(wanted.subnet)
    own = [
        IPv4Interface(f"{each.local}/{each.prefixlen}")
        for each in nic.addresses
        if each.family == "inet"
    ]
    around = [each.network for each in own]
    if not any(subnet.subnet_of(each) and subnet != each for each in around):
        shown = listed(map(str, around), none="no IPv4 network")
        yield (
            f"{subnet} is no part of the network of {nic.ifname}, which has {shown}: take a part of it "
            "that is free there, outside of what its DHCP server gives"
        )
        return
    used = {str(each.ip): f"{nic.ifname} itself" for each in own} | {
        route.gateway: "the gateway" for route in facts.routes if route.dev == nic.ifname
    }
    for address, who in used.items():
        if address and not _six(address) and IPv4Address(address) in subnet:
            yield f"{address} is {who}, and lies in {subnet}, which is to be the lab's: take another part"


def _six(address: str) -> bool:
    return ":" in address


def warnings(facts: Facts, wanted: Wanted) -> Iterator[str]:
    """Yield what may keep guests from being reached, each with what to do."""
    if wanted.mode == "proxy_arp":
        yield from _elsewhere(facts, wanted)
    if not facts.drops or wanted.mode == "macvtap":
        return
    if wanted.mode == "proxy_arp":
        yield (
            f"iptables drops what is forwarded (Docker does so). Where guests behind {wanted.nic} are not reached: "
            f"`iptables -I FORWARD -i {wanted.nic} -d {wanted.subnet} -j ACCEPT`"
        )
    elif facts.bridged_calls:
        yield (
            f"what bridges carry goes through iptables (br_netfilter), which drops what is forwarded (Docker does "
            f"so): guests on {wanted.bridge} will not be reached. Do: `sysctl net.bridge.bridge-nf-call-iptables=0`, "
            f"or `iptables -I FORWARD -i {wanted.bridge} -o {wanted.bridge} -j ACCEPT`"
        )


def _elsewhere(facts: Facts, wanted: Wanted) -> Iterator[str]:
    ways = [
        each
        for each in facts.routes
        if each.dst == "default"
        and each.table == "main"
        and not each.six
        and each.type == "unicast"
    ]
    first = min(ways, key=lambda each: each.metric, default=None)
    if first and not first.uses(wanted.nic):
        out = first.dev or "several NICs"
        yield (
            f"this host reaches the Internet by {out}, so guests behind {wanted.nic} send there too, and what comes "
            f"back may find no way to {wanted.subnet}: they reach the network of {wanted.nic} alone, unless {out} is on it "
            f"too. Give the default route by {wanted.nic} the smaller metric (`ip route`), or unplug {out}"
        )


def drift(
    facts: Facts, wanted: Wanted, user: str, addresses: Sequence[str], routes: Sequence[str]
) -> str:
    """Return what is not as it was made, empty where all is.

    ``addresses`` and ``routes`` are those that were moved to the bridge, as `Steps` has them.
    """
    nic = facts.links.get(wanted.nic)
    if nic is None:
        return f"NIC {wanted.nic} is not there any more"
    if wanted.mode == "macvtap":
        return "" if nic.up else f"NIC {wanted.nic} is switched off"
    if wanted.mode == "proxy_arp":
        return _proxy_drift(facts, wanted)
    return _bridge_drift(facts, wanted, user) or _moved_drift(facts, wanted, nic, addresses, routes)


def _bridge_drift(facts: Facts, wanted: Wanted, user: str) -> str:
    port, bridge = facts.links.get(wanted.port), facts.links.get(wanted.bridge)
    if bridge is None or not bridge.up:
        return f"bridge {wanted.bridge} is {'switched off' if bridge else 'not there any more'}"
    if port is None or port.master != wanted.bridge:
        return f"{wanted.port} is no port of {wanted.bridge} any more"
    if facts.records.get(wanted.bridge) != "confirmed":
        return f"the host has no record of what was before {wanted.bridge}"
    known = user in facts.users.get(wanted.bridge, ())
    return "" if known else f"the lab is not noted as a user of {wanted.bridge}"


def _moved_drift(
    facts: Facts, wanted: Wanted, nic: Link, addresses: Sequence[str], routes: Sequence[str]
) -> str:
    has, left = _of(facts.links[wanted.bridge]), _of(nic)
    wrong = [each for each in addresses if each not in has or each in left]
    if facts.managers.get(wanted.nic) and not wanted.vlan:
        # A manager that was told of the NIC again gives it what the bridge has.
        wrong += [f"{each.local}/{each.prefixlen}" for each in nic.addresses if _renewed(each)]
    if wrong:
        return f"{wrong[0]} is not on {wanted.bridge} alone any more"
    there = {said(each) for each in movable(facts, wanted.bridge)}
    gone = [route for route in routes if route not in there]
    return f"the route {gone[0]} is not on {wanted.bridge} any more" if gone else ""


def added(
    facts: Facts, wanted: Wanted, addresses: Sequence[str], routes: Sequence[str]
) -> list[str]:
    """Return what somebody set on the bridge since it was made, which would go with it.

    ``addresses`` and ``routes`` are those that were moved to it. What a client or the kernel sets comes back by itself.
    """
    bridge = facts.links.get(wanted.bridge)
    if bridge is None:
        return []
    own = [
        f"{each.local}/{each.prefixlen}"
        for each in bridge.addresses
        if each.lasts and not by_kernel(facts, bridge, each)
        if not (each.scope == "link" and facts.managers.get(wanted.nic))
    ]
    led = [said(each) for each in movable(facts, wanted.bridge) if each.protocol in SET]
    return [
        *(each for each in own if each not in addresses),
        *(f"route {each}" for each in led if each not in routes),
    ]


def _of(link: Link) -> set[str]:
    return {f"{each.local}/{each.prefixlen}" for each in link.addresses}


def _proxy_drift(facts: Facts, wanted: Wanted) -> str:
    missing = [each for each in wanted.addresses if (each, wanted.nic) not in facts.proxies]
    if missing:
        return f"{wanted.nic} does not answer ARP for {listed(missing)} any more"
    if facts.sysctl.get(f"net/ipv4/conf/{wanted.nic}/forwarding") == "0":
        return f"{wanted.nic} forwards nothing any more"
    return ""
