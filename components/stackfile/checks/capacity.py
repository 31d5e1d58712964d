"""Sizes: a place is larger than what is in it, a hypervisor as large as its maker says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.stackfile import nodes
from components.stackfile.host import ClusterSpec
from components.stackfile.machines import ContainerSpec, GuestSpec
from components.stackfile.places import HypervisorSpec, Machine, Place, machines, own, places
from components.stackfile.problems import Problem, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from components.stackfile.lab import LabSpec
    from components.stackfile.places import Kind


def disk_of(machine: Machine) -> int:
    """Return the disks a machine takes in its place, GiB; a container's is not counted."""
    spec = machine.spec
    more = sum(spec.disks.values()) if isinstance(spec, GuestSpec) else 0
    return 0 if isinstance(spec, ContainerSpec) else spec.disk_gib + more


def memory_of(machine: Machine) -> int:
    """Return the memory a machine takes in its place, MiB."""
    return machine.spec.memory_mib


def cores_of(machine: Machine) -> int:
    """Return the virtual cores of a machine."""
    return machine.spec.cores


def _sum(inside: Iterable[Machine], measure: _Measure) -> tuple[int, str]:
    """Return the sum and how it is made, largest first."""
    sizes = ((measure.of(machine), machine.name) for machine in inside)
    sized = sorted((pair for pair in sizes if pair[0]), key=lambda pair: (-pair[0], pair[1]))
    return sum(n for n, _ in sized), " + ".join(f"{name} {n}" for n, name in sized)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A size machines have: its field, its unit, and how much of it a machine takes."""

    field: str
    unit: str
    of: Callable[[Machine], int]


_MEMORY = _Measure("memory_mib", "MiB", memory_of)
_DISK = _Measure("disk_gib", "GiB", disk_of)
_CORES = _Measure("cores", "cores", cores_of)


def minimums(lab: LabSpec) -> list[Problem]:
    """A hypervisor has what its maker asks for."""
    found = []
    for place, kind, spec in _nested(lab):
        for field, unit, least in (
            ("memory_mib", "MiB", kind.memory_mib),
            ("cores", "cores", kind.cores),
            ("disk_gib", "GiB", kind.disk_gib),
        ):
            value = getattr(spec, field)
            if value < least.value:
                rule = f"{kind.title} needs at least {counted(least.value, unit)} ({least.source})"
                remedy = f"write {least.value} or more"
                found.append(
                    Problem(f"{place.at}.{field}", f"{counted(value, unit)} given", rule, remedy)
                )
    return found


def memory(lab: LabSpec) -> list[Problem]:
    """Guests, containers, nested hypervisors and the host itself fit into the host's memory."""
    found = []
    for place, kind, spec in _nested(lab):
        found += _fits(
            place, _MEMORY, spec.memory_mib, kind.memory_mib.value, kind.reserve_mib, kind.share_mib
        )
    return found


def disk(lab: LabSpec) -> list[Problem]:
    """The disks inside and the host's own system fit onto the host's disk."""
    found = []
    for place, kind, spec in _nested(lab):
        found += _fits(
            place, _DISK, spec.disk_gib, kind.disk_gib.value, kind.reserve_gib, kind.share_gib
        )
    return found


def _nested(lab: LabSpec) -> Iterator[tuple[Place, Kind, HypervisorSpec]]:
    for place in places(lab):
        if place.kind is not None and isinstance(place.spec, HypervisorSpec):
            yield place, place.kind, place.spec


def _least(need: int, reserve: int, share: int) -> int:
    """Return the least that a hypervisor has to have for ``need`` inside."""
    least = -(-(need + reserve) * 1000 // (1000 - share))
    while least - own(reserve, share, least) < need:  # by rounding, once
        least += 1
    return least


def _fits(
    place: Place, measure: _Measure, have: int, least: int, reserve: int, share: int
) -> list[Problem]:
    field, unit = measure.field, measure.unit
    inside = list(place.machines())
    # Below its maker's minimum it is raised to that in any case.
    room = max(have, least)
    free = room - own(reserve, share, room)
    kept = own(reserve, share, have)
    if too_big := [machine for machine in inside if measure.of(machine) > free]:
        rule = f"{place.title} has {have} {unit}, {kept} of them for itself"
        less = f"write {have - kept} or less, or " if have > kept else ""
        return [
            Problem(
                f"{machine.at}.{field}",
                f"{measure.of(machine)} {unit} given",
                rule,
                f"{less}raise {place.at}.{field} to {_least(measure.of(machine), reserve, share)}",
            )
            for machine in too_big
        ]
    need, parts = _sum(inside, measure)
    if need <= free:
        return []
    least = _least(need, reserve, share)
    rule = f"it needs {least} {unit}: {least - need} for itself and {need} inside ({parts})"
    remedy = f"raise it to {least} or make what is inside smaller"
    return [Problem(f"{place.at}.{field}", f"{counted(have, unit)} given", rule, remedy)]


def cores(lab: LabSpec) -> list[Problem]:
    """No machine has more cores than its host; together they may, they take turns."""
    found = []
    for machine in machines(lab):
        host = machine.place.spec
        if not isinstance(host, HypervisorSpec) or machine.spec.cores <= host.cores:
            continue
        rule = (
            f"{machine.place.title} has {counted(host.cores, 'cores')}, and a machine with more than its host "
            "waits for itself"
        )
        remedy = f"write {host.cores} or less, or raise {machine.place.at}.cores"
        given = f"{counted(machine.spec.cores, 'cores')} given"
        found.append(Problem(f"{machine.at}.cores", given, rule, remedy))
    return found


def budget(lab: LabSpec) -> list[Problem]:
    """The first layer stays within what the stack says the lab may take of its host."""
    outer = list(next(places(lab)).machines())
    found = []
    for measure, have in (
        (_MEMORY, lab.host.memory_mib),
        (_DISK, lab.host.disk_gib),
        (_CORES, lab.host.cores),
    ):
        field, unit = measure.field, measure.unit
        need, parts = _sum(outer, measure)
        if have is None or need <= have:
            continue
        rule = f"the lab takes {counted(need, unit)} of its host ({parts})"
        remedy = f"raise the budget to {need} or make the lab smaller"
        found.append(Problem(f"lab.host.{field}", f"{counted(have, unit)} given", rule, remedy))
    return found


def node(lab: LabSpec) -> list[Problem]:
    """A node of a cluster has room for the whole first layer."""
    if not isinstance(lab.host, ClusterSpec):
        return []
    outer = list(next(places(lab)).machines())
    need = nodes.Totals(*(sum(map(measure.of, outer)) for measure in (_MEMORY, _DISK, _CORES)))
    return nodes.wrong(lab.name, lab.host, need)


CAPACITY = (minimums, memory, disk, cores, budget, node)
