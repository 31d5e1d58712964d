"""A lab's snapshot: whole or not at all, used only for what it was taken of, and never anybody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid5

import pytest
from typing_extensions import override

from cli import records, renewal, snapshots
from components.gates.marks import SECRET, SIGNATURE
from components.kinds.libvirt import snapshots as part
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import COMMAND_S, Result
from tests.support.libvirtd import SPACE, FakeLibvirt, Refused
from tests.unit.cli.labs import DOMAINS, LAB, ROWS, stands
from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.engine import state, strays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DISK = (
    "<devices><disk device='disk'><driver type='{form}'/></disk>"
    "<disk device='disk'><driver type='raw'/><readonly/></disk></devices></domain>"
)


@dataclass
class Host(FakeLibvirt):
    """A libvirt that keeps snapshots: the state of the domain, and what was written on its disk."""

    kept: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    disk: dict[str, str] = field(default_factory=dict)
    free: int = 100 << 30
    qemu: str = "QEMU 7.2.22"
    refuses: str = ""
    """A command that fails, with its domain."""
    killed: str = ""
    """A command, with its domain, after which whoever asked for it is gone."""

    @override
    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        asked = " ".join(list(argv)[4:6])
        if asked == self.refuses:
            return Result(1, "", "error: no")
        done = super().run(argv, stdin=stdin, timeout_s=timeout_s)
        if asked == self.killed:
            raise KeyboardInterrupt
        return done

    @override
    def domain(self, name: str, state: str = "running", uuid: str = "") -> None:
        super().domain(name, state, uuid)
        one = self.domains[name]
        one.xml = one.xml.replace("</domain>", DISK.format(form="qcow2"))
        self.kept.setdefault(name, {})
        self.disk.setdefault(name, "fresh")

    @override
    def _capabilities(self, names: list[str], options: list[str]) -> str:
        told = super()._capabilities(names, options)
        cpu = "<cpu><vendor>Intel</vendor><model>x</model><feature name='vmx'/></cpu>"
        return told.replace("</host>", f"{cpu}</host>")

    @override
    def _domstats(self, names: list[str], options: list[str]) -> str:
        if "--state" in options:
            return super()._domstats(names, options)
        return "".join(
            f"Domain: '{n}'\n  balloon.rss=1024\n  block.0.physical={1000 + 500 * len(self.kept[n])}\n"
            for n in names
        )

    def _version(self, names: list[str], options: list[str]) -> str:
        del names, options
        return f"Using library: libvirt 9.0.0\nRunning hypervisor: {self.qemu}\n"

    @override
    def _pool_info(self, names: list[str], options: list[str]) -> str:
        del names, options
        return f"Name: x\nAvailable:      {self.free}\n"

    def _snapshot_list(self, names: list[str], options: list[str]) -> str:
        del options
        return "".join(f"{each}\n" for each in self.kept[names[0]]) + "\n"

    def _snapshot_create_as(self, names: list[str], options: list[str]) -> None:
        assert "--description" in options
        self.kept[names[0]][names[1]] = (self._a_domain(names).state, self.disk[names[0]])

    def _snapshot_revert(self, names: list[str], options: list[str]) -> None:
        assert options == ["--paused"]
        if names[1] not in self.kept[names[0]]:
            raise Refused("Domain snapshot not found")
        if self._a_domain(names).state not in {"running", "paused", "shut off"}:
            raise Refused("odd state")
        self.disk[names[0]] = self.kept[names[0]][names[1]][1]
        self._a_domain(names).state = "paused"

    def _snapshot_delete(self, names: list[str], options: list[str]) -> None:
        del options
        if self.kept[names[0]].pop(names[1], None) is None:
            raise Refused("Domain snapshot not found")


@pytest.fixture
def host() -> Host:
    made = Host()
    for name in DOMAINS:
        made.domain(name)
    return made


def states(host: Host) -> set[str]:
    return {one.state for one in host.domains.values()}


# Domains ------------------------------------------------------------------------------------------


def test_all_domains_stand_still_while_they_are_taken(host: Host) -> None:
    part.take(Virsh(host, "x"), DOMAINS, "n", "why")
    assert {each["n"][0] for each in host.kept.values()} == {"paused"}, "it is one moment for all"
    assert states(host) == {"running"}


def test_one_alone_is_not_stopped_by_us(host: Host) -> None:
    part.take(Virsh(host, "x"), ["net-a"], "n", "why")
    assert not [each for each in host.commands() if each.startswith(("suspend", "resume"))]


@pytest.mark.parametrize("how", ["refuses", "killed"])
@pytest.mark.parametrize("at", ["suspend net-b", "snapshot-create-as net-b"])
def test_a_take_that_fails_leaves_nothing_and_all_runs(host: Host, how: str, at: str) -> None:
    host.kept["net-b"]["mine"] = ("running", "")
    setattr(host, how, at)
    with pytest.raises(VirshError if how == "refuses" else KeyboardInterrupt):
        part.take(Virsh(host, "x"), DOMAINS, "n", "why")
    assert host.kept == {"net-a": {}, "net-b": {"mine": ("running", "")}}
    assert states(host) == {"running"}


@pytest.mark.parametrize(
    "state", ["running", "paused", "shut off", "saved", "crashed", "pmsuspended"]
)
def test_whatever_they_are_they_go_back_and_run(host: Host, state: str) -> None:
    part.take(Virsh(host, "x"), DOMAINS, "n", "why")
    if state == "saved":
        host.saved.add("net-b")
        state = "shut off"
    host.disk = dict.fromkeys(DOMAINS, "used")
    host.domains["net-b"].state = state
    part.revert(Virsh(host, "x"), DOMAINS, "n")
    assert states(host) == {"running"}
    assert set(host.disk.values()) == {"fresh"}
    assert not host.saved, "it is of another disk"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("type='qcow2'", "type='raw'", "a raw disk"),
        ("<devices>", "<os><loader type='pflash'>x</loader></os><devices>", "UEFI"),
    ],
)
def test_what_holds_no_snapshot_is_told(host: Host, old: str, new: str, why: str) -> None:
    assert part.hindrance(Virsh(host, "x"), DOMAINS) == ""
    one = host.domains["net-b"]
    one.xml = one.xml.replace(old, new)
    assert why in part.hindrance(Virsh(host, "x"), DOMAINS)


def test_one_that_does_not_run_is_told(host: Host) -> None:
    host.domains["net-b"].state = "shut off"
    assert part.hindrance(Virsh(host, "x"), DOMAINS) == "domain net-b is shut off"


# A lab --------------------------------------------------------------------------------------------


@pytest.fixture
def stand(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A lab of two machines that stands."""
    stands(host, tmp_path, monkeypatch)
    monkeypatch.setattr(renewal, "renew", lambda *_: None)
    return host


