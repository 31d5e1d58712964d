"""OpenSSH's own server on loopback, as the user who runs the tests, for what is done over SSH.

A server may show its clients a file system of its own (see `tests.support.view`) and put a folder of
commands before all others: that is how a stub machine is served. It leaves out passwords and logins.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from components.reach.shell import LocalShell, SshShell, Target
from tests.support.stubs import SERVED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
USER = getpass.getuser()
VIEW = Path(__file__).with_name("view.py")


def key_pair(algorithm: str = "ed25519") -> tuple[str, str]:
    """Return a new private key and its public half, as OpenSSH writes them."""
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "ecdsa":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} test"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """An sshd of the user who runs the tests; in the foreground, ended by its pid."""

    folder: Path
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None
    path: Path | None = None
    """A folder whose commands come before all others."""
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """What clients see under an absolute path: a folder of the tests. Needs root."""
    sftp: str = "internal-sftp"
    """What serves files; empty: nothing does."""
    sessions_each: int = 10
    """On one connection; sshd's own default, which products leave as it is."""
    startups: str = "10:30:100"
    """How many may log in at a time (sshd_config(5), "MaxStartups"); sshd's own default."""
    keys: tuple[str, ...] = ("ed25519", "ed25519")
    """Algorithm of its own key, and of the one that it lets in."""
    inside: tuple[str, ...] = ()
    """Words before the server's own that put it into another network namespace."""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.private, public = key_pair(self.keys[1])
        host, self.host_key = key_pair(self.keys[0])
        (self.folder / "authorized").write_text(public + "\n")
        (self.folder / "host").touch(0o600)
        (self.folder / "host").write_text(host)
        settings: dict[str, object] = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.folder / "host",
            "AuthorizedKeysFile": self.folder / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxSessions": self.sessions_each,
            "MaxStartups": self.startups,
        }
        if self.sftp:
            settings["Subsystem"] = f"sftp {self.sftp}"
        if self.path:
            # HOME: the start-up files of the user could put another folder first.
            settings["SetEnv"] = (
                f'PATH="{self.path}:{SYSTEM_PATH}" HOME="{self.folder}" {SERVED}=sshd LC_ALL=C'
            )
        lines = [f"{key} {value}\n" for key, value in settings.items()]
        (self.folder / "config").write_text("".join(lines))

    def start(self) -> None:
        assert SSHD
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - sshd insists on it
        view: list[str | Path] = [*self.inside]
        if self.mounts:
            shown = json.dumps({at: str(folder) for at, folder in self.mounts.items()})
            view += [sys.executable, "-I", "-S", VIEW, self.folder / "view", shown]
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                [*view, SSHD, "-D", "-e", "-f", self.folder / "config"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                process_group=0,
            )
        end = time.monotonic() + 10
        while not self._answers():
            alive = self.running.poll() is None and time.monotonic() < end
            assert alive, (self.folder / "log").read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        if not self.inside:
            return LocalShell().connects("127.0.0.1", self.port)
        script = f"exec 3<>/dev/tcp/127.0.0.1/{self.port}"
        return LocalShell().run([*self.inside, "bash", "-c", script]).ok

    def uri(self) -> str:
        """Return the URI of the libvirt behind it; key and known hosts are files of its folder."""
        key, known = self.folder / "id", self.folder / "known"
        key.touch(0o600)
        key.write_text(self.private)
        known.write_text(f"[127.0.0.1]:{self.port} {self.host_key}\n")
        files = f"keyfile={quote(str(key))}&knownhosts={quote(str(known))}"
        return f"qemu+ssh://{USER}@127.0.0.1:{self.port}/system?{files}"

    def stop(self) -> None:
        """End the server and, unlike its own end would, the sessions it serves."""
        assert self.running
        sessions = self.sessions()
        self.running.kill()
        self.running.wait(10)
        for session in sessions:
            with suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)

    def sessions(self) -> list[int]:
        """Pids of the processes that serve connections: the server's children and theirs."""
        assert self.running
        found: list[int] = []
        fresh = [self.running.pid]
        while fresh:
            words = [["pgrep", "-P", str(pid)] for pid in fresh]
            said = [subprocess.run(each, capture_output=True, check=False).stdout for each in words]
            names = {int(pid): _name(int(pid)) for pid in b" ".join(said).split()}
            fresh = [pid for pid, name in names.items() if name.startswith("sshd")]
            found += fresh
        return found

    def shell(self, **other: Any) -> SshShell:
        known = {"host_key": self.host_key, "private_key": self.private, "name": "kvm1"} | other
        return SshShell(host="127.0.0.1", port=self.port, user=USER, **known)

    def target(self, name: str) -> Target:
        """Return how gates and remote objects are told to reach this server."""
        return Target(
            kind="ssh",
            name=name,
            host="127.0.0.1",
            port=self.port,
            user=USER,
            private_key=self.private,
            host_key=self.host_key,
        )


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as handle:  # noqa: PTH123
            return handle.read().strip()
    except OSError:
        return ""


@contextmanager
def serving(
    folder: Path,
    *,
    path: Path | None = None,
    mounts: Mapping[str, Path] | None = None,
    sftp: str = "internal-sftp",
    keys: tuple[str, ...] = ("ed25519", "ed25519"),
    sessions_each: int = 10,
    startups: str = Server.startups,
    inside: Sequence[str] = (),
) -> Iterator[Server]:
    """Run a `Server` with its files in ``folder``; skip the test where that can't be."""
    if SSHD is None:
        pytest.skip("sshd of openssh-server is not installed")
    if mounts and os.geteuid() != 0:
        pytest.skip("only root can show sshd's clients a file system of their own")
    server = Server(
        folder,
        path=path,
        mounts=mounts or {},
        sftp=sftp,
        keys=keys,
        sessions_each=sessions_each,
        startups=startups,
        inside=tuple(inside),
    )
    server.start()
    try:
        yield server
    finally:
        if server.running and server.running.poll() is None:
            server.stop()
