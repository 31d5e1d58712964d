"""Whether the ISOs that nested hypervisors are installed from are what their kinds install from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.media.iso import Iso, WrongMedium
from components.spec.places import InstalledSpec, machines
from components.spec.problems import Problem

if TYPE_CHECKING:
    from components.spec import LabSpec


def wrong(spec: LabSpec) -> list[Problem]:
    """Return a problem for each installation ISO that is another medium, or damaged."""
    found = []
    for machine in machines(spec):
        if not isinstance(machine.spec, InstalledSpec):
            continue
        medium = spec.media.get(machine.spec.iso)
        if medium is None or not (path := Path(medium.path)).is_file():
            continue  # told by `load`, but in a preview
        from components.media import installer  # noqa: PLC0415 - labs without any need not pay

        try:
            installer.RECIPES[machine.spec.kind].check(Iso(path))
        except WrongMedium as other:
            found.append(Problem(f"{machine.at}.iso", other.found, other.rule, other.remedy))
    return found
