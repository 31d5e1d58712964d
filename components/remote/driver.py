"""What a driver is: one product's own commands for one kind of object, in `components.remote.drivers`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from components.remote.shell import Shell
    from components.remote.waiting import Seen

Props = dict[str, Any]


class DriverError(Exception):
    """A hypervisor's command refused; the message names the command and holds its words."""


class Driver(Protocol):
    """The commands of one hypervisor for one kind of object; it holds no state.

    ``wanted`` is plain data with a "name". Whole numbers may arrive as floats.
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
