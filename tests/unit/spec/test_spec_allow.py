"""What a stack may name on this machine: files, outer hosts, addresses; and how a stranger would ask.

A failure here means that a stack file of somebody else's reads a file, enters a host or opens a
device of whoever looks at it.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
from pathlib import Path
from typing import Any

import pytest

from components.stackfile import SpecError, allow, load
from components.stackfile.allow import Allowed
from tests.support import images
from toolchain.bootstrap.paths import ROOT

KEPT = ("HOME", "XDG_CONFIG_HOME")


class Machine:
    """A home, a project in it, and a folder of somebody else's."""

    def __init__(self, folder: Path) -> None:
        self.home, self.other = folder / "home" / "me", folder / "other"
        self.root = self.home / "nestlab"
        for one in (self.root / "media", self.home / ".ssh", self.home / ".config", self.other):
            one.mkdir(parents=True)

    def file(self, name: str, content: bytes = b"", mode: int = 0o644) -> str:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or images.iso())
        path.chmod(mode)
        return str(path)

    def allowed(self, **environ: str) -> Allowed:
        return Allowed.read(self.root, {"HOME": str(self.home), **environ})

    def said(self, lab: dict[str, Any], **environ: str) -> str:
        """The refusal, or nothing."""
        try:
            load({"name": "lab", **lab}, root=self.root, allowed=self.allowed(**environ))
        except SpecError as refused:
            return str(refused)
        return ""

    def medium(self, path: str, **environ: str) -> str:
        return self.said({"media": {"m": {"path": path}}}, **environ)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    return made


def test_the_project_and_the_home_may_be_named(machine: Machine) -> None:
    machine.file("nestlab/media/a.iso", mode=0o600)
    machine.file("isos/b.iso", mode=0o600)
    machine.file(".local/share/libvirt/images/c.iso")
    for path in ("media/a.iso", "~/isos/b.iso", "~/.local/share/libvirt/images/c.iso"):
        assert machine.medium(path) == ""


@pytest.mark.parametrize(
    "path",
    [
        "~/.ssh/id_ed25519",
        "~/.netrc",
        "~/.config/a/b.iso",
        ".nestlab/passphrase",
        "media/../.nestlab/keys/x",
        ".git/config",
        "media/.hidden.iso",
    ],
)
def test_names_that_begin_with_a_dot_are_none_of_its_business(machine: Machine, path: str) -> None:
    named = Path(os.path.normpath(machine.root / Path(path).expanduser()))
    machine.file(str(named.relative_to(machine.home)))
    assert "begin with a dot" in machine.medium(path)


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/etc/passwd", "/proc/kmsg", "/dev/zero", "/root/x", "/var/log/syslog", "/"],
)
def test_what_lies_elsewhere_is_refused_whether_it_is_there_or_not(
    machine: Machine, path: str
) -> None:
    said = machine.medium(path)
    assert "a stack may name files of the project" in said
    assert "~/.config/nestlab/allow.yaml" in said
    assert "no such file" not in machine.medium(f"{path}-not-there")


def test_a_link_counts_as_what_it_leads_to(machine: Machine) -> None:
    secret = machine.other / "secret.iso"
    secret.write_bytes(images.iso())
    (machine.root / "media" / "link.iso").symlink_to(secret)
    (machine.root / "folder").symlink_to(machine.other)
    (machine.root / "loop").symlink_to("loop")
    (machine.root / "key").symlink_to(machine.file(".ssh/id"))
    (machine.root / "fine.iso").symlink_to(machine.file("isos/a.iso"))
    for path in ("media/link.iso", "folder/secret.iso"):
        assert "a link that leads elsewhere" in machine.medium(path)
    assert "a dot" in machine.medium("key")
    assert machine.medium("loop") != ""
    assert machine.medium("fine.iso") == ""


