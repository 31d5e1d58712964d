"""The house's rules, read from the code itself: who may import whom, what a kind's folder holds, what is frozen.

`breaches` looks at any checkout, so that a test can plant a breach in a copy and see it found.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES, FUNCTION = 500, 60
"""Longest file and function of the product, lines."""
MAY = {
    "refused": set[str](),
    "stackfile": {"refused", "kinds"},
    "reach": {"refused", "kinds"},
    "media": {"refused", "reach", "stackfile", "kinds", "findings"},
    "gates": {"refused", "reach", "media", "stackfile", "kinds"},
    "findings": {"refused", "stackfile"},
    "place": {"refused", "reach", "media", "gates", "stackfile", "findings", "kinds"},
    "kinds": {"refused", "reach", "media", "gates", "stackfile", "findings", "place"},
}
"""Rooms of components/ and what they may import beside themselves; the modules beside them may all."""
CLASSROOM = {"stackfile", "refused"}
"""What a class may import of components/: it plans labs, and has them made by the command `nestlab`."""
TOKEN = {"review.report", "review.markdown", "review.posting"}
"""What works on a report beside a token: of ours it has the root of all refusals, and nothing else."""
BUILT_ON = {"kvm": {"libvirt"}, "xen": {"libvirt"}}
"""Kinds that may import another: hosts that are made of it."""
PARTS = {
    *("__init__", "model", "host", "install", "outer", "place", "media", "probe", "gates", "proof"),
    *("network", "medium", "guest", "container", "console"),
}
"""Files that a kind's folder may have, beside those that its own docstring names in backticks."""
BARE = "toolchain.bootstrap"
"""What makes the Python environment, and so can use nothing of it."""
TYPED = ("place", "gates", "reach", "kinds")
"""Rooms between a plan and its drivers: what goes through them has types."""
UNTYPED = {
    "components/gates/base.py": "the engine's own maps of properties",
    "components/gates/codec.py": "turns those into types",
    "components/gates/kept.py": "any JSON",
    "components/kinds/__init__.py": "modules that are found by their names",
    "components/place/contract.py": "each kind's installer takes its own spec and host",
    "components/place/driven.py": "likewise",
    "components/kinds/libvirt/place.py": "arguments of a provider's resource",
    "components/kinds/proxmox/machine.py": "likewise",
    "components/kinds/vsphere/machine.py": "likewise",
    "components/kinds/proxmox/api.py": "a vendor's SDK without types",
    "components/kinds/vsphere/api.py": "likewise",
    "components/kinds/vsphere/hardware.py": "its objects",
    "components/kinds/vsphere/gates/guest.py": "likewise",
    "components/kinds/vsphere/gates/network.py": "likewise",
    "components/kinds/vsphere/gates/slot.py": "likewise",
    "components/kinds/esxi/probe.py": "likewise",
}
"""Files of these that may say Any, and what it is there."""
GENERAL = ("stackfile", "place", "gates", "media", "reach", "package")
"""Rooms that know no kind; so do the modules beside them."""
NAMING = {
    "components/findings.py": {"kvm": "what runs guests; a golden image", "libvirt": "a namespace"},
    "components/settings.py": {"kvm": "what runs guests"},
    "components/stackfile/host.py": {"kvm": "what runs guests, beside emulation"},
    "components/stackfile/allow.py": {"libvirt": "folders of everybody's disks and sockets"},
    "components/stackfile/pools.py": {"libvirt": "likewise"},
    "components/stackfile/values.py": {"libvirt": "what a URI of its may say"},
    "components/stackfile/machines.py": {"libvirt": "its word for a port of its choice"},
    "components/stackfile/images.py": {"virtualbox": "whose format a disk image has"},
    "components/stackfile/places.py": {"hyperv": "its interface, which guests are shown"},
    "components/stackfile/registry.py": {"libvirt": "the kind of a host that says none"},
    "components/gates/identity.py": {"libvirt": "that of a state that says none"},
    "components/media/cloud_init.py": {
        "kvm": "modules that are kept out",
        **dict.fromkeys(("virtualbox", "workstation", "xen"), "packages of a plain system's"),
    },
}
"""Files of these that name one, which, and what it is there."""
FROZEN = Path("tests/cases/frozen.json")
"""Resources by their tokens, and the provider that states name for each."""


def breaches(root: Path) -> list[str]:
    """Return what breaks a rule in the checkout ``root``, a line each."""
    return [
        *_imports(root), *_bare(root), *_circles(root), *_parts(root), *_tokens(root), *_lengths(root),
        *_paths(root), *_typed(root), *_beside_a_token(root), *_named(root),
    ]  # fmt: skip


