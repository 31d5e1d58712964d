"""How Hyper-V's cmdlets are carried out on a host (R141-R161), by `components.kinds.hyperv.powershell`.

Nothing is decided here: calls in, the objects that they gave back out, and refusals with their cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.kinds.hyperv.powershell import ARGV, Script, answer, error_text, shown
from components.reach.driver import DriverError
from components.reach.shell import Unreachable
from components.reach.waiting import Seen, say, wait_for

if TYPE_CHECKING:
    from components.kinds.hyperv.powershell import Row
    from components.reach.shell import Shell

ASK_S = 120.0
"""PowerShell and its modules take seconds to load; under emulation tens of them."""
DISK_S = 600.0
SWITCH_S = 90.0
"""An adapter that becomes a switch's is silent for seconds, and the connection may not survive it."""
BACK_S = 300.0
NO_PATH = "PathNotFound*"
NO_GUEST = "InvalidParameter*"
NOTHING_TAKEN = "ParameterArgument*"
"""Failures that only say that there is nothing, by PowerShell's id of them; ANY says no more."""
ANY = "*"
CAUSES = {
    "one of the Hyper-V components is not running": "Windows' hypervisor did not start: the machine "
    "around it gives no virtualization (nested off, or emulated without it; `make doctor` tells), or "
    "its boot entry says hypervisorlaunchtype off",
    "0x8007000E": "the host has too little memory left: give it more, or its guests less",
    "OutOfMemory": "the host has too little memory left: give it more, or its guests less",
    "0x80070070": "the host's disk is full: raise its disk_gib, or remove something",
    "0x80070020": "something holds the file open: a guest with this medium in its drive, or a backup",
    "0xC03A000E": "the image that this disk is a clone of was changed after it was cloned: put the old "
    "one back, or have the guest made anew",
    "0xC03A001A": "Hyper-V takes no disk that is sparse, compressed or encrypted by NTFS: copy it anew",
    "is already bound to the Microsoft Virtual Switch protocol": "the adapter belongs to another "
    "virtual switch: name that one with bridge:, or remove it",
    "being used by running virtual machines": "a guest is still connected to it: stop or move it",
    "Windows System Error 5010": "another adapter of the host has this address: take another subnet",
    "Windows System Error 87": "its subnet overlaps another network of the host: take another one",
    "is not recognized as the name of a cmdlet": "the Hyper-V role is not (wholly) installed: see "
    "C:\\nestlab-setup.log on it",
}
"""What a refusal comes from, by its words or by what is the same in every language."""


def ask(shell: Shell, script: Script, *, timeout_s: float = ASK_S) -> list[list[Row]]:
    """Carry out ``script``; return the objects of each of its calls.

    Raises:
        DriverError: a cmdlet refused.
    """
    done = shell.run(ARGV, stdin=script.document().encode("ascii"), timeout_s=timeout_s)
    told = answer(done.out)
    if told is None:
        words = error_text(done.err) or done.said
        raise DriverError(f"`powershell` on {shell.name}: {words}")
    if failed := told["error"]:
        number = failed["call"]
        what = shown(script.calls[number]) if 0 <= number < len(script.calls) else "powershell"
        words = " ".join(failed["message"].split()) or failed["id"]
        raise DriverError(f"`{what}` on {shell.name}: {words}{_cause(words, failed['id'])}")
    return told["results"]


def _cause(words: str, identity: str) -> str:
    said = f"{words} {identity}".lower()
    why = next((why for mark, why in CAUSES.items() if mark.lower() in said), "")
    return f"\n  {why}" if why else ""


def remove_folder(shell: Shell, folder: str) -> None:
    """Remove a folder with all that is in it, where it is there."""
    script = Script()
    script.add("Get-Item", "Name", may_fail=NO_PATH, LiteralPath=folder)
    if ask(shell, script)[0]:
        script = Script()
        script.add("Remove-Item", LiteralPath=folder, Recurse=True, Force=True)
        ask(shell, script, timeout_s=DISK_S)


def through_a_cut(shell: Shell, script: Script, what: str) -> None:
    """Carry out what may take the network from under this connection, and wait until it is back."""
    try:
        ask(shell, script, timeout_s=SWITCH_S)
    except Unreachable as cut:
        say(f"{shell.name}: {what} cut the connection ({cut}); waiting for it")
    else:
        return

    def back() -> Seen:
        probe = Script()
        probe.add("Get-VMHost")
        try:
            ask(shell, probe)
        except Unreachable as silent:
            return Seen(ok=False, text=str(silent))
        return Seen(ok=True, text="it answers again")

    wait_for(f"{shell.name}, after {what}", back, deadline_s=BACK_S)