def test_what_is_no_file_is_never_opened(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(machine.root / "pipe.iso")
    (machine.root / "folder.iso").mkdir()
    monkeypatch.chdir(machine.root)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.iso")
        for name, word in (("pipe", "a pipe"), ("folder", "a folder"), ("socket", "a socket")):
            assert f"it is {word}" in machine.medium(f"{name}.iso")
    listed = machine.home / "mine.yaml"
    listed.write_text("files: [/proc, /dev]\n")
    for path, word in (("/proc/kmsg", "the kernel's"), ("/dev/zero", "a device")):
        assert f"it is {word}" in machine.medium(path, NESTLAB_ALLOW=str(listed))


def test_a_file_of_its_owner_alone_counts_in_the_home_only(machine: Machine) -> None:
    allowed = Allowed(root=str(machine.root), usual=(str(machine.other),))
    file = machine.other / "a.iso"
    for mode, refused in ((0o644, False), (0o600, True), (0o640, True)):
        file.write_bytes(images.iso())
        file.chmod(mode)
        assert bool(allowed.file(str(file))) is refused, oct(mode)


def test_the_users_own_file_adds_folders_hosts_and_addresses(machine: Machine) -> None:
    file = machine.other / "a.iso"
    file.write_bytes(images.iso())
    host = {"uri": "qemu+ssh://lab@server/system", "accelerator": "kvm"}
    net = {"networks": {"net": {"subnet": "8.8.8.0/24"}}}
    assert machine.medium(str(file)) != ""
    assert "add 'lab@server' to hosts:" in machine.said({"host": host})
    assert "belong to others" in machine.said(net)
    told = machine.home / ".config" / "nestlab" / "allow.yaml"
    told.parent.mkdir()
    told.write_text(f"files: [{machine.other}]\nhosts: [lab@server]\naddresses: [8.8.0.0/16]\n")
    assert machine.medium(str(file)) == machine.said({"host": host}) == machine.said(net) == ""
    assert machine.said({"host": host | {"uri": "qemu+ssh://root@server/system"}}) != ""


def test_strict_leaves_the_project_and_this_machine(machine: Machine) -> None:
    told = machine.home / ".config" / "nestlab" / "allow.yaml"
    told.parent.mkdir()
    told.write_text("hosts: ['*']\nfiles: [/]\n")
    machine.file("nestlab/media/a.iso")
    machine.file("isos/b.iso")
    strict = {"NESTLAB_ALLOW": "strict"}
    assert machine.medium("media/a.iso", **strict) == ""
    for path in ("~/isos/b.iso", "/usr/lib/ipxe/ipxe.iso"):
        assert "the project's own files only" in machine.medium(path, **strict)
    host = {"uri": "qemu+ssh://lab@127.0.0.1/system", "accelerator": "kvm"}
    assert "one that you allow" in machine.said({"host": host}, **strict)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("lax", "it is 'strict', or the full path"),
        ("/nowhere/allow.yaml", "no such file"),
        ("/proc/self/mem", "it is no file"),
    ],
)
def test_what_can_not_be_read_allows_nothing(machine: Machine, value: str, said: str) -> None:
    if value == "/proc/self/mem":
        value = str(machine.root)
        said = "can't be read"
    assert said in machine.said({}, NESTLAB_ALLOW=value)


def test_a_strangers_stack_changes_no_network_of_the_host(machine: Machine) -> None:
    lab = {"networks": {"o": {"mode": "bridge", "uplink": {"nic": "enp3s0"}}}}
    assert machine.said(lab) == ""
    assert "networks.o.uplink.nic: 'enp3s0' given" in machine.said(lab, NESTLAB_ALLOW="strict")
    file = machine.file(".config/ci.yaml", b"strict: true\nnics: [enp3s0]\n", 0o600)
    assert machine.said(lab, NESTLAB_ALLOW=file) == ""


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "- a\n",
        "hosts: yes\n",
        "files: [relative]\n",
        "host: [a]\n",
        "addresses: [x]\n",
        "hosts: [-o]\n",
        "strict: !!bool x\n",
        "files: [!!timestamp x]\n",
        "hosts: [a]\nfiles: [/iso]\nhosts: [b]\n",
    ],
)
def test_a_broken_file_of_the_users_allows_nothing(machine: Machine, text: str) -> None:
    file = machine.home / "allow.yaml"
    file.write_text(text)
    assert str(file) in machine.said({}, NESTLAB_ALLOW=str(file))
    file.write_text("")
    file.chmod(0o666)
    assert "others may write it" in machine.said({}, NESTLAB_ALLOW=str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("files: ['{home}/*.qcow2']\n", "name the folder"),
        ("files: ['~/disks/??.iso']\n", "name the folder"),
        ("files: ['/home/$USER/isos']\n", "no variable is taken"),
        ("files: ['/data/{{isos,images}}']\n", "no pattern"),
        ("files: [*.qcow2]\n", "between quotes"),
        ("hosts: [*.lab.example.org]\n", "between quotes"),
        ("hosts: [10.20.0.5/16]\n", "an IPv4 subnet, its bits beyond the prefix 0"),
        ("hosts: [lab@server/24]\n", "an IPv4 subnet"),
        ("hosts: ['*@server']\n", "a user is named, or left out for all of them: write 'server'"),
        ("hosts: ['10.20.0.0/40:8006']\n", "an IPv4 subnet"),
    ],
)
def test_what_would_allow_nothing_is_told(machine: Machine, text: str, told: str) -> None:
    """A user would look for the fault anywhere but in the line that they have just added."""
    file = machine.home / "allow.yaml"
    file.write_text(text.format(home=machine.home))
    assert told in machine.said({}, NESTLAB_ALLOW=str(file))


