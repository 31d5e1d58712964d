"""Disk images: what their headers say, and whether they are all there is of the disk.

An image whose header names another file makes that file readable, and writable, for the guest: QEMU
and the products follow it. So what refers to a parent, a backing file, extents or a data file
elsewhere is refused, and what can't be read is. Each reader reads a bounded number of bytes, whatever
the header says. Facts: QEMU's docs/interop/qcow2.txt and block/{qcow2,vmdk,vpc,vhdx,vdi}.c, MS-VHDX,
Microsoft's VHD specification 1.0, VMware's Virtual Disk Format 5.0.
"""

from __future__ import annotations

import re
import struct
import uuid
from array import array
from typing import TYPE_CHECKING, BinaryIO, Literal

from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ImageFormat = Literal["qcow2", "raw", "vmdk", "vhdx", "vhd", "vdi"]
QCOW2_MARK = b"QFI\xfb"
MARKS: dict[bytes, ImageFormat] = {
    QCOW2_MARK: "qcow2",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vhd",
    b"<<< ": "vdi",
}
WORDS: dict[str, str] = {
    "qcow2": "a qcow2 image",
    "raw": "a raw disk image",
    "vmdk": "a VMware disk (vmdk)",
    "vhdx": "a Hyper-V disk (vhdx)",
    "vhd": "a Virtual PC disk (vhd)",
    "vdi": "a VirtualBox disk (vdi)",
}
OTHERS = {
    b"QED\0": "a QED image",
    b"WithoutFreeSpace": "a Parallels disk",
    b"WithouFreSpacExt": "a Parallels disk",
    b"Bochs Virtual HD Image": "a Bochs disk",
    b"#!/bin/sh\n#V2.0 Format": "a cloop image",
    b"LUKS\xba\xbe": "an encrypted disk",
}
"""Formats that QEMU knows and nothing here takes."""
QEMU_NAMES = {"vhd": "vpc"}
"""What qemu-img calls a format where that is another name."""
BLOCK = 512
MOST_TABLE = 8 << 20
"""Most that is read of a table, bytes: QEMU's own bound of a qcow2's table of reference counts."""
_MOST_L1 = 32 << 20
"""QEMU's own bound of a qcow2's L1 table, bytes."""
MOST_DISK = 1 << 50
"""Largest disk, bytes; more is no real image."""
MOST_EXTENSIONS = 64
DESCRIBED = 2048
"""Where in a file that only describes a disk it says so, bytes."""
DESCRIPTOR = 20 << 9
"""Most that is read of a VMDK's descriptor, bytes: what QEMU reads."""
FLATTEN = "flatten it: qemu-img convert"
WHOLE_VMDK = "qemu-img convert -O vmdk -o subformat=streamOptimized"
AGAIN = "get the file again"


class BadImage(Refused):
    """It can't be used; rule and remedy."""

    def __init__(self, rule: str, remedy: str = AGAIN) -> None:
        super().__init__("", rule, remedy)


def form_of(head: bytes) -> ImageFormat | Literal[""]:
    """Return the format that a file's beginning announces; empty for none, as of a raw image."""
    for mark, form in MARKS.items():
        if head.startswith(mark):
            return form
    if head.startswith(b"#!"):
        return ""
    # QEMU knows a descriptor by its first line that is no remark.
    for line in head[:DESCRIBED].lower().splitlines():
        if b"disk descriptorfile" in line or line.strip().startswith(b"version="):
            return "vmdk"
        if line.strip() and not line.startswith(b"#"):
            break
    return ""


def judged(image: BinaryIO, size: int, form: ImageFormat) -> tuple[int, tuple[str, str] | None]:
    """Return the bytes of its disk, and rule and remedy where it can't be used."""
    try:
        virtual = _READERS[form](image, size)
        if virtual > MOST_DISK:
            raise BadImage(f"its header tells of a disk of {virtual} bytes")  # noqa: TRY301
    except BadImage as bad:
        return 0, (bad.rule, bad.remedy)
    except (struct.error, ValueError, OverflowError, OSError):
        return 0, ("its header is damaged", AGAIN)
    return virtual, None


