"""The gate of a Linux bridge on a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.api import MARK, is_ours
from components.gates.base import BorderResource, Made, Moves
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class Bridge(OnNode):
    """Properties of a bridge's gate."""

    bridge: Moves[str]
    cidr: str
    """Address of the node on it; empty for none."""
    owner: str
    """Empty for one that has to be there."""
    network: Made[str] = None


class PveNetworkProvider(PveGate[Bridge]):
    """Makes a Linux bridge on a node, and keeps it up."""

    shape = Bridge

    @override
    def seen(self, pve: Pve, props: Bridge) -> Seen:
        bridge = props.bridge
        found = pve.find(_interface(props))
        if found is None:
            return Seen(ok=False, text=f"bridge {bridge} is not there any more")
        if not props.owner:
            return Seen(ok=True, text=f"bridge {bridge} is there")
        if not is_ours(found.get("comments"), props.owner):
            return Seen(ok=False, text=f"bridge {bridge} is somebody else's")
        if (found.get("cidr") or "") != props.cidr:
            return Seen(ok=False, text=f"bridge {bridge} has the address {found.get('cidr')}")
        return self._active(pve, props)

    def _active(self, pve: Pve, props: Bridge) -> Seen:
        bridge = props.bridge
        listed = pve.get(f"nodes/{props.node}/network", type="any_bridge")
        active = any(each["iface"] == bridge and each.get("active") for each in listed)
        return Seen(ok=active, text=f"bridge {bridge} is {'up' if active else 'down'}")

    @override
    def mend(self, olds: Bridge | None, news: Bridge) -> Bridge:
        pve, bridge = Pve(news.api), news.bridge
        found = pve.find(_interface(news))
        if not news.owner:
            if found is None:
                raise PveError(f"node {news.node} has no bridge {bridge}, which the stack names")
            return replace(news, network=bridge)
        if found is not None and not is_ours(found.get("comments"), news.owner):
            raise PveError(
                f"node {news.node} has a bridge {bridge} that is not this lab's: rename one"
            )
        wanted = {
            "type": "bridge",
            "autostart": 1,
            "comments": MARK.format(owner=news.owner),
            **({"cidr": news.cidr} if news.cidr else {}),
        }
        where = f"nodes/{news.node}/network"
        if found is None:
            pve.post(where, iface=bridge, **wanted)
        else:
            pve.put(_interface(news), **wanted)
        pve.wait(news.node, pve.put(where), 60)
        return replace(news, network=bridge)

    @override
    def retire(self, props: Bridge) -> None:
        pve = Pve(props.api)
        found = pve.find(_interface(props))
        if props.owner and found and is_ours(found.get("comments"), props.owner):
            pve.delete(_interface(props))
            pve.wait(props.node, pve.put(f"nodes/{props.node}/network"), 60)


def _interface(props: Bridge) -> str:
    return f"nodes/{props.node}/network/{props.bridge}"


class PveNetworkGate(BorderResource, module="nestlab", name="PveNetworkGate"):
    """A bridge of a node that is up: made here, or, without ``owner``, one that has to be there."""

    network: pulumi.Output[str]
    """Its name, known once it is up."""

    def __init__(
        self, name: str, props: Bridge, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(PveNetworkProvider(), name, props, opts)
