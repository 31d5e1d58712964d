"""Commands on a machine that only its host can reach: SSH through the host's SSH, against OpenSSH's own server.

A failure here means that a guest two layers down is not reached, is reached past its host, or that one that
hangs or goes away takes its host's connection along.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from components.gates import probes
from components.gates.codec import read, write
from components.gates.machine import Machine
from components.gates.object import _Here
from components.gates.probes import Command, Probe
from components.reach.shell import SshShell, Target, Unreachable, fresh_shell, shell_of
from tests.double.conftest import eventually
from tests.support.sshd import Server, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.double


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "host"
    folder.mkdir()
    with serving(folder) as running:
        yield running


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "guest"
    folder.mkdir()
    with serving(folder) as running:
        yield running


def inner(host: Server, guest: Server) -> Target:
    return replace(guest.target("guest"), via=host.target("host"))


def users(shell: object) -> int:
    assert isinstance(shell, SshShell)
    return sum(shell._connections._users.values())


def test_a_command_runs_there_from_where_its_host_is(host: Server, guest: Server) -> None:
    shell = shell_of(inner(host, guest))
    client, port, _, at = shell.run(["printenv", "SSH_CONNECTION"]).out.split()
    assert (client, at) == ("127.0.0.1", str(guest.port))
    assert port != str(host.port)
    again = fresh_shell(inner(host, guest)).run(["cat"], stdin=b"x" * 300_000)
    assert again.out == "x" * 300_000
    outer = shell_of(host.target("host"))
    assert users(outer) == 1, "one session is held by the guest's"
    assert outer.run(["true"]).ok
    assert isinstance(shell, SshShell)
    shell.close()
    eventually(lambda: users(outer) == 0, 10)
    assert outer.run(["true"]).ok, "the host's own connection is still there"


def test_a_machine_with_another_key_is_not_entered_and_one_that_is_not_there_is_told(
    host: Server, guest: Server
) -> None:
    other = replace(inner(host, guest), host_key=host.target("host").host_key)
    with pytest.raises(Unreachable, match="its host key is not the one planned"):
        shell_of(other).run(["true"])
    nobody = replace(inner(host, guest), port=free_port())
    with pytest.raises(Unreachable, match="takes no connection from host yet"):
        shell_of(nobody).run(["true"])
    assert users(shell_of(host.target("host"))) == 0


def test_a_host_that_is_gone_is_what_is_told(host: Server, guest: Server) -> None:
    target = inner(host, guest)
    assert shell_of(target).run(["true"]).ok
    host.stop()
    with pytest.raises(Unreachable, match=r"host \(127\.0\.0\.1:|guest \(127\.0\.0\.1:"):
        fresh_shell(target).run(["true"])


def test_the_way_through_crosses_the_engine(host: Server, guest: Server) -> None:
    def made(target: Target) -> Machine:
        probe = Probe(kind="ssh")
        return Machine(target=target, instance="", probe=probe, reach=target, deadline_s=1.0)

    through = made(inner(host, guest))
    assert read(Machine, write(Machine, through)) == through
    straight = write(Machine, made(host.target("host")))
    assert "via" not in straight["reach"], "a state keeps no more than it has to"
    assert read(Machine, straight, old=True).reach.via is None


def test_the_probe_asks_by_login_and_glances_from_the_host(host: Server, guest: Server) -> None:
    class Asked:
        reach = inner(host, guest)
        probe = Probe(kind="ssh", commands=[Command(["id", "-un"], reach.user)])

    place = _Here(shell_of(host.target("host")))
    assert probes.probe(Asked(), place).ok
    assert probes.glance(Asked(), place).ok
    Asked.probe = Probe(kind="ssh", commands=[Command(["id", "-un"], "nobody-else")])
    seen = probes.probe(Asked(), place)
    assert not seen.ok
    assert "does not say 'nobody-else' yet" in seen.text
    guest.stop()
    assert not probes.glance(Asked(), place).ok
