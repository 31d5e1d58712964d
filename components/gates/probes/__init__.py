"""When a machine counts as up: one module for each way of asking, ``probe`` and perhaps ``glance``.

A probe asks the thing itself, not a sign of it: a lease shows that an installer runs, a ping that a
kernel does, and neither that a hypervisor takes orders. A *glance* is the cheap version for diffs.
Both are given the gate's properties and the place the machine lives on; ``props["probe"]["kind"]``
names the module, so a kind of hypervisor that has an API of its own adds a file here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from components.remote.shell import Shell
    from components.remote.waiting import Seen

Props = dict[str, Any]


class Command(TypedDict, total=False):
    """One that has to end well before a machine counts as up."""

    argv: list[str]
    holds: str
    """What its output has to hold."""
    stdin: str


class Forward(TypedDict):
    """A port of the host above that leads to one behind it."""

    port: int
    host: str
    to: int


class Probe(TypedDict, total=False):
    """What is asked of a machine; ``kind`` says by which module here, the rest which of them read."""

    kind: str
    host: str
    port: int
    network: str
    mac: str
    address: str
    """The lease that is planned; empty for none."""
    commands: list[Command]
    steady: int
    """How often in a row they have to end well; 1."""
    forward: list[Forward]
    url: str
    node: str
    storages: list[str]


class Place(Protocol):
    """Where the machine lives: `components.remote.virsh.Virsh` on a host with libvirt."""

    shell: Shell


def probe(props: Props, place: Any) -> Seen:
    """Ask fully whether the machine is up."""
    seen: Seen = _module(props).probe(props, place)
    return seen


def glance(props: Props, place: Any) -> Seen:
    """Ask cheaply, where the way of asking has a cheap version."""
    module = _module(props)
    seen: Seen = getattr(module, "glance", module.probe)(props, place)
    return seen


def _module(props: Props) -> Any:
    return import_module(f"{__name__}.{props['probe']['kind']}")
