"""`make show`, `make enter` and what they stand on: the sheet as people read it, and the way in."""

from __future__ import annotations

import fcntl
import gzip
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cli import app, machines
from components.gates.marks import ASSET, SIGNATURE
from toolchain import lab, ssh
from toolchain.bootstrap import paths, ui
from toolchain.doctor import stack_needs
from toolchain.engine import build, child, foreign, plugins

if TYPE_CHECKING:
    from pathlib import Path

SHEET: list[dict[str, Any]] = [
    {
        "name": "kvm1",
        "kind": "kvm",
        "layer": 1,
        "inside": [],
        "domain": "local-kvm1",
        "address": "10.77.0.5",
        "user": "root",
        "console": "vnc://127.0.0.1:0",
        "url": "",
        "enter": [],
        "run": [],
    },
    {
        "name": "top",
        "kind": "guest",
        "layer": 1,
        "inside": [],
        "domain": "local-top",
        "address": "",
        "user": "",
        "console": "",
        "url": "",
        "enter": ["virsh", "-c", "qemu:///system", "console", "local-top"],
        "run": [],
    },
    {
        "name": "ipxe",
        "kind": "guest",
        "layer": 2,
        "inside": ["kvm1"],
        "domain": "ipxe",
        "address": "10.78.0.40",
        "user": "",
        "console": "vnc://127.0.0.1:0",
        "url": "",
        "enter": ["virsh", "-c", "qemu:///system", "console", "ipxe"],
        "run": [],
    },
    {
        "name": "box",
        "kind": "container",
        "layer": 2,
        "inside": ["kvm1"],
        "domain": "box",
        "address": "10.78.0.9",
        "user": "root",
        "console": "lxc-attach -n box",
        "url": "",
        "enter": ["lxc-attach", "-n", "box"],
        "run": ["lxc-attach", "-n", "box", "--"],
    },
]
PASSWORDS = {"kvm1": "abcdefgh", "ipxe": "hgfedcba"}


