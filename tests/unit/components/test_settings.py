"""From the stack file and the set-up's findings to what is deployed; or to one message."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

import pulumi
import pytest
import yaml

from components import settings
from components.findings import GoldenImage
from components.stackfile.allow import Allowed
from tests.support import images
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

HOST = {"version": 1, "accelerator": "tcg", "cores": 12, "memory_mib": 4096}
GOLDEN = {
    "version": 1,
    "hash": "abc",
    "pool": "nestlab-images",
    "volume": "abc.qcow2",
    "kernel": "/k",
    "initrd": "/i",
    "files": {"disk": "/c/d", "kernel": "/c/k", "initrd": "/c/i"},
    "root_gib": 2,
    "cmdline": [{"key": "console", "value": "ttyS0"}],
}
NET: dict[str, Any] = {"name": "lab", "networks": {"net": {"subnet": "10.77.0.0/24"}}}
KVM = NET | {"hypervisors": {"one": {"kind": "kvm", "network": "net"}}}
DEEP = NET | {
    "hypervisors": {
        "one": {
            "kind": "kvm",
            "network": "net",
            "memory_mib": 8192,
            "disk_gib": 30,
            "networks": {"in": {"subnet": "10.78.0.0/24"}},
            "hypervisors": {"two": {"kind": "kvm", "network": "in"}},
        }
    }
}


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a preview warns of."""
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    return said


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder that the set-up commands have run in."""
    (tmp_path / ".nestlab").mkdir()
    (tmp_path / ".nestlab" / "host.json").write_text(json.dumps(HOST))
    (tmp_path / ".nestlab" / "golden.json").write_text(json.dumps(GOLDEN))
    return tmp_path


def refusal(data: object, root: Path) -> list[str]:
    with pytest.raises(pulumi.RunError) as refused:
        settings.load(data, root, "mine")
    first, *lines = str(refused.value).splitlines()
    assert first == "the stack mine can't be deployed:"
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__, "the user would read a traceback of pydantic"
    return lines


def test_a_stack_and_the_findings_become_what_a_lab_is_deployed_with(root: Path) -> None:
    given = settings.load(KVM, root, "mine")
    assert given.spec.name == "lab"
    assert given.facts == {
        "root": root,
        "private": root / ".nestlab" / "keys" / "mine",
        "accelerator": "tcg",
        "nests": True,
        "cores": 12,
        "golden": {"kvm": GoldenImage.read(root)},
    }


@pytest.mark.parametrize("data", [KVM, DEEP], ids=["outside", "deep inside"])
def test_the_golden_image_is_asked_for_by_who_needs_it_alone(
    data: dict[str, Any], root: Path
) -> None:
    (root / ".nestlab" / "golden.json").unlink()
    assert settings.load(NET, root, "mine").facts["golden"] == {}
    [line] = refusal(data, root)
    assert "golden.json" in line
    assert "make image" in line


def test_without_the_doctors_verdict_the_message_names_the_doctor(root: Path) -> None:
    (root / ".nestlab" / "host.json").unlink()
    [line] = refusal(NET, root)
    assert "host.json" in line
    assert "make doctor" in line


@pytest.mark.parametrize("chosen", ["kvm", "tcg"])
def test_who_says_what_to_run_on_needs_no_doctor(chosen: str, root: Path) -> None:
    (root / ".nestlab" / "host.json").unlink()
    facts = settings.load(NET | {"host": {"accelerator": chosen}}, root, "mine").facts
    assert (facts["accelerator"], facts["cores"]) == (chosen, settings.CORES_UNKNOWN)


def test_the_doctors_cores_count_also_when_the_stack_chose_what_to_run_on(root: Path) -> None:
    facts = settings.load(NET | {"host": {"accelerator": "kvm"}}, root, "mine").facts
    assert (facts["accelerator"], facts["cores"]) == ("kvm", 12)


def test_another_machine_is_not_judged_by_what_the_doctor_found_here(root: Path) -> None:
    far = {"uri": "qemu+ssh://lab@server/system"}
    [line] = refusal(NET | {"host": far}, root)
    assert "lab.host.accelerator" in line
    facts = settings.load(NET | {"host": far | {"accelerator": "kvm"}}, root, "mine").facts
    assert facts["cores"] == settings.CORES_UNKNOWN


def test_everything_that_is_wrong_is_told_at_once_a_line_each(root: Path) -> None:
    wrong: dict[str, Any] = {
        "name": "Lab!",
        "networks": {"net": {"subnet": "10.77.0.1/24"}},
        "guests": {"web": {"memory_mib": "512"}},
    }
    lines = refusal(wrong, root)
    assert lines == sorted(lines)
    assert [line.partition(":")[0] for line in lines] == [
        "lab.guests.web.memory_mib",
        "lab.name",
        "lab.networks.net.subnet",
    ]
    assert all(": " in line and ", but " in line for line in lines), lines


def test_what_each_part_has_against_a_stack_is_told_in_one_round(root: Path) -> None:
    (root / ".nestlab" / "golden.json").unlink()
    wrong: dict[str, Any] = {
        "name": "lab",
        "host": {"uri": "qemu:///system"},
        "media": {
            "absent": {"path": "absent.iso"},
            "mistyped": {"path": "/usr/lib/ipxe/ipxe.iso", "sha": "ab"},
        },
        "networks": {
            "net": {"subnet": "10.77.0.0/24"},
            "twice": {"subnet": "10.77.0.0/25"},
            "wrong": {"subnet": "10.78.0.1/24"},
        },
        "guests": {
            "a": {"iso": "nope", "memry_mib": 512, "network": "net"},
            "b": {"iso": "absent", "network": "nonet", "cores": 999},
            "c": {"iso": "absent", "network": "wrong"},
        },
        "hypervisors": {
            "e": {"kind": "esxi", "iso": "absent", "network": "net", "memory_mib": 16},
            "k": {"kind": "kvm", "network": "net"},
            "n": {"network": "net", "iso": "absent"},
        },
    }
    assert [line.partition(":")[0] for line in refusal(wrong, root)] == [
        ".nestlab/golden.json",
        "lab.guests.a.iso",
        "lab.guests.a.memry_mib",
        "lab.guests.b.cores",
        "lab.guests.b.network",
        "lab.hypervisors.e.kind",
        "lab.hypervisors.e.memory_mib",
        "lab.hypervisors.n.kind",
        "lab.media.absent.path",
        "lab.media.mistyped.sha",
        "lab.networks.wrong.subnet",
    ]
    # Of networks nothing is told that could come of the one that was left out.
    del wrong["networks"]["wrong"], wrong["guests"]["c"]
    assert [line.partition(":")[0] for line in refusal(wrong, root)] == [
        ".nestlab/golden.json",
        "lab.guests.a.iso",
        "lab.guests.a.memry_mib",
        "lab.guests.b.cores",
        "lab.guests.b.network",
        "lab.hypervisors.e.kind",
        "lab.hypervisors.e.memory_mib",
        "lab.hypervisors.n.kind",
        "lab.media.absent.path",
        "lab.media.mistyped.sha",
        "lab.networks.twice.subnet",
    ]


@pytest.mark.parametrize("text", [None, "text", "[" * 100_000, '{"a":' * 100_000, "{"])
def test_a_lab_that_can_not_be_read_is_refused_in_a_line(
    text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pulumi.Config("nestlab")
    monkeypatch.setattr(config, "get", lambda _: text)
    with pytest.raises(pulumi.RunError) as refused:
        settings.lab(config)
    assert str(refused.value).startswith("nestlab:lab ")
    assert len(str(refused.value)) < 120


INSTALLED = ("esxi", "hyperv", "proxmox", "virtualbox", "workstation", "xenserver")


def installed(kind: str, **more: Any) -> dict[str, Any]:
    """The stack of the project for ``kind``."""
    text = (paths.ROOT / "stacks" / f"Pulumi.{kind}.yaml").read_text()
    lab: dict[str, Any] = yaml.safe_load(text)["config"]["nestlab:lab"]
    return lab | more


@pytest.mark.parametrize("kind", INSTALLED)
@pytest.mark.parametrize("found", [{"accelerator": "tcg"}, {"kvm_nested": False}], ids=str)
def test_what_starts_no_guest_on_this_machine_is_refused(
    kind: str, found: dict[str, Any], root: Path, warned: list[str]
) -> None:
    facts = HOST | {"accelerator": "kvm", "kvm_nested": True} | found
    (root / ".nestlab" / "host.json").write_text(json.dumps(facts))
    data = installed(kind)
    asked = settings.load(data, root, "mine", preview=True).facts
    assert asked["accelerator"] == facts["accelerator"]
    seen = [line for line in warned if "starts no guest" in line]
    # An emulated processor is enough for the KVM that Proxmox VE is made of.
    refused = (kind, facts["accelerator"]) != ("proxmox", "tcg")
    assert bool(seen) is refused
    if refused:
        told = [line for line in refusal(data, root) if "starts no guest" in line]
        assert [line.partition(": ")[0] for line in told] == [f"lab.hypervisors.{kind}1.kind"]
        plain = data | {"host": {"accelerator": "tcg"}}
        if facts["accelerator"] == "tcg":
            with pytest.raises(pulumi.RunError, match="starts no guest"):
                settings.load(plain, root, "mine", preview=True)
    (root / ".nestlab" / "host.json").write_text(json.dumps(facts | {"stands_in": [kind]}))
    warned.clear()
    settings.load(data, root, "mine", preview=True)
    assert not [line for line in warned if "starts no guest" in line]


@pytest.mark.parametrize("found", [{"accelerator": "tcg"}, {"kvm_nested": False}], ids=str)
def test_a_nested_kvm_host_runs_wherever_a_machine_does(root: Path, found: dict[str, Any]) -> None:
    facts = HOST | {"accelerator": "kvm", "kvm_nested": True} | found
    (root / ".nestlab" / "host.json").write_text(json.dumps(facts))
    assert settings.load(DEEP, root, "mine").facts["nests"] is facts["kvm_nested"]


@pytest.mark.parametrize("broken", ["", "{", '{"version": 2}', "[]"])
def test_a_broken_finding_is_told_with_the_command_that_mends_it(broken: str, root: Path) -> None:
    (root / ".nestlab" / "host.json").write_text(broken)
    lines = refusal(NET, root)
    assert lines
    assert all("make doctor" in line for line in lines)


def test_each_stack_keeps_its_keys_apart(root: Path) -> None:
    folders = {settings.load(NET, root, stack).facts["private"] for stack in ("a", "b")}
    assert len(folders) == 2


# Remote outer hosts -----------------------------------------------------------------------------

ROOM = {"memory_mib": 4096, "disk_gib": 40, "cores": 4}
CLUSTER = NET | {
    "networks": {"net": {"mode": "bridge"}},
    "host": {
        "kind": "proxmox",
        "endpoint": "https://pve.example.test:8006",
        "nodes": {"pve1": ROOM},
    },
}


def test_a_cluster_is_not_judged_by_what_the_doctor_found_here(root: Path) -> None:
    (root / ".nestlab" / "host.json").unlink()
    # A real output would be waited for by the next deployment, in another loop.
    secret: Any = object()
    facts = settings.load(CLUSTER, root, "mine", password=secret).facts
    assert (facts["accelerator"], facts["cores"]) == ("kvm", settings.CORES_UNKNOWN)
    assert facts["password"] is secret


def test_without_its_password_up_names_the_command_and_a_preview_warns(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = refusal(CLUSTER, root)
    assert line == (
        "nestlab:hostPassword: nothing given, but https://pve.example.test:8006 is entered with a "
        "password or a token's secret: run `pulumi config set --secret nestlab:hostPassword --stack mine`"
    )
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    monkeypatch.setattr(pulumi.Output, "secret", lambda value: value)
    given = settings.load(CLUSTER, root, "mine", preview=True)
    assert given.facts["password"] == settings.NOT_GIVEN
    assert "nestlab:hostPassword is not set" in said[0]
    assert "nestlab:hostPassword --stack mine`" in said[0], "another stack may be selected"


class Config:
    """A stack's configuration."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def full_key(self, key: str) -> str:
        return f"nestlab:{key}"

    def get_secret(self, key: str) -> Any:
        return self.values.get(key)


