"""Who has a network's range already: libvirt starts no network whose very range a host has a route to.

A VPN, Docker or another libvirt's network may have one. libvirt says so when it is to start the network, which is
after other things were made (src/network/bridge_driver_linux.c, networkCheckRouteCollision: the same file is read,
and ranges have to be equal).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.reach.shell import Shell

FILE = "/proc/net/route"
"""Routes of the main table of IPv4: a line of headings, then device, destination, gateway, ..., mask at `MASK`."""
DEVICE, DESTINATION, MASK = 0, 1, 7


def held(shell: Shell) -> dict[IPv4Network, set[str]]:
    """Return the devices by which the host at ``shell`` has routes, by what they lead to.

    Raises:
        Unreachable: it does not answer.
    """
    found: dict[IPv4Network, set[str]] = {}
    for line in shell.run(["cat", FILE]).out.splitlines()[1:]:
        words = line.split()
        if len(words) > MASK:
            address, mask = (_dotted(words[at]) for at in (DESTINATION, MASK))
            found.setdefault(IPv4Network(f"{address}/{mask}"), set()).add(words[DEVICE])
    return found


def _dotted(number: str) -> str:
    """Return the address that the kernel prints as ``number``: hexadecimal, in the order of the machine's bytes."""
    return socket.inet_ntoa(struct.pack("=L", int(number, 16)))
