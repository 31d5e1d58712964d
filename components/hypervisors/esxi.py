"""VMware ESXi, stand-alone: installed from its ISO, and as a place for guests (R162).

As a guest it needs hardware that its few drivers know, which its kind says. Its guests are made by its
own commands over SSH, since a free licence keeps the API read-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.hypervisors.commands import Commands, kind
from components.hypervisors.installed import Recipe

if TYPE_CHECKING:
    from components.spec.kinds.esxi import EsxiSpec

API = 443
DATASTORE = "/vmfs/volumes/datastore1"
"""What the installer makes of the rest of the disk."""


def recipe(spec: EsxiSpec) -> Recipe:
    """Return how an ESXi comes to be."""
    return Recipe(
        media="esxi",
        user="root",
        probe={
            "kind": "esxi",
            "commands": [
                {"argv": ["test", "-d", DATASTORE]},
                {
                    "argv": ["vim-cmd", "hostsvc/hostsummary"],
                    "holds": "inMaintenanceMode = false",
                },
                {"argv": ["esxcli", "system", "version", "get"], "holds": "VMware ESXi"},
            ],
            # Each boot restarts SSH, with the planned host key.
            "steady": 2,
        },
        api=API,
        stick=True,
        key="ecdsa",
        options={"licence": spec.licence} if spec.licence else {},
    )


PLACE = Commands(driver="esxi", store=f"{DATASTORE}/nestlab")
INSTALLER = kind(recipe, PLACE, url="https://{address}/ui")