def run(words: list[str]) -> int:
    """Run a verb of the command as it does, but let its problems through."""
    status = app.group.main(args=words, standalone_mode=False)
    assert isinstance(status, int)
    return status


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an engine, a stack that is up, and the keys of its hosts."""
    for path, where in (("LOCAL", "l"), ("BIN", "l/bin"), ("STATE", "l/state"), ("ROOT", ".")):
        (tmp_path / where).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(paths, path, tmp_path / where)
    for path in ("NETNS", "KEYS"):
        monkeypatch.setattr(paths, path, tmp_path / "l" / path.lower())
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr(build, "main", lambda argv: print(*argv, file=sys.stderr))
    (tmp_path / "l" / "bin" / "pulumi").touch()
    stacks = tmp_path / "l" / "state" / ".pulumi" / "stacks" / "nestlab"
    stacks.mkdir(parents=True)
    (stacks / "local.json").touch()
    for name, address in (("kvm1", "10.77.0.5"), ("kvm2", "[10.77.0.5]:2209")):
        folder = tmp_path / "l" / "keys" / "local" / name
        folder.mkdir(parents=True)
        (folder / "known_hosts").write_text(f"{address} ssh-ed25519 AAAA\n")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "__main__.py").touch()
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the engine was asked; it knows the sheet above."""
    words_of: list[tuple[str, ...]] = []

    def capture(*words: str) -> str:
        words_of.append(words)
        told: dict[str, Any] = {
            "sheet": {"text": json.dumps(SHEET)},
            "passwords": "[secret]",
            "key": "[secret]",
        }
        if "--show-secrets" in words:
            told |= {"passwords": PASSWORDS, "key": "KEY"}
        return json.dumps(told)

    monkeypatch.setattr(lab, "capture", capture)
    monkeypatch.setattr(machines, "look", lambda _, rows: {row["name"]: {} for row in rows})
    return words_of


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that took the terminal."""
    commands: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append([str(word) for word in argv])
        return subprocess.CompletedProcess(argv, 7)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    return commands


# Showing ----------------------------------------------------------------------------------------


def test_the_sheet_is_a_table_that_shows_the_layers(
    checkout: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    assert run(["show"]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[:5]] == [
        ["LAYER", "NAME", "KIND", "ADDRESS", "USER", "SCREEN", "GET", "IN"],
        [
            "1",
            "kvm1",
            "kvm",
            "10.77.0.5",
            "root",
            "vnc://127.0.0.1:0",
            "make",
            "enter",
            "NAME=kvm1",
        ],
        ["1", "top", "guest", "-", "-", "-", "make", "enter", "NAME=top"],
        [
            *("2", "ipxe", "guest", "10.78.0.40", "-", "vnc://127.0.0.1:0", "on", "kvm1"),
            *("make", "enter", "NAME=ipxe"),
        ],
        ["2", "box", "container", "10.78.0.9", "root", "-", "make", "enter", "NAME=box"],
    ]
    lines = shown.splitlines()
    assert lines[3].index("ipxe") == lines[1].index("kvm1") + 2, "deeper machines stand further in"
    column = lines[0].index("ADDRESS")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[1:5])
    assert lines[-1] == "Passwords: make show SECRETS=1"
    assert all(line == line.rstrip() for line in lines)
    assert "--show-secrets" not in asked[0]


def test_passwords_are_shown_to_who_asks_for_them(
    checkout: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    assert run(["show", "--secrets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("SCREEN'S PASSWORD")
    assert [line.split()[-1] for line in lines[1:]] == ["abcdefgh", "-", "hgfedcba", "-"]
    assert "--show-secrets" in asked[0]
    assert not any("KEY" in line for line in lines), "the key opens everything"


def test_programs_get_the_sheet_without_secrets_unless_they_ask(
    checkout: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    run(["show", "--json"])
    assert json.loads(capsys.readouterr().out) == {"sheet": SHEET, "whole": True}
    run(["show", "--json", "--secrets"])
    assert json.loads(capsys.readouterr().out)["passwords"] == PASSWORDS
    assert len(asked) == 2


@pytest.mark.parametrize("command", [["show"], ["enter", "kvm1"]])
def test_a_lab_that_is_not_up_is_told_with_the_command_that_brings_it_up(
    command: list[str], checkout: Path
) -> None:
    (checkout / "stacks" / "Pulumi.local.yaml").touch()
    (paths.STATE / ".pulumi" / "stacks" / "nestlab" / "local.json").unlink()
    with pytest.raises(ui.Problem, match=r"the stack local is not up\. `make up`"):
        run(command)
    (checkout / "l" / "bin" / "pulumi").unlink()
    with pytest.raises(ui.Problem, match=r"the stack local is not up\. `make up`"):
        run(command)


HALF = """\
config:
  nestlab:lab:
    name: local
    networks: {lab: {mode: nat, subnet: 10.77.0.0/24}}
    hypervisors:
      kvm1:
        kind: kvm
        memory_mib: 4096
        network: lab
        networks: {inner: {mode: nat, subnet: 10.78.0.0/24}}
        containers: {box: {template: busybox, memory_mib: 64, network: inner}}
"""
GUESTS = """\
        guests: {web: {iso: ipxe, memory_mib: 64, network: inner}}
    guests: {top: {iso: ipxe, memory_mib: 64, network: lab}}
    media: {ipxe: {path: /usr/lib/ipxe/ipxe.iso}}
