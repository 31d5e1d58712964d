"""Save the lab's memory to disk and switch its machines off, to go on from there later."""

from __future__ import annotations

import click

from cli import options, suspension
from components.refused import Refused
from toolchain import lab
from toolchain.bootstrap import ui


@click.command()
@options.stack
def command(stack: str) -> int:
    """Save the memory of the lab's machines to disk and switch them off; `resume` and `up` go on from there.

    All that runs in them is in it: inner guests, containers, sessions. docs/reset.md says where it lies.
    """
    with lab.alone(stack):
        try:
            saved = suspension.suspend(stack)
        except Refused as wrong:
            raise ui.Problem(f"nothing was suspended: {wrong}") from None
    ui.say(
        f"the lab of {stack} is suspended; {ui.make('resume', stack)} goes on from there"
        if saved
        else f"no machine of the lab of {stack} runs"
    )
    return 0
