"""Pydantic's errors as problems: the path a user wrote, what stood there, what may, what to do.

The model's own JSON schema says what is allowed at a path, so that a message and an editor never
disagree. Never shown: the value of a field nobody knows, and of one that sounds like a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from components.stackfile.problems import REFUSED, Problem, choose, listed, nearest
from components.stackfile.registry import HOSTS, KINDS

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Schema = dict[str, Any]

SECRETS = ("password", "secret", "token", "key", "passphrase")
"""A field of such a name is never quoted: somebody may have typed the secret itself there."""
MOST_EXPLAINED = 100
"""Errors put into words: each takes a walk through the schema, and fewer are told."""
SHOWN = 60
"""Longest text quoted in a message, characters."""
OTHERS_WORDS = {
    "ram": "memory_mib",
    "cpu": "cores",
    "cpus": "cores",
    "vcpu": "cores",
    "vcpus": "cores",
    "ip": "address",
    "net": "network",
}
"""What virt-install, libvirt and other products call a field, which is too far from ours to be found by letters."""
SIZES = {
    "_mib": {"m": 1, "g": 1024, "t": 1024**2},
    "_gib": {"g": 1, "t": 1024},
    "_s": {"s": 1, "m": 60, "h": 3600},
}
"""By a field's unit, how much of it is one of another, which is told by its first letter."""
UNITS = {"_mib": "MiB", "_gib": "GiB", "_s": "s"}
OUTER = ("host",)
"""Path of the outer host, one of whose kinds is meant where none is said."""
KEY = "[key]"
"""How pydantic marks an error in a mapping's key."""


def unit(field: str) -> str:
    """Return the unit a field's name ends in, with a space before it, or nothing."""
    return next((f" {word}" for end, word in UNITS.items() if field.endswith(end)), "")


def explain(refused: ValidationError, model: type[BaseModel], root: str) -> list[Problem]:
    """Return one problem per error in ``refused``, paths beginning with ``root``."""
    shapes = _Shapes(model.model_json_schema())
    found: list[Problem] = []
    for error in refused.errors(include_url=False)[:MOST_EXPLAINED]:
        where = [_printable(item) for item in written(error["loc"])]
        found += [p.under(".".join([root, *where])) for p in _problems(error, shapes)]
    return found


def written(loc: Iterable[int | str]) -> list[int | str]:
    """Return the path of an error as it stands in the file, without what pydantic adds."""
    return [item for item in loc if item != KEY and not _is_tag(item)]


def meant(error: ErrorDetails, model: type[BaseModel]) -> str | None:
    """Return the field that was probably meant by the unknown one that ``error`` is about."""
    *path, field = error["loc"]
    return _meant(str(field), _Shapes(model.model_json_schema()).fields(path))


def _meant(field: str, known: list[str]) -> str | None:
    word = OTHERS_WORDS.get(field.casefold())
    return word if word in known else nearest(field, known)


def _printable(item: int | str) -> str:
    # A key may be anything: a line feed in it must not look like one more problem.
    text = str(item)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _is_tag(item: int | str) -> bool:
    return isinstance(item, str) and item.startswith("<") and item.endswith(">")


class _Shapes:
    """What a JSON schema allows at a path of an error."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema

    def at(self, path: Iterable[int | str]) -> list[Schema]:
        shapes = [self._root]
        for item in path:
            shapes = [inner for shape in self._expand(shapes) for inner in _step(shape, item)]
        return shapes

    def _expand(self, shapes: Iterable[Schema]) -> Iterator[Schema]:
        for shape in shapes:
            if "$ref" in shape:
                yield from self._expand([self._root["$defs"][shape["$ref"].split("/")[-1]]])
            elif options := shape.get("anyOf") or shape.get("oneOf"):
                yield from self._expand(options)
            else:
                yield shape

    def fields(self, path: Iterable[int | str]) -> list[str]:
        """Return the names of the fields that may stand at ``path``."""
        return [
            name for shape in self._expand(self.at(path)) for name in shape.get("properties", ())
        ]

    def description(self, path: Iterable[int | str]) -> str:
        """Return what the field at ``path`` is, in a few words: its description's beginning."""
        fields = list(path)
        while fields and _is_tag(fields[-1]):
            fields.pop()
        texts = (shape.get("description", "") for shape in self.at(fields) if fields)
        text = re.split(r"[;:.] ", next(filter(None, texts), ""), maxsplit=1)[0]
        # Names such as WebSocket and TCP keep their capitals.
        return text[:1].lower() + text[1:] if text.partition(" ")[0][1:].islower() else text


def _step(shape: Schema, item: int | str) -> Iterator[Schema]:
    if isinstance(item, int):
        if "items" in shape:
            yield shape["items"]
    elif _is_tag(item):
        # The branch of a union: of a kind, or the only one of that type.
        kind = shape.get("properties", {}).get("kind", {}).get("const")
        if kind is None or kind == item[1:-1]:
            yield shape
    elif item in shape.get("properties", {}):
        yield shape["properties"][item]
    else:
        yield from shape.get("patternProperties", {}).values()


