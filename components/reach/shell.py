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
import logging
import os
import shlex
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from components.reach import upload
from components.reach.connections import Connections, cut_after, end_input, let_in
from components.reach.stream import CONNECT_S, Stream, opened
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import paramiko


T = TypeVar("T")
SSH_PORT = 22
HANDSHAKE_S = 20.0
"""Key exchange and login on an emulated machine that is still booting, seconds."""
COMMAND_S = 60.0
FED = 1 << 15
"""What is sent to a command before its outputs are looked at, bytes; SSH's packets hold no more."""
GRACE_S = 2.0
"""How long after its time a command is cut off, where nothing else ended it, seconds."""
KEPT = ("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "KRB5CCNAME")
"""What commands of this machine get of the caller's environment beside PATH. No VIRSH_DEBUG,
LIBVIRT_LOG_OUTPUTS, LIBVIRT_AUTH_FILE, LANGUAGE: they change what virsh prints, and how it connects
(virsh(1), "ENVIRONMENT"; libvirt's logging.html)."""


# It logs what it also raises, with a traceback: a machine that boots would fill the user's screen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Target:
    """How a place is reached, as plain data that goes through the engine; empty for one that nobody enters.

    ``kind`` is "local" or "ssh"; the other fields belong to "ssh". ``private_key`` is a secret.
    """

    kind: str = ""
    name: str = ""
    host: str = ""
    port: int = 0
    user: str = ""
    private_key: str = field(default="", repr=False)
    host_key: str = ""
    password: str = field(default="", repr=False)
    """Of the user, a secret, for probes that log in to an API."""
    via: Target | None = None
    """The host through whose SSH server it is reached; None: straight from this machine."""


LOCAL = Target(kind="local", name="this machine")
"""The machine that deploys."""
NOWHERE = Target()
"""The inside of a guest that nobody enters."""


class Unreachable(Refused):
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

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """Send a file of any size; ``to`` holds what it held before until all of it has arrived.

        Its folder has to be there. ``to`` has forward slashes, on Windows too: ``/C:/folder/file``.

        Raises:
            upload.PutError: the file can't be read here, or not written there (no folder, no space).
            Unreachable: the place does not answer, or took nothing for ``timeout_s`` seconds.
            waiting.NotReady: the deployment is being stopped.
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
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment = kept | {"LC_ALL": "C", "PATH": f"{path}:/usr/sbin:/sbin"}
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

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `Shell.put`; a disk needs no deadline."""
        del timeout_s
        upload.save(source, to, mode, self.name)

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
    via: SshShell | None = None
    """Through whom; None: straight."""
    _connections: Connections = field(default_factory=Connections, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _sending: dict[str, threading.Lock] = field(default_factory=dict, repr=False)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `Shell.run`."""
        import paramiko  # noqa: PLC0415 - 0.1 s, which a deployment of one layer need not pay

        until = time.monotonic() + timeout_s
        with self._session(min(HANDSHAKE_S, timeout_s), _channel) as (link, channel):
            try:
                with (
                    cut_after(link, channel, timeout_s + GRACE_S, argv[0]),
                    contextlib.closing(channel),
                ):
                    channel.settimeout(timeout_s)
                    channel.exec_command(shlex.join(argv))
                    return _talk(channel, stdin, until, argv[0])
            except (paramiko.SSHException, EOFError, OSError) as broken:
                raise self._broken(link, broken) from None

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `Shell.put`."""
        # Two guests may want one medium: the second must not write into the first one's half.
        with self._lock:
            turn = self._sending.setdefault(to, threading.Lock())
        with turn:
            self._put(source, to, mode, timeout_s)

    def _put(self, source: Path | bytes, to: str, mode: int, timeout_s: float) -> None:
        import paramiko  # noqa: PLC0415

        where = f"{self.name} ({self.host}:{self.port})"
        with self._session(min(HANDSHAKE_S, timeout_s), _channel) as (link, channel):
            try:
                channel.settimeout(timeout_s)
                guard = partial(cut_after, link, channel, timeout_s + GRACE_S, to)
                with contextlib.closing(channel):
                    upload.send(channel, source, to, mode=mode, where=where, guard=guard)
            except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as broken:
                raise self._broken(link, broken) from None

    def connects(self, host: str, port: int) -> bool:
        """See `Shell.connects`."""
        with self._session(HANDSHAKE_S, partial(opened, host, port)) as (_, channel):
            if channel:
                channel.close()
            return channel is not None

    def stream(self, host: str, port: int) -> Stream:
        """Return a connection to ``host``:``port`` from this place, which carries another SSH session.

        Raises:
            Unreachable: the place does not answer.
            ConnectionRefusedError: nothing there takes a connection.
        """
        held = contextlib.ExitStack()
        _, channel = held.enter_context(self._session(HANDSHAKE_S, partial(opened, host, port)))
        if channel is None:
            held.close()
            raise ConnectionRefusedError(f"takes no connection from {self.name} yet")
        return Stream(channel, held)

    @contextlib.contextmanager
    def _session(
        self, patience: float, start: Callable[[paramiko.Transport, float], T]
    ) -> Iterator[tuple[paramiko.Transport, T]]:
        """Start something on a connection, which stays until the last who use it have left it.

        Raises:
            Unreachable: the place does not answer.
        """
        link, made = self._begun(patience, start)
        try:
            yield link, made
        finally:
            self._connections.leave(link)

    def _begun(
        self, patience: float, start: Callable[[paramiko.Transport, float], T]
    ) -> tuple[paramiko.Transport, T]:
        """Return a connection, which is to be left, and what was started on it.

        That a kept connection is gone, or takes no more, shows when it is used, and not which of the two
        (paramiko tells one thread what became of another one's). Nothing was sent then, so another will do.
        """
        import paramiko  # noqa: PLC0415

        def fresh() -> tuple[paramiko.Transport, T]:
            made = let_in(partial(self._connect, patience))
            try:
                return made, start(made, patience)
            except BaseException:
                made.close()
                raise

        until = time.monotonic() + patience
        while True:
            link = None
            try:
                link, first = self._connections.take(patience, fresh)
                return link, first[0] if first else start(link, patience)
            except (paramiko.SSHException, EOFError, OSError) as broken:
                failed = self._broken(link, broken)
                if link:
                    self._connections.leave(link)
                if not link or time.monotonic() > until:
                    raise failed from None
            except BaseException:
                if link:
                    self._connections.leave(link)
                raise

    def _broken(self, link: paramiko.Transport | None, why: Exception) -> Unreachable:
        """Give up ``link``, and no other that has taken its place; return what to raise.

        What other threads do on it may well end as it should.
        """
        if link:
            self._connections.give_up(link)
        return Unreachable(f"{self.name} ({self.host}:{self.port}): {_words(why)}")

    def close(self) -> None:
        """Give all connections up, when the commands of other threads on them have ended; the next opens one."""
        self._connections.close()

    def _connect(self, patience: float) -> paramiko.Transport:
        import paramiko  # noqa: PLC0415

        key = _login(self.private_key)
        kind, wanted = _public(self.host_key)
        link: socket.socket | Stream
        if self.via:
            link = self.via.stream(self.host, self.port)
        else:
            link = socket.create_connection((self.host, self.port), CONNECT_S)
            # Many short messages: each would wait for the server's word on the one before, which may be 40 ms late.
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(cast("socket.socket", link))
        try:
            transport.banner_timeout = transport.handshake_timeout = patience
            transport.auth_timeout = patience
            # Otherwise a server with several host keys may show one we do not know.
            transport.get_security_options().key_types = (kind,)
            transport.start_client(timeout=patience)
            _insist(transport, wanted)
            transport.auth_publickey(self.user, key)
        except BaseException:
            transport.close()
            link.close()  # paramiko leaves it where the server hung up first
            raise
        return transport


def _channel(link: paramiko.Transport, patience: float) -> paramiko.Channel:
    return link.open_session(timeout=patience)


def _insist(transport: paramiko.Transport, wanted: paramiko.PKey) -> None:
    import paramiko  # noqa: PLC0415

    if not transport.initial_kex_done:
        raise TimeoutError("it takes connections and does not answer")
    if transport.get_remote_server_key() != wanted:
        raise paramiko.SSHException(
            "its host key is not the one planned for it: another machine has this address"
        )


def _talk(channel: paramiko.Channel, stdin: bytes, until: float, what: str) -> Result:
    """Feed ``stdin`` and collect both outputs until the command ends."""
    out, err = bytearray(), bytearray()
    fed: int | None = 0
    while True:
        # Asked before its outputs are: paramiko's thread may take the last of them and the end at once.
        ended = channel.exit_status_ready() and channel.eof_received
        moved = False
        while channel.recv_ready():
            out += channel.recv(65536)
            moved = True
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(65536)
            moved = True
        if ended:
            code = channel.recv_exit_status()
            return Result(code, out.decode(errors="replace"), err.decode(errors="replace"))
        # A channel that ends by itself says so first (RFC 4254 5.3).
        if channel.closed and not channel.eof_received:
            raise EOFError(f"the connection was cut while {what} ran")
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not end in time")
        if fed is not None:
            before, fed = fed, _fed(channel, stdin, fed)
            moved = moved or fed != before
        if not moved:
            time.sleep(0.005)


def _fed(channel: paramiko.Channel, stdin: bytes, at: int) -> int | None:
    """Send what there is room for of ``stdin`` from ``at``; return where it goes on, None: it has ended."""
    # The command may end without reading everything.
    with contextlib.suppress(OSError):
        while (
            at < len(stdin)
            and channel.send_ready()
            and (sent := channel.send(stdin[at : at + FED]))
        ):
            at += sent
    if at < len(stdin) and not channel.closed:
        return at
    end_input(channel)
    return None


def _public(line: str) -> tuple[str, paramiko.PKey]:
    """Return the type, OpenSSH's name, and the key of an OpenSSH public key line."""
    import base64  # noqa: PLC0415

    import paramiko  # noqa: PLC0415

    kind, data = line.split()[:2]
    return kind, paramiko.PKey.from_type_string(kind, base64.b64decode(data))


def _login(private: str) -> paramiko.PKey:
    """Return a private key in OpenSSH's format, which does not say of what kind it is outside."""
    import paramiko  # noqa: PLC0415

    try:
        return paramiko.Ed25519Key.from_private_key(io.StringIO(private))
    except paramiko.SSHException:
        return paramiko.ECDSAKey.from_private_key(io.StringIO(private))


def _words(broken: BaseException) -> str:
    if isinstance(broken, TimeoutError) and not str(broken):
        return "no answer"
    if isinstance(broken, EOFError) and not str(broken):
        return "the connection was cut"
    if type(broken).__name__ == "ChannelException":
        return "its SSH server lets in and starts no command (sshd_config's MaxSessions)"
    text = getattr(broken, "strerror", None) or str(broken) or type(broken).__name__
    # "EOF" and the like stay.
    first = str(text)[:1]
    return (first if str(text)[1:2].isupper() else first.lower()) + str(text)[1:]


_shells: dict[object, SshShell] = {}
_shells_lock = threading.Lock()


def shell_of(target: Target) -> Shell:
    """Return the shell of ``target``; one connection per place and process, shared by threads."""
    if target.kind == "local":
        return LocalShell()
    with _shells_lock:
        return _ssh_of(target)


def _identity(target: Target) -> object:
    via = _identity(target.via) if target.via else None
    return target.host, target.port, target.user, target.host_key, via


def _ssh_of(target: Target) -> SshShell:
    identity = _identity(target)
    if identity not in _shells:
        _shells[identity] = SshShell(
            host=target.host,
            port=target.port,
            user=target.user,
            private_key=target.private_key,
            host_key=target.host_key,
            name=target.name,
            via=_ssh_of(target.via) if target.via and target.via.kind == "ssh" else None,
        )
    return _shells[identity]


def fresh_shell(target: Target) -> Shell:
    """Return the shell of ``target`` on a new connection: a kept one may hang on a dead machine."""
    shell = shell_of(target)
    if isinstance(shell, SshShell):
        shell.close()
    return shell


def keep(shell: Shell) -> None:
    """Have a nested host write to its disk what was just made in it.

    People switch hosts off the hard way, and a medium that was uploaded a moment ago would come back
    empty (ext4 allocates up to half a minute later). Windows has no such command and needs none.
    """
    if isinstance(shell, SshShell):
        with contextlib.suppress(Unreachable):
            shell.run(["sync"])