def _modules(root: Path, *folders: str) -> Iterator[tuple[str, Path, ast.Module]]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            yield name, path, _parsed(path.read_text())


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _imported(tree: ast.Module, *, late: bool = True) -> Iterator[tuple[str, int]]:
    """Yield what a module imports of components, at run time; ``late``: in functions too."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "components":
            yield from ((f"{node.module}.{each.name}", node.lineno) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, node.lineno) for each in node.names)
        if late or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)


def _imports(root: Path) -> Iterator[str]:
    for name, path, tree in _modules(root, "components", "policies", "classroom"):
        rooms = name.split(".")
        for target, line in _imported(tree):
            at, to = f"{path.relative_to(root)}:{line}", target.split(".")
            if to[0] != "components" or len(to) < 2:
                continue
            if rooms[0] == "policies":
                yield f"{at}: policies stand apart, and it imports {target}"
                continue
            if rooms[0] == "classroom" and to[1] not in CLASSROOM:
                yield f"{at}: classroom may not import {to[1]}"
            room = rooms[1] if len(rooms) > 1 else ""
            if (
                rooms[0] == "components"
                and room in MAY
                and to[1] != room
                and to[1] not in MAY[room]
            ):
                yield f"{at}: {room} may not import {to[1]}"
            if to[1] == "kinds" and to[2:] and (root / "components/kinds" / to[2]).is_dir():
                mine = rooms[2] if room == "kinds" and len(rooms) > 2 else ""
                if to[2] != mine and to[2] not in BUILT_ON.get(mine, ()):
                    yield f"{at}: {mine or name} names the kind {to[2]}: kinds are found by name"


def _beside_a_token(root: Path) -> Iterator[str]:
    own = {"components", "toolchain", "cli", "classroom", "policies", "review"}
    for name, path, tree in _modules(root, "review"):
        for node in ast.walk(tree) if name in TOKEN else ():
            if isinstance(node, ast.ImportFrom):
                targets = [f"{node.module}.{each.name}" for each in node.names]
            else:
                targets = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for target in targets:
                known = any(
                    f"{target}.".startswith(f"{each}.") for each in {*TOKEN, "components.refused"}
                )
                if target.split(".")[0] in own and not known:
                    at = path.relative_to(root)
                    yield f"{at}: {name} works beside a token, and it imports {target}"


def _bare(root: Path) -> Iterator[str]:
    for name, path, tree in _modules(root, BARE.replace(".", "/")):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                targets = [node.module or name]
            elif isinstance(node, ast.Import):
                targets = [each.name for each in node.names]
            else:
                continue
            for target in targets:
                if (
                    target.split(".")[0] in sys.stdlib_module_names
                    or target == "components.refused"
                ):
                    continue
                if target != BARE and not target.startswith(f"{BARE}."):
                    at = f"{path.relative_to(root)}:{node.lineno}"
                    yield f"{at}: the bootstrap is of the standard library, and it imports {target}"


def _circles(root: Path) -> Iterator[str]:
    known = {name for name, _, _ in _modules(root, "components")}
    arrows: dict[str, set[str]] = {}
    for name, _, tree in _modules(root, "components"):
        found = set()
        for target, _ in _imported(tree, late=False):
            whole = target if target in known else target.rpartition(".")[0]
            if whole in known and whole != name:
                found.add(whole)
        arrows[name] = found
    done: set[str] = set()
    for start in sorted(arrows):
        if circle := _round(start, arrows, [], done):
            yield f"a circle: {' -> '.join(circle)}"
            return


def _round(name: str, arrows: dict[str, set[str]], way: list[str], done: set[str]) -> list[str]:
    if name in way:
        return [*way[way.index(name) :], name]
    if name in done:
        return []
    for to in sorted(arrows.get(name, ())):
        if circle := _round(to, arrows, [*way, name], done):
            return circle
    done.add(name)
    return []


def _parts(root: Path) -> Iterator[str]:
    folder = root / "components/kinds"
    for kind in sorted(each for each in folder.iterdir() if each.is_dir()):
        if kind.name.startswith("__"):
            continue
        has = {each.stem for each in kind.iterdir() if each.suffix == ".py" or each.is_dir()}
        about = ast.get_docstring(_parsed((kind / "__init__.py").read_text())) or ""
        named = set(re.findall(r"`([a-z_]+)`", about))
        for odd in sorted(has - PARTS - named - {"__pycache__"}):
            yield (
                f"components/kinds/{kind.name}/{odd}: no name that a kind's files have, and its "
                "__init__ does not say what it is"
            )
        for gone in sorted(named - has):
            yield f"components/kinds/{kind.name}/__init__.py: there is no {gone}"


def providers(root: Path) -> dict[str, str]:
    """Return the provider class of each dynamic resource, by the resource's token."""
    found: dict[str, str] = {}
    for name, _, tree in _modules(root, "components"):
        for each in tree.body:
            if not isinstance(each, ast.ClassDef):
                continue
            words = {word.arg: ast.unparse(word.value).strip("'\"") for word in each.keywords}
            if {"module", "name"} <= set(words):
                made = re.search(r"super\(\)\.__init__\(\s*(\w+)\(", ast.unparse(each))
                token = f"{words['module']}:{words['name']}"
                provider = f"{name}.{made.group(1) if made else '?'}"
                found[token] = f"{found[token]} and {provider}" if token in found else provider
    return found


