"""A lab inside VMware Workstation with the real engine and a real sshd, on a stub of its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from components.reach.shell import shell_of
from tests.support import images, inner
from tests.support.commands import Machine
from tests.support.stubs.workstation import DEFAULTS, STORE, Workstation, keys
from tests.support.told import lives_with_a_seed, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

WANTS = "/etc/systemd/system/multi-user.target.wants"


def lab(root: Path) -> dict[str, Any]:
    iso = bytes(0x8001) + b"CD001" + bytes(4096)
    (root / "live.iso").write_bytes(iso)
    (root / "disk.qcow2").write_bytes(images.qcow2())
    (root / "vmware.bundle").write_bytes(b"#!/bin/sh\n")
    return inner.lab_of(
        "workstation",
        {
            "image": "disk",
            "bundle": "vmware",
            "networks": {
                "out": {"mode": "bridge"},
                "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
            },
            "guests": {
                "live": {
                    "iso": "live",
                    "memory_mib": 256,
                    "network": "own",
                    "console": {"port": 5901},
                },
                "web": {"image": "disk", "memory_mib": 512, "disk_gib": 4, "network": "out"},
            },
        },
        media={
            "live": {"path": "live.iso"},
            "disk": {"path": "disk.qcow2"},
            "vmware": {"path": "vmware.bundle"},
        },
    )


def path(name: str) -> str:
    return f"{STORE}/guests/{name}/guest.vmx"


def running(machine: Machine) -> set[str]:
    return set(machine.state["running"])


def host(folder: Path) -> Machine:
    """A host as the installation leaves it, with somebody else's guest."""
    machine = Machine(folder, Workstation)
    for name, text in DEFAULTS.items():
        machine.path(name).parent.mkdir(parents=True, exist_ok=True)
        machine.path(name).write_text(text)
    machine.path(f"{STORE}/guests/alien").mkdir(parents=True)
    assert machine.shell().run(["vmware-networks", "--start"]).ok
    return machine


def held(machine: Machine) -> dict[str, list[str]]:
    """What runs there."""
    state = machine.state
    return {key: sorted(state[key]) for key in ("running", "connected", "up", "dhcp", "nat")}


def test_a_lab_in_a_workstation_lives_through_everything(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = host(tmp_path / "ws")
    before = held(machine)
    target = sshd(machine).target("x")
    shell = shell_of(target)
    root = tmp_path / "media"
    root.mkdir()
    data = lab(root)

    def program() -> str:
        return inner.program("workstation", data, target, root)

    project.up(program())
    both = {path("live"), path("web")}
    assert running(machine) == both
    live = keys(machine.path(path("live")).read_text())
    assert live["sata0:1.filename"] == f"{STORE}/live.iso"
    mac = live["ethernet0.address"]
    assert mac in machine.state["dhcp"]["vmnet2"]
    assert machine.state["connected"][path("live")] == [f"vmnet2 {mac}"]
    assert machine.state["connected"][path("web")][0].startswith("vmnet0 52:54:00:")
    told = project.pulumi("stack", "output", "passwords", "--show-secrets", "--json")
    assert f'"{live["remotedisplay.vnc.password"]}"' in told.replace('""', "")
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")

    # Off, removed, stopped by hand: preview says which, and `up` mends it.
    assert shell.run(["vmrun", "-T", "ws", "stop", path("live"), "hard"]).ok
    assert shell.run(["vmrun", "-T", "ws", "stop", path("web"), "hard"]).ok
    assert shell.run(["rm", "-rf", f"{STORE}/guests/web"]).ok
    said = project.pulumi("preview")
    assert "x-live-guest: guest live is off; `pulumi up` mends it" in said
    assert "x-web-guest: guest web is not there any more" in said
    assert shell.run(["vmware-networks", "--stop"]).ok
    said = project.pulumi("preview")
    assert "x-own-network: network own is down" in said
    assert "x-out-network: vmnet0 bridges to nothing" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert running(machine) == both
    assert machine.state["connected"][path("live")] == [f"vmnet2 {mac}"]
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")

    # An edit changes just that; the disk stays.
    disk = machine.path(f"{STORE}/guests/web/disk.vmdk")
    disk.write_text(disk.read_text().replace('"adapter"', '"precious": "", "adapter"'))
    data["hypervisors"]["x"]["guests"]["web"]["memory_mib"] = 1024
    said = project.up(program())
    assert "web: stopped for a change: memsize is '512' and not '1024'" in said
    assert "live: stopped" not in said
    assert keys(machine.path(path("web")).read_text())["memsize"] == "1024"
    assert "precious" in disk.read_text()
    assert running(machine) == both

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert held(machine) == before
    assert [each.name for each in machine.path(f"{STORE}/guests").iterdir()] == ["alien"]
    assert [each.name for each in machine.path(STORE).iterdir()] == ["guests"]
    assert list(machine.path(WANTS).iterdir()) == []
    assert machine.path("/etc/vmware/networking").read_text() == DEFAULTS["/etc/vmware/networking"]


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = host(tmp_path / "ws")
    before = held(machine)
    target = sshd(machine).target("x")
    root = tmp_path / "media"
    root.mkdir()
    data = lab(root)
    address = "10.78.0.20"

    def of(cloud_init: dict[str, Any]) -> str:
        web = {"image": "disk", "network": [{"network": "own", "address": address}]}
        data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": cloud_init}}
        return inner.program("workstation", data, target, root)

    def vmx() -> dict[str, str]:
        return keys(machine.path(path("told")).read_text())

    def seed() -> Path | None:
        if path("told") not in running(machine):
            return None
        found = vmx()
        drive = {key: found.get(f"sata0:2.{key}") for key in ("present", "startconnected")}
        if set(drive.values()) != {"TRUE"}:
            return None
        disc = machine.path(found["sata0:2.filename"])
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def taken_out() -> None:
        file = machine.path(path("told"))
        text = file.read_text()
        changed = text.replace('sata0:2.present = "TRUE"', 'sata0:2.present = "FALSE"')
        assert changed != text
        file.write_text(changed)

    disk = machine.path(f"{STORE}/guests/told/disk.vmdk")
    with told(address, seed) as guest:
        lives_with_a_seed(project, of, guest, taken_out=taken_out, kept=lambda: disk.stat().st_ino)
    assert held(machine) == before
    assert [each.name for each in machine.path(STORE).iterdir()] == ["guests"]
