"""Media of VirtualBox: ISOs as they are, and disk images as a VDI that guests' disks are linked to."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.virtualbox import vboxmanage
from components.kinds.virtualbox.vboxmanage import COPY_S
from components.reach.driver import Driver
from components.reach.media import send, wrong_sum
from components.reach.orders import MediumOrder
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.reach.shell import Shell

UPLOAD_S = 900.0


class MediumDriver(Driver[MediumOrder]):
    """ISOs as they are, and disk images as a VDI that guests' disks are linked to.

    VirtualBox reads some of qcow2 and writes none of it, so qemu-img converts. A base has the
    medium's size and sum in its name: another content is another base, beside the one in use.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "store", "owner")

    @override
    def problem(self, wanted: MediumOrder) -> str:
        name = wanted.name
        if wrong := vboxmanage.unfit(name, f"medium {name!r}"):
            return wrong
        if "/" in name or name in {".", ".."}:
            return f"medium {name!r} is no name of a file: rename it"
        return ""

    @override
    def called(self, wanted: MediumOrder) -> str:
        path = f"{wanted.store}/{wanted.name}"
        return path if _is_iso(wanted) else f"{path}.{_tag(wanted)}.vdi"

    @override
    def glance(self, shell: Shell, wanted: MediumOrder) -> Seen:
        name, path = wanted.name, self.called(wanted)
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        expected = str(wanted.size)
        if not size:
            return Seen(ok=False, text=f"{path} is not there any more")
        if _is_iso(wanted) and size != expected:
            return Seen(ok=False, text=f"{path} has {size} bytes, and {name} has {expected}")
        return Seen(ok=True, text=f"{path} is there")

    @override
    def look(self, shell: Shell, wanted: MediumOrder) -> Seen:
        seen = self.glance(shell, wanted)
        if not (seen.ok and _is_iso(wanted)):
            return seen
        wrong = wrong_sum(shell, wanted.sha256, self.called(wanted), timeout_s=UPLOAD_S)
        return Seen(ok=False, text=wrong) if wrong else seen

    @override
    def ensure(self, shell: Shell, wanted: MediumOrder) -> None:
        path = f"{wanted.store}/{wanted.name}"
        if not self.look(shell, wanted).ok:
            vboxmanage.plain(shell, "mkdir", "-p", wanted.store)
            self._upload(shell, wanted, path)
            if not _is_iso(wanted):
                self._convert(shell, wanted, path)
        for base in self._bases(shell, wanted):
            if base != self.called(wanted) and vboxmanage.closed(shell, "disk", base):
                vboxmanage.plain(shell, "rm", "-f", base)

    @override
    def remove(self, shell: Shell, wanted: MediumOrder) -> None:
        path = f"{wanted.store}/{wanted.name}"
        for base in self._bases(shell, wanted):
            vboxmanage.close(shell, "disk", base)
            vboxmanage.plain(shell, "rm", "-f", base)
        if _is_iso(wanted):
            vboxmanage.close(shell, "dvd", path)
        vboxmanage.plain(shell, "rm", "-f", path)

    def _upload(self, shell: Shell, wanted: MediumOrder, path: str) -> None:
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        if size != str(wanted.size) or wrong_sum(shell, wanted.sha256, path, timeout_s=UPLOAD_S):
            mode = 0o600 if wanted.private else 0o644
            send(shell, wanted.path, wanted.sha256, path, mode=mode, timeout_s=UPLOAD_S)

    def _convert(self, shell: Shell, wanted: MediumOrder, path: str) -> None:
        base = self.called(wanted)
        part = f"{base}.part"
        vboxmanage.plain(shell, "qemu-img", "convert", "-O", "vdi", path, part, timeout_s=COPY_S)
        vboxmanage.plain(shell, "mv", "-f", part, base)

    def _bases(self, shell: Shell, wanted: MediumOrder) -> list[str]:
        """Return what was made of the medium, as it was at any time, and what it was made from."""
        if _is_iso(wanted):
            return []
        store = wanted.store
        form = re.compile(rf"{re.escape(wanted.name)}(\.[0-9a-f]{{8}}\.vdi(\.part)?)?")
        listed = shell.run(["ls", "-1A", store]).out.splitlines()
        return [f"{store}/{name}" for name in listed if form.fullmatch(name)]


def _is_iso(wanted: MediumOrder) -> bool:
    return wanted.name.endswith(".iso")


def _tag(wanted: MediumOrder) -> str:
    of = f"{wanted.size} {wanted.sha256.lower()}"
    return hashlib.sha256(of.encode()).hexdigest()[:8]


DRIVER = MediumDriver()
