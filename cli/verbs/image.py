"""Make the golden image of a nested host."""

from __future__ import annotations

import click

from toolchain.image import image


@click.command()
@click.argument("kind", type=click.Choice(list(image.VARIANTS)), default=next(iter(image.VARIANTS)))
def command(kind: str) -> int:
    """Make the golden image of nested hosts of KIND, unless it is there; without a KIND, of KVM's."""
    return image.main([kind])
