"""What the laws have to know of a driver to try it: how to order, to harm, and to look behind it.

One case is one driver on a host that stands in for its product. Each kind's are in
`tests.contract.kinds`, in a module of the kind's name, as ``CASES``.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tests.support.commands import HOWS, Tried

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from components.reach.shell import Shell
    from tests.support.commands import Call, How


class Host(Tried, Protocol):
    """A host that stands in for a product: `tests.support.commands.Machine`, or what does as it does."""

    def shell(self) -> Shell:
        """Return what a driver reaches it by."""

    def keep(self) -> Callable[[], Any]:
        """Return what makes the host as it is now, and returns it."""

    def contents(self) -> dict[str, Any]:
        """Return all that it holds and knows: what two hosts that are equal have the same of."""


HostT = TypeVar("HostT", bound=Host)
OrderT = TypeVar("OrderT")


@dataclass(frozen=True)
class Case(Generic[HostT, OrderT]):
    """One driver under the laws."""

    name: str
    """Of the driver, ``virtualbox.guest``; what follows a blank tells cases of one driver apart."""
    host: Callable[[Path], HostT]
    """Make a host in a folder; all that the order needs is there already, somebody else's things too."""
    order: Callable[[Path], OrderT]
    """Return what is ordered. Files that it names may be made in the folder."""

    asks: frozenset[str] = frozenset()
    """How the commands begin that only ask, or leave what is as it should be."""
    said: Callable[[Call], Sequence[str]] = lambda call: [shlex.join(call.words)]
    """What a call told the product: more than one command where a program carries out several."""

    stranger: Callable[[HostT], object] | None = None
    """Make somebody else's object of the order's name; None only with ``no_stranger``."""
    no_stranger: str = ""
    """Why nobody else can have the name."""

    edits: Mapping[str, Any] = field(default_factory=dict)
    """Another value for each field that can be changed on an existing object; a dict: of several fields."""
    one_way: Mapping[str, Any] = field(default_factory=dict)
    """Such values of fields that have no way back: a disk that only grows."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Fields that this product makes nothing of, each with the reason."""
    harms: Mapping[str, Callable[[HostT], object]] = field(default_factory=dict)
    """What may be done by hand, by what it is called; `look` has to see it, and `ensure` to mend it."""
    texts: Mapping[str, Callable[[OrderT, str], OrderT]] = field(default_factory=dict)
    """Put a text into each field that carries one which people chose."""
    arrived: Mapping[str, Callable[[HostT, OrderT], str]] = field(default_factory=dict)
    """Read such a field where the product has it, past the driver."""
    needs: Mapping[str, Callable[[HostT, OrderT, str], OrderT | None]] = field(default_factory=dict)
    """Make on the host what such a text names, a medium or a network, and return the order with it; None
    where nothing there can be called so. That it arrived the product says, which finds nothing else."""
    sends: Callable[[HostT], int] | None = None
    """How often the content was sent; None where none is."""

    plain: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Take out of a host's contents what two equal objects may differ in: counters, random numbers."""
    hows: Sequence[How] = HOWS
    """The ways in which a command is made to fail."""
    patience: Mapping[str, object] = field(default_factory=dict)
    """Waits to be shortened: their names with the module, and the value."""
