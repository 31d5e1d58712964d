"""What stacks may name in tests: the folders that tests make, and hosts that nobody has."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ("*.example.test", "10.0.0.0/8", "127.0.0.1", "lab@server")


def write(folder: Path) -> Path:
    """Write an ``allow.yaml`` into ``folder`` and return it."""
    file = folder / "allow.yaml"
    files = [tempfile.gettempdir(), str(folder.parent)]
    file.write_text(f"files: {files}\nhosts: {list(HOSTS)}\n")
    return file
