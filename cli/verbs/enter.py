"""Open a shell on a machine of the lab, or run a command there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import machines, options, records, sheet
from toolchain import lab
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@options.stack
@click.option("--console", is_flag=True, help="Open its text console, whatever else opens it.")
@click.argument("name", required=False, shell_complete=options.machine_names)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
def command(stack: str, console: bool, name: str | None, words: Sequence[str]) -> int:
    """Open a shell on the machine NAME, as `show` calls it, or run COMMAND there.

    A guest without a known login opens its text console. Of a lab that is half up, what is made is open
    already. The exit status is that of what ran.
    """
    if records.read(stack).suspended:
        ui.warn(f"the lab of {stack} was suspended; {ui.make('resume', stack)} lets it go on")
    return lab.enter(stack, name, words, _half_up, console=console)


def _half_up(stack: str, name: str | None) -> list[dict[str, Any]]:
    """Return the rows of a lab that is half up, with the way into the machine ``name``.

    Raises:
        Problem: there is none yet.
    """
    rows = sheet.planned(stack)
    # The hypervisor around it too, through which a guest is opened.
    inside = {each for row in rows if row["name"] == name for each in (name, *row["inside"][-1:])}
    return [machines.way_in(stack, row) if row["name"] in inside else row for row in rows]
