"""Open a shell on a machine of the lab, or run a command there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from cli import machines, options, sheet
from toolchain import lab
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from collections.abc import Sequence


def _names(ctx: click.Context, _argument: click.Parameter, begun: str) -> list[str]:
    with contextlib.suppress(ui.Problem, OSError):
        rows = lab.outputs(ctx.params.get("stack") or ui.DEFAULT_STACK)["sheet"]
        return [row["name"] for row in rows if row["name"].startswith(begun)]
    return []


@click.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@options.stack
@click.argument("name", required=False, shell_complete=_names)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
def command(stack: str, name: str | None, words: Sequence[str]) -> int:
    """Open a shell on the machine NAME, as `show` calls it, or run COMMAND there.

    A guest without a known login opens its console. Of a lab that is half up, what is made is open
    already. The exit status is that of what ran.
    """
    return lab.enter(stack, name, words, _half_up)


def _half_up(stack: str, name: str | None) -> list[dict[str, Any]]:
    """Return the rows of a lab that is half up, with the way into the machine ``name``.

    Raises:
        Problem: there is none yet.
    """
    rows = sheet.planned(stack)
    # The hypervisor around it too, through which a guest is opened.
    inside = {each for row in rows if row["name"] == name for each in (name, *row["inside"][-1:])}
    return [machines.way_in(stack, row) if row["name"] in inside else row for row in rows]
