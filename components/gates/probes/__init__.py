"""When a machine counts as up: one module for each way of asking, ``probe`` and perhaps ``glance``.

A probe asks the thing itself, not a sign of it: a lease shows that an installer runs, a ping that a
kernel does, and neither that a hypervisor takes orders. A *glance* is the cheap version for diffs.
Both are given what the gate has of the machine, and the place it lives on; `Probe.kind` names the
module, so a kind of hypervisor that has an API of its own has a file for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from components import kinds

if TYPE_CHECKING:
    from components.reach.shell import Shell, Target
    from components.reach.waiting import Seen

GENERAL = ("none", "ssh", "tcp")
"""Modules here, for machines of any kind."""


@dataclass(frozen=True, slots=True)
class Command:
    """One that has to end well before a machine counts as up."""

    argv: list[str]
    holds: str = ""
    """What its output has to hold."""
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host above that leads to one behind it."""

    port: int
    host: str
    to: int


@dataclass(frozen=True, slots=True)
class Probe:
    """What is asked of a machine; ``kind`` says by which module here, the rest which of them read."""

    kind: str
    host: str = ""
    port: int = 0
    network: str = ""
    mac: str = ""
    address: str = ""
    """The lease that is planned; empty for none."""
    commands: list[Command] = field(default_factory=list)
    steady: int = 1
    """How often in a row they have to end well."""
    forward: list[Forward] = field(default_factory=list)
    url: str = ""
    node: str = ""
    storages: list[str] = field(default_factory=list)


class Asked(Protocol):
    """A machine that is asked whether it is up: its gate's properties."""

    @property
    def probe(self) -> Probe: ...

    @property
    def reach(self) -> Target: ...


class Place(Protocol):
    """Where the machine lives: `components.kinds.libvirt.virsh.Virsh` on a host with libvirt."""

    @property
    def shell(self) -> Shell: ...


class _Module(Protocol):
    """A way of asking; where its place is of one kind, so are all its machines."""

    def probe(self, asked: Asked, place: Place) -> Seen: ...


def probe(asked: Asked, place: Place) -> Seen:
    """Ask fully whether the machine is up."""
    return _module(asked).probe(asked, place)


def glance(asked: Asked, place: Place) -> Seen:
    """Ask cheaply, where the way of asking has a cheap version."""
    module = _module(asked)
    seen: Seen = getattr(module, "glance", module.probe)(asked, place)
    return seen


def _module(asked: Asked) -> _Module:
    """Return the module of a way of asking: one of this folder, or of a kind, as "esxi" or "libvirt.lease"."""
    name = asked.probe.kind
    kind, _, which = name.partition(".")
    general = name in GENERAL
    found: _Module = (
        import_module(f"{__name__}.{name}") if general else kinds.part(kind, which or "probe")
    )
    return found
