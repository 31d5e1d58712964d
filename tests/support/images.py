"""Small media that are what they seem: whole disk images and an ISO, each of a few kilobytes."""

from __future__ import annotations

import struct

CLUSTER = 1 << 16
GIB = 1 << 30
SECTOR = 2048


def qcow2(
    virtual: int = GIB, *, backing: bytes = b"", features: int = 0, extra: bytes = b""
) -> bytes:
    """A qcow2 image of version 3 with nothing on its disk: header, refcounts, L1 table."""
    entries = max(1, -(-virtual // (CLUSTER * CLUSTER // 8)))
    at, length = (CLUSTER - 1024, len(backing)) if backing else (0, 0)
    head = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQQQQII",
        3, at, length, 16, virtual, 0, entries, 3 * CLUSTER, CLUSTER, 1, 0, 0,
        features, 0, 0, 4, 104,
    )  # fmt: skip
    first = (head + extra).ljust(CLUSTER - 1024, b"\0") + backing
    table = struct.pack(">Q", 2 * CLUSTER)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (first, table, counts, b""))


def raw(size: int = 4096) -> bytes:
    """A disk with a boot sector and no partition."""
    return bytes(510) + b"\x55\xaa" + bytes(size - 512)


def iso(blocks: int = 17) -> bytes:
    """A volume descriptor that tells of ``blocks`` sectors, and as many."""
    described = b"\1CD001\1" + bytes(73) + struct.pack("<I", blocks)
    return (bytes(16 * SECTOR) + described).ljust(max(blocks, 17) * SECTOR, b"\0")


def vhd(kind: int = 3, size: int = 5 * GIB) -> bytes:
    """A dynamic VHD with nothing on its disk: footer's copy, header, table, footer."""
    foot = bytearray(512)
    foot[:8] = b"conectix"
    struct.pack_into(">Q", foot, 16, 512)
    struct.pack_into(">QQ", foot, 40, size, size)
    struct.pack_into(">I", foot, 60, kind)
    struct.pack_into(">I", foot, 64, ~sum(foot) & 0xFFFFFFFF)
    head = bytearray(1024)
    head[:8] = b"cxsparse"
    struct.pack_into(">QQII", head, 8, (1 << 64) - 1, 1536, 0x10000, size >> 21)
    head[32:36] = struct.pack(">I", 1 << 21)
    struct.pack_into(">I", head, 36, ~sum(head) & 0xFFFFFFFF)
    table = b"\xff" * (-(-(size >> 21) * 4 // 512) * 512)
    return bytes(foot) + bytes(head) + table + bytes(foot)
