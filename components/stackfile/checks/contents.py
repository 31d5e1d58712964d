"""What places hold: names, references to media and templates, files, what a kind offers, depth."""

from __future__ import annotations

import functools
from pathlib import PurePath
from typing import TYPE_CHECKING

from components.stackfile import pools
from components.stackfile.bounds import MOST_ENTRIES
from components.stackfile.files import Glance, glance
from components.stackfile.images import QEMU_NAMES
from components.stackfile.machines import ContainerSpec, GuestSpec
from components.stackfile.places import (
    CLONED,
    HypervisorSpec,
    Machine,
    Place,
    machines,
    ordered,
    places,
)
from components.stackfile.problems import Problem, choose, listed
from components.stackfile.registry import HOSTS, KINDS
from components.stackfile.values import SpecModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from components.stackfile.allow import Allowed
    from components.stackfile.lab import LabSpec
    from components.stackfile.machines import MachineSpec
    from components.stackfile.networks import NetworkSpec
    from components.stackfile.places import PlaceSpec

GIB = 1 << 30
ISOS = ("iso", "tools", "openssh", "discs")
"""Fields of machines that name an ISO."""
DEEPEST = 3
"""Layers of machines: each one runs roughly ten times slower than the one around it."""


def names(lab: LabSpec) -> list[Problem]:
    """A machine's name is enough to find it, so no other machine of the lab has it."""
    first: dict[str, Machine] = {}
    found = []
    for machine in machines(lab):
        found += _too_long(machine)
        taken = first.setdefault(machine.name, machine)
        if taken is not machine:
            rule = f"machines are found by their name alone, and {taken.at} has it already"
            found.append(Problem(machine.at, f"name {machine.name!r} given", rule, "rename one"))
    return found


def _too_long(machine: Machine) -> list[Problem]:
    if not isinstance(machine.spec, HypervisorSpec):
        return []
    kind = KINDS[machine.spec.kind]
    if len(machine.name) <= kind.longest_name:
        return []
    rule = f"{kind.title} is called so, and takes at most {kind.longest_name} characters"
    return [Problem(machine.at, f"name {machine.name!r} given", rule, "shorten it")]


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
        if place.kind is None and place.offers.apart:
            one = next((name for name, kind in KINDS.items() if kind.offers.containers), "")
            remedy = f"move them into one, for example of kind {one}"
            found.append(Problem(at, given, place.offers.apart, remedy))
        else:
            rule = f"{_title(place)} has no containers"
            found.append(Problem(at, given, rule, "make guests of them, or move them"))
    return found


def numbers(lab: LabSpec) -> list[Problem]:
    """There are no more machines than a preview can look at, and no more NICs than a machine can have."""
    found = []
    count = sum(1 for _ in machines(lab))
    if count > MOST_ENTRIES:
        rule = f"a lab has at most {MOST_ENTRIES}, since each preview looks at every one of them"
        found.append(Problem("lab", f"{count} machines given", rule, "make several labs of it"))
    for machine in machines(lab):
        have, most = len(machine.spec.nics), machine.place.offers.nics
        if have > most:
            rule = f"{_title(machine.place)} gives a machine at most {most}"
            remedy = f"remove {have - most}"
            found.append(Problem(f"{machine.at}.network", f"{have} NICs given", rule, remedy))
    return found


def nesting(lab: LabSpec) -> list[Problem]:
    """A nested hypervisor stands where it can be made."""
    found = []
    for place in places(lab):
        for name, spec in ordered(place.spec.hypervisors):
            at = f"{place.at}.hypervisors.{name}"
            kind = KINDS[spec.kind]
            if not place.offers.nests:
                found.append(
                    Problem(
                        at,
                        f"a nested hypervisor in {place.title} given",
                        f"{_title(place)} holds no hypervisors",
                        "move it further out",
                    )
                )
            elif kind.golden and not place.offers.golden:
                rule = f"{kind.title} is a clone of nestlab's own image, and {_title(place)} boots none of these"
                found.append(
                    Problem(f"{at}.kind", f"{spec.kind!r} given", rule, "move it, or change kind:")
                )
            elif not kind.reads_ahci and spec.machine in place.offers.ahci:
                given = f"{spec.machine!r} given, or left as it is"
                rule = f"{kind.title}'s installer reads no CD of {spec.machine} on {_title(place)}"
                found.append(Problem(f"{at}.machine", given, rule, "write machine: pc"))
    return found


