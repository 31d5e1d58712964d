"""What may be known later: texts by which nothing is planned, so that a program may give them as outputs.

A lab is planned before any of it exists, and so are its names, addresses and sizes. The few texts that
only go into a machine carry the mark `Later` where their model has them; whatever says of outputs where they
may stand (`components.contents`, the typed args, the component package) reads it there.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from components.stackfile.machines import ContainerSpec, GuestSpec
from components.stackfile.networks import NetworkSpec
from components.stackfile.problems import Problem, SpecError, listed
from components.stackfile.registry import KINDS
from components.stackfile.values import Later

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

AT = re.compile(
    r"\.(?P<group>networks|guests|containers|hypervisors)\.[^.]+\.(?P<field>\w+)(?P<number>\.\d+)?$"
)
"""A field of something in a place, or one of a field's values."""
MODELS: Mapping[str, type[BaseModel]] = {
    "networks": NetworkSpec,
    "guests": GuestSpec,
    "containers": ContainerSpec,
}
PLANNED = "a lab is planned before any of it exists, from what is known then"
NAMED = re.compile(r"\.network(\.\d+(\.network)?)?$")
"""Where a network is named."""


@dataclass(frozen=True)
class Mark:
    """A field that is marked."""

    later: Later
    each: bool
    """Whether it is a list, of which each word may be known later."""
    shape: Any

    def check(self, value: object, at: str) -> Any:
        """Return ``value``, which is known now, if it is of the field's form; it may be a secret.

        Raises:
            SpecError: it is not; the message does not show it.
        """
        try:
            return TypeAdapter(self.shape).validate_python(value, strict=True)
        except ValidationError:
            rule, remedy = f"{self.later.what} is {self.later.form}", "give one that is"
        raise SpecError([Problem(at, "an Output of another form given", rule, remedy)])


def marks(model: type[BaseModel]) -> dict[str, Mark]:
    """Return the marked fields of ``model`` by name."""
    found = {}
    annotated: Any = typing.Annotated
    for name, field in model.model_fields.items():
        # pydantic keeps what a whole field is annotated with apart from its type.
        for mark in _marked(annotated[field.annotation, *field.metadata, None], each=False):
            found[name] = mark
    return found


def _marked(shape: Any, *, each: bool) -> Iterator[Mark]:
    for said in getattr(shape, "__metadata__", ()):
        if isinstance(said, Later):
            yield Mark(said, each, shape)
    inner = typing.get_origin(shape)
    for one in typing.get_args(shape):
        yield from _marked(one, each=each or inner in {tuple, list})


def models() -> dict[str, type[BaseModel]]:
    """Return all models that something in a place may be, by their names."""
    every = [*MODELS.values(), *(kind.model for kind in KINDS.values())]
    return {each.__name__: each for each in every}


def marked_at(path: str, kind: object) -> Mark | None:
    """Return the mark of the field at ``path``; ``kind`` is that of the hypervisor whose field it would be."""
    where = AT.search(path)
    if where is None:
        return None
    group = where["group"]
    model = MODELS.get(group) or (
        KINDS[kind].model if isinstance(kind, str) and kind in KINDS else None
    )
    mark = marks(model).get(where["field"]) if model else None
    return mark if mark is not None and mark.each is bool(where["number"]) else None


def refused(path: str) -> Problem:
    """Return the problem of an output at ``path``, where none may stand."""
    if NAMED.search(path):
        remedy = "write the network's name; it may be made after what is on it"
        return Problem(path, "an Output given", PLANNED, remedy)
    some = {mark.later.what for model in models().values() for mark in marks(model).values()}
    remedy = f"give the value itself; only {listed(sorted(some))} may be an Output"
    return Problem(path, "an Output given", PLANNED, remedy)
