"""The program of a stack under review: as the project's own, on a host that is only imagined.

It opens no file that the stack names and asks nothing of this machine: what it takes for granted is
said in docs/pull-requests.md. The engine asks stand-ins (`review.stand_in`) instead of providers.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pulumi

from components import settings
from components.lab import deploy
from components.sheet import document
from components.stackfile import SpecError
from review import names

root = Path(__file__).resolve().parent
config = pulumi.Config()
data = settings.lab(config)
spec, problems = names.understood(data, root)
# Read for its refusal: one that stands in the file in clear.
settings.host_password(config)
if spec is not None and not problems:
    spec, problems = names.understood(names.elsewhere(data, root), root)
if spec is not None and not problems:
    facts, problems = settings.facts_of(spec, root, pulumi.get_stack(), None, preview=True)
if spec is None or problems:
    raise pulumi.RunError(
        f"the stack {pulumi.get_stack()} can't be deployed:\n{SpecError(problems)}"
    )


lab = spec


async def program() -> dict[str, pulumi.Output[Any]]:
    """Make the lab, and end when its last resource is made."""
    outputs = deploy(lab, root=root, private=root / "keys", **facts)
    outputs["sheet"] = document(outputs["sheet"])
    await asyncio.gather(*(each.future() for each in outputs.values()), return_exceptions=True)
    return outputs


pulumi.run(program)
