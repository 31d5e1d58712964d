"""Which IPv4 address and MAC a machine gets when nobody pinned one: by its name, so it stays.

The place in the subnet is a hash of the machine's name. The order of the file can't decide who
gives way where two names meet in one place: the engine hands over the keys of a mapping sorted.
So the name decides, counting numbers as numbers: web10 gives way to web9. Everybody's first choice
goes before anybody's second: what is added moves one whose first choice it shares, or one that had
given way already, and nobody else. Pin what may never move.
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from ipaddress import IPv4Address, IPv4Network

MAC_PREFIX = "52:54:00"
"""QEMU's and KVM's own; locally administered, unicast."""
FIRST = 2
"""Number in its subnet of the first address that a machine can have, where the place says no other."""
_LOW, _HIGH = 10, 5
"""Kept free for pins, at either end of a subnet of /27 or wider: up to .9, and the last five."""
_WIDE = 27


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()


def digest(*parts: str, digits: int) -> str:
    """Return the first hexadecimal ``digits`` of the hash of ``parts``."""
    return _hash("/".join(parts)).hex()[:digits]


def gateway(subnet: IPv4Network) -> IPv4Address:
    """Return the address of the host itself on ``subnet``, the first one."""
    return subnet[1]


def capacity(subnet: IPv4Network, first: int = FIRST) -> int:
    """Return how many machines ``subnet`` has addresses for, beginning with number ``first``."""
    return subnet.num_addresses - 1 - first  # all before, and the broadcast address


def natural(name: str) -> list[str | int]:
    """Return the key that sorts ``web9`` before ``web10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def choices(name: str, subnet: IPv4Network, first: int = FIRST) -> Iterator[IPv4Address]:
    """Yield the addresses of ``subnet`` in the order in which ``name`` would take them.

    ``first`` is the number of the first one that there is for machines.
    """
    end = subnet.num_addresses - 1
    low, last = (_LOW, end - 1 - _HIGH) if subnet.prefixlen <= _WIDE else (first, end - 1)
    count = last - low + 1
    start = int.from_bytes(_hash(name)[:8]) % count
    wanted = (low + (start + step) % count for step in range(count))
    for offset in chain(wanted, range(last + 1, end), range(first, low)):
        yield subnet[offset]


def assign(
    names: Iterable[str], subnet: IPv4Network, taken: set[IPv4Address], first: int = FIRST
) -> dict[str, IPv4Address]:
    """Return an address of ``subnet`` for each of ``names``, and add them to ``taken``; see `choices`.

    Raises:
        ValueError: there are more names than addresses; the lab's check refuses such a subnet.
    """
    found: dict[str, IPv4Address] = {}
    late = []
    for name in sorted(names, key=natural):
        best = next(choices(name, subnet, first))
        if best in taken:
            late.append(name)
        else:
            found[name] = best
            taken.add(best)
    for name in late:
        free = next((a for a in choices(name, subnet, first) if a not in taken), None)
        if free is None:
            raise ValueError(f"{subnet} is full: {capacity(subnet, first)} addresses")
        found[name] = free
        taken.add(free)
    return found


def mac(seed: Iterable[str], taken: Collection[str]) -> str:
    """Return the MAC made from ``seed`` (lab, path, number of the NIC), not one of ``taken``."""
    base, extra = "/".join(seed), 0
    while True:
        tail = _hash(base if not extra else f"{base}#{extra}")[:3]
        if (made := f"{MAC_PREFIX}:{tail.hex(':')}") not in taken:
            return made
        extra += 1
