"""Waiting: it ends on success, at its deadline, or when told to; and says what it sees."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from components.reach import interrupt, waiting
from components.reach.shell import LocalShell, Unreachable
from components.reach.waiting import NotReady, Seen, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


def sees(*seen: Seen) -> Callable[[], Seen]:
    """Look that shows ``seen`` one after the other, the last one for ever."""
    left = list(seen)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


NOT_YET = Seen(ok=False, text="no answer")
UP = Seen(ok=True, text="up")


def test_what_is_there_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 60.0)
    assert wait_for("web", sees(UP), deadline_s=0) == UP


def test_a_wait_ends_with_what_it_waited_for() -> None:
    assert wait_for("web", sees(NOT_YET, NOT_YET, UP), deadline_s=10) == UP


def test_at_the_deadline_the_last_thing_seen_is_told() -> None:
    with pytest.raises(NotReady, match=r"^web: not ready after 0 s; last seen: booting$"):
        wait_for("web", sees(NOT_YET, Seen(ok=False, text="booting")), deadline_s=0.02)


@pytest.mark.parametrize("before", [True, False])
def test_a_wait_ends_at_once_when_the_engine_wants_to_stop(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 30.0)
    if before:
        interrupt.CANCELLED.set()
    else:
        threading.Timer(0.05, interrupt.CANCELLED.set).start()
    began = time.monotonic()
    with pytest.raises(NotReady, match="web: stopped while waiting; last seen: no answer"):
        wait_for("web", sees(NOT_YET), deadline_s=60)
    assert time.monotonic() - began < 5


def test_a_long_wait_says_what_it_sees_and_at_once_when_that_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> bool:
        now[0] += seconds
        return False

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting, "CANCELLED", type("Clock", (), {"wait": staticmethod(sleep)}))
    monkeypatch.setattr(waiting, "POLL_S", 1.0)

    def look() -> Seen:
        return Seen(ok=now[0] >= 40, text="no answer" if now[0] < 5 else "no lease")

    wait_for("web", look, deadline_s=60)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "web: 3 s, no answer",
        "web: 6 s, no lease",
        "web: 16 s, no lease",
        "web: 26 s, no lease",
        "web: 36 s, no lease",
    ]


def test_a_short_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    wait_for("web", sees(NOT_YET, UP), deadline_s=10)
    assert not capsys.readouterr().err


def test_a_failure_of_the_look_itself_ends_the_wait() -> None:
    def look() -> Seen:
        raise Unreachable("kvm1: no route to host")

    with pytest.raises(Unreachable, match="kvm1"):
        wait_for("web", look, deadline_s=10)


def test_a_local_command_is_asked_in_a_language_that_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = LocalShell().run(["sh", "-c", "echo $LC_ALL $PATH"])
    assert done.out == "C /usr/bin:/bin:/usr/sbin:/sbin\n", "virsh's words are read"


def test_nothing_in_the_environment_changes_what_a_local_command_prints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """virsh alone reads VIRSH_*, libvirt's client LIBVIRT_*, gettext LANGUAGE; the shell takes ENV."""
    hostile = {
        "VIRSH_DEBUG": "0",
        "VIRSH_DEFAULT_CONNECT_URI": "test:///default",
        "VIRSH_LOG_FILE": "/dev/stdout",
        "LIBVIRT_DEFAULT_URI": "test:///default",
        "LIBVIRT_DEBUG": "1",
        "LIBVIRT_LOG_OUTPUTS": "1:stderr",
        "LIBVIRT_AUTH_FILE": "/nowhere",
        "LANGUAGE": "de:fr",
        "LC_MESSAGES": "de_DE.UTF-8",
        "LD_PRELOAD": "",
        "POSIXLY_CORRECT": "1",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/run/agent",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    told = LocalShell().run(["env"]).out.splitlines()
    kept = {line.partition("=")[0] for line in told} & set(hostile)
    assert kept == {"HOME", "SSH_AUTH_SOCK"}, "a way to another machine by key needs those"


def test_a_local_command_that_does_not_end_is_unreachable() -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"sleep did not end within 0\.2 s"):
        LocalShell().run(["sleep", "20"], timeout_s=0.2)
    assert time.monotonic() - began < 5
