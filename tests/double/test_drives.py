"""A guest with more in its drives than one ISO: the real engine over a real sshd, on each product's stand-in.

A failure here is a driver disc that its guest does not see, or one that stays in a drive after the stack forgot it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import images, inner
from tests.support.commands import Machine
from tests.support.stubs.esxi import Esxi
from tests.support.stubs.hyperv import Hyperv
from tests.support.stubs.virtualbox import VirtualBox
from tests.support.stubs.workstation import DEFAULTS, Workstation
from tests.support.stubs.xen import Xen
from tests.support.stubs.xenserver import XenServer
from toolchain.engine import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.double.conftest import Project, Serve
    from tests.support.stubs import Stub

pytestmark = [pytest.mark.double, pytest.mark.spread]

ISOS = ("live", "drivers", "answers")
NET = {"own": {"mode": "isolated", "subnet": "10.78.0.0/24"}}
DATA = r"(?:many-)?data-(\w+)\.(?:img|vdi|vmdk|vhdx)"
SAME = ("--yes", "--skip-preview", "--expect-no-changes")


@dataclass(frozen=True)
class Product:
    """One kind, and what a guest of it has in its drives."""

    stub: type[Stub]
    discs: Callable[[Machine], str]
    """All that says so, in the order of the drives."""
    more: Mapping[str, Any]
    """Fields of the hypervisor."""
    folders: tuple[str, ...] = ()
    """That are there before."""
    furnish: Callable[[Machine], None] = lambda _: None


def _xen(machine: Machine) -> str:
    [one] = machine.state["domains"].values()
    return " ".join(each["pdev_path"] for each in one["config"]["disks"] if "is_cdrom" in each)


def _xenserver(machine: Machine) -> str:
    state = machine.state
    [mine] = [uuid for uuid, each in state["vm"].items() if each["name-label"] == "many"]
    drives = [
        each for each in state["vbd"].values() if (each["vm-uuid"], each["type"]) == (mine, "CD")
    ]
    drives.sort(key=lambda each: str(each["userdevice"]))
    return " ".join(state["vdi"][each["vdi-uuid"]]["location"] for each in drives)


def _vmx(machine: Machine) -> str:
    [file] = [each for each in machine.folder.rglob("*.vmx") if "many" in str(each)]
    keys = dict(line.split(" = ", 1) for line in file.read_text().splitlines() if " = " in line)
    there = [key.rpartition(".")[0] for key, value in keys.items() if value == '"cdrom-image"']
    there = [drive for drive in there if keys[f"{drive}.present"] == '"TRUE"']
    return " ".join(keys[f"{drive}.fileName"] for drive in sorted(there))


def _hyperv(machine: Machine) -> str:
    [one] = [vm for vm in machine.state["vms"].values() if vm["Name"] == "many"]
    return " ".join(str(each["Path"]) for each in one["dvds"])


def _virtualbox(machine: Machine) -> str:
    [one] = [vm for vm in machine.state["vms"].values() if vm["name"] == "many"]
    drives = sorted(one["drives"].items())
    return " ".join(each["path"] for _, each in drives if each["kind"] == "dvddrive")


def _furnished(machine: Machine) -> None:
    for name, text in DEFAULTS.items():
        machine.path(name).parent.mkdir(parents=True, exist_ok=True)
        machine.path(name).write_text(text)
    assert machine.shell().run(["vmware-networks", "--start"]).ok


PRODUCTS = {
    "xen": Product(Xen, _xen, {}, ("/etc/systemd/network", "/etc/dnsmasq.d", "/etc/xen")),
    "xenserver": Product(XenServer, _xenserver, {"iso": "live"}),
    "esxi": Product(
        Esxi,
        _vmx,
        {"iso": "live"},
        furnish=lambda machine: Esxi.furnish(machine.path("/vmfs/volumes")),
    ),
    "hyperv": Product(Hyperv, _hyperv, {"iso": "live"}),
    "virtualbox": Product(VirtualBox, _virtualbox, {"image": "disk"}),
    "workstation": Product(
        Workstation, _vmx, {"image": "disk", "bundle": "vmware"}, furnish=_furnished
    ),
}


def media(root: Path) -> dict[str, Any]:
    """Write all that the labs use, as small as it can be; return the lab's media."""
    for name in ISOS:
        (root / f"{name}.iso").write_bytes(bytes(0x8001) + b"CD001" + name.encode() * 1000)
    (root / "disk.qcow2").write_bytes(images.qcow2())
    (root / "vmware.bundle").write_bytes(b"#!/bin/sh\n")
    files = {name: f"{name}.iso" for name in ISOS} | {
        "disk": "disk.qcow2",
        "vmware": "vmware.bundle",
    }
    return {name: {"path": file} for name, file in files.items()}


