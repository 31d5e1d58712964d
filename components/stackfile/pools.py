"""In which folders of an outer host with libvirt a lab's own may be made, and in which not.

Disks fill a disk, libvirt lists everything beside them as volumes, and a machine does not start
without its system's folders: a slip such as ``/etc`` or another lab's folder is refused by name.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from components.stackfile.problems import Problem
from components.stackfile.values import NAME_BYTES, PATH_BYTES

if TYPE_CHECKING:
    from components.stackfile.lab import LabSpec

POOLS = "/var/lib/libvirt/nestlab"
"""Folder of the outer host under which each lab keeps its disks."""
RESERVED = {"images": "golden images lie in the pool nestlab-images"}
"""Names that no lab may have, and who has them."""
SYSTEM = (
    *("bin", "boot", "dev", "efi", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "proc"),
    *("run", "sbin", "snap", "sys", "usr", "var/backups", "var/cache", "var/lock", "var/log"),
    *("var/mail", "var/run", "var/spool", "var/lib/apt", "var/lib/containerd", "var/lib/docker"),
    *("var/lib/dpkg", "var/lib/libvirt", "var/lib/lxc", "var/lib/systemd"),
)
"""The system's folders (hier(7)), with all that is in them."""
SHARED = ("", "home", "media", "mnt", "opt", "root", "srv", "tmp", "var", "var/lib", "var/tmp")
"""Folders that belong to nobody alone (hier(7)): a folder in them may be given."""
LONGEST = PATH_BYTES - 2 * (1 + NAME_BYTES)
"""Of the folder's path, bytes: in it is the lab's own folder, and in that are the disks."""
ELSEWHERE = "give a folder for labs' disks, such as /srv/labs"


def names(lab: LabSpec) -> list[Problem]:
    """The lab is not called like something of nestlab's own."""
    why = RESERVED.get(lab.name)
    return (
        [Problem("lab.name", f"{lab.name!r} given", f"{why} already", "rename it")] if why else []
    )


def folder(lab: LabSpec) -> list[Problem]:
    """The folder for disks is neither the system's nor another lab's, wherever links lead."""
    host = lab.host
    given = host.chosen
    if given is None:
        return []
    if (length := len(given.encode())) > LONGEST:
        rule = (
            f"no path has more than {PATH_BYTES}, and disks have names below it: {LONGEST} are left"
        )
        return [Problem("lab.host.pool_path", f"{length} bytes given", rule, ELSEWHERE)]
    # Links of another machine can't be followed from here.
    real = os.path.realpath(given) if host.is_here else given
    for path in dict.fromkeys((given, real)):
        if why := _whose(path, lab.name):
            shown = f"{given!r} given" + (f", which leads to {path!r}" if path != given else "")
            return [Problem("lab.host.pool_path", shown, *why)]
    return []


def _whose(path: str, lab: str) -> tuple[str, str] | None:
    """Return rule and remedy for a folder that is somebody's already."""
    if path == f"{POOLS}/{lab}":
        return None
    if path == POOLS:
        return "that is the parent of all labs' folders", "leave it out: that is the default"
    if PurePosixPath(path).is_relative_to(POOLS):
        return "that folder is another lab's, or nestlab's own", f"leave it out, or {ELSEWHERE}"
    at = PurePosixPath(path).relative_to("/")
    if str(at) in SHARED or path == "/":
        return "that folder is everybody's", ELSEWHERE
    if system := next((each for each in SYSTEM if at.is_relative_to(each)), None):
        return f"/{system} is the system's", ELSEWHERE
    return None
