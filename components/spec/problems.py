"""How a wrong lab is refused: each problem with its path, and all of them in one message.

A problem says what was found, the rule with its reason, and what to do. Nothing here shows a
value by itself: whoever states a problem decides what may be read by everybody.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from pydantic_core import PydanticCustomError
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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

    @override
    def __str__(self) -> str:
        return f"{self.path}: {self.found}, but {self.rule}: {self.remedy}"

    def under(self, path: str) -> Problem:
        """Return the same problem with ``path`` put before its own."""
        return replace(self, path=f"{path}.{self.path}" if self.path else path)


class SpecError(Exception):
    """The lab, or a fact it needs, is refused; ``str`` has one line per problem, by path."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__(self.problems)

    @override
    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def refuse(*problems: Problem) -> NoReturn:
    """Refuse a value inside a pydantic validator; paths are relative to the validated value."""
    text = "; ".join(f"{p.found}, but {p.rule}: {p.remedy}" for p in problems)
    raise PydanticCustomError(REFUSED, "{text}", {"text": text, "problems": problems})


def nearest(word: str, known: Collection[str]) -> str | None:
    """Return the one of ``known`` that was probably meant, or None."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.65)
    return close[0] if close else None


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
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