def test_one_is_taken_and_the_one_before_goes(stand: Host) -> None:
    first = snapshots.take("net")
    assert first.answered == {"a": ["10.1.0.2"], "b": []}
    assert first.bytes == 1000, "what the two disks grew by"
    second = snapshots.take("net")
    assert [list(each) for each in stand.kept.values()] == [[second.name]] * 2
    assert records.read("net") == records.Record(second)
    assert records.file("net").stat().st_mode & 0o777 == 0o600


def test_what_is_being_taken_is_noted_before_it_is(stand: Host) -> None:
    old = snapshots.take("net")
    stand.killed = "snapshot-create-as net-a"
    stand.refuses = "snapshot-delete net-a"
    with pytest.raises(VirshError):
        snapshots.take("net")
    left = records.read("net")
    assert left.taken == old
    assert set(left.going) == set(stand.kept["net-a"]) - {old.name}
    stand.killed = stand.refuses = ""
    assert snapshots.reset("net")
    assert list(stand.kept["net-a"]) == [old.name], "the next command has ended it"


def test_no_room_is_told_before_anything_is_done(stand: Host) -> None:
    stand.free = 1 << 20
    with pytest.raises(ui.Problem, match="130 MiB where the lab's disks are, and 1 MiB"):
        snapshots.take("net")
    assert stand.commands() == []
    assert not records.file("net").exists()


def test_a_kind_that_takes_no_time_has_none(stand: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "outputs", lambda _: {"sheet": [{**ROWS[0], "kind": "esxi"}]})
    with pytest.raises(ui.Problem, match="a is of the kind esxi"):
        snapshots.take("net")
    assert stand.commands() == []


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"identity": "4567"}, "of a lab that is gone"),
        ({"digest": "other"}, "the lab was changed since"),
        ({"domains": {"net-a": DOMAINS["net-a"]}}, "the lab was changed since"),
    ],
)
def test_of_another_lab_it_is_not_used(stand: Host, other: dict[str, Any], why: str) -> None:
    snapshots.take("net")
    record = records.read("net")
    assert snapshots.unusable(LAB, record) == ""
    assert why in snapshots.unusable(replace(LAB, **other), record)
    assert stand


