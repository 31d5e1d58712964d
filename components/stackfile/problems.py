"""How a wrong lab is refused: each problem with its path, and all of them in one message.

A problem says what was found, the rule with its reason, and what to do. Nothing here shows a
value by itself: whoever states a problem decides what may be read by everybody.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, fields, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING, NoReturn

from pydantic_core import PydanticCustomError
from typing_extensions import override

from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MOST_LINES = 20
"""Problems told at once: whoever has mended twenty asks again."""
MOST_CHARACTERS = 6000
"""All lines together; `LONGEST` keeps each below a sixth of it."""
MOST_ALIKE = 3
"""Problems that differ in their path alone; of more only the first is told, with their number."""
LONGEST = {"path": 160, "found": 200, "rule": 400, "remedy": 200}
"""Characters of each part of a problem; what is longer is cut in its middle."""
MOST_LISTED = 24
"""Words in one enumeration."""
MOST_COMPARED, LONGEST_COMPARED = 100, 64
"""Words, and characters of one, in the search for the word that was meant: it takes their product."""
REFUSED = "refused"
"""Type of the pydantic errors that `refuse` raises; their context holds the problems."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong: ``path: found, but rule: remedy``."""

    path: str
    """Where in the file, ``lab.guests.web.memory_mib``; relative inside a model."""
    found: str
    """What was given there, with its unit."""
    rule: str
    """What is allowed, with the reason."""
    remedy: str
    """What to do."""

    def __post_init__(self) -> None:
        for each in fields(self):
            text = shortened(getattr(self, each.name), LONGEST[each.name])
            object.__setattr__(self, each.name, text)

    @override
    def __str__(self) -> str:
        return f"{self.path}: {self.found}, but {self.rule}: {self.remedy}"

    def under(self, path: str) -> Problem:
        """Return the same problem with ``path`` put before its own."""
        return replace(self, path=f"{path}.{self.path}" if self.path else path)


class SpecError(Refused):
    """The lab, or a fact it needs, is refused; ``str`` has one line per problem, by path.

    It stays readable, and a few kB long, whatever was refused: of more than `MOST_ALIKE` problems that
    differ in their path alone one is told with their number, and of the rest the first `MOST_LINES`.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__()

    @override
    def __str__(self) -> str:
        alike = Counter(map(_without_path, self.problems))
        told: list[str] = []
        seen = set[tuple[str, str, str]]()
        for problem in self.problems:
            same = _without_path(problem)
            if alike[same] <= MOST_ALIKE:
                told.append(str(problem))
            elif same not in seen:
                told.append(f"{problem} (and so in {alike[same] - 1} other places)")
            seen.add(same)
        sizes = accumulate(map(len, told))
        most = min(MOST_LINES, sum(size <= MOST_CHARACTERS for size in sizes))
        if len(told) > most:
            told[most:] = [f"and {len(told) - most} more problems"]
        return "\n".join(told)


def _without_path(problem: Problem) -> tuple[str, str, str]:
    return problem.found, problem.rule, problem.remedy


def shortened(text: str, most: int) -> str:
    """Return ``text`` in at most about ``most`` characters, all of them printable."""
    if len(text) > most:
        end = most // 4
        text = f"{text[: most - end]}...{text[-end:]}"
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def refuse(*problems: Problem) -> NoReturn:
    """Refuse a value inside a pydantic validator; paths are relative to the validated value."""
    text = "; ".join(f"{p.found}, but {p.rule}: {p.remedy}" for p in problems)
    raise PydanticCustomError(REFUSED, "{text}", {"text": text, "problems": problems})


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the one of ``known`` that was probably meant, or None."""
    near = {each.casefold(): each for each in islice(known, MOST_COMPARED)}
    asked = word[:LONGEST_COMPARED].casefold()
    close = difflib.get_close_matches(asked, near, n=1, cutoff=0.65)
    return near[close[0]] if close else None


def choose(word: str, known: Collection[str]) -> str:
    """Return the remedy for a word that is not one of ``known``."""
    if meant := nearest(word, known):
        return f"did you mean {meant!r}?"
    return "choose one of these" if known else "remove it"


def counted(number: int, unit: str) -> str:
    """Return the number with its unit, ``1 core`` and ``2 cores``."""
    return f"{number} {unit.removesuffix('s') if number == 1 else unit}"


def listed(words: Iterable[str], none: str = "none") -> str:
    """Return ``a, b and c``, or ``none``."""
    items = list(words)
    if not items:
        return none
    if len(items) > MOST_LISTED:
        items[MOST_LISTED:] = [f"{len(items) - MOST_LISTED} more"]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
