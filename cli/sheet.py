"""The connection sheet as people read it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PASSWORDS = {"SCREEN'S PASSWORD": "passwords", "USER'S PASSWORD": "logins"}
"""Title of a column -> the output of a stack that it shows."""
UP = "up"
COLOURS = {UP: "32", "off": "31", "not answering": "31", "not as wanted": "33", "not made": "33"}


def show(told: Mapping[str, Any], stack: str) -> None:
    """Print the sheet of ``stack``, whose outputs ``told`` has."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    for line in lines(told, stack, colour=sys.stdout.isatty() and not plain):
        print(line)


def lines(told: Mapping[str, Any], stack: str, *, colour: bool = False) -> list[str]:
    """Return the sheet as a table: a line for each machine, deeper ones further in."""
    sheet = told["sheet"]
    columns = {
        "LAYER": [str(row["layer"]) for row in sheet],
        "NAME": ["  " * (row["layer"] - 1) + row["name"] for row in sheet],
        "KIND": [row["kind"] for row in sheet],
        "STATE": [row.get("state", "") for row in sheet],
        "ADDRESS": [row["address"] for row in sheet],
        "USER": [row["user"] for row in sheet],
        "WEB": [row["url"] for row in sheet],
        "SCREEN": [_screen(row) for row in sheet],
        "GET IN": [_way_in(row, stack) for row in sheet],
        # A lab that was made by an older nestlab says nothing of them.
        "DRIVES": [", ".join(row.get("drives", ())) for row in sheet],
    }
    for title, output in PASSWORDS.items():
        if known := told.get(output):
            columns[title] = [known.get(row["name"], "") for row in sheet]
    for title in ("STATE", "WEB", "DRIVES", *PASSWORDS):
        if not any(columns.get(title, ())):
            columns.pop(title, None)
    table = [[title, *(cell or "-" for cell in cells)] for title, cells in columns.items()]
    widths = [max(map(len, column)) for column in table]
    rows = [
        "  ".join(
            _painted(cell.ljust(width), cell if colour else "")
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in zip(*table, strict=True)
    ]
    rows += _reasons(sheet)
    if "passwords" in told or not any(row["console"] or row["user"] for row in sheet):
        return rows
    return [*rows, "", f"Passwords: {ui.make('show', stack, 'SECRETS=1').strip('`')}"]


def _painted(text: str, word: str) -> str:
    """Return ``text`` in the colour of the state ``word``; what is none has none."""
    code = COLOURS.get(word)
    return f"\033[{code}m{text}\033[0m" if code else text


def _reasons(sheet: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why each machine is not up that is not."""
    told = [f"{row['name']}: {row['said']}" for row in sheet if row.get("state", UP) != UP]
    return ["", *told] if told else []


def _way_in(row: Mapping[str, Any], stack: str) -> str:
    """Return the command that gets into a machine; empty where there is none yet."""
    known = row["enter"] or row["user"] or row["console"]
    return ui.make("enter", stack, f"NAME={row['name']}").strip("`") if known else ""


def planned(stack: str) -> list[dict[str, Any]]:
    """Return the rows of ``stack`` as its file plans them, with what is known before it is made.

    Raises:
        Problem: the file is refused.
    """
    # YAML and the models take a second to import, and most sheets stand in a state.
    from toolchain import stack_check  # noqa: PLC0415

    rows = [
        {
            "name": machine.name,
            "kind": kind,
            "layer": machine.layer,
            "inside": list(machine.place),
            "domain": machine.called,
            "address": machine.address or "",
            **dict.fromkeys(("user", "console", "url"), ""),
            "enter": [],
            "serial": [],
            "run": [],
            "drives": list(machine.drives),
        }
        for machine, kind in stack_check.machines(stack)
    ]
    return sorted(rows, key=lambda row: int(row["layer"]))


def _screen(row: Mapping[str, Any]) -> str:
    screen = str(row["console"]) if ":" in row["console"] else ""
    return f"{screen} on {row['inside'][-1]}" if screen and row["inside"] else screen
