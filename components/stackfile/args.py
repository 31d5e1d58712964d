"""The args of the components, as types for whoever writes a program: what the models take, field by field.

``python -m components.stackfile.args`` writes ``components/args/``, a file for what every lab has and one
for each kind; a test fails where they differ from what this says.
They are plain dictionaries, which nobody checks until a component is made from them: then all that is
wrong is told at once, with its path in the lab.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.stackfile import later
from components.stackfile.registry import HOSTS, KINDS
from components.stackfile.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER = Path(__file__).parents[1] / "args"
GENERAL = "general"
"""The module of what belongs to no kind."""
FOR_TYPES = """
# What is named in annotations alone is imported for them alone.
# ruff: noqa: TC004
"""
MADE = "Made by ``python -m components.stackfile.args``: edit the models."
HEAD = '''\
"""What the components are made from{of}. {made}"""
{more}
from __future__ import annotations

'''
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def args_of(model: str) -> str:
    """Return what the args of the model called ``model`` are called."""
    return f"{model.removesuffix('Spec')}Args"


def sources() -> dict[str, str]:
    """Return the modules' texts, by name."""
    shapes: dict[str, Any] = schema()["$defs"]
    where = _where(shapes)
    modules: dict[str, list[str]] = {}
    for model in sorted(shapes):
        modules.setdefault(where[args_of(model)], []).append(_class(model, shapes[model]))
    alias = f'HypervisorArgs = {" | ".join(sorted(_kinds()))}\n"""Of a nested hypervisor of any kind."""\n'
    found = {name: _module(name, classes, where, modules) for name, classes in modules.items()}
    return found | {"__init__": _package(where, alias)}


def _where(shapes: Iterable[str]) -> dict[str, str]:
    """Return the module of each of the args."""
    own = {args_of(kind.model.__name__): name for name, kind in KINDS.items()}
    own |= {args_of(host.model.__name__): name for name, host in HOSTS.items()}
    return {args_of(each): own.get(args_of(each), GENERAL) for each in shapes}


def _module(
    name: str, classes: list[str], where: Mapping[str, str], modules: Mapping[str, object]
) -> str:
    body = "\n\n".join(classes)
    of = "" if name == GENERAL else f" where {name} is meant"
    words = set(re.findall(r"\w+", re.sub(r'""".*?"""|"[^"]*"', "", body)))
    abstract = [each for each in ("Mapping", "Sequence") if each in words]
    typed = [each for each in ("Literal", "Required", "TypedDict") if each in words]
    lines = []
    if abstract:
        lines += [f"    from collections.abc import {', '.join(abstract)}", ""]
    if "Input" in words:
        lines += ["    from pulumi import Input", ""]
    if "HypervisorArgs" in words:
        lines.append("    from components.args import HypervisorArgs")
    for other in sorted(set(modules) - {name}):
        if used := sorted(each for each, at in where.items() if at == other and each in words):
            lines.append(f"    from components.args.{other} import {', '.join(used)}")
    head = HEAD.format(of=of, made=MADE, more=FOR_TYPES if lines else "")
    if not lines:
        return f"{head}from typing import {', '.join(typed)}\n\n\n{body}"
    checked = "\n".join(["if TYPE_CHECKING:", *lines])
    return f"{head}from typing import TYPE_CHECKING, {', '.join(typed)}\n\n{checked}\n\n\n{body}"


def _package(where: Mapping[str, str], alias: str) -> str:
    lines = [
        f"from components.args.{module} import {', '.join(sorted(each for each in where if where[each] == module))}"
        for module in sorted(set(where.values()))
    ]
    names = sorted([*where, "HypervisorArgs"])
    every = f"__all__ = {json.dumps(names)}\n"
    return HEAD.format(of="", made=MADE, more="") + "\n".join([*lines, "", every, alias])


def _kinds() -> set[str]:
    return {args_of(kind.model.__name__) for kind in KINDS.values()}


def _class(name: str, shape: dict[str, Any]) -> str:
    # A lab's name is its component's, where the program says no other.
    required = set(shape.get("required", ())) - ({"name"} if name == "LabSpec" else set())
    lines = [f"class {args_of(name)}(TypedDict, total=False):", *_said(shape["description"]), ""]
    model = later.models().get(name)
    marked = later.marks(model) if model else {}
    for field, each in shape["properties"].items():
        kind = _type(each)
        if field in marked:
            kind = re.sub(r"\bstr\b", "Input[str]", kind)
        lines.append(f"    {field}: {f'Required[{kind}]' if field in required else kind}")
        lines += _said(each.get("description", ""))
    return "\n".join(lines) + "\n"


def _said(text: str) -> list[str]:
    return [f'    """{text.removesuffix(".")}."""'] if text else []


def _type(shape: dict[str, Any]) -> str:
    if "$ref" in shape:
        return args_of(shape["$ref"].rpartition("/")[2])
    if "const" in shape or "enum" in shape:
        words = shape.get("enum", [shape.get("const")])
        return f"Literal[{', '.join(json.dumps(word) for word in words)}]"
    for union in ("anyOf", "oneOf"):
        if union in shape:
            found = dict.fromkeys(_type(each) for each in shape[union])
            return "HypervisorArgs" if set(found) == _kinds() else " | ".join(found)
    if shape.get("type") == "array":
        return f"Sequence[{_type(shape['items'])}]"
    if shape.get("type") == "object":
        [value] = shape["patternProperties"].values()
        return f"Mapping[str, {_type(value)}]"
    return PLAIN[shape["type"]]


def formatted(text: str) -> str:
    """Return ``text`` as the project's formatter has it."""
    words = [sys.executable, "-m", "ruff", "format", "-", "--config", "line-length=100"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    """Write the modules."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in sources().items():
        (FOLDER / f"{name}.py").write_text(formatted(text))


if __name__ == "__main__":
    main()