def test_on_another_host_it_is_not_used(stand: Host) -> None:
    snapshots.take("net")
    stand.qemu = "QEMU 8.0.0"
    assert "with another QEMU" in snapshots.unusable(LAB, records.read("net"))


@pytest.mark.parametrize("harm", ["undefined", "anew", "stranger", "removed"])
def test_of_a_domain_that_is_another_it_is_not_used(stand: Host, harm: str) -> None:
    snapshots.take("net")
    if harm == "undefined":
        del stand.domains["net-b"]
    if harm == "stranger":
        stand.domain("net-b", uuid=str(uuid5(SPACE, "stranger")))
    if harm in {"anew", "removed"}:
        stand.kept["net-b"] = {}
    assert "net-b" in snapshots.unusable(LAB, records.read("net"))


def test_reset_is_warm_or_cold_with_a_word_why(
    stand: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def down(_: str) -> bool:
        done.append("down")
        return True

    def up(*_: object, select: bool, **__: object) -> lab.Up:
        done.append("up")
        assert select, "it was what plain `pulumi` is about"
        for name in DOMAINS:
            stand.domain(name)
        return lab.Up(ok=True, changed=True, seconds={})

    monkeypatch.setattr(state, "is_selected", lambda *_: True)
    monkeypatch.setattr(lab, "down", down)
    monkeypatch.setattr(lab, "up", up)
    snapshots.take("net")
    stand.disk["net-a"] = "used"
    assert snapshots.reset("net")
    assert (done, stand.disk["net-a"]) == ([], "fresh")
    assert not records.read("net").resetting
    stand.refuses = "snapshot-revert net-b"
    assert snapshots.reset("net")
    assert done == ["down", "up"]
    assert "from the beginning: virsh snapshot-revert" in capsys.readouterr().err
    assert records.read("net").taken, "a new one for the next time"
    assert snapshots.reset("net", cold=True)
    assert done == ["down", "up"] * 2


def test_a_reset_that_was_cut_is_gone_on_with(stand: Host) -> None:
    snapshots.take("net")
    stand.disk = dict.fromkeys(DOMAINS, "used")
    stand.killed = "snapshot-revert net-a"
    with pytest.raises(KeyboardInterrupt):
        snapshots.reset("net")
    assert records.read("net").resetting
    stand.killed = ""
    snapshots.carry_on("net")
    assert set(stand.disk.values()) == {"fresh"}
    assert states(stand) == {"running"}
    assert not records.read("net").resetting


@pytest.mark.parametrize("command", [snapshots.take, snapshots.drop])
def test_whatever_comes_after_a_reset_that_was_cut_ends_it_first(
    stand: Host, command: Callable[[str], object]
) -> None:
    """A snapshot of a lab that was not told the time would have the wrong one for good."""
    snapshots.take("net")
    stand.disk = dict.fromkeys(DOMAINS, "used")
    stand.killed = "snapshot-revert net-a"
    with pytest.raises(KeyboardInterrupt):
        snapshots.reset("net")
    stand.killed = ""
    command("net")
    assert states(stand) == {"running"}
    assert set(stand.disk.values()) == {"fresh"}


def test_no_snapshot_is_taken_of_a_lab_that_is_half_way_back(stand: Host) -> None:
    old = snapshots.take("net")
    records.write("net", records.Record(old, [], resetting=True))
    stand.refuses = "snapshot-revert net-a"
    with pytest.raises(ui.Problem, match="a reset did not end"):
        snapshots.take("net")
    assert records.read("net") == records.Record(old, [], resetting=True)


def test_drop_takes_ours_and_no_other(stand: Host) -> None:
    stand.kept["net-a"]["nestlab-mine"] = ("running", "")
    snapshots.take("net")
    assert snapshots.drop("net")
    assert stand.kept == {"net-a": {"nestlab-mine": ("running", "")}, "net-b": {}}
    assert not records.file("net").exists()
    assert not snapshots.drop("net")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"taken": {"x": 1}, "going": [], "resetting": false}']
)
def test_a_record_that_can_t_be_read_is_none(stand: Host, text: str) -> None:
    assert stand
    records.file("net").parent.mkdir()
    records.file("net").write_text(text)
    assert records.read("net") == records.Record()


