"""A machine for the doctor's tests: answers to commands, and files in place of the kernel's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from toolchain.bootstrap import paths
from toolchain.doctor import capacity, kvm, stack_needs
from toolchain.doctor.bootproof import QEMU, Proof
from toolchain.doctor.kvm import User
from toolchain.machine import daemons, processes
from toolchain.machine.system import DID_NOT_START, Result, System

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

BOOTED = "nestlab: started vmx={vmx} svm={svm}\nnestlab: finished\n"
QEMU_USER = User("libvirt-qemu", 64055, 107, frozenset({107}))


@dataclass
class FakeSystem(System):
    """Answers each command by the longest beginning that is known; others are not installed."""

    answers: dict[str, Result] = field(default_factory=dict)
    root: bool = True
    lacking: frozenset[str] = frozenset()
    """Programs that are not installed."""
    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    """Standard input of each command."""

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        self.given.append(stdin)
        known = [start for start in self.answers if line.startswith(start)]
        if not known:
            return Result(DID_NOT_START, err=f"{argv[0]}: not found")
        return self.answers[max(known, key=len)]

    @override
    def which(self, program: str) -> str | None:
        return None if program in self.lacking else f"/usr/bin/{program}"

    @override
    def is_root(self) -> bool:
        return self.root

    @override
    def can_sudo(self) -> bool:
        return False


def proof(
    accelerator: str = "kvm", *, why: str = "", nesting: str = "", seconds: float = 0.4
) -> Proof:
    """How a try ended; with ``why`` it failed."""
    return Proof(accelerator, not why, seconds, why, nesting)


class Machine:
    """Fake files under ``root``, put in the place of the real ones."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.patch = monkeypatch
        self.device = root / "dev-kvm"
        self.user: User | None = QEMU_USER
        self.boot_id = "boot-1"
        for name, at in (
            ("CPUINFO", self.cpuinfo("fpu lm vmx")),
            ("MODULES", root / "module"),
            ("QEMU_CONF", root / "qemu.conf"),
        ):
            monkeypatch.setattr(kvm, name, at)
        monkeypatch.setattr(kvm, "qemu_user", lambda: self.user)
        monkeypatch.setattr(daemons, "KVM", self.device)
        monkeypatch.setattr(daemons, "SERVICE_MANAGER", root)
        monkeypatch.setattr(daemons, "libvirt_pid", lambda: 7)
        monkeypatch.setattr(daemons, "where", lambda _pid: "nestlab")
        monkeypatch.setattr(processes, "boot_id", lambda: self.boot_id)
        monkeypatch.setattr(capacity, "MEMINFO", self.meminfo(total=8192, available=6144))
        monkeypatch.setattr(capacity, "CPU_LIMIT", self.file("cpu.max", "200000 100000\n"))
        monkeypatch.setattr(capacity, "MEMORY_LIMITS", (root / "memory.max",))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
        monkeypatch.setattr(paths, "HOST_JSON", root / "host.json")
        monkeypatch.setattr(paths, "BIN", paths.ROOT / "no-such-folder")
        monkeypatch.setattr(stack_needs, "STACKS", root / "stacks")

    def file(self, name: str, text: str) -> Path:
        """Write one of the fake files."""
        at = self.root / name
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
        return at

    def cpuinfo(self, flags: str) -> Path:
        return self.file("cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmxish\n")

    def meminfo(self, *, total: int, available: int) -> Path:
        text = f"MemTotal:  {total * 1024} kB\nMemAvailable:  {available * 1024} kB\n"
        return self.file("meminfo", text)

    def nested(self, module: str, value: str) -> None:
        self.file(f"module/{module}/parameters/nested", f"{value}\n")

    def make_device(self, mode: int = 0o660) -> None:
        self.device.touch()
        self.device.chmod(mode)


def qemu(accelerator: str) -> str:
    """How the boot proof's command begins, up to the accelerator."""
    flags = "-nodefaults -no-user-config -machine pc -m 32 -display none -accel"
    return f"timeout -k 2 {'10' if accelerator == 'kvm' else '30'} setpriv --pdeathsig KILL {QEMU} {flags} {accelerator} "
