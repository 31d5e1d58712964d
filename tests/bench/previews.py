"""`python3 -m tests.bench.previews N ...`: classes of N students, planned and previewed by the real engine.

Their outer host is a stand-in for a Proxmox VE cluster: of nobody anything is made, and the template has
a network and the shipped stack's two guests; its nested host is left out, whose installer nobody ships. Printed are seconds in all and for each student, and the most memory that all
processes had at one moment, each as its proportional share (PSS), so that what they share counts once. A class
grows into the next larger one: each student is previewed once, in the smallest class that has them, and the seconds
of a class are those of all its students. With each preview goes `pulumi stack init`, once for each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.bench.processes import Shares
from tests.support import allowed, images
from tests.support.checkout import Checkout
from tests.support.pve import Pve
from toolchain.bootstrap import paths
from toolchain.doctor import capacity

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = (25, 50)
"""What `make bench` previews; with 100 and 200 more it takes half an hour on two cores."""
PASSWORD = "nestlab:hostPassword"
TEMPLATE = "proxmox-cluster"
ENOUGH = {"memory_mib": 4 << 20, "disk_gib": 1 << 16, "cores": 255}
"""Of each of the cluster's nodes: a class of two hundred fits."""
LONG_S = 3600.0


class Failed(Exception):
    """A command did not do what is measured; the message is what it said."""


@dataclass(frozen=True)
class Taken:
    """What a class took."""

    students: int
    plan_s: float
    plan_mib: int
    previews_s: float
    """Of all its students: those of the class before, and the new ones."""
    one_s: float
    """Median of the new students' previews, by the clock, while others are at work."""
    cpu_s: float
    """Processor time for each of the new students, which other work on the machine does not lengthen."""
    mib: int
    most: str
    """What had most of that memory, in words."""

    def line(self) -> str:
        return (
            f"{self.students:>8} {self.plan_s:>7.1f} s {self.plan_mib:>5} MiB {self.previews_s:>10.1f} s"
            f" {self.previews_s / self.students:>7.2f} s {self.one_s:>7.2f} s {self.cpu_s:>7.2f} s {self.mib:>7} MiB  ({self.most})"
        )


HEAD = "students      plan    memory     previews      each   median       CPU      memory"


def measured(checkout: Checkout, pve: Pve, sizes: Sequence[int], at_once: int) -> list[Taken]:
    """Plan and preview a class of each of ``sizes``, ``at_once`` students at a time; tell each as it ends.

    Raises:
        Failed: a command failed.
    """
    _template(checkout, pve)
    found = list[Taken]()
    roster = checkout.root / "c.csv"
    before, previews_s = 0, 0.0
    print(HEAD, flush=True)
    for count in sorted(set(sizes)):
        roster.write_text("id\n" + "".join(f"s{number}\n" for number in range(count)))
        plan = ("./nestlab", "class", "plan", str(roster), "-s", TEMPLATE, "--anyway")
        began = time.monotonic()
        with Shares() as planned:
            _run(checkout, *plan)
        plan_s = time.monotonic() - began
        new = [f"c.s{number}" for number in range(before, count)]
        began, cpu = time.monotonic(), _cpu_s()
        with Shares() as shares, ThreadPoolExecutor(at_once) as crew:
            each = list(crew.map(partial(_preview, checkout), new))
        previews_s += time.monotonic() - began
        cpu_s = (_cpu_s() - cpu) / len(new)
        before = count
        one = statistics.median(each)
        took = (plan_s, planned.mib, previews_s, one, cpu_s, shares.mib, shares.most())
        found.append(Taken(count, *took))
        print(found[-1].line(), flush=True)
    return found


def _cpu_s() -> float:
    """Return the processor time of all that was started here and has ended, seconds."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _template(checkout: Checkout, pve: Pve) -> None:
    """Have the template lead to the stand-in, with its password as a user gives it."""
    file = checkout.root / "stacks" / f"Pulumi.{TEMPLATE}.yaml"
    told = yaml.safe_load(file.read_text())
    lab = told["config"]["nestlab:lab"]
    del lab["hypervisors"], lab["media"]["proxmox"]
    host = lab["host"]
    host["endpoint"] = pve.url
    host["nodes"] = dict.fromkeys(pve.nodes, ENOUGH)
    for medium in lab["media"].values():
        # A plan looks what it is, and a preview asks no more of it.
        at = checkout.root / medium["path"]
        if not at.exists():
            at.parent.mkdir(exist_ok=True)
            at.write_bytes(images.iso() if at.suffix == ".iso" else images.qcow2())
    file.write_text(yaml.safe_dump(told, sort_keys=False))
    _run(checkout, "make", "-s", "toolchain", f"STACK={TEMPLATE}")
    _pulumi(checkout, "stack", "init", TEMPLATE)
    _pulumi(checkout, "config", "set", "--secret", PASSWORD, pve.password, "--stack", TEMPLATE)


def _preview(checkout: Checkout, stack: str) -> float:
    """Make the stack of a student and preview it; return the seconds of the preview."""
    _pulumi(checkout, "stack", "init", stack)
    began = time.monotonic()
    said = _pulumi(checkout, "preview", "--suppress-progress", "--stack", stack)
    if "to create" not in said:
        raise Failed(f"nothing is planned for {stack}: {said[-600:]}")
    return time.monotonic() - began


def _pulumi(checkout: Checkout, *words: str) -> str:
    done = checkout.pulumi(*words)
    if done.code:
        raise Failed(f"pulumi {' '.join(words)}: {done.said[-1200:]}")
    return done.said


def _run(checkout: Checkout, *words: str) -> str:
    done = checkout.run(*words, timeout_s=LONG_S)
    if done.code:
        raise Failed(f"{' '.join(words)}: {done.said[-1200:]}")
    return done.said


def classes(sizes: Sequence[int], at_once: int | None = None) -> list[Taken]:
    """Measure classes of ``sizes``, in a checkout and with a stand-in of their own; leave nothing.

    ``at_once``: students at a time; None: one for each core.

    Raises:
        Failed: a command failed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        own = {"NESTLAB_CACHE": str(paths.cache()), "NESTLAB_ALLOW": str(allowed.write(scratch))}
        checkout = Checkout.make(scratch / "checkout", own)
        with Pve("pve1", "pve2") as pve:
            return measured(checkout, pve, sizes, at_once or capacity.cores())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.previews", description=__doc__)
    parser.add_argument("students", type=int, nargs="*", default=CLASSES)
    parser.add_argument("-n", "--at-once", type=int)
    given = parser.parse_args()
    classes(given.students, given.at_once)
    return 0


if __name__ == "__main__":
    sys.exit(main())
