"""The connection sheet: what a student and a program read of a lab."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pulumi

from components.place.contract import HypervisorMade, MachineMade
from components.sheet import Entry, document, passwords, sheet
from components.stackfile import MachinePlan, ReadyPlan
from tests.support.engine import deploy

if TYPE_CHECKING:
    from tests.support.engine import Recorder

PLAN = MachinePlan(
    name="web",
    group="guests",
    at="lab.guests.web",
    place=(),
    layer=1,
    called="lab-web",
    memory_mib=512,
    cores=1,
    disk_gib=0,
    disk_bus="virtio",
    boot=("cdrom",),
    nics=(),
    ready=ReadyPlan("none", None, 300),
)


class Nothing(pulumi.ComponentResource):
    """What a machine made outside a lab is ready with."""

    def __init__(self, name: str) -> None:
        super().__init__("nestlab:test:Nothing", name)
        self.register_outputs({})


def guest(name: str = "web", **other: Any) -> Entry:
    plain: dict[str, Any] = {"ready": Nothing(name), "address": "", "console": ""}
    layer = other.pop("layer", 1)
    return Entry(replace(PLAN, name=name, layer=layer), "guest", MachineMade(**(plain | other)))


def told(*entries: Any) -> Recorder:
    """Deploy a stack that exports the sheet and the passwords of what ``entries`` make."""

    def program() -> dict[str, Any]:
        found = [entry() for entry in entries]
        return {"sheet": sheet(found), "passwords": passwords(found)}

    return deploy(program)


def test_a_row_says_what_a_machine_is_where_it_is_and_how_to_get_in() -> None:
    engine = told(
        lambda: Entry(
            replace(PLAN, place=("one", "two"), layer=3),
            "kvm",
            HypervisorMade(
                ready=Nothing("web"), address="10.0.0.5", console="vnc://127.0.0.1:0", user="root"
            ),
        )
    )
    assert engine.stack_outputs["sheet"] == [
        {
            "name": "web",
            "kind": "kvm",
            "layer": 3,
            "inside": ["one", "two"],
            "domain": "lab-web",
            "address": "10.0.0.5",
            "user": "root",
            "console": "vnc://127.0.0.1:0",
            "url": "",
            "enter": [],
            "serial": [],
            "run": [],
            "drives": [],
        }
    ]


def test_what_a_machine_does_not_have_is_an_empty_text_and_never_missing() -> None:
    [row] = told(guest).stack_outputs["sheet"]
    assert (row["address"], row["user"], row["console"]) == ("", "", "")


def test_outer_layers_come_first_and_else_the_order_stays() -> None:
    layers = [("a", 2), ("b", 1), ("c", 3), ("d", 1), ("e", 2)]

    engine = told(*[partial(guest, name, layer=layer) for name, layer in layers])
    assert [row["name"] for row in engine.stack_outputs["sheet"]] == ["b", "d", "a", "e", "c"]


def test_passwords_are_secret_by_machine_and_those_without_are_left_out() -> None:
    engine = told(lambda: guest(password=pulumi.Output.secret("hunter2")), partial(guest, "db"))
    assert engine.stack_outputs["passwords"] == {"web": "hunter2"}
    assert engine.secret_published[engine.stack_urn] == {"passwords"}
    assert "hunter2" not in str(engine.stack_outputs["sheet"])


def test_a_lab_without_a_machine_has_an_empty_sheet_and_its_passwords_are_secret_all_the_same() -> (
    None
):
    engine = told()
    assert engine.stack_outputs == {"sheet": [], "passwords": {}}
    assert engine.secret_published[engine.stack_urn] == {"passwords"}


def test_a_stack_hands_it_out_as_a_text_that_the_engine_does_not_print() -> None:
    """A list is printed line by line at each `pulumi up`: fifty lines for four machines."""

    def program() -> dict[str, Any]:
        return {"sheet": document(sheet([guest("a"), guest("b")]))}

    out = deploy(program).stack_outputs["sheet"]
    assert isinstance(out, pulumi.StringAsset)
    assert [row["name"] for row in json.loads(str(out.text))] == ["a", "b"]
