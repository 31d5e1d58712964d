"""The page about the stack file, made from the models: ``python -m components.stackfile.reference``.

A field's description is written once, where the field is; here it becomes a table for people, as it
becomes a JSON schema for editors in ``schema.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.stackfile.host import HostSpec
from components.stackfile.places import HypervisorSpec
from components.stackfile.registry import DEFAULT, HOSTS, KINDS
from components.stackfile.schema import polish, schema

if TYPE_CHECKING:
    from collections.abc import Collection

HEAD = """\
# The stack file

One lab is `stacks/Pulumi.NAME.yaml`, under `config: nestlab:lab:`. Everything has a name (small letters,
digits and hyphens), and no two machines of a lab have the same, at whatever layer. The lab, and each hypervisor in it, is a **place**: it can contain `networks`,
`hypervisors`, `guests` and `containers`. The tables below are made from the models that check the
file; `stacks/schema.json` says the same to your editor.

A guest with two NICs, one of them with an address of your choice, beside one that boots from a disk image:

```yaml
# yaml-language-server: $schema=schema.json
config:
  nestlab:lab:
    name: two-nets
    media:
      debian: {path: media/debian-12-nocloud-amd64.qcow2}
    networks:
      front: {subnet: 10.79.0.0/24}
      back: {mode: isolated, subnet: 10.78.0.0/24}
    guests:
      router:
        image: debian
        memory_mib: 1024
        network:
          - {network: front, address: 10.79.0.11}
          - {network: back, model: e1000}
      web: {image: debian, memory_mib: 1024, network: back, firmware: uefi}
```

`nestlab doctor -s NAME` reads the file and changes nothing: it says what is wrong in it, which files are not
there, and whether the lab fits. `make up` tells the same before anything exists. A lab has at
most 500 machines, 16 NICs a machine (less where its hypervisor gives less), 24 levels and 50,000 values; texts
have at most 4095 bytes.

Addresses need not be written: nestlab plans one for each machine, which stays the same when others come and
go; `address:` sets it yourself. What changes in a file changes just that:

| you change | what happens |
|---|---|
| a guest more or less | that guest alone, and its network's list of addresses |
| memory, cores, NIC model, bus, firmware, screen of a machine | the machine is switched off and made anew with the same disk |
| the same of a nested host | it boots again; what is in it is on its disk, and starts with it |
| nestlab itself, or the host's Debian: another golden image | nothing: a lab keeps the image it was made with until it is taken down |
| `disk_gib` or `image` of a machine | **the disk is deleted** and made anew, and what was on it is lost; a preview names all that goes with it, `make up` asks |
| a container's template | the container is made anew, and what was in it is lost |
| `cloud_init` of a guest, or its address on a network without DHCP | it is stopped and started with another seed, and its disk stays; cloud-init acts once more, and takes nothing back of what it did before; `make up` asks where the machine is defined anew for it |
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
    ("UplinkSpec", "`networks.NAME.uplink`"),
    (ANY_KIND, "`hypervisors.NAME`, whatever its kind"),
    *((kind.model.__name__, f"`kind: {name}`, {kind.title}") for name, kind in KINDS.items()),
    ("GuestSpec", "`guests.NAME`"),
    ("ContainerSpec", "`containers.NAME`"),
    ("NicSpec", "one of `network`, when it is a list"),
    ("ConsoleSpec", "`console`"),
    ("ReadySpec", "`ready`"),
    ("CloudInitSpec", "`guests.NAME.cloud_init`; [guests.md](guests.md) has what comes of it"),
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
    sized = {
        name
        for name, field in HypervisorSpec.model_fields.items()
        if field.is_required()
        and not any(kind.model.model_fields[name].is_required() for kind in KINDS.values())
    }
    return HEAD + "".join(
        _table(title, models[name], sized if name == ANY_KIND else ()) for name, title in ORDER
    )


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


def _table(title: str, model: dict[str, Any], by_kind: Collection[str] = ()) -> str:
    about = " ".join(str(model.get("description", "")).split())
    required = set(model.get("required", ()))
    lines = [f"\n## {title}\n\n{about}\n\n| field | what | default |\n|---|---|---|\n"]
    for name, told in model["properties"].items():
        what = " ".join(str(told.get("description", "")).split()).replace("|", "\\|")
        choices = told.get("enum") or _choices(told)
        if choices and not all(str(choice) in what for choice in choices):
            what += f" ({', '.join(map(str, choices))})"
        default = "**required**" if name in required else _default(told.get("default"))
        if name in by_kind:
            default = "by kind, see below"
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
