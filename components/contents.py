"""What a program asks for of one lab, piece by piece, until the lab is whole.

Names, addresses and MACs are planned from the whole lab (`components.stackfile.plan`): who gives way where
two machines share a first choice, and what a network reserves, shows only when all of it is there. So a
component says what it wants when a program makes it, and is checked together with all before it; what
it consists of is made once the program has said all it wants. In whatever order that is said, the plan is
that of the same lab in a stack file.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pulumi
from pydantic import BaseModel

from components.stackfile import later
from components.stackfile.problems import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Args = BaseModel | Mapping[str, Any]
"""What a component is made from: a model of `components.stackfile`, or its fields as the stack file has them."""
TO_COME = re.compile(r"\.network(\.\d+\.network)?$")
"""Where a network is named, which may be made after what is on it."""


class RefusedLab(SpecError, pulumi.RunError):
    """A lab, or a fact that it needs, is refused: told as its message, without a traceback."""


class Holder(Protocol):
    """A component that others can be made `on`: a lab, or a nested hypervisor in one."""

    holds: Contents


@dataclass
class Draft:
    """One lab as far as a program has said it."""

    data: dict[str, Any]
    """The lab as a stack file would have it."""
    judge: Callable[[object], list[Problem]]
    """Returns what is wrong with ``data`` so far."""
    outputs: dict[str, pulumi.Output[Any]] = field(default_factory=dict)
    """What was given as an output, by its path; ``data`` has there what stands in for it."""
    open: bool = True
    """Whether more can be asked for."""
    held: bool = False
    """Whether it is not made before who holds it says so, whatever the program does."""
    making: bool = False
    """Whether it is complete, and its components are being made."""
    whole: asyncio.Future[None] = field(default_factory=asyncio.Future)
    """Done when all of it is made, as far as the program makes it; failed when it was refused."""

    def check(self) -> None:
        """See to it that nothing said so far is wrong.

        Raises:
            RefusedLab: with every problem; a network that is not there yet is none.
        """
        wrong = [one for one in self.judge(self.data) if not self._may_come(one)]
        if wrong:
            raise RefusedLab(wrong)

    def _may_come(self, problem: Problem) -> bool:
        """Whether ``problem`` is about the name of a network that its place has not, yet."""
        if not TO_COME.search(problem.path):
            return False
        place: Any = self.data
        words = problem.path.split(".")[1:]
        while words and words[0] == "hypervisors" and len(words) > 3:  # noqa: PLR2004 - of one inside it
            place = place.get("hypervisors", {}).get(words[1], {})
            words = words[2:]
        known = place.get("networks") or {}
        named = re.fullmatch(r"'(.*)' given", problem.found)
        return named is not None and named[1] not in known

    def fail(self, error: Exception) -> None:
        """Let all that waits for the lab fail as it did."""
        self.open = self.making = False
        if not self.whole.done():
            self.whole.set_exception(error)
            self.whole.exception()  # seen: who made the lab raises it too

    def done(self) -> None:
        """Let all that waits for the lab go on."""
        self.open = self.making = False
        if not self.whole.done():
            self.whole.set_result(None)

    def later(self, get: Callable[[], pulumi.Input[T]]) -> pulumi.Output[T]:
        """Return what ``get`` does once the lab is whole, as secret and as unknown as that is."""

        async def waited() -> Any:  # what it is made of unwraps itself
            await asyncio.shield(self.whole)
            return get()

        made: pulumi.Output[T] = pulumi.Output.from_input(waited())
        return made


@dataclass
class Contents:
    """What is asked for in one place of a lab."""

    draft: Draft
    data: dict[str, Any]
    """The place's part of the draft."""
    at: str
    """Its path in the lab, ``lab.hypervisors.kvm1``."""
    prefix: str
    """What the logical names of all that is in it begin with."""
    owner: pulumi.Resource | None = None
    """The component that it is in: parent of what names no other."""
    pieces: dict[tuple[str, str], Any] = field(default_factory=dict)
    """The components that a program made itself, by group and name."""
    names: dict[str, str] = field(default_factory=dict)
    """Logical names by name, of those that a program in another language called itself."""

    def logical(self, name: str) -> str:
        """Return what ``name`` of this place is called in the state."""
        return self.names.get(name, f"{self.prefix}{name}")

    def say(self, group: str, name: str, args: Args, piece: object) -> dict[str, Any]:
        """Add ``piece`` to the lab as ``name`` of ``group``; return its part of the draft.

        Raises:
            RefusedLab: it can't be in the lab; nothing of it is kept.
        """
        if self.draft.making:
            return {}  # it is in the lab already
        at = f"{self.at}.{group}.{name}"
        if not self.draft.open:
            rule = "the lab was made when the program first waited for something, or ended"
            remedy = "make it before the first await, and not inside an apply"
            raise RefusedLab([Problem(at, "a late component given", rule, remedy)])
        entries = self.data.setdefault(group, {})
        if name in entries:
            rule = "its place has one of that name already"
            raise RefusedLab([Problem(at, "given twice", rule, "give it another name")])
        said = plain(args, at, self.draft.outputs)
        entries[name] = said
        try:
            self.draft.check()
        except RefusedLab:
            del entries[name]
            raise
        self.pieces[group, name] = piece
        return said

    def options(self, opts: pulumi.ResourceOptions | None) -> pulumi.ResourceOptions:
        """Return ``opts``, with the place as parent where they name none."""
        return pulumi.ResourceOptions.merge(pulumi.ResourceOptions(parent=self.owner), opts)


