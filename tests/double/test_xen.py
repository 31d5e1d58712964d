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

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = pytest.mark.double


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


def states(machine: Machine) -> dict[str, str]:
    return {
        one["config"]["c_info"]["name"]: one["state"] for one in machine.state["domains"].values()
    }


def test_a_lab_in_a_xen_lives_through_everything(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "xen", Xen)
    for place in ("systemd/network", "dnsmasq.d", "xen"):
        machine.path(f"/etc/{place}").mkdir(parents=True, exist_ok=True)
    (tmp_path / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    (tmp_path / "disk.raw").write_bytes(bytes(510) + b"\x55\xaa" + bytes(4096))
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
