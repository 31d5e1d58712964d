"""Remove what the set-up started and built in this checkout."""

from __future__ import annotations

import click

from toolchain import clean


@click.command()
@click.option("--cache", is_flag=True, help="Also the cache that all checkouts share.")
@click.option("--forget", is_flag=True, help="Also the state of labs that still stand.")
def command(*, cache: bool, forget: bool) -> int:
    """Remove what the set-up started and built; nothing is while a lab stands."""
    return clean.main([*(["--cache"] if cache else []), *(["--forget"] if forget else [])])
