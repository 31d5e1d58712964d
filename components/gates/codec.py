"""The codec at the engine's border: what the program gives a dynamic resource is read by its provider as what it was.

The engine carries JSON with doubles for numbers. On the way a whole number becomes a float, a None in
a map is left out, and what is not known yet, or secret, becomes a mark of pulumi's own. So both sides
name a *shape*, made of typed dictionaries: `write` refuses what would not come back as it is, `read`
gives back what was written, and nobody behind it has to ask what a number is.

A shape is one of str, int, float, bool, None, Literal, list[S], dict[str, S], a dataclass or TypedDict of
shapes, or a union of them that JSON can tell apart (never int with float, nor two kinds of map). A
dataclass is read as an instance of it, so that what is behind the border has fields and no keys.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Required, TypeVar, Union, overload

import pulumi

from components.gates.marks import SECRET, SIGNATURE, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Awaitable

EXACT = 2**53
"""Whole numbers up to here are doubles of their own (IEEE 754)."""
OWN = "__"
"""Begins the keys that pulumi adds to a resource's properties, such as its pickled provider."""


T = TypeVar("T")


class NotCarried(ValueError):
    """A value is not of its shape, or would arrive as another; the message never holds it."""


def is_unknown(value: Any) -> bool:
    """Whether ``value`` itself is one that is not known yet."""
    return (isinstance(value, str) and value == UNKNOWN) or type(value).__name__ == "Unknown"