def _given(value: Any, field: str) -> str:
    match value:
        case None:
            shown = "nothing"
        case bool():
            shown = str(value).lower()
        case Mapping():
            shown = "a mapping"
        case list() | tuple():
            shown = "a list"
        case _ if any(word in field for word in SECRETS):
            shown = "something else (not shown)"
        case str():
            short = value if len(value) <= SHOWN else value[:SHOWN] + "..."
            shown = f"{short!r} (text)" if _is_number(value) else repr(short)
        case _:
            shown = f"{value}{unit(field)}"
    return f"{shown} given"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _problems(error: ErrorDetails, shapes: _Shapes) -> list[Problem]:
    context = error.get("ctx", {})
    if error["type"] == REFUSED:
        return list(context["problems"])
    path = error["loc"]
    names = [item for item in path if isinstance(item, str) and item != KEY and not _is_tag(item)]
    field = names[-1] if names else ""
    value = error["input"]
    given = _given(value, field)
    what = shapes.description(path)
    needed = f" ({what})" if what else ""
    known = shapes.fields(path[:-1])
    problem = partial(Problem, "", given)
    match error["type"]:
        case "missing":
            found = Problem("", "nothing given", f"{field} is needed{needed}", f"add {field}:")
        case "extra_forbidden":
            rule = f"the fields here are {listed(known)}"
            found = Problem(
                "",
                "unknown field given",
                rule,
                f"did you mean {near!r}?" if (near := _meant(field, known)) else "remove it",
            )
        case "union_tag_not_found" | "union_tag_invalid":
            found = _kind(error, outer=path == OUTER)
        case "literal_error":
            allowed = [word.strip("'") for word in _words(context["expected"])]
            found = problem(f"allowed are {listed(allowed)}", choose(str(value), allowed))
        case "greater_than_equal":
            least = f"{context['ge']}{unit(field)}"
            found = problem(f"at least {least} is needed{needed}", f"write {context['ge']} or more")
        case "less_than_equal":
            most = f"{context['le']}{unit(field)}"
            found = problem(f"at most {most} is possible{needed}", f"write {context['le']} or less")
        case "too_short" if value:
            return []  # of its entries some were refused, which is told of each
        case "too_short":
            rule = f"it has at least one entry{needed}"
            found = Problem(
                "",
                f"an empty {'mapping' if isinstance(value, Mapping) else 'list'} given",
                rule,
                "add one or remove the field",
            )
        case _:
            found = _wrong_type(error, field, given, needed)
    return [found]


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _kind(error: ErrorDetails, *, outer: bool) -> Problem:
    known = list(HOSTS if outer else KINDS)
    value = error["input"]
    if not isinstance(value, Mapping):
        remedy = "write its fields below it, indented"
        return Problem("", _given(value, ""), "a mapping of fields is needed", remedy)
    rule = f"known kinds of {'outer host' if outer else 'hypervisor'} are {listed(known)}"
    kind = value.get("kind")
    if kind is None:
        return Problem("kind", "nothing given", rule, _kind_for(value, known, outer=outer))
    return Problem("kind", _given(kind, "kind"), rule, choose(str(kind), known))


def _kind_for(given: Mapping[Any, Any], known: list[str], *, outer: bool) -> str:
    """Return the advice to add a kind, of those that have all the fields that are ``given``."""
    fits = []
    for name in known:
        model = (HOSTS[name] if outer else KINDS[name]).model
        needed = {key for key, each in model.model_fields.items() if each.is_required()}
        sources = {"iso", "image"}
        if set(given) <= set(model.model_fields) and needed & sources <= set(given):
            fits.append(name)
    fits = fits or known
    if len(fits) == 1:
        return f"add kind: {fits[0]}"
    return f"add kind: with the one you mean, {', '.join(fits[:-1])} or {fits[-1]}"


def _whole(value: Any, field: str) -> str:
    """Return the advice to write ``value`` as the whole number that it was perhaps meant to be."""
    if isinstance(value, str) and value.strip().isdigit():
        return "remove the quotes"
    if isinstance(value, str) and (size := _in_unit(value, field)) is not None:
        return f"write {size}, without a unit"
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return "write a whole number"


def _in_unit(text: str, field: str) -> int | None:
    """Return how much ``text``, a number with a unit, is in the unit of ``field``; None: that is not whole."""
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]{1,7})\s*", text)
    sizes = next((each for end, each in SIZES.items() if field.endswith(end)), {})
    if not found or (factor := sizes.get(found[2][0].lower())) is None:
        return None
    size = float(found[1]) * factor
    return int(size) if size.is_integer() else None


def _wrong_type(error: ErrorDetails, field: str, given: str, needed: str) -> Problem:
    value = error["input"]
    kind = error["type"]
    if kind.startswith("int"):
        return Problem("", given, f"a whole number is needed{needed}", _whole(value, field))
    if kind.startswith("bool"):
        remedy = "write true or false without quotes"
        return Problem("", given, f"true or false is needed{needed}", remedy)
    if kind.startswith("string"):
        remedy = "put it in quotes" if isinstance(value, int | float) else "write one word or text"
        return Problem("", given, f"text is needed{needed}", remedy)
    if kind.startswith(("tuple", "list")):
        return Problem("", given, f"a list is needed{needed}", "write it in brackets, [a, b]")
    if kind.startswith(("mapping", "dict", "model")):
        remedy = "write its fields below it, indented"
        if value is None:
            remedy += ", or remove it"
        return Problem("", given, f"a mapping of fields is needed{needed}", remedy)
    return Problem("", given, error["msg"][:1].lower() + error["msg"][1:], "correct it")
