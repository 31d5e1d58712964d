"""Virtual switches and port groups of a stand-alone ESXi, by ``esxcli``; nothing is decided here."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, NamedTuple

from components.kinds.esxi.vimcmd import must

if TYPE_CHECKING:
    from components.reach.shell import Shell

SWITCHES = ["network", "vswitch", "standard"]


class Group(NamedTuple):
    """A port group: what a guest's NIC is plugged into."""

    switch: str
    vlan: str


class Networks(NamedTuple):
    """All switches, and all port groups by name."""

    uplinks: dict[str, list[str]]
    """By switch."""
    groups: dict[str, Group]


def networks(shell: Shell) -> Networks:
    """Read all switches and port groups."""
    switches = must(shell, ["esxcli", *SWITCHES, "list"])
    groups = must(shell, ["esxcli", "--formatter=csv", *SWITCHES, "portgroup", "list"])
    uplinks: dict[str, list[str]] = {}
    for block in re.split(r"(?m)^(?=\S)", switches):
        fields = dict(re.findall(r"(?m)^   ([^:\n]+): ?(.*)$", block))
        if "Name" in fields:
            listed = fields.get("Uplinks", "").split(",")
            uplinks[fields["Name"]] = [each.strip() for each in listed if each.strip()]
    rows = csv.DictReader(groups.splitlines())
    return Networks(
        uplinks, {row["Name"]: Group(row["VirtualSwitch"], row["VLANID"]) for row in rows}
    )


def change(shell: Shell, *words: str) -> None:
    """Carry out ``words``, of ``esxcli network vswitch standard``."""
    must(shell, ["esxcli", *SWITCHES, *words])
