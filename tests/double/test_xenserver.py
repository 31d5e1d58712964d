"""A lab inside an XCP-ng host: the real engine over a real sshd, on a stand-in of its `xe`.

A failure here is a guest that is made twice, one that stays off after somebody switched it off, or a
`pulumi up` that changes something each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from components.kinds.xenserver.install import PLACE
from tests.support import images, inner
from tests.support.commands import Machine
from tests.support.stubs.xenserver import STORAGE, UPLINK, XenServer
from tests.support.told import lives_with_a_seed, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

CHANGES = ("updated", "created", "deleted", "replaced")
KINDS = ("vm", "vdi", "vbd", "vif", "network", "sr", "pbd")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "xcp", XenServer)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for name in ("live", "install"):
        (tmp_path / f"{name}.iso").write_bytes(bytes(0x8001) + b"CD001" + name.encode() * 1000)
    (tmp_path / "disk.img").write_bytes(images.raw(1 << 20))
    return tmp_path


def lab() -> dict[str, Any]:
    inside = {
        "iso": "live",
        "networks": {
            "out": {"mode": "bridge"},
            "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "network": "out"},
            "web": {"iso": "install", "disk_gib": 4, "network": "own"},
            "db": {"image": "disk", "network": [{"network": "own"}, {"network": "out"}]},
        },
    }
    files = {"live": "live.iso", "install": "install.iso", "disk": "disk.img"}
    return inner.lab_of("xenserver", inside, media={k: {"path": v} for k, v in files.items()})


def vms(machine: Machine) -> dict[str, dict[str, Any]]:
    """What the lab has there, by name."""
    own = [
        each for uuid, each in machine.state["vm"].items() if uuid not in XenServer.initial["vm"]
    ]
    found = {each["name-label"]: each for each in own}
    assert len(found) == len(own), "a guest was made twice"
    return found


def disk_of(machine: Machine, vm: dict[str, Any]) -> dict[str, Any]:
    state = machine.state
    [uuid] = [
        vbd["vdi-uuid"]
        for vbd in state["vbd"].values()
        if (vbd["vm-uuid"], vbd["type"]) == (vm["uuid"], "Disk")
    ]
    found: dict[str, Any] = state["vdi"][uuid]
    return found


def test_a_lab_in_an_xcp_ng_lives_through_everything(
    project: Project, machine: Machine, media: Path, sshd: Serve
) -> None:
    target = sshd(machine).target("x")
    data = lab()
    project.up(inner.program("xenserver", data, target, media))
    assert {name: each["power-state"] for name, each in vms(machine).items()} == dict.fromkeys(
        ("live", "web", "db"), "running"
    )
    state = machine.state
    repositories = [each for each in state["sr"].values() if each["type"] == "iso"]
    assert len(repositories) == 1, "media that are sent at once share one"
    isos = [vdi for vdi in state["vdi"].values() if vdi["sr-uuid"] == repositories[0]["uuid"]]
    assert sorted(each["location"] for each in isos) == ["install.iso", "live.iso"]
    clone = disk_of(machine, vms(machine)["db"])
    assert state["vdi"][clone["parent"]]["content"] == clone["content"] != ""
    nics = [each for each in state["vif"].values() if each["vm-uuid"] == vms(machine)["db"]["uuid"]]
    assert [each["network-uuid"] == UPLINK for each in nics] == [False, True]

    for words in (("up", "--yes", "--skip-preview"), ("refresh", "--yes", "--skip-preview")):
        said = project.pulumi(*words)
        assert "unchanged" in said
        assert not any(word in said for word in CHANGES), said
    assert machine.state == state

    # An edit changes just that guest, and keeps its disk.
    disk = disk_of(machine, vms(machine)["web"])["uuid"]
    data["hypervisors"]["x"]["guests"]["web"]["memory_mib"] = 1024
    said = project.up(inner.program("xenserver", data, target, media))
    assert "1 updated" in said
    assert "guest web is stopped for a moment: memory" in said
    assert vms(machine)["web"]["memory-static-max"] == str(1024 << 20)
    assert disk_of(machine, vms(machine)["web"])["uuid"] == disk

    # By hand: one switched off, one removed, a medium deleted.
    shell = machine.shell()
    uuids = {name: each["uuid"] for name, each in vms(machine).items()}
    for line in (
        ("vm-shutdown", f"uuid={uuids['db']}", "--force"),
        ("vm-shutdown", f"uuid={uuids['live']}", "--force"),
        ("vm-destroy", f"uuid={uuids['live']}"),
    ):
        assert shell.run(["xe", *line]).ok
    machine.path(f"{PLACE.store}/install.iso").unlink()
    said = project.pulumi("preview")
    assert "x-db-guest: guest db is halted" in said
    assert "x-live-guest: guest live is not there any more" in said
    assert "x-install-medium: medium install.iso is not there any more" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert {each["power-state"] for each in vms(machine).values()} == {"running"}
    assert vms(machine).keys() == {"live", "web", "db"}
    assert disk_of(machine, vms(machine)["web"])["uuid"] == disk

    project.pulumi("destroy", "--yes", "--skip-preview")
    for kind in KINDS:
        assert machine.state[kind] == XenServer.initial[kind], kind
    assert not list(machine.path("/var/opt/xen").iterdir())
    assert machine.state["sr"].keys() == {STORAGE}


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, machine: Machine, media: Path, sshd: Serve
) -> None:
    target = sshd(machine).target("x")
    address = "10.77.0.50"

    def of(cloud_init: dict[str, Any]) -> str:
        data = lab()
        web = {"image": "disk", "network": [{"network": "out", "address": address}]}
        data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": cloud_init}}
        return inner.program("xenserver", data, target, media)

    def drive(state: dict[str, Any]) -> dict[str, Any] | None:
        vms = [uuid for uuid, each in state["vm"].items() if each["name-label"] == "told"]
        known = state["vbd"].values()
        mine = (each for each in known if (each["vm-uuid"], each["type"]) == (*vms, "CD"))
        return next(mine, None)

    def seed() -> Path | None:
        state = machine.state
        found = drive(state)
        if found is None or found["currently-attached"] != "true" or found["empty"] == "true":
            return None
        assert (found["userdevice"], found["mode"]) == ("2", "RO")
        disc = machine.path(f"{PLACE.store}/{state['vdi'][found['vdi-uuid']]['location']}")
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def taken_out() -> None:
        found = drive(machine.state)
        assert found
        assert machine.shell().run(["xe", "vbd-eject", f"uuid={found['uuid']}"]).ok

    def disk() -> object:
        return disk_of(machine, vms(machine)["told"])["uuid"]

    with told(address, seed) as guest:
        lives_with_a_seed(project, of, guest, taken_out=taken_out, kept=disk)
    for kind in KINDS:
        assert machine.state[kind] == XenServer.initial[kind], kind
    assert not list(machine.path("/var/opt/xen").iterdir())
