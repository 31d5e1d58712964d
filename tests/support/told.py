"""A guest that acts on its seed, as far as it can be seen from outside: an SSH server at its address.

It reads the disc that is in its drive each time somebody comes, shows the host key that stands there, and lets in
the user with the keys that stand there. So who waits for it is answered only if the right disc is in the drive
of a guest that runs. It runs none of its commands.
"""

from __future__ import annotations

import base64
import io
import re
import shlex
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import paramiko
import pytest
import yaml
from typing_extensions import override

from components.media import cloudbase_init, guest
from components.media.iso import Iso
from components.reach.shell import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.double.conftest import Project

WAIT_S = 10.0
ANA: dict[str, Any] = {"user": "ana", "commands": ["true"]}
EVA: dict[str, Any] = {"user": "eva", "commands": ["true"]}
"""What a guest is told, and then instead."""


class _Login(paramiko.ServerInterface):
    """One connection to a guest that was told ``seed``, its user-data."""

    def __init__(self, seed: dict[str, Any], entered: list[str]) -> None:
        self._seed, self._entered = seed, entered

    @override
    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    @override
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        [user] = self._seed["users"]
        keys = [line.split()[1] for line in user["ssh_authorized_keys"]]
        known = username == user["name"] and key.get_base64() in keys
        return paramiko.common.AUTH_SUCCESSFUL if known else paramiko.common.AUTH_FAILED

    @override
    def check_channel_request(self, kind: str, chanid: int) -> int:
        del chanid
        if kind == "session":
            return paramiko.common.OPEN_SUCCEEDED
        return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    @override
    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._answer, args=(channel, command), daemon=True).start()
        return True

    def _answer(self, channel: paramiko.Channel, command: bytes) -> None:
        words = shlex.split(command.decode())
        user = str(self._seed["users"][0]["name"])
        said = ""
        if "id -un" in words[-1]:
            said = f"{user}\n"
        elif guest.OUTCOME in command.decode():
            script = str(self._seed["runcmd"][-1][-1])
            [mark] = re.findall(r'echo "\$1 (\w+)"', script)
            said = f"{guest.DONE} {mark}\n"
        elif command.decode() == " ".join(cloudbase_init.asked("")[0]):
            [mark] = re.findall(r'"\$how (\w+)`n"', _setup(self._seed))
            said = f"{guest.DONE} {mark}\r\n"
        self._entered.append(user)
        with suppress(EOFError, OSError):
            channel.sendall(said.encode())
            channel.send_exit_status(0 if said else 127)
            channel.close()


def _setup(seed: dict[str, Any]) -> str:
    """Return the script that cloudbase-init is told to write and to run."""
    [file], [run] = seed["write_files"], seed["runcmd"]
    assert run.split()[-2:] == ["-File", file["path"]]
    return str(file["content"])


def _host_key(seed: dict[str, Any]) -> str:
    if "ssh_keys" in seed:
        return str(seed["ssh_keys"]["ed25519_private"])
    [key] = re.findall(r"'ssh_host_ed25519_key', '([^']+)'", _setup(seed))
    return base64.b64decode(key).decode()


@dataclass
class Told:
    """The guest: who looks at ``seed`` sees the disc in its drive, None for none or one that is off."""

    address: str
    seed: Callable[[], Path | None]
    entered: list[str] = field(default_factory=list)
    """Users whom it has answered, in order."""

    def answer(self, link: socket.socket) -> None:
        """Serve one connection."""
        path = self.seed()
        if path is None:
            link.close()
            return
        text = Iso(path).read("/user-data").decode()
        assert text.startswith("#cloud-config\n")
        told = yaml.safe_load(text)
        transport = paramiko.Transport(link)
        key = io.StringIO(_host_key(told))
        transport.add_server_key(paramiko.Ed25519Key.from_private_key(key))
        with suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=_Login(told, self.entered))


@contextmanager
def told(address: str, seed: Callable[[], Path | None]) -> Iterator[Told]:
    """Have a guest at ``address`` of this machine's loopback device; needs the right to give it that."""
    command = ["ip", "address", "add", f"{address}/32", "dev", "lo"]
    if subprocess.run(command, check=False, capture_output=True, timeout=WAIT_S).returncode:
        pytest.skip("needs the right to give the loopback device an address")
    made = Told(address, seed)
    try:
        with socket.create_server((address, SSH_PORT)) as server:
            serving = threading.Thread(target=_serve, args=(made, server), daemon=True)
            serving.start()
            yield made
            server.shutdown(socket.SHUT_RDWR)
            serving.join(WAIT_S)
    finally:
        command[2] = "del"
        subprocess.run(command, check=True, timeout=WAIT_S)


def _serve(made: Told, server: socket.socket) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=made.answer, args=(link,), daemon=True).start()


def lives_with_a_seed(
    project: Project,
    program: Callable[[dict[str, Any]], str],
    told: Told,
    *,
    taken_out: Callable[[], object],
    kept: Callable[[], object],
) -> None:
    """Assert that a guest which is told `ANA`, then `EVA`, answers as that, and mends when its disc is taken out.

    ``program`` has a guest with that ``cloud_init``; ``taken_out`` takes the disc out of its drive by hand;
    ``kept`` returns what another disc must not change, such as what is on the guest's own.
    """
    project.up(program(ANA))
    first = told.seed()
    assert first is not None, "the guest runs, with its disc"
    assert set(told.entered) == {"ana"}
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")

    taken_out()
    assert "`pulumi up` mends it" in project.pulumi("preview")
    del told.entered[:]
    project.pulumi("up", "--yes", "--skip-preview")
    assert (told.seed(), set(told.entered)) == (first, {"ana"})
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")

    before = kept()
    project.write(program(EVA))
    said = project.pulumi("preview")
    assert "its configuration changed: it is stopped and started with another seed" in said, said
    del told.entered[:]
    project.pulumi("up", "--yes", "--skip-preview")
    assert told.seed() not in {first, None}
    assert set(told.entered) == {"eva"}, "it read the other disc"
    assert kept() == before, "its disk is the one it had"
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    secret = project.pulumi("stack", "output", "logins", "--show-secrets", "--json")
    assert '"told": "' in secret, secret

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert told.seed() is None
