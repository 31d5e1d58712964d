"""A lab on a Proxmox VE cluster, played by fakepve."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING, Any, ClassVar

from fakepve.lxc import FakeCt
from fakepve.model import FakeVm
from typing_extensions import override

from tests.double import test_proxmox_outer as outer
from tests.double.test_proxmox import numbers
from tests.support import images
from tests.support.kept import ISO, ROOT, Lab, exchanged
from tests.support.pve import Pve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.pve import Api

URL = "https://kept-cluster"
PLAIN = ("nodes", "storages", "bridges", "digests", "images", "ostypes", "pools", "pool_info")
"""What the cluster keeps, as plain data."""
GUESTS: Mapping[str, Any] = {"vms": FakeVm, "cts": FakeCt}
SET, PAIRS = "a set", "pairs"
"""How what JSON has not is told: a set, a mapping whose keys are numbers."""


def _template() -> bytes:
    """A root file system with nothing in it, the same each time: gzip would write the time of now."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w"):
        pass
    return gzip.compress(packed.getvalue(), mtime=0)


class ProxmoxLab(Lab):
    """Its outer host is the cluster."""

    media: ClassVar[Mapping[str, bytes]] = {
        "live.iso": ISO,
        "disk.qcow2": images.qcow2(),
        "box.tar.gz": _template(),
    }

    @override
    def begin(self) -> None:
        self.cluster = self.running.enter_context(Pve(*outer.NODES))
        self.cluster.takes("import")
        outer.trusted(self.project, self.cluster)
        self.project.write(outer.program(outer.lab(self.cluster), self.folder))

    @override
    def world(self) -> Any:
        def told(api: Api) -> Any:
            guests = {each: [_told(vars(one)) for one in getattr(api, each)] for each in GUESTS}
            return guests | {each: _told(getattr(api, each)) for each in PLAIN}

        return self.cluster.within(told)

    @override
    def have(self, world: Any) -> None:
        def change(api: Api) -> None:
            for each in PLAIN:
                setattr(api, each, _read(world[each]))
            for each, kind in GUESTS.items():
                setattr(api, each, [_guest(kind, one) for one in world[each]])

        self.cluster.within(change)

    @override
    def harm(self) -> None:
        self.cluster.stop(numbers(self.cluster)["lab-live"])

    @override
    def left(self) -> set[str]:
        bridges = {own for node in outer.NODES for own in outer.own_bridges(self.cluster, node)}
        return set(numbers(self.cluster)) | bridges

    @override
    def marked(self, told: Any) -> Any:
        return exchanged(told, {str(self.folder): ROOT, self.cluster.api.url: URL})

    @override
    def own(self, told: Any) -> Any:
        return exchanged(told, {ROOT: str(self.folder), URL: self.cluster.api.url})


def _guest(kind: Any, told: Any) -> Any:
    found = _read(told)
    made = kind(found["vmid"], "")
    vars(made).update(found)
    return made


def _told(value: Any) -> Any:
    if isinstance(value, set):
        return {SET: sorted(value)}
    if isinstance(value, dict) and any(not isinstance(key, str) for key in value):
        return {PAIRS: [[key, _told(each)] for key, each in value.items()]}
    if isinstance(value, dict):
        return {key: _told(each) for key, each in value.items()}
    return [_told(each) for each in value] if isinstance(value, list | tuple) else value


def _read(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {SET}:
        return set(value[SET])
    if isinstance(value, dict) and set(value) == {PAIRS}:
        return {key: _read(each) for key, each in value[PAIRS]}
    if isinstance(value, dict):
        return {key: _read(each) for key, each in value.items()}
    return [_read(each) for each in value] if isinstance(value, list) else value


LAB = ProxmoxLab