@pytest.mark.parametrize("host", ["server", "[2001:db8::5]"])
def test_what_is_said_to_allow_a_host_allows_it(machine: Machine, host: str) -> None:
    lab = {
        "name": "lab",
        "host": {"uri": f"qemu+ssh://lab@{host}/system", "accelerator": "kvm"},
    }
    file = machine.home / "allow.yaml"
    file.write_text("")
    told = machine.said(lab, NESTLAB_ALLOW=str(file))
    word = told.partition("add '")[2].partition("'")[0]
    assert word == f"lab@{host}"
    file.write_text(f"hosts: ['{word}']\n")
    assert machine.said(lab, NESTLAB_ALLOW=str(file)) == ""


def test_a_file_may_be_called_as_it_likes(machine: Machine) -> None:
    odd = machine.other / "my [old] *.iso"
    odd.write_bytes(b"x")
    file = machine.home / "allow.yaml"
    file.write_text(json.dumps({"files": [str(odd)], "hosts": ["lab@10.20.0.0/16:22"]}))
    assert "stack may name" not in machine.medium(str(odd), NESTLAB_ALLOW=str(file))
    assert "stack may name" in machine.medium(f"{odd}.iso", NESTLAB_ALLOW=str(file))


def test_a_list_that_is_given_twice_is_told_as_that(machine: Machine) -> None:
    """Two of docs' lines added one after the other: the first list would be lost unseen."""
    file = machine.home / "allow.yaml"
    file.write_text("hosts: [one]\nhosts: [two]\n")
    said = machine.said({}, NESTLAB_ALLOW=str(file))
    assert f"{file}.hosts: given twice" in said