"""


def test_of_a_lab_that_is_half_up_it_is_shown_what_there_is(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "capture", lambda *_: "{}")
    (checkout / "stacks" / "Pulumi.local.yaml").write_text(HALF)
    monkeypatch.setattr(
        machines,
        "look",
        lambda *_: {
            "kvm1": {"state": "not answering", "said": "no answer on port 22"},
            "box": {"state": "not made", "said": "it is not in the lab's state yet"},
        },
    )
    assert run(["show"]) == 0
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0][:5] == ["LAYER", "NAME", "KIND", "STATE", "ADDRESS"]
    assert rows[1][:5] == ["1", "kvm1", "kvm", "not", "answering"]
    assert rows[1][5].startswith("10.77.0.")
    assert rows[2][:5] == ["2", "box", "container", "not", "made"]
    assert said.out.splitlines()[4:] == [
        "kvm1: no answer on port 22",
        "box: it is not in the lab's state yet",
    ]
    assert "not up as a whole: `make up` carries on" in said.err
    assert run(["show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["whole"] is False
    assert [row["state"] for row in told["sheet"]] == ["not answering", "not made"]


def half_up(checkout: Path, monkeypatch: pytest.MonkeyPatch, *resources: dict[str, Any]) -> None:
    """A lab without a sheet, whose state holds ``resources``."""
    told = {"deployment": {"resources": list(resources)}}
    said = {"export": json.dumps(told), "output": "{}"}
    monkeypatch.setattr(lab, "capture", lambda *words: said[words[1]])
    monkeypatch.setattr(foreign, "refuse", lambda _: None)
    (checkout / "stacks" / "Pulumi.local.yaml").write_text(HALF + GUESTS)


def gate(name: str, props: dict[str, Any], kind: str = "MachineGate") -> dict[str, Any]:
    kind = f"pulumi-python:dynamic/nestlab:{kind}"
    return {"urn": f"urn:pulumi:local::nestlab::{kind}::{name}", "type": kind, "outputs": props}


def test_a_hypervisor_of_a_lab_that_is_half_up_is_entered(
    checkout: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    half_up(checkout, monkeypatch)
    assert entered(ran, "kvm1")[-1] == "root@10.77.0.5"
    assert entered(ran, "kvm1", "virsh", "list")[-1] == "virsh list"


def test_a_guest_of_a_lab_that_is_half_up_opens_its_console(
    checkout: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "qemu:///system"
    half_up(
        checkout,
        monkeypatch,
        gate("top-gate", {"domain": "local-top", "uri": uri}),
        gate("kvm1-web-gate", {"domain": "web", "uri": uri}),
    )
    assert entered(ran, "top") == ["virsh", "-c", uri, "console", "local-top"]
    assert entered(ran, "web")[-2:] == ["root@10.77.0.5", f"virsh -c {uri} console web"]
    wanted = {"name": "web", "store": "/var/x", "owner": "4711"}
    driven = {"driver": "virtualbox.guest", "wanted": wanted}
    half_up(checkout, monkeypatch, gate("kvm1-web-guest", driven, "RemoteObject"))
    assert "UNIX-CONNECT:/var/x/guests/4711/serial/port" in entered(ran, "web")[-1]


def test_a_guest_with_a_login_opens_its_console_where_that_is_asked_for(
    checkout: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"name": "web", "store": "/var/x", "owner": "4711"}
    driven = {"driver": "xen.guest", "wanted": wanted, "reach": {"user": "ana"}}
    half_up(checkout, monkeypatch, gate("kvm1-web-guest", driven, "RemoteObject"))
    assert entered(ran, "--console", "web")[-2:] == ["root@10.77.0.5", "xl console web"]
    with pytest.raises(ui.Problem, match="runs no command: leave 'ls' out"):
        run(["enter", "--console", "web", "ls"])
    with pytest.raises(ui.Problem, match="opens a text console of kvm1"):
        run(["enter", "--console", "kvm1"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"run": ["sh", "-c", "evil", "--"]}, ["top", "ls"]),
        ({"enter": ["sh", "-c", "evil"]}, ["top"]),
        ({"serial": ["sh", "-c", "evil"]}, ["--console", "top"]),
    ],
    ids=lambda each: next(iter(each)),
)
def test_no_command_of_a_state_from_somebody_else_is_run_here(
    changed: dict[str, list[str]],
    words: list[str],
    ran: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sheet = [{**row, **(changed if row["name"] == "top" else {})} for row in SHEET]
    monkeypatch.setattr(lab, "found", lambda *_, **__: {"sheet": sheet})
    with pytest.raises(ui.Problem, match="opened by a command that nestlab does not know"):
        run(["enter", *words])
    assert not ran


def test_no_user_of_a_state_from_somebody_else_is_a_word_of_a_shells(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = [{**row, "user": "$(evil)"} for row in SHEET if row["name"] == "kvm1"]
    monkeypatch.setattr(lab, "found", lambda *_, **__: {"sheet": sheet})
    with pytest.raises(ui.Problem, match="a user who can't be one"):
        run(["enter", "kvm1"])
    assert not ran


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("web", r"web is not made yet: `make up` carries on"),
        ("box", r"box is opened by a command that is known once .* as a whole: `make up`"),
        ("kvm9", r"the lab has no 'kvm9'\. It has: kvm1, top, web, box"),
        (None, r"which machine\? The lab has: kvm1, top, web, box"),
    ],
)
def test_what_of_a_lab_that_is_half_up_can_not_be_entered_is_said_with_the_reason(
    name: str | None, told: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_up(checkout, monkeypatch, gate("kvm1-box-container", {"driver": "x"}, "RemoteObject"))
    with pytest.raises(ui.Problem, match=told):
        run(["enter", *([name] if name else [])])


def test_a_hypervisor_that_is_not_begun_is_said_to_be_that(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_up(checkout, monkeypatch)
    shutil.rmtree(paths.KEYS / "local" / "kvm1")
    for name in ("kvm1", "box"):
        with pytest.raises(ui.Problem, match="kvm1 is not made yet"):
            run(["enter", name])


def test_every_command_that_is_printed_is_about_the_stack_that_was_asked_for(
    checkout: Path,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without its STACK= each of them would be about the lab `local`."""
    del asked
    (checkout / "stacks" / "Pulumi.xen.yaml").touch()
    with pytest.raises(ui.Problem, match=r"xen is not up\. `make up STACK=xen` brings it up"):
        run(["show", "--stack", "xen"])
    (paths.STATE / ".pulumi" / "stacks" / "nestlab" / "xen.json").touch()
    with pytest.raises(ui.Problem, match=r"not there\. Run `make up STACK=xen` again"):
        run(["enter", "--stack", "xen", "kvm1"])
    assert run(["show", "--stack", "xen"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[line.index("make ") :] for line in lines[1:5]] == [
        f"make enter STACK=xen NAME={name}" for name in ("kvm1", "top", "ipxe", "box")
    ]
    assert lines[-1] == "Passwords: make show STACK=xen SECRETS=1"
    monkeypatch.setattr(lab, "run", lambda *_, **__: 255)
    assert run(["down", "--stack", "xen"]) == 1
    assert "repeat `make down STACK=xen`" in capsys.readouterr().err
    (checkout / "stacks" / "Pulumi.xen.yaml").write_text("kind: proxmox\n")
    for each in ("machine.host.main", "image.image.main", "doctor.verdict.ensure"):
        monkeypatch.setattr(f"toolchain.{each}", lambda _: 0)
    monkeypatch.setattr(lab, "_deploy", lambda *_, **__: None)
    monkeypatch.setattr(lab, "_checked", lambda _: [])
    assert run(["up", "--stack", "xen"]) == 1
    said = capsys.readouterr().err
    assert "`make up STACK=xen` carries on from here, `make down STACK=xen` takes it away" in said
    half_up(checkout, monkeypatch)
    shutil.copy(checkout / "stacks" / "Pulumi.local.yaml", checkout / "stacks" / "Pulumi.xen.yaml")
    with pytest.raises(ui.Problem, match=r"not made yet: `make up STACK=xen` carries on"):
        run(["enter", "--stack", "xen", "box"])


def test_who_names_no_machine_is_told_of_those_there_are(
    checkout: Path, asked: list[tuple[str, ...]]
) -> None:
    del checkout, asked
    with pytest.raises(ui.Problem, match=r"kvm1, top, ipxe, box\. Say it: `make enter NAME=kvm1`"):
        run(["enter"])


# Entering ---------------------------------------------------------------------------------------


def entered(ran: list[list[str]], *words: str) -> list[str]:
    assert run(["enter", *words]) == 7, "the exit code is the command's own"
    return ran.pop()


def test_a_nested_host_is_entered_with_the_labs_key_and_its_planned_host_key(
    checkout: Path, asked: list[tuple[str, ...]], ran: list[list[str]]
) -> None:
    del asked
    del checkout
    argv = entered(ran, "kvm1")
    assert argv[:3] == ["ssh", "-F", "none"], "nobody's configuration matters"
    assert argv[-1] == "root@10.77.0.5", "no command: a shell"
    options = list(itertools.pairwise(argv))
    assert ("-p", "22") in options
    for option in (
        "IdentityFile=id_ed25519",
        "UserKnownHostsFile=known_hosts",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "BatchMode=yes",
        "ServerAliveInterval=15",
    ):
        assert ("-o", option) in options, "a machine that dies does not leave the shell hanging"
    assert "-t" not in argv, "not for a pipe"


def test_a_terminal_gets_a_terminal(
    checkout: Path,
    asked: list[tuple[str, ...]],
    ran: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del checkout, asked
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert "-t" in entered(ran, "kvm1")


def test_words_of_a_command_arrive_as_they_are(
    checkout: Path, asked: list[tuple[str, ...]], ran: list[list[str]]
) -> None:
    del checkout, asked
    argv = entered(ran, "kvm1", "--", "echo", "a b", "$(id)", ";", "--flag")
    assert argv[-1] == "echo 'a b' '$(id)' ';' --flag", "ssh hands one line to a shell"


def test_a_guest_inside_shows_its_console_on_its_host(
    checkout: Path, asked: list[tuple[str, ...]], ran: list[list[str]]
) -> None:
    del checkout, asked
    argv = entered(ran, "ipxe")
    assert argv[-2:] == ["root@10.77.0.5", "virsh -c qemu:///system console ipxe"]


def test_a_guest_outside_shows_its_console_here(
    checkout: Path, asked: list[tuple[str, ...]], ran: list[list[str]]
) -> None:
    del checkout, asked
    assert entered(ran, "top") == ["virsh", "-c", "qemu:///system", "console", "local-top"]


def test_a_guest_runs_no_commands(checkout: Path, asked: list[tuple[str, ...]]) -> None:
    del checkout, asked
    with pytest.raises(ui.Problem, match="ipxe is a guest without a known login"):
        run(["enter", "ipxe", "ls"])


def test_a_guest_that_nothing_leads_to_from_here_is_entered_from_its_own_network(
    checkout: Path, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a macvtap: its host is the one that does not reach it."""
    del checkout, asked
    monkeypatch.setitem(SHEET[1], "user", "ana")
    monkeypatch.setitem(SHEET[1], "address", "192.0.2.52")
    with pytest.raises(ui.Problem, match=r"network that it is on: ssh ana@192\.0\.2\.52"):
        run(["enter", "top", "ls"])


@pytest.mark.parametrize(
    ("words", "line"),
    [([], "lxc-attach -n box"), (["ls", "a b"], "lxc-attach -n box -- ls 'a b'")],
)
def test_a_container_is_entered_on_its_host(
    words: list[str],
    line: str,
    checkout: Path,
    asked: list[tuple[str, ...]],
    ran: list[list[str]],
) -> None:
    del checkout, asked
    assert entered(ran, "box", *words)[-2:] == ["root@10.77.0.5", line]


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_host_is_entered_by_the_kind_of_host_key_that_was_planned(
    checkout: Path, algorithm: str
) -> None:
    """ESXi's is ECDSA: asked for another it is refused, and ssh says not a word at LogLevel=ERROR."""
    known = checkout / "l" / "keys" / "local" / "kvm1" / "known_hosts"
    known.write_text(f"10.77.0.5 {algorithm} AAAA\n")
    argv, _ = ssh.words({"name": "kvm1", "user": "root"}, "local", [])
    assert f"HostKeyAlgorithms={algorithm}" in argv


def test_a_port_beside_22_is_read_from_the_known_hosts(checkout: Path) -> None:
    argv, folder = ssh.words({"name": "kvm2", "user": "root"}, "local", [])
    assert folder == checkout / "l" / "keys" / "local" / "kvm2"
    assert argv[-1] == "root@10.77.0.5"
    assert argv[argv.index("-p") + 1] == "2209"


@pytest.mark.parametrize("root", [True, False])
def test_the_way_in_goes_through_the_namespace_that_libvirt_lives_in(
    root: bool,
    checkout: Path,
    asked: list[tuple[str, ...]],
    ran: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del asked
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    (checkout / "l" / "netns").write_text("nestlab\n")
    argv = entered(ran, "top")
    prefix = [] if root else ["sudo", "-n"]
    assert argv[: len(prefix) + 4] == [*prefix, "ip", "netns", "exec", "nestlab"]


def test_an_unknown_machine_is_told_with_those_that_there_are(
    checkout: Path, asked: list[tuple[str, ...]]
) -> None:
    del checkout, asked
    with pytest.raises(ui.Problem, match=r"the lab has no 'kvm9'\. It has: kvm1, top, ipxe, box\."):
        run(["enter", "kvm9"])


@pytest.mark.parametrize("content", [None, ""])
def test_a_host_without_its_keys_is_told_in_words(content: str | None, checkout: Path) -> None:
    known = checkout / "l" / "keys" / "local" / "kvm1" / "known_hosts"
    known.unlink()
    if content is not None:
        known.write_text(content)
    with pytest.raises(ui.Problem, match=r"the keys of kvm1 are not there\. Run `make up`"):
        ssh.words({"name": "kvm1", "user": "root"}, "local", [])


# Stacks -----------------------------------------------------------------------------------------


def test_an_unknown_stack_is_told_with_the_known_ones(checkout: Path) -> None:
    for name in ("local", "class"):
        (checkout / "stacks" / f"Pulumi.{name}.yaml").touch()
    expected = r"there is no stacks/Pulumi.lokal.yaml. Known stacks: class, local."
    for verb in (
        "up",
        "show",
        "enter",
        "reset",
        "suspend",
        "resume",
        "snapshot take",
        "snapshot list",
        "snapshot drop",
    ):
        with pytest.raises(ui.Problem, match=expected):
            run([*verb.split(), "--stack", "lokal"])


@pytest.mark.parametrize("name", ["../x", "a b", "", "a;b", "x" * 101])
def test_what_is_no_stacks_name_is_refused_before_anything_is_done(name: str) -> None:
    with pytest.raises(ui.Problem, match="is no stack's name"):
        run(["up", "--stack", name])


def test_taking_away_what_is_not_there_is_no_failure(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "stacks" / "Pulumi.other.yaml").touch()
    assert lab.down("other")
    assert capsys.readouterr().err == "the stack other is not up\n"
    assert lab.down("otter"), "whose file went with the lab"
    assert "no stacks/Pulumi.otter.yaml. Known stacks: other." in capsys.readouterr().err


def test_a_reset_asks_about_nothing_where_there_is_no_lab(checkout: Path) -> None:
    (checkout / "stacks" / "Pulumi.other.yaml").touch()
    with pytest.raises(ui.Problem, match="the stack other is not up"):
        run(["reset", "--stack", "other"])


def test_a_guest_without_a_known_login_is_shown_by_its_screen(
    checkout: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    del checkout
    row = {"name": "web", "inside": [], "enter": [], "run": [], "user": "", "console": "https://s"}
    monkeypatch.setattr(lab, "found", lambda _: {"sheet": [row]})
    with pytest.raises(ui.Problem, match=r"web has no known login\. Its screen: https://s"):
        entered(ran, "web")


def test_a_lab_that_went_leaves_no_stack_and_its_file_as_it_was(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = checkout / "stacks" / "Pulumi.local.yaml"
    file.write_text("encryptionsalt: v1:abc\nconfig: {}\n")
    steps: list[str] = []

    def destroy(*words: str, stack: str, **_: Any) -> int:
        steps.append(f"{words[0]} {stack}")
        return 0

    def capture(*words: str) -> str:
        steps.append(" ".join(words))
        return ""

    monkeypatch.setattr(lab, "run", destroy)
    monkeypatch.setattr(lab, "capture", capture)
    assert lab.down("local")
    assert steps == ["destroy local", "stack rm --yes --preserve-config --stack local"]
    assert file.read_text() == "encryptionsalt: v1:abc\nconfig: {}\n"


def test_a_lab_that_did_not_go_keeps_its_stack(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    monkeypatch.setattr(lab, "run", lambda *_, **__: 255)
    monkeypatch.setattr(lab, "capture", lambda *_: pytest.fail("its state was removed"))
    assert not lab.down("local")
    said = capsys.readouterr().err
    assert "repeat `make down`" in said
    assert "--verify" in said, "a damaged engine may be why"


@pytest.mark.parametrize("command", ["up", "down"])
def test_two_that_change_one_lab_wait_for_one_another(
    command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second finds no stack, and fails because the first has made it since."""

    def meanwhile(*_: Any, **__: Any) -> Any:
        with (
            (checkout / "l" / "locks" / "stack local").open("w") as other,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ui.Problem("seen")

    monkeypatch.setattr(lab, command, meanwhile)
    with pytest.raises(ui.Problem, match="seen"):
        run([command])
    with (checkout / "l" / "locks" / "stack local").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("what", ["no text", "sparse", "pipe", "link"])
def test_whatever_lies_in_a_stack_files_place_is_refused_in_words(
    what: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never read whole, or waited for."""
    file = checkout / "stacks" / "Pulumi.odd.yaml"
    if what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(b"config:\n  nestlab:lab: {name: \xff\xfe}\n")
        os.truncate(file, 1 << 40 if what == "sparse" else file.stat().st_size)
    assert {each.plugin for each in plugins.of("odd")} == {plugins.ALWAYS}

    def reached(_: list[str]) -> int:
        raise ui.Problem("the set-up began")

    monkeypatch.setattr(build, "main", reached)
    said = {
        "no text": "can't be read",
        "sparse": "more than 1 MiB",
        "pipe": "no regular",
        "link": "leads out",
    }
    with pytest.raises(ui.Problem, match=said[what]):
        run(["up", "--stack", "odd"])
    assert "odd" in stack_needs.read(file).refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_ends_the_command_lets_the_engine_end_its_steps(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "BIN", tmp_path)
    # A terminal gives SIGINT to both; the steps of a real engine take longer than a moment.
    both = "kill -INT $$;" if number == signal.SIGINT else ""
    script = tmp_path / "pulumi"
    script.write_text(
        f"#!/bin/sh\ntrap 'sleep 0.6; exit 7' INT\nsleep 0.3\nkill -{number.value} $PPID; {both}\n"
        "for i in $(seq 200); do sleep 0.1; done\n"
    )
    script.chmod(0o755)

    def unheard(*_: object) -> None:
        raise AssertionError("the engine was left alone")

    before = signal.signal(signal.SIGTERM, unheard)
    # A job in the background is born deaf to it, and so are its children.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Not as one that failed: a class takes it for stopped, and nothing is looked through for damage.
        assert ui.ended(lambda: lab.run("destroy", stack="local")) == 130
        script.write_text("#!/bin/sh\nexit 7\n")
        assert ui.ended(lambda: lab.run("destroy", stack="local")) == 7
        assert signal.getsignal(signal.SIGTERM) is unheard
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, heard)


# From the state, without the engine -----------------------------------------------------------------


def keep(checkout: Path, outputs: dict[str, Any], form: str = "") -> None:
    """Let the state of the stack ``local`` hold ``outputs``, as the engine writes them."""
    made: dict[str, Any] = {"type": "pulumi:pulumi:Stack", "outputs": outputs}
    told = {"version": 3, "checkpoint": {"latest": {"resources": [{"type": "a:b:C"}, made]}}}
    stacks = checkout / "l" / "state" / ".pulumi" / "stacks" / "nestlab"
    raw = json.dumps(told).encode()
    (stacks / f"local.json{form}").write_bytes(gzip.compress(raw) if form else raw)


def test_the_sheet_is_read_where_it_stands_without_an_engine(
    checkout: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show"]) == 0
    by_engine = capsys.readouterr().out
    assert len(asked) == 1
    keep(checkout, {"sheet": SHEET, "passwords": {"4dabf18193072939515e22adb298388d": "x"}})
    assert run(["show"]) == 0
    assert capsys.readouterr().out == by_engine
    assert run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sheet": SHEET, "whole": True}
    text = {SIGNATURE: ASSET, "hash": "0", "text": json.dumps(SHEET)}
    keep(checkout, {"sheet": text})
    assert run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sheet": SHEET, "whole": True}, (
        "as a text, as it is now"
    )
    assert len(asked) == 1, "it was asked for the first one only"


def test_what_only_the_engine_can_read_it_is_asked_for(
    checkout: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    keep(checkout, {"sheet": {"4dabf18193072939515e22adb298388d": "s", "ciphertext": "v1:"}})
    assert run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sheet": SHEET, "whole": True}, "a secret"
    keep(checkout, {"sheet": SHEET})
    assert run(["show", "--secrets"]) == 0
    assert "abcdefgh" in capsys.readouterr().out
    keep(checkout, {"sheet": []}, ".gz")
    assert run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sheet": SHEET, "whole": True}, "packed"
    assert len(asked) == 3


def test_a_state_without_a_sheet_is_no_lab_that_is_up(
    checkout: Path, asked: list[tuple[str, ...]]
) -> None:
    keep(checkout, {"key": "x"})
    with pytest.raises(ui.Problem, match=r"is not up as a whole\. Run `make up` again"):
        lab.outputs("local")
    assert not asked


@pytest.mark.parametrize("when", ["before it is there", "when it is there"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_moment_in_which_the_engine_is_started_ends_it(
    number: signal.Signals, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "pulumi"
    script.write_text("#!/bin/sh\nfor i in $(seq 100); do sleep 0.1; done\n")
    script.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **more: Any) -> None:
            if when == "before it is there":
                os.kill(os.getpid(), number)
            super().__init__(*args, **more)
            started.append(self)
            if when == "when it is there":
                os.kill(os.getpid(), number)

    def unheard(*_: object) -> None:
        raise AssertionError("the engine was left alone")

    before = {each: signal.signal(each, unheard) for each in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(subprocess, "Popen", Popen)
    try:
        assert child.run([str(script)], env=os.environ) == -signal.SIGINT
        assert child.was_cut()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for one in started:
            one.kill()


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    script = tmp_path / "pulumi"
    script.write_text("#!/bin/sh\nkill -INT $PPID\nsleep 0.3\nexit 3\n")
    script.chmod(0o755)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert child.run([str(script)], env=os.environ) == 3
        assert not child.was_cut()
    finally:
        signal.signal(signal.SIGINT, before)
