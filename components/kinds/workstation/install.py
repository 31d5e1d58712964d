"""VMware Workstation Pro as a nested hypervisor: a Linux host that cloud-init sets up, driven by vmrun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.kinds.workstation.media import BUNDLE
from components.place.driven import Commands, Screen, kind
from components.place.installation import Installation

if TYPE_CHECKING:
    from components.kinds.workstation.model import WorkstationSpec
    from components.stackfile import GuestSpec, MachinePlan

STEADY = 2
"""Looks in a row: the set-up may end a little after the last of its commands."""


def recipe(spec: WorkstationSpec) -> Installation:
    """Return how a host with Workstation comes to be."""
    return Installation(
        media="workstation",
        probe=Probe(
            kind="ssh",
            commands=[
                Command(["vmrun", "-T", "ws", "list"], "Total running VMs:"),
                # Otherwise it could still be compiling its modules, or read the tools' CD.
                Command(["cloud-init", "status"], "status: done"),
                Command(["test", "-c", "/dev/vmmon"]),
            ],
            steady=STEADY,
        ),
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
