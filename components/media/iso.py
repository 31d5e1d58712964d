"""ISO images: what is in one, a small one of given files, and an installer's changed a little.

xorriso does the work in ISO 9660. An installer is changed by adding to a copy of it, so every byte
that its boot loader, hybrid partition tables and hidden images rely on stays where it was; building
it anew (xorriso's "replay") fails for media with overlapping GPT partitions, which the makers of
Proxmox' have. Windows' media are UDF, which xorriso can't read: see `components.media.udf`.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path, PurePosixPath
from shlex import split
from typing import TYPE_CHECKING, BinaryIO

from components.media import eltorito, udf
from components.reach.waiting import PROGRESS_S, say
from components.refused import Refused
from components.stackfile.files import FOREIGN, opened, text_word
from components.stackfile.images import MARKS, WORDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from components.media.eltorito import Firmware

SECTOR = 2048
EPOCH = 1577836800
"""The time of everything that is made here, 2020-01-01: the same input gives the same bytes."""
EPOCH_DATE = "2020010100000000"
DEADLINE_S = 1800
"""For one run of xorriso; it writes at the disk's speed."""
LOOK_S, LOOK_CPU_S = 60, 2
"""For one look into a medium, and of it at most as much work: a real one takes 0.1 s, and one in which a
folder holds itself would take for ever."""
LOOK_BYTES, LOOK_MEMORY = 16 << 20, 1 << 30
"""Most that is listed of a medium, some 200,000 names, and most memory for that."""
TEXT = 1 << 20
"""Longest file of an installer that is read as text, bytes: menus and notes."""
IMAGE = 512 << 20
"""Longest file that is read at all, bytes: an initial RAM disk that is changed."""
PRIVATE, SHARED = 0o600, 0o644
LABEL_LENGTH = 16
"""Joliet holds no more of a volume's label, and some readers look only there."""

_DESCRIPTORS = range(16, 80)
_PRIMARY, _SUPPLEMENTARY, _END = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
_EXTENT = re.compile(r"File data lba:\s*\d+ ,\s*(\d+) ,\s*\d+ ,\s*(\d+) ,")
_ROCK_RIDGE = b"SP\x07\x01\xbe\xef"


class WrongMedium(Refused):
    """The medium is not what it has to be: found, rule, remedy."""


class Endless(WrongMedium):
    """Looking into it took all that it may: who has others to look into had better stop."""


class NotMade(Refused):
    """A medium could not be made: the program is missing, failed, or took too long."""


class _Failed(NotMade):
    """xorriso ran, and did not do it."""


class _Stopped(_Failed):
    """xorriso took more than it may."""


