"""Run the tests: units, then doubles, then a real lab on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from toolchain import testing

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("tiers", nargs=-1, type=click.Choice(list(testing.TIERS)))
@click.option("--soak", is_flag=True, help="Also the tests that take many minutes.")
def command(tiers: Sequence[str], *, soak: bool) -> int:
    """Run the tests of TIERS, without any all of them in order; the first that fails ends it."""
    return testing.main([*tiers, *(["--soak"] if soak else [])])
