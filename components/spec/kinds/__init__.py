"""The kinds of nested hypervisors the spec knows. A new one: its file here, and its line below."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.spec.places import Kind

NAMES = (
    "esxi",
    "hyperv",
    "kvm",
    "proxmox",
    "xenserver",
    "virtualbox",
    "workstation",
    "xen",
)  # fmt: skip  # one line each
"""Modules of this package; each holds its `Kind` as ``KIND``, under the same name."""


def _kind(name: str) -> Kind:
    kind: Kind = import_module(f"{__name__}.{name}").KIND
    if kind.name != name:
        raise ValueError(f"kinds/{name}.py calls itself {kind.name!r}")
    return kind


KINDS: Mapping[str, Kind] = {name: _kind(name) for name in NAMES}