def holder(on: object, at: str) -> Contents:
    """Return what ``on`` holds, which the component at the path ``at`` is to be made on.

    Raises:
        RefusedLab: it holds nothing.
    """
    found = getattr(on, "holds", None)
    if isinstance(found, Contents):
        return found
    given = "nothing given" if on is None else f"a {type(on).__name__} given"
    rule = "a component is made on a Lab, or on a NestedHypervisorLab in one"
    raise RefusedLab([Problem(f"{at}.on", given, rule, "write on= with one of them, and no name")])


def plain(args: Args, at: str, outputs: dict[str, pulumi.Output[Any]]) -> dict[str, Any]:
    """Return ``args`` as a stack file would have them at the path ``at``; ``outputs`` gets what is known later.

    Raises:
        RefusedLab: something in them is an output, and not where `components.stackfile.later` allows it.
    """
    found = known_now(args, at, outputs)
    if not isinstance(found, dict):
        raise RefusedLab([Problem(at, "no mapping given", "its fields are needed", "give args")])
    return found


def known_now(value: Any, at: str, outputs: dict[str, pulumi.Output[Any]]) -> Any:
    """Return ``value`` with what stands in for the outputs in it, which ``outputs`` gets.

    Raises:
        RefusedLab: as `plain`.
    """
    wrong: list[Problem] = []
    found = _plain(value, at, wrong, outputs, None)
    if wrong:
        raise RefusedLab(wrong)
    return found


def _plain(
    value: Any,
    at: str,
    wrong: list[Problem],
    outputs: dict[str, pulumi.Output[Any]],
    kind: object,
) -> Any:
    """Take ``value`` apart; ``kind`` is what the mapping around it says it is."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        inner = value.get("kind")
        return {
            key: _plain(each, f"{at}.{key}", wrong, outputs, inner) for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(each, f"{at}.{n}", wrong, outputs, kind) for n, each in enumerate(value)]
    if not (isinstance(value, pulumi.Output | pulumi.Resource) or inspect.isawaitable(value)):
        return value
    mark = None if isinstance(value, pulumi.Resource) else later.marked_at(at, kind)
    if mark is None:
        wrong.append(_named(value, at) if isinstance(value, pulumi.Resource) else later.refused(at))
        return value
    outputs[at] = pulumi.Output.from_input(value).apply(lambda known: _checked(mark, known, at))
    return mark.later.stands_in


def _named(piece: pulumi.Resource, at: str) -> Problem:
    rule = "what stands in a lab is named, also before it is made"
    key = getattr(piece, "key", None)
    remedy = f"write {key!r}" if isinstance(key, str) else "write its name"
    return Problem(at, f"a {type(piece).__name__} given", rule, remedy)


def _checked(mark: later.Mark, known: Any, at: str) -> Any:
    try:
        return mark.check(known, at)
    except SpecError as wrong:
        raise RefusedLab(wrong.problems) from None
