"""Networks of VirtualBox: NAT networks, host-only interfaces, and devices to bridge to.

A network has no description: whose it is says VirtualBox' extra data under the owner.
"""

from __future__ import annotations

import re
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.virtualbox import vboxmanage
from components.kinds.virtualbox.vboxmanage import DOMAIN, RANGES, Dhcp, Interface
from components.reach.driver import DOMAIN as DOMAIN_NAME
from components.reach.driver import Driver, DriverError, strange
from components.reach.orders import NetworkOrder
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.shell import Shell

DEFAULT_RANGE = "* 192.168.56.0/21\n"

_creating = threading.Lock()
"""Only one host-only interface at a time: VirtualBox chooses its name."""


def dhcp_wanted(wanted: NetworkOrder) -> Dhcp | None:
    """Return the DHCP server that hands out the planned addresses; None for none.

    It has an address of its own, beside the host's: the subnet's last one that is not planned.
    """
    if not wanted.dhcp:
        return None
    fixed = {one.mac.lower(): one.address for one in wanted.reservations}
    subnet = IPv4Network(wanted.subnet)
    own = IPv4Address(wanted.dhcp_end)
    while str(own) in {*fixed.values(), wanted.gateway}:
        own -= 1
    if own <= IPv4Address(wanted.dhcp_start):
        raise DriverError(
            f"network {wanted.name}: no address of {subnet} is left for VirtualBox' DHCP server, "
            "which needs one of its own: take a larger subnet"
        )
    # Router, name server and domain of all are VirtualBox' own on a NAT network: it sets them whenever
    # the network starts (NATNetworkImpl.cpp, i_updateDnsOptions). What one machine is told it leaves.
    domain = wanted.domain
    domains = dict.fromkeys(fixed, domain) if domain else {}
    return Dhcp(str(own), wanted.dhcp_start, str(own - 1), str(subnet.netmask), domains, fixed)


