"""The connection sheet: every machine of a lab and how to get in, for people and programs alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.place.contract import MachineMade
    from components.stackfile import MachinePlan


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
    from the outside in), domain (what its hypervisor calls it), address, user, console, url (of a web
    interface), enter (command on its hypervisor that opens it, words), serial (likewise, its text console) and run (what comes before a
    command to run in it, words), and drives (what is in them beside a system disk, in words, where that
    is more than an ISO); empty where there is none.
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
            "domain": plan.called,
            "address": live["address"],
            "user": entry.made.user,
            "console": live["console"],
            "url": live["url"],
            "enter": list(live["enter"]),
            "serial": list(live["serial"]),
            "run": live["run"],
            "drives": list(plan.drives),
        }

    made = entry.made
    return pulumi.Output.all(
        address=made.address,
        console=made.console,
        url=made.url,
        enter=made.enter,
        serial=made.serial,
        run=list(made.run),
    ).apply(told)


def document(rows: pulumi.Input[list[dict[str, Any]]]) -> pulumi.Output[pulumi.Asset]:
    """Return the sheet as a stack hands it out: a text of JSON, for programs.

    An asset, since the engine prints one line of it where it prints all of a list at each `pulumi up`
    (pkg/backend/display). It is in clear in the state, as ``sheet.text`` of `pulumi stack output --json`.
    """

    def text(told: list[dict[str, Any]]) -> pulumi.Asset:
        return pulumi.StringAsset(json.dumps(told))

    return pulumi.Output.from_input(rows).apply(text)


def passwords(entries: Sequence[Entry]) -> pulumi.Output[dict[str, str]]:
    """Return the console passwords by machine, as a secret; machines without one are left out."""
    return _secrets({entry.plan.name: entry.made.password for entry in entries})


def logins(entries: Sequence[Entry]) -> pulumi.Output[dict[str, str]]:
    """Return the passwords of the users that the sheet names, likewise."""
    return _secrets({entry.plan.name: entry.made.user_password for entry in entries})


def _secrets(known: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[dict[str, str]]:
    some = {name: value for name, value in known.items() if value != ""}
    return pulumi.Output.secret(pulumi.Output.all(**some).apply(dict))
