"""Processes told apart for good, so that only what we started is ever stopped.

A pid comes back for another process sooner or later; pid, start time and boot together do not.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
HIDDEN = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading of a process raises that is gone, or that others may not see (mount option hidepid)."""


@dataclass(frozen=True)
class Process:
    """One process of one boot: pid, start in clock ticks since boot, the boot's id."""

    pid: int
    start: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs, as far as can be seen; a zombie does not."""
        return identify(self.pid) == self or hidden(self.pid)

    def stop(self, *, timeout_s: float) -> bool:
        """End it: SIGTERM, after ``timeout_s`` SIGKILL. False when even that did not help."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # Looked at after the handle is held: from here on the pid can't change its owner.
            if not self.alive:
                return True
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], timeout_s)[0]:
                    return True
        except ProcessLookupError:
            return True
        else:
            return False
        finally:
            os.close(handle)


def identify(pid: int) -> Process | None:
    """The process that has ``pid`` now, or None when none runs (zombies count as gone)."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except HIDDEN:
        return None
    # The command's name stands in parentheses and may itself hold blanks and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[19]), boot_id())


def hidden(pid: int) -> bool:
    """Whether a process has ``pid`` that others may not look at."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's, and there
    try:
        (PROC / str(pid) / "stat").read_bytes()
    except ProcessLookupError:
        return False
    except (FileNotFoundError, PermissionError):
        return True
    return False


def parent(pid: int) -> int:
    """Pid of the parent; 0 when ``pid`` is gone or the kernel's."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except HIDDEN:
        return 0
    return int(text[text.rindex(")") + 2 :].split()[1])


def ancestors(pid: int) -> list[int]:
    """``pid``, its parent, and so on up to the first process."""
    line: list[int] = []
    while pid > 0:
        line.append(pid)
        pid = parent(pid)
    return line


def words(pid: int) -> list[str]:
    """The words that the process was started with; none when it is gone, or hidden."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except HIDDEN:
        return []
    return [word.decode(errors="replace") for word in raw.split(b"\0")[:-1]]


def command_line(pid: int) -> str:
    """The process's command line, separated by blanks; empty when it is gone."""
    return " ".join(words(pid)).strip()


def variables(pid: int) -> list[bytes]:
    """The variables that the process was started with, as NAME=VALUE; none of one that is gone or another's."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except HIDDEN:
        return []


def umask(pid: int) -> int:
    """The process's umask; -1 when it is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    told = [line.split()[1] for line in status.splitlines() if line.startswith("Umask:")]
    return int(told[0], 8) if told else -1


def boot_id() -> str:
    """The kernel's id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def name(pid: int) -> str:
    """Short name of the process's program; empty when it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except HIDDEN:
        return ""
