"""Just enough UDF for Windows media: names, contents, and taking a file out of its folder.

Microsoft's ISOs hold their files in UDF 1.02 (ECMA-167), and in ISO 9660 only a note that says so,
which is all that xorriso sees. What is read here is what its maker, and genisoimage, write: one
physical partition, short, long or embedded allocation. Anything else is refused, not guessed.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTOR = 2048
_ANCHOR = 256
_RECOGNITION = range(16, 32)
_PARTITION, _LOGICAL, _TERMINATOR, _POINTER, _SET = 5, 6, 8, 2, 256
_NAME, _ENTRY, _LONG_ENTRY = 257, 261, 266
_FOLDER = 4
_DIRECTORY, _DELETED, _PARENT = 0x02, 0x04, 0x08
_SHORT, _LONG, _EMBEDDED = 0, 1, 3
_TAG = 16
_FIXED = 38
"""Bytes of a file identifier before its variable part."""
_LENGTH = 0x3FFFFFFF
_DEPTH = 64


class BadUdf(Exception):
    """The medium's UDF is damaged, or of a form that is not read here."""


@dataclass(frozen=True)
class Node:
    """A file: where its content is."""

    size: int
    extents: tuple[tuple[int, int], ...]
    """Offset and length in the image, bytes."""
    name_at: tuple[int, ...] = field(default=(), repr=False)
    """Offsets in the image of each byte of the descriptor that names it."""
    named: bytes = field(default=b"", repr=False)
    """That descriptor."""


def present(image: BinaryIO) -> bool:
    """Whether the volume recognition sequence announces UDF."""
    for sector in _RECOGNITION:
        image.seek(sector * SECTOR)
        if image.read(6)[1:] in {b"NSR02", b"NSR03"}:
            return True
    return False


