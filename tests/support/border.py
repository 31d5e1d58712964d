"""Values that cross the engine's border, of every kind that it carries, and the resource that takes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from hypothesis import strategies as st
from typing_extensions import override

from components.gates import codec
from components.gates.base import BorderResource, Gate, Made, Named
from components.reach.waiting import Seen


@dataclass(frozen=True)
class Record:
    """A map that is an instance of its own class behind the border."""

    whole: int
    texts: list[str]
    part: float = 1.0
    further: Inner | None = None


class Inner(TypedDict, total=False):
    """A map inside of another."""

    whole: int
    part: float
    nothing: int | None


class Everything(TypedDict):
    """One field for each kind of value."""

    whole: int
    part: float
    flag: bool
    text: str
    word: Literal["cdrom", "hd"]
    number_or_text: int | str
    maybe: int | None
    maybe_text: str | None
    left_out: NotRequired[int]
    numbers: list[int]
    lengths: list[float]
    texts: list[str]
    nested: list[list[bool]]
    map: dict[str, int]
    inner: Inner
    inners: dict[str, list[Inner]]
    maybe_inner: Inner | None
    record: Record
    records: list[Record]


EDGES = [0, 1, -1, 28, 255, 2**31, 2**32, 2**53, -(2**53)]
WHOLE = st.sampled_from(EDGES) | st.integers(-(2**53), 2**53)
PART = st.sampled_from([0.0, 28.0, -1.0, 0.1, 1e21, 1e-7, 5e-324]) | st.floats(
    allow_nan=False, allow_infinity=False
)
TEXT = st.sampled_from(["", "0", "28.0", "null", "true", "\n", "ä😀", " a ", "$x", "{}"]) | st.text(
    # NUL and lone surrogates are no text that protobuf and JSON hand on.
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    max_size=12,
)
INNER = st.fixed_dictionaries(
    {"nothing": st.none() | WHOLE}, optional={"whole": WHOLE, "part": PART}
)
RECORD = st.builds(
    Record, whole=WHOLE, texts=st.lists(TEXT, max_size=2), part=PART, further=st.none() | INNER
)
VALUES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "whole": WHOLE,
        "part": PART,
        "flag": st.booleans(),
        "text": TEXT,
        "word": st.sampled_from(["cdrom", "hd"]),
        "number_or_text": WHOLE | TEXT,
        "maybe": st.none() | WHOLE,
        "maybe_text": st.none() | TEXT,
        "numbers": st.lists(WHOLE, max_size=3),
        "lengths": st.lists(PART, max_size=3),
        "texts": st.lists(TEXT, max_size=3),
        "nested": st.lists(st.lists(st.booleans(), max_size=2), max_size=2),
        "map": st.dictionaries(TEXT, WHOLE, max_size=3),
        "inner": INNER,
        "inners": st.dictionaries(TEXT, st.lists(INNER, max_size=2), max_size=2),
        "maybe_inner": st.none() | INNER,
        "record": RECORD,
        "records": st.lists(RECORD, max_size=2),
    },
    optional={"left_out": WHOLE},
)


def typed(value: Any) -> Any:
    """Return ``value`` with the type of everything in it, for which 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [typed(each) for each in value]
    if isinstance(value, Record):
        return [
            type(value).__name__,
            {each.name: typed(getattr(value, each.name)) for each in fields(value)},
        ]
    return type(value).__name__, repr(value)


def visit(shape: Any, seen: frozenset[Any] = frozenset()) -> None:
    """Go through all of a shape, which may hold itself; what the engine can't carry is a TypeError."""
    import typing  # noqa: PLC0415

    for member in codec._members(shape).values():
        if typing.is_typeddict(member) or is_dataclass(member):
            for field in codec._fields(member).values() if member not in seen else ():
                visit(field.shape, seen | {member})
        else:
            for each in typing.get_args(member) if codec._kind(member) != "string" else ():
                visit(each, seen)


@dataclass(frozen=True, kw_only=True)
class Arrival(Named):
    """A value, and the file in which its provider notes how it arrived."""

    value: Everything
    file: str
    seen: Made[Everything] = None


class ArrivalProvider(Gate[Arrival]):
    """Notes what it is given, as JSON with types."""

    shape = Arrival

    @override
    def look(self, props: Arrival) -> Seen:
        _note(props, "looked", props.value)
        _note(props, "kept", props.seen)
        return Seen(ok=True, text="there")

    @override
    def mend(self, olds: Arrival | None, news: Arrival) -> Arrival:
        _note(news, "made", news.value)
        return replace(news, seen=news.value)

    @override
    def retire(self, props: Arrival) -> None:
        _note(props, "gone", props.seen)


def _note(props: Arrival, what: str, value: Any) -> None:
    with Path(props.file).open("a") as notes:
        notes.write(json.dumps([props.name, what, typed(value)]) + "\n")


class ArrivalResource(BorderResource, module="nestlab", name="Arrival"):
    """One value that goes through the engine."""

    def __init__(self, provider: ArrivalProvider, name: str, value: Any, file: str) -> None:
        super().__init__(provider, name, Arrival(value=value, file=file))
