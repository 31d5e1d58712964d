"""Guests whose image is Windows: what their names have to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.stackfile.cloud_init import wrong_computer
from components.stackfile.machines import GuestSpec
from components.stackfile.places import machines
from components.stackfile.problems import Problem

if TYPE_CHECKING:
    from components.stackfile.lab import LabSpec


def windows(lab: LabSpec) -> list[Problem]:
    """A guest with Windows can be called as the stack calls it."""
    found = []
    for machine in machines(lab):
        spec = machine.spec
        told = spec.cloud_init if isinstance(spec, GuestSpec) else None
        if told is None or not told.windows or told.hostname is not None:
            continue
        if why := wrong_computer(machine.name):
            at, given = (
                f"{machine.at}.cloud_init.hostname",
                f"nothing given, and it is called {machine.name!r}",
            )
            found.append(Problem(at, given, why, "add another, such as win1"))
    return found
