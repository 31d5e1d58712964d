"""Media of a hypervisor that is a Linux host: files in its store, as they are.

What a product's own register of media has to be told is its driver's, not here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.remote.driver import DriverError, must
from components.remote.upload import PART
from components.remote.waiting import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.remote.driver import Props
    from components.remote.shell import Shell

UPLOAD_S = 600.0
"""Longest time without progress, and for one reading of a whole medium, seconds."""


def wrong_sum(shell: Shell, wanted: Props, path: str, *, timeout_s: float = UPLOAD_S) -> str:
    """Return how the file ``path`` differs from the stack's SHA-256; empty where it does not, or there is none."""
    expected = str(wanted["sha256"]).lower()
    if not expected:
        return ""
    # A name with a backslash is printed with one before the sum.
    found = must(shell, ["sha256sum", path], timeout_s=timeout_s).lstrip("\\")[:64]
    if found == expected:
        return ""
    return f"{path} on {shell.name} has SHA-256 {found}, and the stack says {expected}"


def send(
    shell: Shell, wanted: Props, path: str, *, mode: int = 0o644, timeout_s: float = UPLOAD_S
) -> None:
    """Upload a medium to ``path``.

    Raises:
        DriverError: what arrived is not what the stack names.
    """
    shell.put(Path(wanted["path"]), path, mode=mode, timeout_s=timeout_s)
    if wrong := wrong_sum(shell, wanted, path, timeout_s=timeout_s):
        raise DriverError(
            f"{wrong}: {wanted['path']} is damaged or another file; get it again, or correct "
            "the stack"
        )


class FileMediumDriver:
    """See `components.remote.driver.Driver`; ``fits`` says why a medium is none, empty when it is one."""

    replaced_by: tuple[str, ...] = ("name", "store", "owner")

    def __init__(self, fits: Callable[[Props], str]) -> None:
        self._fits = fits

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        return self._fits(wanted)

    def called(self, wanted: Props) -> str:
        """Return its path there."""
        return f"{wanted['store']}/{wanted['name']}"

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        path, expected = self.called(wanted), str(wanted["size"])
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        if not size:
            return Seen(ok=False, text=f"{path} is not there any more")
        if size != expected:
            text = f"{path} has {size} bytes, and {wanted['name']} has {expected}"
            return Seen(ok=False, text=text)
        return Seen(ok=True, text=f"{path} is there")

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        seen = self.glance(shell, wanted)
        wrong = wrong_sum(shell, wanted, self.called(wanted)) if seen.ok else ""
        return Seen(ok=False, text=wrong) if wrong else seen

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        if self.look(shell, wanted).ok:
            return
        must(shell, ["mkdir", "-p", wanted["store"]])
        send(shell, wanted, self.called(wanted))

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        must(shell, ["rm", "-f", self.called(wanted), f"{self.called(wanted)}{PART}"])
