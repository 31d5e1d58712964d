"""What a stand-alone ESXi is told by its own commands, and what it says: ``vim-cmd`` above all.

Nothing is decided here. Its commands fail in two ways, by their exit code and by what they print.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from components.reach.driver import COMMAND_S, DriverError, refusal
from components.reach.interrupt import CANCELLED
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Result, Shell

VOLUMES = "/vmfs/volumes/"
POWER_S = 300.0
UPLOAD_S = 300.0
"""For a piece of it, not for all."""
STOP_S = 60.0
"""How long a guest with VMware Tools may take to end by itself, seconds."""
STOP_POLL_S = 2.0
AUTOSTART = "hostsvc/autostartmanager"
ADVICE = (
    (
        r"AMD-V|VT-x|VHV disabled|MonitorMode",
        "no hardware virtualization reaches it: the outer host has to be real KVM with nested=1",
    ),
    (
        r"(?i)no space left|not enough space|insufficient disk",
        "its datastore is full: raise disk_gib of this ESXi, or make what is in it smaller",
    ),
    (
        r"not a virtual disk|hosted I/O|unsupported disk",
        "convert the image: qemu-img convert -O vmdk -o subformat=monolithicSparse IMAGE NEW.vmdk",
    ),
    (r"(?i)reserved MACs|static ethernet address", "take a MAC that begins with 52:54:00"),
    (
        r"(?i)memory resources|insufficient memory",
        "make its guests' memory smaller, or raise memory_mib of this ESXi",
    ),
    (
        r"(?i)device or resource busy|failed to lock the file",
        "somebody uses the file, perhaps a command that was cut off: try again in a minute",
    ),
    (
        r"Current license or ESXi version prohibits",
        "the free licence keeps the API read-only: remove licence:, which gives 60 days of everything",
    ),
)


def must(shell: Shell, argv: Sequence[str], *, timeout_s: float = COMMAND_S) -> str:
    """Run a command that has to succeed, and return what it printed.

    Raises:
        DriverError: it did not.
    """
    done = shell.run(argv, timeout_s=timeout_s)
    if not done.ok or refused(done):
        raise refusal(shell, argv, said(done))
    return done.out


def refused(done: Result) -> bool:
    """Whether a command printed a fault."""
    # vim-cmd tells failures by what it prints, and by its exit code in some versions only.
    return bool(re.search(r"(?m)^(.*: ?)?\((vim|vmodl)\.fault\.\w+\) \{", done.out + done.err))


def said(done: Result) -> str:
    """Return what was said, with the cause and the way out where they are known."""
    words = done.said
    if refused(done):
        # Messages hold quotes themselves.
        named = re.findall(r'(?m)^   msg = "(.*?)",? *$', done.out + done.err)
        kind = re.search(r"\((?:vim|vmodl)\.fault\.(\w+)\)", done.out + done.err)
        words = next((msg for msg in reversed(named) if msg), kind[1] if kind else words)
    for sign, remedy in ADVICE:
        if re.search(sign, done.out + done.err):
            return f"{words}; {remedy}"
    return words


def saved(shell: Shell) -> None:
    """Have ESXi write its own settings to disk.

    It does so once an hour and when it is shut down: switched off the hard way it would forget
    switches and guests that were made since.
    """
    done = shell.run(["auto-backup.sh"], timeout_s=COMMAND_S)
    if not done.ok:
        say(f"{shell.name}: its settings were not saved ({done.said}), a power cut may lose them")


def read(shell: Shell, path: str) -> str | None:
    """Return what a file holds; None where there is none, which is not that it can't be read."""
    done = shell.run(["cat", path])
    if not done.ok and "No such file or directory" in done.err:
        return None
    if not done.ok:
        raise DriverError(f"{path} on {shell.name} can't be read: {said(done)}")
    return done.out


class Vm(NamedTuple):
    """A registered guest."""

    vmid: str
    name: str
    file: str
    """As ESXi writes it: ``[datastore1] web/web.vmx``."""
    note: str

    @property
    def path(self) -> str:
        """Its .vmx as a path."""
        store, _, file = self.file.removeprefix("[").partition("] ")
        return f"{VOLUMES}{store}/{file}"


_VM = re.compile(r"(?m)^(\d+) +(.*?) +(\[[^\]\n]*\] .*?\.vmx) +\S+ +vmx-\d+(?: +(.*?))? *$")