@pytest.mark.parametrize(
    ("name", "people", "refused"),
    [("me", [], False), ("me", ["me"], False), ("me", ["mallory"], True), ("users", [], True)],
)
def test_a_group_of_several_is_others(
    name: str, people: list[str], refused: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of one's own, as Debian makes for each user, has nobody else in it."""
    file = machine.home / "allow.yaml"
    file.write_text("")
    file.chmod(0o664)
    me = pwd.getpwuid(os.geteuid())
    alone = pwd.struct_passwd(("me", *me[1:3], file.stat().st_gid, *me[4:]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: alone)
    group = grp.struct_group((name, "x", file.stat().st_gid, people))
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    said = machine.said({}, NESTLAB_ALLOW=str(file))
    assert ("others may write it" in said) == refused


HOSTILE = [
    "qemu+ssh://x@127.0.0.1:9/system?knownhosts=$PULUMI_CONFIG_PASSPHRASE",
    "qemu+ssh://x@server/system?keyfile=%24HOME/x",
    "qemu+ssh://x@server/system?keyfile=%2524HOME/x",
    "qemu+ssh://x@server/system?keyfile=/${HOME}",
    "qemu+ssh://$USER@server/system",
    "qemu+ssh://x@server/system?no_verify",
    "qemu+ssh://x@server/system?no_verify=0",
    "qemu+ssh://x@server/system?no%5Fverify=0",
    "qemu+ssh://x@server/system?%6eo_verify",
    "qemu+ssh://x@server/system?NO_VERIFY=1",
    "qemu+ssh://x@server/system?sshauth=agent;no_verify=1",
    "qemu+ssh://x@server/system?sshauth=agent%26no_verify=1",
    "qemu+ssh://x@server/system?known_hosts_verify=ignore",
    "qemu+ssh://x@server/system?known_hosts_verify=auto",
    "qemu+ssh://x@server/system?known%5Fhosts%5Fverify=ignore",
    "qemu+ssh://x@server/system?known_hosts_verify=normal&known_hosts_verify=ignore",
    "qemu+ssh://x@server/system?sshauth=ssh-password",
    "qemu+ssh://x@server/system?command=/bin/sh",
    "qemu+ssh://x@server/system?netcat=/bin/sh",
    "qemu+ssh://x@server/system?name=test:///default",
    "qemu+ssh://x@server/system?",
    "qemu+ssh://x@server/system?keyfile",
    "qemu+ssh://x@server/system?keyfile=relative",
    "qemu+ssh://x@server/system?knownhosts=/a/../etc/shadow",
    "qemu+ssh://-oProxyCommand=id/system",
    "qemu+ssh://-oProxyCommand=id@server/system",
    "qemu+ssh://%2DoProxyCommand=id/system",
    "qemu+ssh://x@server:0/system",
    "qemu+ssh://x@server:70000/system",
    "qemu+ssh://x@server/system#fragment",
    "qemu+ssh://x@server/system?socket=/run/x\n",
    "qemu+ssh://x@server\t/system",
    "qemu+ssh://x@se rver/system",
    "qemu+ssh://x@[::1/system",
    "qemu+ssh://a@b@server/system",
    "qemu+ssh://x@server\\@other/system",
    "QEMU+ssh://x@server/system",
    "qemu+ssh://x@server//system",
    "qemu+ssh://x@server/%73ystem",
    "qemu://server/system",
    "qemu:///system?socket=$HOME/x",
    "qemu:///system?keyfile=/x",
]


@pytest.mark.parametrize("uri", HOSTILE)
def test_a_hostile_uri_is_refused_by_its_form(machine: Machine, uri: str) -> None:
    everything = Allowed(root="/", listed=("/",), hosts=("*",))
    with pytest.raises(SpecError) as refused:
        load({"name": "lab", "host": {"uri": uri}}, root=machine.root, allowed=everything)
    assert len(str(refused.value).splitlines()) == 1
    assert "PASSPHRASE" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "made"),
    [
        ("qemu:///system", None),
        ("qemu:///system?socket=/run/libvirt/virtqemud-sock", None),
        ("qemu+ssh://lab@server:2222/system", None),
        ("qemu+ssh://lab@[::1]/system?sshauth=agent,privkey", None),
        ("qemu+ssh://server/system?keyfile=~/.ssh/my%20key", "keyfile={home}/.ssh/my%20key"),
        ("qemu+ssh://server/system?keyfile=~/.ssh/a+b&knownhosts=/k", "keyfile={home}/.ssh/a%2Bb&"),
    ],
)
def test_a_plain_uri_stays_what_it_is(machine: Machine, uri: str, made: str | None) -> None:
    where = load({"name": "lab", "host": {"uri": uri}}, root=machine.root).host.where
    assert where == uri if made is None else made.format(home=machine.home) in where


def test_keys_and_host_keys_are_the_users_own(machine: Machine) -> None:
    host = {"uri": "qemu+ssh://lab@server/system?keyfile={}&knownhosts={}", "accelerator": "kvm"}
    file = machine.home / "mine.yaml"
    file.write_text("hosts: [server]\n")
    key, known = machine.file(".ssh/id", mode=0o600), machine.file(".ssh/known_hosts")

    def said(*paths: str) -> str:
        filled = {**host, "uri": host["uri"].format(*paths)}
        return machine.said({"host": filled}, NESTLAB_ALLOW=str(file))

    assert said(key, known) == ""
    assert "keyfile '/etc/shadow' given" in said("/etc/shadow", known)
    assert "knownhosts '/proc/kmsg' given" in said(key, "/proc/kmsg")


