"""Further disks of a guest of VirtualBox: made, grown while it is off, and removed with what is on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.kinds.virtualbox import vboxmanage
from components.kinds.virtualbox.hardware import data, folder
from components.kinds.virtualbox.vboxmanage import COPY_S
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.orders import GuestOrder
    from components.reach.shell import Shell

GIB_MIB = 1024
OWN = re.compile(r"data-(.+)\.vdi")


def _there(shell: Shell, wanted: GuestOrder) -> set[str]:
    """Return the names of the further disks that lie in the guest's folder."""
    listed = shell.run(["ls", "-A", folder(wanted)]).out.split("\n")
    return {found[1] for found in map(OWN.fullmatch, listed) if found}


def wrong(shell: Shell, wanted: GuestOrder) -> str:
    """Say what of them is not as wanted, empty for nothing."""
    there = _there(shell, wanted)
    for disk in wanted.disks:
        if disk.name not in there:
            return f"its disk {disk.name} is not there"
        has = vboxmanage.capacity(shell, data(wanted, disk.name))
        if has < disk.gib * GIB_MIB:
            return f"its disk {disk.name} has {has / GIB_MIB:g} GiB"
    more = there - {disk.name for disk in wanted.disks}
    return f"it has a disk {min(more)}" if more else ""


def fit(shell: Shell, wanted: GuestOrder, plugged: Mapping[str, str]) -> None:
    """Make those that are not there, and grow those that are too small; ``plugged`` is what is where in the guest."""
    there = _there(shell, wanted)
    for disk in wanted.disks:
        path, size = data(wanted, disk.name), disk.gib * GIB_MIB
        if disk.name not in there:
            for key in [key for key, held in plugged.items() if held == path]:
                vboxmanage.unplug(shell, wanted.owner, key)
            vboxmanage.close(shell, "disk", path)
            made = ["--filename", path, "--size", str(size)]
            vboxmanage.must(shell, "createmedium", "disk", *made)
        elif vboxmanage.capacity(shell, path) < size:
            grown = ["modifymedium", "disk", path, "--resize", str(size)]
            vboxmanage.must(shell, *grown, timeout_s=COPY_S)


def drop(shell: Shell, wanted: GuestOrder) -> None:
    """Remove those that are unplugged, as the guest has them no more."""
    for name in sorted(_there(shell, wanted) - {disk.name for disk in wanted.disks}):
        say(f"{wanted.name}: its disk {name} is removed")
        forget(shell, wanted, name)
        vboxmanage.plain(shell, "rm", "-f", data(wanted, name))


def forget(shell: Shell, wanted: GuestOrder, name: str = "") -> None:
    """Have VirtualBox forget one of them, or all."""
    for each in [name] if name else sorted(_there(shell, wanted)):
        vboxmanage.close(shell, "disk", data(wanted, each))
