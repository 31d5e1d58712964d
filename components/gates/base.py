"""What all gates share: how a dynamic provider's life cycle maps to looking and mending.

What a gate has is one dataclass, `Properties`: the program makes an instance, the codec carries it, the
provider reads it. What is behind the border says the type of a field: `Made` is what the provider makes
of it, `Unasked`, `Moves` and `Secret` say more of what it is given; all else is asked for as it is.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pulumi
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
from components.reach.waiting import Seen, say
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

Props = dict[str, Any]
"""Properties as the engine carries them."""
T = TypeVar("T")


class Mark(enum.Enum):
    """What the type of a property says beside its shape."""

    MADE = "made"
    UNASKED = "unasked"
    MOVES = "moves"
    SECRET = "secret"  # noqa: S105 - the word for one


Made = Annotated[T | None, Mark.MADE]
"""What its provider makes of it, None before; the field has the default None."""
Unasked = Annotated[T, Mark.UNASKED]
"""What may change without anything to be done: how long to wait, say."""
Moves = Annotated[T, Mark.MOVES]
"""What says which thing it is; another one is made first, and this one goes afterwards."""
Secret = Annotated[T, Mark.SECRET]
"""What the engine keeps encrypted, whoever made it."""


@dataclasses.dataclass(frozen=True)
class Properties:
    """All that a dynamic resource has, what it is given and what its provider makes of it."""

    @classmethod
    @functools.cache
    def marked(cls, mark: Mark) -> tuple[str, ...]:
        """Return the names of the properties with ``mark``."""
        hints = typing.get_type_hints(cls, include_extras=True)
        names = (each.name for each in dataclasses.fields(cls))
        return tuple(name for name in names if mark in getattr(hints[name], "__metadata__", ()))

    @classmethod
    @functools.cache
    def asked(cls) -> tuple[str, ...]:
        """Return the names of what is given, and to be as it is given."""
        others = {*cls.marked(Mark.MADE), *cls.marked(Mark.UNASKED)}
        return tuple(each.name for each in dataclasses.fields(cls) if each.name not in others)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named(Properties):
    """Properties of a resource that knows its own name."""

    name: str = ""
    """Given by the resource itself."""


S = TypeVar("S", bound=Properties)
N = TypeVar("N", bound=Named)


class BorderProvider(ResourceProvider, Generic[S]):
    """A dynamic provider all whose properties, inputs and outputs, cross the engine's border as one dataclass."""

    serialize_as_secret_always = False
    shape: type[S]
    """The dataclass; see `components.gates.codec`."""

    def shape_of(self, props: Props) -> type[S]:
        """Return the shape of ``props``, where one resource has several."""
        del props
        return self.shape

    def given(self, props: Props) -> S:
        """Return what the program gave, as it gave it."""
        return read(self.shape_of(props), props)

    def stored(self, props: Props) -> S:
        """Return what a state holds, perhaps of another version."""
        return read(self.shape_of(props), props, old=True)

    def carried(self, props: S) -> Props:
        """Return ``props`` as the engine is given them."""
        made: Props = write(type(props), props)
        return made


class BorderResource(Resource):
    """A dynamic resource whose properties cross the engine's border by the shape of its provider."""

    def __init__(
        self,
        provider: BorderProvider[S],
        name: str,
        props: S,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        secret = pulumi.ResourceOptions(
            additional_secret_outputs=list(props.marked(Mark.SECRET)) or None
        )
        carried = provider.carried(props)
        if isinstance(props, Named):
            carried["name"] = name
        super().__init__(provider, name, carried, pulumi.ResourceOptions.merge(opts, secret))


class Gate(BorderProvider[N]):
    """A dynamic provider whose diff looks at the world.

    Subclasses say what they see, and how they mend. The provider holds no state, so that it is stored
    by reference and a new version of the code needs no change of the stack.
    """

    def look(self, props: N) -> Seen:
        """Look at the real thing, quickly (a second or so).

        Raises:
            Unreachable: the place does not answer.
        """
        raise NotImplementedError

    def picture(self, props: N) -> bytes:
        """Return a picture of the thing's screen, PNG.

        Raises:
            Refused: none can be had, and why.
            Unreachable: the place does not answer.
        """
        raise Refused(f"no command of its hypervisor takes a picture of {props.name}'s screen")

    def mend(self, olds: N | None, news: N) -> N:
        """Make the real thing as ``news`` wants it and return it with what was made; ``olds``: what was before."""
        raise NotImplementedError

    def retire(self, props: N) -> None:
        """Take back what `mend` made, and leave things as the provider expects to find them."""

    def problems(self, news: N) -> Iterable[tuple[str, str]]:
        """Yield inputs that can't be, and why; not everything need be known yet."""
        del news
        return ()

    def hindered(self, news: N) -> Iterable[tuple[str, str]]:
        """Yield inputs that can't be made now, and why; what was made once is not asked of again."""
        del news
        return ()

    def forbidden(self, olds: N, news: N) -> Iterable[tuple[str, str]]:
        """Yield inputs that can't become what they are to be, and why."""
        del olds, news
        return ()

    def compare(self, olds: N, news: N) -> DiffResult:
        """Say what there is to do, looking at the real thing where nothing was asked for."""
        asked = {key: getattr(news, key) for key in news.asked()}
        if has_unknown(asked):
            return DiffResult(changes=True)
        if any(getattr(olds, key) != value for key, value in asked.items()):
            return DiffResult(changes=True)
        try:
            seen = self.look(olds)
        except Refused as silent:
            seen = Seen(ok=False, text=str(silent))
        if not seen.ok:
            say(f"{olds.name}: {seen.text}; `pulumi up` mends it")
        return DiffResult(changes=not seen.ok)

    def end(self, props: N) -> None:
        """Take back what `mend` made, or say why that can't be."""
        try:
            self.retire(props)
        except Refused as beyond:
            # The object itself is deleted next by its own provider, which reports what matters.
            say(f"{props.name}: {beyond}")

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        given = self.given(news)
        found = [*self.problems(given)]
        found += self.forbidden(self.stored(_olds), given) if _olds else self.hindered(given)
        return CheckResult(news, [CheckFailure(key, why) for key, why in found])

    @override
    def create(self, props: Props) -> CreateResult:
        given = self.given(props)
        return CreateResult(given.name, self.carried(self.mend(None, given)))

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
