"""Media of a Hyper-V host: a folder each, and in it a file for each content."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.hyperv.cmdlets import ANY, DISK_S, NO_PATH, ask, remove_folder
from components.kinds.hyperv.names import problem_of_name, windows
from components.kinds.hyperv.objects import File, Sum, objects, properties
from components.kinds.hyperv.powershell import Script
from components.reach import upload
from components.reach.driver import Driver, DriverError
from components.reach.orders import MediumOrder
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.reach.shell import Shell

IMAGE_SUFFIX = ".vhdx"
IMAGE_MARK = b"vhdxfile"
CONVERT = "convert it: qemu-img convert -O vhdx FILE {name}.vhdx"
HASH_S = 1800.0
STALL_S = 120.0
CLOSED = "C:\\ProgramData\\ssh\\ssh_host_ed25519_key"
"""A file that SYSTEM and administrators alone may read: the installation sees to it (``media``), and sshd insists
on it (Win32-OpenSSH's wiki, "Security protection of various files", which copies its rights the same way)."""
OWN = re.compile(r"([0-9a-f]{12}|[0-9]+)\.(iso|vhdx)")
"""Names of media as `_file` makes them."""


class MediumDriver(Driver[MediumOrder]):
    """ISOs and disk images, in a folder each; another content is another file.

    Windows lets nobody write over a file that a guest has in its drive, and a disk that others are
    clones of must never change.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "store")

    @override
    def called(self, wanted: MediumOrder) -> str:
        """Return its path on the host."""
        return windows(_file(wanted))

    @override
    def problem(self, wanted: MediumOrder) -> str:
        if wrong := problem_of_name("medium", wanted.name):
            return wrong
        name, suffix = Path(wanted.name).stem, Path(wanted.name).suffix.lower()
        path = Path(wanted.path)
        if suffix == ".iso":
            return ""
        remedy = CONVERT.format(name=name)
        if suffix != IMAGE_SUFFIX:
            return (
                f"{path} is used as a disk image, and Hyper-V takes {IMAGE_SUFFIX} alone: {remedy}"
            )
        if path.is_file():
            with path.open("rb") as handle:
                head = handle.read(len(IMAGE_MARK))
            if head != IMAGE_MARK:
                return f"{path} is called {IMAGE_SUFFIX} and is none: {remedy}"
        return ""

    @override
    def look(self, shell: Shell, wanted: MediumOrder) -> Seen:
        size = wanted.size
        found = {each.name: each.length for each in self._files(shell, wanted)}
        name = _file(wanted).rpartition("/")[2]
        if name not in found:
            return Seen(ok=False, text=f"medium {wanted.name} is not there any more")
        if found[name] != size:
            text = f"medium {wanted.name} has {found[name]} bytes there and {size} here"
            return Seen(ok=False, text=text)
        return Seen(ok=True, text=f"medium {wanted.name} is there")

    @override
    def ensure(self, shell: Shell, wanted: MediumOrder) -> None:
        to = _file(wanted)
        if not self._whole(shell, wanted):
            _sound(wanted)
            script = Script()
            script.add("New-Item", ItemType="Directory", Force=True, Path=windows(_folder(wanted)))
            if wanted.private:
                # Before its content comes: Windows has no such mode as `put` gives elsewhere. Renamed, it keeps
                # its rights; to those of a guest that has it in its drive Hyper-V adds by itself.
                part = windows(f"{to}{upload.PART}")
                script.add("New-Item", ItemType="File", Force=True, Path=part)
                rights = script.add("Get-Acl", LiteralPath=CLOSED)
                script.add("Set-Acl", take={"AclObject": [rights]}, LiteralPath=part)
            ask(shell, script)
            shell.put(Path(wanted.path), f"/{to}", timeout_s=STALL_S)
            if not self._whole(shell, wanted):
                raise DriverError(
                    f"{windows(to)} on {shell.name} is not what was sent: its size or SHA-256 differs; "
                    "see whether its disk is full, and try again"
                )
        if to.endswith(".iso"):
            # Images are left: disks may be clones of them.
            script = Script()
            for name in self._own(shell, wanted) - {to.rpartition("/")[2]}:
                old = windows(f"{_folder(wanted)}/{name}")
                script.add("Remove-Item", may_fail=ANY, LiteralPath=old, Force=True)
            if script.calls:
                ask(shell, script)

    @override
    def remove(self, shell: Shell, wanted: MediumOrder) -> None:
        script = Script()
        for name in sorted(self._own(shell, wanted)):
            path = windows(f"{_folder(wanted)}/{name}")
            script.add("Remove-Item", LiteralPath=path, Force=True)
        if script.calls:
            ask(shell, script, timeout_s=DISK_S)
        script = Script()
        folder = windows(_folder(wanted))
        script.add("Get-ChildItem", "Name", may_fail=NO_PATH, LiteralPath=folder)
        if not ask(shell, script)[0]:
            remove_folder(shell, folder)

    def _own(self, shell: Shell, wanted: MediumOrder) -> set[str]:
        """Names of files there that nestlab gave: of this medium, of others before it, half sent."""
        names = {each.name for each in self._files(shell, wanted)}
        return {name for name in names if OWN.fullmatch(name.removesuffix(upload.PART))}

    def _files(self, shell: Shell, wanted: MediumOrder) -> list[File]:
        script = Script()
        folder = windows(_folder(wanted))
        files = properties(File)
        script.add("Get-ChildItem", *files, may_fail=NO_PATH, LiteralPath=folder, File=True)
        return objects(File, ask(shell, script)[0])

    def _whole(self, shell: Shell, wanted: MediumOrder) -> bool:
        if not self.look(shell, wanted).ok:
            return False
        if not wanted.sha256:
            return True
        script = Script()
        path = windows(_file(wanted))
        script.add("Get-FileHash", *properties(Sum), LiteralPath=path, Algorithm="SHA256")
        found = objects(Sum, ask(shell, script, timeout_s=HASH_S)[0])[0]
        return found.hash.lower() == wanted.sha256.lower()


def _folder(wanted: MediumOrder) -> str:
    return f"{wanted.store}/media/{wanted.name}"


def _file(wanted: MediumOrder) -> str:
    """Return its path with forward slashes: another content has another name."""
    content = wanted.sha256[:12].lower() or str(wanted.size)
    return f"{_folder(wanted)}/{content}{Path(wanted.name).suffix.lower()}"


def _sound(wanted: MediumOrder) -> None:
    """Refuse a file of this machine that is not there or not the one meant, before it is sent."""
    path = Path(wanted.path)
    if not path.is_file():
        raise DriverError(f"{path} is not there: put the file there, or correct the stack")
    if not wanted.sha256:
        return
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != wanted.sha256.lower():
        raise DriverError(
            f"{path} has SHA-256 {found}, and the stack says {wanted.sha256}: "
            "it is damaged or another file; get it again, or correct the stack"
        )


DRIVER = MediumDriver()
