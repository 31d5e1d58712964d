"""The gate of a guest's further disk: it is there, and as large as the stack says.

The provider knows no change of a volume: another size would be another disk, and what is on it lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Named
from components.kinds.libvirt.virsh import Virsh, VirshError, libvirt_of
from components.reach.driver import shrinks
from components.reach.shell import Target
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pulumi

GIB = 1 << 30
CAPACITY = re.compile(r"(?m)^Capacity:\s+(\d+) bytes$")


@dataclass(frozen=True, kw_only=True)
class Disk(Named):
    """Properties of a further disk."""

    target: Target
    uri: str
    pool: str
    volume: str
    domain: str
    """Whose it is."""
    disk: str
    """Its name in the stack file."""
    gib: int


class DiskGateProvider(Gate[Disk]):
    """Looks how large a disk is, and grows it, whether its guest runs or not."""

    shape = Disk

    @override
    def forbidden(self, olds: Disk, news: Disk) -> Iterable[tuple[str, str]]:
        if news.gib < olds.gib:
            yield "gib", shrinks(news.domain, news.disk, olds.gib, news.gib)

    @override
    def look(self, props: Disk) -> Seen:
        has, name = self._size(libvirt_of(props), props), f"disk {props.disk} of {props.domain}"
        if has is None:
            return Seen(ok=False, text=f"{name} is not there any more")
        return Seen(ok=has >= props.gib * GIB, text=f"{name} has {has / GIB:g} GiB")

    @override
    def mend(self, olds: Disk | None, news: Disk) -> Disk:
        virsh, wants = libvirt_of(news), news.gib * GIB
        has = self._size(virsh, news)
        if has is None:
            raise VirshError(
                f"disk {news.disk} of {news.domain} is not there any more, and what was on it is lost: "
                "`pulumi refresh` sees it, and the next `pulumi up` makes an empty one"
            )
        if has < wants:
            self._grow(virsh, news, wants)
            say(f"{news.name}: grown to {news.gib} GiB")
        return news

    def _size(self, virsh: Virsh, props: Disk) -> int | None:
        told = virsh.run("vol-info", props.volume, "--pool", props.pool, "--bytes")
        if not told.ok:
            if "not found" in told.err or "no storage" in told.err:
                return None
            raise VirshError(told.said)
        found = CAPACITY.search(told.out)
        return int(found[1]) if found else 0

    def _grow(self, virsh: Virsh, props: Disk, wants: int) -> None:
        if virsh.domain_state(props.domain) in {"running", "paused", "idle"}:
            # QEMU has it open: it grows it itself, and its guest sees that.
            path = virsh.must("vol-path", props.volume, "--pool", props.pool).strip()
            virsh.must("blockresize", props.domain, path, f"{wants}b")
        else:
            virsh.must("vol-resize", props.volume, str(wants), "--pool", props.pool)


class DiskGate(BorderResource, module="nestlab", name="DiskGate"):
    """A further disk as large as the stack says."""

    def __init__(self, name: str, props: Disk, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(DiskGateProvider(), name, props, opts)
