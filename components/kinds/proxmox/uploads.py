"""What is uploaded to a node, and under which ending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.stackfile import files
from components.stackfile.images import QCOW2_MARK

if TYPE_CHECKING:
    from pathlib import Path


IMPORT = "import"
"""Content of a storage: disk images that guests are made from."""
ENDINGS = {"qcow2": ".qcow2", "raw": ".raw", "vmdk": ".vmdk"}
PACKED = {
    b"\x1f\x8b": ".tar.gz",
    b"\xfd7zXZ": ".tar.xz",
    b"BZh": ".tar.bz2",
    b"(\xb5/\xfd": ".tar.zst",
}
GIB = 1 << 30


def virtual_gib(image: Path) -> int:
    """Return the size of the disk that a qcow2 or raw image is, GiB, rounded up; 1 of none, as in a preview."""
    if not image.is_file():
        return 1
    with image.open("rb") as handle:
        head = handle.read(32)
    qcow2 = head.startswith(QCOW2_MARK)
    size = int.from_bytes(head[24:32]) if qcow2 else image.stat().st_size
    return max(1, -(-size // GIB))


def uploaded(path: Path, content: str) -> str:
    """Return the ending that a file is uploaded with, by what is in it.

    Proxmox VE refuses others, in whatever case, and takes it for what a disk image is: a
    ``noble-server-cloudimg-amd64.img`` is a qcow2 (PVE/Storage.pm, ``UPLOAD_IMPORT_EXT_RE_1``).
    """
    if content == "iso":
        return ".iso"
    if not files.there(path):  # in a preview
        return ".qcow2" if content == IMPORT else ".tar.xz"
    if content == IMPORT:
        return ENDINGS.get(files.glance(str(path)).form, ".raw")
    with files.opened(path) as stream:
        head = stream.read(8)
    return next((end for mark, end in PACKED.items() if head.startswith(mark)), ".tar")
