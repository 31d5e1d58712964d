"""Networks of Xen: a bridge that systemd-networkd makes from two files, with a dnsmasq of its own; or one that is there.

The files' first line names the owner: they are the definition and the mark at once, and are read back
as they were written (systemd.network(5)).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.xen.xl import (
    DEVICE,
    DOMAIN,
    MAC,
    NAME,
    Rule,
    cat,
    exists,
    linked,
    mark,
    must,
    policy,
    put,
    unfit,
)
from components.reach.driver import Driver, DriverError, strange
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen, wait_for

if TYPE_CHECKING:
    from components.reach.shell import Shell

NETWORKD = "/etc/systemd/network"
DNSMASQ = "/etc/dnsmasq.d"
LEASES = "/var/lib/misc"
NICS = "/sys/class/net"
SETTLE_S = 60.0
"""How long systemd-networkd may take to set a bridge after it was told to, seconds."""


def files(wanted: NetworkOrder) -> dict[str, str]:
    """Return the files that a network is, by path; the first comes first and goes last."""
    device, nat = wanted.bridge, wanted.mode == "nat"
    netdev = f"[NetDev]\nName={device}\nKind=bridge\n"
    lines = [
        f"[Match]\nName={device}\n\n[Network]",
        f"Address={wanted.gateway}/{wanted.prefix}",
        "ConfigureWithoutCarrier=yes\nLinkLocalAddressing=no\nIPv6AcceptRA=no",
    ]
    if nat:
        lines.append("IPMasquerade=ipv4")
    else:
        # dom0 routes for the others. What comes from here, or from elsewhere to here, it does not.
        asked = (
            (f"IncomingInterface={device}", "Type=prohibit"),
            (f"IncomingInterface=lo\nTo={wanted.subnet}", "Table=main"),
            (f"To={wanted.subnet}", "Type=prohibit"),
        )
        for number, (which, what) in enumerate(asked, 100):
            lines.append(f"\n[RoutingPolicyRule]\nPriority={number}\n{which}\n{what}")
    found = {
        f"{NETWORKD}/20-{device}.netdev": netdev,
        f"{NETWORKD}/20-{device}.network": "\n".join(lines) + "\n",
    }
    if wanted.dhcp:
        found[f"{DNSMASQ}/{device}.conf"] = _dnsmasq(wanted)
    return {path: mark(wanted) + text for path, text in found.items()}


def rules(wanted: NetworkOrder) -> list[Rule]:
    """Return the routing policy rules of an isolated network, those of its file."""
    device, subnet = wanted.bridge, wanted.subnet
    return [
        Rule("", device, "prohibit"),
        Rule(subnet, "lo", "lookup main"),
        Rule(subnet, "", "prohibit"),
    ]


def _dnsmasq(wanted: NetworkOrder) -> str:
    device, subnet = wanted.bridge, IPv4Network(wanted.subnet)
    lines = [
        f"interface={device}\nbind-dynamic\nexcept-interface=lo",
        f"dhcp-leasefile={LEASES}/{device}.leases\ndhcp-authoritative",
        f"dhcp-range={wanted.dhcp_start},{wanted.dhcp_end},{subnet.netmask}",
    ]
    if wanted.mode != "nat":
        # Without a value the option is not sent: there is no way out, and no names of others.
        lines.append("dhcp-option=option:router\nno-resolv")
    if wanted.domain:
        lines.append(f"domain={wanted.domain}")
    lines += [f"dhcp-host={one.mac},{one.address},{one.name}" for one in wanted.reservations]
    return "\n".join(lines) + "\n"


def _joins(shell: Shell, wanted: NetworkOrder) -> bool:
    """Whether the bridge that a network of mode bridge is, is there."""
    return exists(shell, f"{NICS}/{wanted.bridge}/bridge")


class NetworkDriver(Driver[NetworkOrder]):
    """Bridges of dom0, with addresses by dnsmasq; see `Driver`."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "bridge", "owner")

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        if wanted.mode not in {"nat", "isolated", "bridge"}:
            return (
                f"nestlab's Xen hosts have no networks of mode {wanted.mode}: nat, isolated, bridge"
            )
        wrong = (
            strange(wanted.owner)
            or unfit(DEVICE, wanted.bridge, "bridge")
            or unfit(DOMAIN, wanted.domain, "domain")
        )
        if wanted.mode == "bridge":
            return wrong
        for one in wanted.reservations:
            wrong = wrong or unfit(NAME, one.name, "machine")
            wrong = wrong or unfit(MAC, one.mac, "MAC address")
        try:
            IPv4Network(wanted.subnet)
            planned = [one.address for one in wanted.reservations]
            ends = [wanted.dhcp_start, wanted.dhcp_end] if wanted.dhcp else []
            for address in (wanted.gateway, *planned, *ends):
                IPv4Address(address)
        except ValueError as no_address:
            return wrong or f"network {wanted.name!r}: {no_address}"
        return wrong

    @override
    def called(self, wanted: NetworkOrder) -> str:
        """Return its bridge, by which guests are plugged into it."""
        return wanted.bridge

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        name = wanted.name
        if wanted.mode == "bridge":
            there = _joins(shell, wanted)
            lost = f"is down: its host has no bridge {wanted.bridge}"
            return Seen(ok=there, text=f"network {name} {'is there' if there else lost}")
        wrong = self._written(shell, wanted) or self._down(shell, wanted)
        return Seen(ok=not wrong, text=f"network {name} {wrong or 'is there'}")

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        device = wanted.bridge
        if wanted.mode == "bridge":
            if not _joins(shell, wanted):
                raise DriverError(
                    f"network {wanted.name} is the bridge {device} of {shell.name}, which is not there: make "
                    "it, or name another one in the stack"
                )
            return
        stale = []
        for path, text in files(wanted).items():
            has = cat(shell, path)
            if has and not has.startswith(mark(wanted)):
                raise self._foreign(shell, wanted)
            if has != text:
                stale.append(path)
        first = next(iter(files(wanted)))
        if first in stale and linked(shell, device):
            # A bridge of ours has had its file for as long as it is there, unless that was deleted.
            marks = [cat(shell, path).startswith(mark(wanted)) for path in files(wanted)]
            if not any(marks):
                raise self._foreign(shell, wanted)
        for path in stale:
            put(shell, path, files(wanted)[path])
        # Makes what is missing, and sets anew what has a changed file.
        must(shell, "networkctl", "reload")
        if self._unset(shell, wanted):
            # Another network's reload in the middle of it leaves a bridge half set.
            must(shell, "networkctl", "reconfigure", device)
            wait_for(
                f"network {wanted.name}", lambda: self._set(shell, wanted), deadline_s=SETTLE_S
            )
        self._serve(shell, wanted, anew=f"{DNSMASQ}/{device}.conf" in stale)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        device = wanted.bridge
        if wanted.mode == "bridge":
            return  # it was there before
        paths = list(files(replace(wanted, dhcp=True, dhcp_start="", dhcp_end="")))
        ours = [path for path in paths if cat(shell, path).startswith(mark(wanted))]
        if not ours:
            return
        if paths[2] in ours:
            self._unserve(shell, device)
        # What makes the bridge goes first: another network's reload would bring it back.
        must(shell, "rm", "-f", paths[0])
        if linked(shell, device):
            must(shell, "ip", "link", "delete", "dev", device)
        must(shell, "rm", "-f", *(path for path in paths[1:] if path in ours))
        must(shell, "networkctl", "reload")

    def _written(self, shell: Shell, wanted: NetworkOrder) -> str:
        """Say what is wrong with its files, empty for nothing."""
        there = {path: cat(shell, path) for path in files(wanted)}
        if not any(there.values()):
            return "is not there any more"
        wrong = [path for path, text in files(wanted).items() if there[path] != text]
        return f"is not set up as the stack says: {wrong[0]}" if wrong else ""

    def _down(self, shell: Shell, wanted: NetworkOrder) -> str:
        """Say what of it does not run, empty for nothing."""
        device = wanted.bridge
        if unset := self._unset(shell, wanted):
            return unset
        if self._unit(shell, "is-active", device) is not wanted.dhcp:
            return f"has {'no ' if wanted.dhcp else ''}dnsmasq@{device} running"
        if self._unit(shell, "is-enabled", device) is not wanted.dhcp:
            return f"has dnsmasq@{device}, {'not ' if wanted.dhcp else ''}started with its host"
        return ""

    def _unset(self, shell: Shell, wanted: NetworkOrder) -> str:
        """Say what systemd-networkd has not set of it, empty for nothing."""
        device, address = wanted.bridge, f"{wanted.gateway}/{wanted.prefix}"
        shown = shell.run(["ip", "-o", "-4", "addr", "show", "dev", device])
        if not shown.ok:
            return f"is down: its bridge {device} is gone"
        if address not in shown.out.split():
            return f"is down: its host does not have {address} there"
        if wanted.mode == "nat":
            return ""
        there = policy(shell)
        if lacking := [rule for rule in rules(wanted) if rule not in there]:
            return f"is routed: its host has no rule `{lacking[0]}`"
        return ""

    def _set(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        unset = self._unset(shell, wanted)
        return Seen(ok=not unset, text=unset or "is set")

    def _unit(self, shell: Shell, what: str, device: str) -> bool:
        asked = shell.run(["systemctl", what, f"dnsmasq@{device}"])
        return asked.out.strip() == what.removeprefix("is-")

    def _serve(self, shell: Shell, wanted: NetworkOrder, *, anew: bool) -> None:
        device = wanted.bridge
        if wanted.dhcp:
            must(shell, "systemctl", "enable", f"dnsmasq@{device}")
            # It reads its settings when it starts; what it has leased it finds in its file.
            must(shell, "systemctl", "restart" if anew else "start", f"dnsmasq@{device}")
        elif cat(shell, f"{DNSMASQ}/{device}.conf").startswith(mark(wanted)):
            self._unserve(shell, device)

    def _unserve(self, shell: Shell, device: str) -> None:
        must(shell, "systemctl", "disable", "--now", f"dnsmasq@{device}")
        must(shell, "rm", "-f", f"{DNSMASQ}/{device}.conf", f"{LEASES}/{device}.leases")

    def _foreign(self, shell: Shell, wanted: NetworkOrder) -> DriverError:
        device = wanted.bridge
        return DriverError(
            f"the bridge {device} on {shell.name} is not this lab's and is left alone: rename network "
            f"{wanted.name} in the stack, or remove {NETWORKD}/20-{device}.* there and the bridge"
        )


DRIVER = NetworkDriver()
