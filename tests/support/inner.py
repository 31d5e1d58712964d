"""Programs of labs whose outermost place is a stand-in: a nested hypervisor that has answered already.

What is left out of a lab's life is what a stand-in can't be: the guest that becomes the hypervisor, and
its installation. Everything inside is the real components, drivers and engine.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from components.kinds.proxmox.api import Api
    from components.reach.shell import Target

PROGRAM = """
import pathlib, sys
sys.path.insert(0, {repository!r})
from importlib import import_module
import pulumi
from components.gates.identity import Identity, Whose
from components.gates.secrets import SshKey
from components.place.contract import Lab
from components.contents import Contents, Draft
from components.nested_hypervisor_lab import fill
from components.reach.shell import LOCAL, Target
from components.sheet import logins, passwords, sheet
from components.stackfile import load, plan

class Owner(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("nestlab:test:Owner", "x")
        self.register_outputs({{}})

root = pathlib.Path({root!r})
spec = load({data!r}, root=root)
plan = plan(spec)
lab = Lab(spec=spec, plan=plan, root=root, private=root / "keys", accelerator="kvm", golden={{}},
    identity=Identity("identity", Whose(target=LOCAL, kind="libvirt", uri="test:///default", lab="lab", private="")),
    key=SshKey("key"))
import {module}
target = pulumi.Output.secret({module}.{shape}(**{target!r}))
owner = Owner()
common = dict(lab=lab, plan=plan.place("x"), target=target, cores=2, owner=owner, inside=None)
{place}
owner.holds = Contents(Draft({{}}, lambda _: [], making=True), {{}}, "lab", "x-", owner)
entries = fill(place, spec.hypervisors["x"], on=owner)
pulumi.export("sheet", sheet(entries))
pulumi.export("passwords", passwords(entries))
pulumi.export("logins", logins(entries))
"""


COMMANDS = """
place = import_module("components.kinds.{kind}.install").PLACE.at("x", **common)
"""
"""A kind that is driven by its own commands."""


def lab_of(kind: str, inside: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a lab with one hypervisor ``x`` of ``kind``; ``inside`` are its fields and contents.

    ``more`` are fields of the lab: media, boot.
    """
    hypervisor = {"kind": kind, "network": "outer", **inside}
    return {
        "name": "lab",
        "networks": {"outer": {"subnet": "10.77.0.0/24"}},
        "hypervisors": {"x": hypervisor},
        **more,
    }


def program(
    kind: str, data: Mapping[str, Any], target: Target | Api, root: Path, place: str = COMMANDS
) -> str:
    """Return a program that fills the hypervisor ``x`` of ``data``, which answers at ``target``.

    ``root`` is the folder that the lab's media lie in; ``place`` the lines that make the place.
    """
    return PROGRAM.format(
        repository=str(paths.ROOT),
        data=dict(data),
        module=type(target).__module__,
        shape=type(target).__name__,
        target=asdict(target),
        root=str(root),
        place=place.format(kind=kind),
    )
