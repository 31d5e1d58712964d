"""What the gates of vSphere share: a vCenter's API is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from components.gates.api import ApiGate
from components.gates.base import Named
from components.kinds.vsphere.api import Api, Vsphere

if TYPE_CHECKING:
    from components.reach.waiting import Seen


@dataclass(frozen=True, kw_only=True)
class AtVsphere(Named):
    """Properties of what is in a datacenter."""

    api: Api
    """How its vCenter is reached, secret."""
    datacenter: str


N = TypeVar("N", bound=AtVsphere)


class VsphereGate(ApiGate[N]):
    """A gate that looks at a vCenter."""

    @override
    def look(self, props: N) -> Seen:
        with Vsphere(props.api) as vcenter:
            return self.seen(vcenter, props)

    def seen(self, vcenter: Vsphere, props: N) -> Seen:
        """Look, through ``vcenter``."""
        raise NotImplementedError
