"""A bridge on a NIC that somebody manages: that manager makes it a port and gives the bridge what the NIC had.

It is told by files in its folder in /run, which are gone after a reboot as the bridge is; what its owner wrote
is read and never changed. So the manager renews leases, sets DNS, and may be started again meanwhile. The bridge has
the NIC's MAC, and networkd's client the NIC's number (IAID), so that the DHCP server gives the same address. What stands in
the manager's file and would not be the same on a bridge is refused by name.

Sources: systemd.network(5), systemd.netdev(5), networkctl(1) (reload reconfigures what has another file now);
nm-settings-keyfile(5), NetworkManager's own order of folders in NetworkManager.conf(5), nmcli(1).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID

from components.kinds.libvirt.uplink.setups import CARRIED, OURS, PROFILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from components.kinds.libvirt.uplink.host import Facts, Link, Manager
    from components.kinds.libvirt.uplink.setups import Setup

    Words = tuple[str, ...]

NETWORKD = "/run/systemd/network"
KEYFILES = "/run/NetworkManager/system-connections"
ADDRESS = re.compile(r"[0-9.]{7,}")
WITHIN_S = 15
"""How long a manager has for an address, seconds: a lease takes some, and less than a trial's shortest time."""
STACKED = frozenset(
    ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vxlan", "tunnel", "xfrm", "bridge", "bond", "vrf",
     "batmanadvanced", "ipoib", "macsec", "dhcpserver", "dhcpprefixdelegation", "ipmasquerade", "ipforward")
)  # fmt: skip
"""Keys of [Network] that put something on the NIC or have it serve others."""
CONNECTION = frozenset(
    ("id", "uuid", "type", "interface-name", "timestamp", "autoconnect", "autoconnect-priority", "zone",
     "permissions", "autoconnect-retries", "mdns", "llmnr", "dns-over-tls", "metered", "lldp")
)  # fmt: skip
KEPT = ("zone", "mdns", "llmnr", "dns-over-tls", "metered")
"""Of [connection], what is about the addresses."""
ETHERNET = frozenset({"mac-address", "mtu", "cloned-mac-address", "mac-address-blacklist"})
FIRST = 999
"""Highest autoconnect-priority that NetworkManager takes."""


def knows(facts: Facts, nic: str) -> bool:
    """Whether the manager of ``nic`` can be told of a bridge."""
    manager = facts.managers.get(nic, "")
    setup = facts.setup.get(nic)
    return manager in {"systemd-networkd", "NetworkManager"} and setup is not None


def ours(file: str, bridge: str) -> bool:
    """Whether it is one of the files that made ``bridge``."""
    return file.startswith((f"{NETWORKD}/00-{bridge}", f"{KEYFILES}/{bridge}"))


def problems(facts: Facts, nic: Link) -> Iterator[str]:
    """Yield what keeps the manager from making the bridge as the NIC was, in words that go on "its FILE ..."."""
    manager, setup = facts.managers[nic.ifname], facts.setup[nic.ifname]
    if not setup.parts:
        yield "can't be read"
        return
    odd = list(_odd(manager, setup))
    if odd:
        yield f"has what is about that NIC ({', '.join(odd)})"
    written = {word for _, rows in setup.parts for row in rows for word in ADDRESS.findall(row)}
    for each in nic.addresses:
        if each.lasts and each.family == "inet" and each.local not in written:
            yield f"does not have {each.local}, which somebody set on {nic.ifname}: add it there or take it off"
    by_hand = [
        each.dst
        for each in facts.routes
        if each.uses(nic.ifname) and each.protocol == "boot" and each.table != "local"
    ]
    if by_hand:
        yield f"does not have the route {by_hand[0]}, which somebody set: add it there or take it off"


def _odd(manager: Manager, setup: Setup) -> Iterator[str]:
    names = {each.lower() for each in setup.names()}
    if manager == "systemd-networkd":
        yield from (f"[{each}]" for each in setup.names() if each.lower() not in OURS | CARRIED)
        yield from (key for key, _ in setup.lines("network") if key.lower() in STACKED)
        yield from setup.beside
        return
    yield from sorted(f"[{each}]" for each in names - PROFILE)
    yield from (key for key, _ in setup.lines("connection") if key not in CONNECTION)
    yield from (key for key, _ in setup.lines("ethernet") if key not in ETHERNET)
    yield from (
        f"{family}.method={value}"
        for family in ("ipv4", "ipv6")
        for key, value in setup.lines(family)
        if key == "method" and value == "shared"
    )


def steps(
    facts: Facts, nic: Link, bridge: str, mark: str, made: tuple[Words, Words]
) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
    """Return what has the manager make ``bridge`` on ``nic``, and what has it take that back.

    ``made`` is what makes a bare bridge, and what marks it as ours.
    """
    if facts.managers[nic.ifname] == "systemd-networkd":
        return _networkd(facts, nic, bridge, made)
    return _network_manager(facts, nic, bridge, mark)


def _has(nic: Link, device: str) -> list[Words]:
    return [
        ("has", f"{each.local}/{each.prefixlen}", device, str(WITHIN_S))
        for each in nic.addresses
        if each.family == "inet" and each.scope == "global"
    ]


