"""The .vmx: what VMware's products know of a guest, as lines of ``key = "value"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

BESIDE = r"-(?:flat|half|delta|sesparse|ctk|digest|rdmp?|[sf]\d{3}|\d{6})"
"""How names end of files that VMware's products, or we, put beside a disk: its data, a snapshot and its data, lists of
changed blocks (vSphere's manual, "Snapshot Files"; its KB 327862, 1007849)."""


def parsed(text: str) -> dict[str, str]:
    """Return the settings of a .vmx by their keys as written, values unescaped."""
    lines = re.findall(r'(?m)^\s*([^\s=#]+)\s*=\s*"([^"\n]*)"\s*$', text)
    return {key: unescaped(value) for key, value in lines}


def rendered(settings: Mapping[str, str]) -> str:
    """Return ``settings`` as a .vmx; no value can end before its quotes do."""
    head = {".encoding": "UTF-8"} | dict(settings)
    return "".join(f'{key} = "{escaped(value)}"\n' for key, value in head.items())


def is_of(file: str, disk: str) -> bool:
    """Whether ``file`` is a ``disk``, or a snapshot's that somebody made of it."""
    return bool(re.fullmatch(rf"{re.escape(disk.removesuffix('.vmdk'))}(-\d{{6}})?\.vmdk", file))


def snapshots(files: Iterable[str], disk: str) -> list[str]:
    """Return those of ``files`` that are snapshots of a ``disk``: what it says no longer fits to them once it grew.

    Nobody keeps the tools from it (vSphere's manual of vmkfstools -X: such a snapshot is neither committed nor gone
    back to; Workstation's, "Expand a Virtual Disk": none may be there).
    """
    return [file for file in files if file != disk and is_of(file, disk)]


def ill_named(disk: str) -> str:
    """Say why no further disk may be called ``disk``, empty where it may."""
    if not re.search(rf"{BESIDE}$", disk):
        return ""
    return f"its disk {disk} is called as a file of VMware's own: rename it"


def serial_port(served: Literal["file", "pipe"], at: str) -> dict[str, str]:
    """Return what a .vmx says of a guest's first serial port, which is a file or a pipe at the path ``at``."""
    return {
        "serial0.present": "TRUE",
        "serial0.startConnected": "TRUE",
        "serial0.fileType": served,
        "serial0.fileName": at,
        # A guest that waits for its port leaves the core to others.
        "serial0.yieldOnMsrRead": "TRUE",
    }


def escaped(value: str) -> str:
    """Return a value as VMware writes it: what would end it is | and two hexadecimal digits."""
    return "".join(
        f"|{ord(letter):02X}" if letter in '|"#' or ord(letter) < ord(" ") else letter
        for letter in value
    )


def unescaped(value: str) -> str:
    """Return what `escaped` was given."""
    return re.sub(r"\|([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), value)
