"""Just enough UDF for Windows media: names, contents, and taking a file out of its folder.

Microsoft's ISOs hold their files in UDF 1.02 (ECMA-167), and in ISO 9660 only a note that says so,
which is all that xorriso sees. What is read here is what its maker, and genisoimage, write: one
physical partition, short, long or embedded allocation. Anything else is refused, not guessed.

A medium may come from anybody: a few kilobytes of a sparse file can tell of any number of folders of any
size. So every number that it tells is compared with what real media have, and names are counted.
"""

from __future__ import annotations

import binascii
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from components.refused import Refused
from components.stackfile.files import opened

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
_DESCRIPTORS = 64
"""Most descriptors of a volume that are read; real ones have six."""
_TREE_BYTES, _MOST_NAMES, _MOST_EXTENTS = 16 << 20, 200_000, 400_000
"""Most bytes that all names of a medium take, most names, most pieces of files; Windows' has 1,000."""
_PATH = 1023
"""Longest path (UDF 1.02, 2.3.4), characters."""
_PATHS = 64 << 20
"""Most characters of all paths together."""


class BadUdf(Refused):
    """The medium's UDF is damaged, or of a form that is not read here."""


@dataclass(frozen=True, slots=True)
class Node:
    """A file: where its content is."""

    size: int
    extents: tuple[tuple[int, int], ...]
    """Offset and length in the image, bytes."""
    name_at: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    """The same of the descriptor that names it."""


def present(image: BinaryIO) -> bool:
    """Whether the volume recognition sequence announces UDF."""
    for sector in _RECOGNITION:
        image.seek(sector * SECTOR)
        if image.read(6)[1:] in {b"NSR02", b"NSR03"}:
            return True
    return False


