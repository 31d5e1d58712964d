"""libvirt's daemons where we start them: whatever the caller's own settings, made for all who need them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from toolchain.machine import daemons, host, packages, processes
from toolchain.machine.system import Result, System

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Starts(System):
    """A machine on which a daemon is started as a process that listens nowhere and does nothing."""

    def __init__(self) -> None:
        self.masks: dict[str, str] = {}
        self.running: list[subprocess.Popen[bytes]] = []

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 30, stdin: str = "") -> Result:
        del timeout_s, stdin
        daemon = next((word for word in argv if word in {"virtlogd", "libvirtd"}), "")
        if daemon:
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            self.running.append(child)
            told = Path(f"/proc/{child.pid}/status").read_text().split("Umask:")[1]
            self.masks[daemon] = told.split()[0]
        return Result(0)

    def listening(self, path: Path) -> int | None:
        at = 0 if path == daemons.LOG_SOCKET else 1
        return self.running[at].pid if len(self.running) > at else None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """No service manager, no package missing, nothing started yet."""
    state = tmp_path / "run"
    monkeypatch.setattr(daemons, "STATE", state)
    monkeypatch.setattr(daemons, "RECORD", state / "daemons.json")
    monkeypatch.setattr(daemons, "CONF", state / "libvirtd.conf", raising=False)
    monkeypatch.setattr(daemons, "has_service_manager", lambda: False)
    monkeypatch.setattr(daemons, "mend_kvm", lambda: False)
    monkeypatch.setattr(daemons, "namespace_is_there", lambda: True)
    monkeypatch.setattr(packages, "missing", lambda _: [])
    system = Starts()
    monkeypatch.setattr(daemons, "listener", system.listening)
    yield system
    for child in system.running:
        child.communicate(b"\n")


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: Any) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_daemons_write_what_their_helpers_can_read_whatever_the_umask(
    machine: Starts, umask: int
) -> None:
    """dnsmasq is another user: it reads the reservations that libvirtd writes."""
    host.prepare(machine)
    assert machine.masks == {"virtlogd": "0022", "libvirtd": "0022"}
    mode = stat.S_IMODE(daemons.STATE.stat().st_mode)
    assert mode == 0o755, "who is no root reads in there whether libvirt is ours"
    assert stat.S_IMODE(daemons.RECORD.stat().st_mode) == 0o644
    assert os.umask(umask) == umask, "and the caller's own is as it was"


def test_every_socket_of_our_libvirtd_is_for_the_group_only(machine: Starts) -> None:
    host.prepare(machine)
    told = dict(
        line.replace('"', "").split(" = ")
        for line in (daemons.STATE / "libvirtd.conf").read_text().splitlines()
    )
    assert told["unix_sock_group"] == "libvirt"
    assert {told["unix_sock_ro_perms"], told["unix_sock_rw_perms"]} == {"0770"}


def test_a_libvirtd_of_another_umask_or_an_older_setting_is_started_again(
    machine: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.prepare(machine)
    ours = daemons.read_record().libvirtd
    assert ours
    assert not daemons.unfit(ours)
    monkeypatch.setattr(System, "is_root", lambda _: True)
    monkeypatch.setattr(daemons, "wanted_kvm_state", lambda: "")
    assert host.ready(machine)
    text = daemons.CONF.read_text()
    daemons.CONF.write_text("")
    assert not host.ready(machine)
    daemons.CONF.write_text(text)
    monkeypatch.setattr(processes, "umask", lambda _: 0o077)
    assert not host.ready(machine)
