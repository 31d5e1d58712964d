"""Another machine's libvirt that can't be asked is told by the step that is missing, before anything is made.

What is said is what OpenSSH 9.2 and libvirt 9.0 said, with LC_ALL=C, when the step was really left out; "No such file"
and "timed out" are written by that pattern.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from components.gates.identity import IdentityProvider
from components.kinds.libvirt import reached
from components.kinds.libvirt.virsh import Virsh
from components.reach import client
from components.reach.client import ClientShell
from components.reach.shell import LocalShell, Result, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

URI = "qemu+ssh://lab@server:2222/system?keyfile=/k&knownhosts=/h"
FAILED = "error: failed to connect to the hypervisor\nerror: "
RESET = "Cannot recv data: {}: Connection reset by peer\n"
HELPER = "End of file while reading data: {}: Input/output error\n"
SOCKET = (
    "virt-ssh-helper: cannot connect to '/var/run/libvirt/libvirt-sock': Failed to connect socket to "
    "'/var/run/libvirt/libvirt-sock': "
)


class Says(LocalShell):
    """This machine, whose virsh ends so."""

    def __init__(self, err: str, code: int = 1) -> None:
        self.result = Result(code, "", err)
        self.asked: list[list[str]] = []

    @override
    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        assert not stdin
        assert timeout_s <= 30, "within seconds"
        self.asked.append([*argv])
        return self.result


@pytest.mark.parametrize(
    ("said", "rule", "remedy"),
    [
        (
            RESET.format("Host key verification failed."),
            "its host key is not known",
            "ssh -p 2222 lab@server",
        ),
        (
            RESET.format(
                "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key verification failed."
            ),
            "its host key is another one",
            "ssh-keygen -R",
        ),
        (
            RESET.format("lab@server: Permission denied (publickey,keyboard-interactive)."),
            "it lets nobody in with that user and key",
            "?keyfile=PATH",
        ),
        (
            RESET.format("ssh: connect to host server port 2222: Connection refused"),
            "nobody answers there",
            "is it on",
        ),
        (
            RESET.format("ssh: connect to host server port 2222: Connection timed out"),
            "nobody answers there",
            "is it on",
        ),
        (
            RESET.format(
                "ssh: Could not resolve hostname server: Temporary failure in name resolution"
            ),
            "nobody knows its name",
            "/etc/hosts",
        ),
        (
            HELPER.format(f"{SOCKET}Permission denied"),
            "does not take orders from this user",
            "sudo adduser lab libvirt",
        ),
        (
            HELPER.format(f"{SOCKET}No such file or directory"),
            "no libvirt listens there",
            "libvirt-daemon-system",
        ),
        (
            HELPER.format("sh: 1: nc: not found"),
            "no libvirt listens there",
            "libvirt-daemon-system",
        ),
        (HELPER.format("something else"), "its libvirt can't be asked", "something else"),
    ],
)
def test_a_step_that_is_missing_is_told_with_the_field_and_what_to_do(
    said: str, rule: str, remedy: str
) -> None:
    told = reached.wrong(URI, Says(FAILED + said))
    assert told.startswith("lab.host.uri: 'server' given, but "), told
    assert rule in told
    assert remedy in told
    assert "\n" not in told
    assert "\r" not in told


def test_a_host_that_can_be_asked_and_this_machine_have_nothing_wrong() -> None:
    assert reached.wrong(URI, Says("", 0)) == ""
    here = Says("")
    assert reached.wrong("qemu:///system", here) == ""
    assert here.asked == [], "nobody is asked"


def test_a_uri_without_a_user_is_told_since_the_provider_logs_in_as_nobody() -> None:
    shell = Says("", 0)
    told = reached.wrong("qemu+ssh://server/system", shell)
    assert "lab.host.uri" in told
    assert "USER@server" in told
    assert shell.asked == []


def test_it_is_the_first_thing_that_a_preview_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reached, "wrong", lambda uri: f"lab.host.uri: {uri} is off")
    given: dict[str, Any] = {
        "name": "lab",
        "target": {"kind": "local", "name": "this machine"},
        "kind": "libvirt",
        "uri": URI,
        "lab": "lab",
        "private": "/nowhere",
    }
    [failure] = IdentityProvider().check({}, given).failures or []
    assert (failure.property, failure.reason) == ("uri", f"lab.host.uri: {URI} is off")
    assert not IdentityProvider().check({}, given | {"uri": ""}).failures, "a cluster is none"


def test_virsh_takes_the_host_keys_of_the_uri_and_asks_nobody() -> None:
    words = client.virsh(URI)
    assert words[0] == "env"
    assert "UserKnownHostsFile=" in words[1]
    assert "BatchMode=yes" in words[1]
    assert words[2:5] == ["virsh", "-q", "-c"]
    assert words[5].startswith(f"{URI}&command=/")
    assert client.virsh("qemu:///system") == ["virsh", "-q", "-c", "qemu:///system"]


def test_what_is_done_to_another_machine_itself_is_done_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: list[list[str]] = []

    def run(_: ClientShell, argv: Sequence[str], **__: object) -> Result:
        there.append([*argv])
        return Result(1, "", "no")

    monkeypatch.setattr(ClientShell, "run", run)
    here = Says("", 0)
    far = Virsh(here, URI)
    assert far.host.name == "server"
    assert far.tail("/var/log/x") == []
    far.log_away("/var/log/x")
    assert [words[0] for words in there] == ["tail", "sh"]
    assert here.asked == []


def test_an_answer_that_does_not_come_is_told_too() -> None:
    class Silent(Says):
        @override
        def run(self, argv: Sequence[str], **_: Any) -> Result:
            raise Unreachable(f"{argv[0]} did not end within 25 s")

    assert "nobody answers there" in reached.wrong(URI, Silent(""))
