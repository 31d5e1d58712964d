"""What a lab's outer host may be: this machine's libvirt or another's, a Proxmox VE cluster, a vCenter.

A new one: its file here, its line below, and ``outer`` in `components/hypervisors` under the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.spec.hosts.base import HostKind

NAMES = (
    "libvirt",
    "proxmox",
    "vsphere",
)  # fmt: skip  # one line each
"""Modules of this package; each holds its `HostKind` as ``HOST``, under the same name."""
DEFAULT = "libvirt"
"""Kind of a host whose kind the stack does not say."""

HOSTS: Mapping[str, HostKind] = {name: import_module(f"{__name__}.{name}").HOST for name in NAMES}
