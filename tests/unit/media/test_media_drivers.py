"""Windows without a disc of drivers: told where its installer would see no disk or NIC, and nowhere else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from components.media import drivers
from components.stackfile import load
from tests.support import standins

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.media.conftest import Media


@pytest.fixture(autouse=True)
def _programs() -> None:
    standins.needs("xorriso", "genisoimage")


@pytest.fixture
def root(tmp_path: Path, media: Media) -> Path:
    shutil.copy(media["hyperv"], tmp_path / "windows.iso")
    shutil.copy(media["debian"], tmp_path / "debian.iso")
    return tmp_path


def said(root: Path, *, host: dict[str, Any] | None = None, **guest: Any) -> list[str]:
    names = {name: {"path": f"{name}.iso"} for name in ("windows", "debian")}
    net = {"networks": {"net": {"subnet": "10.77.0.0/24"}}}
    one = {"guests": {"win": {"iso": "windows", "network": "net", "disk_gib": 40} | guest}}
    lab = {"name": "lab", "media": names, **net, **one}
    if host is not None:
        inside = {"network": "net", "networks": {"net": {"subnet": "10.78.0.0/24"}}, **one}
        lab = {"name": "lab", "media": names, **net, "hypervisors": {"host": host | inside}}
    return drivers.lacking(load(lab, root=root, exists=lambda _: True))


def test_what_its_installer_would_not_see_is_told_with_the_remedy(root: Path) -> None:
    [line] = said(root)
    assert line.startswith("lab.guests.win.discs: nothing given")
    assert "no driver for virtio, which is what it would see of its disk and its NIC" in line
    assert "virtio-win.iso" in line
    assert "see of its NIC:" in said(root, disk_bus="sata")[0]
    assert "see of its disk:" in said(root, nic_model="e1000", disk_bus="scsi")[0]


@pytest.mark.parametrize(
    "guest",
    [
        {"discs": ["debian"]},
        {"disk_bus": "sata", "nic_model": "e1000"},
        {"iso": "debian"},
        {"disk_gib": 0, "nic_model": "e1000"},
    ],
)
def test_who_has_drivers_or_needs_none_is_told_nothing(root: Path, guest: dict[str, Any]) -> None:
    assert said(root, **guest) == []


def test_inside_it_goes_by_what_the_product_emulates(root: Path) -> None:
    assert len(said(root, host={"kind": "kvm", "memory_mib": 8192, "disk_gib": 60})) == 1
    xen = {"kind": "xen", "memory_mib": 8192, "disk_gib": 60}
    assert said(root, host=xen) == []


def test_an_iso_that_is_not_there_yet_is_for_others_to_tell(root: Path) -> None:
    (root / "windows.iso").unlink()
    assert said(root) == []