class NetworkDriver(Driver[NetworkOrder]):
    """NAT networks, host-only interfaces and devices to bridge to."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "mode", "bridge", "owner")

    @override
    def problem(self, wanted: NetworkOrder) -> str:
        name = wanted.name
        if wrong := vboxmanage.unfit(name, f"network {name!r}") or strange(wanted.owner):
            return wrong
        if '"' in name or "\\" in name or name != name.strip():
            return f"network {name!r} holds a quote, a backslash or an outer blank: rename it"
        if wanted.mode not in {"nat", "isolated", "bridge"}:
            return f"VirtualBox has no networks of mode {wanted.mode}: nat, isolated, bridge"
        if wanted.domain and not DOMAIN_NAME.fullmatch(wanted.domain):
            return f"network {name!r}: {wanted.domain!r} is no DNS domain"
        try:
            dhcp_wanted(wanted)
        except (DriverError, ValueError) as wrong_plan:
            return str(wrong_plan)
        return ""

    @override
    def called(self, wanted: NetworkOrder) -> str:
        """Return how a guest is told of it: what it is plugged into, and which of those."""
        if wanted.mode == "bridge":
            return f"bridged {wanted.bridge}"
        if wanted.mode == "nat":
            return f"natnetwork {wanted.name}"
        return f"hostonly {wanted.owner}"

    @override
    def look(self, shell: Shell, wanted: NetworkOrder) -> Seen:
        name, mode = wanted.name, wanted.mode
        if mode == "bridge":
            missing = self._missing(shell, wanted.bridge)
            return Seen(ok=not missing, text=missing or f"network {name} is its host's own")
        mark = vboxmanage.remembered(shell, wanted.owner)
        other = self._wrong(shell, wanted, mark)
        if other is None or not mark:
            return Seen(ok=False, text=f"network {name} is not there any more")
        server = vboxmanage.dhcp_server(shell, self._of(wanted, mark))
        other = other or self._dhcp_wrong(dhcp_wanted(wanted), server)
        if other:
            return Seen(ok=False, text=f"network {name} is not set up as the stack says: {other}")
        return Seen(ok=True, text=f"network {name} is there")

    @override
    def ensure(self, shell: Shell, wanted: NetworkOrder) -> None:
        if wanted.mode == "bridge":
            if missing := self._missing(shell, wanted.bridge):
                raise DriverError(f"network {wanted.name} on {shell.name}: {missing}")
        elif wanted.mode == "nat":
            self._make_nat(shell, wanted)
        else:
            self._make_interface(shell, wanted)

    @override
    def remove(self, shell: Shell, wanted: NetworkOrder) -> None:
        mark = "" if wanted.mode == "bridge" else vboxmanage.remembered(shell, wanted.owner)
        if not mark:
            return
        network = self._of(wanted, mark)
        if vboxmanage.dhcp_server(shell, network):
            vboxmanage.must(shell, "dhcpserver", "remove", f"--network={network}")
        if wanted.mode == "nat":
            if vboxmanage.nat_network(shell, wanted.name):
                vboxmanage.must(shell, "natnetwork", "remove", "--netname", wanted.name)
        elif mark in vboxmanage.interfaces(shell):
            vboxmanage.must(shell, "hostonlyif", "remove", mark)
        vboxmanage.remember(shell, wanted.owner)

    def _of(self, wanted: NetworkOrder, mark: str) -> str:
        """Return what VirtualBox' DHCP servers call the network."""
        return wanted.name if wanted.mode == "nat" else f"HostInterfaceNetworking-{mark}"

    def _missing(self, shell: Shell, device: str) -> str:
        device = device or vboxmanage.uplink(shell)
        if not device:
            return (
                "its host has no default route, whose device it would join: name one with bridge:"
            )
        names = vboxmanage.devices(shell)
        if device in names:
            return ""
        return f"VirtualBox knows no device {device} to join, it knows {', '.join(names) or 'none'}"

    def _wrong(self, shell: Shell, wanted: NetworkOrder, mark: str) -> str | None:
        """Say what of it is not as wanted, empty for nothing; None where it is not there."""
        if wanted.mode == "nat":
            nat = vboxmanage.nat_network(shell, wanted.name)
            return None if nat is None else self._nat_wrong(wanted, nat)
        interface = vboxmanage.interfaces(shell).get(mark)
        return None if interface is None else self._interface_wrong(wanted, interface)

    def _nat_wrong(self, wanted: NetworkOrder, found: Mapping[str, str]) -> str:
        told = {"Network": wanted.subnet, "Enabled": "Yes", "DHCP Server": _yes(wanted.dhcp)}
        for key, value in told.items():
            if found.get(key) != value:
                return f"{key} is {found.get(key)} and not {value}"
        return ""

    def _interface_wrong(self, wanted: NetworkOrder, found: Interface) -> str:
        if (found.address, found.mask) == (wanted.gateway, _mask(wanted)):
            return ""
        return f"its host's address is {found.address} ({found.mask})"

    def _dhcp_wrong(self, wanted: Dhcp | None, found: Dhcp | None) -> str:
        if wanted is None:
            return "a DHCP server answers" if found and found.enabled else ""
        if found is None:
            return "its DHCP server is gone"
        return "" if found.covers(wanted) else "its DHCP server hands out other addresses"

    def _make_nat(self, shell: Shell, wanted: NetworkOrder) -> None:
        name, owner = wanted.name, wanted.owner
        found = vboxmanage.nat_network(shell, name)
        if not vboxmanage.remembered(shell, owner):
            if found or vboxmanage.dhcp_server(shell, name):
                raise vboxmanage.foreign(
                    shell, f"NAT network {name}", f"natnetwork remove --netname {name}"
                )
            # Before it is made: a network has no room for a mark.
            vboxmanage.remember(shell, owner, name)
        how = ["--network", wanted.subnet, "--enable", "--dhcp", _on(wanted.dhcp)]
        if found is None:
            vboxmanage.must(shell, "natnetwork", "add", "--netname", name, *how)
        elif self._nat_wrong(wanted, found):
            vboxmanage.must(shell, "natnetwork", "modify", "--netname", name, *how)
        self._serve(shell, wanted, name)

    def _make_interface(self, shell: Shell, wanted: NetworkOrder) -> None:
        with _creating:
            device = self._created(shell, wanted.owner)
        self._allow(shell, wanted.subnet)
        found = vboxmanage.interfaces(shell).get(device)
        if found is None or self._interface_wrong(wanted, found):
            address = ["--ip", wanted.gateway, "--netmask", _mask(wanted)]
            vboxmanage.must(shell, "hostonlyif", "ipconfig", device, *address)
        self._serve(shell, wanted, self._of(wanted, device))

    def _created(self, shell: Shell, owner: str) -> str:
        """Return the owner's interface, made if need be.

        VirtualBox names it, by the first number that is free. That name is remembered before, so that
        one whose making was cut off is found again.
        """
        mark = vboxmanage.remembered(shell, owner)
        names = vboxmanage.interfaces(shell)
        if mark in names:
            return mark
        number = next(n for n in range(len(names) + 1) if f"vboxnet{n}" not in names)
        expected = f"vboxnet{number}"
        vboxmanage.remember(shell, owner, expected)
        made = re.search(r"Interface '(.+)' was", vboxmanage.must(shell, "hostonlyif", "create"))
        device = made[1] if made else expected
        if device != expected:
            vboxmanage.remember(shell, owner, device)
        return device

    def _allow(self, shell: Shell, subnet: str) -> None:
        """Have VirtualBox allow addresses of ``subnet`` on host-only interfaces."""
        line = f"* {subnet}\n"
        has = shell.run(["cat", RANGES])
        if line in has.out.splitlines(keepends=True):
            return
        vboxmanage.plain(shell, "mkdir", "-p", str(Path(RANGES).parent))
        # The file replaces the default. Appended, as other networks do at the same time.
        text = line if has.out.strip() else DEFAULT_RANGE + line
        done = shell.run(["tee", "-a", RANGES], stdin=text.encode())
        if not done.ok:
            raise vboxmanage.refused(shell, ["tee", "-a", RANGES], done)

    def _serve(self, shell: Shell, wanted: NetworkOrder, network: str) -> None:
        """Have the network's DHCP server hand out the planned addresses."""
        server = dhcp_wanted(wanted)
        found = vboxmanage.dhcp_server(shell, network)
        which = f"--network={network}"
        if server is None:
            if found:
                vboxmanage.must(shell, "dhcpserver", "remove", which)
            return
        if found and found.covers(server):
            return
        words = [
            f"--server-ip={server.address}",
            f"--netmask={server.mask}",
            f"--lower-ip={server.lower}",
            f"--upper-ip={server.upper}",
            "--enable",
        ]
        for mac, address in server.fixed.items():
            words += [f"--mac-address={mac}", f"--fixed-address={address}"]
            if domain := server.domains.get(mac):
                words += [f"--set-opt={DOMAIN}", domain]
            elif found and mac in found.domains:
                words.append(f"--del-opt={DOMAIN}")
        for mac in found.fixed if found else ():
            if mac not in server.fixed:
                words += [f"--mac-address={mac}", "--remove-config"]
        vboxmanage.must(shell, "dhcpserver", "modify" if found else "add", which, *words)
        if found:
            # It reads its settings when it starts; one that does not run has nothing to forget.
            vboxmanage.run(shell, "dhcpserver", "restart", which)


def _mask(wanted: NetworkOrder) -> str:
    return str(IPv4Network(wanted.subnet).netmask)


def _on(flag: object) -> str:
    return "on" if flag else "off"


def _yes(flag: object) -> str:
    return "Yes" if flag else "No"


DRIVER = NetworkDriver()
