"""Say what is of each machine of the lab, and how to get into it."""

from __future__ import annotations

import json

import click

from cli import machines, options, sheet
from toolchain import lab
from toolchain.bootstrap import ui


@click.command()
@options.stack
@click.option("--secrets", is_flag=True, help="Passwords in clear.")
@click.option("--look/--no-look", default=True, help="Ask the machines; without, only the state.")
@options.as_json
def command(stack: str, *, secrets: bool, look: bool, as_json: bool) -> int:
    """Say what is of each machine of the lab, and how to get into it.

    A lab that is half up is shown as its stack plans it. STATE is what was seen just now: up, off,
    not answering, not as wanted, not made, or unknown; the reasons are below the table.
    """
    told = lab.found(stack, secrets=secrets)
    whole = "sheet" in told
    rows = told["sheet"] if whole else sheet.planned(stack)
    if look:
        seen = machines.look(stack, rows)
        rows = [{**row, **seen[row["name"]]} for row in rows]
    told = {**(told if secrets else {}), "sheet": rows}
    if as_json:
        print(json.dumps({**told, "whole": whole}, indent=2))
        return 0
    sheet.show(told, stack)
    if not whole:
        ui.say(f"the lab is not up as a whole: {ui.make('up', stack)} carries on from here")
    return 0
