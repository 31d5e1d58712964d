"""What gates share that look through a product's API: Proxmox VE's and vSphere's.

Beside the provider, which knows what it did, such a place has for each guest a *slot*, which keeps its
number or name from others and clears what a killed run left, and a gate that starts it and waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pulumi.dynamic import DiffResult
from typing_extensions import override

from components.gates import probes
from components.gates.base import Gate, Made, Mark, Named
from components.gates.codec import has_unknown
from components.reach.shell import shell_of
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from components.gates.machine import Machine
    from components.reach.shell import Shell

N = TypeVar("N", bound=Named)

MARK = "nestlab {owner}"
"""What stands in the description of what is a lab's own."""


def is_ours(text: str | None, owner: str) -> bool:
    """Whether a thing with the description ``text`` is the one of ``owner``."""
    return MARK.format(owner=owner) in (text or "")


@dataclass(frozen=True)
class _Place:
    """Where a guest is asked from."""

    shell: Shell


def ask(props: Machine) -> Seen:
    """Ask fully whether a guest that runs is up."""
    return probes.probe(props, _Place(shell_of(props.target)))


def glance(props: Machine, runs: Seen) -> Seen:
    """Ask cheaply, of a guest that was seen as ``runs`` says."""
    if not runs.ok or props.probe.kind == "tcp":
        return runs  # a service that is being restarted is no reason to start anything
    return probes.glance(props, _Place(shell_of(props.target)))


@dataclass(frozen=True, kw_only=True)
class Slot(Named):
    """Properties of a slot."""

    owner: str
    left: Made[bool] = None
    """Set by who puts the state right after a killed run (toolchain.engine.recover)."""

    @property
    def seen(self) -> Seen:
        """What there is to see of a slot."""
        return Seen(ok=not self.left, text="a run that was killed left it half-made")

    def cleared(self) -> None:
        """Say that what was in the slot is gone."""
        say(f"{self.name}: removed what a run that did not end left of it")


class ApiGate(Gate[N]):
    """A gate that looks through an API, which may refuse, or be silent, while it does."""

    @override
    def compare(self, olds: N, news: N) -> DiffResult:
        keys = news.marked(Mark.MOVES)
        moved = [key for key in keys if _differs(getattr(olds, key), getattr(news, key))]
        if moved:
            return DiffResult(changes=True, replaces=moved, delete_before_replace=False)
        return super().compare(olds, news)


def _differs(old: object, new: object) -> bool:
    return old != new and not has_unknown([old, new])
