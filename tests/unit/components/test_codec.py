"""The codec at the engine's border, on what pulumi's own serialization makes of values.

A failure here is a number that became another, a None that became nothing, a field that nobody reads,
or a secret in a message. `tests/double/test_border.py` sends the same through the real engine.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import pkgutil
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NotRequired, TypedDict

import pulumi
import pytest
from hypothesis import given, settings
from pulumi.runtime import rpc

from components.gates import codec, marks
from components.gates.base import BorderProvider, Mark
from components.gates.codec import NotCarried, read, write
from components.media.answers import Answers, Told
from tests.support import border


def carried(value: dict[str, Any]) -> Any:
    """What arrives at a provider."""
    sent = asyncio.run(rpc.serialize_properties(value, {}))
    return rpc.deserialize_properties(sent, keep_unknowns=True)


@settings(deadline=None)
@given(border.VALUES)
def test_what_was_written_is_read_as_what_it_was(value: border.Everything) -> None:
    got = read(border.Everything, carried(write(border.Everything, value)))
    assert border.typed(got) == border.typed(value)


def test_the_marks_are_those_of_pulumi() -> None:
    assert marks.UNKNOWN == rpc.UNKNOWN
    assert rpc._special_sig_key == marks.SIGNATURE
    assert rpc._special_secret_sig == marks.SECRET


class Small(TypedDict):
    number: int
    length_s: float
    either: int | str
    word: Literal["a", "b"]
    maybe: int | None
    extra: NotRequired[int]


SMALL: dict[str, Any] = {"number": 1, "length_s": 2.0, "either": 3, "word": "a"}


@pytest.mark.parametrize(
    ("field", "given", "told"),
    [
        ("number", 1.5, "number: a number with a fraction where a whole one belongs"),
        ("number", True, "number: bool where number belongs"),
        ("number", "12", "number: str where number belongs"),
        ("number", None, "number: NoneType where number belongs"),
        ("number", 2**53 + 1, "number: a whole number that a double does not hold"),
        ("length_s", math.nan, "length_s: a number that is not finite"),
        ("length_s", math.inf, "length_s: a number that is not finite"),
        ("either", [1], "either: list where number or string belongs"),
        ("word", "c", "word: none of a, b"),
        ("wrod", "c", "no field 'wrod'"),
    ],
)
def test_what_is_of_another_shape_is_refused_on_both_sides(
    field: str, given: object, told: str
) -> None:
    for side in (read, write):
        with pytest.raises(NotCarried, match=told):
            side(Small, SMALL | {field: given})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": 28.0}, "a fraction"),
        ({"a": rpc.UNKNOWN}, "not known yet"),
        ({"a": "\ud800"}, "UTF-8"),
        ({1: "a"}, "a key that is no text"),
        ({marks.SIGNATURE: "a"}, "mark of the engine's own"),
        ({"a": {1}}, "set where"),
        ({"a": b"x"}, "bytes where"),
    ],
)
def test_what_would_arrive_as_something_else_is_not_sent(value: object, told: str) -> None:
    with pytest.raises(NotCarried, match=told):
        write(dict[str, str | int], value)


def test_no_message_holds_what_was_given() -> None:
    for value in ("hunter2", ["hunter2"], {"hunter2": 1.5}):
        with pytest.raises(NotCarried) as refused:
            read(Small, SMALL | {"number": value})
        assert "hunter2" not in str(refused.value)


def test_what_is_missing_is_none_where_that_is_allowed_and_refused_elsewhere() -> None:
    assert read(Small, SMALL)["maybe"] is None
    assert "extra" not in read(Small, SMALL)
    with pytest.raises(NotCarried, match="number is missing"):
        read(Small, {"either": 3})


def test_what_is_not_known_yet_stays_that_and_the_rest_is_read() -> None:
    for unknown in (rpc.UNKNOWN, rpc.deserialize_property(rpc.UNKNOWN, keep_unknowns=True)):
        got = read(Small, SMALL | {"number": unknown, "either": 28.0})
        assert codec.is_unknown(got["number"])
        assert border.typed(got["either"]) == border.typed(28)
        assert codec.has_unknown(got)


def test_a_secret_arrives_in_clear_whatever_is_around_it() -> None:
    hidden = rpc.wrap_rpc_secret(28.0)
    assert border.typed(read(Small, SMALL | {"number": hidden})["number"]) == border.typed(28)
    whole = rpc.wrap_rpc_secret(SMALL | {"number": 28.0})
    assert read(Small, whole)["number"] == 28
    assert read(Small, rpc.wrap_rpc_secret(rpc.wrap_rpc_secret(SMALL)))["number"] == 1


def test_an_output_is_the_engines_to_resolve() -> None:
    async def program() -> None:
        later: pulumi.Output[int] = pulumi.Output.from_input(3)
        assert write(Small, SMALL | {"number": later})["number"] is later

    asyncio.run(program())


def test_a_state_of_another_version_is_read_as_far_as_it_goes() -> None:
    got = read(Small, {"number": 28.0, "either": [1], "gone": 2.0}, old=True)
    assert got == {"number": 28, "either": [1], "gone": 2.0, "maybe": None}


@dataclass(frozen=True)
class Part:
    """What is inside of another: a field with a default, and three without."""

    number: int
    word: Literal["a", "b"]
    texts: list[str]
    length_s: float = 1.0


@dataclass(frozen=True)
class Whole:
    """A resource's properties."""

    name: str
    part: Part
    flag: bool = False
    made: str | None = None


