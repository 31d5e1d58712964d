"""The program of every nestlab stack: settings in, lab out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pulumi

from components import settings
from components.lab import deploy
from components.sheet import document

root = Path(__file__).resolve().parent
config = pulumi.Config()
given = settings.load(
    settings.lab(config),
    root,
    pulumi.get_stack(),
    preview=pulumi.runtime.is_dry_run(),
    password=settings.host_password(config),
)


async def program() -> dict[str, pulumi.Output[Any]]:
    """Make the lab, and end when its last resource is made.

    After a program's end the SDK waits for what is left by asking all of it again whenever one thing is
    done, which takes time by the square of the lab's size. Failures are told by it, not here.
    """
    outputs = deploy(given.spec, **given.facts)
    outputs["sheet"] = document(outputs["sheet"])
    await asyncio.gather(*(each.future() for each in outputs.values()), return_exceptions=True)
    return outputs


pulumi.run(program)
