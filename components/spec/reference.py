"""The page about the stack file, made from the models: ``python -m components.spec.reference``.

A field's description is written once, where the field is; here it becomes a table for people, as it
becomes a JSON schema for editors in ``schema.py``.
"""

from __future__ import annotations

from typing import Any

from components.spec.hosts import DEFAULT, HOSTS
from components.spec.hosts.base import HostSpec
from components.spec.kinds import KINDS
from components.spec.places import HypervisorSpec
from components.spec.schema import polish, schema

HEAD = """\
# The stack file

One lab is `stacks/Pulumi.NAME.yaml`, under `config: nestlab:lab:`. Everything has a name (small letters,
digits and hyphens), and a **place** (the lab itself, or a nested hypervisor) holds `networks`,
`hypervisors`, `guests` and `containers`. The tables below are made from the models that check the
file; `stacks/schema.json` says the same to your editor.

Everything that is wrong is told at once, before anything exists, the set-up's findings included. A lab has at
most 500 machines, 16 NICs a machine (less where its hypervisor gives less), 24 levels and 50,000 values; texts
have at most 4095 bytes.

Addresses need not be written: each machine has a planned one that stays the same when others come and
go, and `address:` pins it. What changes in a file changes just that:

| you change | what happens |
|---|---|
| a guest more or less | it alone, and its network's reservation |
| memory, cores, NIC model, bus, firmware, screen of a machine | its domain is made anew; its disk stays |
| the same of a nested host | it boots again; what is in it is on its disk, and starts with it |
| nestlab itself, or the host's Debian: another golden image | nothing: a lab keeps the image it was made with until it is taken down |
| `disk_gib` or `image` of a machine | disk and domain are made anew; what was on the disk is lost, preview names everything that goes with it |
| a container's template | the container is made anew, what was in it is lost |
| a container's memory, cores, address, command | it is stopped, set up and started |
"""
ANY_KIND = "HypervisorSpec"
ANY_HOST = "HostSpec"
ORDER = (
    ("LabSpec", "The lab (`nestlab:lab`)"),
    (ANY_HOST, "`host`, whatever its kind"),
    *(
        (
            host.model.__name__,
            f"`host` of `kind: {name}`{', which may be left out' * (name == DEFAULT)}: {host.title}",
        )
        for name, host in HOSTS.items()
    ),
    ("NodeSpec", "`host.nodes.NAME`"),
    ("BootSpec", "`boot`"),
    ("MediumSpec", "`media.NAME`"),
    ("TemplateSpec", "`templates.NAME`"),
    ("NetworkSpec", "`networks.NAME`"),
    (ANY_KIND, "`hypervisors.NAME`, whatever its kind"),
    *((kind.model.__name__, f"`kind: {name}`, {kind.title}") for name, kind in KINDS.items()),
    ("GuestSpec", "`guests.NAME`"),
    ("ContainerSpec", "`containers.NAME`"),
    ("NicSpec", "one of `network`, when it is a list"),
    ("ConsoleSpec", "`console`"),
    ("ReadySpec", "`ready`"),
)


def page() -> str:
    """Return the page as Markdown."""
    models = schema()["$defs"]
    for name, base, each in ((ANY_KIND, HypervisorSpec, KINDS), (ANY_HOST, HostSpec, HOSTS)):
        common = base.model_json_schema(ref_template="#/$defs/{model}")
        models[name] = common | {"properties": _without_titles(common["properties"])}
        for kind in each.values():
            _leave_out_what_is_common(models[kind.model.__name__], models[name])
    missing = set(models) - {name for name, _ in ORDER}
    if missing:
        raise ValueError(f"add to ORDER: {', '.join(sorted(missing))}")
    return HEAD + "".join(_table(title, models[name]) for name, title in ORDER)


def _without_titles(properties: dict[str, Any]) -> dict[str, Any]:
    polish(properties)
    return properties


def _leave_out_what_is_common(model: dict[str, Any], common: dict[str, Any]) -> None:
    same = common["properties"]
    needed = set(model.get("required", ())) - set(common.get("required", ()))
    model["properties"] = {
        name: told
        for name, told in model["properties"].items()
        if told != same.get(name) or name in needed
    }


def _table(title: str, model: dict[str, Any]) -> str:
    about = " ".join(str(model.get("description", "")).split())
    required = set(model.get("required", ()))
    lines = [f"\n## {title}\n\n{about}\n\n| field | what | default |\n|---|---|---|\n"]
    for name, told in model["properties"].items():
        what = " ".join(str(told.get("description", "")).split()).replace("|", "\\|")
        choices = told.get("enum") or _choices(told)
        if choices and not all(str(choice) in what for choice in choices):
            what += f" ({', '.join(map(str, choices))})"
        default = "**required**" if name in required else _default(told.get("default"))
        lines.append(f"| `{name}` | {what} | {default} |\n")
    return "".join(lines)


def _choices(told: dict[str, Any]) -> list[Any]:
    return [value for each in told.get("anyOf", ()) for value in each.get("enum", ())]


def _default(value: object) -> str:
    if value is None or isinstance(value, (dict, list)):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(page(), end="")