class Iso:
    """An ISO image of this machine, looked at and not changed.

    Raises:
        WrongMedium: it can't be read, is no ISO, or is cut short; or is damaged, found out later.
        NotMade: xorriso is missing, which says nothing about the medium.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.volume_id = ""
        self.joliet = self.rock_ridge = False
        self.created = self.modified = ""
        """As the primary descriptor has them, 16 digits or empty; boot loaders search by them."""
        self._catalog: int | None = None
        try:
            with opened(path) as image:
                self.size = os.fstat(image.fileno()).st_size
                self._describe(image)
        except OSError as why:
            raise WrongMedium(
                f"{path} can't be read ({why.strerror or why})",
                "the installer's ISO has to be a file of this machine",
                "correct the path, or let this user read it",
            ) from why

    @cached_property
    def udf(self) -> udf.Udf | None:
        """Its UDF volume, where it has one."""
        with opened(self.path) as image:
            if not udf.present(image):
                return None
        try:
            found = udf.Udf(self.path)
        except udf.BadUdf as why:
            raise self._damaged(f"its UDF can't be read: {why}") from None
        if found.end > self.size:
            raise self._short(found.end)
        return found

    def files(self) -> frozenset[str]:
        """Return every file in it, by absolute path."""
        return frozenset(self._names.values())

    def find(self, name: str) -> str | None:
        """Return the file of this name, in whatever case the medium has it."""
        return self._names.get(name.lower())

    def read(self, name: str, most: int = IMAGE) -> bytes:
        """Return the content of one of its `files`.

        Raises:
            WrongMedium: it is longer than ``most`` bytes, or reaches beyond the medium.
        """
        if name not in self.files():
            raise KeyError(name)
        try:
            if self.udf:
                return self.udf.read(name, most)
        except udf.BadUdf as why:
            raise self._damaged(str(why)) from None
        pieces = self.extents(name)
        if sum(length for _, length in pieces) > most:
            raise self._damaged(f"{name!r} is longer than anything of its kind")
        content = b""
        with opened(self.path) as image:
            for at, length in pieces:
                image.seek(at)
                content += image.read(length)
        if len(content) < sum(length for _, length in pieces):
            raise self._damaged(f"{name!r} reaches beyond its end")
        return content

    def extents(self, name: str) -> list[tuple[int, int]]:
        """Return where a file of its ISO 9660 lies: offset and length of each piece, bytes."""
        # File data lba:  0 ,       65 ,      720 ,  1474560 , '/efi.img'
        lines = self._look("-find", name, "-exec", "report_lba").splitlines()
        told = filter(None, map(_EXTENT.match, lines))
        return [(int(one[1]) * SECTOR, int(one[2])) for one in told]

    def boots(self) -> frozenset[Firmware]:
        """Return the firmware for which it has a boot image."""
        return frozenset(image.firmware for image in self.boot_images())

    def boot_images(self) -> list[eltorito.Image]:
        """Return the images of its boot catalog that lie within it."""
        found = eltorito.images(self.catalog())
        return [image for image in found if 0 < image.sector * SECTOR < self.size]

    def catalog(self) -> bytes:
        """Return its boot catalog; empty where there is none."""
        if self._catalog is None:
            return b""
        with opened(self.path) as image:
            image.seek(self._catalog * SECTOR)
            return image.read(SECTOR)

    @property
    def catalog_at(self) -> int:
        """Where its boot catalog is, bytes."""
        return (self._catalog or 0) * SECTOR

    @cached_property
    def _names(self) -> dict[str, str]:
        listed = (
            self.udf.files
            if self.udf
            else map(_unquoted, self._look("-find", "/", "-type", "f").splitlines())
        )
        return {name.lower(): name for name in listed}

    def _look(self, *arguments: str) -> str:
        try:
            return _xorriso("-osirrox", "on", "-indev", str(self.path), *arguments, bounded=True)
        except _Stopped as why:
            rest = self._damaged(str(why))
            raise Endless(rest.found, rest.rule, rest.remedy) from None
        except _Failed as why:
            raise self._damaged(f"xorriso can't read it: {why}") from why

    def _describe(self, image: BinaryIO) -> None:
        primary = b""
        for sector in _DESCRIPTORS:
            image.seek(sector * SECTOR)
            found = image.read(SECTOR)
            if len(found) < SECTOR or found[1:6] != b"CD001" or found[0] == _END:
                break
            if found[0] == _PRIMARY and not primary:
                primary = found
            elif found[0] == _SUPPLEMENTARY:
                self.joliet |= found[88:91] in _JOLIET
            elif (catalog := eltorito.catalog_sector(found)) is not None:
                self._catalog = catalog
        if not primary:
            raise WrongMedium(
                f"{self.path} is {_kind(image, self.size)}",
                "an installer is an ISO 9660 image",
                "give the ISO that its maker publishes",
            )
        self.volume_id = primary[40:72].decode("latin-1").strip(" \0")
        blocks = int.from_bytes(primary[80:84], "little")
        self.created, self.modified = _date(primary[813:829]), _date(primary[830:846])
        if self.size < blocks * SECTOR:
            raise self._short(blocks * SECTOR)
        image.seek(int.from_bytes(primary[158:162], "little") * SECTOR)
        self.rock_ridge = _ROCK_RIDGE in image.read(SECTOR)[:256]

    def _short(self, expected: int) -> WrongMedium:
        return WrongMedium(
            f"{self.path} has {_mb(self.size)} of the {_mb(expected)} of its volume "
            f"{self.volume_id!r}",
            "it is cut short",
            "get the file again",
        )

    def _damaged(self, what: str) -> WrongMedium:
        return WrongMedium(
            f"{self.path} (volume {self.volume_id!r}, {_mb(self.size)}) is damaged: {what}",
            "an installer must be whole",
            "get the file again",
        )


def make(files: Mapping[str, bytes | Path], label: str, to: Path) -> None:
    """Make a CD of ``files``, by absolute path, that Windows, Linux and ESXi read; for its owner only.

    The same files and label give the same bytes.
    """
    if not label.isascii() or not 0 < len(label) <= LABEL_LENGTH:
        raise ValueError(f"a CD's label has 1 to {LABEL_LENGTH} ASCII letters, not {label!r}")
    with fresh(to, PRIVATE) as (folder, image):
        tree = folder / "tree"
        tree.mkdir()
        for name in sorted(files):
            at = tree / _inside(name)
            at.parent.mkdir(parents=True, exist_ok=True)
            content = files[name]
            if isinstance(content, Path):
                at.symlink_to(content.resolve())
            else:
                at.write_bytes(content)
        # Read by root and by everybody's installer; what keeps it private is the image's own mode.
        _xorriso(
            "-as", "mkisofs", "-quiet", "-o", str(image), "-V", label, "-iso-level", "3",
            "-r", "-f", "-J", "-joliet-long", f"--modification-date={EPOCH_DATE}",
            "--set_all_file_dates", EPOCH_DATE, "--stdio_sync", "off", str(tree),
        )  # fmt: skip


def remaster(
    source: Path,
    changes: Mapping[str, bytes],
    removes: Collection[str],
    to: Path,
    *,
    uefi_image: str | None = None,
) -> None:
    """Copy an installer, with some files put in or taken out; it boots as before.

    Args:
        source: The vendor's ISO.
        changes: New content by path, of files that are there and of new ones.
        removes: Paths of files that shall not be there.
        to: The new ISO; it appears when it is whole.
        uefi_image: Path of the file in it that UEFI shall boot instead of its boot image.

    Raises:
        WrongMedium: the source is no whole ISO, or lacks something named here.
    """
    iso = Iso(source)
    for name in (*removes, *([uefi_image] if uefi_image else [])):
        if name not in iso.files():
            raise WrongMedium(
                f"{source} (volume {iso.volume_id!r}) has no {name}",
                "it is part of every installer of its kind",
                "give the ISO that its maker publishes",
            )
    if uefi_image and "uefi" not in iso.boots():
        raise WrongMedium(
            f"{source} (volume {iso.volume_id!r}) has no boot image for UEFI",
            "its other boot image can only take that one's place",
            "give an ISO for 64-bit x86 machines",
        )
    with fresh(to, SHARED) as (folder, image):
        _copy(source, image, iso.size)
        if iso.udf:
            if changes:
                raise ValueError("files can't be put into UDF, only taken out")
            with image.open("r+b") as handle:
                for name in removes:
                    for at, data in iso.udf.removed(name):
                        handle.seek(at)
                        handle.write(data)
        elif changes or removes:
            _grow(iso, image, changes, removes, folder)
        if uefi_image:
            _point(image, uefi_image)


def _grow(
    iso: Iso,
    image: Path,
    changes: Mapping[str, bytes],
    removes: Collection[str],
    folder: Path,
) -> None:
    """Add changed files and a new directory tree to the end of a copy."""
    dates = []
    if iso.modified:
        dates += ["-volume_date", "uuid", iso.modified]
    if iso.created:
        dates += ["-volume_date", "c", iso.created]
    # A medium without Rock Ridge is read by something that looks at plain names: they stay.
    names = [] if iso.rock_ridge else ["-rockridge", "off"]
    if not (iso.rock_ridge or iso.joliet):
        names += ["-compliance", "lowercase:7bit_ascii"]
    edits = []
    for name in sorted(removes):
        edits += ["-rm", name, "--"]
    for number, name in enumerate(sorted(changes)):
        new = folder / str(number)
        new.write_bytes(changes[name])
        new.chmod(SHARED)
        os.utime(new, (EPOCH, EPOCH))
        edits += ["-map", str(new), name, "-chown", "0", name, "--", "-chgrp", "0", name, "--"]
    _xorriso(
        "-boot_image", "any", "keep", "-dev", str(image), "-joliet", "on" if iso.joliet else "off",
        "-overwrite", "on", "-padding", "0", *names, *dates, *edits,
    )  # fmt: skip


def _point(image: Path, name: str) -> None:
    """Let the boot catalog name another UEFI image."""
    iso = Iso(image)
    sector = iso.udf.sector(name) if iso.udf else _sector(iso, name)
    catalog = iso.catalog()
    for one in iso.boot_images():
        if one.firmware == "uefi":
            catalog = eltorito.pointed(catalog, one, sector)
    with image.open("r+b") as handle:
        handle.seek(iso.catalog_at)
        handle.write(catalog)


def _sector(iso: Iso, name: str) -> int:
    return iso.extents(name)[0][0] // SECTOR


def _copy(source: Path, to: Path, size: int) -> None:
    told = time.monotonic()
    with source.open("rb") as old, to.open("wb") as new:
        while chunk := old.read(16 << 20):
            new.write(chunk)
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                say(f"{source.name}: {new.tell() * 100 // size} % copied")


@contextlib.contextmanager
def fresh(to: Path, mode: int) -> Iterator[tuple[Path, Path]]:
    """Give a private folder and, in it, the path of the new file, which then becomes ``to``.

    It gets ``mode``, and is on the disk before it has its name.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as name:
        folder = Path(name)
        image = folder / "image.iso"
        yield folder, image
        image.chmod(mode)
        # On the disk before it has its name: a cache that survives a power cut must not lie.
        with image.open("rb") as handle:
            os.fsync(handle.fileno())
        image.replace(to)


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise ValueError(f"{name!r} is no absolute path of a file")
    return path.relative_to("/")


