"""A command line on a machine: this one's, or a nested hypervisor's over SSH.

Everything that looks at a place or mends it (gates, container drivers) goes through a `Shell`, so
that it works the same at every depth. What is given as an argument vector is never seen by a shell
as anything but data: over SSH each word is quoted.

It leaves out agents, passwords and ``~/.ssh``: a lab has its own generated keys, and a host key that
is not the planned one ends the connection.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import paramiko

CONNECT_S = 5.0
"""A machine that is there answers within this, seconds; under emulation too."""
HANDSHAKE_S = 20.0
"""Key exchange and login on an emulated machine that is still booting, seconds."""
COMMAND_S = 60.0


class Target(TypedDict, total=False):
    """How a place is reached, as plain data that goes through the engine.

    ``kind`` is "local" or "ssh"; the other fields belong to "ssh". ``private_key`` is a secret.
    """

    kind: str
    name: str
    host: str
    port: int
    user: str
    private_key: str
    host_key: str


class Unreachable(Exception):
    """The place does not answer, or not as itself; the message says what was seen last."""


@dataclass(frozen=True)
class Result:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether the command ended with 0."""
        return self.code == 0

    @property
    def said(self) -> str:
        """The last line that says something, error output first."""
        lines = [line.strip() for line in (self.out + "\n" + self.err).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code} and no word"


class Shell(Protocol):
    """Runs commands at one place."""

    name: str

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """Run ``argv`` and wait for its end.

        Raises:
            Unreachable: the place does not answer, or not within ``timeout_s`` seconds.
        """
        ...

    def connects(self, host: str, port: int) -> bool:
        """Whether ``host``:``port`` takes a TCP connection from this place."""
        ...


class LocalShell:
    """The machine that runs the deployment."""

    name = "this machine"

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `Shell.run`; a program that is not installed is exit code 127."""
        path = os.environ.get("PATH", "")
        environment = os.environ | {"LC_ALL": "C", "PATH": f"{path}:/usr/sbin:/sbin"}
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                env=environment,
            )
        except FileNotFoundError:
            return Result(127, "", f"{argv[0]} is not installed on this machine")
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{argv[0]} did not end within {timeout_s:g} s") from None
        return Result(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def connects(self, host: str, port: int) -> bool:
        """See `Shell.connects`."""
        try:
            socket.create_connection((host, port), CONNECT_S).close()
        except OSError:
            return False
        return True


@dataclass
class SshShell:
    """A machine reached over SSH, whose host key is known beforehand."""

    host: str
    port: int
    user: str
    private_key: str = field(repr=False)
    host_key: str
    name: str
    _held: paramiko.Transport | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `Shell.run`."""
        import paramiko  # noqa: PLC0415 - 0.1 s, which a deployment of one layer need not pay

        until = time.monotonic() + timeout_s
        try:
            channel = self._transport().open_session(timeout=HANDSHAKE_S)
            with contextlib.closing(channel):
                channel.settimeout(timeout_s)
                channel.exec_command(shlex.join(argv))
                return _talk(channel, stdin, until, f"{self.name}: {argv[0]}")
        except (paramiko.SSHException, EOFError, OSError) as broken:
            self.close()
            raise Unreachable(f"{self.name} ({self.host}:{self.port}): {_words(broken)}") from None

    def connects(self, host: str, port: int) -> bool:
        """See `Shell.connects`."""
        import paramiko  # noqa: PLC0415

        try:
            self._transport().open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=CONNECT_S
            ).close()
        except paramiko.ChannelException:
            return False
        except (paramiko.SSHException, EOFError, OSError) as broken:
            self.close()
            raise Unreachable(f"{self.name} ({self.host}:{self.port}): {_words(broken)}") from None
        return True

    def close(self) -> None:
        """Give the connection up; the next command opens a new one."""
        with self._lock:
            if self._held:
                self._held.close()
            self._held = None

    def _transport(self) -> paramiko.Transport:
        with self._lock:
            if self._held and self._held.is_active():
                return self._held
            self._held = self._connect()
            return self._held

    def _connect(self) -> paramiko.Transport:
        import paramiko  # noqa: PLC0415

        key = paramiko.Ed25519Key.from_private_key(io.StringIO(self.private_key))
        wanted = paramiko.Ed25519Key(data=_blob(self.host_key))
        link = socket.create_connection((self.host, self.port), CONNECT_S)
        transport = paramiko.Transport(link)
        try:
            transport.banner_timeout = transport.handshake_timeout = HANDSHAKE_S
            transport.auth_timeout = HANDSHAKE_S
            # Otherwise a server with several host keys may show one we do not know.
            transport.get_security_options().key_types = ("ssh-ed25519",)
            transport.start_client(timeout=HANDSHAKE_S)
            _insist(transport, wanted)
            transport.auth_publickey(self.user, key)
        except BaseException:
            transport.close()
            raise
        return transport


def _insist(transport: paramiko.Transport, wanted: paramiko.PKey) -> None:
    import paramiko  # noqa: PLC0415

    if transport.get_remote_server_key() != wanted:
        raise paramiko.SSHException(
            "its host key is not the one planned for it: another machine has this address"
        )


def _talk(channel: paramiko.Channel, stdin: bytes, until: float, what: str) -> Result:
    """Feed ``stdin`` and collect both outputs until the command ends."""
    threading.Thread(target=_feed, args=(channel, stdin), daemon=True).start()
    out, err = bytearray(), bytearray()
    while True:
        moved = False
        while channel.recv_ready():
            out += channel.recv(65536)
            moved = True
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(65536)
            moved = True
        if channel.exit_status_ready() and channel.eof_received and not moved:
            code = channel.recv_exit_status()
            return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))
        if channel.closed and not channel.exit_status_ready():
            raise EOFError(f"{what}: the connection was cut")
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not end in time")
        if not moved:
            time.sleep(0.005)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    # The command may end without reading everything.
    with contextlib.suppress(OSError):
        if stdin:
            channel.sendall(stdin)
        channel.shutdown_write()


def _blob(public: str) -> bytes:
    """Return the key itself of an OpenSSH public key line."""
    import base64  # noqa: PLC0415

    return base64.b64decode(public.split()[1])


def _words(broken: BaseException) -> str:
    if isinstance(broken, TimeoutError) and not str(broken):
        return "no answer"
    text = getattr(broken, "strerror", None) or str(broken) or type(broken).__name__
    return str(text)[:1].lower() + str(text)[1:]


_shells: dict[tuple[Any, ...], SshShell] = {}
_shells_lock = threading.Lock()


def shell_of(target: Target) -> Shell:
    """Return the shell of ``target``; one connection per place and process, shared by threads."""
    if target["kind"] == "local":
        return LocalShell()
    identity = (target["host"], int(target["port"]), target["user"], target["host_key"])
    with _shells_lock:
        if identity not in _shells:
            _shells[identity] = SshShell(
                host=target["host"],
                port=int(target["port"]),
                user=target["user"],
                private_key=target["private_key"],
                host_key=target["host_key"],
                name=target["name"],
            )
        return _shells[identity]


def fresh_shell(target: Target) -> Shell:
    """Return the shell of ``target`` on a new connection: a kept one may hang on a dead machine."""
    shell = shell_of(target)
    if isinstance(shell, SshShell):
        shell.close()
    return shell
