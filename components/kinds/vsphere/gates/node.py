"""One ESXi host of a vCenter, and where a lab's things go there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Made, Moves
from components.kinds.vsphere.api import Vsphere
from components.kinds.vsphere.gates.base import AtVsphere, VsphereGate
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class OneHost(AtVsphere):
    """Properties of a host."""

    server: Moves[str]
    datacenter: Moves[str]
    node: Moves[str]
    datastore: Moves[str]
    host: Made[str] = None
    pool: Made[str] = None
    store: Made[str] = None
    endpoint: Made[str] = None


class VsphereNodeProvider(VsphereGate[OneHost]):
    """Looks up the ids of a host and its datastore, by which the provider takes them."""

    shape = OneHost

    @override
    def seen(self, vcenter: Vsphere, props: OneHost) -> Seen:
        same = _found(vcenter, props) == (props.host, props.pool, props.store)
        text = f"host {props.node} is {'there' if same else 'another one than it was'}"
        return Seen(ok=same, text=text)

    @override
    def mend(self, olds: OneHost | None, news: OneHost) -> OneHost:
        with Vsphere(news.api) as vcenter:
            host, pool, store = _found(vcenter, news)
            return replace(news, host=host, pool=pool, store=store, endpoint=news.server)


def _found(vcenter: Vsphere, props: OneHost) -> tuple[str, str, str]:
    found = vcenter.node(props.datacenter, props.node, props.datastore)
    return found.host, found.pool, found.store


class VsphereNode(BorderResource, module="nestlab", name="VsphereNode"):
    """One host that is there. Who is replaced with it is made anew when the lab moves to another."""

    host: pulumi.Output[str]
    pool: pulumi.Output[str]
    store: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    """The vCenter, known once it has answered: a provider with a known one connects in preview too."""

    def __init__(
        self, name: str, props: OneHost, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(VsphereNodeProvider(), name, props, opts)
