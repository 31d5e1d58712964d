"""Say whether this machine can run nested labs, and what to mend."""

from __future__ import annotations

import click

from cli import options
from toolchain.doctor import command as doctor


@click.command()
@options.stack
@click.option("--quick", is_flag=True, help="Start no guest where the last verdict still holds.")
@options.as_json
def command(stack: str, *, quick: bool, as_json: bool) -> int:
    """Say whether this machine can run nested labs, and what to mend.

    It tries rather than reads, and changes nothing. The exit status is 1 where labs can't run.
    """
    return doctor.main(
        ["--stack", stack, *(["--quick"] if quick else []), *(["--json"] if as_json else [])]
    )
