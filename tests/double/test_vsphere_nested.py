"""A nested hypervisor on vSphere, and what killed runs leave there.

A failure here is a layer that nobody waits for, an installer without its answers, or a machine that
stays on a vCenter that others use.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.double.test_proxmox_outer import program
from tests.double.test_vsphere import LIVE, ONE, SKIP, lab, running, trusted
from tests.support import standins

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project
    from tests.support.vcsim import Vcsim

pytestmark = [pytest.mark.double, pytest.mark.spread]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder with an ISO, as small as it can be."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    return folder


def test_what_a_killed_run_left_of_a_guest_is_cleared_by_the_next(
    project: Project, vcsim: Vcsim, root: Path
) -> None:
    trusted(project, vcsim)
    project.up(program(lab(vcsim, **ONE, guests=LIVE), root))
    # As an engine leaves it that is killed while it makes the guest, once its state was put right.
    lost = {
        "vsphere:index/virtualMachine:VirtualMachine",
        "pulumi-python:dynamic/nestlab:VsphereGuestGate",
    }
    told = json.loads(project.pulumi("stack", "export"))
    kept = [one for one in told["deployment"]["resources"] if one["type"] not in lost]
    for one in kept:
        if one["type"].endswith("VsphereSlot"):
            one["outputs"]["left"] = True
    told["deployment"]["resources"] = kept
    (project.folder / "state.json").write_text(json.dumps(told))
    project.pulumi("stack", "import", "--file", str(project.folder / "state.json"))
    assert running(vcsim) == {"lab-live"}
    said = project.pulumi("up", *SKIP)
    assert "live-slot: removed what a run that did not end left of it" in said
    assert running(vcsim) == {"lab-live"}
    # And what the last one left, by destroy.
    project.pulumi("stack", "import", "--file", str(project.folder / "state.json"))
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}


def test_a_nested_proxmox_on_vsphere_is_made_and_waited_for(
    project: Project, vcsim: Vcsim, root: Path, nobody: str
) -> None:
    iso = standins.proxmox_iso(root)
    trusted(project, vcsim)
    nested = {
        "kind": "proxmox",
        "iso": "installer",
        "network": "out",
        "address": nobody,
        "ready_s": 3,
        "networks": {"inner": {"mode": "bridge"}},
        "guests": {"deep": {"iso": "live", "memory_mib": 256, "network": "inner"}},
    }
    media = {"live": {"path": "live.iso"}, "installer": {"path": iso.name}}
    data = lab(vcsim, **ONE, guests={}, media=media, hypervisors={"one": nested})
    project.write(program(data, root))
    said = project.pulumi("preview")
    for name in ("one-vm", "one-gate", "one-proxmox", "one-inner-gate", "one-deep-vm"):
        assert name in said, "preview shows every layer"

    said = project.pulumi("up", *SKIP, fails=True)
    assert "one-gate: not ready after" in said
    assert nobody in said.partition("last seen: ")[2].partition("\n")[0]
    look = f"look at it (layer 1, guest lab-one): https://{vcsim.server}/ui, Launch Web Console"
    assert look in said
    made = vcsim.machines()["lab-one"]
    assert made.running
    assert made.nested
    assert made.note.endswith("nestlab:kind=proxmox")
    first, second = made.cdroms
    assert "nestlab/lab-disc-installer-installer-" in first
    assert "nestlab/lab-disc-one-answers-" in second
    # The provider, which knows one drive, learns of the other by `refresh`: it stays.
    project.pulumi("refresh", *SKIP)
    said = project.pulumi("up", *SKIP, fails=True)
    assert "VirtualMachine one-vm" not in said
    assert vcsim.machines()["lab-one"].cdroms == (first, second)
    project.pulumi("destroy", *SKIP)
    assert vcsim.machines() == {}
    assert not [path for path in (root / ".nestlab" / "keys").rglob("*") if path.is_file()]