def vms(shell: Shell) -> tuple[list[Vm], list[str]]:
    """Return the registered guests, and the numbers of those whose .vmx ESXi can't read."""
    argv = ["vim-cmd", "vmsvc/getallvms"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok or refused(done):
        raise refusal(shell, argv, said(done))
    found = [Vm(*(part or "" for part in each)) for each in _VM.findall(done.out)]
    return found, re.findall(r"Skipping invalid VM '(\d+)'", done.out + done.err)


def power_state(shell: Shell, vmid: str) -> str:
    """Return "on", "off" or "suspended"."""
    argv = ["vim-cmd", "vmsvc/power.getstate", vmid]
    out = must(shell, argv)
    if found := re.search(r"(?m)^(?:Powered (on|off)|(Suspended)) *$", out):
        return found[1] or found[2].lower()
    raise refusal(shell, argv, repr(out.strip()))


def stop(shell: Shell, name: str, vmid: str) -> None:
    """Stop a guest, gently where it has VMware Tools."""
    if (state := power_state(shell, vmid)) == "off":
        return
    say(f"{shell.name}: {name} is stopped, its settings change")
    asked = shell.run(["vim-cmd", "vmsvc/power.shutdown", vmid], timeout_s=COMMAND_S)
    if state == "on" and asked.ok and not refused(asked):
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and not CANCELLED.wait(STOP_POLL_S):
            if power_state(shell, vmid) == "off":
                return
    power_off(shell, vmid)


def power_on(shell: Shell, vmid: str) -> None:
    """Switch a guest on, or let it go on."""
    must(shell, ["vim-cmd", "vmsvc/power.on", vmid], timeout_s=POWER_S)


def power_off(shell: Shell, vmid: str) -> None:
    """Switch a guest off, the hard way."""
    must(shell, ["vim-cmd", "vmsvc/power.off", vmid], timeout_s=POWER_S)


def register(shell: Shell, vmx: str) -> str:
    """Make ESXi know the guest of the .vmx at the path ``vmx``, and return its number."""
    return must(shell, ["vim-cmd", "solo/registervm", vmx]).strip()


def unregister(shell: Shell, vmid: str) -> None:
    """Make ESXi forget a guest; its files stay."""
    must(shell, ["vim-cmd", "vmsvc/unregister", vmid])


def reload(shell: Shell, vmid: str) -> None:
    """Have ESXi read a guest's .vmx again."""
    must(shell, ["vim-cmd", "vmsvc/reload", vmid])


def reload_any(shell: Shell, vmid: str) -> None:
    """Have ESXi read a guest's .vmx again if it can."""
    shell.run(["vim-cmd", "vmsvc/reload", vmid], timeout_s=COMMAND_S)


def starts(shell: Shell, vmid: str) -> bool:
    """Whether a guest starts with its host: it has to be told so, and the host that any may."""
    sequence = must(shell, ["vim-cmd", f"{AUTOSTART}/get_autostartseq"])
    entries = re.findall(
        r"key = 'vim\.VirtualMachine:(\d+)'[^}]*?startAction = \"(\w+)\"", sequence, re.DOTALL
    )
    if dict(entries).get(vmid, "none").lower() not in {"poweron", "systemdefault"}:
        return False
    return _any_starts(shell)


def _any_starts(shell: Shell) -> bool:
    """Whether the host starts guests at all."""
    defaults = must(shell, ["vim-cmd", f"{AUTOSTART}/get_defaults"])
    return bool(re.search(r"(?m)^ *enabled = true", defaults))


def set_autostart(shell: Shell, vmid: str, *, on: bool) -> None:
    """Have a guest start with its host, or not; nothing is done where it is so already."""
    if starts(shell, vmid) is on:
        return
    if on and not _any_starts(shell):
        must(shell, ["vim-cmd", f"{AUTOSTART}/enable_autostart", "true"])
    # Action, delay and order of its start; action and delay of its stop; heartbeat.
    how = ["PowerOn", "0", "1", "systemDefault", "0", "systemDefault"]
    if not on:
        how = ["none", "0", "0", "none", "0", "systemDefault"]
    must(shell, ["vim-cmd", f"{AUTOSTART}/update_autostartentry", vmid, *how])
