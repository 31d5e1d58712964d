"""What is in a guest's drives beside its system disk, as the engine is asked for it.

A failure here is a disc that a guest does not see, one that firmware boots in place of the ISO, or a lab of an
older nestlab whose guests are made anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.gates.object import Object, RemoteObjectProvider, _Guest
from components.kinds.libvirt import virsh
from components.kinds.libvirt.gates.disk import Disk, DiskGateProvider
from components.kinds.libvirt.virsh import VirshError
from components.place.machine import machine_facts
from components.reach.orders import DataDisk
from components.reach.shell import LOCAL, Result
from components.stackfile import SpecError, load, plan
from components.stackfile.registry import KINDS
from tests.support.orders import guest_order
from tests.unit.components.labs import ROOT, up
from tests.unit.components.test_lab_tree import sheet_of, template

MEDIA = {"media": {name: {"path": f"{name}.iso"} for name in ("live", "drivers", "answers")}}
GIB = 1 << 30
NET = {"networks": {"net": {"subnet": "10.77.0.0/24"}}}


def lab(**guest: Any) -> dict[str, Any]:
    web = {"iso": "live", "discs": ["drivers", "answers"], "network": "net"} | guest
    return {**MEDIA, **NET, "guests": {"web": web}}


@pytest.mark.parametrize(("machine", "letters"), [("pc", "hd"), ("q35", "sd")])
def test_discs_of_libvirt_follow_the_iso_on_its_bus(machine: str, letters: str) -> None:
    engine = up(lab(machine=machine, disk_gib=1))
    disks = engine.named("web-domain").inputs["disks"]
    names = [
        next(word for word in MEDIA["media"] if f"medium-{word}" in one["file"])
        for one in disks[1:]
    ]
    assert names == ["live", "drivers", "answers"]
    sheet = sheet_of(engine, "web")
    for number, letter in enumerate("abc", 2):
        found = template(sheet, f"/domain/devices/disk[{number}]/target")
        assert found is not None
        [target] = found.iter("target")
        assert target.get("dev") == f"{letters}{letter}"
    [row] = engine.stack_outputs["sheet"]
    assert row["drives"] == ["CD live", "CD drivers", "CD answers"]


def test_a_guest_without_any_is_what_it_was_before_there_were_any() -> None:
    def facts(**guest: Any) -> dict[str, Any]:
        spec = load({"name": "lab", **lab(**guest)}, root=ROOT, exists=lambda _: True)
        made: dict[str, Any] = machine_facts(spec.guests["web"], plan(spec).machine("web"))
        assert "drives" not in made
        found: dict[str, Any] = made["spec"]
        return found

    assert "discs" not in facts(discs=[])
    assert facts()["discs"] == ("drivers", "answers")


class Volumes:
    """A libvirt that has one volume, or none, and its guest."""

    name = "this machine"

    def __init__(self, gib: float | None = 1, state: str = "running") -> None:
        self.gib, self.state = gib, state
        self.done: list[str] = []

    def run(self, argv: list[str], *, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        del stdin, timeout_s
        verb, *words = argv[argv.index("-c") + 2 :]
        gone = "error: failed to get vol 'lab-web.data.qcow2'\nerror: Storage volume not found"
        if verb == "domstate":
            return Result(0, f"{self.state}\n", "")
        if self.gib is None:
            return Result(1, "", gone)
        if verb == "vol-info":
            return Result(0, f"Name: x\nCapacity:       {int(self.gib * GIB)} bytes\n", "")
        if verb == "vol-path":
            return Result(0, "/pool/lab-web.data.qcow2\n", "")
        self.done.append(" ".join([verb, *words]))
        if verb == "vol-resize" and self.state == "running":
            return Result(1, "", "error: Failed to get write lock")
        assert verb in {"vol-resize", "blockresize"}
        self.gib = int(words[-1][:-1] if verb == "blockresize" else words[1]) / GIB
        return Result(0, "", "")


def disk(gib: int = 1) -> dict[str, Any]:
    given = Disk(
        name="web-disk-data-gate",
        target=LOCAL,
        uri="qemu:///system",
        pool="nestlab-lab",
        volume="lab-web.data.qcow2",
        domain="lab-web",
        disk="data",
        gib=gib,
    )
    return DiskGateProvider().carried(given)


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> Volumes:
    made = Volumes()
    monkeypatch.setattr(virsh, "shell_of", lambda _: made)
    return made


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("running", "blockresize lab-web /pool/lab-web.data.qcow2 2147483648b"),
        ("shut off", "vol-resize lab-web.data.qcow2 2147483648 --pool nestlab-lab"),
    ],
)
def test_a_further_disk_grows_in_its_guest_or_by_itself(
    volumes: Volumes, state: str, told: str
) -> None:
    volumes.state = state
    gate = DiskGateProvider()
    outs = gate.create(disk()).outs
    assert outs
    assert volumes.done == []
    assert gate.diff("", outs, disk()).changes is False
    assert gate.diff("", outs, disk(2)).changes is True
    grown = gate.update("", outs, disk(2)).outs
    assert grown
    assert (volumes.done, volumes.gib) == ([told], 2)
    assert gate.diff("", grown, disk(2)).changes is False


def test_a_further_disk_never_shrinks_and_one_that_is_gone_is_told(
    volumes: Volumes, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = DiskGateProvider()
    [failure] = gate.check(disk(3), disk(2)).failures
    assert (failure.property, "disks don't shrink; write 3 or more" in failure.reason) == (
        "gib",
        True,
    )
    assert gate.check({}, disk(2)).failures == gate.check(disk(2), disk(2)).failures == []
    volumes.gib = 5
    gate.update("", disk(), disk())
    assert volumes.done == [], "somebody made it larger, and that stays"
    volumes.gib = None
    assert gate.diff("", disk(), disk()).changes is True
    assert "disk data of lab-web is not there any more" in capsys.readouterr().err
    with pytest.raises(VirshError, match="pulumi refresh"):
        gate.update("", disk(), disk())


def test_a_further_disk_of_libvirt_is_a_volume_of_its_own_that_another_size_keeps() -> None:
    engine = up(lab(disks={"data": 3, "logs": 1}, disk_gib=1))
    volume = engine.named("web-disk-data")
    assert (volume.inputs["name"], volume.inputs["size"]) == ("lab-web.data.qcow2", 3 * GIB)
    assert engine.named("web-disk-data-gate").inputs["gib"] == 3
    [row] = engine.stack_outputs["sheet"]
    assert row["drives"][-2:] == ["data 3 GiB", "logs 1 GiB"]
    assert len(engine.named("web-domain").inputs["disks"]) == 6
    sheet = sheet_of(engine, "web")
    targets = [template(sheet, f"/domain/devices/disk[{number}]/target") for number in range(1, 7)]
    letters = [next(iter(each.iter("target"))).get("dev") for each in targets if each is not None]
    assert letters == ["vda", "vdb", "vdc", "hda", "hdb", "hdc"], "as libvirt orders them itself"


def test_a_guest_of_any_other_place_that_shrinks_a_disk_is_refused_by_a_preview() -> None:
    def carried(gib: int) -> dict[str, Any]:
        order = replace(guest_order(), disks=[DataDisk("data", gib)])
        made = Object(driver="xen.guest", target=LOCAL, wanted=order, deadline_s=1.0)
        return RemoteObjectProvider().carried(_Guest(**vars(made)))

    gate = RemoteObjectProvider()
    [failure] = [
        each for each in gate.check(carried(3), carried(2)).failures if "shrink" in each.reason
    ]
    assert "the disk data of guest web has 3 GiB and the stack says 2" in failure.reason
    grown = gate.check(carried(2), carried(3)).failures
    assert not [each for each in grown if "shrink" in each.reason]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_disks_are_counted_in_the_place_that_they_are_in(kind: str) -> None:
    if not KINDS[kind].offers.disks:
        return
    needs = {"iso": "live"} if "iso" in KINDS[kind].model.model_fields else {}
    needs |= {"image": "live"} if "image" in KINDS[kind].model.model_fields else {}
    needs |= {"bundle": "live"} if kind == "workstation" else {}
    inner = {"iso": "live", "memory_mib": 256, "disks": {"data": 60000}}
    host = {
        "kind": kind,
        "network": "net",
        "address": "10.77.0.9",
        **needs,
        "guests": {"in": inner},
    }
    data = {"name": "lab", **MEDIA, **NET, "hypervisors": {"host": host}}
    with pytest.raises(SpecError, match=r"60000 GiB given.*raise lab.hypervisors.host.disk_gib"):
        load(data, root=ROOT, exists=lambda _: True)


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"kvm", "proxmox"}))
def test_an_agent_is_refused_with_what_the_product_has_instead(kind: str) -> None:
    assert "agent" in KINDS[kind].offers.fixed
    needs = {"iso": "live"} if "iso" in KINDS[kind].model.model_fields else {}
    needs |= {"image": "live"} if "image" in KINDS[kind].model.model_fields else {}
    needs |= {"bundle": "live"} if kind == "workstation" else {}
    inner = {"iso": "live", "memory_mib": 256, "agent": True}
    host = {
        "kind": kind,
        "network": "net",
        "address": "10.77.0.9",
        **needs,
        "guests": {"in": inner},
    }
    data = {"name": "lab", **MEDIA, **NET, "hypervisors": {"host": host}}
    with pytest.raises(
        SpecError, match=r"guests.in.agent: True given, but .* does not take it: "
    ) as no:
        load(data, root=ROOT, exists=lambda _: True)
    assert len(no.value.problems) == 1


def test_an_agent_s_channel_is_there_on_libvirt_whatever_is_said() -> None:
    plain, asked = (up(lab(**said)).named("web-domain").inputs for said in ({}, {"agent": True}))
    assert plain == asked
