"""What a file is, from a glance at its first bytes: enough to refuse a page saved as an ISO."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

ImageFormat = Literal["qcow2", "raw", "vmdk", "vhdx", "vhd", "vdi"]
Content = Literal[
    "absent", "folder", "iso", "qcow2", "vmdk", "vhdx", "vhd", "vdi", "other", "unreadable"
]
"""A raw image is "other" without a word for it."""

ISO_MARK = b"CD001"
ISO_MARK_AT = 0x8001
"""ECMA-119: the first volume descriptor is sector 16 of 2048 bytes, its name begins at byte 1."""
QCOW2_MARK = b"QFI\xfb"
IMAGES: dict[bytes, tuple[Content, str]] = {
    QCOW2_MARK: ("qcow2", "a qcow2 image"),
    b"KDMV": ("vmdk", "a VMware disk (vmdk)"),
    b"# Disk DescriptorFile": ("vmdk", "a VMware disk (vmdk)"),
    b"vhdxfile": ("vhdx", "a Hyper-V disk (vhdx)"),
    b"conectix": ("vhd", "a Virtual PC disk (vhd)"),
    b"<<< ": ("vdi", "a VirtualBox disk (vdi)"),
}
"""Disk images by how they begin."""
FOREIGN = {
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ": "an xz archive",
    b"PK\x03\x04": "a zip archive",
}
"""What is mistaken for a raw disk image; a raw image has no mark of its own."""


def glance(path: str) -> tuple[Content, str]:
    """Return what ``path`` holds, and a word for it where it is something recognisable."""
    file = Path(path)
    if not file.exists():
        return "absent", ""
    if not file.is_file():
        return "folder", "not a file"
    try:
        with file.open("rb") as stream:
            head = stream.read(ISO_MARK_AT + len(ISO_MARK))
    except OSError as failed:
        return "unreadable", (failed.strerror or "unreadable").lower()
    if head[ISO_MARK_AT:] == ISO_MARK:
        return "iso", "an ISO"
    for mark, image in IMAGES.items():
        if head.startswith(mark):
            return image
    known = next((word for mark, word in FOREIGN.items() if head.startswith(mark)), "")
    return "other", known
