"""VMware Workstation Pro as a nested hypervisor: a Linux host that cloud-init sets up, driven by vmrun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.hypervisors.commands import Commands, Screen, kind
from components.hypervisors.installed import Recipe
from components.media.workstation import BUNDLE

if TYPE_CHECKING:
    from components.spec import GuestSpec, MachinePlan
    from components.spec.kinds.workstation import WorkstationSpec

STEADY = 2
"""Looks in a row: the set-up may end a little after the last of its commands."""


def recipe(spec: WorkstationSpec) -> Recipe:
    """Return how a host with Workstation comes to be."""
    return Recipe(
        media="workstation",
        user="root",
        probe={
            "kind": "ssh",
            "commands": [
                {"argv": ["vmrun", "-T", "ws", "list"], "holds": "Total running VMs:"},
                # Otherwise it could still be compiling its modules, or read the tools' CD.
                {"argv": ["cloud-init", "status"], "holds": "status: done"},
                {"argv": ["test", "-c", "/dev/vmmon"]},
            ],
            "steady": STEADY,
        },
        tools={BUNDLE: spec.bundle},
    )


def screen(spec: GuestSpec, plan: MachinePlan) -> Screen:
    """Return a guest's screen: VNC on an address of its host, where it was given a port."""
    del plan
    console = spec.console
    if console.port is None or console.type == "none":
        return Screen()
    listen = f"[{console.listen}]" if ":" in console.listen else console.listen
    return Screen(console=f"vnc://{listen}:{console.port}", protected=True)


PLACE = Commands(driver="workstation", store="/var/lib/nestlab/workstation", screen=screen)
INSTALLER = kind(recipe, PLACE)
