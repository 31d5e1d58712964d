"""The schema of the component package: what its components take and answer, made from the stack file's models.

https://www.pulumi.com/docs/iac/guides/building-extending/packages/schema/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.bridged_network import BridgedNetwork
from components.container_from_template import ContainerFromTemplate
from components.guest_from_iso import GuestFromIso
from components.nested_hypervisor_lab import NestedHypervisorLab
from components.stackfile import later
from components.stackfile.registry import KINDS
from components.stackfile.schema import schema as shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from components.piece import Piece

NAME = "nestlab"
VERSION = "0.1.0"
TOKEN = f"{NAME}:index:Lab"
PASSWORD = "host_password"  # noqa: S105 - the name of an input
CHECKOUT = "checkout"
ANY = {"$ref": "pulumi.json#/Any"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
OUTPUTS: dict[str, dict[str, Any]] = {
    "sheet": {
        "type": "array",
        "items": ANY,
        "description": "Its machines and how to get in, without secrets; outer layers first",
    },
    "addresses": TEXTS
    | {"description": "Planned IPv4 address of each machine that has one, by name"},
    "consoles": TEXTS | {"description": "How to see each machine's screen or get a shell, by name"},
    "passwords": TEXTS | {"description": "Passwords of the screens, by machine", "secret": True},
    "logins": TEXTS | {"description": "Passwords of the sheet's users, by machine", "secret": True},
    "key": {
        "type": "string",
        "description": "Private key that opens the nested hypervisors, in OpenSSH's format",
        "secret": True,
    },
}


HOLDS, PLACE, CALLED, LAB = "holds", "place", "name", "lab"
GROUPS = ("networks", "guests", "containers", "hypervisors")
"""What a place has, as the stack file calls it."""
PIECES: Mapping[str, type[Piece[Any]]] = {
    each.urn_type: each
    for each in (BridgedNetwork, NestedHypervisorLab, GuestFromIso, ContainerFromTemplate)
}
"""The components that are parts of a lab, by type."""
TEXT: dict[str, Any] = {"type": "string"}
ADDRESS = {"address": TEXT | {"description": "Planned IPv4 address; empty where there is none"}}
CONSOLE = {
    "console": TEXT
    | {"description": "Its screen as a URI, or the command that gives a shell in it"}
}
SCREEN = (
    ADDRESS
    | CONSOLE
    | {"password": TEXT | {"description": "Password of the screen; empty for none", "secret": True}}
)
ANSWERS: Mapping[str, dict[str, dict[str, Any]]] = {
    BridgedNetwork.urn_type: {
        "network": TEXT | {"description": "Name of the network in its hypervisor"},
        "subnet": TEXT | {"description": "IPv4 subnet; empty on a bridge of the host"},
    },
    NestedHypervisorLab.urn_type: SCREEN
    | {"url": TEXT | {"description": "Its web interface; empty without one"}},
    GuestFromIso.urn_type: SCREEN,
    ContainerFromTemplate.urn_type: ADDRESS | CONSOLE,
}
"""Outputs of each of `PIECES`."""


def schema() -> dict[str, Any]:
    """Return the package's schema."""
    found: dict[str, Any] = shapes()["$defs"]
    objects = {name: _object(name, shape) for name, shape in found.items()}
    lab = objects["LabSpec"]
    # The lab is called as its resource, where its name is left out.
    lab["required"] = [name for name in lab.get("required", ()) if name != "name"]
    types = {f"{NAME}:index:{_name(each)}": shape for each, shape in objects.items()}
    types[f"{NAME}:index:Lab"] = lab
    types[f"{NAME}:index:Holds"] = {
        "type": "object",
        "description": "Names of what other components of the program are made on it, by group",
        "properties": {group: {"type": "array", "items": TEXT, "plain": True} for group in GROUPS},
    }
    of = {
        BridgedNetwork.urn_type: objects["NetworkSpec"],
        GuestFromIso.urn_type: objects["GuestSpec"],
        ContainerFromTemplate.urn_type: objects["ContainerSpec"],
        NestedHypervisorLab.urn_type: _any_of(
            [objects[kind.model.__name__] for kind in KINDS.values()]
        ),
    }
    pieces = {token: _piece(token, shape) for token, shape in of.items()}
    return {
        "name": NAME,
        "version": VERSION,
        "description": "Layered nested-virtualization labs",
        "types": types,
        "resources": {TOKEN: _component(lab, OUTPUTS, _entry() | _holds())} | pieces,
        "language": {
            "nodejs": {"respectSchemaVersion": True},
            "python": {"respectSchemaVersion": True},
        },
    }


