"""What XAPI has: all objects of a place at one look, which those that look at the same time share."""

from __future__ import annotations

import threading
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from components.kinds.xenserver.names import BRIDGE, LABEL, marks
from components.kinds.xenserver.xe import Row, entry, rows, xe
from components.reach.driver import DriverError

if TYPE_CHECKING:
    from components.reach.shell import Shell

FRESH_S = 2.0
"""How long what was seen may be used: the objects of one place look within a second of one another."""
CLASSES = {
    "vm": (
        ("is-control-domain=false",),
        (
            *("name-label", "power-state", "memory-static-max", "memory-dynamic-max"),
            *("memory-dynamic-min", "memory-static-min", "VCPUs-max", "VCPUs-at-startup"),
            *("platform", "HVM-boot-params", "other-config"),
        ),
    ),
    "vbd": ((), ("vm-uuid", "vdi-uuid", "empty", "userdevice", "type")),
    "vif": ((), ("vm-uuid", "device", "MAC", "network-uuid")),
    "vdi": (
        ("managed=true",),
        (
            *("name-label", "is-a-snapshot", "sr-uuid", "vbd-uuids", "virtual-size", "location"),
            "other-config",
        ),
    ),
    "network": ((), ("name-label", "name-description", "bridge", "other-config")),
    "pif": (("management=true",), ("network-uuid",)),
    "sr": ((), ("type", "content-type")),
    "pbd": ((), ("sr-uuid", "device-config", "currently-attached")),
    "pool": ((), ("default-SR", "other-config")),
}
"""What is asked of each class of XAPI's objects: filters and fields; the UUID comes by itself."""
LASTING = ("network", "pif", "sr", "pbd")


class Host:
    """What a host has: each class of its objects is asked for once, when it is first needed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self._lock = threading.Lock()
        self._seen: dict[str, list[Row]] = {}

    def again(self) -> Host:
        """Return the host as it is after commands about guests, which leave `LASTING` as it was."""
        fresh = Host(self.shell)
        fresh._seen = {what: found for what, found in self._seen.items() if what in LASTING}
        return fresh

    def all(self, what: str, **wanted: str) -> list[Row]:
        """Return the objects of class ``what`` that have the fields ``wanted``."""
        with self._lock:
            if what not in self._seen:
                filters, fields = CLASSES[what]
                params = f"params=uuid,{','.join(fields)}"
                self._seen[what] = rows(xe(self.shell, f"{what}-list", *filters, params))
        fields_ = {key.replace("_", "-"): value for key, value in wanted.items()}
        return [
            row
            for row in self._seen[what]
            if all(row.get(key) == value for key, value in fields_.items())
        ]

    def pool(self) -> Row:
        """Return its pool, which every host has, alone in it or not."""
        found = self.all("pool")
        if not found:
            raise DriverError(
                f"{self.shell.name}: its toolstack knows no pool, it is not set up yet"
            )
        return found[0]

    def storage(self) -> str:
        """Return the UUID of where disks go: the pool's default, or the local one."""
        known = {row["uuid"] for row in self.all("sr")}
        default = self.pool()["default-SR"]
        if default in known:
            return default
        for kind in ("ext", "lvm"):
            for row in self.all("sr", type=kind):
                return row["uuid"]
        raise DriverError(
            f"{self.shell.name} has no storage for disks: make it with `xe sr-create type=ext "
            "content-type=user device-config:device=/dev/PARTITION name-label=local`"
        )

    def isos(self, folder: str) -> Row | None:
        """Return the connection (PBD) of the ISO repository whose folder is ``folder``."""
        for row in self.all("pbd"):
            if entry(row["device-config"], "location") == folder:
                return row
        return None

    def iso(self, path: str) -> Row | None:
        """Return the ISO that is the file ``path``, as XAPI knows it."""
        file = PurePosixPath(path)
        repository = self.isos(str(file.parent))
        if repository is None:
            return None
        found = self.all("vdi", sr_uuid=repository["sr-uuid"], location=file.name)
        return found[0] if found else None

    def image(self, path: str) -> Row | None:
        """Return the disk that the image ``path`` has been imported as; clones of it are others."""
        name = PurePosixPath(path).name
        for row in self.all("vdi"):
            label = LABEL.fullmatch(row["name-label"])
            mark = entry(row["other-config"], "nestlab")
            if label and label[1] == name and label[2] == mark:
                return row
        return None

    def network(self, called: str) -> str:
        """Return the UUID of the network that guests call ``called``."""
        if called == BRIDGE:
            for pif in self.all("pif"):
                return pif["network-uuid"]
            raise DriverError(f"{self.shell.name} has no network that it is managed by")
        if called.startswith(BRIDGE):
            bridge = called.removeprefix(BRIDGE)
            for row in self.all("network", bridge=bridge):
                return row["uuid"]
            have = ", ".join(sorted(row["bridge"] for row in self.all("network")))
            raise DriverError(f"{self.shell.name} has no bridge {bridge!r}: it has {have}")
        for row in self.all("network", name_label=called):
            if marks(row):
                return row["uuid"]
        raise DriverError(f"{self.shell.name} has no network {called!r} of the lab any more")


_shared: dict[str, tuple[float, Host]] = {}
_sharing = threading.Lock()
_repositories: dict[str, threading.Lock] = {}


def glanced(shell: Shell) -> Host:
    """Return what ``shell``'s host has, seen within the last `FRESH_S` seconds, shared by all who ask."""
    with _sharing:
        kept = _shared.get(shell.name)
        if kept is None or time.monotonic() - kept[0] > FRESH_S:
            kept = _shared[shell.name] = (time.monotonic(), Host(shell))
        return kept[1]


def changed(shell: Shell) -> None:
    """Say that something is being changed at the host, so that the next glance is a new one."""
    with _sharing:
        _shared.pop(shell.name, None)


def repository(shell: Shell) -> threading.Lock:
    """Two media at once must not make two repositories, nor one remove the other's."""
    with _sharing:
        return _repositories.setdefault(shell.name, threading.Lock())
