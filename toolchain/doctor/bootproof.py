"""Proof that QEMU really runs a BIOS guest: a boot sector that says so on its serial port.

A /dev/kvm can be there and answer without helping: where KVM itself lacks the processor's
extensions, it runs 64-bit code and emulates the rest, instruction by instruction, hundreds of times
slower than QEMU's own emulation; or QEMU ends at once with the host's processor model. No flag or
parameter tells, so a guest of 512 bytes is booted. It goes through what each operating system goes
through first: firmware, 16-bit code, 32-bit code, and there it counts for a moment.

What this deliberately leaves out: 64-bit code, disks, networks. A guest that gets this far gets on.
"""

from __future__ import annotations

import re
import signal
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.machine.system import DID_NOT_START, TIMED_OUT

if TYPE_CHECKING:
    from toolchain.machine.system import Result, System

QEMU = "qemu-system-x86_64"
SECTOR = 512
LOADED_AT = 0x7C00
"""Where a PC's firmware puts the boot sector."""
COUNT = 100_000_000
"""Rounds of a loop of two instructions: 0.03 s on a processor, 0.5 s emulated by QEMU, minutes where
KVM has to emulate."""
DEADLINE_S = 10.0
CONTROL_DEADLINE_S = 30.0
"""For emulation, which a busy machine slows down: nothing is left to choose when it fails."""
KILL_AFTER_S = 2
KILLED = (128 + signal.SIGKILL, -signal.SIGKILL)
"""How timeout ends when QEMU did not heed its first signal: a hang in the kernel."""

STARTED = "nestlab: started vmx="
FINISHED = "nestlab: finished"
CPU = {"kvm": "host", "tcg": "max"}
"""QEMU's names for the processors that nested hosts get: libvirt's host-passthrough and maximum."""

# Machine code; {label:bytes} are filled in. Segments are flat; interrupts stay off.
_REAL_MODE = (
    "fa"  # cli
    "31c0 8ed8"  # ds = 0
    "66 0f0116 {gdt_pointer:2}"  # lgdt
    "0f20c0 0c01 0f22c0"  # set cr0's bit 0: protected mode
    "ea {flat:2} 0800"  # far jump into the 32-bit code segment
)
_FLAT = (
    "66b81000 8ed8 8ec0 8ed0"  # ds, es, ss: the data segment
    "bc {loaded_at:4}"  # the stack grows down from the boot sector
    "fc"  # cld
    "b801000000 0fa2 f6c120"  # cpuid 1, ecx bit 5: VMX
    "7407 c605 {vmx:4} 31"  # if there: put '1' into the text
    "b801000080 0fa2 f6c104"  # cpuid 80000001h, ecx bit 2: SVM
    "7407 c605 {svm:4} 31"
    "be {started:4} e81f000000"  # say it
    "b9 {count:4} 49 75fd"  # count down
    "be {finished:4} e80d000000"
    "66ba0406 66b80020 66ef"  # ACPI power-off (PIIX4, where SeaBIOS puts it): QEMU ends
    "f4 ebfd"  # hlt, for ever
    # say: write the text at esi to COM1, a byte whenever its transmitter is free
    "ac 84c0 7414 88c4 66bafd03 ec a860 74fb 88e0 66baf803 ee ebe7 c3"
)
_SEGMENTS = struct.pack("<3Q", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)


@dataclass(frozen=True)
class Proof:
    """How one try to boot the guest ended."""

    accelerator: str
    booted: bool
    seconds: float
    why: str = ""
    """Why it did not boot, as the rest of a sentence that begins with the guest; empty if it did."""
    nesting: str = ""
    """What the guest's processor offers for guests of its own: ``vmx``, ``svm`` or nothing."""


