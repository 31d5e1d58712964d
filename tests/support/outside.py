"""Programs of other people that make labs by nestlab's components, each in a folder of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.checkout import virsh
from toolchain.bootstrap import paths
from toolchain.engine import environment
from toolchain.lab import in_namespace

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = paths.ROOT / "tests" / "cases" / "outside"
STACK = "dev"
UP_S = 600.0
UP = ("up", "--yes", "--skip-preview", "--suppress-progress")


@dataclass
class Outside:
    """One program, its stack, and the labs that it makes on this machine."""

    folder: Path
    lab: str = field(default_factory=lambda: f"o{uuid.uuid4().hex[:5]}")
    """What the names of its labs begin with."""

    @classmethod
    def make(cls, name: str, folder: Path) -> Outside:
        """Copy the program ``name`` into ``folder``, with a stack."""
        shutil.copytree(PROGRAMS / name, folder)
        project = folder / "Pulumi.yaml"
        project.write_text(project.read_text().replace("CHECKOUT", str(paths.ROOT)))
        made = cls(folder)
        made.pulumi("stack", "init", STACK)
        return made

    def environment(self) -> dict[str, str]:
        """What a shell has that read the checkout's ``env.sh``; the states are its own."""
        states = self.folder.parent / "states"
        states.mkdir(exist_ok=True)
        return environment.environment() | {environment.BACKEND: f"file://{states}"}

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``pulumi`` to its end."""
        return subprocess.run(
            [str(paths.BIN / "pulumi"), *words, "--color", "never", "--non-interactive"],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=UP_S,
            check=False,
        )

    def pulumi(self, *words: str) -> str:
        """Run ``pulumi``; it has to succeed."""
        done = self.start(*words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def configure(self, **settings: object) -> None:
        """Set values of the program's configuration."""
        for key, value in settings.items():
            self.pulumi("config", "set", key, str(value))

    def up(self) -> str:
        """Run ``pulumi up``."""
        return self.pulumi(*UP)

    def preview(self) -> str:
        """Run ``pulumi preview``."""
        return self.pulumi("preview", "--suppress-progress")

    def outputs(self) -> dict[str, Any]:
        """Outputs of the stack, those that are secret hidden."""
        found: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json"))
        return found

    def inside(self, lab: str, host: str, *command: str) -> str:
        """Run ``command`` on the nested host ``host`` of the lab ``lab``, by the key that the lab has there."""
        [folder] = paths.KEYS.glob(f"*~{STACK}~{self.lab}-{lab}/{host}")
        settings = {
            "IdentityFile": "id_ed25519",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": "known_hosts",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        argv = ["ssh", "-F", "none", *options, f"root@{self.outputs()['host']}"]
        done = subprocess.run(
            [*in_namespace(), *argv, shlex.join(command)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=UP_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def left(self) -> list[str]:
        """What of its labs is on this machine."""
        listings = (
            ("list", "--all", "--name"),
            ("net-list", "--all", "--name"),
            ("pool-list", "--all", "--name"),
        )
        names = [name.strip() for words in listings for name in virsh(*words).split("\n")]
        keys = [str(each) for each in paths.KEYS.glob(f"*~{self.lab}*")]
        return [name for name in names if self.lab in name] + keys

    def away(self) -> None:
        """Take its labs and its stack away, whatever the test left, a lock included."""
        self.start("cancel", "--yes")
        self.start("destroy", "--yes", "--skip-preview", "--suppress-progress")
        self.start("stack", "rm", STACK, "--yes", "--force")
        for command in ("", "net-", "pool-"):
            for name in virsh(f"{command}list", "--all", "--name").split():
                if self.lab in name:
                    virsh(f"{command}destroy", name)
                    virsh(f"{command}undefine", name, *(() if command else ("--nvram",)))
