"""vmrun and vmware-networks of Workstation Pro: what they are told, what they say, why they refuse.

With them the host's own `find` and `tail`, which tell of many files at once. Nothing is decided here.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from components.reach import driver
from components.reach.driver import COMMAND_S, DriverError, cause_in, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.reach.shell import Result, Shell

COPY_S = 1800.0
"""Converting or enlarging a disk under emulation, seconds."""
CLAIMS = "/etc/vmware/nestlab"
"""Links named like networks of labs, to the owner's UUID: made at once, so never half."""
NO_FILE = "No such file or directory"

CAUSES = {
    "incompatible hypervisor": 'vmx.allowNested = "TRUE" is missing in /etc/vmware/config there, '
    "without which Workstation starts nothing inside another hypervisor",
    **dict.fromkeys(
        ("VT-x is not", "AMD-V is not", "does not support Intel VT-x", "does not support AMD-V"),
        "the machine has no virtualization of its own: the host it stands on has to nest",
    ),
    **dict.fromkeys(
        ("/dev/vmmon", "/dev/vmnet", "Failed to start some/all services"),
        "Workstation's kernel modules are not loaded: `vmware-modconfig --console --install-all` there "
        "says why; they have to fit the kernel, and a new one may need a newer Workstation",
    ),
    **dict.fromkeys(
        ("already in use", "Failed to lock the file", "Insufficient permission"),
        "somebody has it open: close Workstation's window there",
    ),
    "Not enough physical memory": "its guests want more memory than the machine has: give it more in "
    "the stack, or them less",
    "No space left": "its disk is full: guests and media want more than disk_gib of the machine",
    "Unknown error": "Workstation keeps the reason to itself: vmware.log in the guest's folder has it",
}
"""What is behind a message of VMware's, and the way out."""

networks_lock = threading.RLock()
"""Networks stop and start together: one change at a time, and no guest may start meanwhile."""


def refused(shell: Shell, argv: Sequence[str], done: Result) -> DriverError:
    return refusal(shell, argv, done.said, cause_in(f"{done.out}\n{done.err}", CAUSES))


def must(shell: Shell, *argv: str, timeout_s: float = COMMAND_S) -> str:
    """Run a program that has to succeed, and return what it printed."""
    return driver.must(shell, argv, timeout_s=timeout_s, causes=CAUSES)


def failed(done: Result) -> bool:
    """Whether vmrun refused: it says so on standard output, and not every version by its exit code."""
    return not done.ok or done.out.startswith("Error:")


def run(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    argv = ["vmrun", "-T", "ws", *words]
    done = shell.run(argv, timeout_s=timeout_s)
    if failed(done):
        raise refused(shell, argv, done)
    return done.out


def read(shell: Shell, *paths: str) -> dict[str, str]:
    """Return the contents of those of ``paths`` that are there."""
    argv = ["tail", "-v", "-n", "+1", *paths]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok and NO_FILE not in done.err:
        raise refused(shell, argv, done)
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^(?===> .+ <==$)", done.out):
        head, _, content = part.partition(" <==\n")
        if head.startswith("==> "):
            found[head.removeprefix("==> ")] = content.removesuffix("\n")
    return found


def listed(shell: Shell, *folders: str) -> dict[str, str]:
    """Return what is in ``folders``, themselves included, each with what it is a link to."""
    argv = ["find", *folders, "-maxdepth", "1", "-printf", r"%p\t%l\n"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok and NO_FILE not in done.err:
        raise refused(shell, argv, done)
    lines = (line.partition("\t") for line in done.out.splitlines())
    return {path: to for path, tab, to in lines if tab}


def number(listed: Mapping[str, str], owner: str) -> str:
    """Return the owner's network, such as vmnet2; empty for none."""
    claims = {path: to for path, to in listed.items() if path.startswith(f"{CLAIMS}/")}
    return next((path.rpartition("/")[2] for path, to in claims.items() if to == owner), "")


def running(shell: Shell) -> set[str]:
    """Return what runs of Workstation's networks, in the words of ``vmware-networks --status``."""
    argv = ["vmware-networks", "--status"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    lines = {line.strip() for line in done.out.splitlines()}
    found = {line for line in lines if re.search(r" on vmnet\d+ is (running|enabled)$", line)}
    # Its exit code tells whether all of them run.
    if (
        not done.ok
        and not any(" on vmnet" in line for line in lines)
        and "services" not in done.out
    ):
        raise refused(shell, argv, done)
    return found
