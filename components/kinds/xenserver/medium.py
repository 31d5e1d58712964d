"""Media of XCP-ng and XenServer: ISOs in a repository of the lab's own, disk images as XAPI's disks.

qcow2 is left out: XCP-ng 8.3 imports it only with storage that it does not install by itself.
"""

from __future__ import annotations

import struct
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.xenserver.facts import Host, changed, glanced, repository
from components.kinds.xenserver.names import label, owner, unfit
from components.kinds.xenserver.xe import SCAN_S, Row, entry, xe
from components.reach.driver import Driver, DriverError, must
from components.reach.orders import MediumOrder
from components.reach.upload import PART
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from components.reach.shell import Shell

STALL_S = 120.0
"""How long an upload may make no progress, seconds."""
LONGEST = 255 - len(PART)
"""Of a medium's name, bytes: while it arrives it has an ending more."""
IMPORT_S = 4 * 3600.0
"""How long a disk image may take on its way into the storage of an emulated host, seconds."""
VHD_MARK = b"conectix"
FOREIGN = {
    b"QFI\xfb": ("qcow2", "convert it with `qemu-img convert -O raw`"),
    b"KDMV": ("a VMware disk", "convert it with `qemu-img convert -O raw`"),
    b"vhdxfile": ("VHDX", "convert it with `qemu-img convert -O raw`"),
}


