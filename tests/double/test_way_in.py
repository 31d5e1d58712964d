"""The one way into a nested host: the same keys, trust and settings whatever the user's own say.

A failure here means that `make enter` fails for whoever has a line of their own in ~/.ssh/config, or
keeps the checkout in a folder whose name ssh takes for something else.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from components.gates.keys import write_keys
from components.reach.shell import SshShell
from tests.support.sshd import SSHD, USER, Server, key_pair, serving
from toolchain import ssh as opening
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd")

CONFIG = """\
Host *
  Port 1
  ProxyJump nobody@127.0.0.1:1
  ProxyCommand false
  HostKeyAlgorithms ssh-rsa
  PubkeyAuthentication no
  PreferredAuthentications password
  RemoteCommand false
  RequestTTY force
  User nobody
  HostName 192.0.2.1
  ForwardAgent yes
  CheckHostIP yes
  VerifyHostKeyDNS yes
  IdentityFile /nowhere/id
  UserKnownHostsFile /nowhere/known
  ControlMaster auto
  ControlPath /nowhere/%C
  EscapeChar none
"""
NAMES = (
    "plain",
    "a b",
    "c++",
    "a&b#c?d",
    "%41%h%%",
    "$HOME ${HOME} $(id)",
    'it\'s "mine"',
    "back\\slash",
    "~",
    "-F",
    "é日本",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(params=NAMES)
def keys(
    request: pytest.FixtureRequest,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The keys of a nested host that is the server, in a checkout with such a name."""
    folder: Path = tmp_path / request.param / ".nestlab" / "keys"
    monkeypatch.setattr(paths, "KEYS", folder)
    write_keys(str(folder / "local" / "kvm1"), server.target("kvm1"))
    return folder / "local" / "kvm1"


def ssh(tmp_path: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run what `make enter` runs of `words` on a host; see `run_hostile`."""
    argv, folder = opening.words({"name": "kvm1", "user": USER}, "local", words)
    return run_hostile(tmp_path, argv, folder)


def run_hostile(tmp_path: Path, argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what `make enter` runs where the system's configuration is hostile, the user's like it."""
    hostile = tmp_path / "hostile"
    hostile.write_text(CONFIG)
    script = f'mount --bind {shlex.quote(str(hostile))} /etc/ssh/ssh_config && exec "$@"'
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    given = os.environ | {"SSH_AUTH_SOCK": "/nowhere", "HOME": str(tmp_path), "LANGUAGE": "de"}
    return subprocess.run(
        ["unshare", *mapped, "--mount", "sh", "-c", script, "sh", *argv],
        cwd=folder,
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_host_is_entered_whatever_the_configuration_and_the_folder_say(
    keys: Path, tmp_path: Path
) -> None:
    assert keys.is_dir()
    done = ssh(tmp_path, ["printf", "%s|", "a b", "$(id)"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "a b|$(id)|", "")


def test_both_clients_refuse_a_host_that_shows_another_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "KEYS", tmp_path / "keys")
    _, another = key_pair()
    reach = replace(server.target("kvm1"), host_key=another)
    write_keys(str(tmp_path / "keys" / "local" / "kvm1"), reach)
    done = ssh(tmp_path, ["true"])
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
    shell = SshShell("127.0.0.1", server.port, USER, server.private, another, "kvm1")
    with pytest.raises(Exception, match="its host key is not the one planned"):
        shell.run(["true"])


def test_a_guest_is_entered_through_the_hypervisor_around_it(
    server: Server, keys: Path, tmp_path: Path
) -> None:
    """Both are the one server here; the second connection begins at the first one's other end."""
    del keys
    write_keys(str(paths.KEYS / "local" / "web"), server.target("web"))
    around = {"name": "kvm1", "user": USER}
    words = ["printenv", "SSH_CONNECTION"]
    argv, folder = opening.words({"name": "web", "user": USER}, "local", words, around)
    done = run_hostile(tmp_path, argv, folder)
    assert (done.returncode, done.stderr) == (0, "")
    _, port, _, at = done.stdout.split()
    assert at == str(server.port)
    assert int(port) != server.port
    with_nobody = {"name": "kvm9", "user": USER}
    write_keys(str(paths.KEYS / "local" / "kvm9"), replace(server.target("kvm9"), port=1))
    argv, folder = opening.words({"name": "web", "user": USER}, "local", words, with_nobody)
    assert run_hostile(tmp_path, argv, folder).returncode == 255, "it went past the host around it"
