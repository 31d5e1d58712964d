"""What all gates share: how a dynamic provider's life cycle maps to looking and mending."""

from __future__ import annotations

from typing import Any

from pulumi.dynamic import (
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from typing_extensions import override

from components.remote.shell import Unreachable
from components.remote.virsh import VirshError
from components.remote.waiting import Seen, say

Props = dict[str, Any]

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that is not known yet (pulumi.runtime.rpc.UNKNOWN)."""


def has_unknown(value: Any) -> bool:
    """Whether ``value`` holds anything that is not known yet."""
    if isinstance(value, dict):
        return any(has_unknown(each) for each in value.values())
    if isinstance(value, list):
        return any(has_unknown(each) for each in value)
    return value == UNKNOWN or type(value).__name__ == "Unknown"


class Gate(ResourceProvider):
    """A dynamic provider whose diff looks at the world.

    Subclasses say which of their properties are inputs, what they see, and how they mend. The
    provider holds no state, so that it is stored by reference and a new version of the code needs
    no change of the stack.
    """

    serialize_as_secret_always = False
    inputs: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    """Inputs that may change without anything to be done: how long to wait, say."""

    def look(self, props: Props) -> Seen:
        """Look at the real thing, quickly (a second or so).

        Raises:
            Unreachable: the place does not answer.
        """
        raise NotImplementedError

    def mend(self, olds: Props, news: Props) -> Props:
        """Make the real thing as ``news`` wants it and return the outputs; ``olds`` may be empty."""
        raise NotImplementedError

    def retire(self, props: Props) -> None:
        """Take back what `mend` made, and leave things as the provider expects to find them."""

    @override
    def create(self, props: Props) -> CreateResult:
        return CreateResult(str(props["name"]), self.mend({}, props))

    @override
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        return UpdateResult(self.mend(_olds, _news))

    @override
    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, dict(props))

    @override
    def delete(self, _id: str, _props: Props) -> None:
        try:
            self.retire(_props)
        except (Unreachable, VirshError) as beyond:
            # The object itself is deleted next by its own provider, which reports what matters.
            say(f"{_props['name']}: {beyond}")

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        news = {key: _news.get(key) for key in self.inputs if key not in self.unasked}
        if has_unknown(news):
            return DiffResult(changes=True)
        if any(_olds.get(key) != value for key, value in news.items()):
            return DiffResult(changes=True)
        try:
            seen = self.look(_olds)
        except (Unreachable, VirshError) as silent:
            seen = Seen(ok=False, text=str(silent))
        if not seen.ok:
            say(f"{_olds['name']}: {seen.text}; `pulumi up` mends it")
        return DiffResult(changes=not seen.ok)
