"""Which object of a host is a lab's: by its UUID or by a list of names, never by where it lies.

Names are people's and can be taken by anybody; the UUIDs of a lab are computed from one random
number in its state. So a half-made object of this lab is told from a stranger of the same name, is
taken over by the next `pulumi up`, and is swept up by the last step of `pulumi destroy`. The number
is also in the name of the lab's folder for disks, which is so nobody else's; out of it go only
volumes that the lab has a note of, and the folder itself only when nothing else is in it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from components.remote.virsh import VirshError
from components.remote.waiting import say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from components.remote.virsh import PoolFacts, Virsh

CONSOLE_LOG = "/var/log/libvirt/qemu/{domain}-console.log"
"""Where a domain's serial console is also written to, on its host."""
KINDS = ("domain", "network", "pool")
"""What carries a lab's UUID, in the order in which it can be removed."""
SHOWN = 4
"""Names that a message lists."""


HOST_FILE = re.compile(
    r"(id_ed25519|known_hosts|answers-[0-9a-f]{12}\.iso)|\.(id_ed25519|known_hosts)\.\d+"
)
"""What gates write into the folder of a nested host (`components.gates.keys`, `.medium`)."""
HALF_MADE = re.compile(r"\.answers-[0-9a-f]{12}\.iso\.\w{8}")
"""The folder that such a disc was being made in when its gate was killed; its content is secret."""


def uuid_of(identity: str, kind: str, name: str) -> str:
    """UUID that the lab with ``identity`` gives its ``kind`` ("domain", ...) called ``name``."""
    return str(uuid.uuid5(uuid.UUID(hex=identity * 2), f"{kind}:{name}"))


def left_behind(virsh: Virsh, identity: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, UUID and name of everything at the place that is this lab's."""
    for kind in KINDS:
        for found, name in virsh.pairs(kind):
            if found == uuid_of(identity, kind, name):
                yield kind, found, name


def ours(virsh: Virsh, kind: str, made: Mapping[str, str]) -> list[str]:
    """Names of ``made`` (UUID by name) that are there, and are what was made."""
    return [name for name, found in virsh.uuids(kind, *made).items() if found == made[name]]


def strangers(virsh: Virsh, kind: str, wanted: Mapping[str, str]) -> list[str]:
    """Names of ``wanted`` (UUID by name) that another ``kind`` of the place has."""
    return [name for name, found in virsh.uuids(kind, *wanted).items() if found != wanted[name]]


def taken(virsh: Virsh, kind: str, names: Collection[str]) -> str:
    """Say that others have ``names``, and what to do."""
    shown = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return (
        f"{virsh.shell.name} has a {kind} {shown} already, which is not this lab's. A lab of the same "
        "name may be up, from another checkout or of another user: take that one down, or give this "
        "one another name (lab.name in its stack file)"
    )


def remove(virsh: Virsh, kind: str, name: str, volumes: Collection[str] = ()) -> None:
    """Remove a domain, network or pool (name or UUID), whatever state it is in.

    Of what is in a pool's folder only ``volumes`` go, by their names, and the folder only when it is
    empty then; what stays is told.

    Raises:
        VirshError: libvirt does not let go of it.
    """
    if kind == "domain":
        virsh.run("destroy", name)
        virsh.must("undefine", name, "--nvram", "--managed-save", "--snapshots-metadata")
    elif kind == "network":
        virsh.run("net-destroy", name)
        virsh.must("net-undefine", name)
    elif facts := virsh.pool(name):
        _remove_pool(virsh, name, facts, volumes)


def _remove_pool(virsh: Virsh, name: str, facts: PoolFacts, volumes: Collection[str]) -> None:
    if volumes:
        virsh.together(
            *(("pool-start", name), ("pool-refresh", name)),
            *(("vol-delete", volume, "--pool", name) for volume in sorted(volumes)),
        )
    virsh.run("pool-destroy", name)
    # Of a folder that is libvirt's rmdir(2), which takes an empty one only.
    kept = virsh.run("pool-delete", name)
    virsh.must("pool-undefine", name)
    if not kept.ok and "No such file" not in kept.err:
        say(
            f"{facts.path} at {virsh.shell.name} stays, it holds what is not the lab's: {kept.said}"
        )


def same(one: str, other: str) -> bool:
    """Whether two definitions of libvirt (XML) are about the same object: one with the same UUID."""
    found = [ET.fromstring(xml).findtext("uuid") for xml in (one, other)]  # noqa: S314 - libvirt's own
    return found[0] == found[1]


def insist(kind: str, name: str, found: str, known: str) -> None:
    """See to it that the object that is there now is the one that was made.

    ``found`` and ``known`` are its definitions; nothing is asked without ``known``.

    Raises:
        VirshError: somebody else's has its name.
    """
    if known and not same(found, known):
        raise VirshError(
            f"{kind} {name} is not this lab's any more, somebody made another one of that name: "
            "rename or remove that one"
        )


def keys_away(private: str) -> None:
    """Remove the files of a lab's hosts, and the folders around them that are empty by then.

    By their names: whatever else lies in there, or wherever ``private`` leads, is not the lab's.
    """
    root = Path(private)
    if not private or ".." in root.parts or root.is_symlink():
        return
    folders = _folders_of_hosts(root)
    for file in host_files(root):
        if HALF_MADE.fullmatch(file.name):
            shutil.rmtree(file, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                file.unlink()
    for empty in (*folders, root, root.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


def host_files(root: Path) -> list[Path]:
    """Return the files of a lab's hosts in its folder of keys."""
    return [
        file
        for folder in (root, *_folders_of_hosts(root))
        for file in _entries(folder)
        if HALF_MADE.fullmatch(file.name) or HOST_FILE.fullmatch(file.name)
    ]


def _folders_of_hosts(root: Path) -> list[Path]:
    return [folder for folder in _entries(root) if folder.is_dir() and not folder.is_symlink()]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def logs_away(virsh: Virsh, domains: Collection[str]) -> None:
    """Remove the console logs of ``domains``, those that this lab made and that are gone.

    A gate that is stopped while it waits leaves one on purpose: it says what was wrong.
    """
    if not virsh.is_local or not domains:
        return
    there = virsh.uuids("domain", *domains)
    for domain in domains:
        if domain not in there:
            with contextlib.suppress(OSError):
                Path(CONSOLE_LOG.format(domain=domain)).unlink(missing_ok=True)
