"""The seam between the set-up's decisions and the machine: commands run, files looked at.

Everything in `host`, `daemons` and `doctor` that touches the machine by a command goes through one
`System`, so that tests replace one object and no decision needs root to be tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# libvirtd, ip and friends live in sbin, which Debian leaves out of a plain user's PATH.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DID_NOT_START = 127
TIMED_OUT = 124


@dataclass(frozen=True)
class Result:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        """Whether the command ended with 0."""
        return self.code == 0

    @property
    def last(self) -> str:
        """The last line that says something, error output first; for messages."""
        lines = [line for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.code}, no output"


class System:
    """Runs commands on this machine, in a small environment with English messages."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        """Run ``argv`` and wait; never raises: a missing program is 127, a timeout 124."""
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                env=self.environment(),
            )
        except FileNotFoundError:
            return Result(DID_NOT_START, err=f"{argv[0]}: not found")
        except PermissionError:
            return Result(DID_NOT_START, err=f"{argv[0]}: permission denied")
        except subprocess.TimeoutExpired:
            return Result(TIMED_OUT, err=f"{argv[0]} did not end within {timeout_s:g} s")
        return Result(done.returncode, done.stdout, done.stderr)

    def which(self, program: str) -> str | None:
        """Path of ``program``, looked for in sbin too; None when it is not installed."""
        return shutil.which(program, path=self.environment()["PATH"])

    def is_root(self) -> bool:
        """Whether this process may change the machine itself."""
        return os.geteuid() == 0

    def can_sudo(self) -> bool:
        """Whether sudo works without asking for a password."""
        return self.run(["sudo", "-n", "true"], timeout_s=10).ok

    @staticmethod
    def environment() -> dict[str, str]:
        """The environment commands get: daemons must not inherit the caller's secrets."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in {"HOME", "USER", "LOGNAME", "TERM", "TMPDIR"}
            or name.lower() in {"http_proxy", "https_proxy", "no_proxy"}
        }
        path = os.environ.get("PATH", "")
        return kept | {"PATH": f"{path}:{SEARCH_PATH}" if path else SEARCH_PATH, "LC_ALL": "C"}
