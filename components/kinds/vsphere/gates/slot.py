"""The name of a guest: kept from others, and cleared of what a killed run left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from components.gates import api as slots
from components.gates.api import is_ours
from components.gates.base import BorderResource, Moves
from components.kinds.vsphere.api import Vsphere, VsphereError
from components.kinds.vsphere.gates.base import AtVsphere, VsphereGate

if TYPE_CHECKING:
    import pulumi

    from components.reach.waiting import Seen


@dataclass(frozen=True, kw_only=True)
class Slot(AtVsphere, slots.Slot):
    """Properties of the name of a guest."""

    server: Moves[str]
    datacenter: Moves[str]
    called: Moves[str]


class VsphereSlotProvider(VsphereGate[Slot]):
    """Keeps the name of a guest from others, and clears what a killed run left there."""

    shape = Slot

    @override
    def look(self, props: Slot) -> Seen:
        return props.seen

    @override
    def mend(self, olds: Slot | None, news: Slot) -> Slot:
        with Vsphere(news.api) as vcenter:
            found = vcenter.by_name(news.datacenter, news.called)
            if found is not None:
                if not _is_ours(vcenter, found, news):
                    raise VsphereError(
                        f"{news.datacenter} has a guest {news.called} that is not this lab's: "
                        "rename one"
                    )
                if olds is None or olds.left:
                    # Made by a run that did not come to write it into the state.
                    vcenter.remove(found)
                    news.cleared()
        return replace(news, left=False)

    @override
    def retire(self, props: Slot) -> None:
        # By now the provider has deleted the guest it knew of; what is there was half-made.
        with Vsphere(props.api) as vcenter:
            found = vcenter.by_name(props.datacenter, props.called)
            if found is not None and _is_ours(vcenter, found, props):
                vcenter.remove(found)
                props.cleared()


def _is_ours(vcenter: Vsphere, machine: Any, props: Slot) -> bool:
    # A machine that is just being made by somebody has none.
    note = vcenter.read(machine, "config.annotation").get("config.annotation")
    return is_ours(note, props.owner)


class VsphereSlot(BorderResource, module="nestlab", name="VsphereSlot"):
    """The name of a guest in a datacenter's folder of machines."""

    def __init__(self, name: str, props: Slot, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(VsphereSlotProvider(), name, props, opts)
