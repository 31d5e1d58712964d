"""UDF volumes descriptor by descriptor (ECMA-167), to say in them what no program that makes media would."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.images import SECTOR, iso

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTITION = 300
"""Sector at which the only partition begins; blocks are counted from there."""


def sealed(kind: int, body: bytearray, length: int = SECTOR) -> bytes:
    """A descriptor with its tag; ``body`` has room for it in its first 16 bytes."""
    data = body.ljust(length, b"\0")
    struct.pack_into("<HHB", data, 0, kind, 2, 0)
    struct.pack_into("<2H", data, 8, binascii.crc_hqx(bytes(data[16:]), 0), len(data) - 16)
    data[4] = (sum(data[:16]) - data[4]) & 0xFF
    return bytes(data)


def entry(size: int, pieces: list[tuple[int, int]], *, folder: bool = False) -> bytearray:
    """A file entry with short allocation: pieces of length and block."""
    body = bytearray(176)
    body[27] = 4 if folder else 5
    struct.pack_into("<Q", body, 56, size)
    struct.pack_into("<2I", body, 168, 0, 8 * len(pieces))
    return body + b"".join(struct.pack("<2I", *piece) for piece in pieces)


def embedded(content: bytes, size: int) -> bytearray:
    """A file entry with its content in itself, which says that it has ``size`` bytes."""
    body = bytearray(176)
    body[27], body[34] = 5, 3
    struct.pack_into("<Q", body, 56, size)
    struct.pack_into("<2I", body, 168, 0, len(content))
    return body + content


def named(name: str, block: int, *, marks: int = 0) -> bytes:
    """A name in a folder."""
    letters = b"\x08" + name.encode("latin-1")
    body = bytearray(38)
    body[18], body[19] = marks, len(letters)
    struct.pack_into("<2I", body, 20, SECTOR, block)
    return sealed(257, body + letters, -(-(38 + len(letters)) // 4) * 4)


def _pairs(at: int, *numbers: int) -> bytearray:
    body = bytearray(512)
    struct.pack_into(f"<{len(numbers)}I", body, at, *numbers)
    return body


def _logical() -> bytearray:
    body = _pairs(212, SECTOR)
    struct.pack_into("<I", body, 252, 0)
    return body


@dataclass
class Volume:
    """A volume whose root is block 1; ``blocks`` are put into its partition."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    sectors: int = 5000
    """Length of the partition."""

    def root(self, content: bytes) -> None:
        """Let the root have these names, from block 64 on."""
        self.blocks[1] = sealed(261, entry(len(content), [(len(content), 64)], folder=True))
        self.blocks[64] = content

    def write(
        self, to: Path, size: int = 0, change: Callable[[int, bytes], bytes] | None = None
    ) -> Path:
        """Write it, sparse up to ``size`` bytes; ``change`` may alter each descriptor."""
        parts = {
            18: b"\0BEA01\1",
            19: b"\0NSR02\1",
            20: b"\0TEA01\1",
            256: sealed(2, _pairs(16, 3 * SECTOR, 32)),
            32: sealed(5, _pairs(188, PARTITION, self.sectors)),
            33: sealed(6, _logical()),
            34: sealed(8, bytearray(16)),
            PARTITION: sealed(256, _pairs(400, SECTOR, 1)),
            **{PARTITION + block: data for block, data in self.blocks.items()},
        }
        with to.open("wb") as image:
            image.write(iso()[: 18 * SECTOR])
            for sector, data in sorted(parts.items()):
                image.seek(sector * SECTOR)
                image.write(change(sector, data) if change else data)
            image.truncate(max(size, image.tell(), (PARTITION + self.sectors) * SECTOR))
        return to
