"""The gate of a guest: it is there, runs, and what it is for answers.

One that was removed by hand is made again, from what it was, since the provider would neither notice nor
delete it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from components.gates.api import ask, glance
from components.gates.base import Made, Moves
from components.gates.keys import remove_keys, write_keys
from components.gates.machine import Machine, MachineResource
from components.kinds.proxmox.api import Pve, PveError
from components.kinds.proxmox.gates.base import OnNode, PveGate
from components.kinds.proxmox.gates.slot import (
    Numbered,
    config_path,
    holder_of,
    label_of,
    path_of,
    remove_guest,
)
from components.reach.shell import Unreachable
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

OWN = {"digest", "meta", "vmgenid", "lock", "parent"}
"""What a node writes into a configuration by itself."""
DISK = re.compile(r"(scsi|virtio|sata|ide|efidisk)\d+|rootfs")
UNUSED = re.compile(r"unused\d+")
Config = dict[str, str | int]
"""A guest's configuration as its node tells it: texts and numbers, by the names of qm.conf(5)."""
MAKING_S = 600.0
UNSET = {"kvm": 1}
"""What holds for an option that a guest's configuration does not name (qm.conf(5))."""
HALF_MADE = "half-made: "
"""Stands before the mark of a guest that is being made again, until it is as it was."""


@dataclass(frozen=True, slots=True)
class Again:
    """What a guest would be made from again."""

    image: str = ""
    """Volume with a disk image."""
    template: str = ""
    """Of a container."""
    clone: int = 0
    """Number of a template; 0: none."""
    linked: bool = False


class Remade(Numbered, Protocol):
    """A guest that can be made again."""

    @property
    def again(self) -> Again: ...


@dataclass(frozen=True, kw_only=True)
class Guest(OnNode, Machine):
    """Properties of a guest's gate."""

    kind: Moves[str]
    """qemu or lxc."""
    vmid: Moves[int]
    config: dict[str, str | int]
    """What the provider can't set."""
    again: Again
    definition: Made[dict[str, str]] = None


class PveGuestProvider(PveGate[Guest]):
    """Sets what the provider can't, starts a guest, and waits until it is up."""

    shape = Guest

    @override
    def seen(self, pve: Pve, props: Guest) -> Seen:
        seen = self._runs(pve, props)
        return glance(props, seen)

    def _runs(self, pve: Pve, props: Guest) -> Seen:
        at = path_of(props)
        config = pve.find(f"{at}/config")
        if config is None:
            if elsewhere := _moved(pve, props):
                return Seen(ok=False, text=elsewhere)
            text = f"{label_of(props)} is not there any more, and what was on its disk is lost"
            return Seen(ok=False, text=text)
        if is_half_made(config):
            return Seen(ok=False, text=f"{label_of(props)} is half-made")
        for key, value in _lacking(config, props).items():
            return Seen(ok=False, text=f"{label_of(props)} does not have {key}={value}")
        for key, value in _further(props.definition or {}).items():
            # Else that one would be looked for once the stack forgets it.
            if key in config and _volume(str(config[key])) != _volume(value):
                return Seen(ok=False, text=f"{label_of(props)} has a new disk at {key}")
        state = pve.get(f"{at}/status/current").get("status")
        return Seen(ok=state == "running", text=f"{label_of(props)} is {state}")

    @override
    def mend(self, olds: Guest | None, news: Guest) -> Guest:
        pve, before = Pve(news.api), olds.definition if olds else None
        at = path_of(news)
        config = pve.find(f"{at}/config")
        if config is not None and is_half_made(config) and before:
            remove_guest(pve, news)
            config = None
        if config is None:
            if elsewhere := _moved(pve, news):
                raise PveError(elsewhere)
            if olds is None or not before:
                raise PveError(f"{label_of(news)} was removed while it was being made")
            made_again(pve, olds, before)
            say(f"{news.name}: made again, with an empty disk or that of its image")
            config = pve.get(f"{at}/config")
        elif before:
            _clear(pve, news, before)
        missing = _lacking(config, news) | _dropped(config, olds, news)
        running = pve.get(f"{at}/status/current").get("status") == "running"
        if missing:
            if running:
                # A running guest takes such a change at its next start only.
                pve.wait(news.node, pve.post(f"{at}/status/stop"), 120)
                running = False
            pve.put(f"{at}/config", **missing)
        if not running:
            pve.wait(news.node, pve.post(f"{at}/status/start"), news.deadline_s)
        write_keys(news.key_folder, news.reach)
        try:
            seen = wait_for(news.name, lambda: self._up(pve, news), deadline_s=news.deadline_s)
        except NotReady as late:
            look = f"  look at it on {pve.name}: node {news.node}, {label_of(news)}, Console"
            raise NotReady(f"{late}\n{look}") from None
        made = definition_of(pve.get(f"{at}/config"))
        return replace(news, answers=seen.text, definition=made)

    def _up(self, pve: Pve, props: Guest) -> Seen:
        try:
            seen = self._runs(pve, props)
            return ask(props) if seen.ok else seen
        except (Unreachable, PveError) as silent:
            return Seen(ok=False, text=str(silent))

    @override
    def retire(self, props: Guest) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props.key_folder)
        pve = Pve(props.api)
        if props.definition and pve.find(config_path(props)) is None:
            # The provider refuses to delete what is not there.
            made_again(pve, props, props.definition)


