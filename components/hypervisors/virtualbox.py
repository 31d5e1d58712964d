"""Oracle VirtualBox as a nested hypervisor: a Linux host that cloud-init sets up, driven by VBoxManage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.hypervisors.commands import Commands, Screen, kind
from components.hypervisors.installed import Recipe

if TYPE_CHECKING:
    from components.spec import GuestSpec, MachinePlan
    from components.spec.kinds.virtualbox import VirtualboxSpec

STEADY = 2
"""Looks in a row: the set-up may end a little after the last of its commands."""


def recipe(spec: VirtualboxSpec) -> Recipe:
    """Return how a host with VirtualBox comes to be."""
    return Recipe(
        media="virtualbox",
        user="root",
        probe={
            "kind": "ssh",
            "commands": [
                {"argv": ["VBoxManage", "--version"], "holds": "7."},
                # Otherwise it could still be compiling VirtualBox' modules, or mount the tools' CD.
                {"argv": ["test", "-e", "/var/lib/cloud/instance/boot-finished"]},
                {"argv": ["test", "-c", "/dev/vboxdrv"]},
                {"argv": ["VBoxManage", "list", "hostinfo"], "holds": "Processor online count"},
            ],
            "steady": STEADY,
        },
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
