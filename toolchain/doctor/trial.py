"""Trials on the real libvirt: how long a domain takes, whether a guest on KVM comes up.

Each domain is transient, holds 32 MiB, has no network, and is named ``nestlab-doctor-PID``. It
vanishes however the doctor ends: libvirt destroys it with the connection that made it, or it is
destroyed on the way out, or, after a kill -9, by the next doctor's `sweep`.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.doctor import bootproof
from toolchain.doctor.bootproof import Proof
from toolchain.machine import daemons, processes

if TYPE_CHECKING:
    from toolchain.machine.system import Result, System

PREFIX = "nestlab-doctor-"
DEADLINE_S = 120.0
"""A create that probes QEMU again and again was measured at 56 s, its destroy at 20 s."""
POLL_S = 0.2
DISK = "boot.img"
SAID = "serial.log"

SLOW_REAPING_S = 0.5
ORPHANS = 6
"""Orphans end 0.1 s apart: a reaper that looks every second is met at its worst."""
REAPING_DEADLINE_S = 8.0

VIRSH = ("virsh", "-q", "-c", daemons.URI)


@dataclass(frozen=True)
class Trip:
    """A domain's life: seconds to create and to destroy it; ``why`` tells when that failed."""

    create_s: float = 0.0
    destroy_s: float = 0.0
    why: str = ""


def name() -> str:
    """Name of this process's trial domain."""
    return f"{PREFIX}{os.getpid()}"


def sweep(system: System) -> None:
    """Destroy trial domains whose doctor is gone."""
    for found in system.run([*VIRSH, "list", "--name"]).out.split("\n"):
        pid = found.removeprefix(PREFIX)
        if found.startswith(PREFIX) and pid.isdigit() and not _works(int(pid)):
            system.run([*VIRSH, "destroy", found], timeout_s=60)


def _works(pid: int) -> bool:
    return processes.identify(pid) is not None or processes.hidden(pid)


def domain(kind: str, folder: Path | None = None) -> str:
    """XML of the trial domain; ``kind`` is libvirt's: ``kvm`` or ``qemu``.

    With a ``folder`` it boots the proof's disk there and writes what it says beside it.
    """
    cpu = "<cpu mode='host-passthrough'/>" if kind == "kvm" else "<cpu mode='maximum'/>"
    # The disk is everybody's to read; libvirt must not hand it over to root afterwards.
    devices = (
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
        f"<source file='{folder / DISK}'><seclabel model='dac' relabel='no'/></source>"
        "<target dev='hda' bus='ide'/></disk>"
        f"<serial type='file'><source path='{folder / SAID}' append='on'/></serial>"
        if folder
        else ""
    )
    return (
        f"<domain type='{kind}'><name>{name()}</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>"
        f"<features><acpi/></features>{cpu}"
        "<on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot>"
        f"<on_crash>destroy</on_crash><devices>{devices}</devices></domain>"
    )


def round_trip(system: System, kind: str) -> Trip:
    """Create and destroy a domain that boots nothing, and take the time."""
    sweep(system)
    # One connection: should it break, libvirt destroys what it made (--autodestroy).
    commands = f"create --autodestroy /dev/stdin; destroy {name()}"
    done = system.run([*VIRSH, "-t", commands], stdin=domain(kind), timeout_s=DEADLINE_S)
    took = [float(ms) / 1000 for ms in re.findall(r"\(Time: ([\d.]+) ms\)", done.out)]
    if not done.ok or len(took) != 2:  # noqa: PLR2004 - two commands
        return Trip(why=_errors(done) or done.last)
    return Trip(create_s=took[0], destroy_s=took[1])


def prove(system: System, *, kind: str = "kvm", deadline_s: float = bootproof.DEADLINE_S) -> Proof:
    """Boot the proof's guest through libvirt, for users who may not open /dev/kvm themselves."""
    sweep(system)
    began = time.monotonic()
    # Not the user's own folder for temporary files: libvirt's QEMU must get there too.
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for path, content in ((folder / DISK, bootproof.image()), (folder / SAID, b"")):
            path.write_bytes(content)
            path.chmod(0o666)  # QEMU's user is another one, and opens both for writing
        try:
            why = _boot(system, kind, folder / SAID, deadline_s)
        finally:
            system.run([*VIRSH, "destroy", name()], timeout_s=60)
        said = "" if why else (folder / SAID).read_text(errors="replace")
    accelerator = "kvm" if kind == "kvm" else "tcg"
    return Proof(accelerator, not why, time.monotonic() - began, why, bootproof.nesting(said))


def _boot(system: System, kind: str, log: Path, deadline_s: float) -> str:
    """Why the guest did not come up; empty when it did."""
    made = system.run(
        [*VIRSH, "create", "/dev/stdin"], stdin=domain(kind, log.parent), timeout_s=DEADLINE_S
    )
    if not made.ok:
        return f"was refused by libvirt: {_errors(made) or made.last}"
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        # Asked first, read second: a guest that is gone has written all it had to say.
        runs = system.run([*VIRSH, "domstate", name()]).ok
        try:
            said = log.read_text(errors="replace")
        except PermissionError:
            return f"was not seen: libvirt keeps {log.name} from this user"
        if bootproof.FINISHED in said:
            return ""
        if not runs:
            return "did not come up, its QEMU ended too soon"
        time.sleep(POLL_S)
    return bootproof.late(said, deadline_s)


def _errors(done: Result) -> str:
    said = [line for line in done.err.splitlines() if line.startswith("error: ")]
    # virsh first says what failed, then why; later lines are of commands that had nothing to do.
    why = said[1 if len(said) > 1 else 0].removeprefix("error: ") if said else ""
    return re.sub(rf"\S+Z {bootproof.QEMU}: (error: )?", "", why)


@dataclass(frozen=True)
class Reaping:
    """Seconds until the slowest of a few dead orphans was gone, and who had to collect it."""

    seconds: float
    reaper: str


def reaping(system: System) -> Reaping:
    """Measure how soon process 1 (or a nearer subreaper) collects dead orphans.

    libvirt waits for each QEMU it ends and for each helper it starts to be gone from /proc.
    """
    # The shell ends at once: its children are orphans, adopted by whoever reaps here.
    one = "sleep 0.$i </dev/null >/dev/null 2>&1 & echo $!"
    steps = " ".join(str(number) for number in range(2, ORPHANS + 2))
    begun = system.run(["sh", "-c", f"for i in {steps}; do {one}; done"])
    waiting = {int(pid) for pid in begun.out.split()}
    reaper = next((processes.parent(pid) for pid in waiting), 1) or 1
    dead: dict[int, float] = {}
    slowest = 0.0
    end = time.monotonic() + REAPING_DEADLINE_S
    while waiting and time.monotonic() < end:
        now = time.monotonic()
        for pid in sorted(waiting):
            state = _state(pid)
            if not state:
                waiting.discard(pid)
                slowest = max(slowest, now - dead.get(pid, now))
            elif state in "ZX":
                dead.setdefault(pid, now)
        time.sleep(0.01)
    for pid in waiting:  # never collected: as slow as can be told
        slowest = max(slowest, end - dead.get(pid, end))
    return Reaping(slowest, f"process {reaper} ({processes.name(reaper) or 'unknown'})")


def _state(pid: int) -> str:
    try:
        text = (processes.PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text[text.rindex(")") + 2]
