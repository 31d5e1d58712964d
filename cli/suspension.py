"""A lab's memory saved to disk, its machines off; and from there on, in seconds, with the time of now.

Unlike a snapshot it is no way back: what runs goes on, with all that was done in it. It is noted before any
memory is saved and forgotten once the time is told, so that whoever comes after a kill ends it, either way.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace

from cli import renewal, snapshots
from cli.records import Suspended, read, write
from components.refused import Refused
from toolchain.bootstrap import ui


def suspend(stack: str) -> list[str]:
    """Save the memory of a lab's machines on the outer host and switch them off; return their domains.

    Raises:
        Problem, Refused: it can't be; they run as before.
    """
    record = read(stack)
    if record.resetting:
        raise ui.Problem(
            f"nothing was suspended: a reset did not end. {ui.make('reset', stack)} does."
        )
    found = snapshots.of(stack)
    running = found.part.active(found.libvirt, found.domains)
    if not running:
        return []
    rows, asked = snapshots.rows(stack)
    up = {row["name"] for row in rows if row["domain"] in running}
    asked = {name: inside for name, inside in asked.items() if name in up}
    # Noted first: whoever comes after a kill lets go on what stands still.
    write(stack, replace(record, suspended=Suspended({name: [] for name in asked})))
    try:
        with ui.step("who answers inside"):
            answered = renewal.stand_still(stack, asked)
        write(stack, replace(record, suspended=Suspended(answered)))
        with ui.step("memory to disk"):
            found.part.save(found.libvirt, running)
    except BaseException:
        # What can't be let go on now is by whoever comes next.
        renewal.go_on(stack, asked)
        write(stack, record)
        raise
    return list(running)


def resume(stack: str, *, lose: bool = False) -> bool:
    """Let a suspended lab go on, and tell it the time; return whether it was suspended.

    ``lose``: memory that can't be restored is given up, and that machine boots from its disks.

    Raises:
        Problem, Refused: it does not go on, or does not answer; what was saved of it is still there.
    """
    record = read(stack)
    if record.suspended is None:
        return False
    found = snapshots.of(stack)
    with ui.step("memory from disk"):
        boot = found.part.wake(found.libvirt, found.domains, lose=lose)
    awake = [each for each in found.part.active(found.libvirt, found.domains) if each not in boot]
    machines = [row for row in snapshots.rows(stack)[0] if row["domain"] in awake]
    known = record.suspended.answered
    answered = {row["name"]: known[row["name"]] for row in machines if row["name"] in known}
    snapshots.tell_the_time(found, answered, machines)
    if boot:
        ui.say(
            f"booting from their disks: {', '.join(boot)}; {ui.make('up', stack)} waits for them"
        )
    write(stack, replace(record, suspended=None))
    return True


def carry_on(stack: str) -> None:
    """Let a suspended lab go on, as far as it does: what is missing around it is for `up`."""
    try:
        if resume(stack):
            ui.say(f"the lab of {stack} was suspended, and goes on")
    except (ui.Problem, Refused, OSError, subprocess.SubprocessError) as wrong:
        ui.warn(f"it is suspended, and does not go on yet: {wrong}")
