"""Rules across a whole lab: pure functions that return what is wrong; all of them are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.stackfile.checks.capacity import CAPACITY
from components.stackfile.checks.contents import CONTENTS, files, media, names, templates
from components.stackfile.checks.windows import windows
from components.stackfile.checks.wiring import WIRING, known_networks

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.stackfile.allow import Allowed
    from components.stackfile.lab import LabSpec
    from components.stackfile.problems import Problem

REFERENCES = (names, media, templates, known_networks)


def check(
    lab: LabSpec,
    exists: Callable[[str], bool],
    allowed: Allowed | None = None,
    *,
    wired: bool = True,
) -> list[Problem]:
    """Return every problem of ``lab`` that shows only when its parts are seen together.

    What it names and may not is never looked at. How machines are wired is left out where the networks
    are not all ``wired`` as the stack says.
    """
    rules = (*CONTENTS, windows, *(WIRING if wired else ()), *CAPACITY)
    found = [problem for rule in rules for problem in rule(lab)]
    found += allowed.problems(lab) if allowed else []
    return found + files(lab, exists, allowed)


def references(lab: LabSpec) -> list[Problem]:
    """Return those of `check` that hold of a machine whatever else is wrong with it."""
    return [problem for rule in REFERENCES for problem in rule(lab)]