@pytest.mark.parametrize(
    "host",
    [
        {"kind": "proxmox", "endpoint": "https://-x.example.test:8006"},
        {"kind": "proxmox", "endpoint": "https://pve.example.test:8006", "user": "-x@pam"},
        {"kind": "proxmox", "endpoint": "https://pve$HOME:8006"},
        {"kind": "proxmox", "endpoint": "https://%2Dx:8006"},
        {"kind": "vsphere", "server": "-x", "datacenter": "a", "datastore": "b"},
        {"kind": "vsphere", "server": "v", "user": "-x@y", "datacenter": "a", "datastore": "b"},
        {"kind": "vsphere", "server": "v", "user": "$A@y", "datacenter": "a", "datastore": "b"},
    ],
)
def test_hosts_and_users_of_clusters_are_plain_names(
    machine: Machine, host: dict[str, Any]
) -> None:
    room = {"n": {"memory_mib": 1024, "disk_gib": 10, "cores": 2}}
    everything = Allowed(root="/", listed=("/",), hosts=("*",))
    with pytest.raises(SpecError):
        load({"name": "lab", "host": host | {"nodes": room}}, root=machine.root, allowed=everything)


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ("pve.example.test", True),
        ("PVE.example.test", True),
        ("root@pam@pve.example.test", True),
        ("root@pam@pve.example.test:8006", True),
        ("*.example.test", True),
        ("*", True),
        ("other@pam@pve.example.test", False),
        ("pve.example.test:443", False),
        ("*.other.test", False),
        ("example.test", False),
        ("10.0.0.0/8", False),
    ],
)
def test_a_cluster_is_entered_if_a_rule_admits_it(machine: Machine, rule: str, fits: bool) -> None:
    room = {"n": {"memory_mib": 1024, "disk_gib": 10, "cores": 2}}
    host = {"kind": "proxmox", "endpoint": "https://pve.example.test:8006", "nodes": room}
    file = machine.home / "mine.yaml"
    file.write_text(f"hosts: ['{rule}']\n")
    assert (machine.said({"host": host}, NESTLAB_ALLOW=str(file)) == "") is fits


@pytest.mark.parametrize(
    "path",
    [
        'json:{"file":1}',
        "nbd:localhost:10809",
        "https://example.test/a.iso",
        "file:/etc/shadow",
        "a\nb.iso",
        "a\0b",
    ],
)
def test_what_is_no_path_is_refused(machine: Machine, path: str) -> None:
    said = machine.medium(path)
    assert said.startswith("lab.media.m.path: ")
    assert len(said.splitlines()) == 1


def test_an_address_of_somebody_elses_is_none_of_the_labs(machine: Machine) -> None:
    lab = {
        "networks": {"street": {"mode": "bridge", "bridge": "br0"}},
        "media": {"m": {"path": "m.iso"}},
        "guests": {"a": {"iso": "m", "network": "street", "address": "8.8.8.8"}},
    }
    machine.file("nestlab/m.iso")
    assert "lab.guests.a.address: '8.8.8.8' given" in machine.said(lab)


@pytest.mark.parametrize(
    ("rule", "uri", "admitted"),
    [
        ("server:22", "qemu+ssh://lab@server/system", True),
        ("server:22", "qemu+ssh://lab@server:22/system", True),
        ("server:2222", "qemu+ssh://lab@server/system", False),
        ("server", "qemu+ssh://lab@server:2222/system", True),
        ("lab@server", "qemu+ssh://root@server/system", False),
    ],
)
def test_a_port_that_is_left_out_is_the_protocol_s_own(
    machine: Machine, rule: str, uri: str, admitted: bool
) -> None:
    file = machine.home / "allow.yaml"
    file.write_text(json.dumps({"hosts": [rule]}))
    host = {"host": {"uri": uri, "accelerator": "kvm"}}
    said = machine.said(host, NESTLAB_ALLOW=str(file))
    assert ("is one that you allow" not in said) is admitted


def test_the_page_about_it_names_the_folders_that_count() -> None:
    page = (ROOT / "docs" / "allow.md").read_text()
    assert (
        f"| {', '.join(f'`{folder}`' for folder in allow.USUAL)} | what everybody may read | no |"
        in page
    )
    assert all(f"`~/{folder}` yes" in page for folder in allow.KEPT)
    assert all(f"`{folder}`" in page for folder in allow.SOCKETS if not folder.startswith("/var"))
    assert f"~/.config/{allow.FILE}" in page
