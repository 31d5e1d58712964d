"""The gate of a template that guests are linked clones of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Made, Moves
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.kinds.proxmox.gates.guest import (
    Again,
    definition_of,
    is_half_made,
    is_template,
    made_again,
)
from components.kinds.proxmox.gates.slot import config_path, remove_guest
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True, kw_only=True)
class Template(OnNode):
    """Properties of a template's gate."""

    kind: str = "qemu"
    vmid: Moves[int]
    again: Again
    instance: str
    """What tells it from another one of its number."""
    definition: Made[dict[str, str]] = None


class PveTemplateProvider(PveGate[Template]):
    """Keeps a template that guests are cloned from."""

    shape = Template

    @override
    def seen(self, pve: Pve, props: Template) -> Seen:
        config = pve.find(config_path(props))
        if config is None:
            return Seen(ok=False, text=f"template {props.vmid} is not there any more")
        whole = is_template(config) and not is_half_made(config)
        text = f"template {props.vmid} is {'there' if whole else 'half-made'}"
        return Seen(ok=whole, text=text)

    @override
    def mend(self, olds: Template | None, news: Template) -> Template:
        pve = Pve(news.api)
        if not self.seen(pve, news).ok:
            if olds is None or not olds.definition:
                raise PveError(f"template {news.vmid} was removed while it was being made")
            if pve.find(config_path(news)) is not None:
                remove_guest(pve, news)
            made_again(pve, olds, olds.definition)
            say(f"{news.name}: made again")
        return replace(news, definition=definition_of(pve.get(config_path(news))))

    @override
    def retire(self, props: Template) -> None:
        pve = Pve(props.api)
        if props.definition and pve.find(config_path(props)) is None:
            # The provider refuses to delete what is not there.
            made_again(pve, props, props.definition)


class PveTemplate(BorderResource, module="nestlab", name="PveTemplate"):
    """A template of a node that is there."""

    def __init__(
        self, name: str, props: Template, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(PveTemplateProvider(), name, props, opts)
