"""The gate of a network: it is defined, it is up, translates addresses, and holds the planned DHCP reservations.

Reservations are kept here and not by the domains that need them, because an address planned in the
spec must be in force before its machine boots, and must come back with a network that was removed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Named, Unasked
from components.kinds.libvirt.census import census, changed
from components.kinds.libvirt.firewall import lacks, translated
from components.kinds.libvirt.ownership import defined
from components.kinds.libvirt.uplink import checks
from components.kinds.libvirt.uplink.host import Host, NetError
from components.kinds.libvirt.uplink.steps import Wanted
from components.kinds.libvirt.virsh import NetworkFacts, libvirt_of
from components.reach.client import host_shell
from components.reach.orders import Reservation
from components.reach.shell import Target, Unreachable
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pulumi


@dataclass(frozen=True, kw_only=True)
class Network(Named):
    """Properties of a network's gate."""

    target: Target
    uri: str
    network: str
    instance: str
    """What tells it from another one of its name."""
    reservations: list[Reservation]
    bridge: Unasked[str] = ""
    """A bridge of the outer host's own that it joins; empty for none, and of labs that were made before."""
    definition: Made[str] = None


class NetworkGateProvider(Gate[Network]):
    """Looks at one libvirt network, starts it, defines it again when it is gone."""

    shape = Network

    @override
    def problems(self, news: Network) -> Iterable[tuple[str, str]]:
        if not news.bridge:
            return
        host = Host(host_shell(news.uri))
        try:
            facts = host.look()
        except (Unreachable, NetError) as silent:
            say(f"{news.name}: whether there is a bridge {news.bridge} can't be seen: {silent}")
            return
        if why := checks.no_bridge(facts, news.bridge):
            yield "bridge", f"{host.shell.name}: {why}"
        for risk in checks.warnings(facts, Wanted("bridge", "", 0, news.bridge, "", [])):
            say(f"{news.name}: {host.shell.name}: {risk}")

    @override
    def look(self, props: Network) -> Seen:
        active = census(libvirt_of(props)).networks.get(props.network)
        if active is None:
            return Seen(ok=False, text=f"network {props.network} is not defined any more")
        if active and _untranslated(props, props.definition or ""):
            return Seen(ok=False, text=f"network {props.network} is up, and its NAT rules are gone")
        return Seen(ok=active, text=f"network {props.network} is {'up' if active else 'down'}")

    @override
    def mend(self, olds: Network | None, news: Network) -> Network:
        virsh, network = libvirt_of(news), news.network
        changed(virsh)
        found = virsh.network(network)
        there = found.definition if found else None
        told = defined(virsh, "network", network, there, (olds and olds.definition) or "")
        facts = found or NetworkFacts(active=False, definition=told)
        if olds and facts.active and _untranslated(news, facts.definition):
            # It writes them when a network starts.
            virsh.must("net-destroy", network)
            facts = replace(facts, active=False)
        definition = virsh.reserve(network, facts, news.reservations)
        if not facts.active:
            virsh.must("net-start", network)
        if olds or not facts.active:
            # The provider, where it made it anew, starts it and leaves the taps as they are.
            virsh.plug(network)
        return replace(news, definition=definition)

    @override
    def retire(self, props: Network) -> None:
        virsh = libvirt_of(props)
        if props.definition and virsh.network(props.network) is None:
            # The provider refuses to delete what is not there.
            virsh.define("network", props.definition)


def _untranslated(props: Network, definition: str) -> bool:
    """Whether the network's machines can't reach outside, as nobody translates their addresses."""
    subnet = translated(definition) if definition else ""
    try:
        return bool(subnet) and lacks(libvirt_of(props).host, subnet)
    except Unreachable:
        # One whose ssh leads to libvirt alone can't be asked; whether it is there libvirt says.
        return False


class NetworkGate(BorderResource, module="nestlab", name="NetworkGate"):
    """A network that is up. ``network`` is its name in libvirt, known once it is."""

    network: pulumi.Output[str]
    """Name of the network in its libvirt."""
    definition: pulumi.Output[str]
    """Its XML, from which it is defined again when somebody removes it."""

    def __init__(
        self, name: str, props: Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(NetworkGateProvider(), name, props, opts)
