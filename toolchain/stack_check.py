"""A stack file checked whole, in the words of a preview, before anything is built or installed for it.

This takes the Python environment (YAML, pydantic), and neither engine nor libvirt: what they say of the
machine is checked by the preview, which comes after them.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import yaml
from typing_extensions import override

from components import settings
from components.stackfile.places import golden_images
from components.stackfile.plan import plan
from components.stackfile.problems import listed, nearest, shortened
from components.stackfile.reader import Safe
from toolchain.bootstrap import paths, ui
from toolchain.doctor import kvm
from toolchain.engine import stack_file
from toolchain.machine import packages
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.stackfile import LabPlan, LabSpec, MachinePlan

LAB, SECRET = "nestlab:lab", "nestlab:hostPassword"
TAG = "tag:yaml.org,2002:"
SHOWN = 160
"""Longest text of a reader of YAML that is quoted, characters."""
MOST_VALUES = 1 << 19
"""Of a YAML text: more than a file of a MiB has, where none is an alias."""
LEAST, MOST = -(1 << 63), (1 << 64) - 1
"""Whole numbers of the engine's reader."""
INSTALLED = "/usr/"
"""Where files are that the set-up's packages bring: only after this, while one of them is missing."""
PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?(0|[1-9][0-9_]*|0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+)", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    "merge": (r"<<", ["<"]),
}
"""What a plain word is, by the engine's reader (gopkg.in/yaml.v3, resolve.go): ``52:54:00:12:34:56`` is a
text there, and a number to the base of 60 in YAML 1.1; so are ``yes`` and ``on`` texts."""


