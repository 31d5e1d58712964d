"""VMware ESXi, stand-alone: installed from its ISO, and as a place for guests (R162).

As a guest it needs hardware that its few drivers know, which its kind says. Its guests are made by its
own commands over SSH, since a free licence keeps the API read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.place.driven import Commands, kind
from components.place.installation import Installation

if TYPE_CHECKING:
    from components.kinds.esxi.model import EsxiSpec

API = 443
DATASTORE = "/vmfs/volumes/datastore1"
"""What the installer makes of the rest of the disk."""


def recipe(spec: EsxiSpec) -> Installation:
    """Return how an ESXi comes to be."""
    return Installation(
        media="esxi",
        probe=Probe(
            kind="esxi",
            commands=[
                Command(["test", "-d", DATASTORE]),
                Command(["vim-cmd", "hostsvc/hostsummary"], "inMaintenanceMode = false"),
                Command(["esxcli", "system", "version", "get"], "VMware ESXi"),
            ],
            # Each boot restarts SSH, with the planned host key.
            steady=2,
        ),
        api=API,
        key="ecdsa",
        options={"licence": spec.licence} if spec.licence else {},
    )


PLACE = Commands(driver="esxi", store=f"{DATASTORE}/nestlab")
INSTALLER = kind(recipe, PLACE, url="https://{address}/ui")