# What the state says ------------------------------------------------------------------------------


URN = "urn:pulumi:net::nestlab::{}::{}"


def resource(type_: str, name: str, **more: Any) -> dict[str, Any]:
    provider = f"{URN.format('pulumi:providers:libvirt', 'host-libvirt')}::1"
    return {
        "urn": URN.format(type_, name), "type": type_, "custom": True, "id": name, "inputs": {},
        "provider": provider, **more,
    }  # fmt: skip


def deployment() -> dict[str, Any]:
    inner = f"{URN.format('pulumi:providers:libvirt', 'kvm1-libvirt')}::1"
    outs = {"value": "0123", "uri": "qemu:///system", "pool": "nestlab-net", "kind": "libvirt"}
    secret = {SIGNATURE: SECRET, "ciphertext": "abc"}
    return {
        "resources": [
            resource(strays.IDENTITY, "identity", outputs=outs),
            resource(snapshots.DOMAIN, "u-1", inputs={"name": "net-kvm1", "xml": {"xslt": secret}}),
            resource(snapshots.DOMAIN, "u-2", inputs={"name": "web"}, provider=inner),
        ]
    }  # fmt: skip


def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: dict[str, Any]) -> snapshots.Lab:
    monkeypatch.setattr(paths, "BIN", tmp_path)
    (tmp_path / "pulumi").touch()
    monkeypatch.setattr(lab, "exists", lambda _: True)
    monkeypatch.setattr(snapshots, "_deployment", lambda _: told)
    return snapshots.of("net")


def test_the_outer_hosts_own_domains_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = read(monkeypatch, tmp_path, deployment())
    assert found.domains == {"net-kvm1": "u-1"}
    assert (found.identity, found.uri, found.pool) == ("0123", "qemu:///system", "nestlab-net")


def test_what_is_made_or_wanted_otherwise_changes_the_digest_and_a_look_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = read(monkeypatch, tmp_path, deployment()).digest
    same = deployment()
    same["resources"][1]["inputs"]["xml"]["xslt"]["ciphertext"] = "another"
    same["resources"][1]["outputs"] = {"answers": "seen"}
    same["resources"].reverse()
    assert read(monkeypatch, tmp_path, same).digest == before
    other = deployment()
    other["resources"][2]["inputs"]["memory"] = 2
    assert read(monkeypatch, tmp_path, other).digest != before
    fewer = deployment()
    fewer["resources"].pop()
    assert read(monkeypatch, tmp_path, fewer).digest != before


def test_a_lab_in_the_middle_of_something_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ui.Problem, match="did not end"):
        read(monkeypatch, tmp_path, deployment() | {"pending_operations": [{}]})


# What a machine is told ---------------------------------------------------------------------------


def way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let the way into each machine be a script of this test's, with the words that it is given after it."""
    file = tmp_path / "machine"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o700)
    monkeypatch.setattr(lab, "way_in", lambda *given: ([str(file), "-t", *given[2][4:]], tmp_path))


def test_the_time_is_told_when_the_machine_listens_and_not_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = (
        'sleep 1; echo noise; echo ready; read -r now seed; echo "$now $seed" >told; echo renewed'
    )
    way(monkeypatch, tmp_path, script)
    began = time.time()
    renewal.renew("net", {"a": ["10.1.0.2"]})
    now, seed = (tmp_path / "told").read_text().split()
    assert began + 1 <= float(now) <= time.time()
    assert len(bytes.fromhex(seed)) == renewal.SEED_BYTES


def test_each_time_another_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    way(monkeypatch, tmp_path, 'echo ready; read -r now seed; echo "$seed" >>told; echo renewed')
    for _ in range(2):
        renewal.renew("net", {"a": []})
    assert len(set((tmp_path / "told").read_text().split())) == 2


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo ready; echo nobody inside answers", "a: nobody inside answers"),
        ("echo ready", "a: it ended without a word"),
        ("echo 'Permission denied'; exit 255", "a does not let us in: Permission denied"),
    ],
)
def test_who_is_not_renewed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, why: str
) -> None:
    way(monkeypatch, tmp_path, script)
    with pytest.raises(ui.Problem, match=why):
        renewal.renew("net", {"a": ["10.1.0.2"]})