def _networkd(
    facts: Facts, nic: Link, bridge: str, made: tuple[Words, Words]
) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
    setup, (bare, marked) = facts.setup[nic.ifname], made
    # Before all others by name, as the first that matches counts.
    device, own, port = (
        f"{NETWORKD}/00-{bridge}{each}" for each in (".netdev", ".network", "-port.network")
    )
    carried = [
        line
        for name, rows in setup.parts
        if name.lower() in CARRIED
        for line in (f"[{name}]", *rows)
    ]
    stays = [
        line for name, rows in setup.parts if name.lower() == "link" for line in ("[Link]", *rows)
    ]
    kind = ("[NetDev]", f"Name={bridge}", "Kind=bridge", f"MACAddress={nic.address}")
    plugged = ("[Network]", f"Bridge={bridge}", "LinkLocalAddressing=no", "IPv6AcceptRA=no")
    files = (
        (device, (*kind, "[Bridge]", "STP=no", "ForwardDelaySec=0")),
        (own, ("[Match]", f"Name={bridge}", *carried, *_iaid(setup))),
        (port, ("[Match]", f"Name={nic.ifname}", *stays, *plugged)),
    )
    return (
        (
            bare,
            *(("write", "644", path, *lines) for path, lines in files),
            ("reload",),
            # After it: networkd takes a bridge that is there for the one of its file once something of it changes.
            marked,
            ("plugged", nic.ifname, bridge, str(WITHIN_S)),
            *_has(nic, bridge),
        ),
        (
            # Not before it has read that these are gone: a port without its bridge is one that failed, and is
            # let alone from then on.
            ("rm", "-f", device, own, port),
            ("reload",),
            ("ip", "link", "set", "dev", nic.ifname, "nomaster"),
            ("ip", "link", "del", "dev", bridge),
            ("networkctl", "reconfigure", nic.ifname),
            *_has(nic, nic.ifname),
        ),
    )


def _iaid(setup: Setup) -> tuple[str, ...]:
    """Return the lines by which a bridge is the same client: networkd makes the number of the device's name else."""
    # RFC 4361, 6.1: type 255, four octets of IAID, then the DUID.
    if not setup.client.startswith("ff"):
        return ()
    if any(key.lower() == "iaid" for key, _ in setup.lines("dhcp", "dhcpv4")):
        return ()
    number = int(setup.client[2:10], 16)
    return ("[DHCPv4]", f"IAID={number}", "[DHCPv6]", f"IAID={number}")


def _network_manager(
    facts: Facts, nic: Link, bridge: str, mark: str
) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
    setup = facts.setup[nic.ifname]
    known = dict(setup.lines("connection"))
    own, port = (_uuid(f"{bridge} {nic.ifname} {role}") for role in ("bridge", "port"))
    files = {
        own: f"{KEYFILES}/{bridge}.nmconnection",
        port: f"{KEYFILES}/{bridge}-port.nmconnection",
    }
    mtu = dict(setup.lines("ethernet")).get("mtu")
    sized = (f"mtu={mtu}",) if mtu else ()
    carried = [
        line
        for name, rows in setup.parts
        if name in {"ipv4", "ipv6", "proxy"}
        for line in (f"[{name}]", *rows, *_metric(facts, nic.ifname, name, rows))
    ]
    whole = (
        *("[connection]", f"id={bridge}", f"uuid={own}", "type=bridge", f"interface-name={bridge}"),
        *(f"{key}={known[key]}" for key in KEPT if key in known),
        *("[ethernet]", f"cloned-mac-address={nic.address}", *sized),
        *("[bridge]", "stp=false", "forward-delay=0", *carried),
    )
    plugged = (
        *("[connection]", f"id={bridge}-port", f"uuid={port}", "type=ethernet"),
        *(f"interface-name={nic.ifname}", f"master={bridge}", "slave-type=bridge"),
        *(f"autoconnect-priority={FIRST}", "[ethernet]", *sized),
    )
    up = ("nmcli", "-w", str(WITHIN_S), "connection", "up", "uuid")
    return (
        (
            ("write", "600", files[own], *whole),
            ("write", "600", files[port], *plugged),
            ("nmcli", "connection", "load", files[own], files[port]),
            # It makes the bridge itself: one that is there already it would leave alone.
            (*up, port),
            ("ip", "link", "set", "dev", bridge, "alias", mark),
            *_has(nic, bridge),
        ),
        (
            ("nmcli", "connection", "delete", port, own),
            ("rm", "-f", *files.values()),
            ("nmcli", "connection", "reload"),
            (*up, setup.profile, "ifname", nic.ifname),
            ("ip", "link", "del", "dev", bridge),
            *_has(nic, nic.ifname),
        ),
    )


def _metric(facts: Facts, nic: str, family: str, rows: Sequence[str]) -> tuple[str, ...]:
    """Return the metric that the NIC's routes have, as a bridge's are worse by themselves."""
    if family not in {"ipv4", "ipv6"} or any(row.startswith("route-metric=") for row in rows):
        return ()
    metrics = [
        each.metric
        for each in facts.routes
        if each.uses(nic)
        and each.dst == "default"
        and each.six is (family == "ipv6")
        and each.metric
    ]
    return (f"route-metric={min(metrics)}",) if metrics else ()


def _uuid(text: str) -> str:
    return str(UUID(bytes=sha256(text.encode()).digest()[:16], version=4))
