"""A class planned whole: every student's stack file, what all of them take, and what must not be the same.

Pure but for what it is given: nothing is written until `Planned.keep`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom import bill, register, template
from classroom.subnets import Full, Pool
from components.stackfile import SpecError, Totals, plan, totals
from components.stackfile.allow import Allowed
from components.stackfile.host import ClusterSpec
from components.stackfile.loader import examine
from components.stackfile.places import places
from components.stackfile.problems import Problem, counted
from toolchain import stack_check
from toolchain.bootstrap import paths, ui

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from classroom.roster import Roster, Student
    from components.stackfile import LabSpec


@dataclass(frozen=True)
class Lab:
    """One student's lab, as it will be."""

    student: Student
    stack: str
    name: str
    text: str
    """Its stack file."""
    spec: LabSpec
    size: Totals


@dataclass(frozen=True)
class Planned:
    """A class as it will be."""

    roster: Roster
    register: register.Register
    labs: tuple[Lab, ...]
    bill: bill.Bill
    left: tuple[str, ...]
    """Students who left the roster and whose labs stand."""
    freed: tuple[str, ...]
    """Students who left it, and have no lab any more: their subnets are free."""

    def keep(self) -> None:
        """Write what everybody has, and then their stack files.

        Raises:
            Problem: somebody's own stack file has the name of one.
        """
        self.register.write()
        for lab in self.labs:
            template.write(lab.stack, lab.text)
        for student in self.freed:
            template.remove(self.register.stack(student))


def planned(
    roster: Roster,
    source: str,
    *,
    file: str,
    standing: Collection[str],
    others: Iterable[IPv4Network] = (),
    anyway: bool = False,
) -> Planned:
    """Return the class of ``roster`` with the stack ``source`` as template.

    ``file`` is the roster's full path, ``standing`` the stacks that have a state, ``others`` subnets
    that somebody else has on the outer host. ``anyway``: too much for the host is let pass.

    Raises:
        SpecError: all that is wrong with roster and labs, and what the host has too little of.
        Problem: the template is refused, or the class is another roster's.
    """
    kept = register.read(roster.name)
    made = template.Template.read(source)
    _refuse_another(kept, Path(file), standing)
    kept.roster, kept.template, kept.subnets = file, source, str(roster.subnets)
    kept.price, kept.hand_in = roster.price, roster.hand_in
    left, freed = _who_left(kept, roster, standing)
    _give(kept, roster, made, others)
    labs = _labs(kept, roster, made)
    placed: dict[str, str] = {}
    has = bill.have(labs[0].spec.host)
    if has.nodes:
        labs, placed = _on_nodes(kept, roster, made, labs, has, left)
    for lab in labs:
        given = kept.students[lab.student.id]
        size = lab.size
        given.lab = {"memory_mib": size.memory_mib, "disk_gib": size.disk_gib, "cores": size.cores}
    if alike := list(_alike(labs)):
        raise SpecError(alike)
    whole = bill.Bill(_needs(kept, labs, left, standing), has, roster.subnets.num_addresses, placed)
    wrong = whole.wrong()
    if wrong and not anyway:
        raise SpecError(wrong)
    for each in wrong:
        ui.warn(str(each))
    return Planned(roster, kept, tuple(labs), whole, tuple(left), tuple(freed))


def _refuse_another(kept: register.Register, file: Path, standing: Collection[str]) -> None:
    before = Path(kept.roster)
    if not kept.roster or before.resolve() == file.resolve():
        return
    if any(kept.stack(each) in standing for each in kept.students) and before.exists():
        raise ui.Problem(
            f"the class {kept.name} is that of {kept.roster}, and its labs stand: name this one "
            "otherwise (--name), or take that one down first."
        )


def _who_left(
    kept: register.Register, roster: Roster, standing: Collection[str]
) -> tuple[list[str], list[str]]:
    """Note who is no more on the roster; return those whose labs stand, and those forgotten."""
    here = {each.id for each in roster.students}
    left, freed = [], []
    for id_ in [*kept.students]:
        if id_ in here:
            continue
        if kept.stack(id_) in standing:
            kept.students[id_].left = True
            left.append(id_)
        else:
            del kept.students[id_]
            freed.append(id_)
    return left, freed


def _give(
    kept: register.Register,
    roster: Roster,
    made: template.Template,
    others: Iterable[IPv4Network],
) -> None:
    """Give every student who lacks one a subnet for each outer network.

    Raises:
        SpecError: the pool is too small, and for how many it would do.
    """
    networks = made.networks()
    for student in roster.students:
        given = kept.students.setdefault(student.id, register.Given())
        given.name, given.left = student.name, False
        given.until = student.until.isoformat() if student.until else ""
        given.budget = student.budget
        given.subnets = {
            name: subnet
            for name, subnet in given.subnets.items()
            if name in networks
            and IPv4Network(subnet).prefixlen == networks[name].prefixlen
            and f"networks.{name}.subnet" not in student.overrides
        } | _wished(student, networks)
    pool = Pool(roster.subnets, [*kept.taken(), *made.inner(), *networks.values(), *others])
    for number, student in enumerate(roster.students):
        given = kept.students[student.id]
        # Large ones first: small ones then fill what is left between them.
        for name in sorted(networks, key=lambda each: (networks[each].prefixlen, each)):
            # One that the roster says, and is none, is told with the lab.
            if name in given.subnets or f"networks.{name}.subnet" in student.overrides:
                continue
            try:
                given.subnets[name] = str(pool.give(networks[name].prefixlen))
            except Full as full:
                rule = f"{len(roster.students)} students need {len(networks)} each, and {full}"
                remedy = (
                    f"{counted(number, 'labs')} would fit: name a larger pool (subnets: in a YAML "
                    "roster), or smaller networks in the template"
                )
                raise SpecError(
                    [Problem("subnets", f"{roster.subnets} given", rule, remedy)]
                ) from None