def has_unknown(value: Any) -> bool:
    """Whether ``value`` holds anything that is not known yet."""
    if isinstance(value, dict):
        return any(has_unknown(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_unknown(each) for each in value)
    if dataclasses.is_dataclass(value):
        return any(has_unknown(getattr(value, each.name)) for each in dataclasses.fields(value))
    return is_unknown(value)


@overload
def later(value: pulumi.Output[T]) -> T: ...
@overload
def later(value: Awaitable[T]) -> T: ...
@overload
def later(value: T) -> T: ...
def later(value: object) -> object:
    """Return an output as what it will be when it arrives: for a field of what is given to a resource.

    The one place where the program's side, which has outputs, and the provider's, which has values, are
    said to be of one type; `write` leaves outputs for the engine to resolve.
    """
    return value


def write(shape: Any, value: Any) -> Any:
    """Return what to hand to the engine for ``value``; outputs in it are left for the engine to resolve.

    What a dataclass inside of another has as its default is left out, as a state keeps no more than it has to.

    Raises:
        NotCarried: it is not of the ``shape``, or the engine can't carry it.
    """
    return _Codec(writes=True).take(shape, value, "")


def read(shape: type[T], carried: object, *, old: bool = False) -> T:
    """Return what `write` was given, of what the engine ``carried``; what is not known stays as it is.

    ``old`` reads what a state holds, which another version may have written: what is missing is
    left out, or `nothing` in a dataclass, and what is not of the shape stays as it is.

    Raises:
        NotCarried: it is not of the ``shape``.
    """
    made: T = _Codec(old=old).take(shape, carried, "")
    return made


class _Codec:
    """Takes a value apart by its shape, in one of the two directions."""

    def __init__(self, *, writes: bool = False, old: bool = False) -> None:
        self._writes, self._old = writes, old

    def take(self, shape: Any, value: Any, at: str) -> Any:
        if self._writes and isinstance(value, pulumi.Output):
            return value if _is_plain(shape) else value.apply(lambda it: self.take(shape, it, at))
        if not self._writes:
            if is_unknown(value):
                return value
            value = _without_mark(value)
        try:
            return self._known(shape, value, at)
        except NotCarried:
            if self._old:
                return value
            raise

    def _known(self, shape: Any, value: Any, at: str) -> Any:
        kind = _kind_of(value)
        if kind not in _members(shape):
            wanted = " or ".join(
                sorted(_members(shape))
            )  # typing keeps unions in the order it met them first
            raise NotCarried(f"{at or 'it'}: {type(value).__name__} where {wanted} belongs")
        member = _members(shape)[kind]
        if kind == "number":
            return self._number(member, value, at)
        if kind == "string":
            return self._text(member, value, at)
        if kind == "array":
            [inner] = typing.get_args(member)
            return [self.take(inner, each, f"{at}[{place}]") for place, each in enumerate(value)]
        return self._map(member, value, at) if kind == "object" else value

    def _map(self, member: Any, value: Any, at: str) -> Any:
        if self._writes and isinstance(value, dict) and SIGNATURE in value:
            raise NotCarried(f"{at or 'it'}: a map with a mark of the engine's own")
        if typing.is_typeddict(member):
            return self._fields(member, value, at)
        if dataclasses.is_dataclass(member):
            return self._instance(member, value, at)
        [_, inner] = typing.get_args(member)
        return {
            self._key(key, at): self.take(inner, each, f"{at}.{key}") for key, each in value.items()
        }

    def _key(self, key: Any, at: str) -> str:
        if not isinstance(key, str):
            raise NotCarried(f"{at}: a key that is no text")
        return self._text(str, key, at)

    def _number(self, member: Any, value: float, at: str) -> float:
        if not math.isfinite(value):
            raise NotCarried(f"{at}: a number that is not finite")
        if member is float:
            # Written as a whole number is what some call a length of time.
            return float(value)
        if abs(value) > EXACT:
            raise NotCarried(f"{at}: a whole number that a double does not hold")
        if isinstance(value, float) and (self._writes or not value.is_integer()):
            raise NotCarried(f"{at}: a number with a fraction where a whole one belongs")
        return int(value)

    def _text(self, member: Any, value: str, at: str) -> str:
        if member is not str and value not in typing.get_args(member):
            raise NotCarried(f"{at}: none of {', '.join(map(str, typing.get_args(member)))}")
        if self._writes:
            if is_unknown(value):
                raise NotCarried(f"{at}: the engine's mark of what is not known yet")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise NotCarried(f"{at}: half a letter, which is no UTF-8") from None
        return value

    def _instance(self, member: Any, value: Any, at: str) -> Any:
        """Write a dataclass as a map, or read one of a map: nobody else's fields, and all without a default."""
        if self._writes:
            if not isinstance(value, member):
                raise NotCarried(
                    f"{at or 'it'}: {type(value).__name__} where {member.__name__} belongs"
                )
            value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
            fields = _fields(member)
            # But for a resource's own properties, by which it knows its outputs.
            kept = {
                key: it for key, it in value.items() if not at or not fields[key].is_default(it)
            }
            return self._fields(member, kept, at)
        made = self._fields(member, value, at)
        known = {key: each for key, each in made.items() if key in _fields(member)}
        lacking = {
            key: nothing(each.shape)
            for key, each in _fields(member).items()
            if each.required and key not in known  # of a state of another version
        }
        return member(**known, **lacking)

    def _fields(self, member: Any, value: dict[Any, Any], at: str) -> dict[str, Any]:
        fields = _fields(member)
        made = {}
        for key, each in value.items():
            if key not in fields:
                if self._old or (not at and isinstance(key, str) and key.startswith(OWN)):
                    made[key] = each
                    continue
                raise NotCarried(f"{at}: no field {key!r}; there are {', '.join(fields)}")
            made[key] = self.take(fields[key].shape, each, f"{at}.{key}" if at else key)
        for key, each in fields.items():
            if key in made:
                continue
            if each.has_default:
                continue
            if each.may_be_none:
                made[key] = None
            elif each.required and not self._old:
                raise NotCarried(f"{at or 'it'}: {key} is missing")
        return made


class _Field(typing.NamedTuple):
    shape: Any
    required: bool
    may_be_none: bool
    default: Any = dataclasses.MISSING

    @property
    def has_default(self) -> bool:
        return self.default is not dataclasses.MISSING

    def is_default(self, value: Any) -> bool:
        return not isinstance(value, pulumi.Output) and bool(value == self.default)


@functools.cache
def _fields(shape: Any) -> dict[str, _Field]:
    """Return the fields of a TypedDict or a dataclass."""
    found = {}
    if dataclasses.is_dataclass(shape):
        hints = typing.get_type_hints(shape)
        for each in dataclasses.fields(shape):
            hint, none, default = hints[each.name], dataclasses.MISSING, each.default
            if each.default_factory is not none:
                default = each.default_factory()
            found[each.name] = _Field(hint, default is none, "null" in _members(hint), default)
        return found
    for key, hint in typing.get_type_hints(shape, include_extras=True).items():
        required = key in shape.__required_keys__
        if typing.get_origin(hint) in {Required, NotRequired}:
            required = typing.get_origin(hint) is Required
            [hint] = typing.get_args(hint)  # noqa: PLW2901 - what it is about
        found[key] = _Field(hint, required, "null" in _members(hint))
    return found


@functools.cache
def _members(shape: Any) -> dict[str, Any]:
    """Return the shapes of a union, or the one that it is, by what they are in JSON.

    Raises:
        TypeError: it is no shape.
    """
    union = typing.get_origin(shape) in {Union, types.UnionType}
    members = typing.get_args(shape) if union else (shape,)
    found = {_kind(member): member for member in members}
    if len(found) < len(members):
        raise TypeError(f"{shape}: JSON can't tell its members apart")
    return found


def _kind(member: Any) -> str:
    """Return what ``member`` of a shape is in JSON."""
    if typing.is_typeddict(member) or dataclasses.is_dataclass(member):
        return "object"
    origin = typing.get_origin(member)
    if origin is dict:
        key, inner = typing.get_args(member)
        # The engine leaves out what is None, and nothing would say that the key was there.
        if key is str and "null" not in _members(inner):
            return "object"
    kind = ORIGINS.get(origin) or KINDS.get(member)
    if kind is None:
        raise TypeError(f"{member} is no shape that the engine carries")
    return kind


@functools.cache
def _is_plain(shape: Any) -> bool:
    """Whether what is of the ``shape`` has no dataclass in it, and is carried as it is."""
    return not any(
        dataclasses.is_dataclass(member) or not all(map(_is_plain, _inner(member)))
        for member in _members(shape).values()
    )


def _inner(member: Any) -> list[Any]:
    if typing.is_typeddict(member):
        return [each.shape for each in _fields(member).values()]
    if typing.get_origin(member) in {list, dict}:
        return list(typing.get_args(member))
    return []


def nothing(shape: Any) -> Any:
    """Return what stands for nothing in a ``shape``: None where it may be, else what is empty, 0 or no."""
    members = _members(shape)
    if "null" in members:
        return None
    [member, *_] = members.values()
    if dataclasses.is_dataclass(member):
        return _Codec(old=True).take(member, {}, "")
    if typing.get_origin(member) is Literal:
        return typing.get_args(member)[0]
    return {} if typing.is_typeddict(member) else (typing.get_origin(member) or member)()


def _kind_of(value: Any) -> str:
    """Return what ``value`` is in JSON; empty for what JSON has not."""
    if dataclasses.is_dataclass(value):
        return "object"
    return next((kind for known, kind in KINDS.items() if isinstance(value, known)), "")


KINDS: dict[Any, str] = {
    types.NoneType: "null",
    bool: "boolean",  # before int, of which Python has it
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}
"""What a value is in JSON, by its type; of shapes those of one word."""
ORIGINS: dict[Any, str] = {Literal: "string", list: "array"}


def _without_mark(value: Any) -> Any:
    """Return a secret in clear: providers are given plain values."""
    while isinstance(value, dict) and value.get(SIGNATURE) == SECRET:
        value = value.get("value")
    return value