def virtualization(lab: LabSpec) -> list[Problem]:
    """A hypervisor whose guests need hardware virtualization is shown some, by all that it stands in."""
    found = []
    for place in places(lab):
        above = next((each for each in (place, *place.lineage()) if _hides(each.spec)), None)
        for name, spec in ordered(place.spec.hypervisors):
            at = f"{place.at}.hypervisors.{name}"
            kind = KINDS[spec.kind]
            rule = f"{kind.title} starts no guest without hardware virtualization"
            if spec.nested is False and not kind.spares:
                found.append(Problem(f"{at}.nested", "false given", rule, "remove it"))
            elif above is not None and kind.needs(spec) and not kind.lives_emulated:
                rule += f", and {above.title} has nested: false, so what is in it is emulated"
                remedy = f"move it further out, or remove nested: of {above.title}"
                found.append(Problem(f"{at}.kind", f"{spec.kind!r} given", rule, remedy))
    return found


def _hides(spec: PlaceSpec) -> bool:
    return isinstance(spec, HypervisorSpec) and spec.nested is False


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


def disks(lab: LabSpec) -> list[Problem]:
    """A guest has no more further disks than its place gives it."""
    found = []
    for machine in machines(lab):
        if not isinstance(machine.spec, GuestSpec) or not machine.spec.disks:
            continue
        most, given = machine.place.offers.disks, len(machine.spec.disks)
        if given > most:
            rule = f"{_title(machine.place)} gives a guest {most or 'no'} further disks here"
            remedy = f"remove {given - most}" if most else "make disk_gib larger, or move it"
            found.append(Problem(f"{machine.at}.disks", f"{given} given", rule, remedy))
    return found


def discs(lab: LabSpec) -> list[Problem]:
    """A guest has no more CDs than its place has drives for."""
    found = []
    for machine in machines(lab):
        if not isinstance(machine.spec, GuestSpec) or not machine.spec.discs:
            continue
        has = machine.place.offers.drives(machine.spec)
        if (given := len(machine.spec.discs)) > has.most:
            rule = f"{_title(machine.place)} has drives for {has.most} of them: {has.why}"
            remedy = f"remove {given - has.most}" if has.most else "remove them"
            found.append(Problem(f"{machine.at}.discs", f"{given} given", rule, remedy))
    return found


def _closed(place: Place, at: str, network: NetworkSpec) -> Iterator[Problem]:
    if network.closed and not place.offers.closes:
        rule = f"networks of {_title(place)} can't be closed"
        outer = listed(host.title for host in HOSTS.values() if host.offers.closes)
        remedy = f"remove it; networks of an outer {outer} host can be"
        yield Problem(f"{at}.closed", "true given", rule, remedy)


def hardware(lab: LabSpec) -> list[Problem]:
    """Machines and networks look like something their place can make."""
    found = []
    for place in places(lab):
        for name, network in place.spec.networks.items():
            at = f"{place.at}.networks.{name}"
            given = (
                ""
                if "mode" in network.model_fields_set
                else f"no mode given, which is {network.mode!r}"
            )
            found += _offered(place, f"{at}.mode", network.mode, place.offers.modes, given)
            found += _closed(place, at, network)
            if network.uplink is not None and not place.offers.uplinks:
                rule = f"NICs of {_title(place)} are none of a stack's"
                outer = listed(host.title for host in HOSTS.values() if host.offers.uplinks)
                remedy = f"remove it; such uplinks are an outer {outer} host's"
                found.append(Problem(f"{at}.uplink", "an uplink given", rule, remedy))
            elif (
                network.mode == "bridge"
                and network.bridge is None
                and network.uplink is None
                and not place.offers.uplink
            ):
                rule = "mode bridge joins an existing bridge of the host"
                remedy = "add its name, such as br0" + (
                    ", or the NIC to make one on, such as uplink: {nic: enp3s0}"
                    if place.offers.uplinks
                    else ""
                )
                found.append(Problem(f"{at}.bridge", "nothing given", rule, remedy))
            if network.serves_dhcp and not place.offers.dhcp and "dhcp" in network.model_fields_set:
                rule = f"{_title(place)} hands out no addresses"
                found.append(Problem(f"{at}.dhcp", "true given", rule, "remove it"))
        for machine in place.machines():
            if isinstance(machine.spec, ContainerSpec):
                found += _fixed(machine.at, machine.spec, place)
                continue
            spec = machine.spec
            found += _offered(
                place, f"{machine.at}.disk_bus", spec.disk_bus, place.offers.disk_buses
            )
            models = place.offers.nic_models
            found += _offered(place, f"{machine.at}.nic_model", spec.nic_model, models)
            found += _fixed(machine.at, spec, place)
            if not isinstance(spec.network, str):
                for number, nic in enumerate(spec.nics):
                    at = f"{machine.at}.network.{number}.model"
                    found += _offered(place, at, nic.model, models)
    return found


