"""The objects that Hyper-V's cmdlets give back, as far as something is asked of them.

What a field is called there is beside its type; a property that is null there is empty, 0 or no here.
"""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from components.kinds.hyperv.powershell import Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Switch:
    """A virtual switch."""

    id: Annotated[str, "Id"]
    name: Annotated[str, "Name"]
    type: Annotated[str, "SwitchType"]
    notes: Annotated[str, "Notes"]
    shared: Annotated[bool, "AllowManagementOS"]
    """Whether the host is on it too."""
    over: Annotated[str, "NetAdapterInterfaceDescription"]


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address of the host."""

    address: Annotated[str, "IPAddress"]
    prefix: Annotated[int, "PrefixLength"]
    interface: Annotated[int, "InterfaceIndex"]


@dataclass(frozen=True, slots=True)
class Nat:
    """Windows' NAT of a subnet."""

    name: Annotated[str, "Name"]
    subnet: Annotated[str, "InternalIPInterfaceAddressPrefix"]


@dataclass(frozen=True, slots=True)
class Plug:
    """A NIC of the host itself on a switch."""

    switch: Annotated[str, "SwitchName"]
    device: Annotated[str, "DeviceId"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A network adapter as Windows knows it."""

    name: Annotated[str, "Name"]
    description: Annotated[str, "InterfaceDescription"]
    interface: Annotated[int, "ifIndex"]
    device: Annotated[str, "DeviceID"]


@dataclass(frozen=True, slots=True)
class Vm:
    """A guest."""

    id: Annotated[str, "Id"]
    name: Annotated[str, "Name"]
    state: Annotated[str, "State"]
    notes: Annotated[str, "Notes"]
    path: Annotated[str, "Path"]
    memory: Annotated[int, "MemoryStartup"]
    """Bytes."""
    dynamic_memory: Annotated[bool, "DynamicMemoryEnabled"]
    cores: Annotated[int, "ProcessorCount"]
    start_action: Annotated[str, "AutomaticStartAction"]
    stop_action: Annotated[str, "AutomaticStopAction"]
    checkpoints: Annotated[str, "CheckpointType"]


@dataclass(frozen=True, slots=True)
class Processor:
    """A guest's processors."""

    exposes: Annotated[bool, "ExposeVirtualizationExtensions"]


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port of a guest."""

    path: Annotated[str, "Path"]
    """The named pipe that it is served on; empty for none."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk or CD drive of a guest; ``path`` is what is in it."""

    id: Annotated[str, "Id"]
    controller: Annotated[str, "ControllerType"]
    number: Annotated[int, "ControllerNumber"]
    location: Annotated[int, "ControllerLocation"]
    path: Annotated[str, "Path"]


@dataclass(frozen=True, slots=True)
class Card:
    """A network card of a guest."""

    id: Annotated[str, "Id"]
    name: Annotated[str, "Name"]
    switch: Annotated[str, "SwitchName"]
    mac: Annotated[str, "MacAddress"]
    dynamic_mac: Annotated[bool, "DynamicMacAddressEnabled"]
    legacy: Annotated[bool, "IsLegacy"]


@dataclass(frozen=True, slots=True)
class Plugged:
    """A network card of any guest."""

    vm: Annotated[str, "VMId"]
    name: Annotated[str, "Name"]
    switch: Annotated[str, "SwitchName"]


@dataclass(frozen=True, slots=True)
class Bios:
    """The firmware of generation 1."""

    order: Annotated[list[str], "StartupOrder"]


@dataclass(frozen=True, slots=True)
class Firmware:
    """The firmware of generation 2."""

    secure_boot: Annotated[str, "SecureBoot"]
    order: Annotated[list[str], "BootOrder.Device.Id"]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a folder."""

    name: Annotated[str, "Name"]
    length: Annotated[int, "Length"]
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A file's SHA-256."""

    hash: Annotated[str, "Hash"]


@dataclass(frozen=True, slots=True)
class Vhd:
    """A disk's file."""

    size: Annotated[int, "Size"]
    """Bytes, as its guest sees it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A thing that has a value, such as a variable of the environment."""

    value: Annotated[str, "Value"]


@functools.cache
def _fields(of: type) -> dict[str, tuple[str, type]]:
    """Return the property and the type of each field of ``of``."""
    hints = typing.get_type_hints(of, include_extras=True)
    found = {name: typing.get_args(hint) for name, hint in hints.items()}
    return {name: (told, typing.get_origin(kind) or kind) for name, (kind, told) in found.items()}


def properties(of: type) -> tuple[str, ...]:
    """Return what has to be asked for, for `objects` of a class."""
    return tuple(told for told, _ in _fields(of).values())


def objects(of: type[T], rows: Iterable[Row]) -> list[T]:
    """Return ``rows`` as objects of the class ``of``, whose `properties` were asked for."""
    known: type = of
    fields = _fields(known).items()
    return [of(**{name: _value(kind, row[told]) for name, (told, kind) in fields}) for row in rows]


def _value(kind: type, given: object) -> object:
    if given is None:
        return kind()
    # PowerShell tells a list of one as that one.
    return [given] if kind is list and not isinstance(given, list) else given
