"""A USB stick's image with a few files: one partition with FAT16, for installers that read no CD.

Laid out after the stick that packer-maas installs ESXi 7.0 to 9.0 with: a partition table of one
entry, of type 0c, that begins at 1 MiB. Names are MS-DOS's (8.3, upper case), all in the root. The
same files give the same bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING

from components.media.iso import PRIVATE, fresh

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTOR = 512
SIZE = 32 << 20
"""Of the stick, bytes: FAT16 wants at least 4085 clusters."""
START = (1 << 20) // SECTOR
"""First sector of the partition."""
LABEL_LENGTH = 11
_PER_CLUSTER = 4
_TABLES, _ENTRIES, _RESERVED = 2, 512, 1
_SECTORS = SIZE // SECTOR - START
_TABLE = 64
"""Sectors of one allocation table: 2 bytes for each of some 15,800 clusters."""
_FIRST = _RESERVED + _TABLES * _TABLE + _ENTRIES * 32 // SECTOR
"""Sector of the partition where cluster 2 begins."""
_END, _MEDIA = 0xFFFF, 0xF8
_DATE = (2020 - 1980) << 9 | 1 << 5 | 1
"""2020-01-01, as `components.media.iso.EPOCH`."""
_LABEL_ENTRY, _FILE_ENTRY = 0x08, 0x20
_NAME = r"[A-Z0-9_]{1,8}(\.[A-Z0-9_]{1,3})?"


def make(files: Mapping[str, bytes], label: str, to: Path) -> None:
    """Make the image of a stick with ``files``, by absolute path; for its owner only.

    Raises:
        ValueError: a name is none of MS-DOS's, the label is too long, or it does not all fit.
    """
    volume = _volume({name.removeprefix("/"): files[name] for name in sorted(files)}, label)
    with fresh(to, PRIVATE) as (_, image), image.open("wb") as handle:
        handle.write(_table())
        handle.seek(START * SECTOR)
        handle.write(volume)
        handle.truncate(SIZE)


def _table() -> bytes:
    """Return the first sector: a partition table that only says how large things are."""
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x0C, b"\xfe\xff\xff", START, _SECTORS)
    return (b"\0" * 446 + entry).ljust(510, b"\0") + b"\x55\xaa"


def _volume(files: Mapping[str, bytes], label: str) -> bytes:
    if not re.fullmatch(r"[A-Z0-9_]+", label) or len(label) > LABEL_LENGTH:
        raise ValueError(f"{label!r} is no label of at most {LABEL_LENGTH} capitals and digits")
    name = label.ljust(LABEL_LENGTH).encode()
    serial = zlib.crc32(b"".join(file.encode() + content for file, content in files.items()))
    boot = struct.pack(
        "<3s8sHBHBHHBHHHII",
        b"\xeb\x3c\x90", b"MSDOS5.0", SECTOR, _PER_CLUSTER, _RESERVED, _TABLES, _ENTRIES,
        _SECTORS, _MEDIA, _TABLE, 63, 255, START, 0,
    ) + struct.pack("<BBBI11s8s", 0x80, 0, 0x29, serial, name, b"FAT16   ")  # fmt: skip
    boot = boot.ljust(510, b"\0") + b"\x55\xaa"
    chain = [0xFF00 | _MEDIA, _END]
    root, data = _entry(name, _LABEL_ENTRY, 0, 0), b""
    for file, content in files.items():
        if not re.fullmatch(_NAME, file):
            raise ValueError(
                f"{file!r} is no name of MS-DOS's: eight capitals or digits, and three"
            )
        base, _, ending = file.partition(".")
        first, count = len(chain), -(-len(content) // (_PER_CLUSTER * SECTOR))
        chain += [*range(first + 1, first + count), _END] if count else []
        packed = f"{base:8}{ending:3}".encode()
        root += _entry(packed, _FILE_ENTRY, first if count else 0, len(content))
        data += content.ljust(count * _PER_CLUSTER * SECTOR, b"\0")
    if len(data) > (_SECTORS - _FIRST) * SECTOR or len(root) > _ENTRIES * 32:
        raise ValueError(f"{len(data)} bytes in {len(files)} files do not fit onto the stick")
    table = struct.pack(f"<{len(chain)}H", *chain).ljust(_TABLE * SECTOR, b"\0")
    return boot + table * _TABLES + root.ljust(_ENTRIES * 32, b"\0") + data


def _entry(name: bytes, marks: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sB10xHHHI", name, marks, 0, _DATE, cluster, size)
