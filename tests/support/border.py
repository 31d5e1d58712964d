"""Values that cross the engine's border, of every kind that it carries, and the resource that takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from hypothesis import strategies as st
from typing_extensions import override

from components.gates import codec
from components.gates.base import BorderResource, Gate
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from components.gates.base import Props


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
    },
    optional={"left_out": WHOLE},
)


def typed(value: Any) -> Any:
    """Return ``value`` with the type of everything in it, for which 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [typed(each) for each in value]
    return type(value).__name__, repr(value)


def visit(shape: Any) -> None:
    """Go through all of a shape; what the engine can't carry is a TypeError."""
    import typing  # noqa: PLC0415

    for member in codec._members(shape).values():
        if typing.is_typeddict(member):
            for field in codec._fields(member).values():
                visit(field.shape)
        else:
            for each in typing.get_args(member) if codec._kind(member) != "string" else ():
                visit(each)


class Arrival(TypedDict):
    """A value, and the file in which its provider notes how it arrived."""

    name: str
    value: Everything
    file: str
    seen: Everything | None


class ArrivalProvider(Gate):
    """Notes what it is given, as JSON with types."""

    shape = Arrival
    inputs = ("name", "value", "file")

    @override
    def look(self, props: Props) -> Seen:
        _note(props, "looked", props["value"])
        _note(props, "kept", props["seen"])
        return Seen(ok=True, text="there")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        _note(news, "made", news["value"])
        return {**news, "seen": news["value"]}

    @override
    def retire(self, props: Props) -> None:
        _note(props, "gone", props["seen"])


def _note(props: Props, what: str, value: Any) -> None:
    with Path(props["file"]).open("a") as notes:
        notes.write(json.dumps([props["name"], what, typed(value)]) + "\n")


class ArrivalResource(BorderResource, module="nestlab", name="Arrival"):
    """One value that goes through the engine."""

    def __init__(self, provider: ArrivalProvider, name: str, value: Any, file: str) -> None:
        super().__init__(
            provider,
            name,
            {"name": name, "value": value, "file": file, "seen": None},
        )