def _offered(
    place: Place, at: str, value: str | None, offered: tuple[str, ...], given: str = ""
) -> list[Problem]:
    if value is None or value in offered:
        return []
    rule = f"{_title(place)} offers {listed(offered)}"
    return [Problem(at, given or f"{value!r} given", rule, choose(value, offered))]


def _title(place: Place) -> str:
    return place.kind.title if place.kind else place.title


def _fixed(at: str, spec: MachineSpec | ContainerSpec, place: Place) -> list[Problem]:
    """Refuse what the place can't be told of a guest, rather than forget it in silence."""
    found = []
    for field, instead in place.offers.fixed.items():
        value = getattr(spec, field, None)
        # A mapping that was written out is one whose fields were.
        given = field in spec.model_fields_set
        if given and value != type(spec).model_fields[field].get_default(call_default_factory=True):
            shown = "a setting" if isinstance(value, SpecModel) else repr(value)
            rule = f"{_title(place)} does not take it: {instead}"
            found.append(Problem(f"{at}.{field}", f"{shown} given", rule, "remove it"))
    image = "" if isinstance(spec, ContainerSpec) else spec.media().get("image", "")
    if image and not place.offers.images:
        rule = f"{_title(place)} makes no disks from images"
        remedy = (
            "install it from an iso:" if isinstance(spec, GuestSpec) else "move it, or change kind:"
        )
        found.append(Problem(f"{at}.image", f"{image!r} given", rule, remedy))
    if not isinstance(spec, ContainerSpec) and not spec.nics and place.offers.needs_nic:
        rule = f"{_title(place)} makes no machine without a NIC"
        found.append(Problem(f"{at}.network", "nothing given", rule, "name a network"))
    return found


def files(
    lab: LabSpec, exists: Callable[[str], bool], allowed: Allowed | None = None
) -> list[Problem]:
    """The files may be named, are there, and are what they are used as."""
    found = []
    used = _uses(lab)
    look = functools.cache(glance)
    images: dict[str, Glance] = {}
    for name, medium in lab.media.items():
        at = f"lab.media.{name}.path"
        seen, wrong = _seen(at, medium.path, exists, allowed, look)
        found += wrong
        if seen:
            images[name] = seen
            found += _medium(at, medium.path, seen, used.get(name, {}))
    for name, template in lab.templates.items():
        at = f"lab.templates.{name}.path"
        seen, wrong = _seen(at, template.path, exists, allowed, look)
        found += wrong
        if seen and seen.content not in {"archive", "absent"}:
            rule = f"it is used as a template, which is a tar archive, and is {_word(seen)}"
            found.append(Problem(at, f"{template.path!r} given", rule, "get the file again"))
        elif seen and seen.plain_tar and (place := _packing(lab, name)):
            rule = f"{_title(place)} takes a template that is compressed: {place.offers.packed}"
            remedy = f"compress it: xz -k {PurePath(template.path).name}, and name that file"
            found.append(Problem(at, f"{template.path!r} given, a plain tar", rule, remedy))
    return found + _too_large(lab, images)


def _packing(lab: LabSpec, template: str) -> Place | None:
    """Return a place with a container made from ``template``, where that has to be compressed."""
    for machine in machines(lab):
        made = isinstance(machine.spec, ContainerSpec) and machine.spec.template == template
        if made and machine.place.offers.packed:
            return machine.place
    return None


