"""What the gates of all machines have: when the machine counts as up, and how its inside is reached."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.gates.base import BorderResource, Made, Named, Secret, Unasked
from components.gates.codec import read
from components.gates.probes import Probe
from components.reach.shell import NOWHERE, Target


@dataclass(frozen=True, kw_only=True)
class Machine(Named):
    """Properties of a machine's gate."""

    target: Target
    """The place it lives at."""
    instance: str
    """What tells it from another one of its name."""
    probe: Probe
    reach: Secret[Target] = NOWHERE
    """Its inside; empty for a guest that nobody enters."""
    key_folder: str = ""
    """Where files with its keys go that other programs read; empty for none."""
    deadline_s: Unasked[float]
    """How long it may take to be up."""
    answers: Made[str] = None
    """What it answered when it was last waited for."""


class MachineResource(BorderResource):
    """A machine that is up."""

    answers: pulumi.Output[str]
    """What it answered when it was last waited for."""

    @property
    def reach(self) -> pulumi.Output[Target]:
        """Of its inside, known once the machine is up, secret; empty for a guest nobody enters."""
        carried: pulumi.Output[object] = pulumi.get(self, "reach")
        return carried.apply(lambda known: read(Target, known, old=True))
