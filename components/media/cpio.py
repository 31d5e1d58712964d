"""Files put into a Linux initial RAM disk: an archive after the one that is there.

The kernel unpacks concatenated archives one after the other, compressed or not, each at a multiple
of 4 bytes (Documentation/driver-api/early-userspace/buffer-format.rst). Boot loaders are no kernels:
syslinux' mboot.c32 and GRUB unpack what gzip has packed, and lose what follows it.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER, _PROGRAM = 0o040755, 0o100755
_ALIGNED = 4
_GZIP = b"\x1f\x8b"
_MOST = 1 << 30
"""Most that one of gzip's may hold, bytes: the installer unpacks it into memory."""


def appended(initrd: bytes, programs: Mapping[str, bytes]) -> bytes:
    """Return ``initrd`` with ``programs`` in it, by absolute path, in whatever way it is compressed.

    Raises:
        ValueError: it is one of gzip's, and damaged or larger than any.
    """
    if not initrd.startswith(_GZIP):
        return _padded(initrd) + archive(programs)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(initrd, _MOST)
    except zlib.error as broken:
        raise ValueError(f"it is damaged ({broken})") from None
    if not unpacker.eof:
        raise ValueError(f"it is cut short, or holds more than {_MOST >> 30} GiB")
    packed = gzip.compress(_padded(plain) + archive(programs), compresslevel=1, mtime=0)
    return packed + unpacker.unused_data


def archive(programs: Mapping[str, bytes]) -> bytes:
    """Return an archive (newc) of ``programs``, by absolute path, root's, with the folders above them."""
    inside = {name.lstrip("/"): content for name, content in programs.items()}
    folders = {str(above) for name in inside for above in PurePosixPath(name).parents} - {"."}
    entries = [(name, _FOLDER, b"") for name in sorted(folders)]
    entries += [(name, _PROGRAM, inside[name]) for name in sorted(inside)]
    packed = b""
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        # Inode, mode, owner, group, links, time, size, two devices of two numbers, name's length, sum.
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode()
        packed += _padded(head + name.encode() + b"\0") + _padded(content)
    return packed


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNED)
