"""The number of a guest: kept from others, and cleared of what a killed run left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from components.gates import api as slots
from components.gates.api import is_ours
from components.gates.base import BorderResource, Moves
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate

if TYPE_CHECKING:
    import pulumi

    from components.reach.waiting import Seen


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a number in the cluster."""

    node: str
    kind: str
    """qemu or lxc."""
    vmid: int
    name: str


class Numbered(Protocol):
    """A guest or container by its number, on its node."""

    @property
    def node(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def vmid(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Slot(OnNode, slots.Slot):
    """Properties of the number of a guest."""

    kind: Moves[str]
    """qemu or lxc."""
    vmid: Moves[int]


class PveSlotProvider(PveGate[Slot]):
    """Keeps the number of a guest from others, and clears what a killed run left there."""

    shape = Slot

    @override
    def look(self, props: Slot) -> Seen:
        return props.seen

    @override
    def mend(self, olds: Slot | None, news: Slot) -> Slot:
        pve = Pve(news.api)
        found = holder_of(pve, news)
        if found is None:
            return replace(news, left=False)
        config = pve.find(config_path(found)) or {}
        if not is_ours(config.get("description"), news.owner):
            raise PveError(
                f"node {found.node} has a guest {news.vmid} that is not this lab's "
                f"({found.name}): give it another number"
            )
        # One on another node is the lab's own, and goes once the one that is made here has its place.
        if found.node == news.node and (olds is None or olds.left):
            # Made by a run that did not come to write it into the state.
            remove_guest(pve, found)
            news.cleared()
        return replace(news, left=False)

    @override
    def retire(self, props: Slot) -> None:
        # By now the provider has deleted the guest it knew of; what is there was half-made.
        pve = Pve(props.api)
        config = pve.find(config_path(props))
        if config is not None and is_ours(config.get("description"), props.owner):
            remove_guest(pve, props)
            props.cleared()


def holder_of(pve: Pve, props: Numbered) -> Holder | None:
    """Return who has the number in the whole cluster; None for nobody."""
    for each in pve.get("cluster/resources", type="vm"):
        if each["vmid"] == props.vmid:
            return Holder(each["node"], each["type"], each["vmid"], str(each.get("name")))
    return None


def path_of(props: Numbered) -> str:
    return f"nodes/{props.node}/{props.kind}/{props.vmid}"


def config_path(props: Numbered) -> str:
    return f"{path_of(props)}/config"


def label_of(props: Numbered) -> str:
    return f"{'container' if props.kind == 'lxc' else 'guest'} {props.vmid}"


def remove_guest(pve: Pve, props: Numbered) -> None:
    at = path_of(props)
    if pve.get(f"{at}/status/current").get("status") == "running":
        pve.wait(props.node, pve.post(f"{at}/status/stop"), 120)
    pve.wait(props.node, pve.delete(at, purge=1), 120)


class PveSlot(BorderResource, module="nestlab", name="PveSlot"):
    """The number of a guest on a node."""

    def __init__(self, name: str, props: Slot, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PveSlotProvider(), name, props, opts)