def _clear(pve: Pve, props: Guest, before: Mapping[str, str]) -> None:
    """Remove the further disks that the stack forgot, with what is on them.

    The provider unplugs them, and what is unplugged stays as `unused[n]`, whose removal removes the volume (option
    ``force`` of the API's qemu/{vmid}/config). ``current`` leaves out what waits for the guest to be off.
    """
    at = path_of(props)
    config: Config = pve.get(f"{at}/config")
    gone = {key: _volume(value) for key, value in _further(before).items() if key not in config}
    if not gone:
        return
    if held := sorted(gone.keys() & pve.get(f"{at}/config", current=1).keys()):
        # Somebody switched its hotplugging off.
        pve.wait(props.node, pve.post(f"{at}/status/stop"), 120)
        pve.wait(props.node, pve.post(f"{at}/config", delete=",".join(held)), MAKING_S)
        config = pve.get(f"{at}/config")
    left = [key for key in sorted(config) if UNUSED.fullmatch(key)]
    if left := [key for key in left if _volume(str(config[key])) in gone.values()]:
        pve.wait(props.node, pve.post(f"{at}/config", delete=",".join(left)), MAKING_S)
        say(f"{props.name}: removed the disks that it has no more: {', '.join(sorted(gone))}")


def _moved(pve: Pve, props: Numbered) -> str:
    """Return what to say of a guest that somebody migrated; empty for one that is nowhere."""
    found = holder_of(pve, props)
    if found is None or found.node == props.node:
        return ""
    tool = "pct" if props.kind == "lxc" else "qm"
    back = f"`{tool} migrate {props.vmid} {props.node}` on {found.node} brings it back"
    return f"{label_of(props)} is on node {found.node} by now; {back}"


def is_half_made(config: Config) -> bool:
    return str(config.get("description") or "").startswith(HALF_MADE)


def definition_of(config: Config) -> dict[str, str]:
    """Return what makes a guest again, of its configuration: what is its node's own is left out.

    As texts: the engine would hand whole numbers over as floats, which the API takes for neither
    integers nor booleans.
    """
    # Descriptions come back with a line break more than they were given.
    return {key: str(value).rstrip("\n") for key, value in config.items() if key not in OWN}


def is_template(config: Mapping[str, str | int]) -> bool:
    return str(config.get("template", 0)) == "1"


def made_again(pve: Pve, props: Remade, made_of: Mapping[str, str]) -> None:
    """Make a guest as it was: its disks are allocated anew, of the size they had.

    Until it is complete its description says that it is not, and who looks at it makes it anew.
    """
    definition = dict(made_of)
    whole = definition.pop("description", "")
    template = is_template(definition)
    if template:
        del definition["template"]
    make = _cloned if props.again.clone else _created
    grown = make(pve, props, definition, f"{HALF_MADE}{whole}")
    node = props.node
    at = path_of(props)
    for disk, size in grown.items():
        pve.wait(node, pve.put(f"{at}/resize", disk=disk, size=size), MAKING_S)
    if template:
        pve.wait(node, pve.post(f"{at}/template"), MAKING_S)
    pve.put(f"{at}/config", **({"description": whole} if whole else {"delete": "description"}))


