"""The gate of a storage: it takes what the lab uploads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Made, Moves
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class Storage(OnNode):
    """Properties of a storage's gate."""

    storage: Moves[str]
    content: Moves[str]
    """What it is to take."""
    ours: bool
    """Whether the lab made the node, and so may set it up."""
    takes: Made[str] = None


class PveStorageProvider(PveGate[Storage]):
    """Sees to it that a storage takes a kind of content."""

    shape = Storage

    @override
    def seen(self, pve: Pve, props: Storage) -> Seen:
        storage, content = props.storage, props.content
        takes = content in _contents(pve, props)
        return Seen(ok=takes, text=f"storage {storage} takes {'' if takes else 'no '}{content}")

    @override
    def mend(self, olds: Storage | None, news: Storage) -> Storage:
        pve, storage, content = Pve(news.api), news.storage, news.content
        has = _contents(pve, news)
        if content not in has:
            if not news.ours:
                raise PveError(
                    f"storage {storage} of node {news.node} does not take content {content}: "
                    f"`pvesm set {storage} --content {','.join([*has, content])}` there"
                )
            pve.put(f"storage/{storage}", content=",".join([*has, content]))
        return replace(news, takes=content)


def _contents(pve: Pve, props: Storage) -> list[str]:
    told = pve.get(f"nodes/{props.node}/storage/{props.storage}/status").get("content")
    return [each for each in str(told or "").split(",") if each]


class PveStorage(BorderResource, module="nestlab", name="PveStorage"):
    """A storage of a node that takes a kind of content.

    ``local`` takes no disk images (``import``) where it was made by an installer before 9.0.7.
    """

    takes: pulumi.Output[str]
    """The content, known once it is taken."""

    def __init__(
        self, name: str, props: Storage, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(PveStorageProvider(), name, props, opts)