class Udf:
    """The tree of a UDF volume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[int] = set()
        with path.open("rb") as self._image:
            self._start, self.end, root = self._volume()
            self.files: dict[str, Node] = dict(self._walk(root, ""))
            """Files by absolute path."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._path.open("rb") as self._image:
            return self._content(self.files[name])

    def sector(self, name: str) -> int:
        """Return where a file begins, in sectors; it must be in one piece to be booted."""
        node = self.files[name]
        if len(node.extents) != 1 or node.extents[0][0] % SECTOR:
            raise BadUdf(f"{name} is not in one piece")
        return node.extents[0][0] // SECTOR

    def removed(self, name: str) -> list[tuple[int, bytes]]:
        """Return what to write where, so that ``name`` is no longer in its folder."""
        where, old = self.files[name].name_at, bytearray(self.files[name].named)
        old[18] |= _DELETED
        length = struct.unpack_from("<H", old, 10)[0]
        struct.pack_into("<H", old, 8, binascii.crc_hqx(bytes(old[_TAG : _TAG + length]), 0))
        old[4] = (sum(old[:_TAG]) - old[4]) & 0xFF
        return [(at, bytes([value])) for at, value in zip(where, old, strict=True)]

    def _content(self, node: Node) -> bytes:
        return b"".join(self._at(at, length) for at, length in node.extents)[: node.size]

    def _at(self, offset: int, length: int) -> bytes:
        self._image.seek(offset)
        data = self._image.read(length)
        if len(data) != length:
            raise BadUdf(f"it ends at byte {offset + len(data)}, inside something it refers to")
        return data

    def _described(self, offset: int, length: int = SECTOR) -> tuple[int, bytes]:
        data = self._at(offset, length)
        return _tag(data, offset), data

    def _volume(self) -> tuple[int, int, int]:
        kind, anchor = self._described(_ANCHOR * SECTOR)
        if kind != _POINTER:
            raise BadUdf("its anchor is missing")
        length, first = struct.unpack_from("<2I", anchor, _TAG)
        start = end = top = None
        for number in range(length // SECTOR):
            kind, data = self._described((first + number) * SECTOR)
            if kind == _PARTITION:
                begins, sectors = struct.unpack_from("<2I", data, 188)
                start, end = begins * SECTOR, (begins + sectors) * SECTOR
            elif kind == _LOGICAL:
                if struct.unpack_from("<I", data, 212)[0] != SECTOR:
                    raise BadUdf("its blocks are not of 2048 bytes")
                top = struct.unpack_from("<I", data, 252)[0]
            elif kind == _TERMINATOR:
                break
        if start is None or end is None or top is None:
            raise BadUdf("it describes no volume")
        kind, data = self._described(start + top * SECTOR)
        if kind != _SET:
            raise BadUdf("its root is missing")
        return start, end, struct.unpack_from("<I", data, 404)[0]

    def _node(self, block: int) -> tuple[bool, Node]:
        """Return whether it is a folder, and its content."""
        at = self._start + block * SECTOR
        kind, data = self._described(at)
        if kind == _ENTRY:
            attributes, size, base = 168, *struct.unpack_from("<Q", data, 56), 176
        elif kind == _LONG_ENTRY:
            attributes, size, base = 208, *struct.unpack_from("<Q", data, 56), 216
        else:
            raise BadUdf(f"there is no file entry at byte {at}")
        skipped, used = struct.unpack_from("<2I", data, attributes)
        base += skipped
        if base + used > SECTOR:
            raise BadUdf(f"the file entry at byte {at} does not fit its block")
        form = struct.unpack_from("<H", data, 34)[0] & 7
        if form == _EMBEDDED:
            extents = [(at + base, size)]
        elif form in {_SHORT, _LONG}:
            step = 8 if form == _SHORT else 16
            pairs = [struct.unpack_from("<2I", data, base + n) for n in range(0, used, step)]
            extents = [(self._start + b * SECTOR, n & _LENGTH) for n, b in pairs if n & _LENGTH]
        else:
            raise BadUdf(f"the file entry at byte {at} has an unknown form")
        return data[27] == _FOLDER, Node(size, tuple(extents))

    def _walk(self, block: int, path: str) -> Iterator[tuple[str, Node]]:
        if block in self._seen or path.count("/") > _DEPTH:
            raise BadUdf("its folders are nested in one another")
        self._seen.add(block)
        folder, node = self._node(block)
        if not folder:
            raise BadUdf(f"{path or '/'} is no folder")
        data = self._content(node)
        places = [at + n for at, length in node.extents for n in range(length)][: node.size]
        offset = 0
        while offset + _FIXED <= len(data):
            if _tag(data[offset:], places[offset]) != _NAME:
                raise BadUdf(f"{path or '/'} has something that is no name")
            marks, letters = data[offset + 18], data[offset + 19]
            extra = struct.unpack_from("<H", data, offset + 36)[0]
            end = offset + _FIXED + extra + letters
            padded = -(-end // 4) * 4
            if padded > len(data):
                raise BadUdf(f"{path or '/'} ends inside a name")
            if not marks & (_DELETED | _PARENT):
                name = f"{path}/{_text(data[end - letters : end])}"
                inner = struct.unpack_from("<I", data, offset + 24)[0]
                if marks & _DIRECTORY:
                    yield from self._walk(inner, name)
                else:
                    _, content = self._node(inner)
                    whole = slice(offset, padded)
                    where = tuple(places[whole])
                    yield name, Node(content.size, content.extents, where, data[whole])
            offset = padded


def _tag(data: bytes, offset: int) -> int:
    """Return what kind of descriptor this is; its checksums must be right."""
    kind, _, check = struct.unpack_from("<HHB", data)
    if (sum(data[:_TAG]) - data[4]) & 0xFF != check:
        raise BadUdf(f"the descriptor at byte {offset} is damaged")
    crc, length = struct.unpack_from("<2H", data, 8)
    if binascii.crc_hqx(data[_TAG : _TAG + length], 0) != crc:
        raise BadUdf(f"the descriptor at byte {offset} is damaged")
    return int(kind)


def _text(raw: bytes) -> str:
    if raw[:1] == b"\x08":
        return raw[1:].decode("latin-1")
    if raw[:1] == b"\x10":
        return raw[1:].decode("utf-16-be")
    raise BadUdf("a name is in an unknown encoding")