def _created(pve: Pve, props: Remade, definition: Mapping[str, str], half: str) -> dict[str, str]:
    """Make a guest with new disks; return to what which of them are to be grown."""
    told: dict[str, str] = {}
    grown: dict[str, str] = {}
    for key, value in definition.items():
        told[key] = value
        if _is_disk(key, value):
            told[key], size = _allocated(value, props.again.image)
            grown |= {key: size} if size else {}
    if props.again.template:
        told["ostemplate"] = props.again.template
    node, vmid = props.node, props.vmid
    task = pve.post(f"nodes/{node}/{props.kind}", vmid=vmid, description=half, **told)
    pve.wait(node, task, MAKING_S)
    return grown


def _cloned(pve: Pve, props: Remade, definition: Mapping[str, str], half: str) -> dict[str, str]:
    """Clone a guest and set it as it was; return to what which disks are to be grown."""
    node, vmid, again = props.node, props.vmid, props.again
    at = f"nodes/{node}/qemu"
    named = {"name": definition["name"]} if "name" in definition else {}
    full = 0 if again.linked else 1
    task = pve.post(f"{at}/{again.clone}/clone", newid=vmid, full=full, description=half, **named)
    pve.wait(node, task, MAKING_S)
    there = pve.get(f"{at}/{vmid}/config")
    told: dict[str, str] = {}
    grown: dict[str, str] = {}
    for key, value in definition.items():
        if _is_disk(key, value) and key in there:
            grown[key] = option(value, "size")
        else:
            told[key] = _allocated(value, "")[0] if _is_disk(key, value) else value
    if rest := ",".join(sorted(set(there) - OWN - set(definition) - {"description"})):
        told["delete"] = rest
    pve.wait(node, pve.post(f"{at}/{vmid}/config", **told), MAKING_S)
    return grown


def _is_disk(key: str, value: str) -> bool:
    return bool(DISK.fullmatch(key)) and "media=cdrom" not in value


def _further(definition: Mapping[str, str]) -> dict[str, str]:
    """Return the further disks of a guest: those that are called something."""
    disks = ((key, value) for key, value in definition.items() if _is_disk(key, value))
    return {key: value for key, value in disks if option(value, "serial")}


def _allocated(value: str, image: str) -> tuple[str, str]:
    """Return a drive in the words that allocate it anew, and to what it is to be grown then."""
    storage, _, rest = value.partition(":")
    options = dict(each.partition("=")[::2] for each in rest.split(",")[1:])
    size = options.pop("size", "1G")
    first = str(_gib(size))
    if image:
        # A disk made of an image is as large as the image, and grown then.
        first, options["import-from"] = "0", image
    fresh = [f"{storage}:{first}", *(f"{name}={option}" for name, option in options.items())]
    return ",".join(fresh), size if image else ""


def option(value: str, name: str) -> str:
    """Return an option of a drive, such as its size; empty where it has none."""
    return dict(each.partition("=")[::2] for each in value.split(",")[1:]).get(name, "")


def _volume(value: str) -> str:
    """Return the volume of a drive."""
    return value.partition(",")[0]


def _gib(size: str) -> int:
    number, unit = float(size[:-1]), size[-1]
    return max(1, math.ceil(number * {"M": 1 / 1024, "G": 1, "T": 1024}.get(unit, 1)))


def _lacking(config: Config, props: Guest) -> dict[str, str | int]:
    """Return what the guest is to be set to and is not, in the API's words."""
    return {
        key: value
        for key, value in props.config.items()
        if not _holds(str(config.get(key, UNSET.get(key))), str(value))
    }


def _dropped(config: Config, olds: Guest | None, news: Guest) -> dict[str, str | int]:
    """Return what takes out the options that were the lab's and are no more, such as the drive of a seed."""
    had = olds.config if olds else {}
    gone = sorted(key for key in had if key in config.keys() - news.config.keys())
    return {"delete": ",".join(gone)} if gone else {}


def _holds(found: str, wanted: str) -> bool:
    """Whether an option is as wanted: a node adds what it knows of a drive, such as its size."""
    return found == wanted or ("," in wanted and set(wanted.split(",")) <= set(found.split(",")))


class PveGuestGate(MachineResource, module="nestlab", name="PveGuestGate"):
    """A guest or container of a node that is up."""

    def __init__(self, name: str, props: Guest, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PveGuestProvider(), name, props, opts)