def image() -> bytes:
    """The boot sector."""
    started_text = f"{STARTED}0 svm=0\n\0".encode()
    finished_text = f"{FINISHED}\n\0".encode()
    flat = LOADED_AT + len(_assemble(_REAL_MODE, {}))
    segments = flat + len(_assemble(_FLAT, {}))
    gdt_pointer = segments + len(_SEGMENTS)
    started = gdt_pointer + 6
    labels = {
        "loaded_at": LOADED_AT,
        "count": COUNT,
        "flat": flat,
        "gdt_pointer": gdt_pointer,
        "started": started,
        "vmx": started + len(STARTED),
        "svm": started + len(STARTED) + len("0 svm="),
        "finished": started + len(started_text),
    }
    code = _assemble(_REAL_MODE, labels) + _assemble(_FLAT, labels)
    pointer = struct.pack("<HI", len(_SEGMENTS) - 1, segments)
    data = _SEGMENTS + pointer + started_text + finished_text
    return (code + data).ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _assemble(source: str, labels: dict[str, int]) -> bytes:
    def address(label: re.Match[str]) -> str:
        return labels.get(label[1], 0).to_bytes(int(label[2]), "little").hex()

    return bytes.fromhex(re.sub(r"\{(\w+):(\d)\}", address, source))


def prove(
    system: System, accelerator: str, *, deadline_s: float = DEADLINE_S, sector: bytes | None = None
) -> Proof:
    """Boot the guest with ``accelerator`` (``kvm`` or ``tcg``) as the user who runs this."""
    if system.which(QEMU) is None:
        return Proof(accelerator, booted=False, seconds=0.0, why=f"can't be tried without {QEMU}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nestlab-doctor-") as folder:
        disk = Path(folder) / "boot.img"
        disk.write_bytes(image() if sector is None else sector)
        argv = [*_limited(system, deadline_s), *command(accelerator, disk)]
        done = system.run(argv, timeout_s=deadline_s + KILL_AFTER_S + 5)
    seconds = time.monotonic() - began
    why = "" if FINISHED in done.out else _why(done, deadline_s)
    return Proof(accelerator, not why, seconds, why, nesting(done.out))


def _limited(system: System, deadline_s: float) -> list[str]:
    # coreutils' timeout, not ours: what the guest said until then is part of the answer. If we are
    # interrupted, timeout is killed, and QEMU, which may hang on KVM for ever, with it.
    with_parent = ["setpriv", "--pdeathsig", "KILL"] if system.which("setpriv") else []
    return ["timeout", "-k", str(KILL_AFTER_S), f"{deadline_s:g}", *with_parent]


def nesting(said: str) -> str:
    """What the guest wrote about its processor: ``vmx``, ``svm``, or neither."""
    told = re.search(rf"{STARTED}(\d) svm=(\d)", said)
    bits = dict(zip(("vmx", "svm"), told.groups() if told else (), strict=False))
    return next((flag for flag, bit in bits.items() if bit == "1"), "")


def late(said: str, deadline_s: float) -> str:
    """Why a guest that wrote ``said`` did not finish in time."""
    where = "its 32-bit code hangs or crawls" if STARTED in said else "its code was not reached"
    return f"did not come up within {deadline_s:g} s: {where}"


def command(accelerator: str, disk: Path) -> list[str]:
    """The QEMU that boots ``disk``; it ends when the guest switches itself off."""
    plain = ["-nodefaults", "-no-user-config", "-machine", "pc", "-m", "32", "-display", "none"]
    drive = f"file={str(disk).replace(',', ',,')},format=raw,if=ide"
    return [
        *(QEMU, *plain, "-accel", accelerator, "-cpu", CPU[accelerator]),
        *("-monitor", "none", "-serial", "stdio", "-no-reboot", "-drive", drive),
    ]


def _why(done: Result, deadline_s: float) -> str:
    if done.code == DID_NOT_START:
        return f"can't be tried: {done.last}"
    if done.code in {TIMED_OUT, *KILLED}:
        return late(done.out, deadline_s)
    # The first line names the cause; an assertion that follows it only says where QEMU gave up.
    said = [line for line in done.err.splitlines() if line.strip() and "warning:" not in line]
    reason = said[0].removeprefix(f"{QEMU}: ").removeprefix("error: ") if said else "no message"
    end = f"signal {-done.code}" if done.code < 0 else f"status {done.code}"
    return f"did not come up, QEMU ended with {end}: {reason}"
