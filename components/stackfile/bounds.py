"""How much a stack file may hold at all, asked before anything in it is looked at.

What comes after this works with what is bounded: every model, check, message and plan. Iterative, so
that depth is a problem like another.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.stackfile.problems import MOST_LINES, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 24
"""Mappings and lists within one another; what is innermost in three layers of machines has 12."""
MOST_VALUES = 50_000
"""Values altogether; the largest lab, with every field of every machine written out, has half of it."""
MOST_ENTRIES = 500
"""Entries of one mapping or list, and machines of a lab: a preview takes some 25 ms for each."""
LONGEST_NAME = 255
"""Bytes of a name: NAME_MAX of Linux, and a host name's 253."""
LONGEST_TEXT = 4095
"""Bytes of a text: PATH_MAX of Linux is 4096 with the closing zero, and nothing else is as long."""
LARGEST = 2**53
"""Numbers come from the engine as JSON and go to it as doubles, exact up to here."""
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of what can't be seen, or turns round how the rest is shown (Cf)."""
LINES = "\n\t"
"""Allowed in a container's command, where a word may be a script, and in a guest's commands."""
COMMANDS = {"command", "commands"}


Way = tuple[object, "Way | None"]
"""A key and the way to what it is in: a path, whose text takes room for each value that has one."""
Inside = list[tuple[Way, object, int]]


def exceeded(data: object) -> list[Problem]:
    """Return what is too much in ``data``, paths beginning with ``lab``; looking ends with the first few."""
    found: list[Problem] = []
    waiting: Inside = [(("lab", None), data, 0)]
    values = 0
    while waiting and len(found) < MOST_LINES:
        way, value, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES:
            rule = f"a lab is described with at most {MOST_VALUES}"
            return [Problem("lab", "more values given", rule, "make several labs of it")]
        if isinstance(value, Mapping | list | tuple):
            inside, wrong = _inside(way, value, depth)
            waiting += inside
            found += wrong
        else:
            found += _scalar(way, value)
    return found


def _path(way: Way | None) -> str:
    keys: list[str] = []
    while way is not None:
        keys.append(str(way[0])[: LONGEST_NAME + 1])
        way = way[1]
    return ".".join(reversed(keys))


def _inside(way: Way, value: Any, depth: int) -> tuple[Inside, list[Problem]]:
    at = _path(way) if depth == DEEPEST or len(value) > MOST_ENTRIES else ""
    if depth == DEEPEST:
        rule = f"nothing of a lab lies deeper than {DEEPEST} levels"
        return [], [Problem(at, "more levels given", rule, "take it out")]
    if len(value) > MOST_ENTRIES:
        rule = f"at most {MOST_ENTRIES} are possible, since each preview looks at every one of them"
        return [], [Problem(at, f"{len(value)} entries given", rule, "make several labs of it")]
    if not isinstance(value, Mapping):
        return [((number, way), each, depth + 1) for number, each in enumerate(value)], []
    wrong = [problem for key in value for problem in _key(way, key)]
    return [((key, way), each, depth + 1) for key, each in value.items()], wrong


def _key(way: Way, key: object) -> Iterator[Problem]:
    if isinstance(key, str):
        yield from _text(way, key, "a name", LONGEST_NAME, "the longest name of a file")
    elif isinstance(key, int) and abs(key) > LARGEST:
        yield Problem(
            _path(way), "a number as a name given", "a name begins with a letter", "rename it"
        )


def _scalar(way: Way, value: object) -> list[Problem]:
    if isinstance(value, str):
        within = {way[0], way[1][0] if way[1] else None}
        besides = LINES if COMMANDS & within else ""
        return list(_text(way, value, "a text", LONGEST_TEXT, "the longest path of Linux", besides))
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            rule = "a number is finite"
            return [Problem(_path(way), f"{value} given", rule, "write a number")]
        if abs(value) > LARGEST:
            rule = "no number of a lab has more than 16 digits"
            return [Problem(_path(way), "a larger number given", rule, "write a smaller one")]
        return []
    rule = "a value is a text, a number, true, false, a list or a mapping"
    given = f"a {type(value).__name__} given"
    return [Problem(_path(way), given, rule, "put it in quotes")]


def _text(
    way: Way, value: str, what: str, most: int, why: str, besides: str = ""
) -> Iterator[Problem]:
    size = len(value.encode(errors="surrogatepass"))
    if size > most:
        rule = f"at most {most} are possible, {why}"
        yield Problem(_path(way), f"{what} of {size} bytes given", rule, "shorten it")
    elif not value.isprintable() and (unseen := _unseen(value, besides)):
        rule = f"it has the character U+{ord(unseen):04X}, which is not seen as it is"
        yield Problem(_path(way), f"{what} with it given", rule, "write it without")


def _unseen(value: str, besides: str) -> str:
    return next(
        (each for each in value if unicodedata.category(each) in UNSEEN and each not in besides),
        "",
    )
