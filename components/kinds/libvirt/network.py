"""A network of a libvirt: what the provider is told, the gate that keeps it up, and its uplink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pulumi_libvirt as libvirt

from components.gates.codec import later
from components.kinds.libvirt import domain_xml
from components.kinds.libvirt.gates.closed import Closed, ClosedGate
from components.kinds.libvirt.gates.network import Network, NetworkGate
from components.kinds.libvirt.gates.uplink import Uplink, UplinkGate
from components.kinds.libvirt.virsh import host_xml
from components.place.contract import NetworkMade
from components.place.machine import fingerprint
from components.stackfile.networks import OUTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pulumi

    from components.kinds.libvirt.place import LibvirtPlace
    from components.reach.orders import Reservation
    from components.stackfile import NetworkPlan
    from components.stackfile.plan import UplinkPlan

MODES = {"nat": "nat", "isolated": "none", "route": "route", "open": "open", "bridge": "bridge"}
"""Our modes in the provider's words; macvtap is none of a network's, but of each NIC."""


def network(
    place: LibvirtPlace,
    name: str,
    plan: NetworkPlan,
    reservations: Sequence[Reservation],
    parent: pulumi.Resource | None,
) -> NetworkMade:
    """Make ``plan`` at ``place``; see `Place.network`.

    A bridge is made before the network that joins it; ARP is answered for a network that is there, and one is
    closed before anything is on it.
    """
    made = _reached(place, name, plan, reservations, parent)
    if not plan.closed:
        return made
    closed = ClosedGate(
        f"{name}-closed",
        Closed(
            uri=place.uri,
            bridge=plan.bridge,
            gateway=plan.gateway or "",
            user=later(place.lab.identity.value),
        ),
        place.bound(parent, depends_on=[made.ready]),
    )
    return NetworkMade(name=made.name, ready=closed)


def _reached(
    place: LibvirtPlace,
    name: str,
    plan: NetworkPlan,
    reservations: Sequence[Reservation],
    parent: pulumi.Resource | None,
) -> NetworkMade:
    uplink = plan.uplink
    before = None
    if uplink and plan.mode in OUTER:
        before = _uplink(place, name, plan, uplink, [], parent, after=place.ready)
        if plan.mode == "macvtap":
            return NetworkMade(name="", ready=before)
    gate = _network(place, name, plan, reservations, parent, before)
    if uplink is None or before:
        return NetworkMade(name=gate.network, ready=gate)
    proxied = _uplink(place, name, plan, uplink, reservations, parent, after=gate)
    return NetworkMade(name=gate.network, ready=proxied)


def _network(
    place: LibvirtPlace,
    name: str,
    plan: NetworkPlan,
    reservations: Sequence[Reservation],
    parent: pulumi.Resource | None,
    before: pulumi.Resource | None,
) -> NetworkGate:
    own = plan.mode != "bridge"
    hosts = [host_xml(each) for each in reservations] if plan.dhcp else []
    uuid = place.uuid("network", plan.called, f"{name}-network")
    made = libvirt.Network(
        f"{name}-network",
        name=plan.called,
        mode=MODES[plan.mode],
        bridge=plan.bridge,
        addresses=[plan.subnet] if plan.subnet else None,
        domain=plan.domain,
        dhcp=libvirt.NetworkDhcpArgs(enabled=plan.dhcp) if own else None,
        autostart=True,
        xml=libvirt.NetworkXmlArgs(
            xslt=uuid.apply(lambda value: domain_xml.network(value, plan.gateway or "", hosts))
        ),
        # The first reservations come with the network: adding one later makes libvirt write all
        # its firewall rules again, three seconds on an emulated machine. The gate does the rest.
        opts=place.options(
            parent,
            depends_on=[place.ready, *([before] if before else [])],
            delete_before_replace=True,
            ignore_changes=["xml"],
        ),
    )
    return NetworkGate(
        f"{name}-gate",
        Network(
            target=later(place.target),
            uri=place.uri,
            network=later(made.name),
            instance=fingerprint(plan),
            reservations=list(reservations) if plan.dhcp else [],
            bridge="" if own or before or place.plan.path else plan.bridge,
        ),
        place.bound(parent, depends_on=[made]),
    )


def _uplink(
    place: LibvirtPlace,
    name: str,
    plan: NetworkPlan,
    uplink: UplinkPlan,
    reservations: Sequence[Reservation],
    parent: pulumi.Resource | None,
    *,
    after: pulumi.Resource,
) -> UplinkGate:
    mode: Literal["bridge", "macvtap", "proxy_arp"] = (
        "proxy_arp" if uplink.proxy_arp else "bridge" if plan.mode == "bridge" else "macvtap"
    )
    user = place.lab.identity.value.apply(lambda value: f"{value}.{plan.name}")
    return UplinkGate(
        f"{name}-uplink",
        Uplink(
            uri=place.uri,
            mode=mode,
            nic=uplink.nic,
            vlan=uplink.vlan,
            bridge=plan.bridge if mode == "bridge" else "",
            user=later(user),
            network=plan.called,
            subnet=(plan.subnet or "") if uplink.proxy_arp else "",
            addresses=[each.address for each in reservations],
            confirm_s=uplink.confirm_s,
        ),
        place.bound(parent, depends_on=[after]),
    )
