"""From what a stack file holds to a `LabSpec`, or to one message with everything that is wrong."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components.stackfile.bounds import exceeded
from components.stackfile.checks import check, references
from components.stackfile.explain import explain, meant, written
from components.stackfile.lab import LabSpec
from components.stackfile.problems import REFUSED, Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from components.stackfile.allow import Allowed

    Exists = Callable[[str], bool]

GROUPS = ("networks", "guests", "containers", "hypervisors", "media", "templates")
"""Fields that hold entries by name; an entry can be left out, and the rest is a lab."""
ROUNDS = 4
"""What one repair uncovers the next one mends: a field in the place of another, that one's own value."""


def load(
    data: object, *, root: Path, exists: Exists = os.path.exists, allowed: Allowed | None = None
) -> LabSpec:
    """Return the lab that ``data`` (the value of ``nestlab:lab``) describes.

    Relative paths of files are taken from ``root``, the project's folder. ``exists`` says whether
    a file is there; a file that is there is also looked into. ``allowed`` says what a stack may name;
    None, for who takes nothing from the lab that it names: everything.

    Raises:
        SpecError: with every problem, as `examine` finds them.
    """
    lab, problems = examine(data, root=root, exists=exists, allowed=allowed)
    if problems or lab is None:
        raise SpecError(problems)
    return lab


def examine(
    data: object, *, root: Path, exists: Exists = os.path.exists, allowed: Allowed | None = None
) -> tuple[LabSpec | None, list[Problem]]:
    """Return the lab as far as it can be understood, and every problem.

    Rules across the lab are asked of what is right by itself as well: an unknown field does not hide the
    unknown medium beside it. Nothing is told that could be a consequence of what was left out. None
    where too little is left, and where there is more than is looked at.
    """
    if too_much := exceeded(data):
        return None, too_much
    try:
        lab = _read(data, root)
    except ValidationError as refused:
        problems = explain(refused, LabSpec, "lab")
        rest = _rest(data, root)
        if rest is None:
            return None, problems
        lab, left_out = rest
        asked = check(lab, exists, allowed, wired=left_out.wired)
        found = [problem for problem in asked if not left_out.may_cause(problem)]
        found += [problem for problem in references(lab) if not left_out.names_it(problem)]
        return lab, problems + found
    return lab, check(lab, exists, allowed)


def _read(data: object, root: Path) -> LabSpec:
    return LabSpec.model_validate(data, context={"root": str(root)})


@dataclass
class _LeftOut:
    """What of a stack was left out to have a lab, so that the rest can be asked."""

    entries: set[str] = field(default_factory=set)
    """Paths of entries of which something is missing, or all."""
    names: set[str] = field(default_factory=set)
    """Names of entries that are missing as a whole."""

    def may_cause(self, problem: Problem) -> bool:
        """Whether ``problem`` may only be there because something was left out."""
        inside = any(f"{problem.path}.".startswith(f"{entry}.") for entry in self.entries)
        return inside or self.names_it(problem)

    @property
    def wired(self) -> bool:
        """Whether all networks are as the stack says."""
        return not any(".networks." in entry for entry in self.entries)

    def names_it(self, problem: Problem) -> bool:
        """Whether ``problem`` is about a name that was left out."""
        return any(problem.found == f"{name!r} given" for name in self.names)


def _rest(data: object, root: Path) -> tuple[LabSpec, _LeftOut] | None:
    rest = copy.deepcopy(data)
    if not isinstance(rest, dict):
        return None
    left_out = _LeftOut()
    for _ in range(ROUNDS):
        try:
            return _read(rest, root), left_out
        except ValidationError as refused:
            for error in refused.errors(include_url=False):
                _mend(rest, error, left_out)
    return None


def _mend(data: dict[str, Any], error: ErrorDetails, left_out: _LeftOut) -> None:
    """Take what ``error`` is about out of ``data``, or put it where it was meant to be."""
    at = written(error["loc"])
    if error["type"] == "extra_forbidden":
        parent, name = _at(data, at[:-1]), at[-1]
        if isinstance(parent, dict) and name in parent:
            value, better = parent.pop(name), meant(error, LabSpec)
            if better is not None and better not in parent:
                parent[better] = value
        return
    fields: Sequence[str] = [""]
    if error["type"] == REFUSED:
        fields = [problem.path for problem in error["ctx"]["problems"]]
    for name in fields:
        path = [*at, *(int(part) if part.isdigit() else part for part in name.split(".") if part)]
        _leave_out(data, path, left_out)


def _leave_out(data: dict[str, Any], path: list[Any], left_out: _LeftOut) -> None:
    starts = [number for number, key in enumerate(path[:-1]) if key in GROUPS]
    entry = path[: starts[-1] + 2] if starts else []
    parent = _at(data, path[:-1])
    if entry:
        left_out.entries.add(".".join(map(str, ["lab", *entry])))
    if isinstance(parent, list):
        parent.clear()
    elif isinstance(parent, dict) and path and path[-1] in parent and path != entry:
        del parent[path[-1]]
    elif entry and isinstance(group := _at(data, entry[:-1]), dict):
        group.pop(entry[-1], None)
        left_out.names.add(str(entry[-1]))
    elif path == ["name"]:
        data["name"] = "lab"


def _at(data: Any, path: Sequence[Any]) -> Any:
    for key in path:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data