def _uses(lab: LabSpec) -> dict[str, dict[str, set[str]]]:
    """Return how each medium is used: as "iso", as "image", and then in which formats it may be."""
    used: dict[str, dict[str, set[str]]] = {}
    for machine in machines(lab):
        nested = isinstance(machine.spec, HypervisorSpec)
        formats = set[str](CLONED if nested else machine.place.offers.image_formats)
        for at, name in _media_of(machine).items():
            field = at.partition(".")[0]
            uses = used.setdefault(name, {})
            uses[field] = uses[field] & formats if field in uses else formats
    return used


def _seen(
    at: str,
    path: str,
    exists: Callable[[str], bool],
    allowed: Allowed | None,
    look: Callable[[str], Glance],
) -> tuple[Glance | None, list[Problem]]:
    """Return what the file is, or why nobody looked."""
    given = f"{path!r} given"
    if allowed and (refused := allowed.file(path)):
        return None, [Problem(at, given, *refused)]
    if not exists(path):
        remedy = "put the file there or correct the path"
        return None, [Problem(at, given, "there is no such file on this machine", remedy)]
    seen = look(path)
    if seen.content == "folder":
        rule = f"that is not a file but {seen.word}"
        return None, [Problem(at, given, rule, "give the path of the file")]
    if seen.content == "unreadable":
        rule = f"it can't be read ({seen.word})"
        return None, [Problem(at, given, rule, "let yourself read it")]
    return seen, []


def _medium(at: str, path: str, seen: Glance, used: dict[str, set[str]]) -> list[Problem]:
    if seen.content == "absent":
        return []
    given = f"{path!r} given"
    found = []
    if any(field in used for field in ISOS) and seen.content != "iso":
        rule = f"it is used as an ISO and is {seen.word or 'no ISO 9660 image'}"
        remedy = "use it as image:" if seen.content == "image" else "get the file again"
        found.append(Problem(at, given, rule, remedy))
    if "bundle" in used and seen.content != "program":
        rule = f"it is used as an installation program and is {_word(seen)}"
        found.append(Problem(at, given, rule, "get the file again"))
    if "image" in used and (wrong := _no_image(seen, sorted(used["image"]))):
        found.append(Problem(at, given, *wrong))
    if not used and seen.content not in {"iso", "image", "program"}:
        rule = f"media are ISOs and disk images, and it is {_word(seen)}"
        found.append(Problem(at, given, rule, "remove it, or get the file again"))
    if not found and seen.wrong:
        found.append(Problem(at, given, *seen.wrong))
    return found


def _word(seen: Glance) -> str:
    return seen.word or "none that is known"


def _no_image(seen: Glance, formats: list[str]) -> tuple[str, str] | None:
    """Return rule and remedy for what is not a disk image in one of ``formats``."""
    if seen.form in formats:
        return None
    rule = f"it is used as a disk image, which is {' or '.join(formats)} there, and is "
    if seen.content == "iso":
        return rule + seen.word, "use it as iso:"
    if seen.form and formats:
        convert = f"convert it: qemu-img convert -O {QEMU_NAMES.get(formats[0], formats[0])}"
        return rule + seen.word, convert
    nothing = "nothing that boots: no boot sector, no file system"
    return rule + (seen.word or nothing), "convert, unpack or get it again"


def _too_large(lab: LabSpec, images: dict[str, Glance]) -> list[Problem]:
    """A disk is at least as large as the image that it is a clone of."""
    found = []
    for machine in machines(lab):
        name = _media_of(machine).get("image", "")
        given = 0 if isinstance(machine.spec, ContainerSpec) else machine.spec.disk_gib
        if name not in images or not given or images[name].virtual <= given * GIB:
            continue
        least = -(-images[name].virtual // GIB)
        rule = f"its image {name} is a disk of {images[name].virtual / GIB:.4g} GiB"
        remedy = f"write {least} or more"
        found.append(Problem(f"{machine.at}.disk_gib", f"{given} GiB given", rule, remedy))
    return found


CONTENTS = (
    numbers,
    names,
    pools.names,
    pools.folder,
    depth,
    nesting,
    virtualization,
    containers,
    media,
    templates,
    hardware,
    discs,
    disks,
)