class MediumDriver(Driver[MediumOrder]):
    """See `components.reach.driver.Driver`.

    An ISO is a file of a local ISO repository (R108), which its first medium makes and its last one
    takes away. A disk image is imported into the storage, and guests' disks are clones of it that
    share its blocks; the file itself is not kept, dom0 has little room.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "store", "owner")

    @override
    def called(self, wanted: MediumOrder) -> str:
        return f"{wanted.store}/{wanted.name}"

    @override
    def problem(self, wanted: MediumOrder) -> str:
        name = wanted.name
        if "/" in name or name in {".", ".."}:
            return f"name {name!r} is no file's: rename the medium"
        if (length := len(name.encode("utf-8", "surrogatepass"))) > LONGEST:
            return f"its name has {length} bytes, and a file's may have {LONGEST} here: rename the medium"
        if not wanted.store.startswith("/") or (wrong := unfit("folder", wanted.store)):
            return wrong or f"folder {wanted.store!r} is not absolute"
        if wrong := unfit("name", name) or owner(wanted):
            return wrong
        path = Path(wanted.path)
        return "" if _iso(wanted) or not path.is_file() else _no_disk(path)

    @override
    def look(self, shell: Shell, wanted: MediumOrder) -> Seen:
        seen = self._seen(Host(shell), wanted)
        if not (seen.ok and _iso(wanted)):
            return seen
        if found := _differs(shell, self.called(wanted), wanted):
            text = f"medium {wanted.name} has SHA-256 {found}, and the stack says {wanted.sha256}"
            return Seen(ok=False, text=text)
        return seen

    @override
    def glance(self, shell: Shell, wanted: MediumOrder) -> Seen:
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: MediumOrder) -> Seen:
        name = wanted.name
        try:
            if not _iso(wanted):
                return self._seen_image(host, wanted)
            if not self._arrived(host.shell, self.called(wanted), wanted):
                return Seen(ok=False, text=f"medium {name} is not there any more, or not whole")
            repository = host.isos(wanted.store)
            if repository is None or repository["currently-attached"] != "true":
                return Seen(ok=False, text=f"the repository of medium {name} is not attached")
            if host.iso(self.called(wanted)) is None:
                return Seen(ok=False, text=f"medium {name} is a file that XAPI has not seen")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        return Seen(ok=True, text=f"medium {name} is there")

    def _seen_image(self, host: Host, wanted: MediumOrder) -> Seen:
        mine = self._mine(host, wanted)
        if not mine:
            return Seen(ok=False, text=f"image {wanted.name} is not in the storage any more")
        if not any(_noted(row, wanted) for row in mine):
            return Seen(ok=False, text=f"image {wanted.name} is another one than the stack's")
        return Seen(ok=True, text=f"image {wanted.name} is there")

    @override
    def ensure(self, shell: Shell, wanted: MediumOrder) -> None:
        changed(shell)
        if not _iso(wanted):
            self._import(shell, wanted)
            return
        fresh = self._upload(shell, wanted.store, wanted)
        with repository(shell):
            host = Host(shell)
            pbd = host.isos(wanted.store)
            if pbd is None:
                where = (
                    f"device-config:location={wanted.store}",
                    "device-config:legacy_mode=true",
                )
                kind = ("name-label=nestlab ISO", "type=iso", "content-type=iso")
                xe(shell, "sr-create", *kind, *where, timeout_s=SCAN_S)
            elif pbd["currently-attached"] != "true":
                xe(shell, "pbd-plug", f"uuid={pbd['uuid']}", timeout_s=SCAN_S)
            host = Host(shell)
            if fresh or host.iso(self.called(wanted)) is None:
                pbd = host.isos(wanted.store)
                if pbd is None:
                    raise DriverError(f"{shell.name} made no repository for {wanted.store}")
                xe(shell, "sr-scan", f"uuid={pbd['sr-uuid']}", timeout_s=SCAN_S)
        if Host(shell).iso(self.called(wanted)) is None:
            raise DriverError(
                f"{shell.name} does not take {self.called(wanted)} for an ISO: its repository holds "
                "files whose names end with .iso"
            )

    @override
    def remove(self, shell: Shell, wanted: MediumOrder) -> None:
        changed(shell)
        if _iso(wanted):
            path = self.called(wanted)
            must(shell, ["rm", "-f", path, f"{path}{PART}"])
        else:
            for row in self._mine(Host(shell), wanted):
                xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)
            self._drop(shell, f"{_importing(wanted)}/{wanted.name}")
        with repository(shell):
            self._tidy(shell, wanted.store)

    def _tidy(self, shell: Shell, store: str) -> None:
        """Take the repository away with its last file."""
        pbd = Host(shell).isos(store)
        left = shell.run(["ls", "-A", store]).out.strip()
        if pbd is not None and left:
            xe(shell, "sr-scan", f"uuid={pbd['sr-uuid']}", timeout_s=SCAN_S)
        elif pbd is not None:
            if pbd["currently-attached"] == "true":
                xe(shell, "pbd-unplug", f"uuid={pbd['uuid']}", timeout_s=SCAN_S)
            xe(shell, "sr-forget", f"uuid={pbd['sr-uuid']}")
        if not left:
            _leave(shell, store)

    def _upload(self, shell: Shell, folder: str, wanted: MediumOrder) -> bool:
        """Have the medium in ``folder``, whole; return whether it had to be sent."""
        to = f"{folder}/{wanted.name}"
        if self._arrived(shell, to, wanted) and not _differs(shell, to, wanted):
            return False
        must(shell, ["mkdir", "-p", folder])
        # xenopsd opens a CD itself and hands QEMU, which is root no more, what it opened (xen-api, device.ml).
        mode = 0o600 if wanted.private else 0o644
        shell.put(Path(wanted.path), to, mode=mode, timeout_s=STALL_S)
        if found := _differs(shell, to, wanted):
            must(shell, ["rm", "-f", to])
            raise DriverError(
                f"{wanted.path} has SHA-256 {found}, and the stack says {wanted.sha256}: "
                "it is damaged or another file; get it again, or correct the stack"
            )
        return True

    def _arrived(self, shell: Shell, path: str, wanted: MediumOrder) -> bool:
        done = shell.run(["stat", "-c", "%s", path])
        return done.ok and done.out.strip() == str(wanted.size)

    def _import(self, shell: Shell, wanted: MediumOrder) -> None:
        """Have the image as a disk in the storage."""
        host, folder = Host(shell), _importing(wanted)
        path = f"{folder}/{wanted.name}"
        mine = self._mine(host, wanted)
        if any(_noted(row, wanted) for row in mine):
            if shell.run(["test", "-d", folder]).ok:
                self._drop(shell, path)
            return
        source = Path(wanted.path)
        if wrong := _no_disk(source):
            raise DriverError(wrong)
        # Half imported, or another file's; guests' disks that are its clones live on without it.
        for row in mine:
            xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)
        self._upload(shell, folder, wanted)
        form, size = _form(source)
        made = (f"sr-uuid={host.storage()}", f"name-label={label(wanted)}")
        uuid = xe(shell, "vdi-create", *made, f"virtual-size={size}", "type=user").strip()
        say(f"{shell.name}: importing {wanted.name} into its storage")
        found = (f"uuid={uuid}", f"filename={path}", f"format={form}")
        xe(shell, "vdi-import", *found, timeout_s=IMPORT_S)
        noted = (f"{key}={value}" for key, value in _notes(wanted).items())
        xe(shell, "vdi-param-set", f"uuid={uuid}", *(f"other-config:{each}" for each in noted))
        self._drop(shell, path)

    def _drop(self, shell: Shell, path: str) -> None:
        """Remove a file that has been imported, or what a cut connection left of it."""
        must(shell, ["rm", "-f", path, f"{path}{PART}"])
        _leave(shell, str(PurePosixPath(path).parent))

    def _mine(self, host: Host, wanted: MediumOrder) -> list[Row]:
        return host.all("vdi", name_label=label(wanted))


def _iso(wanted: MediumOrder) -> bool:
    name: str = wanted.name
    return name.endswith(".iso")


def _importing(wanted: MediumOrder) -> str:
    """Return where an image waits: beside the ISOs it would be taken for one (SM's ISOSR.py)."""
    return f"{wanted.store}/import"


def _leave(shell: Shell, folder: str) -> None:
    """Remove ``folder`` if nobody else has anything in it."""
    if shell.run(["test", "-d", folder]).ok:
        must(shell, ["rmdir", "--ignore-fail-on-non-empty", folder])


def _differs(shell: Shell, path: str, wanted: MediumOrder) -> str:
    """Return the checksum of ``path`` there if it is not the one that the stack names."""
    if not wanted.sha256:
        return ""
    found = must(shell, ["sha256sum", path], timeout_s=IMPORT_S).lstrip("\\").split(" ")[0]
    return found if found != wanted.sha256.lower() else ""


def _notes(wanted: MediumOrder) -> Row:
    """Return what an image that is complete says of itself; its owner comes last."""
    return {
        "nestlab-size": str(wanted.size),
        "nestlab-sha256": wanted.sha256.lower() or "unknown",
        "nestlab": wanted.owner,
    }


def _noted(row: Row, wanted: MediumOrder) -> bool:
    return all(entry(row["other-config"], key) == value for key, value in _notes(wanted).items())


def _no_disk(path: Path) -> str:
    """Say why the file ``path`` can't be imported."""
    try:
        with path.open("rb") as handle:
            head = handle.read(512)
    except OSError as why:
        return f"{path} can't be read: {why.strerror or why}"
    for mark, (what, remedy) in FOREIGN.items():
        if head.startswith(mark):
            return f"{path} is {what}, and XCP-ng imports raw images and dynamic VHD: {remedy}"
    if head.startswith(VHD_MARK) and head[60:64] != b"\0\0\0\3":
        return f"{path} is a VHD that is not complete by itself: merge it with its parent"
    return ""


def _form(path: Path) -> tuple[str, int]:
    """Return format and size of a disk image, as XAPI wants to be told them.

    A VHD that grows begins with a copy of its last 512 bytes, where its size stands at byte 48
    (Virtual Hard Disk Image Format Specification). One of fixed size is a raw image with these 512
    bytes behind it.
    """
    with path.open("rb") as handle:
        head = handle.read(512)
    if head.startswith(VHD_MARK):
        return "vhd", int(struct.unpack_from(">Q", head, 48)[0])
    return "raw", path.stat().st_size


DRIVER = MediumDriver()