PART = Part(3, "b", ["x"])


def test_an_instance_is_carried_without_its_defaults_and_a_resource_with_them() -> None:
    told = write(Whole, Whole("n", PART))
    inside = {"number": 3, "word": "b", "texts": ["x"]}
    assert told == {"name": "n", "part": inside, "flag": False, "made": None}
    assert read(Whole, carried(told)) == Whole("n", PART)
    longer = replace(PART, length_s=2.0)
    assert write(Whole, Whole("n", longer))["part"] == inside | {"length_s": 2.0}


def test_what_another_version_wrote_is_an_instance_all_the_same() -> None:
    got = read(Whole, {"name": "n", "part": {"number": 28.0, "gone": 1}, "left": []}, old=True)
    assert got == Whole("n", Part(28, "a", [], 1.0))
    assert border.typed(got.part.number) == border.typed(28)
    assert read(Whole, {}, old=True) == Whole("", Part(0, "a", []))
    with pytest.raises(NotCarried, match="part: word is missing"):
        read(Whole, {"name": "n", "part": {"number": 28.0}})


def test_an_instance_that_is_not_known_yet_is_carried_once_it_is() -> None:
    async def program() -> tuple[Any, bool]:
        part = pulumi.Output.secret(PART)
        sent: pulumi.Output[Any] = write(Whole, Whole("n", codec.later(part)))["part"]
        return await sent.future(), await sent.is_secret()

    assert asyncio.run(program()) == ({"number": 3, "word": "b", "texts": ["x"]}, True)


@pytest.mark.parametrize(
    "shape", [Any, object, int | float, set[str], dict[int, str], dict[str, int | None], bytes]
)
def test_what_the_engine_cant_carry_is_no_shape(shape: Any) -> None:
    with pytest.raises(TypeError):
        write(shape, 1)


def test_every_answer_goes_through_the_engine() -> None:
    assert {each.name for each in fields(Told)} == {each.name for each in fields(Answers)}


def test_every_dynamic_provider_has_a_shape_of_what_the_engine_carries() -> None:
    import components  # noqa: PLC0415
    from components.gates import object as objects  # noqa: PLC0415

    rooms = [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(components.__path__, "components.")
    ]
    providers = {
        each
        for room in rooms
        for each in vars(room).values()
        if isinstance(each, type)
        and issubclass(each, pulumi.dynamic.ResourceProvider)
        and each.__module__ == room.__name__
        and each.__name__ not in {"BorderProvider", "Gate", "ApiGate", "PveGate", "VsphereGate"}
        and not each.__name__.startswith("_")
    }
    assert len(providers) > 15, "all of them are looked at"
    for provider in providers:
        assert issubclass(provider, BorderProvider), provider
        shapes = [provider.shape] if hasattr(provider, "shape") else objects.SHAPES.values()
        for shape in shapes:
            border.visit(shape)
            defaults = {each.name: each.default for each in fields(shape)}
            made = shape.marked(Mark.MADE)
            assert all(defaults[name] is None for name in made), "nothing is made yet"
            assert not {*made, *shape.marked(Mark.UNASKED)} & {*shape.asked()}
