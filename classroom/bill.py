"""What a class takes, beside what its outer host has: told before anything is made.

This machine's memory, disk and cores are the doctor's figures. A cluster has what the stack declares of its
nodes: labs are put where most is left, and stay there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.stackfile.host import ClusterSpec
from components.stackfile.nodes import Totals
from components.stackfile.problems import Problem, counted
from toolchain.doctor import capacity
from toolchain.doctor.checks import CROWDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from components.stackfile.host import HostSpec

KEPT_MIB = 1024
"""Memory of this machine that is its own: its system, libvirt, and the engines at work."""


@dataclass(frozen=True)
class Need:
    """What one student's lab takes of the outer host."""

    student: str
    size: Totals
    addresses: int
    """Of its networks on the outer host, with those that nobody uses."""
    stands: bool = False
    """Whether the lab is there already: its disks are on the disk that is asked for room."""


@dataclass(frozen=True)
class Have:
    """What an outer host has; None: not known."""

    where: str
    memory_mib: int | None = None
    disk_gib: int | None = None
    cores: int | None = None
    nodes: Mapping[str, Totals] = field(default_factory=dict)
    """Of a cluster, as the stack declares them."""


def have(host: HostSpec) -> Have:
    """Return what the outer host of the template has."""
    if isinstance(host, ClusterSpec):
        nodes = {n: Totals(e.memory_mib, e.disk_gib, e.cores) for n, e in host.nodes.items()}
        return Have(
            host.where,
            sum(each.memory_mib for each in nodes.values()),
            sum(each.disk_gib for each in nodes.values()),
            sum(each.cores for each in nodes.values()),
            nodes,
        )
    if not host.is_here:
        return Have(host.where)
    _, free = capacity.disk_free_gib(Path(host.folders))
    return Have(
        "this machine",
        max(0, capacity.memory_mib() - KEPT_MIB),
        int(free),
        capacity.cores(),
    )


def spread(
    needs: Iterable[tuple[str, Totals]], nodes: Mapping[str, Totals], placed: Mapping[str, str]
) -> dict[str, str]:
    """Return the node of each lab: where it stands, else the one with most memory left, as a share.

    ``placed``: those that have one. A lab that fits on none is left out.
    """
    left = {name: [each.memory_mib, each.disk_gib] for name, each in nodes.items()}
    sizes = dict(needs)
    found = {each: node for each, node in placed.items() if each in sizes and node in nodes}
    for each, node in found.items():
        left[node][0] -= sizes[each].memory_mib
        left[node][1] -= sizes[each].disk_gib
    for each, size in sizes.items():
        if each in found:
            continue
        rooms = [
            name
            for name, (memory, disk) in left.items()
            if memory >= size.memory_mib
            and disk >= size.disk_gib
            and size.cores <= nodes[name].cores
        ]
        if not rooms:
            continue
        node = max(
            rooms, key=lambda name: (left[name][0] / nodes[name].memory_mib, left[name][0], name)
        )
        found[each] = node
        left[node][0] -= size.memory_mib
        left[node][1] -= size.disk_gib
    return found


@dataclass(frozen=True)
class Bill:
    """All needs, beside what there is."""

    needs: Sequence[Need]
    have: Have
    pool: int
    """Addresses of the class's pool of subnets."""
    placed: Mapping[str, str] = field(default_factory=dict)
    """Node by student, on a cluster."""

    @property
    def whole(self) -> Totals:
        """What all labs take together."""
        return Totals(
            sum(each.size.memory_mib for each in self.needs),
            sum(each.size.disk_gib for each in self.needs),
            sum(each.size.cores for each in self.needs),
        )

    @property
    def addresses(self) -> int:
        """Addresses of all labs' networks."""
        return sum(each.addresses for each in self.needs)

    def wrong(self) -> list[Problem]:
        """Return what there is too little of for one more lab, with how many labs would fit."""
        if self.have.nodes:
            return self._unplaced()
        new = [each for each in self.needs if not each.stands]
        if not new:
            return []
        found = []
        for what, unit, has, sizes in (
            ("memory", "MiB", self.have.memory_mib, [e.size.memory_mib for e in self.needs]),
            ("disk", "GiB", self.have.disk_gib, [e.size.disk_gib for e in new]),
        ):
            need = sum(sizes)
            if has is None or need <= has:
                continue
            fit = _fitting(sizes, has) + (len(self.needs) - len(sizes))
            rule = f"{self.have.where} has {has} {unit} for labs"
            given = f"{len(sizes)} labs of {need} {unit} altogether given"
            remedy = f"{counted(fit, 'labs')} would fit: shorten the roster, or make the template smaller"
            found.append(Problem(what, given, rule, remedy))
        return found

    def _unplaced(self) -> list[Problem]:
        without = [each.student for each in self.needs if each.student not in self.placed]
        if not without:
            return []
        nodes = "; ".join(
            f"{name} {each.memory_mib} MiB, {each.disk_gib} GiB"
            for name, each in self.have.nodes.items()
        )
        given = f"{len(self.needs)} labs of {self.whole.memory_mib} MiB, {self.whole.disk_gib} GiB given"
        remedy = f"{len(self.placed)} would fit: shorten the roster, or make the template smaller"
        return [Problem("nodes", given, f"the nodes declare {nodes}", remedy)]

    def warnings(self) -> list[str]:
        """Return what will be slow, though it works."""
        has, need = self.have.cores, self.whole.cores
        if self.have.nodes or has is None or need <= CROWDED * has:
            return []
        return [f"{need} virtual cores on {has} real ones: guests wait for one another"]

    def lines(self) -> list[str]:
        """Return the bill as a table."""
        table = [
            ["STUDENT", "MEMORY", "DISK", "CORES", "ADDRESSES", *(["NODE"] if self.placed else [])]
        ]
        for each in self.needs:
            table.append(_row(each.student, each.size, each.addresses))
            if self.placed:
                table[-1].append(self.placed.get(each.student, "none"))
        table.append(_row("altogether", self.whole, self.addresses))
        has = self.have
        table.append(
            [
                f"on {has.where}",
                _known(has.memory_mib, "MiB"),
                _known(has.disk_gib, "GiB"),
                _known(has.cores, ""),
                str(self.pool),
            ]
        )
        widths = [max(len(row[n]) for row in table if n < len(row)) for n in range(len(table[0]))]
        return [
            "  ".join(
                cell.rjust(widths[n])
                if 0 < n < len(table[0]) - bool(self.placed)
                else cell.ljust(widths[n])
                for n, cell in enumerate(row)
            ).rstrip()
            for row in table
        ]


def _row(name: str, size: Totals, addresses: int) -> list[str]:
    return [name, f"{size.memory_mib} MiB", f"{size.disk_gib} GiB", str(size.cores), str(addresses)]


def _known(amount: int | None, unit: str) -> str:
    return "not known" if amount is None else f"{amount} {unit}".strip()


def _fitting(sizes: Sequence[int], has: int) -> int:
    count = 0
    for size in sizes:
        has -= size
        if has < 0:
            break
        count += 1
    return count
