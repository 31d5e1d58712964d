"""El Torito: which images a CD boots, in BIOS and in UEFI.

Read, and pointed elsewhere, in the catalog itself: its entries are 32 bytes at a place that the
volume descriptors name, whatever file system the rest of the medium has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

SECTOR = 2048
ENTRY = 32
_ID = b"EL TORITO SPECIFICATION"
_BOOTABLE = 0x88
_SECTION, _LAST_SECTION = 0x90, 0x91
_EXTENSION = 0x44
_FIRMWARE: dict[int, Literal["bios", "uefi"]] = {0x00: "bios", 0xEF: "uefi"}

Firmware = Literal["bios", "uefi"]


@dataclass(frozen=True)
class Image:
    """One boot image of a catalog."""

    firmware: Firmware
    offset: int
    """Where its entry is, counted from the catalog's first byte."""
    sector: int
    """Where the image begins, in sectors of 2048 bytes."""


def catalog_sector(descriptor: bytes) -> int | None:
    """Return where the catalog is, if this volume descriptor is El Torito's."""
    if descriptor[0] != 0 or not descriptor[7:39].startswith(_ID):
        return None
    return int(struct.unpack_from("<I", descriptor, 0x47)[0])


def images(catalog: bytes) -> list[Image]:
    """Return the bootable images of a catalog; none where it is no catalog."""
    words = struct.unpack_from("<16H", catalog) if len(catalog) >= ENTRY else (1,)
    if catalog[:1] != b"\1" or catalog[30:32] != b"\x55\xaa" or sum(words) & 0xFFFF:
        return []
    found: list[Image] = []
    _take(catalog, ENTRY, catalog[1], found)
    at = 2 * ENTRY
    while at + ENTRY <= len(catalog) and catalog[at] in {_SECTION, _LAST_SECTION}:
        last, platform = catalog[at] == _LAST_SECTION, catalog[at + 1]
        count = struct.unpack_from("<H", catalog, at + 2)[0]
        at += ENTRY
        while count and at + ENTRY <= len(catalog):
            if catalog[at] != _EXTENSION:
                _take(catalog, at, platform, found)
                count -= 1
            at += ENTRY
        if last:
            break
    return found


def _take(catalog: bytes, at: int, platform: int, found: list[Image]) -> None:
    firmware = _FIRMWARE.get(platform)
    if at + ENTRY > len(catalog):
        return
    if firmware and catalog[at] == _BOOTABLE:
        found.append(Image(firmware, at, struct.unpack_from("<I", catalog, at + 8)[0]))


def pointed(catalog: bytes, image: Image, sector: int) -> bytes:
    """Return the catalog with ``image`` at another ``sector``."""
    at = image.offset + 8
    return catalog[:at] + struct.pack("<I", sector) + catalog[at + 4 :]
