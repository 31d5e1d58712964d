"""overlaps: no two labs of a stack meet by accident.

Two networks of one host with the same name, bridge or addresses are one network, or none: libvirt
refuses the second, or its guests answer for one another. A nested host whose inner subnet is also
the one it stands in can't reach either. The same goes for pools: one folder, one owner.
"""

from __future__ import annotations

from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING

from domain_xml import Unjudgeable, network
from isolation import NETWORK
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


def _share_nothing(args: StackValidationArgs, report: ReportViolation) -> None:
    stack = Relations(args.resources)
    for one, other in combinations(stack.named(NETWORK), 2):
        same = _same_host(stack, one, other)
        said = _same_network(one, other) if same else ""
        if not said and (same or _around(stack, one, other)):
            said = _same_addresses(one, other)
        if said:
            report(f"{other.name}: {said} as {one.name}", other.urn)
    for one, other in combinations(stack.named(POOL), 2):
        if _same_host(stack, one, other) and (said := _same_pool(one, other)):
            report(f"{other.name}: {said} as {one.name}", other.urn)


def _same_host(stack: Relations, one: PolicyResource, other: PolicyResource) -> bool:
    if stack.place(one) == stack.place(other):
        return True
    if stack.host(one) is not None or stack.host(other) is not None:
        return False
    # Two providers may lead to one outer host.
    uris = [text(each.provider.props, "uri") if each.provider else None for each in (one, other)]
    return uris[0] == uris[1] and bool(uris[0])


def _around(stack: Relations, one: PolicyResource, other: PolicyResource) -> bool:
    """Return whether one network is on a host that stands, at any depth, where the other is."""
    for inner, outer in ((one, other), (other, one)):
        places = {stack.place(host) for host in stack.layers(inner)}
        if stack.place(outer) in places:
            return True
    return False


def _same_network(one: PolicyResource, other: PolicyResource) -> str:
    for key, words in (("name", "the same name"), ("bridge", "the same bridge")):
        found = [text(each.props, key) for each in (one, other)]
        if found[0] and found[0] == found[1]:
            return f"{words} {found[0]!r}"
    return ""


def _same_addresses(one: PolicyResource, other: PolicyResource) -> str:
    for mine in _subnets(other):
        for yours in _subnets(one):
            if mine.version == yours.version and mine.overlaps(yours):
                return f"{mine} is among the same addresses"
    return ""


def _subnets(resource: PolicyResource) -> list[IPv4Network | IPv6Network]:
    try:
        made = network(resource.props)
    except Unjudgeable:
        return []
    found = []
    for served in made.all("ip"):
        size = served.get("prefix") or served.get("netmask") or ""
        try:
            found.append(ip_network(f"{served.get('address')}/{size}".rstrip("/"), strict=False))
        except ValueError:
            continue
    return found


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