class Udf:
    """The tree of a UDF volume.

    Raises:
        BadUdf: it is damaged, of another form, or larger than any real medium's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with opened(path) as self._image:
            self._size = os.fstat(self._image.fileno()).st_size
            try:
                self._start, self.end, root = self._volume()
                self.files: dict[str, Node] = dict(self._walk(root))
                """Files by absolute path."""
            except (struct.error, ValueError, OverflowError, IndexError) as why:
                raise BadUdf(f"a descriptor does not hold together ({why})") from None

    def read(self, name: str, most: int) -> bytes:
        """Return a file's content.

        Raises:
            BadUdf: it is longer than ``most`` bytes, or reaches beyond the medium.
        """
        node = self.files[name]
        with opened(self._path) as self._image:
            return self._content(node, most, name)

    def sector(self, name: str) -> int:
        """Return where a file begins, in sectors; it must be in one piece to be booted."""
        node = self.files[name]
        if len(node.extents) != 1 or node.extents[0][0] % SECTOR:
            raise BadUdf(f"{name} is not in one piece")
        return node.extents[0][0] // SECTOR

    def removed(self, name: str) -> list[tuple[int, bytes]]:
        """Return what to write where, so that ``name`` is no longer in its folder."""
        pieces = self.files[name].name_at
        with opened(self._path) as self._image:
            old = bytearray(b"".join(self._at(at, length) for at, length in pieces))
        old[18] |= _DELETED
        length = struct.unpack_from("<H", old, 10)[0]
        struct.pack_into("<H", old, 8, binascii.crc_hqx(bytes(old[_TAG : _TAG + length]), 0))
        old[4] = (sum(old[:_TAG]) - old[4]) & 0xFF
        written, done = [], 0
        for at, length in pieces:
            written.append((at, bytes(old[done : done + length])))
            done += length
        return written

    def _content(self, node: Node, most: int, name: str) -> bytes:
        if node.size > most or sum(length for _, length in node.extents) > most + SECTOR:
            raise BadUdf(f"{name} tells of {node.size} bytes, more than anything of its kind has")
        return b"".join(self._at(at, length) for at, length in node.extents)[: node.size]

    def _at(self, offset: int, length: int) -> bytes:
        if offset + length > self._size:
            raise BadUdf(f"it ends at byte {self._size}, inside something it refers to")
        self._image.seek(offset)
        data = self._image.read(length)
        if len(data) != length:
            raise BadUdf(f"it ends at byte {offset + len(data)}, inside something it refers to")
        return data

    def _described(self, offset: int) -> tuple[int, bytes]:
        data = self._at(offset, SECTOR)
        return _tag(data, offset), data

    def _volume(self) -> tuple[int, int, int]:
        kind, anchor = self._described(_ANCHOR * SECTOR)
        if kind != _POINTER:
            raise BadUdf("its anchor is missing")
        length, first = struct.unpack_from("<2I", anchor, _TAG)
        start = end = top = None
        for number in range(min(length // SECTOR, _DESCRIPTORS)):
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
            extents = [(at + base, used)]
        elif form in {_SHORT, _LONG}:
            step = 8 if form == _SHORT else 16
            pairs = [struct.unpack_from("<2I", data, base + n) for n in range(0, used - 7, step)]
            extents = [(self._start + b * SECTOR, n & _LENGTH) for n, b in pairs if n & _LENGTH]
        else:
            raise BadUdf(f"the file entry at byte {at} has an unknown form")
        if size > sum(length for _, length in extents):
            raise BadUdf(f"the file entry at byte {at} tells of more than it has")
        return data[27] == _FOLDER, Node(size, tuple(extents))

    def _walk(self, root: int) -> Iterator[tuple[str, Node]]:
        seen, waiting = {root}, [(root, "")]
        tree = paths = names = extents = 0
        while waiting:
            block, path = waiting.pop()
            folder, node = self._node(block)
            if not folder:
                raise BadUdf(f"{_named(path)} is no folder")
            tree += node.size
            if tree > _TREE_BYTES:
                raise BadUdf("it has more names than any real medium")
            data = self._content(node, _TREE_BYTES, f"the folder {_named(path)}")
            for offset, length in self._names(data, node, path):
                marks, letters = data[offset + 18], data[offset + 19]
                if marks & (_DELETED | _PARENT):
                    continue
                end = offset + _FIXED + struct.unpack_from("<H", data, offset + 36)[0] + letters
                name = f"{path}/{_text(data[end - letters : end])}"
                paths += len(name)
                if len(name) > _PATH or name.count("/") > _DEPTH or paths > _PATHS:
                    raise BadUdf("its paths are longer than any real medium's")
                inner = struct.unpack_from("<I", data, offset + 24)[0]
                if not marks & _DIRECTORY:
                    content = self._node(inner)[1]
                    names, extents = names + 1, extents + len(content.extents)
                    if names > _MOST_NAMES or extents > _MOST_EXTENTS:
                        raise BadUdf("it has more files than any real medium")
                    pieces = tuple(_pieces(node.extents, offset, length))
                    yield name, Node(content.size, content.extents, pieces)
                elif inner in seen:
                    raise BadUdf("its folders are nested in one another")
                else:
                    seen.add(inner)
                    waiting.append((inner, name))

    def _names(self, data: bytes, node: Node, path: str) -> Iterator[tuple[int, int]]:
        """Yield where in a folder's content each name is, and how long its descriptor is, bytes."""
        offset = 0
        while offset + _FIXED <= len(data):
            extra, letters = struct.unpack_from("<H", data, offset + 36)[0], data[offset + 19]
            length = -(-(_FIXED + extra + letters) // 4) * 4
            if offset + length > len(data):
                raise BadUdf(f"{_named(path)} ends inside a name")
            at = next(_pieces(node.extents, offset, 1))[0]
            if _tag(data[offset : offset + length], at) != _NAME:
                raise BadUdf(f"{_named(path)} has something that is no name")
            yield offset, length
            offset += length


def _pieces(
    extents: tuple[tuple[int, int], ...], offset: int, length: int
) -> Iterator[tuple[int, int]]:
    """Yield where in the image ``length`` bytes of a content lie, from its byte ``offset`` on."""
    for at, size in extents:
        if length and offset < size:
            part = min(size - offset, length)
            yield at + offset, part
            length -= part
            offset += part
        offset -= size


def _named(path: str) -> str:
    return path if path.isprintable() and path else repr(path) if path else "/"


def _tag(data: bytes, offset: int) -> int:
    """Return what kind of descriptor ``data`` is; its checksums must be right, and of it alone."""
    kind, _, check = struct.unpack_from("<HHB", data)
    crc, length = struct.unpack_from("<2H", data, 8)
    wrong = (sum(data[:_TAG]) - data[4]) & 0xFF != check or _TAG + length > len(data)
    if wrong or binascii.crc_hqx(data[_TAG : _TAG + length], 0) != crc:
        raise BadUdf(f"the descriptor at byte {offset} is damaged")
    return int(kind)


def _text(raw: bytes) -> str:
    if raw[:1] == b"\x08":
        return raw[1:].decode("latin-1")
    if raw[:1] == b"\x10":
        return raw[1:].decode("utf-16-be")
    raise BadUdf("a name is in an unknown encoding")
