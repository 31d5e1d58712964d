"""A state from somebody else: nothing in it makes a command run, read or remove what is not the lab's."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from components.gates.marks import SECRET, SIGNATURE
from components.gates.uuids import uuid_of
from tests.unit.toolchain.test_providers import FOREIGN, reference
from toolchain.bootstrap import paths, ui
from toolchain.engine import foreign, state

if TYPE_CHECKING:
    from pathlib import Path

SOUND = [
    "qemu:///system",
    "qemu:///system?socket=/run/nestlab/libvirt-sock",
    "qemu+ssh://lab@server:2222/system?keyfile=/home/u/.ssh/id&known_hosts_verify=normal",
    "qemu+ssh://root@[::1]/system",
    (
        "qemu+ssh://root@10.0.0.2:22/system?sshauth=privkey&keyfile=$NESTLAB_KEYS/local/kvm1/id_ed25519"
        "&knownhosts=$NESTLAB_KEYS/local/kvm1/known_hosts"
    ),
]
OBEYED = [
    "qemu+ssh://x@127.0.0.1/system?command=/tmp/evil.sh",
    "qemu+ssh://x@127.0.0.1/system?%63ommand=/tmp/evil.sh",
    "qemu+ssh://x@127.0.0.1/system?keyfile=/a;command=/tmp/evil.sh",
    "qemu+ssh://x@127.0.0.1/system?netcat=/tmp/evil.sh",
    "qemu+ext:///system?command=/tmp/evil.sh",
    "qemu+sshcmd://x@h/system",
    "qemu:///system?name=qemu%2Bext:///system",
    "qemu+ssh://-oProxyCommand=x@h/system",
    "qemu+ssh://x@-oProxyCommand=x/system",
    "qemu+ssh://x@h/system?knownhosts=$PULUMI_CONFIG_PASSPHRASE",
    "qemu+ssh://x@h/system?knownhosts=%24PULUMI_CONFIG_PASSPHRASE",
    "lxc:///system",
]


def told(**inputs: Any) -> bytes:
    resource = {"urn": "u", "inputs": inputs, "outputs": inputs}
    return json.dumps({"checkpoint": {"latest": {"resources": [resource]}}}).encode()


OURS: dict[str, Any] = {
    "__provider": reference("components.gates.identity", "IdentityProvider"),
    "private": "/home/u/a lab/.nestlab/keys/local",
    "key_folder": "/home/u/a lab/.nestlab/keys/local/kvm1",
    "uri": SOUND[-1],
    "domains": {"lab-web": uuid_of("0123456789abcdef", "domain", "lab-web"), "new": None},
    "networks": {"lab-net": uuid_of("0123456789abcdef", "network", "lab-net")},
    "volumes": ["lab-web.qcow2"],
    "wanted": {"networks": {"lab-net": "10.0.0.0/24"}},
}
BAD = {
    "a program": ("programs", told(__provider=FOREIGN["a command"])),
    "a program, its key escaped": (
        "programs",
        told(__provider=FOREIGN["a command"]).replace(b'"__p', b'"\\u005f_p'),
    ),
    "a program, given twice": (
        "programs",
        told(__provider=FOREIGN["a command"]).replace(
            b'}, "outputs"', b', "__provider": "%s"}, "outputs"' % OURS["__provider"].encode()
        ),
    ),
    "the user's own keys": ("a folder", told(private="/root/.ssh")),
    "their folder": ("a folder", told(key_folder="/root/.nestlab/keys/x/../../../.ssh")),
    "their home": ("a folder", told(key_folder="~/.ssh")),
    "a machine of the user's": (
        "the UUID of something",
        told(domains={"x": str(uuid4())}, networks={}, volumes=[]),
    ),
    "a network of the user's": (
        "the UUID of something",
        told(made={"domains": {}, "networks": {"lab-net": str(uuid4())}, "volumes": []}),
    ),
    "a secret that is none": (
        "secrets in clear",
        told(uri={SIGNATURE: SECRET, "plaintext": '"x"'}),
    ),
    **{uri: ("the address of a libvirt", told(uri=uri)) for uri in OBEYED},
}


@pytest.mark.parametrize("uri", SOUND)
def test_what_nestlab_writes_is_taken(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "local.json"
    for content in (told(**OURS | {"uri": uri}), gzip.compress(told(**OURS)), b'{"version":3}'):
        file.write_bytes(content)
        foreign.refuse(file)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_what_a_command_would_obey_is_refused(what: str, packed: bool, tmp_path: Path) -> None:
    kind, content = BAD[what]
    file = tmp_path / "local.json"
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ui.Problem, match=f"holds {kind} that nestlab did not put there"):
        foreign.refuse(file)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(told(**OURS))[:60], told(**OURS)[:60], b"[" * 100_000, b'{"a": "\xff"}', b""],
    ids=["packed", "plain", "deep", "no text", "nothing"],
)
def test_a_state_that_cant_be_looked_through_is_refused_in_words(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "local.json"
    file.write_bytes(content)
    (tmp_path / "local.json.bak").write_bytes(told(**OURS))
    with pytest.raises(ui.Problem, match=r"is cut or damaged.*is in .*local\.json\.bak"):
        foreign.refuse(file)


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", "evil"],
        ["virsh", "-c", OBEYED[0], "console", "x"],
        ["virsh", "-c", SOUND[0], "shutdown", "x"],
        ["lxc-attach", "-n", "x"],
    ],
    ids=lambda words: words[0],
)
def test_only_virshs_console_opens_a_machine_of_this_host(words: list[str]) -> None:
    foreign.refuse_command("top", ["virsh", "-c", SOUND[0], "console", "top"])
    with pytest.raises(ui.Problem, match="opened by a command that nestlab does not know"):
        foreign.refuse_command("top", words)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with keys of two stacks, both up, and one beside it."""
    for lab in ("mine", "theirs"):
        for stack in ("local", "other"):
            (tmp_path / lab / ".nestlab/keys" / stack / "kvm1").mkdir(parents=True)
    (tmp_path / "other.json").touch()
    monkeypatch.setattr(paths, "KEYS", tmp_path / "mine/.nestlab/keys")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "taken"),
    [
        ("mine/.nestlab/keys/local", True),
        ("mine/.nestlab/keys/local/kvm1", True),
        ("linked/.nestlab/keys/local", True),
        ("moved/.nestlab/keys/local", True),
        ("mine/.nestlab/keys/renamed", True),
        ("theirs/.nestlab/keys/local", False),
        ("theirs/.nestlab/keys/local/kvm1", False),
        ("mine/.nestlab/keys/other", False),
        ("mine/.nestlab/keys/other/kvm1", False),
        ("mine/.nestlab/keys/leads/kvm1", False),
    ],
)
def test_the_keys_of_another_checkout_or_stack_are_not_the_labs(
    folder: str, taken: bool, checkout: Path
) -> None:
    (checkout / "linked").symlink_to(checkout / "mine")
    (checkout / "mine/.nestlab/keys/renamed").mkdir()
    (checkout / "mine/.nestlab/keys/leads").symlink_to(checkout / "theirs/.nestlab/keys/local")
    file = checkout / "local.json"
    for key in ("private", "key_folder"):
        file.write_bytes(told(**{key: str(checkout / folder)}))
        if taken:
            foreign.refuse(file)
        else:
            with pytest.raises(ui.Problem, match="holds a folder that nestlab did not put there"):
                foreign.refuse(file)


@pytest.mark.parametrize("packed", [True, False])
def test_a_state_that_is_a_bomb_is_refused_at_once(packed: bool, tmp_path: Path) -> None:
    """1 GiB of them is 1 MiB of gzip; unpacked and read they took half a minute."""
    file = tmp_path / "local.json"
    if packed:
        file.write_bytes(gzip.compress(b" " * (1 << 26)) * 16)
    else:
        with file.open("wb") as handle:
            handle.truncate(1 << 34)
    began = time.process_time()
    with pytest.raises(ui.Problem, match="has more than 64 MiB"):
        foreign.refuse(file)
    with pytest.raises(state.Unreadable, match="has more than 64 MiB"):
        state.read(file)
    assert time.process_time() - began < 3, "seconds of the processor's"