def _at(image: BinaryIO, offset: int, length: int) -> bytes:
    if length > MOST_TABLE:
        raise BadImage("its header tells of a table that no real image has")
    image.seek(offset)
    data = image.read(length)
    if len(data) < length:
        raise BadImage("it is cut short")
    return data


def _within(size: int, end: int) -> None:
    if end > size:
        raise BadImage(f"it is cut short: it has {size} bytes and refers to its byte {end}")


# qcow2 ------------------------------------------------------------------------------------------

_OLDER, _NEWER = 2, 3
_CLUSTER_BITS, _ORDERS = range(9, 22), range(7)
_SHORTEST = 72
"""Length of the header of version 2, bytes."""
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = 1, 2, 4, 8, 16
_EXT_DATA_FILE = 0x44415441


def _qcow2(image: BinaryIO, size: int) -> int:
    head = _at(image, 0, min(size, 112))
    version, backing, backing_length, bits, virtual, crypt = struct.unpack_from(">IQIIQI", head, 4)
    if version not in {_OLDER, _NEWER}:
        raise BadImage(f"it is a qcow image of version {version}", f"{FLATTEN} -O qcow2")
    if backing or backing_length:
        raise BadImage("it is a change to another image, which it names", f"{FLATTEN} -O qcow2")
    if crypt:
        raise BadImage("it is encrypted", "decrypt it: qemu-img convert")
    l1_size, l1_at, table_at, table_clusters = struct.unpack_from(">IQQI", head, 36)
    features, order, length = 0, 4, _SHORTEST
    if version == _NEWER:
        features, _, _, order, length = struct.unpack_from(">QQQII", head, 72)
    _marks(features)
    # Before anything is shifted by it: 2^(2^32) takes half a gigabyte.
    if bits not in _CLUSTER_BITS:
        raise BadImage("its header is damaged")
    cluster = 1 << bits
    if order not in _ORDERS or length not in range(_SHORTEST, cluster + 1, 8):
        raise BadImage("its header is damaged")
    _extensions(image, length, min(cluster, size))
    if l1_size * 8 > _MOST_L1 or not table_clusters:
        raise BadImage("its header is damaged")
    _within(size, l1_at + l1_size * 8)
    _within(size, _last_cluster(image, table_at, table_clusters, bits, order) * cluster + 1)
    return int(virtual)


def _marks(features: int) -> None:
    if features & _DATA_FILE:
        raise BadImage("its content is in another file, which it names", f"{FLATTEN} -O qcow2")
    if features & _CORRUPT:
        raise BadImage("it is marked as damaged", "mend it: qemu-img check -r all")
    if features & ~(_DIRTY | _COMPRESSION | _EXTENDED):
        raise BadImage("it needs something that QEMU does not have yet")


def _extensions(image: BinaryIO, at: int, end: int) -> None:
    for _ in range(MOST_EXTENSIONS):
        if at + 8 > end:
            return
        kind, length = struct.unpack(">II", _at(image, at, 8))
        if kind == 0:
            return
        if kind == _EXT_DATA_FILE:
            raise BadImage("its content is in another file, which it names", f"{FLATTEN} -O qcow2")
        at += 8 + -(-length // 8) * 8
        if at > end:
            raise BadImage("its header is damaged")
    raise BadImage("its header is damaged")


def _last_cluster(image: BinaryIO, at: int, clusters: int, bits: int, order: int) -> int:
    """Return the last cluster that is counted as used: a file that ends before it was cut."""
    blocks = _at(image, at, clusters << bits).rstrip(b"\0")
    if not blocks:
        raise BadImage("its header is damaged")
    number = (len(blocks) - 1) // 8
    entry = int.from_bytes(blocks[number * 8 : number * 8 + 8].ljust(8, b"\0"), "big") & ~0x1FF
    counts = _at(image, entry, 1 << bits).rstrip(b"\0")
    each = (1 << bits) * 8 >> order
    last = max(len(counts) - 1, 0) * 8 >> order
    return number * each + last


# raw --------------------------------------------------------------------------------------------

_BOOT_MARK = b"\x55\xaa"
_FIXED = b"\0\0\0\2"
"""Type of a VHD that is a raw image with a footer."""
_FILE_SYSTEMS = (
    (0x438, b"\x53\xef"),
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),
    (0, b"hsqs"),
    (0x400, b"\x10\x20\xf5\xf2"),
    (0x218, b"LVM2 001"),
)
"""ext2 to ext4, XFS, btrfs, squashfs, F2FS and LVM: where each says so, and how."""


