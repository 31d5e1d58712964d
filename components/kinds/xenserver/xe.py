"""``xe`` in dom0: its words, its refusals, and what it lists as rows of fields (xen-api, cli_printer.ml)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.reach.driver import DriverError, refusal
from components.reach.shell import COMMAND_S

if TYPE_CHECKING:
    from components.reach.shell import Shell

SCAN_S = 300.0
HINTS = {
    "Not enough free memory": "raise memory_mib of the hypervisor, or make its guests smaller",
    "Not enough server memory": "raise memory_mib of the hypervisor, or make its guests smaller",
    "HVM is required": "the outer host does not pass VT-x or AMD-V on: switch nesting on there",
    "HVM not supported": "the outer host does not pass VT-x or AMD-V on: switch nesting on there",
    "SR is full": "raise disk_gib of the hypervisor, or make its guests' disks smaller",
    "Not enough CPUs": "raise cores of the hypervisor",
    "toolstack is still initialising": "it has just been started: wait a minute, then `pulumi up`",
    "Connection refused": "its toolstack is down: run `xe-toolstack-restart` there",
}
"""What to do about a refusal, by words in it."""
FIELD = re.compile(r" *([\w-]+) \([ SM]R[OW]\)(?: \[DEPRECATED\])? *: ?(.*)", re.DOTALL)
"""One line of what `xe` lists (xen-api, cli_printer.ml)."""
Row = dict[str, str]


def xe(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    """Run ``xe`` and return what it printed, without the line break that it adds.

    Raises:
        DriverError: it refused, in its own words and with what to do where that is known.
    """
    for word in words:
        # It sends its words as lines: the rest of this one would be a parameter of its own.
        if "\n" in word or word.endswith("\r"):
            raise DriverError(f"`xe {words[0]}`: {word!r} holds a line break, which xe can't take")
    done = shell.run(["xe", *words], timeout_s=timeout_s)
    if done.ok:
        return done.out.removesuffix("\n")
    lines = f"{done.out}\n{done.err}".split("\n")
    told = " ".join(line.strip() for line in lines if line.strip())
    told = told or f"exit code {done.code} and no word"
    hint = next((f"; {hint}" for mark, hint in HINTS.items() if mark in told), "")
    raise refusal(shell, ["xe", *words], f"{told}{hint}")


def rows(told: str) -> list[Row]:
    """Return the records of a list that `xe` printed."""
    found: list[Row] = []
    last = ""
    # Not splitlines(): a label may hold what Python takes for the end of a line, and `xe` does not.
    for line in told.split("\n"):
        field = FIELD.fullmatch(line)
        if field and field[1] == "uuid" and not line.startswith(" "):
            found.append({})
        if field and found:
            last = field[1]
            found[-1][last] = field[2]
        elif found:
            found[-1][last] += f"\n{line}"
    return [{key: value.rstrip("\n") for key, value in row.items()} for row in found]


def entry(told: str, key: str) -> str:
    """Return what a map field has under ``key``; empty for nothing."""
    found = re.search(rf"(?:^|; ){re.escape(key)}: (.*?)(?:; |$)", told, re.DOTALL)
    return found[1] if found else ""
