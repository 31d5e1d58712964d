"""The gate of a port group, and of its switch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from components.gates.base import BorderResource, Made, Moves
from components.kinds.vsphere.api import Vsphere, VsphereError, sdk
from components.kinds.vsphere.gates.base import AtVsphere, VsphereGate
from components.reach.waiting import Seen

if TYPE_CHECKING:
    import pulumi

PORTS = 128
"""Of a standard switch, which ESXi widens by itself."""


@dataclass(frozen=True, kw_only=True)
class PortGroup(AtVsphere):
    """Properties of a port group's gate."""

    host: Moves[str]
    group: Moves[str]
    """Its name, which has digits that only this lab knows: what is called so is the lab's own."""
    switch: str
    own: bool
    """Whether the switch is the lab's too, or has to be there."""
    # In the provider's words, which policies read.
    allowPromiscuous: bool  # noqa: N815
    allowForgedTransmits: bool  # noqa: N815
    allowMacChanges: bool  # noqa: N815
    network: Made[str] = None
    network_id: Made[str] = None

    @property
    def security(self) -> dict[str, tuple[str, bool]]:
        """What its machines may do, by the API's words; the word of the property is beside it."""
        return {
            "allowPromiscuous": ("allowPromiscuous", self.allowPromiscuous),
            "forgedTransmits": ("allowForgedTransmits", self.allowForgedTransmits),
            "macChanges": ("allowMacChanges", self.allowMacChanges),
        }


class VsphereNetworkProvider(VsphereGate[PortGroup]):
    """Makes a port group, and a switch without network cards where it is to have its own."""

    shape = PortGroup

    @override
    def seen(self, vcenter: Vsphere, props: PortGroup) -> Seen:
        info = _network_info(vcenter, props)
        switch, group = _found(info, props)
        if switch is None:
            return Seen(ok=False, text=f"switch {props.switch} is not there any more")
        if props.own and switch.pnic:
            return Seen(ok=False, text=f"switch {props.switch} has got an uplink")
        if group is None:
            return Seen(ok=False, text=f"port group {props.group} is not there any more")
        return self._is_as_wanted(group.spec, props)

    def _is_as_wanted(self, spec: Any, props: PortGroup) -> Seen:
        called = f"port group {props.group}"
        if spec.vswitchName != props.switch:
            return Seen(ok=False, text=f"{called} is on {spec.vswitchName}")
        if spec.vlanId:
            return Seen(ok=False, text=f"{called} is in VLAN {spec.vlanId}")
        security = spec.policy.security if spec.policy else None
        for theirs, (word, allowed) in props.security.items():
            if bool(getattr(security, theirs, None)) != allowed:
                now = "may not" if allowed else "may"
                return Seen(ok=False, text=f"{called}: its machines {now} ({word})")
        return Seen(ok=True, text=f"{called} is there")

    @override
    def mend(self, olds: PortGroup | None, news: PortGroup) -> PortGroup:
        vim = sdk().vim

        with Vsphere(news.api) as vcenter:
            system, info = vcenter.networks(news.host), _network_info(vcenter, news)
            switch, group = _found(info, news)
            with vcenter.told():
                if switch is None or (news.own and switch.pnic):
                    self._switch(system, info, news, there=switch is not None)
                spec = vim.host.PortGroup.Specification(
                    name=news.group,
                    vlanId=0,
                    vswitchName=news.switch,
                    policy=vim.host.NetworkPolicy(
                        security=vim.host.NetworkPolicy.SecurityPolicy(
                            **{theirs: allowed for theirs, (_, allowed) in news.security.items()}
                        )
                    ),
                )
                if group is None:
                    system.AddPortGroup(spec)
                elif not self._is_as_wanted(group.spec, news).ok:
                    system.UpdatePortGroup(news.group, spec)
            network_id = vcenter.network_id(news.datacenter, news.group)
            return replace(news, network=news.group, network_id=network_id)

    def _switch(self, system: Any, info: Any, props: PortGroup, *, there: bool) -> None:
        vim = sdk().vim

        if not props.own:
            known = ", ".join(each.name for each in info.vswitch) or "none"
            raise VsphereError(
                f"the host has no switch {props.switch}, which the stack names; there is {known}"
            )
        spec = vim.host.VirtualSwitch.Specification(numPorts=PORTS)
        if there:
            # Without its bridge a switch has no network cards.
            system.UpdateVirtualSwitch(props.switch, spec)
        else:
            system.AddVirtualSwitch(props.switch, spec)

    @override
    def retire(self, props: PortGroup) -> None:
        with Vsphere(props.api) as vcenter:
            system, info = vcenter.networks(props.host), _network_info(vcenter, props)
            switch, group = _found(info, props)
            with vcenter.told():
                if group is not None:
                    system.RemovePortGroup(props.group)
                if switch is not None and props.own:
                    system.RemoveVirtualSwitch(props.switch)


def _network_info(vcenter: Vsphere, props: PortGroup) -> Any:
    system = vcenter.networks(props.host)
    with vcenter.told():
        return system.networkInfo


def _found(info: Any, props: PortGroup) -> tuple[Any, Any]:
    """Return the switch and the port group of a gate; None for what is not there."""
    switch = next((each for each in info.vswitch if each.name == props.switch), None)
    group = next((each for each in info.portgroup if each.spec.name == props.group), None)
    return switch, group


class VsphereNetworkGate(BorderResource, module="nestlab", name="VsphereNetworkGate"):
    """A port group of a host that is there."""

    network: pulumi.Output[str]
    """Its name, known once it is there."""
    network_id: pulumi.Output[str]
    """The id by which the provider takes it."""

    def __init__(
        self, name: str, props: PortGroup, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(VsphereNetworkProvider(), name, props, opts)
