"""XCP-ng's and XenServer's host-installer, as far as it finds its answers, over a folder for its root.

Written after host-installer 10.9.2 (of 8.2), 10.10.19 (of XCP-ng 8.3) and 10.10.38 (of XenServer 8):
``startup/preinit`` (kernel arguments become options), ``startup/S06mount`` and, since 10.10.17,
``disktools.DeviceMounter`` (when ``mount=`` is mounted), ``install.go`` and ``scripts.run_script``
(how an answerfile is fetched or generated, and which interpreters a script may have). How the boot
loader reads install.img: syslinux, com32/mboot/mboot.c, ``get_modules``. How the kernel unpacks it:
Linux, init/initramfs.c, ``unpack_to_rootfs``.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import subprocess
import zlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from components.media.iso import Iso

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

RELEASES = ("8.2", "8.3")
"""Of XCP-ng; XenServer 8 is as 8.3."""
INTERPRETERS = ("/bin/sh", "/bin/bash", "/usr/bin/python")
"""That 8.2 to XenServer 8 all take."""
COMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {
    # The kernel knows no other check sum of xz than CRC32.
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "bzip2": bz2.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "nothing": bytes,
}
_HEAD = 110


class NoAnswers(Exception):
    """What the installer ends with."""


def root(form: str = "xz") -> bytes:
    """Return an install.img: a root with a program, compressed."""
    content = b"#!/bin/sh\n"
    archive = _entry("opt", 0o040755) + _entry("opt/init", 0o100755, content)
    return COMPRESSED[form](archive + _entry("TRAILER!!!", 0))


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return b"".join(part + b"\0" * (-len(part) % 4) for part in (head, content))


def loaded(image: bytes) -> bytes:
    """Return what mboot.c32 makes of a module: one of gzip is inflated, and what follows it is lost."""
    return zlib.decompressobj(31).decompress(image) if image.startswith(b"\x1f\x8b") else image


def unpack(image: bytes, to: Path) -> None:
    """Unpack an initial RAM disk as Linux does; what it does not know ends it, as there."""
    at = 0
    while at < len(image):
        if image[at] == 0:
            at += 1
        elif image[at : at + 6] == b"070701" and at % 4 == 0:
            at += _files(image[at:], to)
        else:
            plain, used = _plain(image[at:])
            _files(plain, to)
            at += used


def _plain(data: bytes) -> tuple[bytes, int]:
    unpacker: lzma.LZMADecompressor | bz2.BZ2Decompressor | zlib._Decompress
    if data.startswith(b"\xfd7zXZ"):
        unpacker = lzma.LZMADecompressor()
    elif data.startswith(b"BZh"):
        unpacker = bz2.BZ2Decompressor()
    elif data.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(31)
    else:
        raise ValueError("junk within compressed archive")
    plain = unpacker.decompress(data)
    return plain, len(data) - len(unpacker.unused_data)


def _files(archive: bytes, to: Path) -> int:
    """Unpack one archive; return its length."""
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + _HEAD : at + _HEAD + length - 1].decode()
        at += (_HEAD + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            return at
        path = to / name
        if mode & 0o170000 == 0o040000:
            path.mkdir(mode & 0o777, exist_ok=True)
        else:
            path.write_bytes(archive[at : at + size])  # the kernel makes no folder above it
            path.chmod(mode & 0o7777)
        at += (size + 3) // 4 * 4


def answers(installer: Path, drives: Sequence[Path], at: Path, release: str) -> ET.Element:
    """Boot the entry that the menu chooses by itself, and return the answerfile as it is read.

    Args:
        installer: Its ISO, the first CD.
        drives: The CDs in the drives after it.
        at: Folder that becomes the installer's root.
        release: One of `RELEASES`.

    Raises:
        NoAnswers: it found none.
    """
    iso = Iso(installer)
    at.mkdir()
    unpack(loaded(iso.read("/install.img")), at)
    menu = iso.read("/boot/isolinux/isolinux.cfg").decode()
    chosen = next(re.finditer(r"(?m)^DEFAULT (\S+)", menu))[1]
    [line] = re.findall(rf"(?s)LABEL {chosen}\n.*?APPEND ([^\n]*)", menu)
    [words] = [part.split() for part in line.split("---") if "/vmlinuz" in part]
    arguments = dict(word.partition("=")[::2] for word in words)
    cds = _drives([installer, *drives], at)
    if release == "8.2" and "mount" in arguments:
        _mounted(arguments["mount"], cds, at)
    address, script = arguments.get("answerfile"), arguments.get("answerfile_generator")
    if address and script:
        raise NoAnswers("Both answerfile and answerfile generator passed on command line.")
    if address:
        told = _fetched(address, at)
    elif script:
        told = _run(script, at, "answerfile")
    else:
        raise NoAnswers("it asks")
    return ET.fromstring(told)  # noqa: S314 - ours


def script(name: str, at: Path, *arguments: str) -> str:
    """Run one of the answerfile's scripts in the installer's root ``at``, and return what it prints."""
    return _run(name, at, "filesystem-populated", *arguments)


def _drives(cds: Sequence[Path], at: Path) -> dict[str, Path]:
    """Give each CD a drive: /dev/srN is a folder with its files and its label."""
    (at / "dev").mkdir(exist_ok=True)
    made = {}
    for number, cd in enumerate(cds):
        iso = Iso(cd)
        drive = at / "dev" / f"sr{number}"
        for name in iso.files() if number else ():  # nothing is read of the installer's
            file = drive / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(iso.read(name))
        drive.mkdir(exist_ok=True)
        made[iso.volume_id] = drive
    return made


def _mounted(argument: str, cds: Mapping[str, Path], at: Path) -> None:
    label, _form, _options, place = argument.split(":")
    (at / place.lstrip("/")).symlink_to(cds[label.removeprefix("LABEL=")])


def _fetched(url: str, at: Path) -> str:
    path = at / urlsplit(url).path.lstrip("/")
    if not path.is_file():
        raise NoAnswers("<urlopen error [Errno 2] No such file or directory>")
    return path.read_text()


_MOUNT = """\
#!/bin/sh
# mount -t iso9660 -o ro DRIVE FOLDER
[ "$1 $2 $3 $4" = "-t iso9660 -o ro" ] && [ -d "$5" ] && [ -d "$6" ] || exit 32
[ -z "$(ls -A "$6")" ] || exit 32
cp -r "$5/." "$6/"
"""
_UMOUNT = """\
#!/bin/sh
[ -d "$1" ] || exit 32
rm -r "$1" && mkdir "$1"
"""


def _run(url: str, at: Path, stage: str, *arguments: str) -> str:
    """Run a script as `scripts.run_script` does, its absolute paths below ``at``."""
    told = _fetched(url, at)
    if not told.startswith("#!"):
        raise NoAnswers(f"Missing interpreter in {url}.")
    interpreter = told[2:].split()[0]
    if interpreter not in INTERPRETERS:
        raise NoAnswers(f"Invalid interpreter {interpreter} in {url}.")
    tools = at / "usr-bin"
    tools.mkdir(exist_ok=True)
    for name, content in (("mount", _MOUNT), ("umount", _UMOUNT)):
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    local = at / f"{stage}.script"
    local.write_text(re.sub(r"(?<![\w./$\"])/(nestlab|dev/sr)", rf"{at}/\1", told))
    local.chmod(0o500)
    done = subprocess.run(
        [local, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": f"{tools}:{os.environ['PATH']}", "XS_STAGE": stage},
    )
    if done.returncode:
        raise NoAnswers(f"Generator script failed:\n\n{done.stderr}")
    return done.stdout
