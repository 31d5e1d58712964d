"""Bring the lab back to its snapshot, or make it anew."""

from __future__ import annotations

import sys

import click

from cli import options, snapshots
from toolchain import lab
from toolchain.bootstrap import ui


@click.command()
@options.stack
@click.option("--lose", is_flag=True, help="Go on although what was done in the lab is lost.")
@click.option("--cold", is_flag=True, help="Not to a snapshot: down, then up.")
@click.option(
    "--policies/--no-policies",
    default=True,
    show_default=True,
    help="Whether the policy pack judges a lab that is brought up.",
)
def command(stack: str, *, lose: bool, cold: bool, policies: bool) -> int:
    """Bring the lab back to how it was when its snapshot was taken; where that can't be, take it down and up.

    All that was done in it since then is lost, so without a terminal it takes --lose. docs/reset.md says when
    a snapshot is used, and what is renewed.
    """
    if not lose:
        _ask(stack)
    with lab.alone(stack):
        done = snapshots.reset(stack, cold=cold, policies=policies)
    if done:
        ui.say(f"the lab of {stack} is as it was")
    return 0 if done else 1


def _ask(stack: str) -> None:
    """Go on only when somebody says so.

    Raises:
        Problem: there is no lab, nobody is there to be asked, or the answer is no.
    """
    if why := lab.absent(stack):
        raise ui.Problem(why)
    if not sys.stdin.isatty():
        word = ui.make("reset", stack, "LOSE=1")
        raise ui.Problem(f"nothing was changed: what was done in the lab is lost. {word} does it.")
    try:
        answer = input(f"All that was done in the lab of {stack} is lost. Go on? Only 'yes' does. ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise ui.Problem("nothing was changed.")
