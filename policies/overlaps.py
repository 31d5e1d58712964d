"""overlaps: no two labs of a stack meet by accident.

Two networks of one host with the same name, bridge or addresses are one network, or none: libvirt
refuses the second, or its guests answer for one another. A nested host whose inner subnet is also
the one it stands in can't reach either. The same goes for pools: one folder, one owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Any

import machines
from domain_xml import Unjudgeable, network
from isolation import NETWORK, PROXMOX_NETWORK
from known import text
from pulumi_policy import (
    EnforcementLevel,
    ReportViolation,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from relations import Relations

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from pulumi_policy import PolicyResource

POOL = "libvirt:index/pool:Pool"
NETWORKS = (NETWORK, machines.REMOTE, PROXMOX_NETWORK)
"""What has names and addresses in its inputs; vSphere's networks have none."""


@dataclass(frozen=True)
class Net:
    """One network, whoever makes it; empty for what is not known or not there."""

    made: PolicyResource
    name: str
    bridge: str
    subnets: tuple[IPv4Network | IPv6Network, ...]


def _share_nothing(args: StackValidationArgs, report: ReportViolation) -> None:
    stack = Relations(args.resources)
    for one, other in combinations(_nets(stack), 2):
        same = _same_host(stack, one.made, other.made)
        said = _same_network(one, other) if same else ""
        if not said and (same or _around(stack, one.made, other.made)):
            said = _same_addresses(one, other)
        if said:
            report(f"{other.made.name}: {said} as {one.made.name}", other.made.urn)
    for here, there in combinations(stack.named(POOL), 2):
        if _same_host(stack, here, there) and (said := _same_pool(here, there)):
            report(f"{there.name}: {said} as {here.name}", there.urn)


def _nets(stack: Relations) -> list[Net]:
    return [net for each in stack.named(*NETWORKS) if (net := _net(each)) is not None]


def _net(resource: PolicyResource) -> Net | None:
    kind, props = resource.resource_type, resource.props
    if kind == NETWORK:
        return Net(resource, text(props, "name") or "", text(props, "bridge") or "", _served(props))
    if kind == machines.REMOTE:
        if machines.driven(kind, props) != "network":
            return None
        subnet = _parsed(text(props, "wanted", "subnet"))
        # Several may be on one way out.
        shared = text(props, "wanted", "mode") == "bridge"
        bridge = "" if shared else text(props, "wanted", "bridge") or ""
        return Net(resource, text(props, "wanted", "name") or "", bridge, subnet)
    own = text(props, "owner")
    return Net(
        resource, "", (text(props, "bridge") or "") if own else "", _parsed(text(props, "cidr"))
    )


def _same_host(stack: Relations, one: PolicyResource, other: PolicyResource) -> bool:
    hosts = [stack.host(each) for each in (one, other)]
    if hosts[0] is not None or hosts[1] is not None:
        return hosts[0] is hosts[1]
    if machines.REMOTE in {one.resource_type, other.resource_type}:
        # In hosts that are none of this stack, or of which it can't be told.
        return False
    if stack.place(one) == stack.place(other):
        # Dynamic resources of all hosts share one provider.
        return text(one.props, "node") == text(other.props, "node")
    # Two providers may lead to one outer host.
    uris = [text(each.provider.props, "uri") if each.provider else None for each in (one, other)]
    return uris[0] == uris[1] and bool(uris[0])


def _around(stack: Relations, one: PolicyResource, other: PolicyResource) -> bool:
    """Return whether one network is on a host that stands, at any depth, where the other is."""
    for inner, outer in ((one, other), (other, one)):
        for host in stack.layers(inner):
            above = stack.host(host)
            if above is not None:
                if stack.host(outer) is above:
                    return True
            elif stack.host(outer) is None and _on_outer(stack, outer, host):
                return True
    return False


def _on_outer(stack: Relations, network: PolicyResource, host: PolicyResource) -> bool:
    if network.resource_type == NETWORK:
        return stack.place(network) == stack.place(host)
    # One of our gates, beside the machines of its node; of other kinds it can't be told.
    here = text(host.props, "nodeName") if host.resource_type in machines.PROXMOX_VMS else None
    return here is not None and here == text(network.props, "node")


def _same_network(one: Net, other: Net) -> str:
    for words, mine, yours in (
        ("the same name", other.name, one.name),
        ("the same bridge", other.bridge, one.bridge),
    ):
        if mine and mine == yours:
            return f"{words} {mine!r}"
    return ""


def _same_addresses(one: Net, other: Net) -> str:
    for mine in other.subnets:
        for yours in one.subnets:
            if mine.version == yours.version and mine.overlaps(yours):
                return f"{mine} is among the same addresses"
    return ""


def _served(props: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        made = network(props)
    except Unjudgeable:
        return ()
    found: list[IPv4Network | IPv6Network] = []
    for served in made.all("ip"):
        size = served.get("prefix") or served.get("netmask") or ""
        found += _parsed(f"{served.get('address')}/{size}".rstrip("/"))
    return tuple(found)


def _parsed(given: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return (ip_network(given, strict=False),) if given else ()
    except ValueError:
        return ()


def _same_pool(one: PolicyResource, other: PolicyResource) -> str:
    for words, paths in (
        ("the same name", (("name",),)),
        ("the same folder", (("target", "path"), ("path",))),
    ):
        found = [
            next((given for path in paths if (given := text(each.props, *path))), None)
            for each in (one, other)
        ]
        if found[0] and found[0] == found[1]:
            return f"{words} {found[0]!r}"
    return ""


OVERLAPS = StackValidationPolicy(
    name="overlaps",
    description="No two networks or pools of a stack are the same by accident.",
    enforcement_level=EnforcementLevel.MANDATORY,
    severity=Severity.HIGH,
    remediation_steps="Give each network its own name, bridge and subnet, and each pool its own folder.",
    validate=_share_nothing,
)
