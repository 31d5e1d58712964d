"""Take the lab away, and leave nothing of it."""

from __future__ import annotations

import click

from cli import options, records
from toolchain import lab


@click.command()
@options.stack
def command(stack: str) -> int:
    """Take the lab away; nothing happens where there is none."""
    with lab.alone(stack):
        if not lab.down(stack):
            return 1
        records.forget(stack)
    return 0
