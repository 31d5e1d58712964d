"""From a lab's stack file to a student's: another name, subnets and node, and what the roster overrides.

What comes out is a stack file like one written by hand, so that every command takes it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import yaml
from typing_extensions import override

from components.stackfile.bounds import exceeded
from components.stackfile.networks import CLOSABLE
from components.stackfile.problems import Problem, SpecError, choose, listed
from components.stackfile.registry import DEFAULT, HOSTS
from toolchain import stack_check
from toolchain.bootstrap import cache, ui
from toolchain.engine import stack_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classroom.roster import Student

HEAD = "# Made by `nestlab class`, which writes it anew and removes it: change the template or the roster.\n"
GROUPS = ("hypervisors", "guests")
"""What has NICs on the outer host."""
NAMED = frozenset({*GROUPS, "networks", "containers", "media", "templates"})
"""What holds entries by name."""
OURS = re.compile(r"name|networks\.[^.]+\.(mode|bridge|uplink(\..+)?)")
"""Paths that no override may have: a lab's name is the class's matter, its kinds of networks the template's."""


class _Writer(yaml.SafeDumper):
    """Writes texts so that the engine's reader takes them for texts, as PyYAML's does."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_pattern, _first) in stack_check.PLAIN.items():
    _Writer.add_implicit_resolver(
        f"{stack_check.TAG}{_name}", re.compile(f"(?:{_pattern})$"), _first
    )


@dataclass(frozen=True)
class Template:
    """A lab's stack file, of which students get copies."""

    stack: str
    told: Mapping[str, Any]
    """All of the file: secrets and their salt go to each student as they are."""

    @classmethod
    def read(cls, stack: str) -> Template:
        """Return the stack file of ``stack``, which is checked as a whole.

        Raises:
            Problem: there is none, it is refused, or its lab holds secrets.
        """
        file = stack_file.of(stack)
        try:
            content = stack_file.content(file)
        except FileNotFoundError:
            known = [each for each in stack_file.stacks() if not is_ours(each)]
            raise ui.Problem(
                f"there is no stacks/{file.name} to be the template; stacks are {listed(known)}: {choose(stack, known)}"
            ) from None
        told = stack_check.document(content, f"stacks/{file.name}")
        lab = stack_check.read(content, f"stacks/{file.name}").get(stack_check.LAB)
        if exceeded(lab) or stack_check.has_secrets(lab):
            # What is too much is refused below; secrets can't be given to others unread.
            stack_check.checked(stack)
            raise ui.Problem(
                f"the lab of {stack} holds secrets, which only the engine reads: a class can't be made of it."
            )
        stack_check.checked(stack)
        return cls(stack, told)

    @property
    def lab(self) -> Mapping[str, Any]:
        """What the file says of its lab."""
        found: Mapping[str, Any] = self.told["config"][stack_check.LAB]
        return found

    def networks(self, lab: Mapping[str, Any] | None = None) -> dict[str, IPv4Network]:
        """Return the outer host's networks that have a subnet of their own, by name."""
        given = (self.lab if lab is None else lab).get("networks") or {}
        return {
            name: IPv4Network(each["subnet"])
            for name, each in given.items()
            if isinstance(each, Mapping) and each.get("subnet")
        }

    def inner(self) -> Iterator[IPv4Network]:
        """Yield the subnets of networks inside nested hypervisors: no outer one may overlap them."""
        waiting = list((self.lab.get("hypervisors") or {}).values())
        while waiting:
            place = waiting.pop()
            yield from self.networks(place).values()
            waiting += (place.get("hypervisors") or {}).values()

    def for_student(
        self, student: Student, name: str, subnets: Mapping[str, str], node: str
    ) -> dict[str, Any]:
        """Return a student's lab, called ``name``, on ``subnets`` by network, on ``node`` of a cluster.

        Raises:
            SpecError: an override names what is none, or what is not a student's.
        """
        lab = copy.deepcopy(dict(self.lab))
        lab["name"] = name
        old = self.networks()
        problems: list[Problem] = []
        for path, value in student.overrides.items():
            if wrong := _put(lab, path, value):
                problems.append(Problem(f"{student.at}:{path}", *wrong))
        if problems:
            raise SpecError(problems)
        for network, subnet in subnets.items():
            lab["networks"][network]["subnet"] = subnet
        _close(lab)
        for machine, nic, network in _nics(lab):
            del machine
            if network in subnets and network in old and isinstance(nic.get("address"), str):
                nic["address"] = _moved(nic["address"], old[network], IPv4Network(subnets[network]))
        if node:
            lab["host"]["node"] = node
        return lab

    def text(self, lab: Mapping[str, Any]) -> str:
        """Return the stack file that has ``lab`` in the template's place."""
        told = copy.deepcopy(dict(self.told))
        told["config"][stack_check.LAB] = lab
        return HEAD + yaml.dump(told, Dumper=_Writer, sort_keys=False, allow_unicode=True)


