"""The way into a nested hypervisor: as whom it will answer, where, and with which key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

from components.gates.secrets import LAB_KEY, SshKey
from components.remote.shell import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.gates.secrets import SshAlgorithm
    from components.hypervisors.handle import Doors, Host, Lab
    from components.spec import MachinePlan


@dataclass(frozen=True)
class Access:
    """How a nested hypervisor is reached, and as whom it answers."""

    host_key: SshKey
    login: SshKey
    """What opens it: the lab's key, or its own where that is of another kind."""
    doors: Doors
    folder: str
    """Where files with its keys go that other programs read."""
    reach: pulumi.Output[dict[str, Any]]
    """`components.remote.shell.Target`, secret."""


def access(
    name: str,
    lab: Lab,
    host: Host,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
    *,
    user: str,
    ports: Sequence[int] = (SSH_PORT,),
    key: SshAlgorithm = "ed25519",
) -> Access:
    """Plan as whom a machine will answer, and where."""
    host_key = SshKey(f"{name}-hostkey", algorithm=key, opts=host.bound(parent))
    login = lab.key
    if key != LAB_KEY:
        login = SshKey(f"{name}-key", algorithm=key, opts=host.bound(parent))
    doors = host.doors(plan, ports)
    reach = pulumi.Output.all(login.private, host_key.public).apply(
        lambda keys: {
            "kind": "ssh",
            "name": plan.name,
            "host": doors.address,
            "port": doors.ports[SSH_PORT],
            "user": user,
            "private_key": keys[0],
            "host_key": keys[1],
        }
    )
    return Access(host_key, login, doors, str(lab.private / plan.name), reach)
