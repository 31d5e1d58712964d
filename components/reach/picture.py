"""Pictures of screens: a product's own command writes one into a file at its place; it arrives here as PNG."""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from typing import TYPE_CHECKING

from components.reach.driver import must
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from components.reach.shell import Shell

PNG = b"\x89PNG\r\n\x1a\n"
PPM = re.compile(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")
"""Head of what QEMU before 7.1 writes, whatever it is asked for: ppm(5), eight bits a colour."""
LARGEST = 32 << 20
"""Bytes; a PPM of 3840 by 2160 has 25 million. What a guest shows is not ours to trust."""


class NoPicture(Refused):
    """A screen that can't be had as a picture, with the reason."""


def taken(shell: Shell, command: Callable[[str], Sequence[str]]) -> bytes:
    """Return as PNG what ``command`` writes into the file that it is given the path of.

    Raises:
        NoPicture: it wrote none.
        DriverError: it refused.
        Unreachable: the place does not answer.
    """
    folder = must(shell, ["mktemp", "-d"]).strip()
    try:
        file = f"{folder}/screen.png"
        must(shell, command(file))
        told = must(shell, ["sh", "-c", 'head -c "$1" "$2" | base64', "sh", str(LARGEST), file])
    finally:
        shell.run(["rm", "-rf", "--", folder])
    try:
        return png(base64.b64decode(told))
    except binascii.Error:
        raise NoPicture(f"{shell.name} sent no picture") from None


def png(picture: bytes) -> bytes:
    """Return a PNG, or a PPM as PNG (W3C, PNG, chapters 5 and 11).

    Raises:
        NoPicture: it is neither, or is cut.
    """
    if picture.startswith(PNG):
        return picture
    head = PPM.match(picture)
    width, height = (int(head[1]), int(head[2])) if head else (0, 0)
    pixels = picture[head.end() :] if head else b""
    line = 3 * width
    if not width or not height or len(pixels) != line * height:
        raise NoPicture("what came is neither PNG nor a whole PPM")
    lines = b"".join(b"\0" + pixels[at : at + line] for at in range(0, len(pixels), line))
    # Eight bits for each of three colours, nothing interlaced.
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    return PNG + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