def test_a_password_is_read_as_a_secret_and_refused_in_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: Any = Config(hostPassword="hunter2")
    nothing: Any = Config()
    assert settings.host_password(nothing) is None
    secrets = {"nestlab:hostPassword"}
    monkeypatch.setattr(pulumi.runtime, "is_config_secret", lambda key: key in secrets)
    assert settings.host_password(given) == given.get_secret("hostPassword")
    secrets.clear()
    with pytest.raises(pulumi.RunError, match="in clear, where everybody reads it") as refused:
        settings.host_password(given)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("stack", [".", ".."])
def test_a_stack_whose_keys_would_lie_in_another_folder_is_refused(stack: str, root: Path) -> None:
    with pytest.raises(pulumi.RunError, match="can't be called"):
        settings.load(NET, root, stack)


# What a stack file of somebody else's asks for ---------------------------------------------------


def test_what_may_not_be_named_is_neither_summed_nor_looked_into(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Allowed(root=str(root), strict=True)
    secret = root.parent / "secret"
    secret.write_bytes(images.raw())
    digest = hashlib.sha256(images.raw()).hexdigest()
    installed = {"kind": "proxmox", "iso": "m", "network": "net"}
    for more in ({}, {"hypervisors": {"p": installed}}, {"guests": {"g": {"nosuch": 1}}}):
        data = NET | {"media": {"m": {"path": str(secret), "sha256": "0" * 64}}} | more
        data |= {"templates": {"t": {"path": str(secret), "sha256": "0" * 64}}}
        monkeypatch.setattr(pathlib.Path, "open", refused := _Refused())
        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(pulumi.RunError) as said:
            settings.load(data, root, "mine", preview=True, allowed=own)
        monkeypatch.undo()
        assert digest not in str(said.value)
        assert "the project's own files only" in str(said.value)


class _Refused:
    """Opens this project's facts, and fails the test for anything else of the root's neighbours."""

    def __init__(self) -> None:
        self._open, self._path_open = os.open, pathlib.Path.open

    def __call__(self, path: Any, *words: Any, **more: Any) -> Any:
        assert "secret" not in str(path), "it was opened"
        how = self._path_open if isinstance(path, pathlib.Path) else self._open
        return how(path, *words, **more)

    def __get__(self, path: Any, _: Any) -> Any:
        return self if path is None else lambda *words, **more: self(path, *words, **more)


def test_a_sum_is_shown_of_files_that_everybody_reads_anyway(root: Path) -> None:
    file = root / "disk.img"
    file.write_bytes(images.raw())
    digest = hashlib.sha256(images.raw()).hexdigest()
    data = NET | {"media": {"m": {"path": "disk.img", "sha256": "0" * 64}}}
    for mode, shown in ((0o644, True), (0o600, False)):
        file.chmod(mode)
        [line] = refusal(data, root)
        assert "lab.media.m.sha256" in line
        assert (digest in line) is shown, oct(mode)


def test_a_pipe_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.iso")
    data = NET | {
        "media": {"m": {"path": "pipe.iso", "sha256": "0" * 64}},
        "hypervisors": {"p": {"kind": "proxmox", "iso": "m", "network": "net"}},
    }
    assert any("it is a pipe" in line for line in refusal(data, root))


def test_a_preview_needs_neither_media_nor_templates(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", told.append)
    sums = {"sha256": "0" * 64}
    data = KVM | {
        "media": {"m": {"path": "not/there.iso"} | sums},
        "templates": {"t": {"path": "not/there.tar.gz"} | sums},
    }
    settings.load(data, root, "mine", preview=True)
    assert len(told) == 2
    assert len(refusal(data, root)) == 2


def test_windows_without_drivers_is_told_before_anything_is_made(
    root: Path, warned: list[str]
) -> None:
    (root / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(2048))
    guest = {"iso": "live", "disk_gib": 1, "network": "net", "cloud_init": {"system": "windows"}}
    data = NET | {"media": {"live": {"path": "live.iso"}}, "guests": {"win": guest}}
    settings.load(data, root, "mine")
    assert [line.partition(":")[0] for line in warned] == ["lab.guests.win.discs"]
    guest["discs"] = ["more"]
    data["media"]["more"] = {"path": "live.iso"}
    settings.load(data, root, "mine")
    assert len(warned) == 1


def test_a_stack_is_never_made_of_another_labs_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = root / ".nestlab" / "config"
    for read in (copies / "Pulumi.mine.yaml", root / "other.yaml"):
        monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", str(read))
        assert settings.load(NET, root, "mine").spec.name == "lab"
    monkeypatch.setenv("PULUMI_OPTION_CONFIG_FILE", str(copies / "Pulumi.other.yaml"))
    with pytest.raises(pulumi.RunError, match=r"works on the stack mine .* Pulumi\.other\.yaml"):
        settings.load(NET, root, "mine")
