"""Say whether this machine can run nested labs, and what to mend (``python3 -m toolchain doctor``).

It tries rather than reads: it boots a guest, creates a domain, opens the device as libvirt's user.
The table goes to standard output, the verdict also into ``.nestlab/host.json``. It changes nothing
else; what mends a finding is shown as a command, not done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bootstrap import ui
from toolchain.doctor import checks, kvm, nics, report, stack_needs, trial
from toolchain.doctor import verdict as verdicts
from toolchain.doctor.report import Check, State
from toolchain.doctor.verdict import Verdict, ensure, verdict
from toolchain.engine import state
from toolchain.machine import daemons
from toolchain.machine.system import System

if TYPE_CHECKING:
    from types import FrameType

    from toolchain.doctor.kvm import Access

__all__ = ["Verdict", "ensure", "main", "verdict"]

DISKS = Path("/var/lib/libvirt/images")
"""Where disks go when no stack says otherwise."""


@dataclass(frozen=True)
class Findings:
    """The whole table, and what follows from it."""

    checks: tuple[Check, ...]
    verdict: Verdict | None
    """None: there is none, because QEMU runs no guest or libvirt lets nobody in."""


def examine(system: System, *, stack: str, quick: bool, running: ui.Step) -> Findings:
    """Look at everything; ``running`` is told what is being tried."""
    rows = [checks.processor(), checks.nested(system)]
    known = _remembered(system) if quick else None
    if known:
        device = daemons.kvm_state()
        access = kvm.access(system, kvm.qemu_user()) if device else None
        rows += [checks.device(system, device, access), checks.remembered_guest(known)]
    else:
        running.note("boot a guest on KVM, and emulated")
        found = verdicts.gather(system)
        access = found.access
        rows.append(checks.device(system, found.device, access))
        rows += [checks.kvm_guest(found), checks.emulated_guest(found)]
        try:
            known = verdicts.judge(system, found)
        except ui.Problem:  # the rows of emulation and libvirt say it
            verdicts.forget()
    rows += [checks.programs(system), checks.qemu(system), checks.libvirt(system)]
    if not quick:
        rows += _trials(system, known, access, running, answers=rows[-1].state is State.OK)
    running.note(f"read stack {stack}")
    needs = stack_needs.ask(system, stack)
    namespace = known.namespace if known else ""
    rows += [
        checks.stack_file(stack, needs),
        checks.memory(stack, needs),
        checks.disk(stack, needs, Path(needs.pool_path) if needs.pool_path else DISKS),
        checks.cores(stack, needs),
        checks.address_ranges(system, needs, namespace),
        nics.nics(system, needs, namespace),
        checks.engine(),
    ]
    return Findings(tuple(rows), known)


def _remembered(system: System) -> Verdict | None:
    try:
        return verdicts.remembered(system)
    except ui.Problem:  # the row of libvirt says it
        return None


def _trials(
    system: System, known: Verdict | None, access: Access | None, running: ui.Step, *, answers: bool
) -> list[Check]:
    running.note("watch process 1 collect orphans")
    reaping = trial.reaping(system)
    if not answers or known is None:
        missing = "libvirt does not answer" if not answers else "QEMU runs no guest"
        return [
            Check("domain", State.NA, f"not tried: {missing}"),
            checks.process_one(reaping),
        ]
    kind = "kvm" if known.accelerator == "kvm" else "qemu"
    running.note(f"create and destroy domain {trial.name()}")
    trip = trial.round_trip(system, kind)
    return [
        checks.domain(system, kind, trip, reaping, access),
        checks.process_one(reaping),
    ]


def show(findings: Findings) -> str:
    """The table and, below it, the verdict in words."""
    colour = (
        sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    )
    width = shutil.get_terminal_size((report.WIDTH, 24)).columns if sys.stdout.isatty() else 0
    text = report.table(findings.checks, width=width or report.WIDTH, colour=colour)
    failed = [check.name for check in findings.checks if check.state is State.FAIL]
    last = f"Labs can't run here until this is mended: {', '.join(failed)}." if failed else ""
    if findings.verdict:
        sentence = verdicts.sentence(findings.verdict)
        last = f"{sentence[0].upper()}{sentence[1:]}.\n{last}".rstrip()
    return f"{text}\n\n{report.paragraph(last)}"


def told(findings: Findings) -> str:
    """The same as JSON: each check's name, state, what was found and what to do, and the verdict."""
    verdict = asdict(findings.verdict) if findings.verdict else None
    checks = [asdict(check) for check in findings.checks]
    return json.dumps({"checks": checks, "verdict": verdict}, indent=2)


def main(argv: list[str]) -> int:
    """Print the table; 1 when something makes labs impossible here, 0 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python3 -m toolchain doctor",
        description="Say whether this machine can run nested labs, and what to mend.",
    )
    parser.add_argument(
        "-s", "--stack", default="local", help="whose sizes to check (default: local)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="start no guest where the last verdict still holds"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(argv)
    state.named(options.stack)
    # Ended politely, it still destroys its trial domain: SystemExit passes through `finally`.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with ui.step("check this machine") as running:
            findings = examine(System(), stack=options.stack, quick=options.quick, running=running)
    finally:
        signal.signal(signal.SIGTERM, before)
    if findings.verdict:
        verdicts.keep(findings.verdict)
    print(told(findings) if options.json else show(findings))
    return report.exit_status(findings.checks)


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)
