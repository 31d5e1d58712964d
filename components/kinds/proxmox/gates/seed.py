"""The gate of a guest's seed: an ISO of a storage, sent, looked at, closed to other accounts, and removed.

Not the provider's file, which looks at a refresh only. What is sent by the API gets the mode 0644 (pve-storage,
``PVE/API2/Storage/Status.pm``, method upload), so on a node that the lab made it is closed by SSH. On somebody
else's cluster nothing but the API is the lab's: there root's accounts are who may log in to a node at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Made, Moves, Secret
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.reach.shell import NOWHERE, Target, shell_of
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi

TASK_S = 120.0


@dataclass(frozen=True, kw_only=True)
class SeedFile(OnNode):
    """Properties of a seed on a node."""

    storage: Moves[str]
    called: Moves[str]
    """Name of the file there."""
    path: str
    """The disc, a file of this machine."""
    size: int
    """Bytes."""
    sha256: str
    closes: Secret[Target] = NOWHERE
    """The node, where the lab may set it up; empty where it may not."""
    volume: Made[str] = None


class PveSeedProvider(PveGate[SeedFile]):
    """Sends a seed, and sends it again where it is gone or another."""

    shape = SeedFile

    @override
    def seen(self, pve: Pve, props: SeedFile) -> Seen:
        size = _size(pve, props)
        if size is None:
            return Seen(ok=False, text=f"{_volume(props)} is not there any more")
        text = f"{_volume(props)} has {size} of {props.size} bytes"
        return Seen(ok=size == props.size, text=text)

    @override
    def mend(self, olds: SeedFile | None, news: SeedFile) -> SeedFile:
        pve = Pve(news.api)
        same = olds is not None and olds.sha256 == news.sha256
        if not (same and self.seen(pve, news).ok):
            task = pve.upload(
                f"nodes/{news.node}/storage/{news.storage}/upload",
                news.called,
                Path(news.path).read_bytes(),
                content="iso",
                sha256=news.sha256,
            )
            pve.wait(news.node, task, TASK_S)
        if news.closes != NOWHERE:
            _close(pve, news)
        return replace(news, volume=_volume(news))

    @override
    def retire(self, props: SeedFile) -> None:
        pve = Pve(props.api)
        if _size(pve, props) is not None:
            pve.wait(props.node, pve.delete(f"{_content(props)}/{_volume(props)}"), TASK_S)


def _volume(props: SeedFile) -> str:
    return f"{props.storage}:iso/{props.called}"


def _content(props: SeedFile) -> str:
    return f"nodes/{props.node}/storage/{props.storage}/content"


def _size(pve: Pve, props: SeedFile) -> int | None:
    """Return its size there, bytes; None where it is not."""
    listed = pve.get(_content(props), content="iso")
    found = (int(each["size"]) for each in listed if each["volid"] == _volume(props))
    return next(found, None)


def _close(pve: Pve, props: SeedFile) -> None:
    """Let root alone read it."""
    path = str(pve.get(f"{_content(props)}/{_volume(props)}")["path"])
    shell = shell_of(props.closes)
    done = shell.run(["chmod", "600", path])
    if not done.ok:
        raise PveError(f"{path} on {shell.name} can't be closed to others: {done.said}")


class PveSeed(BorderResource, module="nestlab", name="PveSeed"):
    """A guest's seed on a node."""

    volume: pulumi.Output[str]
    """What guests' drives call it, known once it is there."""

    def __init__(
        self, name: str, props: SeedFile, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(PveSeedProvider(), name, props, opts)
