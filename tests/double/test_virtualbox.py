"""A lab inside VirtualBox, with the real engine and a real sshd, on a stub of its commands.

A failure here is a guest that is made twice, one that stays off after somebody switched it off, or a
`pulumi up` that changes something each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import images, inner
from tests.support.commands import Machine
from tests.support.stubs.virtualbox import STORE, VirtualBox
from tests.support.told import lives_with_a_seed, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

STRANGERS = ["createvm", "--name", "strangers", "--ostype", "Linux_64", "--register"]


def lab(**guests: dict[str, Any]) -> dict[str, Any]:
    inside = {
        "image": "cloud",
        "networks": {
            "out": {"mode": "bridge"},
            "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
            "alone": {"mode": "isolated", "subnet": "10.79.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "disk_gib": 2, "network": "own"},
            "web": {"image": "cloud", "network": "alone", "nic_model": "virtio"},
            **guests,
        },
    }
    media = {"cloud": {"path": "cloud.qcow2"}, "live": {"path": "live.iso"}}
    return inner.lab_of("virtualbox", inside, media=media)


def write_media(root: Path) -> None:
    (root / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    (root / "cloud.qcow2").write_bytes(images.qcow2())


def guests(machine: Machine) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in machine.state["vms"].values()}


def test_a_lab_in_a_virtualbox_lives_through_everything(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "virtualbox", VirtualBox)
    assert machine.shell().run(["VBoxManage", *STRANGERS]).ok
    before = machine.state
    write_media(tmp_path)
    target = sshd(machine).target("x")

    def program(**more: dict[str, Any]) -> str:
        return inner.program("virtualbox", lab(**more), target, tmp_path)

    project.up(program())
    made = guests(machine)
    assert {name for name, found in made.items() if found["VMState"] == "running"} == {
        "live",
        "web",
    }
    assert made["live"]["nics"]["1"]["nat-network"] == "own"
    assert made["web"]["nics"]["1"]["hostonlyadapter"] == "vboxnet0"
    reserved = machine.state["dhcp"]["own"]["fixed"]
    assert list(reserved) == ["52:54:00:" + ":".join(
        made["live"]["nics"]["1"]["macaddress"][i : i + 2].lower() for i in (6, 8, 10)
    )]  # fmt: skip
    assert f"{STORE}/guests" in made["web"]["drives"]["SATA-0-0"]["path"]
    parent = machine.state["media"][made["web"]["drives"]["SATA-0-0"]["path"]]["parent"]
    assert parent.startswith(f"{STORE}/cloud.qcow2."), "a linked clone"

    count = len(machine.calls)
    same = project.pulumi("up", "--yes", "--skip-preview")
    assert "changed" not in same.replace("unchanged", "")
    said = [call.words[1] for call in machine.calls[count:] if call.command == "VBoxManage"]
    assert set(said) <= {"showvminfo", "list", "getextradata"}, "nothing was done"

    edited: dict[str, Any] = {"iso": "live", "memory_mib": 384, "disk_gib": 2, "network": "own"}
    project.up(program(live=edited))
    assert guests(machine)["live"]["memory"] == 384
    assert guests(machine)["live"]["VMState"] == "running"

    with machine.changing() as state:
        for number, found in list(state["vms"].items()):
            if found["name"] == "live":
                found["VMState"] = "paused"
            if found["name"] == "web":
                del state["vms"][number]
    told = project.pulumi("preview")
    assert "guest live is paused; `pulumi up` mends it" in told
    assert "guest web is not there any more; `pulumi up` mends it" in told
    project.pulumi("up", "--yes", "--skip-preview")
    assert {name: found["VMState"] for name, found in guests(machine).items()} == {
        "strangers": "poweroff",
        "live": "running",
        "web": "running",
    }
    fresh = project.pulumi("refresh", "--yes", "--skip-preview")
    assert "changed" not in fresh.replace("unchanged", "")

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert machine.state == before, "all but the stranger's is gone"
    assert [file.name for file in machine.path(STORE).iterdir() if file.is_file()] == []


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "virtualbox", VirtualBox)
    before = machine.state
    write_media(tmp_path)
    target = sshd(machine).target("x")
    address = "10.79.0.20"

    def program(cloud_init: dict[str, Any]) -> str:
        web = {"image": "cloud", "network": [{"network": "alone", "address": address}]}
        inside = lab(told=web | {"cloud_init": cloud_init})
        for name in ("live", "web"):
            del inside["hypervisors"]["x"]["guests"][name]
        return inner.program("virtualbox", inside, target, tmp_path)

    def drive() -> str:
        found = guests(machine).get("told", {"VMState": "poweroff"})
        if found["VMState"] != "running":
            return ""
        return str(found["drives"].get("SATA-2-0", {}).get("path", ""))

    def seed() -> Path | None:
        path = drive()
        if not path or path == "emptydrive":
            return None
        disc = machine.path(path)
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def taken_out() -> None:
        with machine.changing() as state:
            [found] = state["vms"].values()
            found["drives"]["SATA-2-0"]["path"] = "emptydrive"

    def disk() -> object:
        return machine.path(guests(machine)["told"]["drives"]["SATA-0-0"]["path"]).stat().st_ino

    with told(address, seed) as guest:
        lives_with_a_seed(project, program, guest, taken_out=taken_out, kept=disk)
    assert machine.state == before
    assert [file.name for file in machine.path(STORE).iterdir() if file.is_file()] == []
