"""Containers by the lxc tools, on a host in memory whose connection can be cut at every command.

A failure here means a container made twice, one that is half-made and taken for whole, or one that
does not run what the stack says.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates import object as objects
from components.gates.object import RemoteObjectProvider
from components.kinds.kvm.container import DRIVER, HOME, configuration, plug
from components.kinds.libvirt import census
from components.reach.driver import DriverError
from components.reach.orders import ContainerOrder
from components.reach.shell import Unreachable
from components.reach.waiting import NotReady
from tests.support.lxc import FakeLxcHost
from tests.support.orders import order

if TYPE_CHECKING:
    from pathlib import Path

Cut = Literal["before", "half-way", "after"]
CONF = f"{HOME}/box/nestlab.conf"


def fields(**other: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": "box",
        "template": "busybox",
        "archive": "",
        "sha256": "",
        "memory_mib": 64,
        "cores": 2,
        "command": [],
        "autostart": True,
        "bridge": "nl0123456789",
        "mac": "52:54:00:00:00:09",
        "address": "10.78.0.9/24",
        "gateway": "10.78.0.1",
    }
    return plain | other


def wanted(**other: Any) -> ContainerOrder:
    return order(ContainerOrder, fields(**other))


def props(**other: Any) -> dict[str, Any]:
    target = {"kind": "ssh", "name": "kvm1"}
    return {
        "name": "kvm1-box-container",
        "driver": "kvm.container",
        "target": target,
        "wanted": fields(**other),
        "deadline_s": 0.05,
    }


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeLxcHost:
    made = FakeLxcHost()
    monkeypatch.setattr(objects, "shell_of", lambda _: made)
    return made


def created(**other: Any) -> dict[str, Any]:
    outs = RemoteObjectProvider().create(props(**other)).outs
    assert outs
    census._shared.clear()
    return outs


def differs(outs: dict[str, Any], **other: Any) -> bool:
    census._shared.clear()
    return bool(RemoteObjectProvider().diff("", outs, props(**other)).changes)


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar.gz"
    path.write_bytes(gzip.compress(b"a root file system"))
    return path


def made(command: ContainerOrder, host: FakeLxcHost) -> None:
    DRIVER.ensure(host, command)


# Making ---------------------------------------------------------------------------------------


def test_a_container_is_made_set_up_and_started(host: FakeLxcHost) -> None:
    outs = created()
    assert outs["answers"] == "container box is running"
    assert host.states == {"box": "RUNNING"}
    config = host.files[f"{HOME}/box/config"].decode()
    assert config.splitlines()[-1] == f"lxc.include = {CONF}", "what the lab decides comes last"
    assert "lxc.net" not in config, "the template's own network would come first"
    assert host.files[CONF].decode() == configuration(wanted())
    assert not differs(outs)


def test_what_the_lab_decides_is_in_lxcs_own_words() -> None:
    assert configuration(wanted()).splitlines() == [
        "lxc.start.auto = 1",
        "lxc.cgroup2.memory.max = 64M",
        "lxc.cgroup2.cpu.max = 200000 100000",
        "lxc.net.0.type = veth",
        f"lxc.net.0.veth.pair = {plug('box')}",
        "lxc.net.0.link = nl0123456789",
        "lxc.net.0.hwaddr = 52:54:00:00:00:09",
        "lxc.net.0.flags = up",
        "lxc.net.0.ipv4.address = 10.78.0.9/24 10.78.0.255",
        "lxc.net.0.ipv4.gateway = 10.78.0.1",
    ]


def test_a_container_without_a_network_has_none_of_its_hosts(host: FakeLxcHost) -> None:
    created(bridge="", mac="", address="", gateway="", autostart=False)
    lines = host.files[CONF].decode().splitlines()
    assert "lxc.net.0.type = empty" in lines, "without it LXC shares the host's network"
    assert "lxc.start.auto = 0" in lines


def test_a_container_from_a_tarball_gets_its_files_and_a_configuration(
    host: FakeLxcHost, tarball: Path
) -> None:
    created(template="", archive=str(tarball))
    assert host.files[f"{HOME}/box/rootfs/bin/init"] == tarball.read_bytes()
    config = host.files[f"{HOME}/box/config"].decode()
    assert f"lxc.rootfs.path = dir:{HOME}/box/rootfs" in config
    assert config.splitlines()[-1] == f"lxc.include = {CONF}"
    assert host.states == {"box": "RUNNING"}


@pytest.mark.parametrize(
    "magic", [b"\x1f\x8b\x08", b"BZh91", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"ustar"]
)
def test_an_archive_is_sent_as_a_file_and_unpacked_there(
    magic: bytes, host: FakeLxcHost, tmp_path: Path
) -> None:
    (tmp_path / "root").write_bytes(magic)
    DRIVER.ensure(host, wanted(template="", archive=str(tmp_path / "root")))
    assert host.files[f"{HOME}/box/rootfs/bin/init"] == magic
    assert not host.exists(f"{HOME}/box/template"), "its copy is gone"


def test_an_archive_that_arrived_as_another_makes_no_container(
    host: FakeLxcHost, tarball: Path
) -> None:
    other = wanted(template="", archive=str(tarball), sha256="0" * 64)
    with pytest.raises(DriverError, match="is damaged or another file"):
        DRIVER.ensure(host, other)
    assert not host.states
    assert not host.exists(f"{HOME}/box/complete")


def uncut(command: ContainerOrder, start: ContainerOrder | None) -> FakeLxcHost:
    host = FakeLxcHost()
    if start:
        DRIVER.ensure(host, start)
    host.said.clear()
    DRIVER.ensure(host, command)
    return host


@pytest.mark.parametrize("cut", get_args(Cut))
@pytest.mark.parametrize("start", ["nothing", "another setting", "another one half gone"])
@pytest.mark.parametrize("source", ["template", "archive"])
def test_after_a_cut_at_any_command_the_next_try_ends_where_an_uncut_one_does(
    cut: Cut, start: str, source: str, tarball: Path
) -> None:
    given_: dict[str, Any] = (
        {} if source == "template" else {"template": "", "archive": str(tarball)}
    )
    target = wanted(**given_)
    before = None if start == "nothing" else wanted(memory_mib=128, **given_)
    whole = uncut(target, before)
    for number in range(len(whole.said)):
        host = FakeLxcHost()
        if before:
            DRIVER.ensure(host, before)
        if start == "another one half gone":
            del host.files[f"{HOME}/box/complete"]
        host.said.clear()
        host.cut_at, host.cut = number, cut
        with pytest.raises(Unreachable):
            DRIVER.ensure(host, target)
        DRIVER.ensure(host, target)
        at = f"cut {cut} command {number}: {host.said[number]}"
        assert host.tree("box") == whole.tree("box"), at
        assert host.states == {"box": "RUNNING"}, at
        assert DRIVER.look(host, target).ok, at


@pytest.mark.parametrize("cut", get_args(Cut))
def test_after_a_cut_at_any_command_of_its_removal_the_next_try_ends_it(cut: Cut) -> None:
    whole = uncut(wanted(), None)
    whole.said.clear()
    DRIVER.remove(whole, wanted())
    assert not whole.files
    for number in range(len(whole.said)):
        host = uncut(wanted(), None)
        host.said.clear()
        host.cut_at, host.cut = number, cut
        with pytest.raises(Unreachable):
            DRIVER.remove(host, wanted())
        DRIVER.remove(host, wanted())
        assert not host.files, f"cut {cut} command {number}"
        assert not host.states


@pytest.mark.parametrize("cut", get_args(Cut))
def test_what_is_half_removed_is_never_taken_for_a_whole_container(cut: Cut) -> None:
    whole = uncut(wanted(), None)
    for number in range(5):
        host = uncut(wanted(), None)
        host.said.clear()
        host.cut_at, host.cut = number, cut
        try:
            DRIVER.remove(host, wanted())
        except Unreachable:
            DRIVER.ensure(host, wanted())
            assert host.tree("box") == whole.tree("box"), f"cut {cut} command {number}"
            assert host.states == {"box": "RUNNING"}


def test_a_removal_that_did_not_happen_is_a_failure(host: FakeLxcHost) -> None:
    outs = created()
    host.said.clear()
    host.cut_at = 0
    with pytest.raises(Unreachable):
        RemoteObjectProvider().delete("", outs)  # or its successor would be taken for made


# Looking and mending ----------------------------------------------------------------------------


def test_another_setting_stops_rewrites_and_starts_and_keeps_the_files(host: FakeLxcHost) -> None:
    outs = created()
    host.files[f"{HOME}/box/rootfs/root/homework"] = b"done"
    assert differs(outs, memory_mib=128)
    host.said.clear()
    RemoteObjectProvider().update("", outs, props(memory_mib=128))
    steps = [words[0] for words in host.said if words[0] in {"lxc-stop", "tee", "lxc-start"}]
    assert steps == ["lxc-stop", "tee", "lxc-start"]
    assert "lxc.cgroup2.memory.max = 128M" in host.files[CONF].decode()
    assert host.files[f"{HOME}/box/rootfs/root/homework"] == b"done"


def test_settings_that_somebody_edited_by_hand_are_seen_and_put_right(
    host: FakeLxcHost, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = created()
    host.files[CONF] += b"lxc.cap.drop =\n"
    assert differs(outs)
    assert "container box is not set up as the stack says" in capsys.readouterr().err
    RemoteObjectProvider().update("", outs, props())
    assert not differs(outs)


@pytest.mark.parametrize("gone", ["stopped", "removed with lxc-destroy", "removed with rm"])
def test_a_container_that_somebody_stopped_or_removed_comes_back(
    gone: str, host: FakeLxcHost, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = created()
    host.states.clear()
    if gone != "stopped":
        host.remove(f"{HOME}/box")
    assert differs(outs)
    expected = "is stopped" if gone == "stopped" else "is not there any more"
    said = capsys.readouterr().err
    assert said == f"kvm1-box-container: container box {expected}; `pulumi up` mends it\n"
    RemoteObjectProvider().update("", outs, props())
    assert host.states == {"box": "RUNNING"}
    assert not differs(outs)


@pytest.mark.parametrize("field", ["name", "template", "archive", "sha256"])
def test_what_it_is_made_of_replaces_it_after_the_old_one_is_gone(
    field: str, host: FakeLxcHost, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = created()
    found = RemoteObjectProvider().diff("", outs, props(**{field: "other"}))
    assert (found.changes, found.replaces, found.delete_before_replace) == (True, ["wanted"], True)
    assert "what is in it is lost" in capsys.readouterr().err
    assert host.states


def test_a_change_of_settings_alone_replaces_nothing(host: FakeLxcHost) -> None:
    outs = created()
    found = RemoteObjectProvider().diff("", outs, props(cores=1, autostart=False))
    assert found.changes
    assert not found.replaces
    assert host.states


def test_a_host_that_is_off_is_a_change_and_no_failure(
    host: FakeLxcHost, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = created()
    host.cut_at = 0
    assert differs(outs)
    assert "kvm1: the connection was cut; `pulumi up` mends it" in capsys.readouterr().err


def test_a_deletion_takes_all_of_it_away(host: FakeLxcHost) -> None:
    outs = created()
    RemoteObjectProvider().delete("", outs)
    assert not host.files
    assert not host.states


def test_a_container_that_dies_at_once_is_told_with_its_place(host: FakeLxcHost) -> None:
    start = host._lxc_start

    def dies(words: list[str], stdin: bytes) -> Any:
        done = start(words, stdin)
        host.states.clear()
        return done

    host._lxc_start = dies  # type: ignore[method-assign]
    with pytest.raises(NotReady) as late:
        RemoteObjectProvider().create(props())
    assert str(late.value).splitlines() == [
        "kvm1-box-container: not ready after 0 s; last seen: container box is stopped",
        "  look at it on kvm1",
    ]


def test_an_unknown_template_is_told_in_the_tools_own_words(host: FakeLxcHost) -> None:
    with pytest.raises(DriverError, match=r"`lxc-create -n box -t nosuch` on kvm1: .*bad template"):
        DRIVER.ensure(host, wanted(template="nosuch"))


# Refusals before anything is made ---------------------------------------------------------------


def failures(**other: Any) -> list[str]:
    found = RemoteObjectProvider().check({}, props(**other)).failures
    return [f"{each.property}: {each.reason}" for each in found]


def test_a_preview_needs_no_tarball_whatever_its_checksum(host: FakeLxcHost) -> None:
    assert failures(template="", archive="/nowhere/root.tar.gz", sha256="0" * 64) == []
    assert not host.said


def test_a_command_with_a_line_break_is_refused_it_would_be_a_setting_of_its_own() -> None:
    assert failures(command=["/bin/sh", "-c", "true\nlxc.cap.keep = sys_admin"])
    assert failures(command=["/bin/sh", "-c", "true; true"]) == []


def test_what_is_not_known_yet_is_not_checked(host: FakeLxcHost) -> None:
    from pulumi.runtime import rpc  # noqa: PLC0415

    news = {**props(), "wanted": rpc.UNKNOWN}
    assert RemoteObjectProvider().check({}, news).failures == []
    assert not host.said


# The command that a container runs --------------------------------------------------------------


def as_lxc_runs_it(conf: str) -> subprocess.CompletedProcess[str]:
    """Run the init of ``conf`` as LXC 5 does: cut at blanks, environment as it stands."""
    found = dict(line.split(" = ", 1) for line in conf.splitlines())
    variable, _, value = found.get("lxc.environment", "NONE=").partition("=")
    return subprocess.run(
        [word for word in found["lxc.init.cmd"].split(" ") if word],
        env={"PATH": "/usr/bin:/bin", variable: value},
        capture_output=True,
        text=True,
        check=False,
    )


WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORDS)
@example(["sleep 1", "", "'", '"', "$HOME `id`", "a  b", "*"])
@example(["plain"])
def test_a_container_runs_exactly_the_command_of_the_stack(words: list[str]) -> None:
    echo = "import sys, json; print(json.dumps(sys.argv[1:]))"
    done = as_lxc_runs_it(configuration(wanted(command=[sys.executable, "-c", echo, *words])))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == words


def test_a_plain_command_needs_no_shell_in_its_container() -> None:
    conf = configuration(wanted(command=["/sbin/init", "--quiet"]))
    assert "lxc.init.cmd = /sbin/init --quiet" in conf.splitlines()
    assert "lxc.environment" not in conf


def test_a_container_whose_network_was_restarted_is_plugged_in_again(host: FakeLxcHost) -> None:
    outs = created()
    host.ports.clear()
    assert differs(outs), "its bridge is another one than it was plugged into"
    RemoteObjectProvider().update("", outs, props())
    assert not differs(outs)
    assert host.states == {"box": "RUNNING"}, "it was not stopped for it"
