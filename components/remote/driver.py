"""What a driver is: one product's own commands for one kind of object, in `components.remote.drivers`."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.remote.shell import Shell
    from components.remote.waiting import Seen

Props = dict[str, Any]

COMMAND_S = 120.0
"""Longest time that a product's own command may take, seconds, where nothing else is said."""


class DriverError(Exception):
    """A hypervisor's command refused; the message names the command and holds its words."""


def refusal(shell: Shell, argv: Sequence[str], said: str, cause: str = "") -> DriverError:
    """Return what to raise when ``argv`` was refused: what was ``said``, and the cause where it is known."""
    text = f"`{shlex.join(argv)}` on {shell.name}: {said}"
    return DriverError(f"{text}\n  {cause}" if cause else text)


def cause_in(text: str, causes: Mapping[str, str]) -> str:
    """Return what is behind a message, of ``causes`` by a part of it; empty where nothing is known."""
    return next((words for mark, words in causes.items() if mark in text), "")


def must(
    shell: Shell, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
) -> str:
    """Run a command that has to succeed, and return what it printed.

    Raises:
        DriverError: it did not.
    """
    done = shell.run(argv, stdin=stdin, timeout_s=timeout_s)
    if not done.ok:
        raise refusal(shell, argv, done.said)
    return done.out


class Driver(Protocol):
    """The commands of one hypervisor for one kind of object; it holds no state.

    ``wanted`` is of the shape that `components.remote.wanted` has for the kind of object.
    """

    replaced_by: tuple[str, ...]
    """Keys of ``wanted`` whose change can't be made on an existing object."""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """Look whether the object exists, is as wanted, and runs."""
        ...

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """The same, as cheaply as can be: it is asked on every diff."""
        ...

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """Make the object, or what is missing of it, and start it; may be repeated at any point.

        Raises:
            DriverError: a command refused, or somebody else's object has the name.
        """
        ...

    def remove(self, shell: Shell, wanted: Props) -> None:
        """Stop the object and remove all of it; nothing happens when it is not there, or not ours."""
        ...

    def problem(self, wanted: Props) -> str:
        """Say why ``wanted`` can't be made, found and remedy; empty when it can."""
        ...

    # May also have ``called(wanted) -> str``: what others of the same place call the object, where
    # that is not its name (a medium's path).


def driver_of(name: str) -> Driver:
    """Return the driver called ``name``, such as "lxc.container".

    That is the entry "container" of ``DRIVERS`` in the module `components.remote.drivers.lxc`.
    """
    module, _, what = name.partition(".")
    driver: Driver = import_module(f"components.remote.drivers.{module}").DRIVERS[what]
    return driver
