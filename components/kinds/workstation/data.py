"""Further disks of a guest of Workstation: beside each lies a file that says how large it was made, GiB."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.kinds.workstation import vmrun
from components.kinds.workstation.vmrun import COPY_S
from components.kinds.workstation.vmx import data_file
from components.reach.driver import COMMAND_S, DriverError
from components.reach.vmx import BESIDE, snapshots
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from components.reach.orders import GuestOrder
    from components.reach.shell import Shell

OWN = "data-"
"""How the files of further disks begin."""
_FILE = re.compile(rf"{OWN}(.+?)(\.complete|({BESIDE})*\.vmdk)")


def mark(name: str) -> str:
    """Return what the file is called that says how large a disk was made."""
    return f"{OWN}{name}.complete"


def _names(home: str, listed: Iterable[str]) -> dict[str, list[str]]:
    """Return the disks that have files in a guest's folder, with these."""
    found: dict[str, list[str]] = {}
    for path in listed:
        if path.startswith(f"{home}/") and (file := _FILE.fullmatch(path[len(home) + 1 :])):
            found.setdefault(file[1], []).append(path)
    return found


def wrong(wanted: GuestOrder, home: str, listed: Iterable[str], sizes: Mapping[str, int]) -> str:
    """Say what of them is not as wanted, empty for nothing; ``sizes`` are what they were made with."""
    there = _names(home, listed)
    for disk in wanted.disks:
        if disk.name not in sizes or f"{home}/{data_file(disk.name)}" not in there[disk.name]:
            return f"its disk {disk.name} is not there"
        if sizes[disk.name] < disk.gib:
            return f"its disk {disk.name} has {sizes[disk.name]} GiB"
    more = there.keys() - {disk.name for disk in wanted.disks}
    return f"it has a disk {min(more)}" if more else ""


def refuse(wanted: GuestOrder, home: str, listed: Iterable[str], sizes: Mapping[str, int]) -> None:
    """Refuse to grow one under a snapshot (see `snapshots`)."""
    inside = [path.rpartition("/")[2] for path in listed]
    for disk in wanted.disks:
        grows = sizes.get(disk.name, disk.gib) < disk.gib
        if grows and (found := snapshots(inside, data_file(disk.name))):
            raise DriverError(
                f"guest {wanted.name} has a snapshot ({found[0]}), which would not fit to a larger disk: "
                f"delete it (`vmrun deleteSnapshot {home}/guest.vmx NAME`), or write disk {disk.name} with "
                f"{sizes[disk.name]} GiB again"
            )


def fit(
    shell: Shell, wanted: GuestOrder, home: str, listed: Iterable[str], sizes: Mapping[str, int]
) -> None:
    """Make those that are not there, and grow those that are too small."""
    there = _names(home, listed)
    for disk in wanted.disks:
        path, has = f"{home}/{data_file(disk.name)}", sizes.get(disk.name, 0)
        whole = path in there.get(disk.name, []) and bool(has)
        if whole and has >= disk.gib:
            continue
        if whole:
            words = ["-x", f"{disk.gib}GB", path]
        else:
            vmrun.must(shell, "rm", "-f", path)
            words = ["-c", "-s", f"{disk.gib}GB", "-a", "lsilogic", "-t", "0", path]
        vmrun.must(shell, "vmware-vdiskmanager", *words, timeout_s=COPY_S)
        shell.put(f"{disk.gib}\n".encode(), f"{home}/{mark(disk.name)}", timeout_s=COMMAND_S)


def drop(shell: Shell, wanted: GuestOrder, home: str, listed: Iterable[str]) -> None:
    """Remove those that the guest has no more, with their snapshots."""
    kept = {disk.name for disk in wanted.disks}
    for name, files in sorted(_names(home, listed).items()):
        if name not in kept:
            say(f"{wanted.name}: its disk {name} is removed")
            vmrun.must(shell, "rm", "-f", *sorted(files))
