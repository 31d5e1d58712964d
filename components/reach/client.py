"""A shell on another outer host, by OpenSSH's client: the user's own way there, as libvirt itself takes it.

What `qemu+ssh://` says of user, port, key and host keys is what ``ssh`` is told; everything else is the user's
``~/.ssh``, an agent too. No connection is shared or kept: each command's is a proof that the host is reached.
virsh's own ssh is told the same.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from components.reach import upload
from components.reach.shell import COMMAND_S, LocalShell, Unreachable
from components.reach.stream import CONNECT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Result, Shell

OPTIONS = {
    "BatchMode": "yes",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ConnectTimeout": f"{CONNECT_S:.0f}",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
"""Of ssh_config(5): asks nobody, and gives up on a host that went away."""
FAILED = 255
"""What ssh ends with when it is the connection that failed (ssh(1), "EXIT STATUS")."""
VIRSH_SSH = Path(__file__).with_name("virsh-ssh")
"""What virsh starts in the place of ssh: it has the options from virsh's variable NESTLAB_SSH."""
AWAY = "qemu+ssh://"
"""What the URI of another machine's libvirt begins with."""
FILES = {"keyfile": "IdentityFile", "knownhosts": "UserKnownHostsFile"}
"""Parameters of libvirt's URI (libvirt.org/uri.html), in ssh's words."""


@dataclass
class ClientShell:
    """A machine that the user's own ``ssh`` reaches."""

    host: str
    name: str
    user: str = ""
    port: int = 0
    files: dict[str, str] = field(default_factory=dict)
    """Files by the option of ssh that they are given with."""

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `Shell.run`."""
        words = _options(self.files)
        words += ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        # ssh takes a host that begins with a hyphen for an option.
        words += ["--", self.host, shlex.join(argv)]
        done = LocalShell().run(["ssh", *words], stdin=stdin, timeout_s=timeout_s)
        if done.code == FAILED:
            raise Unreachable(f"{self.host}: {done.said}")
        return done

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `Shell.put`."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        script = 'umask 077; cat >"$1.part" && chmod "$2" "$1.part" && mv "$1.part" "$1"'
        words = ["sh", "-c", script, "sh", to, f"{mode:o}"]
        done = self.run(words, stdin=data, timeout_s=timeout_s)
        if not done.ok:
            raise upload.PutError(f"{to} on {self.host}: {done.said}")

    def connects(self, host: str, port: int) -> bool:
        """See `Shell.connects`."""
        script = 'exec 3<>"/dev/tcp/$1/$2"'
        words = ["timeout", f"{CONNECT_S:.0f}", "bash", "-c", script, "bash", host, str(port)]
        return self.run(words).ok


def _options(files: dict[str, str]) -> list[str]:
    told = OPTIONS | {key: _one_word(path) for key, path in files.items()}
    return [f"-o{key}={value}" for key, value in told.items()]


def _one_word(path: str) -> str:
    """Return ``path`` as ssh_config(5) takes it for one file, and for no token."""
    plain = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def host_shell(uri: str) -> Shell:
    """Return a shell on the outer host whose libvirt has ``uri``: this machine, or one that ssh reaches."""
    parts = urlsplit(uri)
    if not parts.hostname:
        return LocalShell()
    files = _files(parts.query)
    return ClientShell(parts.hostname, parts.hostname, parts.username or "", parts.port or 0, files)


def _files(query: str) -> dict[str, str]:
    return {FILES[key]: value for key, value in parse_qsl(query) if key in FILES}


def virsh(uri: str) -> list[str]:
    """Return the words by which virsh is at the libvirt of ``uri``: what comes before those of a command.

    Of a URI's files virsh knows the key: ``knownhosts`` is the provider's, and what libvirt calls so is for its
    transports libssh and libssh2 (libvirt.org/uri.html). Nor does it give up on a host that went away.
    """
    if not uri.startswith(AWAY):
        return ["virsh", "-q", "-c", uri]
    options = shlex.join(_options(_files(urlsplit(uri).query)))
    told = f"{uri}{'&' if '?' in uri else '?'}command={quote(str(VIRSH_SSH), safe='/')}"
    return ["env", f"NESTLAB_SSH={options}", "virsh", "-q", "-c", told]
