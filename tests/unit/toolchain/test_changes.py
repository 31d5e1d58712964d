"""What a deployment would take from people, read from the engine's preview.

A failure here is a disk that `make up` throws away unasked. The previews have the engine's own shape:
`tests/host/test_lab.py` holds the same against real ones.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from toolchain.engine import changes

VOLUME, DOMAIN = "libvirt:index/volume:Volume", "libvirt:index/domain:Domain"
REMOTE = "pulumi-python:dynamic/nestlab:RemoteObject"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
DISK = {"__defaults": [], "name": "l-web.qcow2", "pool": "l", "size": 8 << 30}


def step(
    name: str, kind: str, op: str, inputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    state = {"type": kind, "inputs": inputs or {}}
    return {
        "op": op,
        "urn": f"urn:pulumi:s::nestlab::{kind}::{name}",
        "oldState": state,
        "newState": state,
        "detailedDiff": None,
        **more,
    }


def read(*steps: dict[str, Any], **counts: int) -> changes.Preview:
    told = {"steps": list(steps), "changeSummary": counts or {"same": 3}, "diagnostics": []}
    return changes.read(json.dumps(told))


def test_a_disk_that_is_made_anew_is_told_once_with_why() -> None:
    seen = read(
        step("web-disk", VOLUME, "replace", DISK, replaceReasons=["size"]),
        step("web-domain", DOMAIN, "replace", {}, replaceReasons=["disks"]),
    )
    assert seen.losses == ("web: made anew, and what is in it is lost (size)",)


def test_a_disk_that_was_never_whole_is_nobodys_loss() -> None:
    made = step("web-disk", VOLUME, "replace", DISK, replaceReasons=["#initerror"])
    made["oldState"]["initErrors"] = ["creating it failed"]
    assert read(made).losses == ()


def test_a_domain_alone_keeps_its_disk() -> None:
    seen = read(step("kvm1-domain", DOMAIN, "replace", {}, replaceReasons=["memory"]))
    assert seen.losses == ("kvm1: stopped, made anew and started; a disk it has stays (memory)",)


@pytest.mark.parametrize(
    ("kind", "end", "inputs"),
    [
        (VOLUME, "-disk", DISK),
        (DOMAIN, "-domain", {}),
        ("proxmoxve:index/vmLegacy:VmLegacy", "-vm", {}),
        ("proxmoxve:index/containerLegacy:ContainerLegacy", "-ct", {}),
        ("vsphere:index/virtualMachine:VirtualMachine", "-vm", {}),
        (REMOTE, "-guest", {"driver": "esxi.guest"}),
        (REMOTE, "-container", {"driver": "lxc.container"}),
    ],
)
def test_every_kind_of_machine_that_goes_is_told(
    kind: str, end: str, inputs: dict[str, Any]
) -> None:
    for op in ("delete", "replace", "delete-replaced", "create-replacement"):
        (line,) = read(step(f"web{end}", kind, op, inputs)).losses
        assert line.startswith("web: ")


def test_a_machine_whose_state_the_engine_leaves_out_is_told_all_the_same() -> None:
    lost = step("web-disk", VOLUME, "replace")
    lost["urn"] = f"urn:pulumi:s::nestlab::nestlab:Lab${VOLUME}::web-disk"
    del lost["oldState"]
    (line,) = read(lost).losses
    assert line.startswith("web: made anew")


def test_a_guest_that_loses_a_further_disk_is_told_by_its_name() -> None:
    def wanted(*names: str) -> dict[str, Any]:
        disks = [{"name": name, "gib": 1} for name in names]
        return {"driver": "xen.guest", "wanted": {"name": "web", "disks": disks}}

    old, new = wanted("data", "logs"), wanted("logs")
    fewer = step("web-guest", REMOTE, "update", old, newState={"inputs": new})
    assert read(fewer).losses == ("web: its further disks are removed, with what is on them: data",)
    more = step("web-guest", REMOTE, "update", new, newState={"inputs": old})
    assert read(more).losses == ()
    none = step("web-guest", REMOTE, "update", old, newState={"inputs": {"driver": "xen.guest"}})
    assert "data, logs" in read(none).losses[0]


def test_on_proxmox_a_disks_name_is_its_serial_number() -> None:
    def disks(*names: str) -> dict[str, Any]:
        further = [{"interface": f"scsi{n}", "serial": each} for n, each in enumerate(names, 2)]
        return {"disks": [{"interface": "scsi0"}, *further]}

    kind = "proxmoxve:index/vmLegacy:VmLegacy"
    fewer = step(
        "web-vm", kind, "update", disks("data", "logs"), newState={"inputs": disks("logs")}
    )
    assert read(fewer).losses == ("web: its further disks are removed, with what is on them: data",)


def test_what_nestlab_made_from_files_is_nobodys_loss() -> None:
    seen = read(
        step("host-medium-live", VOLUME, "replace", {"source": "/live.iso"}),
        step("inner-network", "libvirt:index/network:Network", "replace"),
        step("host-template", "proxmoxve:index/vmLegacy:VmLegacy", "delete", {"template": True}),
        step("m", REMOTE, "delete", {"driver": "esxi.medium"}),
        step("web-disk", VOLUME, "create", DISK),
    )
    assert seen.losses == ()


def test_in_a_host_that_is_off_another_disk_size_may_be_a_loss() -> None:
    unknown = {"name": "l-web.qcow2", "pool": UNKNOWN, "size": 8 << 30}
    same = step("web-disk", VOLUME, "update", DISK) | {"newState": {"inputs": unknown}}
    other = step("web-disk", VOLUME, "update", DISK) | {
        "newState": {"inputs": unknown | {"size": 9 << 30}}
    }
    assert read(same).losses == ()
    (line,) = read(other).losses
    assert "web: may be made anew, and lose what is in it (size)" in line
    looked = other | {"detailedDiff": {"size": {"kind": "update"}}}
    assert read(looked).losses == (), "the provider has looked, and says it is no replacement"


def test_in_a_host_that_is_off_what_the_provider_filled_in_is_no_change() -> None:
    console = {"type": "pty", "targetPort": "0"}
    filled = {
        "__defaults": ["fwCfgName", "running"],
        "name": "web",
        "memory": 512,
        "fwCfgName": "opt/com.coreos/config",
        "running": True,
        "consoles": [console | {"__defaults": ["sourceHost"], "sourceHost": "127.0.0.1"}],
    }
    given = {"__defaults": [], "name": "web", "memory": 512, "consoles": [console]}
    same = step("web-domain", DOMAIN, "update", filled) | {"newState": {"inputs": given}}
    assert read(same).losses == ()
    more = step("web-domain", DOMAIN, "update", filled) | {
        "newState": {"inputs": given | {"memory": 1024}}
    }
    (line,) = read(more).losses
    assert "lose what is in it (memory)" in line


def test_only_same_is_clean() -> None:
    assert read(same=28).clean
    assert not read(same=27, update=1).clean


@pytest.mark.parametrize(
    "said", ["", "{}", "[]", '{"steps": 1, "changeSummary": {}}', "Segmentation"]
)
def test_what_cannot_be_read_is_not_taken_for_no_loss(said: str) -> None:
    with pytest.raises(changes.Unreadable):
        changes.read(said)


def test_a_long_list_is_counted() -> None:
    shown = changes.listed(tuple(f"m{number}: removed" for number in range(20)))
    assert shown.count("\n") == changes.SHOWN
    assert shown.endswith("and 8 more")


def test_a_refused_preview_says_what_the_program_said() -> None:
    told = {"diagnostics": [{"severity": "error", "message": "error: lab.name: wrong\n"}]}
    assert changes.refused(json.dumps(told), "") == "lab.name: wrong"
    assert changes.refused("nonsense", "it broke\n") == "it broke"
