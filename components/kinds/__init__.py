"""The kinds of hypervisor: one folder each, with the same file names in all of them, found by name.

========== =========================================================================================
model      ``KIND``: what a stack may say of one, what it needs, what it offers to guests
host       ``HOST``: the same of an outer host
install    ``INSTALLER``: how it comes to be on another place
outer      ``outer``: how an outer host becomes a place
place      the place itself, where a Pulumi provider makes what is in it
media      how its installer is known and made to ask nothing, and what it is told
probe      what it is asked until it counts as up
console    ``command``: what opens a guest's text console, where its hypervisor has one
proof      ``NESTED``, ``OUTER``: how each part of it was proved, for README's table
gates      dynamic resources that look at what is inside it, where a Pulumi provider makes that
network    ``DRIVER``: networks by its own commands; so ``medium``, ``guest``, ``container``
========== =========================================================================================

A folder has those of them that its kind needs. Nothing outside names a kind, and no kind another
but for libvirt, which the hosts that are libvirt inside are built on.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.place.contract import Installer, Outer

NESTED = (
    "esxi",
    "hyperv",
    "kvm",
    "proxmox",
    "xenserver",
    "virtualbox",
    "workstation",
    "xen",
)  # fmt: skip  # one line each
"""Kinds that can be nested, each with a ``model``."""
OUTER = (
    "libvirt",
    "proxmox",
    "vsphere",
)  # fmt: skip  # one line each
"""Kinds that a lab's outer host can be, each with a ``host``."""


def part(kind: str, name: str) -> Any:
    """Return the module ``name`` of ``kind``.

    Raises:
        ModuleNotFoundError: the kind has none.
    """
    return import_module(f"{__name__}.{kind}.{name}")


def has(kind: str, name: str) -> bool:
    """Whether ``kind`` has the module ``name``."""
    return find_spec(f"{__name__}.{kind}.{name}") is not None


def installer(kind: str) -> Installer:
    """Return what installs hypervisors of ``kind``, one of `NESTED`."""
    found: Installer = part(kind, "install").INSTALLER
    return found


def outer(kind: str) -> Outer:
    """Return what makes an outer host of ``kind``, one of `OUTER`, a place."""
    found: Outer = part(kind, "outer").outer
    return found