def _xorriso(*arguments: str, bounded: bool = False) -> str:
    """Run xorriso and return what it says of the medium; ``bounded``: of one that may be anybody's.

    Raises:
        NotMade: it is missing, failed, or took too long.
    """
    deadline_s = min(LOOK_S, DEADLINE_S) if bounded else DEADLINE_S
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            with subprocess.Popen(
                ["xorriso", "-no_rc", *_QUIET[arguments[0] == "-as"], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"},
            ) as process:
                try:
                    if bounded:
                        _bound(process.pid)
                    code = process.wait(deadline_s)
                except BaseException:
                    process.kill()
                    raise
        except FileNotFoundError as why:
            raise NotMade("xorriso is not installed: install the package xorriso") from why
        except subprocess.TimeoutExpired as why:
            raise NotMade(f"xorriso did not end within {deadline_s} s") from why
        said, told = _text_of(err), _text_of(out)
    if code < 0:
        raise _Stopped("it has more in it than any real medium")
    if code:
        bad = [line for line in said.splitlines() if " : " in line and "NOTE" not in line]
        raise _Failed("; ".join(line.strip() for line in bad[-3:]) or f"exit {code}")
    return told


def _bound(pid: int) -> None:
    limits = {
        resource.RLIMIT_AS: LOOK_MEMORY,
        resource.RLIMIT_CPU: LOOK_CPU_S,
        resource.RLIMIT_FSIZE: LOOK_BYTES,
    }
    with contextlib.suppress(ProcessLookupError):
        for kind, most in limits.items():
            resource.prlimit(pid, kind, (most, most))


def _text_of(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(LOOK_BYTES).decode(errors="surrogateescape")


_QUIET = {
    False: (
        "-report_about",
        "WARNING",
        "-abort_on",
        "FAILURE",
        "-iso_rr_pattern",
        "off",
        "-stdio_sync",
        "off",
    ),
    True: (),
}
"""What goes before a command; the emulation of mkisofs must come first and is told by itself."""


def _unquoted(line: str) -> str:
    try:
        return split(line)[0]
    except (ValueError, IndexError):  # a name of two lines
        return ""


def _date(digits: bytes) -> str:
    text = digits.decode("latin-1")
    return text if text.isdigit() and text.strip("0") else ""


def _kind(image: BinaryIO, size: int) -> str:
    image.seek(0)
    head = image.read(512)
    if not head:
        return "an empty file"
    known = FOREIGN | {mark: WORDS[form] for mark, form in MARKS.items()}
    if what := next((word for mark, word in known.items() if head.startswith(mark)), ""):
        return what
    if (what := text_word(head)) not in {"", "a text"}:
        return what
    if head[510:512] == b"\x55\xaa":
        return f"a disk image of {_mb(size)}, not a CD's"
    return f"no ISO: {_mb(size)} of something else"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
