"""A checkout of its own for tests on the real host: the files as they are, nothing of ``.nestlab``.

It shares this machine's cache and libvirt, and nothing else: its labs have their own name, subnets,
state and keys, so a test run can go on beside a user's lab and clean up after itself alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STACK = "local"
URI = "qemu:///system"
UP_S = 600.0
SHORT_S = 180.0
KEPT = ("VIRTUAL_ENV", "PULUMI_", "NESTLAB_ROOT", "NESTLAB_KEYS", "NESTLAB_BACKEND", "PYTHONPATH")
"""Variables of the session that must not lead the checkout's commands to another one."""


@dataclass
class Done:
    """A command that ended."""

    code: int
    said: str
    """Both outputs, in the order they came."""


@dataclass
class Checkout:
    """One folder with the project's files, and the lab that its ``stack`` is."""

    root: Path
    lab: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:5]}")
    given: Mapping[str, str] = field(default_factory=dict)
    """What its user has set in their shell."""
    stack: str = STACK

    @classmethod
    def make(
        cls,
        root: Path,
        given: Mapping[str, str] | None = None,
        stack: str = STACK,
        *,
        new: bool = False,
    ) -> Checkout:
        """Copy what git would commit into ``root``, and give its ``stack`` a lab of its own.

        With what is known of this machine already, which a guest was booted for, but for a ``new`` one.
        """
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=paths.ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            source, target = paths.ROOT / name, root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        if paths.HOST_JSON.is_file() and not new:
            local = root / paths.LOCAL.name
            local.mkdir(mode=0o700)
            shutil.copy2(paths.HOST_JSON, local)
        made = cls(root, given=given or {}, stack=stack)
        made.edit(made._own)
        return made

    def _own(self, lab: dict[str, Any]) -> None:
        """Rename the lab and move its subnets to where no other run is likely to be."""
        number = int(hashlib.sha256(self.lab.encode()).hexdigest()[:4], 16)
        self.subnets = [f"10.{160 + number % 40}.{number // 40 % 250}.0/24"]
        self.subnets.append(f"10.{200 + number % 40}.{number // 40 % 250}.0/24")
        lab["name"] = self.lab
        lab["networks"]["lab"]["subnet"] = self.subnets[0]
        if self.stack == STACK:
            lab["hypervisors"]["kvm1"]["networks"]["inner"]["subnet"] = self.subnets[1]

    @property
    def settings(self) -> Path:
        """The stack file."""
        return self.root / "stacks" / f"Pulumi.{self.stack}.yaml"

    def edit(self, change: Any) -> None:
        """Let ``change`` alter the lab in the stack file."""
        told = yaml.safe_load(self.settings.read_text())
        change(told["config"]["nestlab:lab"])
        self.settings.write_text(yaml.safe_dump(told, sort_keys=False))

    def environment(self) -> dict[str, str]:
        """The environment of a user who has just opened a shell."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(KEPT)}
        return kept | {"STACK": self.stack} | dict(self.given)

    def start(self, argv: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, as a terminal would."""
        with output.open("wb") as handle:
            return subprocess.Popen(
                list(argv),
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                process_group=0,
                umask=0o077 if self.given else -1,
            )

    def run(self, *argv: str, timeout_s: float = SHORT_S) -> Done:
        """Run a command to its end; kill its process group when it does not come."""
        output = self.root / f".output-{uuid.uuid4().hex[:8]}"
        process = self.start(argv, output)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            code = 124
        said = output.read_text(errors="replace")
        output.unlink()
        return Done(code, said)

    def make_target(self, target: str, *more: str, timeout_s: float = UP_S) -> Done:
        """Run one of the Makefile's targets."""
        return self.run("make", "-s", target, *more, timeout_s=timeout_s)

    def prepare(self, *targets: str) -> None:
        """Run these of the Makefile's targets, and `doctor` where what it finds is not known yet."""
        known = (self.root / paths.LOCAL.name / paths.HOST_JSON.name).is_file()
        for target in (*targets, *(() if known else ("doctor",))):
            done = self.make_target(target)
            assert done.code == 0, done.said

    def pulumi(self, *words: str, timeout_s: float = UP_S) -> Done:
        """Run plain ``pulumi`` in a shell that has read the environment file."""
        script = '. .nestlab/env.sh && exec pulumi "$@" --color never --non-interactive'
        return self.run("bash", "-c", script, "pulumi", *words, timeout_s=timeout_s)

    def up(self, *words: str) -> str:
        """Run plain ``pulumi up``; it has to succeed."""
        done = self.pulumi("up", "--yes", "--skip-preview", "--suppress-progress", *words)
        assert done.code == 0, done.said
        return done.said

    def preview(self) -> str:
        """Run plain ``pulumi preview``; it has to succeed."""
        done = self.pulumi("preview", "--suppress-progress")
        assert done.code == 0, done.said
        return done.said

    def sheet(self) -> dict[str, dict[str, Any]]:
        """The connection sheet by machine."""
        script = ". .nestlab/env.sh && exec pulumi stack output --json"
        done = self.run("bash", "-c", script)
        assert done.code == 0, done.said
        return {row["name"]: row for row in json.loads(json.loads(done.said)["sheet"]["text"])}

    def inside(self, *command: str, host: str = "kvm1") -> Done:
        """Run a command on a machine of the lab, the way `make enter` does."""
        return self.run("./nestlab", "enter", "--stack", self.stack, host, *command)

    def down(self) -> str:
        """Run ``make down``; it has to succeed."""
        done = self.make_target("down")
        assert done.code == 0, done.said
        return done.said

    def left(self) -> list[str]:
        """Everything of the lab that is still on this machine, in words."""
        found = []
        for what, words in (
            ("domain", ("list", "--all", "--name")),
            ("network", ("net-list", "--all", "--name")),
            ("pool", ("pool-list", "--all", "--name")),
        ):
            names = [name.rstrip() for name in virsh(*words).split("\n")]
            found += [f"{what} {name}" for name in names if self.lab in name]
        places = [
            *Path("/var/lib/libvirt/nestlab").glob(f"{self.lab}-*"),
            *Path("/var/log/libvirt/qemu").glob(f"{self.lab}-*-console.log"),
        ]
        found += [f"file {place}" for place in places]
        keys = self.root / ".nestlab" / "keys"
        found += [f"file {path}" for path in keys.rglob("*") if path.is_file()]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (
                        (entry / "cmdline")
                        .read_bytes()
                        .replace(b"\0", b" ")
                        .decode(errors="replace")
                    )
                    if self.lab in line or str(self.root) in line:
                        found.append(f"process {entry.name}: {line[:120]}")
        return found

    def destroy(self) -> None:
        """Leave nothing, whatever the test left: the last resort of a fixture, not a product path."""
        if self.make_target("down").code != 0:
            for domain in virsh("list", "--all", "--name").split():
                if domain.startswith(f"{self.lab}-"):
                    virsh("destroy", domain)
                    virsh("undefine", domain, "--nvram")
            for network in virsh("net-list", "--all", "--name").split():
                if network.startswith(f"{self.lab}-"):
                    virsh("net-destroy", network)
                    virsh("net-undefine", network)
            virsh("pool-destroy", f"nestlab-{self.lab}")
            virsh("pool-undefine", f"nestlab-{self.lab}")
            for folder in Path("/var/lib/libvirt/nestlab").glob(f"{self.lab}-*"):
                shutil.rmtree(folder, ignore_errors=True)


def virsh(*words: str) -> str:
    """Ask this machine's libvirt; an error is an empty answer."""
    done = subprocess.run(
        ["virsh", "-q", "-c", URI, *words], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout
