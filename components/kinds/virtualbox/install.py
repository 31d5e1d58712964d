"""Oracle VirtualBox as a nested hypervisor: a Linux host that cloud-init sets up, driven by VBoxManage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.place.driven import Commands, Screen, kind
from components.place.installation import Installation

if TYPE_CHECKING:
    from components.kinds.virtualbox.model import VirtualboxSpec
    from components.stackfile import GuestSpec, MachinePlan

STEADY = 2
"""Looks in a row: the set-up may end a little after the last of its commands."""


def recipe(spec: VirtualboxSpec) -> Installation:
    """Return how a host with VirtualBox comes to be."""
    return Installation(
        media="virtualbox",
        probe=Probe(
            kind="ssh",
            commands=[
                Command(["VBoxManage", "--version"], "7."),
                # Otherwise it could still be compiling VirtualBox' modules, or mount the tools' CD.
                Command(["test", "-e", "/var/lib/cloud/instance/boot-finished"]),
                Command(["test", "-c", "/dev/vboxdrv"]),
                Command(["VBoxManage", "list", "hostinfo"], "Processor online count"),
            ],
            steady=STEADY,
        ),
        options={
            "package": spec.package or "",
            "extension_pack": spec.extension_pack or "",
            "licence": (spec.licence or "").lower(),
        },
        discs=(spec.tools,) if spec.tools else (),
    )


def screen(spec: GuestSpec, plan: MachinePlan) -> Screen:
    """Return a guest's screen: RDP on loopback of its host, where it was given a port."""
    del plan
    console = spec.console
    if console.port is None or console.type == "none":
        return Screen()
    listen = f"[{console.listen}]" if ":" in console.listen else console.listen
    return Screen(console=f"rdp://{listen}:{console.port}")


PLACE = Commands(driver="virtualbox", store="/var/lib/nestlab/virtualbox", screen=screen)
INSTALLER = kind(recipe, PLACE)
