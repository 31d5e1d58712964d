"""What the gates of Proxmox VE share: a node's API is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from components.gates.api import ApiGate
from components.gates.base import Moves, Named
from components.kinds.proxmox.api import Api, Pve

if TYPE_CHECKING:
    from components.reach.waiting import Seen


@dataclass(frozen=True, kw_only=True)
class OnNode(Named):
    """Properties of what is on a node."""

    api: Api
    """How its cluster is reached, secret."""
    node: Moves[str]


N = TypeVar("N", bound=OnNode)


class PveGate(ApiGate[N]):
    """A gate that looks at a node's API."""

    @override
    def look(self, props: N) -> Seen:
        return self.seen(Pve(props.api), props)

    def seen(self, pve: Pve, props: N) -> Seen:
        """Look, through ``pve``."""
        raise NotImplementedError
