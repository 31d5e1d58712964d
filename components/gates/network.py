"""The gate of a network: it is defined, it is up, and it holds the planned DHCP reservations.

Reservations are kept here and not by the domains that need them, because an address planned in the
spec must be in force before its machine boots, and must come back with a network that was removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Props, libvirt_of
from components.remote.census import census, changed
from components.remote.ownership import insist
from components.remote.shell import Target
from components.remote.virsh import NetworkFacts, VirshError, words_of
from components.remote.waiting import Seen
from components.remote.wanted import Reservation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pulumi


class Network(TypedDict):
    """Properties of a network's gate."""

    name: str
    target: Target
    uri: str
    network: str
    instance: str
    reservations: list[Reservation]
    definition: str | None


class NetworkGateProvider(Gate):
    """Looks at one libvirt network, starts it, defines it again when it is gone."""

    shape = Network

    inputs = ("name", "target", "uri", "network", "instance", "reservations")

    @override
    def look(self, props: Props) -> Seen:
        active = census(libvirt_of(props)).networks.get(props["network"])
        if active is None:
            return Seen(ok=False, text=f"network {props['network']} is not defined any more")
        return Seen(ok=active, text=f"network {props['network']} is {'up' if active else 'down'}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        virsh, network = libvirt_of(news), news["network"]
        changed(virsh)
        facts = virsh.network(network)
        if facts is None:
            if not olds.get("definition"):
                raise VirshError(f"network {network} is not defined at {virsh.shell.name}")
            virsh.define("network", olds["definition"])
            virsh.must("net-autostart", network)
            facts = NetworkFacts(active=False, definition=olds["definition"])
        else:
            insist("network", network, facts.definition, olds.get("definition") or "")
        definition = virsh.reserve(network, facts, words_of(news["reservations"]))
        if not facts.active:
            virsh.start_network(network)
        return {**news, "definition": definition}

    @override
    def retire(self, props: Props) -> None:
        virsh = libvirt_of(props)
        if props.get("definition") and virsh.network(props["network"]) is None:
            # The provider refuses to delete what is not there.
            virsh.define("network", props["definition"])


class NetworkGate(BorderResource, module="nestlab", name="NetworkGate"):
    """A network that is up. ``network`` is its name in libvirt, known once it is."""

    network: pulumi.Output[str]
    """Name of the network in its libvirt."""
    definition: pulumi.Output[str]
    """Its XML, from which it is defined again when somebody removes it."""

    def __init__(
        self,
        name: str,
        *,
        target: pulumi.Input[Mapping[str, Any]],
        uri: pulumi.Input[str],
        network: pulumi.Input[str],
        instance: str,
        reservations: Sequence[Mapping[str, str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "target": target,
            "uri": uri,
            "network": network,
            "instance": instance,
            "reservations": [dict(one) for one in reservations],
            "definition": None,
        }
        super().__init__(NetworkGateProvider(), name, props, opts)
