"""What is in a guest's drives beside its system disk, as the engine is asked for it.

A failure here is a disc that a guest does not see, one that firmware boots in place of the ISO, or a lab of an
older nestlab whose guests are made anew.
"""

from __future__ import annotations

from typing import Any

import pytest

from components.place.machine import machine_facts
from components.stackfile import load, plan
from tests.unit.components.labs import ROOT, up
from tests.unit.components.test_lab_tree import sheet_of, template

MEDIA = {"media": {name: {"path": f"{name}.iso"} for name in ("live", "drivers", "answers")}}
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