def bootable(image: BinaryIO, head: bytes) -> bool:
    """Whether a file without a format of its own is a disk: it has a boot sector or a file system."""
    if head[510:512] == _BOOT_MARK or head[512:520] == b"EFI PART":
        return True
    for at, mark in _FILE_SYSTEMS:
        image.seek(at)
        if image.read(len(mark)) == mark:
            return True
    return False


def foreign(image: BinaryIO, size: int, head: bytes) -> str:
    """Return what a file is that looks like a raw image to whoever does not know its format."""
    if size > BLOCK:
        image.seek(size - BLOCK)
        tail = image.read(BLOCK)
        if tail.startswith(b"conectix") and tail[60:64] != _FIXED:
            return "a part of a Virtual PC disk (vhd)"
        if tail.startswith(b"koly"):
            return "an Apple disk (dmg)"
    return next((word for mark, word in OTHERS.items() if head.startswith(mark)), "")


def _raw(image: BinaryIO, size: int) -> int:
    head = _at(image, 0, min(size, 2048))
    if head[512:520] == b"EFI PART":
        # The last block of the disk has a copy of the table.
        _within(size, (struct.unpack_from("<Q", head, 512 + 32)[0] + 1) * BLOCK)
    elif head[510:512] == _BOOT_MARK and not re.search(rb"FAT|NTFS|MSDOS|mkfs", head[3:90]):
        for at in range(446, 510, 16):
            mark, kind = head[at], head[at + 4]
            first, count = struct.unpack_from("<II", head, at + 8)
            if mark in {0, 0x80} and kind not in {0, 0xEE} and first and count:
                _within(size, (first + count) * BLOCK)
    elif head[0x438:0x43A] == b"\x53\xef":
        blocks, shift = struct.unpack_from("<I", head, 0x404)[0], head[0x418]
        if shift in _ORDERS:
            _within(size, blocks << (10 + shift))
    return -(-size // BLOCK) * BLOCK


# VMDK -------------------------------------------------------------------------------------------

_AT_END = 0xFFFFFFFFFFFFFFFF
_MOST_TABLES = 1 << 16
_MOST_ENTRIES_OF_A_TABLE = 512
_READ_TABLES = 1 << 12
"""Of more, 128 GiB in their usual size, the contents are not looked into."""


def _vmdk(image: BinaryIO, size: int) -> int:
    head = _at(image, 0, min(size, BLOCK))
    if not head.startswith(b"KDMV"):
        rule = "it only describes a disk that lies in other files, or is of ESX 2"
        raise BadImage(rule, f"convert the whole disk: {WHOLE_VMDK}")
    capacity, grain, described, description, entries = struct.unpack_from("<QQQQI", head, 12)
    directory = struct.unpack_from("<Q", head, 56)[0]
    if entries > _MOST_ENTRIES_OF_A_TABLE:
        raise BadImage("its header tells of a table that no real image has")
    if not capacity or not grain or not entries:
        raise BadImage("its content is in another file, which it names", f"{FLATTEN} -O vmdk")
    # QEMU looks behind the header, whatever the header says of where its description is.
    image.seek(BLOCK)
    extents = _described(image.read(DESCRIPTOR))
    if described:
        extents += _described(_at(image, described * BLOCK, min(description * BLOCK, DESCRIPTOR)))
    # A disk in several files is described in another one, which each part looks like a disk without.
    if not extents:
        rule = "it is one part of a disk, which another file describes"
        raise BadImage(rule, f"convert the whole disk, by that file: {WHOLE_VMDK}")
    if directory == _AT_END:
        _within(size, 1024)
        # Its footer, the header again, is the last but one block.
        if _at(image, size - 1024, 4) != b"KDMV":
            raise BadImage("it is cut short")
    else:
        _grains(image, size, directory * BLOCK, -(-capacity // (grain * entries)), entries * 4)
    return int(capacity * BLOCK)


def _grains(image: BinaryIO, size: int, at: int, tables: int, length: int) -> None:
    """Follow the directory of ``tables`` tables of ``length`` bytes to where the content ends."""
    if tables > _MOST_TABLES:
        raise BadImage("its header tells of a table that no real image has")
    for table in filter(None, array("I", _at(image, at, tables * 4))):
        _within(size, table * BLOCK + length)
        if tables <= _READ_TABLES:
            last = max(array("I", _at(image, table * BLOCK, length)))
            _within(size, last * BLOCK + (last > 1))


def _described(text: bytes) -> int:
    """Look that a description names no other file; return of how many parts it says that the disk is."""
    if b"parentfilenamehint" in text.lower():
        raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vmdk")
    lines = text.split(b"\0", 1)[0].decode("latin-1").splitlines()
    extents = []
    for line in lines:
        key, _, value = (part.strip().strip('"') for part in line.partition("="))
        if key.lower() == "parentcid" and value.lower() != "ffffffff":
            raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vmdk")
        if found := re.match(r"\s*(RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)\s*(.*)", line, re.IGNORECASE):
            extents.append((found[2].upper(), found[3]))
    # Its one extent is itself, by whatever name it had when it was made.
    for form, name in extents:
        if len(extents) > 1 or form != "SPARSE" or re.search(r'[/\\:]|"\s*\.\.', name):
            raise BadImage("its content is in other files, which it names", f"{FLATTEN} -O vmdk")
    return len(extents)


# VHD --------------------------------------------------------------------------------------------

_DYNAMIC = 3
_LOCATORS = range(576, 576 + 8 * 24, 24)


def _vhd(image: BinaryIO, size: int) -> int:
    head = _at(image, 0, BLOCK)
    data_at, virtual, kind = (
        *struct.unpack_from(">Q", head, 16),
        *struct.unpack_from(">Q", head, 48),
        *struct.unpack_from(">I", head, 60),
    )
    if kind != _DYNAMIC:
        raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vpc")
    table = _at(image, data_at, 1024)
    if not table.startswith(b"cxsparse"):
        raise BadImage("its header is damaged")
    if any(table[at : at + 4] != b"\0\0\0\0" for at in _LOCATORS) or table[64:576].strip(b"\0"):
        raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vpc")
    foot = _at(image, size - BLOCK, BLOCK)
    if not foot.startswith(b"conectix"):
        raise BadImage("it is cut short: its footer is not there")
    if foot[16:24] != head[16:24] or foot[48:64] != head[48:64]:
        raise BadImage("its header is damaged")
    return int(virtual)


# VHDX -------------------------------------------------------------------------------------------

_KIB = 1 << 10
_MIB = 1 << 20
_REGIONS = (192 * _KIB, 256 * _KIB)
_HEADERS = (64 * _KIB, 128 * _KIB)
_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_HAS_PARENT = 2
_PRESENT = 6
"""State of a block that lies in the file."""
_MOST_ENTRIES = 2047


def _vhdx(image: BinaryIO, size: int) -> int:
    for at in _HEADERS:
        head = _at(image, at, 64)
        # A log may change what the header says, as soon as somebody opens the image.
        if head.startswith(b"head") and head[48:64].strip(b"\0"):
            rule = "it was not closed, and its log would change it"
            raise BadImage(rule, "open and close it where it was made, or get it again")
    regions = list(_regions(image, size))
    described = [(offset, length) for kind, offset, length in regions if kind == _METADATA]
    tables = [(offset, length) for kind, offset, length in regions if kind == _BAT]
    # One of each, in each copy of the table of regions.
    if max(len(described), len(tables)) > len(_REGIONS):
        raise BadImage("its header is damaged")
    found = {_metadata(image, offset, length) for offset, length in described}
    if len(found) != 1:
        raise BadImage("its header is damaged")
    virtual, block = found.pop()
    for offset, length in tables:
        blocks = array("Q", _at(image, offset, length // 8 * 8))
        if last := max((one >> 20 for one in blocks if one & 7 == _PRESENT), default=0):
            _within(size, last * _MIB + block)
    return virtual


def _regions(image: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield what both copies of the table of regions name: kind, offset and length."""
    for at in _REGIONS:
        if not (region := _at(image, at, 64 * _KIB)).startswith(b"regi"):
            continue
        count = struct.unpack_from("<I", region, 8)[0]
        if count > _MOST_ENTRIES:
            raise BadImage("its header is damaged")
        for entry in range(16, 16 + 32 * count, 32):
            offset, length = struct.unpack_from("<QI", region, entry + 16)
            _within(size, offset + length)
            yield region[entry : entry + 16], offset, length


def _metadata(image: BinaryIO, at: int, length: int) -> tuple[int, int]:
    """Return the size of the disk and of a block, bytes."""
    table = _at(image, at, min(length, 64 * _KIB))
    count = struct.unpack_from("<H", table, 10)[0]
    if not table.startswith(b"metadata") or count > _MOST_ENTRIES:
        raise BadImage("its header is damaged")
    virtual = block = 0
    for entry in range(32, 32 + 32 * count, 32):
        item, offset = table[entry : entry + 16], struct.unpack_from("<I", table, entry + 16)[0]
        parent = item == _PARENT
        if item == _PARAMETERS:
            block, marks = struct.unpack("<II", _at(image, at + offset, 8))
            parent = bool(marks & _HAS_PARENT)
        elif item == _SIZE:
            virtual = struct.unpack("<Q", _at(image, at + offset, 8))[0]
        if parent:
            raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vhdx")
    if not virtual or not block:
        raise BadImage("its header is damaged")
    return int(virtual), int(block)


# VDI --------------------------------------------------------------------------------------------

_VDI_MARK = 0xBEDA107F
_PLAIN = (1, 2)


def _vdi(image: BinaryIO, size: int) -> int:
    head = _at(image, 0, BLOCK)
    mark, kind = struct.unpack_from("<I", head, 0x40)[0], struct.unpack_from("<I", head, 0x4C)[0]
    if mark != _VDI_MARK:
        raise BadImage("its header is damaged")
    if kind not in _PLAIN or head[0x1A8:0x1C8].strip(b"\0"):
        raise BadImage("it is a change to another disk, which it names", f"{FLATTEN} -O vdi")
    data_at, virtual = (
        struct.unpack_from("<I", head, 0x158)[0],
        struct.unpack_from("<Q", head, 0x170)[0],
    )
    block, used = struct.unpack_from("<I", head, 0x178)[0], struct.unpack_from("<I", head, 0x184)[0]
    _within(size, data_at + block * used)
    return int(virtual)


_READERS: dict[ImageFormat, Callable[[BinaryIO, int], int]] = {
    "qcow2": _qcow2,
    "raw": _raw,
    "vmdk": _vmdk,
    "vhd": _vhd,
    "vhdx": _vhdx,
    "vdi": _vdi,
}
