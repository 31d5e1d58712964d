"""What places hold: names, references to media and templates, files, what a kind offers, depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.spec.files import glance
from components.spec.machines import ContainerSpec
from components.spec.places import Machine, Place, machines, places
from components.spec.problems import Problem, choose, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.spec.lab import LabSpec

DEEPEST = 3
"""Layers of machines: each one runs roughly ten times slower than the one around it."""


def names(lab: LabSpec) -> list[Problem]:
    """A machine's name is enough to find it, so no other machine of the lab has it."""
    first: dict[str, Machine] = {}
    found = []
    for machine in machines(lab):
        taken = first.setdefault(machine.name, machine)
        if taken is not machine:
            rule = f"machines are found by their name alone, and {taken.at} has it already"
            found.append(Problem(machine.at, f"name {machine.name!r} given", rule, "rename one"))
    return found


def depth(lab: LabSpec) -> list[Problem]:
    """Layers end where waiting for the next one takes hours."""
    found = []
    for place in places(lab):
        if place.depth != DEEPEST or not (inside := [m.name for m in place.machines()]):
            continue
        rule = (
            f"{listed(inside)} would be on layer {DEEPEST + 1}, a lab has at most {DEEPEST}, "
            "since each is about ten times slower than the one around it"
        )
        found.append(Problem(place.at, "machines inside given", rule, "move them further out"))
    return found


def containers(lab: LabSpec) -> list[Problem]:
    """Containers stand only where the kind of hypervisor has them."""
    found = []
    for place in places(lab):
        if place.offers.containers or not place.spec.containers:
            continue
        at = f"{place.at}.containers"
        given = f"{listed(place.spec.containers)} given"
        if place.kind is None:
            rule = "containers need a nested hypervisor, here they would share the host's kernel"
            found.append(Problem(at, given, rule, "move them into one, for example of kind kvm"))
        else:
            rule = f"{place.kind.title} has no containers"
            found.append(Problem(at, given, rule, "make guests of them, or move them"))
    return found


def _media_of(machine: Machine) -> dict[str, str]:
    return {} if isinstance(machine.spec, ContainerSpec) else machine.spec.media()


def media(lab: LabSpec) -> list[Problem]:
    """A machine names media the lab has."""
    known = list(lab.media)
    return [
        Problem(
            f"{machine.at}.{field}",
            f"{name!r} given",
            f"the lab's media are {listed(known)}" if known else "the lab has no media",
            choose(name, known) if known else f"add {name}: {{path: FILE}} to lab.media",
        )
        for machine in machines(lab)
        for field, name in _media_of(machine).items()
        if name not in lab.media
    ]


def templates(lab: LabSpec) -> list[Problem]:
    """A container names a template of the lab, or one its host has by itself."""
    found = [
        Problem(
            f"lab.templates.{name}",
            f"name {name!r} given",
            f"hypervisors of kind {kind.name} have a template of that name by themselves",
            "rename it",
        )
        for kind in {place.kind.name: place.kind for place in places(lab) if place.kind}.values()
        for name in kind.offers.templates
        if name in lab.templates
    ]
    for machine in machines(lab):
        if not isinstance(machine.spec, ContainerSpec) or not machine.place.offers.containers:
            continue
        name = machine.spec.template
        built_in = list(machine.place.offers.templates)
        if name in built_in or name in lab.templates:
            continue
        rule = (
            f"{machine.place.title} has {listed(built_in)} by itself, "
            f"and lab.templates holds {listed(lab.templates, none='nothing')}"
        )
        remedy = choose(name, [*built_in, *lab.templates])
        found.append(Problem(f"{machine.at}.template", f"{name!r} given", rule, remedy))
    return found


def hardware(lab: LabSpec) -> list[Problem]:
    """Machines and networks look like something their place can make."""
    found = []
    for place in places(lab):
        for name, network in place.spec.networks.items():
            found += _offered(
                place, f"{place.at}.networks.{name}.mode", network.mode, place.offers.modes
            )
        for machine in place.machines():
            if isinstance(machine.spec, ContainerSpec):
                continue
            spec = machine.spec
            found += _offered(
                place, f"{machine.at}.disk_bus", spec.disk_bus, place.offers.disk_buses
            )
            models = place.offers.nic_models
            found += _offered(place, f"{machine.at}.nic_model", spec.nic_model, models)
            if not isinstance(spec.network, str):
                for number, nic in enumerate(spec.nics):
                    at = f"{machine.at}.network.{number}.model"
                    found += _offered(place, at, nic.model, models)
    return found


def _offered(place: Place, at: str, value: str | None, offered: tuple[str, ...]) -> list[Problem]:
    if value is None or value in offered:
        return []
    title = place.kind.title if place.kind else place.title
    rule = f"{title} offers {listed(offered)}"
    return [Problem(at, f"{value!r} given", rule, choose(value, offered))]


def files(lab: LabSpec, exists: Callable[[str], bool]) -> list[Problem]:
    """The files are there, and are what they are used as."""
    found = []
    used = _uses(lab)
    for name, medium in lab.media.items():
        found += _file(f"lab.media.{name}.path", medium.path, exists, used.get(name, set()))
    for name, template in lab.templates.items():
        found += _file(f"lab.templates.{name}.path", template.path, exists, set())
    return found


def _uses(lab: LabSpec) -> dict[str, set[str]]:
    used: dict[str, set[str]] = {}
    for machine in machines(lab):
        for field, name in _media_of(machine).items():
            used.setdefault(name, set()).add(field)
    return used


def _file(at: str, path: str, exists: Callable[[str], bool], used: set[str]) -> list[Problem]:
    given = f"{path!r} given"
    if not exists(path):
        remedy = "put the file there or correct the path"
        return [Problem(at, given, "there is no such file on this machine", remedy)]
    content, word = glance(path)
    if content == "folder":
        return [Problem(at, given, "that is not a file", "give the path of the file")]
    if content == "unreadable":
        return [Problem(at, given, f"it can't be read ({word})", "let yourself read it")]
    found = []
    if "iso" in used and content in {"qcow2", "other"}:
        rule = f"it is used as an ISO and is {word or 'no ISO 9660 image'}"
        remedy = "use it as image:" if content == "qcow2" else "get the file again"
        found.append(Problem(at, given, rule, remedy))
    if "image" in used and (content == "iso" or (content == "other" and word)):
        rule = f"it is used as a disk image, which is qcow2 or raw, and is {word}"
        remedy = "use it as iso:" if content == "iso" else "convert, unpack or get it again"
        found.append(Problem(at, given, rule, remedy))
    return found


CONTENTS = (names, depth, containers, media, templates, hardware)
