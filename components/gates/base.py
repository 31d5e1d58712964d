"""What all gates share: how a dynamic provider's life cycle maps to looking and mending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)
from typing_extensions import override

from components.gates.codec import has_unknown, read, write
from components.remote.shell import Unreachable, shell_of
from components.remote.virsh import Virsh, VirshError
from components.remote.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pulumi

Props = dict[str, Any]


def libvirt_of(props: Props) -> Virsh:
    """Return the libvirt that a gate with ``target`` and ``uri`` is about."""
    return Virsh(shell_of(props["target"]), props["uri"])


class BorderProvider(ResourceProvider):
    """A dynamic provider with a shape, by which all that it is given and returns crosses the engine's border."""

    serialize_as_secret_always = False
    shape: Any = None
    """The TypedDict of all its properties, inputs and outputs; see `components.gates.codec`."""

    def shape_of(self, props: Props) -> Any:
        """Return the shape of ``props``, where one resource has several."""
        del props
        return self.shape

    def given(self, props: Props) -> Props:
        """Return what the program gave, as it gave it."""
        made: Props = read(self.shape_of(props), props)
        return made

    def stored(self, props: Props) -> Props:
        """Return what a state holds, perhaps of another version."""
        made: Props = read(self.shape_of(props), props, old=True)
        return made

    def carried(self, props: Props) -> Props:
        """Return ``props`` as the engine is given them."""
        made: Props = write(self.shape_of(props), props)
        return made


class BorderResource(Resource):
    """A dynamic resource whose properties cross the engine's border by the shape of its provider."""

    def __init__(
        self,
        provider: BorderProvider,
        name: str,
        props: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(provider, name, provider.carried(dict(props)), opts)


class Gate(BorderProvider):
    """A dynamic provider whose diff looks at the world.

    Subclasses say which of their properties are inputs, what they see, and how they mend. The
    provider holds no state, so that it is stored by reference and a new version of the code needs
    no change of the stack.
    """

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

    def problems(self, news: Props) -> Iterable[tuple[str, str]]:
        """Yield inputs that can't be, and why; not everything need be known yet."""
        del news
        return ()

    def compare(self, olds: Props, news: Props) -> DiffResult:
        """Say what there is to do, looking at the real thing where nothing was asked for."""
        asked = {key: news.get(key) for key in self.inputs if key not in self.unasked}
        if has_unknown(asked):
            return DiffResult(changes=True)
        if any(olds.get(key) != value for key, value in asked.items()):
            return DiffResult(changes=True)
        try:
            seen = self.look(olds)
        except (Unreachable, VirshError) as silent:
            seen = Seen(ok=False, text=str(silent))
        if not seen.ok:
            say(f"{olds['name']}: {seen.text}; `pulumi up` mends it")
        return DiffResult(changes=not seen.ok)

    def end(self, props: Props) -> None:
        """Take back what `mend` made, or say why that can't be."""
        try:
            self.retire(props)
        except (Unreachable, VirshError) as beyond:
            # The object itself is deleted next by its own provider, which reports what matters.
            say(f"{props['name']}: {beyond}")

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        found = self.problems(self.given(news))
        return CheckResult(news, [CheckFailure(key, why) for key, why in found])

    @override
    def create(self, props: Props) -> CreateResult:
        given = self.given(props)
        return CreateResult(str(given["name"]), self.carried(self.mend({}, given)))

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return self.compare(self.stored(_olds), self.given(_news))

    @override
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        return UpdateResult(self.carried(self.mend(self.stored(_olds), self.given(_news))))

    @override
    def read(self, id_: str, props: Props) -> ReadResult:
        return ReadResult(id_, dict(props))

    @override
    def delete(self, _id: str, _props: Props) -> None:
        self.end(self.stored(_props))
