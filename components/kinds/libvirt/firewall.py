"""Whether libvirt's address translation (NAT) is in force: its rules may be flushed under a network that is up.

A firewall that is loaded again (`nft flush ruleset`, `iptables-restore`, firewalld) takes libvirt's rules with its own:
the network stays up, and its machines reach nobody outside. `virsh net-start` writes them again.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.reach.shell import Shell

# libvirt writes them by iptables, since 10.4 by nft too (network.conf, firewall_backend). Both need root.
ASK = """
SUDO=
[ "$(id -u)" = 0 ] || SUDO="sudo -n"
$SUDO iptables -w 5 -t nat -S && echo asked
$SUDO nft list table ip libvirt_network && echo asked
exit 0
"""
RULES = (
    re.compile(r"^-A \S+ -s (\S+) .*-j MASQUERADE", re.MULTILINE),
    re.compile(r"ip saddr (\S+) .*\bmasquerade\b"),
)


def translated(definition: str) -> str:
    """Return the subnet that a network (its XML) translates the addresses of; empty for none."""
    root = ET.fromstring(definition)  # noqa: S314 - libvirt's own output
    forward, own = root.find("forward"), root.find("ip")
    if forward is None or own is None or forward.get("mode", "nat") != "nat":
        return ""
    length = own.get("prefix") or own.get("netmask") or "32"
    return str(IPv4Interface(f"{own.get('address')}/{length}").network)


def lacks(shell: Shell, subnet: str) -> bool:
    """Whether the host at ``shell`` translates no addresses of ``subnet``; False where it can't be asked."""
    told = shell.run(["sh", "-c", ASK]).out
    found = {subnet for rule in RULES for subnet in rule.findall(told)}
    return "asked" in told.split("\n") and subnet not in found
