"""What makes each kind of hypervisor: as a guest of its host, and as a place for guests.

A kind is one module here with a `Installer` called ``INSTALLER``, named as in the spec's registry; one
that can be a lab's outer host has an `Outer` called ``outer``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.hypervisors.handle import Installer, Outer


def installer(kind: str) -> Installer:
    """Return what installs hypervisors of ``kind``, a name that the spec knows."""
    found: Installer = import_module(f"{__name__}.{kind}").INSTALLER
    return found


def outer(kind: str) -> Outer:
    """Return what makes an outer host of ``kind`` a place, a name that the spec's `hosts` know."""
    found: Outer = import_module(f"{__name__}.{kind}").outer
    return found
