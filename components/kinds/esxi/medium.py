"""Media of an ESXi: files in a folder of its datastore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.esxi.names import unfit
from components.kinds.esxi.vimcmd import UPLOAD_S, must
from components.reach.driver import Driver, DriverError
from components.reach.orders import MediumOrder
from components.reach.upload import PART
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from components.reach.shell import Shell

SUM_S = 1800.0


def unfit_image(path: str) -> str:
    """Say why ESXi copies no disk from ``path``; empty when it does."""
    if path.lower().endswith(".vmdk"):
        return ""
    return (
        f"{path} is no .vmdk, and ESXi copies no other images: convert it with qemu-img convert -O "
        "vmdk -o subformat=monolithicSparse IMAGE NEW.vmdk, and name that one"
    )


class MediumDriver(Driver[MediumOrder]):
    """ISOs, and disks that guests are copied from."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "store")

    @override
    def problem(self, wanted: MediumOrder) -> str:
        name = wanted.name
        return unfit(name) or ("" if name.endswith(".iso") else unfit_image(name))

    @override
    def called(self, wanted: MediumOrder) -> str:
        return f"{wanted.store}/media/{wanted.name}"

    @override
    def glance(self, shell: Shell, wanted: MediumOrder) -> Seen:
        path, size = self.called(wanted), wanted.size
        done = shell.run(["stat", "-c", "%s", path])
        if not done.ok:
            return Seen(ok=False, text=f"{path} is not there any more")
        have = done.out.strip()
        return Seen(ok=have == str(size), text=f"{path} has {have} of {size} bytes")

    @override
    def look(self, shell: Shell, wanted: MediumOrder) -> Seen:
        seen = self.glance(shell, wanted)
        if not seen.ok or not wanted.sha256:
            return seen
        path = self.called(wanted)
        found = must(shell, ["sha256sum", path], timeout_s=SUM_S).split(maxsplit=1)[0]
        if found.lstrip("\\") == wanted.sha256.lower():
            return seen
        return Seen(ok=False, text=f"{path} has SHA-256 {found}")

    @override
    def ensure(self, shell: Shell, wanted: MediumOrder) -> None:
        if self.look(shell, wanted).ok:
            return
        path = self.called(wanted)
        must(shell, ["mkdir", "-p", f"{wanted.store}/media"])
        mode = 0o600 if wanted.private else 0o644
        shell.put(Path(wanted.path), path, mode=mode, timeout_s=UPLOAD_S)
        seen = self.look(shell, wanted)
        if not seen.ok:
            raise DriverError(
                f"{shell.name}: {seen.text}, and the stack says otherwise: {wanted.path} is damaged "
                "or was changed meanwhile; get it again, or correct the stack"
            )

    @override
    def remove(self, shell: Shell, wanted: MediumOrder) -> None:
        path = self.called(wanted)
        must(shell, ["rm", "-f", path, f"{path}{PART}"])


DRIVER = MediumDriver()
