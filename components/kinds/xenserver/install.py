"""XCP-ng and XenServer as nested hypervisors: installed from their ISO, driven by ``xe`` in dom0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.place.driven import Commands, kind
from components.place.installation import Installation

if TYPE_CHECKING:
    from components.kinds.xenserver.model import XenServerSpec

COOKIE = "/var/run/xapi_init_complete.cookie"
"""Made by XAPI's own start-up when it takes orders (xen-api, scripts)."""
STEADY = 3
"""Looks in a row: after its first boot the port opens, closes and opens again."""


def recipe(spec: XenServerSpec) -> Installation:
    """Return how ``spec`` comes to be."""
    ready = [
        Command(["test", "-e", COOKIE]),
        Command(["xe", "host-list", "params=enabled", "--minimal"], "true"),
        # Storage and network are set up by the first boot, after XAPI itself is there.
        Command(
            ["xe", "sr-list", f"type={spec.sr_type}", "params=type", "--minimal"], spec.sr_type
        ),
        Command(
            ["xe", "pif-list", "management=true", "params=currently-attached", "--minimal"], "true"
        ),
        Command(["xe", "host-list", "params=name-label", "--minimal"]),
    ]
    return Installation(
        media="xenserver",
        probe=Probe(kind="ssh", commands=ready, steady=STEADY),
        options={"sr_type": spec.sr_type},
    )


# dom0's root has some 15 GB free, for media. Screens are XAPI's to show, see docs/xenserver.md.
PLACE = Commands(driver="xenserver", store="/var/opt/xen/nestlab")
INSTALLER = kind(recipe, PLACE, url="https://{address}")
