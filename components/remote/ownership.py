"""Which lab an object of libvirt belongs to: by its UUID, not by its name.

Names are people's and can be taken by anybody; the UUIDs of a lab are computed from one random
number in its state. So a half-made object of this lab is told from a stranger of the same name, is
taken over by the next `pulumi up`, and is swept up by the last step of `pulumi destroy`.
"""

from __future__ import annotations

import contextlib
import glob
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.remote.virsh import Virsh

CONSOLE_LOG = "/var/log/libvirt/qemu/{domain}-console.log"
"""Where a domain's serial console is also written to, on its host."""

KINDS = {"domain": "list", "network": "net-list", "pool": "pool-list"}
"""What carries a lab's UUID, in the order in which it can be removed, and how virsh lists it."""


HOST_FILE = re.compile(
    r"(id_ed25519|known_hosts|answers-[0-9a-f]{12}\.iso)|\.(id_ed25519|known_hosts)\.\d+"
)
"""What gates write into the folder of a nested host (`components.gates.keys`, `.medium`)."""
HALF_MADE = re.compile(r"\.answers-[0-9a-f]{12}\.iso\.\w{8}")
"""The folder that such a disc was being made in when its gate was killed; its content is secret."""


def uuid_of(identity: str, kind: str, name: str) -> str:
    """UUID that the lab with ``identity`` gives its ``kind`` ("domain", ...) called ``name``."""
    return str(uuid.uuid5(uuid.UUID(hex=identity * 2), f"{kind}:{name}"))


def left_behind(virsh: Virsh, identity: str) -> Iterator[tuple[str, str]]:
    """Yield kind and name of everything at the place that is this lab's."""
    for kind in KINDS:
        for found, name in _present(virsh, kind):
            if found == uuid_of(identity, kind, name):
                yield kind, name


def _present(virsh: Virsh, kind: str) -> Iterator[tuple[str, str]]:
    """Yield UUID and name of every object of ``kind`` at the place."""
    if kind == "network":
        # net-list alone can't print both (libvirt 9).
        for name in virsh.must("net-list", "--all", "--name").split():
            yield virsh.must("net-uuid", name).strip(), name
        return
    for line in virsh.must(KINDS[kind], "--all", "--uuid", "--name").splitlines():
        found, _, name = line.strip().partition(" ")
        if name.strip():
            yield found, name.strip()


def remove(virsh: Virsh, kind: str, name: str) -> None:
    """Remove a domain, network, or pool with all its volumes, whatever state it is in."""
    if kind == "domain":
        virsh.run("destroy", name)
        virsh.must("undefine", name, "--nvram", "--managed-save", "--snapshots-metadata")
    elif kind == "network":
        virsh.run("net-destroy", name)
        virsh.must("net-undefine", name)
    else:
        virsh.run("pool-start", name)
        for line in virsh.must("vol-list", name).splitlines():
            if volume := line.strip().partition(" ")[0]:
                virsh.must("vol-delete", volume, "--pool", name)
        virsh.run("pool-destroy", name)
        virsh.run("pool-delete", name)
        virsh.must("pool-undefine", name)


def keys_away(private: str) -> None:
    """Remove the files of a lab's hosts, and the folders around them that are empty by then.

    By their names: whatever else lies in there, or wherever ``private`` leads, is not the lab's.
    """
    root = Path(private)
    if not private or ".." in root.parts or root.is_symlink():
        return
    folders = [folder for folder in _entries(root) if folder.is_dir() and not folder.is_symlink()]
    for file in (file for folder in (root, *folders) for file in _entries(folder)):
        if HALF_MADE.fullmatch(file.name):
            shutil.rmtree(file, ignore_errors=True)
        elif HOST_FILE.fullmatch(file.name):
            with contextlib.suppress(OSError):
                file.unlink()
    for empty in (*folders, root, root.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def tidy(virsh: Virsh, lab: str, private: str) -> None:
    """Remove the lab's files that no resource knows: keys, and logs of consoles that never ended.

    A gate that is stopped while it waits leaves both, the log on purpose: it says what was wrong.
    """
    keys_away(private)
    if not virsh.is_local:
        return
    before, after = CONSOLE_LOG.split("{domain}")
    for log in glob.glob(f"{glob.escape(before)}{glob.escape(lab)}-*{glob.escape(after)}"):  # noqa: PTH207
        # The domains of this lab are gone; one that is there is another lab's of a longer name.
        if virsh.domain_state(log.removeprefix(before).removesuffix(after)) is None:
            with contextlib.suppress(OSError):
                Path(log).unlink()
