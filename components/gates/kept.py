"""What was chosen for a lab when it was made, and stays with it until it is taken down.

A golden image follows nestlab's own files and the host's Debian release, a node follows what the
cluster has. Were they chosen anew at each ``up``, a `git pull` or one node more would throw away all
that is inside the lab. So they are chosen once: the engine keeps the first value in the state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, UpdateResult
from typing_extensions import override

from components.gates.base import BorderProvider, BorderResource, Named

if TYPE_CHECKING:
    from components.gates.base import Props


@dataclass(frozen=True, kw_only=True)
class _Kept(Named):
    value: str


class KeptProvider(BorderProvider[_Kept]):
    """Holds a value; there is nothing to look at and nothing to mend."""

    shape = _Kept

    @override
    def create(self, props: Props) -> CreateResult:
        given = self.given(props)
        return CreateResult(given.name, self.carried(given))

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return DiffResult(changes=self.stored(_olds).value != self.given(_news).value)

    @override
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        return UpdateResult(self.carried(self.given(_news)))


class Kept(BorderResource, module="nestlab", name="Kept"):
    """A choice that stays what it was when the lab was made.

    ``value`` is anything that JSON can hold. ``wished`` is for a choice of the user's own in the stack
    file: that one is followed.
    """

    value: pulumi.Output[str]
    """JSON text; known in a preview too."""

    def __init__(
        self,
        name: str,
        value: Any,
        *,
        wished: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        keep = pulumi.ResourceOptions(ignore_changes=None if wished else ["value"])
        super().__init__(
            KeptProvider(),
            name,
            _Kept(value=json.dumps(value, sort_keys=True)),
            pulumi.ResourceOptions.merge(opts, keep),
        )

    @property
    def made_with(self) -> pulumi.Output[Any]:
        """The value as it was given when the lab was made."""
        return self.value.apply(json.loads)
