"""The verdict on this machine: do guests run on KVM or emulated, and why.

Decided once by booting a guest, kept in ``.nestlab/host.json``, and taken from there until the
machine was booted anew or /dev/kvm or QEMU changed: a probe takes up to ten seconds, a look 1 ms.
The stack loader reads that file; no component ever guesses.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, paths, regular, ui
from toolchain.doctor import bootproof, capacity, kvm, trial
from toolchain.machine import daemons, processes

if TYPE_CHECKING:
    from toolchain.doctor.bootproof import Proof
    from toolchain.doctor.kvm import Access
    from toolchain.machine.system import System

VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """What the stack loader needs to know of this machine; the shape of ``host.json``."""

    version: int
    accelerator: str
    """``kvm`` or ``tcg`` (QEMU's emulation)."""
    why: str
    """The reason, one sentence without its full stop."""
    cores: int
    memory_mib: int
    """Memory of the whole machine, or of the container it is."""
    namespace: str
    """Network namespace in which guests are reached; empty: the machine's own."""
    kvm_nested: bool
    """Whether guests on KVM can run KVM guests of their own."""
    boot_id: str
    checked: str
    """When a guest was booted to find out, ISO 8601 with time zone."""
    seen: dict[str, str]
    """State of what the verdict hangs on; when it differs, the verdict is void."""


@dataclass(frozen=True)
class Evidence:
    """What was tried, for the verdict and for the doctor's table."""

    device: str
    """Owner and mode of /dev/kvm; empty: no such device."""
    access: Access | None
    kvm: Proof | None
    """None: not tried, because there was nothing to try it on."""
    control: Proof | None
    """The same guest emulated; None: not tried, because KVM ran it."""


def gather(system: System) -> Evidence:
    """Try everything: seconds, and up to `bootproof.DEADLINE_S` more where KVM hangs."""
    device = daemons.kvm_state()
    access = kvm.access(system, kvm.qemu_user()) if device else None
    proof = None
    if access and access.opens:
        # Not everybody whom libvirt serves may open the device: then libvirt's QEMU tries it.
        mine = os.access(daemons.KVM, os.R_OK | os.W_OK)
        proof = bootproof.prove(system, "kvm") if mine else trial.prove(system)
    control = None
    if proof is None or not proof.booted:
        control = bootproof.prove(system, "tcg", deadline_s=bootproof.CONTROL_DEADLINE_S)
    return Evidence(device, access, proof, control)


def decide(found: Evidence) -> tuple[str, str, bool]:
    """Accelerator, reason, and whether guests on KVM can nest.

    Raises:
        Problem: not even emulation runs a guest.

    """
    if found.kvm and found.kvm.booted:
        if found.kvm.nesting:
            return "kvm", f"a BIOS guest runs on KVM and sees {found.kvm.nesting}", True
        return "kvm", "a BIOS guest runs on KVM, but sees neither vmx nor svm", False
    if found.control and not found.control.booted:
        raise ui.Problem(
            f"QEMU runs no guest here: the emulated one {found.control.why}. Labs need "
            f"{bootproof.QEMU}: see `python3 -m toolchain doctor`."
        )
    if not found.device:
        return "tcg", f"there is no {daemons.KVM}", False
    if found.kvm is None:
        who = found.access.who if found.access else "libvirt's QEMU"
        return "tcg", f"{daemons.KVM} is there ({found.device}), but {who} can't open it", False
    return "tcg", f"{daemons.KVM} is there, but a BIOS guest on it {found.kvm.why}", False


def state(system: System) -> dict[str, str]:
    """What a verdict hangs on, cheap to look at; the boot's id comes on top."""
    qemu = system.which(bootproof.QEMU) or ""
    return {
        "kvm": f"{daemons.kvm_state()} {_changed(daemons.KVM)}".strip(),
        "qemu": f"{qemu} {_changed(Path(qemu))}" if qemu else "",
        "qemu.conf": _changed(kvm.QEMU_CONF),
    }


def _changed(path: Path) -> str:
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:
        return ""


def remembered(system: System) -> Verdict | None:
    """The verdict in ``host.json``, when it still holds; what changes freely is looked at anew."""
    try:
        told = Verdict(**json.loads(regular.text(paths.HOST_JSON)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    known = (told.version, told.boot_id, told.seen)
    if known != (VERSION, processes.boot_id(), state(system)):
        return None
    return replace(
        told,
        cores=capacity.cores(),
        memory_mib=capacity.memory_mib(),
        namespace=_namespace(),
    )


def judge(system: System, found: Evidence) -> Verdict:
    """The verdict that follows from ``found``, with this machine's size.

    Raises:
        Problem: not even emulation runs a guest.

    """
    accelerator, why, nests = decide(found)
    return Verdict(
        version=VERSION,
        accelerator=accelerator,
        why=why,
        cores=capacity.cores(),
        memory_mib=capacity.memory_mib(),
        namespace=_namespace(),
        kvm_nested=nests,
        boot_id=processes.boot_id(),
        checked=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        seen=state(system),
    )


def _namespace() -> str:
    pid = daemons.libvirt_pid()
    return daemons.where(pid) if pid is not None else ""


def keep(verdict: Verdict) -> None:
    """Write ``verdict`` to ``host.json`` in one step, unless it says so already."""
    cache.write(paths.HOST_JSON, json.dumps(asdict(verdict), indent=2) + "\n")


def forget() -> None:
    """Remove ``host.json``: nobody may rely on a verdict that was just refuted."""
    paths.HOST_JSON.unlink(missing_ok=True)


def verdict(system: System) -> Verdict:
    """The verdict on this machine: the remembered one while it holds, else from a new probe.

    Raises:
        Problem: not even emulation runs a guest, or libvirt lets this user not in.

    """
    return remembered(system) or judge(system, gather(system))


def ensure(system: System) -> Verdict:
    """See to it that ``host.json`` holds today's verdict and return it; a line if it took a probe.

    Raises:
        Problem: not even emulation runs a guest, or libvirt lets this user not in.

    """
    known = remembered(system)
    if known is None:
        detail = f"up to {bootproof.DEADLINE_S:g} s, once for each boot of this machine"
        with ui.step("boot a guest to see whether KVM works", detail):
            try:
                known = judge(system, gather(system))
            except ui.Problem:
                forget()
                raise
        ui.say(sentence(known))
    keep(known)
    return known


def sentence(verdict: Verdict) -> str:
    """The verdict for people, one line."""
    how = {"kvm": "guests run on KVM", "tcg": "guests are emulated (TCG)"}[verdict.accelerator]
    return f"{how}: {verdict.why}"
