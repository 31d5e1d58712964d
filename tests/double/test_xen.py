"""A lab inside Xen, with the real engine and a real sshd, on a stub of xl.

A failure here is a guest that is made twice, one that stays off after somebody destroyed it, or a
`pulumi up` that changes something each time. A real Xen is in tests/host/test_xen.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import inner
from tests.support.commands import Machine
from tests.support.stubs.xen import STORE, Xen
from tests.support.told import lives_with_a_seed, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]


def lab(memory_mib: int = 256) -> dict[str, Any]:
    inside = {
        "networks": {
            "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
            "alone": {"mode": "isolated", "subnet": "10.79.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": memory_mib, "disk_gib": 1, "network": "own"},
            "web": {"image": "disk", "memory_mib": 256, "network": "alone"},
        },
    }
    return inner.lab_of(
        "xen", inside, media={"live": {"path": "live.iso"}, "disk": {"path": "disk.raw"}}
    )


def host(folder: Path) -> Machine:
    """A Xen host as its image leaves it, and the media of `lab`, in ``folder``."""
    machine = Machine(folder / "xen", Xen)
    for place in ("systemd/network", "dnsmasq.d", "xen"):
        machine.path(f"/etc/{place}").mkdir(parents=True, exist_ok=True)
    (folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    (folder / "disk.raw").write_bytes(bytes(510) + b"\x55\xaa" + bytes(4096))
    return machine


def states(machine: Machine) -> dict[str, str]:
    return {
        one["config"]["c_info"]["name"]: one["state"] for one in machine.state["domains"].values()
    }


def test_a_lab_in_a_xen_lives_through_everything(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = host(tmp_path)
    target = sshd(machine).target("x")

    def program(memory_mib: int = 256) -> str:
        return inner.program("xen", lab(memory_mib), target, tmp_path)

    project.up(program())
    assert states(machine) == {"live": "-b----", "web": "-b----"}
    last = machine.state["last"]

    same = project.pulumi("up", "--yes", "--skip-preview")
    assert "changed" not in same.replace("unchanged", "")
    assert machine.state["last"] == last, "nothing was started"

    project.up(program(384))
    [live] = [
        one["config"]
        for one in machine.state["domains"].values()
        if one["config"]["c_info"]["name"] == "live"
    ]
    assert live["b_info"]["max_memkb"] == 384 * 1024

    assert machine.shell().run(["xl", "destroy", "live"]).ok
    assert machine.shell().run(["xl", "pause", "web"]).ok
    told = project.pulumi("preview")
    assert "guest live is shut off; `pulumi up` mends it" in told
    assert "guest web is paused; `pulumi up` mends it" in told
    project.pulumi("up", "--yes", "--skip-preview")
    assert states(machine) == {"live": "-b----", "web": "-b----"}
    fresh = project.pulumi("refresh", "--yes", "--skip-preview")
    assert "changed" not in fresh.replace("unchanged", "")

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert machine.state["domains"] == {}
    assert set(machine.state["links"]) == {"eth0"}
    assert [path for path in machine.path(STORE).rglob("*") if path.is_file()] == []


def test_a_network_on_the_hosts_own_bridge_lives_without_a_change_to_it(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = host(tmp_path)
    target = sshd(machine).target("x")
    data = lab()
    data["hypervisors"]["x"] |= {
        "networks": {"out": {"mode": "bridge"}},
        "guests": {"deep": {"image": "disk", "memory_mib": 256, "network": "out"}},
    }
    program = inner.program("xen", data, target, tmp_path)

    said = project.up(program, fails=True)
    assert "the bridge nluplink of x, which is not there: make it" in said, said
    uplink = {"addresses": ["10.77.0.5/24"], "network": ""}
    machine.path("/sys/class/net/nluplink/bridge").mkdir(parents=True)
    with machine.changing() as state:
        state["links"]["nluplink"] = uplink

    project.up(program)
    [deep] = [one["config"] for one in machine.state["domains"].values()]
    assert [nic["bridge"] for nic in deep["nics"]] == ["nluplink"]
    same = project.pulumi("up", "--yes", "--skip-preview")
    assert "changed" not in same.replace("unchanged", "")
    asked = {call.command for call in machine.calls}
    assert not asked & {"networkctl", "systemctl"}, "nothing of the network is made"

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert machine.state["domains"] == {}
    assert machine.state["links"] == {"eth0": machine.state["links"]["eth0"], "nluplink": uplink}


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = host(tmp_path)
    target = sshd(machine).target("x")
    address = "10.79.0.20"

    def of(cloud_init: dict[str, Any]) -> str:
        data = lab()
        web = {"image": "disk", "network": [{"network": "alone", "address": address}]}
        data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": cloud_init}}
        return inner.program("xen", data, target, tmp_path)

    def drives() -> list[dict[str, Any]]:
        domains = machine.state["domains"].values()
        return [each for one in domains for each in one["config"]["disks"] if "is_cdrom" in each]

    def seed() -> Path | None:
        found = drives()
        if not found:
            return None
        assert found[0]["vdev"] == "xvdc"
        disc = machine.path(found[0]["pdev_path"])
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def taken_out() -> None:
        with machine.changing() as state:
            [one] = state["domains"].values()
            one["config"]["disks"] = [
                each for each in one["config"]["disks"] if "is_cdrom" not in each
            ]

    def disk() -> object:
        [one] = machine.state["domains"].values()
        return machine.path(one["config"]["disks"][0]["pdev_path"]).stat().st_ino

    with told(address, seed) as guest:
        lives_with_a_seed(project, of, guest, taken_out=taken_out, kept=disk)
    assert machine.state["domains"] == {}
    assert [file for file in machine.path(STORE).rglob("*") if file.is_file()] == []
