"""Let a suspended lab go on, in seconds."""

from __future__ import annotations

import click

from cli import options, suspension
from components.refused import Refused
from toolchain import lab
from toolchain.bootstrap import ui


@click.command()
@options.stack
@click.option(
    "--lose", is_flag=True, help="Boot from its disks what does not go on from its memory."
)
def command(stack: str, *, lose: bool) -> int:
    """Let a suspended lab go on from where it was, with the time of now; nothing happens to one that runs.

    `up` does the same, and puts right whatever else is missing.
    """
    if why := lab.absent(stack):
        raise ui.Problem(why)
    with lab.alone(stack):
        try:
            slept = suspension.resume(stack, lose=lose)
        except Refused as wrong:
            raise ui.Problem(
                f"the lab does not go on: {wrong}\n{ui.make('up', stack)} puts right what is missing around it; "
                f"{ui.make('resume', stack, 'LOSE=1')} gives up memory that can't be used, and boots"
            ) from None
    ui.say(f"the lab of {stack} goes on" if slept else f"the lab of {stack} is not suspended")
    return 0
