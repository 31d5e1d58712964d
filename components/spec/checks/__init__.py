"""Rules across a whole lab: pure functions that return what is wrong; all of them are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.spec.checks.capacity import CAPACITY
from components.spec.checks.contents import CONTENTS, files
from components.spec.checks.wiring import WIRING

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.spec.allow import Allowed
    from components.spec.lab import LabSpec
    from components.spec.problems import Problem


def check(
    lab: LabSpec, exists: Callable[[str], bool], allowed: Allowed | None = None
) -> list[Problem]:
    """Return every problem of ``lab`` that shows only when its parts are seen together.

    What it names and may not is never looked at.
    """
    found = [problem for rule in (*CONTENTS, *WIRING, *CAPACITY) for problem in rule(lab)]
    found += allowed.problems(lab) if allowed else []
    return found + files(lab, exists, allowed)