def _entry() -> dict[str, Any]:
    return {
        PASSWORD: {
            "type": "string",
            "secret": True,
            "description": "What a remote outer host is entered with; default: the stack's secret "
            "nestlab:hostPassword",
        },
        CHECKOUT: {
            "type": "string",
            "description": "Folder of the checkout that set this machine up; default: NESTLAB_ROOT's",
        },
    }


def _holds() -> dict[str, Any]:
    said = "What other components of the program are made on it, by their `place`; default: none"
    return {HOLDS: {"$ref": f"#/types/{NAME}:index:Holds", "plain": True, "description": said}}


def _piece(token: str, shape: dict[str, Any]) -> dict[str, Any]:
    """Return the component that ``token`` is, whose args are ``shape``'s."""
    more = {
        PLACE: TEXT
        | {
            "plain": True,
            "description": "Name of the Lab or NestedHypervisorLab in this program that it is part of, "
            "and that says so in its `holds`; default: a lab of its own",
        },
        CALLED: TEXT
        | {"plain": True, "description": "Its name in the lab; default: the resource's"},
        LAB: {
            "$ref": f"#/types/{NAME}:index:Lab",
            "plain": True,
            "description": "Where it is no part of another: what its own lab has besides; default: nothing",
        },
    }
    if token == NestedHypervisorLab.urn_type:
        more |= _holds()
    said = (PIECES[token].__doc__ or "").partition("\n")[0]
    return _component(shape | {"description": said}, ANSWERS[token], more | _entry())


def _component(
    shape: Mapping[str, Any], outputs: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "isComponent": True,
        "description": shape["description"],
        "inputProperties": shape["properties"] | more,
        "requiredInputs": shape["required"],
        "properties": outputs,
        "required": list(outputs),
    }


def _any_of(shapes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what takes the fields of any of ``shapes``: which of them go together is asked of the args."""
    every = list(shapes)
    fields: dict[str, list[dict[str, Any]]] = {}
    for shape in every:
        for name, field in shape["properties"].items():
            fields.setdefault(name, []).append(field)
    required = set[str].intersection(*(set(shape["required"]) for shape in every))
    return {
        "properties": {name: _either(found) for name, found in fields.items()},
        "required": [name for name in fields if name in required],
    }


def _either(found: list[dict[str, Any]]) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = []
    for each in found:
        kind = {key: each[key] for key in each if key not in {"description", "plain", "const"}}
        for one in kind.get("oneOf", [kind]):
            if one not in kinds:
                kinds.append(one)
    said = {"description": found[0]["description"]} if "description" in found[0] else {}
    plain = {"plain": True} if all(each.get("plain") for each in found) else {}
    return said | (kinds[0] if len(kinds) == 1 else {"oneOf": kinds}) | plain


def _name(model: str) -> str:
    return model.removesuffix("Spec")


def _object(model: str, shape: dict[str, Any]) -> dict[str, Any]:
    described = {"type": "object", "description": shape["description"]}
    properties = {name: _property(each) for name, each in shape["properties"].items()}
    # A lab is planned before any of it exists: nothing else of it is another resource's output.
    known = later.models().get(model)
    for name in properties.keys() - (later.marks(known).keys() if known else set()):
        properties[name]["plain"] = True
    return described | {"properties": properties, "required": shape.get("required", [])}


def _property(shape: dict[str, Any]) -> dict[str, Any]:
    said = {"description": shape["description"]} if "description" in shape else {}
    if words := shape.get("enum"):
        said = {"description": f"{said.get('description', '')} ({', '.join(words)})".strip()}
    return _type(shape) | said


def _type(shape: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in shape:
        return {"$ref": f"#/types/{NAME}:index:{_name(shape['$ref'].rpartition('/')[2])}"}
    for union in ("anyOf", "oneOf"):
        some = [_type(each) for each in shape.get(union, ()) if each.get("type") != "null"]
        if some:
            return {"oneOf": some} if len(some) > 1 else some[0]
    if shape.get("type") == "array":
        return {"type": "array", "items": _type(shape["items"])}
    if shape.get("type") == "object":
        [value] = shape["patternProperties"].values()
        return {"type": "object", "additionalProperties": _type(value)}
    return {"type": shape["type"]} | ({"const": shape["const"]} if "const" in shape else {})
