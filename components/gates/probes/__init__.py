"""When a machine counts as up: one module for each way of asking, ``probe`` and perhaps ``glance``.

A probe asks the thing itself, not a sign of it: a lease shows that an installer runs, a ping that a
kernel does, and neither that a hypervisor takes orders. A *glance* is the cheap version for diffs.
Both are given the gate's properties and the place the machine lives on; ``props["probe"]["kind"]``
names the module, so a kind of hypervisor that has an API of its own adds a file here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from components.remote.shell import Shell
    from components.remote.waiting import Seen

Props = dict[str, Any]


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