def further(machine: Machine) -> dict[str, object]:
    """The further disks that lie there by name, each with what tells it from another of its name."""
    named = ((re.fullmatch(DATA, file.name), file) for file in machine.folder.rglob("*data-*"))
    found: dict[str, object] = {name[1]: file.stat().st_ino for name, file in named if name}
    for uuid, vdi in machine.state.get("vdi", {}).items():
        if name := re.match(r"many/(\w+) \(nestlab", vdi["name-label"]):
            found[name[1]] = uuid
    return found


def made(kind: str, sshd: Serve, root: Path) -> tuple[Machine, Callable[..., str]]:
    """A host of a kind, and programs of a lab in it whose guest `many` has these fields beside its ISO."""
    product = PRODUCTS[kind]
    machine = Machine(root / "host", product.stub)
    for place in product.folders:
        machine.path(place).mkdir(parents=True, exist_ok=True)
    product.furnish(machine)
    target = sshd(machine).target("x")
    files = media(root)

    def program(**guest: Any) -> str:
        many = {"iso": "live", "disk_gib": 1, "memory_mib": 256, "network": "own", **guest}
        inside = {**product.more, "networks": NET, "guests": {"many": many}}
        return inner.program(kind, inner.lab_of(kind, inside, media=files), target, root)

    return machine, program


@pytest.mark.parametrize("kind", PRODUCTS)
def test_drives_are_what_the_stack_says_and_further_disks_go_only_when_it_forgets_them(
    project: Project, sshd: Serve, tmp_path: Path, kind: str
) -> None:
    machine, program = made(kind, sshd, tmp_path)

    def seen() -> list[str]:
        found = PRODUCTS[kind].discs(machine)
        return sorted((name for name in ISOS if name in found), key=found.index)

    project.up(program(discs=["drivers", "answers"], disks={"data": 1}))
    first = further(machine)
    assert list(first) == ["data"]
    assert seen() == ["live", "drivers", "answers"]
    project.pulumi("up", *SAME)
    [row] = [json.loads(line)["drives"] for line in sheet(project)]
    assert row == ["CD live", "CD drivers", "CD answers", "data 1 GiB"]

    project.up(program(discs=["answers"], disks={"data": 1, "a": 1}, memory_mib=512))
    assert further(machine) == first | {"a": further(machine)["a"]}, "it is the one it was"
    assert seen() == ["live", "answers"]
    project.up(program(disks={"data": 2, "a": 1}, memory_mib=512))
    assert set(further(machine)) == {"a", "data"}
    assert seen() == ["live"]
    project.pulumi("up", *SAME)

    project.write(program(disks={"data": 1, "a": 1}, memory_mib=512))
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "the disk data of guest many has 2 GiB and the stack says 1: disks don't shrink" in said
    project.write(program(disks={"a": 1}, memory_mib=512))
    told = changes.read(project.pulumi("preview", "--json"))
    assert told.losses == ("x-many: its further disks are removed, with what is on them: data",)
    project.pulumi("up", "--yes", "--skip-preview")
    assert list(further(machine)) == ["a"]
    project.pulumi("up", *SAME)
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert further(machine) == {}


def sheet(project: Project) -> list[str]:
    """Return the rows of the stack's sheet."""
    rows = json.loads(project.pulumi("stack", "output", "sheet", "--json"))
    return [json.dumps(row) for row in rows]
