"""What a driver is: one product's own commands for one kind of object, in `components.reach.drivers`."""

from __future__ import annotations

import math
import re
import shlex
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from components import kinds
from components.reach.orders import Order
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.reach.shell import Shell
    from components.reach.waiting import Seen

Order_ = TypeVar("Order_", bound=Order)
"""What a driver is given."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""In the one form that all products print and take."""
NONE: Mapping[str, str] = MappingProxyType({})
DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
"""A DNS domain, as a word that no command takes for an option and no file for its end."""
COMMAND_S = 120.0
"""Longest time that a product's own command may take, seconds, where nothing else is said."""


class DriverError(Refused):
    """A hypervisor's command refused; the message names the command and holds its words."""


def refusal(shell: Shell, argv: Sequence[str], said: str, cause: str = "") -> DriverError:
    """Return what to raise when ``argv`` was refused: what was ``said``, and the cause where it is known."""
    text = f"`{shlex.join(argv)}` on {shell.name}: {said}"
    return DriverError(f"{text}\n  {cause}" if cause else text)


def cause_in(text: str, causes: Mapping[str, str]) -> str:
    """Return what is behind a message, of ``causes`` by a part of it; empty where nothing is known."""
    return next((words for mark, words in causes.items() if mark in text), "")


def must(
    shell: Shell,
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float = COMMAND_S,
    causes: Mapping[str, str] = NONE,
) -> str:
    """Run a command that has to succeed, and return what it printed; ``causes`` as for `cause_in`.

    Raises:
        DriverError: it did not.
    """
    done = shell.run(argv, stdin=stdin, timeout_s=timeout_s)
    if not done.ok:
        raise refusal(shell, argv, done.said, cause_in(f"{done.out}\n{done.err}", causes))
    return done.out


def foreign(shell: Shell, what: str, remedy: str) -> DriverError:
    """Return what to raise where ``what`` has the order's name and is somebody else's."""
    return DriverError(f"{what} on {shell.name} is not this lab's and is left alone: {remedy}")


def shrinks(guest: str, disk: str, has: float, wants: int) -> str:
    """Return why a further disk of a guest can't become smaller, sizes in GiB, and what to do."""
    return (
        f"the disk {disk} of guest {guest} has {has:g} GiB and the stack says {wants}: disks don't shrink; "
        f"write {math.ceil(has)} or more, or give it another name: what is on it is lost then"
    )


def strange(owner: str) -> str:
    """Return why ``owner`` can't mark what is the lab's, empty where it can."""
    if UUID.fullmatch(owner):
        return ""
    return f"its owner {owner!r} is no UUID, by which it would be known again"


class Driver(ABC, Generic[Order_]):
    """The commands of one hypervisor for one kind of object; it holds no state.

    The laws that every driver keeps are in `tests.contract`.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ()
    """Fields of the order whose change can't be made on an existing object."""

    @abstractmethod
    def look(self, shell: Shell, wanted: Order_) -> Seen:
        """Look whether the object exists, is as wanted, and runs."""

    def glance(self, shell: Shell, wanted: Order_) -> Seen:
        """Look as cheaply as can be: it is asked on every diff."""
        return self.look(shell, wanted)

    @abstractmethod
    def ensure(self, shell: Shell, wanted: Order_) -> None:
        """Make the object, or what is missing of it, and start it; may be repeated at any point.

        Raises:
            DriverError: a command refused, or somebody else's object has the name.
        """

    @abstractmethod
    def remove(self, shell: Shell, wanted: Order_) -> None:
        """Stop the object and remove all of it; nothing happens when it is not there, or not ours."""

    def picture(self, shell: Shell, wanted: Order_) -> bytes:
        """Return a picture of the object's screen, PNG.

        Raises:
            Refused: none can be had, and why.
        """
        raise DriverError(
            f"no command of {shell.name}'s product takes a picture of {wanted.name}'s screen"
        )

    def problem(self, wanted: Order_) -> str:
        """Say why ``wanted`` can't be made, found and remedy; empty when it can."""
        del wanted
        return ""

    def called(self, wanted: Order_) -> str:
        """Return what others of the same place call the object: its name, or where that is another, a path."""
        return wanted.name


def console_of(kind: str, called: str, store: str, owner: str) -> Sequence[str]:
    """Return the command on a hypervisor of ``kind`` that opens a guest's text console; empty where it has none.

    ``called`` and ``owner`` are the guest's name there and its UUID, ``store`` is the folder of the place.
    """
    if not kinds.has(kind, "console"):
        return ()
    opened: Sequence[str] = kinds.part(kind, "console").command(called, store, owner)
    return opened


def driver_of(name: str) -> Driver[Order]:
    """Return the driver called ``name``: of "kvm.container" the ``DRIVER`` of `components.kinds.kvm.container`."""
    kind, _, what = name.partition(".")
    driver: Driver[Order] = kinds.part(kind, what).DRIVER
    return driver
