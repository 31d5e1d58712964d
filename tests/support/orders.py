"""Orders as drivers get them, from plain fields: read by the codec, as behind the engine's border.

The functions return what most kinds take; what one of them has otherwise is given by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from components.gates.codec import read
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

OWNER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c01"
"""Of guests; a network and a medium have their own."""
NET = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c02"
FILE = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c04"
MAC = "52:54:00:00:00:09"
NETWORK: Mapping[str, Any] = {
    "name": "own",
    "mode": "nat",
    "bridge": "",
    "subnet": "10.78.0.0/24",
    "prefix": 24,
    "gateway": "10.78.0.1",
    "dhcp": True,
    "dhcp_start": "10.78.0.2",
    "dhcp_end": "10.78.0.254",
    "domain": "",
    "reservations": [{"mac": MAC, "address": "10.78.0.9", "name": "web"}],
    "owner": NET,
}
GUEST: Mapping[str, Any] = {
    "name": "web",
    "memory_mib": 512,
    "cores": 2,
    "disk_gib": 4,
    "disk_bus": "sata",
    "firmware": "bios",
    "machine": "pc",
    "video": "vga",
    "boot": ["cdrom", "hd"],
    "nics": [],
    "iso": "",
    "image": "",
    "autostart": True,
    "console": {"type": "vnc", "listen": "127.0.0.1", "port": 0, "password": ""},
    "ready": {"probe": "none", "host": "", "port": 0},
    "store": "",
    "owner": OWNER,
}


def order(of: type[T], fields: Mapping[str, Any]) -> T:
    """Return the order ``of`` that has ``fields``, at every depth nothing where they say nothing."""
    made: T = read(of, _whole(of, fields))
    return made


def _whole(shape: Any, given: Any) -> Any:
    if dataclasses.is_dataclass(shape) and isinstance(given, dict):
        hints = typing.get_type_hints(shape)
        fields = {each.name: hints[each.name] for each in dataclasses.fields(shape)}
        whole = {
            name: _whole(of, given[name]) if name in given else _nothing(of)
            for name, of in fields.items()
        }
        return dict(given) | whole
    if typing.get_origin(shape) is list and isinstance(given, (list, tuple)):
        [inner] = typing.get_args(shape)
        return [_whole(inner, each) for each in given]
    return given


def _nothing(shape: Any) -> Any:
    """Return what stands for nothing in a field: an empty text, 0, no, an empty list."""
    if dataclasses.is_dataclass(shape):
        return _whole(shape, {})
    return (typing.get_origin(shape) or shape)()


def network_order(**other: Any) -> NetworkOrder:
    """Return the order of a NAT network with DHCP."""
    return order(NetworkOrder, {**NETWORK, **other})


def guest_order(**other: Any) -> GuestOrder:
    """Return the order of a guest with a disk and nothing else."""
    return order(GuestOrder, {**GUEST, **other})


def medium_order(path: Path, **other: Any) -> MediumOrder:
    """Return the order of the file ``path``, under its own name and with its sum."""
    content = path.read_bytes()
    plain = {
        "name": path.name,
        "path": str(path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "store": "",
        "owner": FILE,
    }
    return order(MediumOrder, plain | other)
