"""What a file is: whether it is one, and by its content what is in it.

A stack file may come from anybody, so a file is judged before it is opened, opened without waiting, and
never by its name: a pipe, a device or a file of the kernel's would block, or do something.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from components.stackfile import images

if TYPE_CHECKING:
    from components.stackfile.images import ImageFormat

Content = Literal["absent", "folder", "iso", "image", "archive", "program", "other", "unreadable"]

ISO_MARK = b"CD001"
ISO_MARK_AT = 0x8001
"""ECMA-119: the first volume descriptor is sector 16 of 2048 bytes, its name begins at byte 1."""
SECTOR = 2048
HEAD = ISO_MARK_AT - 1 + SECTOR
TAR_MARK, TAR_MARK_AT = b"ustar", 257
PACKED = {
    b"\x1f\x8b": "a gzip archive",
    b"\xfd7zXZ": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"(\xb5/\xfd": "a zstd archive",
}
"""Archives that hold a container's template."""
FOREIGN = {
    **PACKED,
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "a ZIP archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"LZIP": "an lzip archive",
    b"MSCF": "a cabinet archive",
    b"!<arch>": "a Debian package",
    b"\xed\xab\xee\xdb": "an RPM package",
    b"%PDF": "a PDF",
    b"\x7fELF": "a Linux program",
    b"MZ": "a Windows program",
    b"#!": "a script",
}
"""What is mistaken for a medium, by how it begins."""
_BY_MARK: dict[bytes, Content] = dict.fromkeys(PACKED, "archive") | {b"#!": "program"}  # type: ignore[assignment]
PSEUDO = {
    "autofs",
    "bdev",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
}
"""File systems (proc(5), mountinfo) whose files are the kernel speaking; reading them may block."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a file is."""

    content: Content
    word: str = ""
    """What it is, as the end of "it is", where it is something recognisable."""
    form: ImageFormat | Literal[""] = ""
    """Of a disk image."""
    virtual: int = 0
    """Of a disk image that may be used: bytes of the disk that a machine sees."""
    wrong: tuple[str, str] | None = None
    """Rule and remedy, where it is what it seems and can't be used."""
    plain_tar: bool = False
    """Whether it is a tar archive that nobody compressed."""


class NoFile(OSError):
    """There is no file to be read here: something else is."""


def reason(failed: OSError | ValueError) -> str:
    """Return in a few words why a file was not opened."""
    if isinstance(failed, OSError) and failed.strerror:
        return failed.strerror.lower()
    return str(failed) or type(failed).__name__


def special(real: str) -> str:
    """Return what ``real``, without links in it, is instead of a file; empty for one, and for nothing."""
    try:
        found = os.lstat(real)
    except (OSError, ValueError):
        return ""
    if stat.S_ISREG(found.st_mode):
        return "the kernel's, and not on a disk" if found.st_dev in _pseudo() else ""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(found.st_mode), "a link that leads nowhere")


def _pseudo() -> set[int]:
    found = set[int]()
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        words, _, rest = line.partition(" - ")
        if rest.partition(" ")[0] in PSEUDO:
            major, _, minor = words.split()[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def opened(path: str | Path) -> BinaryIO:
    """Open the file that ``path`` leads to; what is no file is not opened.

    Raises:
        OSError: it can't be opened, is no file (`NoFile`), or was exchanged meanwhile.
    """
    try:
        real = os.path.realpath(path)
        before = os.lstat(real)
    except ValueError as wrong:
        raise NoFile(str(wrong)) from None
    if word := special(real):
        raise NoFile(f"it is {word}")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(real, flags)
    after = os.fstat(descriptor)
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino) or not stat.S_ISREG(
        after.st_mode
    ):
        os.close(descriptor)
        raise NoFile("it was exchanged while it was looked at")
    return os.fdopen(descriptor, "rb")


def there(path: str | Path) -> bool:
    """Whether ``path`` leads to a file."""
    try:
        real = os.path.realpath(path)
        return stat.S_ISREG(os.lstat(real).st_mode)
    except (OSError, ValueError):
        return False


def glance(path: str) -> Glance:
    """Return what ``path`` holds; of a disk image its header is read, and what it refers to."""
    try:
        with opened(path) as stream:
            return _judged(stream, os.fstat(stream.fileno()).st_size)
    except FileNotFoundError:
        return Glance("absent")
    except NoFile as other:
        return Glance("folder", str(other).removeprefix("it is "))
    except OSError as failed:
        return Glance("unreadable", reason(failed))


def _judged(stream: BinaryIO, size: int) -> Glance:
    head = stream.read(HEAD)
    if not head:
        return Glance("other", "an empty file")
    # Before the ISO: a medium that is both would be read as an image by whoever guesses.
    if form := images.form_of(head):
        virtual, wrong = images.judged(stream, size, form)
        return Glance("image", images.WORDS[form], form, virtual, wrong)
    if head[ISO_MARK_AT : ISO_MARK_AT + len(ISO_MARK)] == ISO_MARK:
        return Glance("iso", "an ISO", wrong=_cut(head, size))
    found = _other(head, images.foreign(stream, size, head))
    if found.content == "other" and not found.word and images.bootable(stream, head):
        virtual, wrong = images.judged(stream, size, "raw")
        return Glance("image", images.WORDS["raw"], "raw", virtual, wrong)
    return found


def _other(head: bytes, foreign: str) -> Glance:
    if head[TAR_MARK_AT : TAR_MARK_AT + len(TAR_MARK)] == TAR_MARK:
        return Glance("archive", "a tar archive, or an OVA", plain_tar=True)
    for mark, word in FOREIGN.items():
        if head.startswith(mark):
            return Glance(_BY_MARK.get(mark, "other"), word)
    return Glance("other", foreign or text_word(head))


def _cut(head: bytes, size: int) -> tuple[str, str] | None:
    at = ISO_MARK_AT - 1
    if head[at] != 1:
        return None
    blocks = int.from_bytes(head[at + 80 : at + 84], "little")
    if size >= blocks * SECTOR:
        return None
    return f"it has {size} of the {blocks * SECTOR} bytes of its volume", "get the file again"


def text_word(head: bytes) -> str:
    """Return what a text is that a server answered instead of a file; empty for what is no text."""
    for bom, code in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"", "utf-8")):
        if head.startswith(bom):
            text = head[len(bom) : 1024].decode(code, "ignore").lstrip("\ufeff \t\r\n\f\v")
            break
    if not text or not re.match(r"[ -~\s]+\Z", text[:64]):
        return ""
    lowered = text.lower()
    if lowered.startswith("<?xml") and "<html" not in lowered:
        return "an XML text"
    if lowered.startswith("<"):
        return "a web page"
    if text[0] in "{[":
        return "a JSON text"
    return "a text"
