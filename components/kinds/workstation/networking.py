"""Networks as Workstation's files on Linux: /etc/vmware/networking, dhcpd.conf and nat.conf; only text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from components.kinds.workstation.names import MAC
from components.reach.driver import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.orders import NetworkOrder

NETWORKING = "/etc/vmware/networking"
NATD_IP6 = "fd15:4ba5:5a2b:1008::/64"
"""Workstation's default, of which IPv6 stays off."""


@dataclass(frozen=True)
class Net:
    """What an own network is to be."""

    subnet: IPv4Network
    host: str
    """Address of the host on it."""
    nat: str
    """Address of Workstation's NAT device, the guests' gateway; empty without NAT."""
    dhcp: bool
    domain: str
    fixed: Mapping[str, str]
    """Addresses by MAC, lower case."""

    @property
    def answers(self) -> dict[str, str]:
        """What `NETWORKING` says of it, by the end of the key."""
        return {
            "DHCP": _yes(self.dhcp),
            "HOSTONLY_NETMASK": str(self.subnet.netmask),
            "HOSTONLY_SUBNET": str(self.subnet.network_address),
            "NAT": _yes(self.nat),
            "VIRTUAL_ADAPTER": "yes",
        }

    def free(self) -> tuple[str, str] | None:
        """Return the longest run of addresses that nobody has, for guests of somebody else."""
        first, last = int(self.subnet[1]), int(self.subnet[-2])
        taken = {self.host, *self.fixed.values(), *([self.nat] if self.nat else [])}
        ends = sorted({int(IPv4Address(each)) for each in taken} | {first - 1, last + 1})
        low, high = max(pairwise(ends), key=lambda gap: gap[1] - gap[0])
        return (str(IPv4Address(low + 1)), str(IPv4Address(high - 1))) if high - low > 1 else None


def net(wanted: NetworkOrder) -> Net:
    """Return what an own network is to be.

    Workstation's NAT device has an address beside the host's, .2 where nobody planned it.

    Raises:
        ValueError: something in it is no address, or no address is left.
    """
    subnet = IPv4Network(wanted.subnet)
    fixed = {}
    for one in wanted.reservations:
        mac, address = one.mac, str(IPv4Address(one.address))
        if not MAC.fullmatch(mac):
            raise ValueError(f"{mac!r} is no MAC")
        fixed[mac.lower()] = address
    host = str(IPv4Address(wanted.gateway))
    if host != str(subnet[1]):
        raise ValueError(f"Workstation's host has the first address of {subnet}, not {host}")
    domain = wanted.domain
    if domain and not DOMAIN.fullmatch(domain):
        raise ValueError(f"{domain!r} is no DNS domain")
    nat = ""
    if wanted.mode == "nat":
        planned = {host, *fixed.values()}
        choices = chain([2], range(subnet.num_addresses - 2, 1, -1))
        nat = next((str(subnet[n]) for n in choices if str(subnet[n]) not in planned), "")
        if not nat:
            raise ValueError(
                f"no address of {subnet} is left for Workstation's NAT device, which needs one of its "
                "own: take a larger subnet"
            )
    return Net(subnet, host, nat, wanted.dhcp, domain, fixed)


def dhcpd_conf(made: Net, vmnet: str) -> str:
    """Return ``dhcpd.conf`` of ``vmnet`` (vmnet-dhcpd, ISC DHCP 2.0).

    In VMware's own form: it generates the marked part anew where it sees need, and keeps what follows.
    """
    number = int(vmnet.removeprefix("vmnet"))
    inner = []
    if free := made.free():
        inner.append(f"range {free[0]} {free[1]};")
    inner.append(f"option broadcast-address {made.subnet.broadcast_address};")
    if made.nat:
        inner += [f"option domain-name-servers {made.nat};", f"option routers {made.nat};"]
    if made.domain:
        inner.append(f'option domain-name "{made.domain}";')
    lines = [
        f"# Configuration file for ISC 2.0 vmnet-dhcpd operating on {vmnet}.",
        "# Written by nestlab.",
        "",
        '###### VMNET DHCP Configuration. Start of "DO NOT MODIFY SECTION" #####',
        "allow unknown-clients;",
        "default-lease-time 1800;",
        "max-lease-time 7200;",
        "",
        f"subnet {made.subnet.network_address} netmask {made.subnet.netmask} {{",
        *(f"\t{each}" for each in inner),
        "}",
        f"host {vmnet} {{",
        f"\thardware ethernet 00:50:56:C0:00:{number:02X};",
        f"\tfixed-address {made.host};",
        "\toption domain-name-servers 0.0.0.0;",
        '\toption domain-name "";',
        "\toption routers 0.0.0.0;",
        "}",
        '####### VMNET DHCP Configuration. End of "DO NOT MODIFY SECTION" #######',
    ]
    for mac, address in made.fixed.items():
        lines += [
            f"host nestlab-{mac.replace(':', '')} {{",
            f"\thardware ethernet {mac};",
            f"\tfixed-address {address};",
            "}",
        ]
    return "\n".join(lines) + "\n"