def _stands_for(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values there are below ``node``, aliases counted as what they stand for.

    ``known``: those that were counted; one that is part of itself has no number, and counts as too many.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES
        pairs = (
            node.value if isinstance(node, yaml.MappingNode) else [(each,) for each in node.value]
        )
        known[id(node)] = 1 + sum(_stands_for(each, known) for pair in pairs for each in pair)
    return known[id(node)]


class _Twice(yaml.MarkedYAMLError):
    """A mapping has one key twice."""


class _Reader(Safe):
    """Reads plain words as the engine does, and refuses what it refuses."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - as in the base class

    @override
    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _stands_for(node, {}) > MOST_VALUES:
            # Whoever walks through it afterwards would not come to an end; nor does a merge of its mappings.
            raise yaml.YAMLError(
                f"it stands for more than {MOST_VALUES} values: write fewer, and no aliases of aliases"
            )
        return node

    @override
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                first = f"line {lines[key.value]} has it already"
                raise _Twice(
                    problem=f"{key.value!r} given, but {first}", problem_mark=key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return node

    def whole_number(self, node: yaml.ScalarNode) -> int | float | str:
        text = str(self.construct_scalar(node)).replace("_", "")
        digits = text.lstrip("-+")
        # As Go's strconv.ParseInt with base 0: a leading 0 alone is octal, too.
        octal = re.fullmatch(r"0o?([0-7]+)", digits)
        value = int(octal[1], 8) if octal else int(digits, 0)
        value = -value if text.startswith("-") else value
        if LEAST <= value <= MOST:
            return value
        # What no 64 bits hold is a float there, and a text if it was written otherwise.
        return float(text) if digits.isdecimal() else text


for _name, (_pattern, _first) in PLAIN.items():
    _Reader.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"(?:{_pattern})$"), _first)
_Reader.add_constructor(f"{TAG}int", _Reader.whole_number)


def read(told: bytes, file: str) -> Mapping[str, Any]:
    """Return the configuration that a stack file holds.

    Raises:
        Problem: it is no YAML, or no stack file.
    """
    held = document(told, file)
    config = held.get("config") if isinstance(held, dict) else None
    if not isinstance(config, dict):
        raise ui.Problem(f"{file} holds no mapping `config`: write the lab below it, as {LAB}.")
    return config


def document(told: bytes, file: str) -> Any:
    """Return what a YAML text holds, plain words read as the engine does.

    Raises:
        Problem: it is no YAML.
    """
    try:
        return yaml.load(told, _Reader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as broken:
        raise ui.Problem(_broken(broken, file)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as broken:
        raise ui.Problem(f"{file} can't be read: {' '.join(str(broken).split())}") from None


def _broken(error: yaml.MarkedYAMLError, file: str) -> str:
    """Return where a text is no YAML, or says something twice, and what to do."""
    mark, why = error.problem_mark or error.context_mark, shortened(error.problem or "", SHOWN)
    at = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
    if isinstance(error, _Twice):
        return f"{at}: {why}: rename one, or remove it"
    if r"'\t'" in why:
        return f"{at}: a tab given, but YAML is indented with blanks: write blanks"
    begun = ""
    if (
        error.context
        and error.context_mark
        and error.context_mark.line < (mark.line if mark else 0)
    ):
        begun = f", {error.context} of line {error.context_mark.line + 1}"
    return (
        f"{at}: this can't be read as YAML{begun}: {why}. See the indentation, colons and brackets "
        "here and in the line before."
    )


def scalar(text: str) -> Any:
    """Return what one word of a stack file means: a number, a text, true or false; odd ones are texts."""
    try:
        return yaml.load(text, _Reader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def checked(stack: str) -> list[str]:
    """Have the file of ``stack`` checked whole; return the golden images that it asks for.

    A lab with secrets in it is left to the engine, which alone can read them: it asks for none here.

    Raises:
        Problem: it is refused, in the words of a preview; or it can't be read.
    """
    spec = _spec(stack)
    if spec is None:
        return []
    if spec.host.is_here and spec.host.chosen:
        _passable(Path(spec.host.chosen))
    return sorted(golden_images(spec))


def _passable(folder: Path) -> None:
    """Refuse a folder for disks that QEMU could not get into, which would leave a lab half made."""
    user = kvm.qemu_user()
    if user and (barred := kvm.barred(folder, user)):
        raise ui.Problem(
            f"lab.host.pool_path: {str(folder)!r} given, and {barred} lets nobody in but its owner; QEMU runs as "
            f"{user.name}. Let it through (`setfacl -m u:{user.name}:x {shlex.quote(str(barred))}`), or give "
            "another folder, such as /srv/labs."
        )


def plan_of(stack: str) -> LabPlan:
    """Return the plan of the lab that the file of ``stack`` says.

    Raises:
        Problem: it is refused, or holds secrets.
    """
    spec = _spec(stack)
    if spec is None:
        raise ui.Problem(f"the lab of {stack} holds secrets, which only the engine reads.")
    return plan(spec)


def machines(stack: str) -> list[tuple[MachinePlan, str]]:
    """Return what the file of ``stack`` plans, each machine with its kind, "guest" or "container".

    Raises:
        Problem: it is refused, or holds secrets.
    """
    planned = plan_of(stack)
    kinds = {place.path: place.kind or "" for place in planned.places}
    return [
        (machine, kinds.get(machine.path, machine.group.removesuffix("s")))
        for place in planned.places
        for machine in place.machines.values()
    ]


def lab_of(told: bytes, file: str) -> Any:
    """Return what a stack file says of its lab, as it stands there.

    Raises:
        Problem: it says nothing, is no YAML, or no stack file.
    """
    return _lab(read(told, file), file)


def _lab(config: Mapping[str, Any], file: str) -> Any:
    if config.get(LAB) is not None:
        return config[LAB]
    if LAB in config:
        raise ui.Problem(
            f"{LAB} has nothing below it in {file}: write the lab's fields there, indented"
        )
    known = [shortened(str(key), SHOWN) for key in config]
    near = nearest(LAB, known)
    raise ui.Problem(
        f"{LAB} is not in the stack file {file}, and is the lab; `config` has "
        f"{listed(known, 'nothing')}: {f'did you mean it by {near!r}?' if near else 'write it there'}"
    )


def _spec(stack: str) -> LabSpec | None:
    """Return what the file of ``stack`` says, checked; None where only the engine can read it."""
    file = stack_file.of(stack)
    config = read(stack_file.content(file), f"stacks/{file.name}")
    lab = _lab(config, f"stacks/{file.name}")
    if has_secrets(lab):
        return None
    try:
        if isinstance(config.get(SECRET), str):
            raise settings.in_clear(SECRET, stack)
        return settings.examined(lab, paths.ROOT, stack, there)
    except pulumi.RunError as refused:
        raise ui.Problem(str(refused)) from None


def there(path: str) -> bool:
    """Whether the file is there, or will be once the set-up's packages are."""
    if settings.is_there(path):
        return True
    return path.startswith(INSTALLED) and bool(packages.missing(System()))


def has_secrets(value: object) -> bool:
    """Whether something in ``value`` is a secret of the engine's."""
    if isinstance(value, dict):
        secret = set(value) == {"secure"} and isinstance(value["secure"], str)
        return secret or any(map(has_secrets, value.values()))
    return isinstance(value, list) and any(map(has_secrets, value))
