"""Which subnets a student's networks on the outer host have: the first free ones of the class's pool.

What was given stays given: a student more or less moves nobody. The pool is walked once, whatever the
number of students, and what somebody else has of it is passed over.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Full(Exception):
    """The pool has no subnet of that size left."""


class Pool:
    """Subnets that are given away, each once."""

    def __init__(self, whole: IPv4Network, taken: Iterable[IPv4Network] = ()) -> None:
        self.whole = whole
        self._taken: list[tuple[int, int]] = []
        """First and last address of each range, none within another, in order."""
        self._next: dict[int, int] = {}
        """By prefix length: where the walk goes on; all before is taken."""
        for each in taken:
            self.take(each)

    def take(self, subnet: IPv4Network) -> bool:
        """Mark ``subnet`` as taken; return whether all of it was free."""
        first, last = int(subnet[0]), int(subnet[-1])
        free = self._clear(first, last)
        if free:
            insort(self._taken, (first, last))
            return True
        # Ranges grow together, so that those in the list never overlap.
        near = [each for each in self._taken if each[0] <= last and each[1] >= first]
        for each in near:
            self._taken.remove(each)
        insort(self._taken, (min(first, near[0][0]), max(last, near[-1][1])))
        return False

    def _clear(self, first: int, last: int) -> bool:
        at = bisect_left(self._taken, (first, -1))
        before = self._taken[at - 1] if at else None
        after = self._taken[at] if at < len(self._taken) else None
        return (before is None or before[1] < first) and (after is None or after[0] > last)

    def give(self, prefix: int) -> IPv4Network:
        """Return the first free subnet with ``prefix``, which is taken from then on.

        Raises:
            Full: there is none.
        """
        size = 1 << (32 - prefix)
        end = int(self.whole[-1]) + 1
        at = self._next.get(prefix, int(self.whole[0]))
        while prefix >= self.whole.prefixlen and at + size <= end:
            if self._clear(at, at + size - 1):
                self._next[prefix] = at + size
                found = IPv4Network((at, prefix))
                self.take(found)
                return found
            at += size
        self._next[prefix] = at
        raise Full(f"{self.whole} has no /{prefix} left")