def served(text: str) -> tuple[object, ...]:
    """Return what a ``dhcpd.conf`` decides, without what VMware may write in another way."""
    plain = re.sub(r"#.*", "", text)
    hosts = re.findall(r"host\s+nestlab-\S+\s*\{(.*?)\}", plain, re.DOTALL)
    fixed = {}
    for host in hosts:
        mac = re.search(r"hardware\s+ethernet\s+([0-9A-Fa-f:]+)", host)
        address = re.search(r"fixed-address\s+([\d.]+)", host)
        if mac and address:
            fixed[mac[1].lower()] = address[1]
    subnet = re.search(r"subnet\s+([\d.]+)\s+netmask\s+([\d.]+)\s*\{(.*?)\}", plain, re.DOTALL)
    if not subnet:
        return (fixed,)
    inside = {" ".join(each.split()) for each in subnet[3].split(";") if each.strip()}
    told = ("range", "option routers", "option domain-name ", "option domain-name-servers")
    return (fixed, subnet[1], subnet[2], {each for each in inside if each.startswith(told)})


def nat_conf(made: Net, vmnet: str) -> str:
    """Return ``nat.conf`` of ``vmnet``; MACs are not VMware's, which allowAnyOUI lets pass."""
    return (
        "# VMware NAT configuration file, written by nestlab; forwarded ports may be added\n\n"
        f"[host]\nip = {made.nat}\nnetmask = {made.subnet.netmask}\ndevice = /dev/{vmnet}\n"
        f"activeFTP = 1\nallowAnyOUI = 1\nhostIp = {made.host}\nresetConnectionOnLinkDown = 1\n"
        f"resetConnectionOnDestLocalHost = 1\nnatIp6Enable = 0\nnatIp6Prefix = {NATD_IP6}\n\n"
        "[tcp]\ntimeWaitTimeout = 30\n\n[udp]\ntimeout = 60\n\n"
        "[netbios]\nnbnsTimeout = 2\nnbnsRetries = 3\nnbdsTimeout = 3\n\n"
        "[incomingtcp]\n\n[incomingudp]\n"
    )


def translated(text: str) -> dict[str, str]:
    """Return what a ``nat.conf`` decides: the rest may be somebody's forwarded ports."""
    found = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*(\S+)\s*$", text))
    return {key: found.get(key, "") for key in ("ip", "netmask", "device", "allowAnyOUI", "hostIp")}


def answered(text: str, vmnet: str) -> dict[str, str]:
    """Return what `NETWORKING` says of ``vmnet``, by the end of the key."""
    number = vmnet.removeprefix("vmnet")
    return dict(re.findall(rf"(?m)^answer VNET_{number}_(\S+) (.*?)\s*$", text))


def replaced(text: str, vmnet: str, answers: Mapping[str, str]) -> str:
    """Return `NETWORKING` with these answers for ``vmnet`` and no others of it."""
    number = vmnet.removeprefix("vmnet")
    kept = [line for line in text.splitlines() if not line.startswith(f"answer VNET_{number}_")]
    if not any(line.startswith("VERSION=") for line in kept):
        kept.insert(0, "VERSION=1,0")
    return "\n".join([*kept, *(f"answer VNET_{number}_{k} {v}" for k, v in answers.items())]) + "\n"


def numbers_used(text: str) -> set[int]:
    """Return the networks that `NETWORKING` speaks of."""
    found = re.findall(r"(?m)^answer VNET_(\d+)_|^add_bridge_mapping \S+ (\d+)", text)
    return {int(one or other) for one, other in found}


def _yes(flag: object) -> str:
    return "yes" if flag else "no"


def files_of(vmnet: str) -> tuple[str, str, str]:
    """Return what decides about a network: that of all, its DHCP server's, its NAT device's."""
    own = f"/etc/vmware/{vmnet}"
    return NETWORKING, f"{own}/dhcpd/dhcpd.conf", f"{own}/nat/nat.conf"
