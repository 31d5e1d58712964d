"""The way into a nested hypervisor: as whom it will answer, where, and with which key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi

from components.gates.secrets import LAB_KEY, SshKey
from components.reach.shell import SSH_PORT, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.gates.secrets import SshAlgorithm
    from components.place.contract import Lab, NestingPlace, Route
    from components.stackfile import MachinePlan


@dataclass(frozen=True)
class Login:
    """How a nested hypervisor is reached, and as whom it answers."""

    host_key: SshKey
    key: SshKey
    """What opens it: the lab's key, or its own where that is of another kind."""
    route: Route
    folder: str
    """Where files with its keys go that other programs read."""
    reach: pulumi.Output[Target]
    """Secret."""


def planned_login(
    name: str,
    lab: Lab,
    host: NestingPlace,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
    *,
    user: str,
    ports: Sequence[int] = (SSH_PORT,),
    key: SshAlgorithm = "ed25519",
) -> Login:
    """Plan as whom a machine will answer, and where."""
    host_key = SshKey(f"{name}-hostkey", algorithm=key, opts=host.bound(parent))
    own = lab.key
    if key != LAB_KEY:
        own = SshKey(f"{name}-key", algorithm=key, opts=host.bound(parent))
    route = host.route(plan, ports)
    reach = pulumi.Output.all(own.private, host_key.public).apply(
        lambda keys: Target(
            kind="ssh",
            name=plan.name,
            host=route.address,
            port=route.ports[SSH_PORT],
            user=user,
            private_key=keys[0],
            host_key=keys[1],
        )
    )
    return Login(host_key, own, route, str(lab.private / plan.name), reach)
