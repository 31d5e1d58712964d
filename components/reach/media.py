"""Media of a hypervisor that is a Linux host: files in its store, as they are.

What a product's own register of media has to be told is its driver's, not here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.reach.driver import Driver, DriverError, must
from components.reach.orders import MediumOrder
from components.reach.upload import PART
from components.reach.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.reach.shell import Shell

UPLOAD_S = 600.0
"""Longest time without progress, and for one reading of a whole medium, seconds."""


def wrong_sum(shell: Shell, sha256: str, path: str, *, timeout_s: float = UPLOAD_S) -> str:
    """Return how the file ``path`` differs from the stack's SHA-256; empty where it does not, or there is none."""
    expected = sha256.lower()
    if not expected:
        return ""
    # A name with a backslash is printed with one before the sum.
    found = must(shell, ["sha256sum", path], timeout_s=timeout_s).lstrip("\\")[:64]
    if found == expected:
        return ""
    return f"{path} on {shell.name} has SHA-256 {found}, and the stack says {expected}"


def send(
    shell: Shell,
    source: str,
    sha256: str,
    path: str,
    *,
    mode: int = 0o644,
    timeout_s: float = UPLOAD_S,
) -> None:
    """Upload a medium to ``path``.

    Raises:
        DriverError: what arrived is not what the stack names.
    """
    shell.put(Path(source), path, mode=mode, timeout_s=timeout_s)
    if wrong := wrong_sum(shell, sha256, path, timeout_s=timeout_s):
        raise DriverError(
            f"{wrong}: {source} is damaged or another file; get it again, or correct the stack"
        )


class FileMediumDriver(Driver[MediumOrder]):
    """See `components.reach.driver.Driver`; ``fits`` says why a medium is none, empty when it is one."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "store", "owner")

    def __init__(self, fits: Callable[[MediumOrder], str]) -> None:
        self._fits = fits

    @override
    def problem(self, wanted: MediumOrder) -> str:
        return self._fits(wanted)

    @override
    def called(self, wanted: MediumOrder) -> str:
        return f"{wanted.store}/{wanted.name}"

    @override
    def glance(self, shell: Shell, wanted: MediumOrder) -> Seen:
        path, expected = self.called(wanted), str(wanted.size)
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        if not size:
            return Seen(ok=False, text=f"{path} is not there any more")
        if size != expected:
            text = f"{path} has {size} bytes, and {wanted.name} has {expected}"
            return Seen(ok=False, text=text)
        return Seen(ok=True, text=f"{path} is there")

    @override
    def look(self, shell: Shell, wanted: MediumOrder) -> Seen:
        seen = self.glance(shell, wanted)
        wrong = wrong_sum(shell, wanted.sha256, self.called(wanted)) if seen.ok else ""
        return Seen(ok=False, text=wrong) if wrong else seen

    @override
    def ensure(self, shell: Shell, wanted: MediumOrder) -> None:
        if self.look(shell, wanted).ok:
            return
        must(shell, ["mkdir", "-p", wanted.store])
        mode = 0o600 if wanted.private else 0o644
        send(shell, wanted.path, wanted.sha256, self.called(wanted), mode=mode)

    @override
    def remove(self, shell: Shell, wanted: MediumOrder) -> None:
        must(shell, ["rm", "-f", self.called(wanted), f"{self.called(wanted)}{PART}"])
