"""The doctor's row about the machine's NICs, and what networks of the stack reach outside by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths
from toolchain.doctor import stack_needs
from toolchain.doctor.report import Check, State

if TYPE_CHECKING:
    from toolchain.doctor.stack_needs import Needs
    from toolchain.machine.system import System

NAME = "NICs"
TIMEOUT_S = 60


def nics(system: System, needs: Needs, namespace: str) -> Check:
    """Which NICs there are, who manages them, and whether the stack's uplinks can be made on them."""
    if needs.why:
        return Check(NAME, State.NA, f"not checked: {needs.why}")
    if not needs.uri.startswith("qemu:///"):
        return Check(NAME, State.NA, f"not checked: the stack's outer host is {needs.uri}")
    script = f"import sys; sys.path.insert(0, {str(paths.ROOT)!r})"
    run = f"{script}; from components.kinds.libvirt.uplink import report; report.main(sys.argv[1:])"
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    words = [*inside, str(stack_needs.PYTHON), "-B", "-c", run, json.dumps(needs.uplinks)]
    done = system.run(words, timeout_s=TIMEOUT_S)
    try:
        told = json.loads(done.out)
    except ValueError:
        return Check(NAME, State.NA, f"not checked: {done.last}")
    shown = ", ".join(_shown(**each) for each in told["nics"])
    where = f"in network namespace {namespace}: " if namespace else ""
    found = f"{where}{shown or 'none but what programs made'}"
    if told["problems"]:
        return Check(NAME, State.FAIL, found, " ".join(told["problems"]))
    if told["risks"]:
        return Check(NAME, State.WARN, found, " ".join(told["risks"]))
    return Check(NAME, State.OK, found)


def _shown(*, name: str, wireless: bool, manager: str) -> str:
    words = [*(["wireless"] if wireless else []), manager or "no manager"]
    return f"{name} ({', '.join(words)})"
