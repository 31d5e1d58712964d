"""From the stack file and the set-up's findings to what is deployed; or to one message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components import settings
from components.spec import GoldenImage

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
    wrong = {
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
        "password or a token's secret: run `pulumi config set --secret nestlab:hostPassword`"
    )
    said: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", said.append)
    monkeypatch.setattr(pulumi.Output, "secret", lambda value: value)
    given = settings.load(CLUSTER, root, "mine", preview=True)
    assert given.facts["password"] == settings.NOT_GIVEN
    assert "nestlab:hostPassword is not set" in said[0]


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