def is_ours(stack: str) -> bool:
    """Whether the file of ``stack`` was made for a student."""
    return stack_file.words(stack_file.of(stack)).startswith(HEAD)


def write(stack: str, text: str) -> None:
    """Write a student's stack file.

    Raises:
        Problem: somebody's own is there.
    """
    file = stack_file.of(stack)
    if file.is_symlink() or (file.exists() and not is_ours(stack)):
        raise ui.Problem(
            f"stacks/{file.name} is there, and `nestlab class` did not make it: rename it, or the class."
        )
    cache.write(file, text, 0o600)


def remove(stack: str) -> None:
    """Remove a student's stack file, and nobody else's."""
    if is_ours(stack):
        stack_file.of(stack).unlink(missing_ok=True)


def _close(lab: dict[str, Any]) -> None:
    """Close the outer host's networks to it where they can be, unless the template says otherwise."""
    # What an override has made of it is told of the lab as a whole, whatever it is.
    host = HOSTS.get(str(_fields(lab.get("host")).get("kind") or DEFAULT))
    for each in map(_fields, _fields(lab.get("networks")).values()):
        if host and host.offers.closes and each.get("mode", "nat") in CLOSABLE:
            each.setdefault("closed", True)


def _fields(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


Wrong = tuple[str, str]
"""A rule, and what to do."""


def _put(lab: dict[str, Any], path: str, value: Any) -> tuple[str, str, str] | None:
    """Put ``value`` into ``lab``; return what is wrong with its path, why, and what to do."""
    given = f"{path!r} given"
    if OURS.fullmatch(path):
        rule = "it is the same for the whole class, or made from the student's id"
        return given, rule, "remove it"
    *way, last = path.split(".")
    at: Any = lab
    for number, each in enumerate(way):
        if wrong := _way_on(at, way[:number], each):
            return given, *wrong
        at = at[int(each)] if isinstance(at, list) else at.setdefault(each, {})
    # An entry more of a mapping is a setting, or a machine of the student's own.
    if wrong := _way_on(at, way, last, is_last=True):
        return given, *wrong
    # Whoever reads the lab afterwards counts on the template's networks and machines.
    key: Any = int(last) if isinstance(at, list) else last
    held = at[key] if isinstance(at, list) or key in at else None
    is_named = last in NAMED or (way and way[-1] in NAMED)
    if isinstance(held, dict) and held and (is_named or not isinstance(value, dict)):
        return given, f"the template has {listed(held)} there", "name one of these"
    at[key] = value
    return None


def _way_on(at: Any, way: Sequence[str], each: str, *, is_last: bool = False) -> Wrong | None:
    """Return why the path ``way`` can't go on with ``each``, from the value ``at`` that it leads to."""
    if isinstance(at, list):
        if each.isascii() and each.isdigit() and int(each) < len(at):
            return None
        return f"that list has {len(at)} entries, counted from 0", "name one of them"
    if not isinstance(at, dict):
        return f"in the template {'.'.join(way)} holds one value", "name that one"
    if each in at or is_last:
        return None
    # Machines and networks are the template's; their settings may be new.
    named = way[-1] in NAMED if way else each not in {"host", "boot"}
    return (f"the template has {listed(at)} there", choose(each, list(at))) if named else None


def _nics(lab: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the name of each machine on the outer host, what holds its NIC's address, and the network."""
    for group in GROUPS:
        for name, machine in _fields(lab.get(group)).items():
            network = machine.get("network") if isinstance(machine, dict) else None
            if isinstance(network, str):
                yield name, machine, network
            for nic in network if isinstance(network, list) else ():
                if isinstance(nic, dict):
                    yield name, nic, str(nic.get("network"))


def _moved(address: str, old: IPv4Network, new: IPv4Network) -> str:
    """Return the address that has the same place in ``new`` as ``address`` in ``old``."""
    try:
        at = int(IPv4Address(address)) - int(old[0])
    except ValueError:
        return address
    return str(new[at]) if 0 <= at < min(old.num_addresses, new.num_addresses) else address
