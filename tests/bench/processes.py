"""What the bench does with processes: weighs those that a command starts, and holds a lab's guests."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_S = 0.1
SHARES_EVERY_S = 0.25
"""A look at a process's shares takes the kernel a walk through all of its pages."""
RUNNING = Path("/run/libvirt/qemu")
"""Where libvirt keeps the pid of each domain's QEMU, as NAME.pid."""
PEAK, PARENT = "VmHWM:", "PPid:"


class _Looking:
    """Looks in a thread of its own while its block runs."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._looking.join()

    def _look(self) -> None:
        raise NotImplementedError


class Memory(_Looking):
    """Looks at all that this process starts, now and then, and keeps each one's own peak."""

    def __init__(self) -> None:
        super().__init__()
        self._peaks: dict[tuple[int, str], int] = {}

    @property
    def said(self) -> str:
        """The peaks in words: their sum, and what is more than a tenth of it."""
        by_name: dict[str, int] = {}
        for (_, name), kib in self._peaks.items():
            by_name[name] = by_name.get(name, 0) + kib
        whole = sum(by_name.values())
        large = sorted(
            (each for each in by_name.items() if each[1] * 10 > whole), key=lambda e: -e[1]
        )
        return f"{whole >> 10} MiB (" + ", ".join(f"{n} {kib >> 10}" for n, kib in large) + ")"

    @override
    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            for pid, name, kib in below(os.getpid()):
                self._peaks[pid, name] = max(kib, self._peaks.get((pid, name), 0))


class Shares(_Looking):
    """Looks at all that this process starts, now and then; keeps the moment when it had most memory together.

    Each process counts with its proportional share (proc(5), smaps_rollup: Pss), so that what several
    have in common counts once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak: dict[str, int] = {}
        """KiB by the name of a program, at that moment."""

    @property
    def mib(self) -> int:
        return sum(self.peak.values()) >> 10

    def most(self) -> str:
        """Return the three programs that had most of it, in words."""
        large = sorted(self.peak.items(), key=lambda each: -each[1])[:3]
        return ", ".join(f"{name} {kib >> 10}" for name, kib in large)

    @override
    def _look(self) -> None:
        while not self._over.wait(SHARES_EVERY_S):
            now: dict[str, int] = {}
            for pid, name, _ in below(os.getpid()):
                now[name] = now.get(name, 0) + share(pid)
            if sum(now.values()) > sum(self.peak.values()):
                self.peak = now


def share(pid: int) -> int:
    """Return the proportional share of memory (KiB) of ``pid``; 0 of one that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def below(pid: int) -> Iterator[tuple[int, str, int]]:
    """Yield pid, name and peak of memory (KiB) of all that ``pid`` started, directly or not."""
    found: dict[int, tuple[int, str, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, KeyError):
                lines = (entry / "status").read_text().splitlines()
                told = {key: value for key, *value in (line.split() for line in lines if line)}
                found[int(entry.name)] = int(told[PARENT][0]), told["Name:"][0], int(told[PEAK][0])
    known = {pid}
    while more := {each for each, (parent, _, _) in found.items() if parent in known} - known:
        known |= more
    yield from ((each, *found[each][1:]) for each in known - {pid} if each in found)


@contextlib.contextmanager
def held(lab: str) -> Iterator[None]:
    """Stop the guests of ``lab`` by a signal, which libvirt does not see: suspended ones would be mended."""
    pids = [int(file.read_text()) for file in RUNNING.glob(f"{lab}-*.pid")]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