def _wished(student: Student, networks: Mapping[str, IPv4Network]) -> dict[str, str]:
    """Return the subnets that the roster gives a student."""
    found = dict[str, str]()
    for name in networks:
        told = student.overrides.get(f"networks.{name}.subnet")
        try:
            found |= {name: str(IPv4Network(told))} if isinstance(told, str) else {}
        except ValueError:
            continue
    return found


def _labs(
    kept: register.Register,
    roster: Roster,
    made: template.Template,
    nodes: Mapping[str, str] | None = None,
) -> list[Lab]:
    """Return every student's lab.

    Raises:
        SpecError: what is wrong in any of them.
    """
    may = Allowed.read(paths.ROOT, os.environ)
    labs, problems = list[Lab](), list[Problem]()
    for student in roster.students:
        given = kept.students[student.id]
        name = kept.lab(student.id)
        try:
            data = made.for_student(student, name, given.subnets, (nodes or {}).get(student.id, ""))
        except SpecError as wrong:
            problems += wrong.problems
            continue
        spec, wrong_ = _examined(data, may)
        problems += (replace(each, path=f"{student.at}:{each.path}") for each in wrong_)
        if spec is not None and not wrong_:
            stack = kept.stack(student.id)
            labs.append(Lab(student, stack, name, made.text(data), spec, totals(spec)))
    if problems:
        raise SpecError(problems)
    return labs


def _examined(data: dict[str, Any], may: Allowed) -> tuple[LabSpec | None, list[Problem]]:
    return examine(data, root=paths.ROOT, exists=stack_check.there, allowed=may)


def _on_nodes(
    kept: register.Register,
    roster: Roster,
    made: template.Template,
    labs: list[Lab],
    has: bill.Have,
    left: Iterable[str],
) -> tuple[list[Lab], dict[str, str]]:
    """Return the labs on nodes of the cluster, and which: where they were, else by what is left."""
    wished = {
        lab.student.id: lab.spec.host.node
        for lab in labs
        if isinstance(lab.spec.host, ClusterSpec) and lab.spec.host.node
    }
    before = {id_: given.node for id_, given in kept.students.items() if given.node}
    # Who left still takes what there is of a node.
    sizes = {id_: Totals(**kept.students[id_].lab) for id_ in left if kept.students[id_].lab}
    sizes |= {lab.student.id: lab.size for lab in labs}
    placed = bill.spread(sizes.items(), has.nodes, before | wished)
    for id_, node in placed.items():
        kept.students[id_].node = node
    return _labs(kept, roster, made, placed), placed


def _needs(
    kept: register.Register, labs: Iterable[Lab], left: Iterable[str], standing: Collection[str]
) -> list[bill.Need]:
    found = [
        bill.Need(
            lab.student.id,
            lab.size,
            _addresses(kept.students[lab.student.id]),
            lab.stack in standing,
        )
        for lab in labs
    ]
    for id_ in left:
        given = kept.students[id_]
        if given.lab:
            found.append(bill.Need(id_, Totals(**given.lab), _addresses(given), stands=True))
    return found


def _addresses(given: register.Given) -> int:
    return sum(IPv4Network(each).num_addresses for each in given.subnets.values())


def _alike(labs: Iterable[Lab]) -> Iterator[Problem]:
    """Yield what two students would both have on the outer host, and only one can."""
    seen: dict[tuple[str, str], Lab] = {}
    ranges: list[tuple[int, int, Lab, IPv4Network]] = []
    for lab in labs:
        for what, value, remedy in _shared(lab):
            first = seen.setdefault((what, value), lab)
            if first is not lab:
                rule = f"{first.student.id} has it too, and the outer host has one of each"
                yield Problem(lab.student.at, f"the {what} {value} given", rule, remedy)
        subnets = [each.subnet for each in lab.spec.networks.values() if each.subnet]
        ranges += [(int(each[0]), int(each[-1]), lab, each) for each in subnets]
    ranges.sort(key=lambda each: each[:2])
    for one, two in pairwise(ranges):
        if two[0] <= one[1] and one[2] is not two[2]:
            rule = f"{one[2].student.id} has {one[3]}, and they overlap"
            yield Problem(two[2].student.at, f"the subnet {two[3]} given", rule, "give another")


def _shared(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """Yield what of a lab only one lab of an outer host can have: what, its value, what to do."""
    outer = plan(lab.spec).places[0]
    machines = {each.name: each for each in next(places(lab.spec)).machines()}
    for network in outer.networks.values():
        if network.subnet:
            yield "network", network.called, "give the student another id"
    for name, machine in outer.machines.items():
        spec = machines[name].spec
        yield "machine", machine.called, "give the student another id"
        for number, nic in enumerate(spec.nics):
            planned_ = machine.nics[number]
            if outer.networks[nic.network].subnet is not None:
                continue
            at = f"{machine.group}.{name}" + (
                "" if isinstance(spec.network, str) else f".network.{number}"
            )
            yield "MAC", planned_.mac, f"give each student one: a column {at}.mac"
            if planned_.address:
                yield "address", planned_.address, f"give each student one: a column {at}.address"
        console = getattr(spec, "console", None)
        for port in ("port", "websocket"):
            if (getattr(console, port, None) or 0) > 0:
                remedy = f"leave {port}: out of the template, or give a column {machine.group}.{name}.console.{port}"
                yield "port", str(getattr(console, port)), remedy
