"""The connection sheet: every machine of a lab and how to get in, for people and programs alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.hypervisors.handle import MachineMade
    from components.spec import MachinePlan


@dataclass(frozen=True)
class Entry:
    """One machine: as planned, what it is, as made."""

    plan: MachinePlan
    kind: str
    """Kind of the nested hypervisor, or "guest" or "container"."""
    made: MachineMade


def sheet(entries: Sequence[Entry]) -> pulumi.Output[list[dict[str, Any]]]:
    """Return the lab's machines, outer layers first, as plain data without secrets.

    Each has name, kind, layer (1 on the outer host), inside (names of the hypervisors around it,
    from the outside in), domain (what its hypervisor calls it), address, user, console; an empty
    text where there is none.
    """
    rows = [_row(entry) for entry in sorted(entries, key=lambda each: each.plan.layer)]
    return pulumi.Output.all(*rows).apply(list)


def _row(entry: Entry) -> pulumi.Output[dict[str, Any]]:
    plan = entry.plan

    def told(live: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": plan.name,
            "kind": entry.kind,
            "layer": plan.layer,
            "inside": list(plan.place),
            "domain": plan.domain_name,
            "address": live["address"],
            "user": entry.made.user,
            "console": live["console"],
        }

    return pulumi.Output.all(address=entry.made.address, console=entry.made.console).apply(told)


def passwords(entries: Sequence[Entry]) -> pulumi.Output[dict[str, str]]:
    """Return the console passwords by machine, as a secret; machines without one are left out."""
    known = {entry.plan.name: entry.made.password for entry in entries if entry.made.password != ""}
    return pulumi.Output.secret(pulumi.Output.all(**known).apply(dict))
