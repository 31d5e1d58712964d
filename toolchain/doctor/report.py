"""What the doctor found, as rows of a table that fits 100 columns.

A row says what was looked at, how it stands, what was found, and what to do about it. Nothing here
looks at the machine.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 100
"""Widest line of the table; a narrower terminal narrows it."""
NARROWEST = 60
MARGIN = 21
"""Columns before what was found: two, the state, two, the name, one."""

COMMAND = "    $ "
MORE = "        "


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """Labs run, but slower or smaller than they could, or something may get in their way."""
    FAIL = "fail"
    """No lab of this stack can run here before that is mended."""
    NA = "n.a."
    """Nothing to say here, or it could not be looked at; what was found says which."""


COLOURS = {State.OK: "32", State.WARN: "33", State.FAIL: "31", State.NA: "2"}


@dataclass(frozen=True)
class Check:
    """One row: what was looked at, how it stands, what was found, what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""
    commands: tuple[str, ...] = ()
    """Shell commands that mend it, in order, ready to be copied."""


def exit_status(checks: Sequence[Check]) -> int:
    """1 when something makes labs impossible here, else 0."""
    return int(any(check.state is State.FAIL for check in checks))


def table(checks: Sequence[Check], *, width: int = WIDTH, colour: bool = False) -> str:
    """Return ``checks`` as text; advice and commands stand below the row that they mend."""
    width = max(NARROWEST, min(width, WIDTH))
    return "\n".join(line for check in checks for line in _row(check, width, colour))


def _row(check: Check, width: int, colour: bool) -> list[str]:
    state = f"{check.state:<4}"
    if colour:
        state = f"\033[{COLOURS[check.state]}m{state}\033[0m"
    found = _wrap(check.found, width - MARGIN)
    lines = [f"  {state}  {check.name:<12} {found[0]}"]
    lines += [" " * MARGIN + line for line in found[1:]]
    for advice in check.advice.splitlines():
        lines += [" " * MARGIN + line for line in _wrap(advice, width - MARGIN)]
    for command in check.commands:
        lines += [" " * (MARGIN - len(COMMAND)) + line for line in _command(command, width)]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _command(command: str, width: int) -> list[str]:
    """Break ``command`` between words, never inside quotes, so that a shell still takes it."""
    room = width - MARGIN - 2  # the backslash that joins the lines
    lines = [""]
    for word in re.findall(r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+", command):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room - (len(lines) > 1) * 2:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    joined = [f"{line} \\" for line in lines[:-1]] + lines[-1:]
    return [(COMMAND if number == 0 else MORE) + line for number, line in enumerate(joined)]


def paragraph(text: str, width: int = WIDTH) -> str:
    """Wrap the lines of ``text``, each for itself."""
    return "\n".join(line for part in text.splitlines() for line in _wrap(part, width))