def _tokens(root: Path) -> Iterator[str]:
    found, frozen = providers(root), json.loads((root / FROZEN).read_text())
    for token in sorted(set(found) | set(frozen)):
        if " and " in found.get(token, ""):
            yield f"{token}: two resources have this token, {found[token]}"
        elif found.get(token) != frozen.get(token):
            yield (
                f"{token}: states name {frozen.get(token, 'nobody')} as its provider, and it is "
                f"{found.get(token, 'gone')}; leave an alias there, and add new ones to {FROZEN}"
            )


def _lengths(root: Path) -> Iterator[str]:
    for _, path, tree in _modules(
        root, "components", "policies", "toolchain", "cli", "classroom", "review", "nestlab"
    ):
        at, lines = path.relative_to(root), len(path.read_text().splitlines())
        if lines > LINES:
            yield f"{at}: {lines} lines, and a file has {LINES} at most"
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION:
                    yield f"{at}: {node.name} has {length} lines, and a function has {FUNCTION} at most"


def _typed(root: Path) -> Iterator[str]:
    """Yield where something between a plan and a driver has no type, or is looked up by a text."""
    allowed = set(UNTYPED)
    for _, path, tree in _modules(root, *(f"components/{room}" for room in TYPED)):
        at = str(path.relative_to(root))
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        if any(node.id == "Any" for node in names):
            if at not in allowed:
                yield f"{at}: it says Any, and stands between a plan and its driver"
            allowed.discard(at)
        if at.endswith("gates/object.py"):
            continue  # its shape is told by what the engine has
        for node in ast.walk(tree):
            if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant):
                continue
            if ast.unparse(node.value) in {"props", "news", "olds"}:
                yield f"{at}:{node.lineno}: properties are fields, and no texts"
    yield from (
        f"{at}: it does not say Any any more: take it off the list" for at in sorted(allowed)
    )


def _paths(root: Path) -> Iterator[str]:
    """Yield what pages name of the rooms that is not there."""
    named = re.compile(r"`((?:components|toolchain|cli)(?:[./][a-z_]+)+)(?:\.py)?/?`")
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        for found in named.findall(page.read_text()):
            path = root / found.removesuffix(".py").replace(".", "/")
            if not (path.is_dir() or path.with_suffix(".py").is_file()):
                yield f"{page.relative_to(root)}: {found} is not there"


def _named(root: Path) -> Iterator[str]:
    """Yield where a general room names a kind, or its provider: what is decided by a name belongs to its house."""
    folder = root / "components/kinds"
    kinds = sorted(each.parent.name for each in folder.glob("*/__init__.py"))
    name = re.compile(rf"(?<![a-z])({'|'.join(kinds)})(?![a-z])", re.IGNORECASE)
    allowed = {(at, kind) for at, its in NAMING.items() for kind in its}
    rooms = [*_modules(root, *(f"components/{room}" for room in GENERAL))]
    beside = [each for each in _modules(root, "components") if each[1].parent.name == "components"]
    seen = set()
    for _, path, tree in [*rooms, *beside]:
        at = str(path.relative_to(root))
        for line, text in _said(tree):
            for kind in {each.lower() for each in name.findall(text)}:
                seen.add((at, kind))
                if (at, kind) not in allowed:
                    yield f"{at}:{line}: a general room names {kind}: what a kind is like says its own house"
    for at, kind in sorted(allowed - seen):
        yield f"{at}: it does not name {kind} any more: take it off the list"


def _said(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield all names and texts of a module, but for what only explains it."""
    bodies = [getattr(node, "body", None) for node in ast.walk(tree)]
    explains = {
        each.value
        for body in bodies
        for each in (body if isinstance(body, list) else ())
        if isinstance(each, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in explains:
            yield node.lineno, node.value
        for part in ("id", "attr", "arg", "name", "module"):
            if isinstance(text := getattr(node, part, None), str):
                yield getattr(node, "lineno", 0), text
