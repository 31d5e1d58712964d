"""Whether the ISOs that nested hypervisors are installed from are what their kinds install from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.media.iso import Endless, Iso, NotMade, WrongMedium
from components.media.unattended import ON_STICK, remaster_of
from components.stackfile.files import there
from components.stackfile.places import InstalledSpec, machines
from components.stackfile.problems import Problem
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from components.stackfile import LabSpec
    from components.stackfile.allow import Allowed


def wrong(spec: LabSpec, allowed: Allowed | None = None) -> list[Problem]:
    """Return a problem for each installation ISO that is another medium, or damaged.

    What may not be named (``allowed``; None: everything may) is not read.
    """
    found = []
    known: dict[tuple[str, str], tuple[str, str, str] | None] = {}
    for machine in machines(spec):
        if not isinstance(machine.spec, InstalledSpec):
            continue
        medium = spec.media.get(machine.spec.iso)
        if medium is None or not there(path := medium.path):
            continue  # told by `load`, but in a preview
        if allowed and allowed.file(path):
            continue
        stick = KINDS[machine.spec.kind].stick and machine.place.offers.sticks
        asked = (f"{machine.spec.kind}{ON_STICK}" if stick else machine.spec.kind, path)
        if asked not in known:
            try:
                known[asked] = _wrong(*asked)
            except Endless as much:
                found.append(Problem(f"{machine.at}.iso", much.found, much.rule, much.remedy))
                break
        if refused := known[asked]:
            found.append(Problem(f"{machine.at}.iso", *refused))
    return found


def _wrong(kind: str, path: str) -> tuple[str, str, str] | None:
    """Return what is found, rule and remedy where ``path`` is no installer of ``kind``."""
    try:
        remaster_of(kind).check(Iso(Path(path)))
    except Endless:
        raise
    except WrongMedium as other:
        return other.found, other.rule, other.remedy
    except NotMade as why:
        return f"{path!r} given", f"it can't be looked into: {why}", "mend that"
    return None
