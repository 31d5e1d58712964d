"""What is of each student's lab: at each layer, since when, and whether it is past its end or its budget."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from toolchain.bootstrap import ui
from toolchain.engine import state
from toolchain.engine.environment import BACKEND, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from classroom.register import Given, Register

    Look = Callable[[str], Sequence[Mapping[str, Any]]]
    """Returns what is of each machine and network of a stack: ``name``, ``layer``, ``state``, ``said``."""

UP, DRIFT, OFF, NONE, UNKNOWN = "up", "drift", "off", "not made", "unknown"
SUSPENDED = "suspended"
DOWN = frozenset({"off", "not answering", SUSPENDED})
MIB = 1024
HOUR_S = 3600


@dataclass(frozen=True)
class Seen:
    """One student's lab, as it was seen."""

    student: str
    name: str
    stack: str
    state: str
    """up, off (nothing on its first layer runs), suspended (nor there, and the memory of all machines is saved), drift
    (something is not as it should be), not made, unknown."""
    layers: Mapping[str, str]
    """By layer, 1 on the outer host: what is there, in words."""
    said: Sequence[str]
    """Why, a line for each machine that is not up."""
    left: bool
    """Whether the student is no more on the roster."""
    hours: float | None
    """Age of the lab; None: it is not there, or nobody knows."""
    used: float
    """GiB of memory times hours, with labs of the student that are gone."""
    past: Sequence[str]
    """What it is past: its end, its budget."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def of(kept: Register, look: Look, standing: Collection[str], at_once: int) -> list[Seen]:
    """Return what is of each lab of a class; ``look`` asks the machines, of ``at_once`` labs at a time."""

    def one(id_: str) -> Seen:
        stack = kept.stack(id_)
        rows: Sequence[Mapping[str, Any]] = ()
        why = ""
        if stack in standing:
            try:
                rows = look(stack)
            except (ui.Problem, OSError, ValueError, LookupError) as wrong:
                why = ui.in_words(wrong).partition("\n")[0]
        return seen(kept, id_, rows, since(stack) if stack in standing else None, why)

    with ThreadPoolExecutor(max(1, at_once)) as pool:
        return list(pool.map(one, kept.students))


def seen(
    kept: Register,
    id_: str,
    rows: Sequence[Mapping[str, Any]],
    began: dt.datetime | None,
    why: str = "",
) -> Seen:
    """Return what the ``rows`` of a look mean for a student's lab, which was made when it ``began``."""
    given = kept.students[id_]
    layers: dict[str, str] = {}
    for layer in sorted({int(row["layer"]) for row in rows}):
        mine = [row for row in rows if int(row["layer"]) == layer]
        bad = [row for row in mine if row["state"] != UP]
        layers[str(layer)] = UP if not bad else f"{len(bad)} of {len(mine)} {_words(bad)}"
    hours = None if began is None else (_now() - began).total_seconds() / HOUR_S
    return Seen(
        id_,
        given.name,
        kept.stack(id_),
        _state(rows, why),
        layers,
        [why] if why else [f"{r['name']}: {r['said']}" for r in rows if r["state"] != UP],
        given.left,
        hours,
        used(given, began),
        past(given, used(given, began), _now().date()),
    )


def _words(bad: Sequence[Mapping[str, Any]]) -> str:
    return " or ".join(sorted({str(row["state"]) for row in bad}))


def _state(rows: Sequence[Mapping[str, Any]], why: str) -> str:
    words = {str(row["state"]) for row in rows}
    outer = {str(row["state"]) for row in rows if row["layer"] == 1}
    machines = {str(row["state"]) for row in rows if row["layer"] == 1 and "kind" in row}
    if why:
        return UNKNOWN
    if not rows or words == {NONE}:
        return NONE
    if words == {UP}:
        return UP
    if machines == {SUSPENDED}:
        return SUSPENDED
    if outer and outer <= DOWN:
        return OFF
    return UNKNOWN if words <= {UP, UNKNOWN} else DRIFT


def past(given: Given, spent: float, today: dt.date) -> list[str]:
    """Return what a lab is past, in words."""
    found = []
    if given.until and dt.date.fromisoformat(given.until) < today:
        found.append(f"its end, {given.until}")
    if given.budget is not None and spent > given.budget:
        found.append(f"its budget, {spent:.1f} of {given.budget:g} GiB h")
    return found


def used(given: Given, began: dt.datetime | None) -> float:
    """Return what a student's labs have used: GiB of memory times hours since they were made."""
    hours = 0.0 if began is None else max(0.0, (_now() - began).total_seconds() / HOUR_S)
    return given.spent + hours * given.lab.get("memory_mib", 0) / MIB


def since(stack: str) -> dt.datetime | None:
    """Return when the lab of ``stack`` was made; None: it was not, or only the engine can tell."""
    folder = state.folder(environment()[BACKEND])
    file = state.file_of(stack, folder) if folder else None
    if file is None:
        return None
    try:
        made = [dt.datetime.fromisoformat(each["created"]) for each in state.read(file).real]
    except (state.Unreadable, LookupError, TypeError, ValueError):
        return None
    return min(made, default=None)


def _now() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)


def lines(found: Sequence[Seen], price: float | None) -> list[str]:
    """Return the class as a table for people."""
    head = [
        "STUDENT",
        "NAME",
        "STATE",
        "LAYERS",
        "AGE",
        "GIB H",
        *(["COST"] if price else []),
        "PAST",
    ]
    table = [head]
    for each in found:
        layers = "; ".join(f"{layer}: {words}" for layer, words in each.layers.items())
        table.append(
            [
                each.student,
                each.name,
                each.state + (" (left)" if each.left else ""),
                layers or "-",
                age(each.hours),
                f"{each.used:.1f}",
                *([f"{each.used * price:.2f}"] if price else []),
                " and ".join(each.past) or "-",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    reasons = [f"{each.student}: {line}" for each in found for line in each.said]
    return [*rows, *(["", *reasons] if reasons else [])]


def age(hours: float | None) -> str:
    """Return how old a lab is, in words."""
    if hours is None:
        return "-"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"  # noqa: PLR2004 - two days
