"""What gates share that look through a product's API: Proxmox VE's and vSphere's.

Beside the provider, which knows what it did, such a place has for each guest a *slot*, which keeps its
number or name from others and clears what a killed run left, and a gate that starts it and waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi.dynamic import DiffResult
from typing_extensions import override

from components.gates import probes
from components.gates.base import Gate, Props
from components.gates.codec import has_unknown
from components.remote.shell import Unreachable, shell_of
from components.remote.waiting import Seen, say

if TYPE_CHECKING:
    from components.remote.shell import Shell

MARK = "nestlab {owner}"
"""What stands in the description of what is a lab's own."""


def is_ours(text: Any, props: Props) -> bool:
    """Whether a thing with the description ``text`` is the one that ``props`` owns."""
    return MARK.format(owner=props["owner"]) in str(text or "")


@dataclass(frozen=True)
class _Place:
    """Where a guest is asked from."""

    shell: Shell


def ask(props: Props) -> Seen:
    """Ask fully whether a guest that runs is up."""
    return probes.probe(props, _Place(shell_of(props["target"])))


def glance(props: Props, runs: Seen) -> Seen:
    """Ask cheaply, of a guest that was seen as ``runs`` says."""
    if not runs.ok or props["probe"]["kind"] == "tcp":
        return runs  # a service that is being restarted is no reason to start anything
    return probes.glance(props, _Place(shell_of(props["target"])))


def slot_seen(props: Props) -> Seen:
    """Look at a slot: ``left`` is set by who puts the state right after a killed run (toolchain.recover)."""
    return Seen(ok=not props.get("left"), text="a run that was killed left it half-made")


def cleared(props: Props) -> None:
    """Say that what was in a slot is gone."""
    say(f"{props['name']}: removed what a run that did not end left of it")


class ApiGate(Gate):
    """A gate that looks through an API, which may refuse, or be silent, while it does."""

    moves: tuple[str, ...] = ()
    """Inputs that say which thing it is; another one is made first, and this one goes afterwards."""
    refusals: tuple[type[Exception], ...] = ()
    """What the API's refusals are raised as."""

    def asked(self, props: Props) -> Seen:
        """Look, as `look` does; may also raise ``refusals``."""
        raise NotImplementedError

    @override
    def look(self, props: Props) -> Seen:
        try:
            return self.asked(props)
        except self.refusals as refused:
            return Seen(ok=False, text=str(refused))

    @override
    def compare(self, olds: Props, news: Props) -> DiffResult:
        moved = [key for key in self.moves if _differs(olds.get(key), news.get(key))]
        if moved:
            return DiffResult(changes=True, replaces=moved, delete_before_replace=False)
        return super().compare(olds, news)

    @override
    def end(self, props: Props) -> None:
        beyond_us: tuple[type[Exception], ...] = (Unreachable, *self.refusals)
        try:
            self.retire(props)
        except beyond_us as beyond:
            say(f"{props['name']}: {beyond}")


def _differs(old: Any, new: Any) -> bool:
    return old != new and not has_unknown([old, new])