def test_a_machine_that_says_nothing_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(renewal, "LOGIN_S", 0.2)
    way(monkeypatch, tmp_path, "exec sleep 60")
    with pytest.raises(ui.Problem, match="no answer"):
        renewal.renew("net", {"a": []})


def test_who_answers_inside_is_who_is_expected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    way(monkeypatch, tmp_path, "echo ready; echo answers $1; echo still")
    assert renewal.stand_still("net", {"a": ["10.1.0.2", "10.1.0.3"]}) == {"a": ["10.1.0.2"]}


def test_who_does_not_stand_still_is_told_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    way(monkeypatch, tmp_path, "echo called >>calls; echo ready; echo xl is broken")
    with pytest.raises(ui.Problem, match="a: xl is broken"):
        renewal.stand_still("net", {"a": []})
    assert (tmp_path / "calls").read_text() == "called\n" * 2


def test_the_scripts_are_a_shell_s(tmp_path: Path) -> None:
    """Run for real, with a ping that one address answers and a clock and kernel that are not this machine's."""
    for name, text in (
        ("ping", '[ "$3" != 10.1.0.7 ] || exec sleep 60; [ "$3" = 10.1.0.2 ]'),
        ("date", 'echo "$@" >told-date'),
        ("perl", f'[ -n "$SEED" ] || exec {shutil.which("perl")} "$@"; echo "$SEED" >told-seed'),
        ("sync", ""),
        ("xl", "if [ $1 = list ]; then cat domains; else echo $* >>told-xl; fi"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o700)

    def ran(script: str, *words: str) -> list[str]:
        for file in (renewal.STOPPED, renewal.PAUSED):
            script = script.replace(file, f"{tmp_path}/{file.rpartition('/')[2]}")
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words],
            input="5.5 ab\n", capture_output=True, text=True, check=False, cwd=tmp_path,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, timeout=30,
        )  # fmt: skip
        return done.stdout.split("\n")[:-1]

    assert ran(renewal.RENEW, "10.1.0.2") == ["ready", "renewed"]
    assert (tmp_path / "told-date").read_text() == "-u -s @5.5\n"
    assert (tmp_path / "told-seed").read_text() == "ab\n"
    assert ran(renewal.RENEW, "10.1.0.9", "10.1.0.2") == ["ready", "renewed"], "one is enough"
    told = ran(renewal.RENEW, "10.1.0.7", "10.1.0.2")
    assert told == ["ready", "renewed"], "nor does the session last as long as who says nothing"
    assert ran(renewal.RENEW, "10.1.0.9")[1:] == ["nobody inside answers: 10.1.0.9"]
    assert ran(renewal.RENEW) == ["ready", "renewed"]
    (tmp_path / "domains").write_text(
        "Name         ID   Mem VCPUs State   Time(s)\n"
        "Domain-0      0  1024     1 r-----    12.1\n"
        "a guest       3   256     1 -b----     1.2\n"
        "paused        4   256     1 --p---     1.2\n"
    )
    # As what holds a virtual processor: one runs, one was stopped by somebody else.
    with (tmp_path / "kvm-vcpu:0").open("w") as held:
        runs, stopped = (subprocess.Popen(["sleep", "60"], stdin=held) for _ in range(2))
    try:
        os.kill(stopped.pid, signal.SIGSTOP)
        for _ in range(2):
            told = ran(renewal.ASK, "10.1.0.9", "10.1.0.2")
            assert told == ["ready", "answers 10.1.0.2", "still"]
            assert state_of(runs) == state_of(stopped) == "T"
        assert ran(renewal.RENEW) == ["ready", "renewed"]
        assert (state_of(runs), state_of(stopped)) == ("S", "T")
    finally:
        for each in (runs, stopped):
            each.kill()
            each.wait()
    assert set((tmp_path / "told-xl").read_text().splitlines()) == {"pause 3", "unpause 3"}
    assert not list(tmp_path.glob("nestlab-*"))


def state_of(process: subprocess.Popen[bytes]) -> str:
    """The state of a process, once it does not run any more."""
    until = time.monotonic() + 5
    while True:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state != "R" or time.monotonic() > until:
            return state
