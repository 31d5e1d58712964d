"""Files that the clients of a nested hypervisor want: its key, and its host key as known."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from components.remote.shell import SSH_PORT

if TYPE_CHECKING:
    from components.gates.base import Props


def write_keys(props: Props) -> None:
    """Write the files that libvirt's clients want: key and known hosts, readable by the owner only."""
    if not props.get("key_folder"):
        return
    reach = props["reach"]
    folder = Path(props["key_folder"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = reach["port"]
    host = reach["host"] if port == SSH_PORT else f"[{reach['host']}]:{port}"
    _write(folder / "id_ed25519", reach["private_key"])
    _write(folder / "known_hosts", f"{host} {' '.join(reach['host_key'].split()[:2])}\n")


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(path)


def remove_keys(props: Props) -> None:
    """Remove what `write_keys` wrote, and the folders above that are empty by then."""
    if not props.get("key_folder"):
        return
    folder = Path(props["key_folder"])
    for name in ("id_ed25519", "known_hosts"):
        (folder / name).unlink(missing_ok=True)
    for empty in (folder, folder.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()
