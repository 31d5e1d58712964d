"""Files that the clients of a nested hypervisor want: its key, and its host key as known."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.reach.shell import SSH_PORT

if TYPE_CHECKING:
    from components.reach.shell import Target

HOST_FILE = re.compile(
    r"(id_ed25519|known_hosts|answers-[0-9a-f]{12}\.(iso|img))|\.(id_ed25519|known_hosts)\.\d+"
)
"""What gates write into the folder of a nested host (here, and in `components.gates.medium`)."""
HALF_MADE = re.compile(r"\.answers-[0-9a-f]{12}\.(iso|img)\.\w{8}")
"""The folder that such a disc was being made in when its gate was killed; its content is secret."""


def write_keys(key_folder: str, reach: Target) -> None:
    """Write the files that libvirt's clients want: key and known hosts, readable by the owner only."""
    if not key_folder:
        return
    folder = Path(key_folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = reach.host if reach.port == SSH_PORT else f"[{reach.host}]:{reach.port}"
    _write(folder / "id_ed25519", reach.private_key)
    _write(folder / "known_hosts", f"{host} {' '.join(reach.host_key.split()[:2])}\n")


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(path)


def remove_keys(key_folder: str) -> None:
    """Remove what `write_keys` wrote, and the folders above that are empty by then."""
    if not key_folder:
        return
    folder = Path(key_folder)
    for name in ("id_ed25519", "known_hosts"):
        (folder / name).unlink(missing_ok=True)
    for empty in (folder, folder.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


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
