"""A kept plan: what is within it, and what of it the engine is not held to. On the real engine: tests/double."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from components.gates.marks import UNKNOWN
from toolchain.bootstrap import ui
from toolchain.engine import plans

if TYPE_CHECKING:
    from pathlib import Path

URN = "urn:pulumi:s::nestlab::libvirt:index/domain:Domain::g-domain"


def plan(*steps: str, **diff: Any) -> dict[str, Any]:
    goal = {"type": "libvirt:index/domain:Domain", "custom": True, "inputDiff": diff}
    return {"resourcePlans": {URN: {"goal": goal, "steps": list(steps)}}}


def test_the_command_that_is_told_works_as_it_stands(tmp_path: Path) -> None:
    words = ["nestlab", "up", "-s", "local", "--save-plan", str(tmp_path / "my plan $x")]
    with pytest.raises(ui.Problem) as told:
        plans.read(tmp_path / "my plan $x", "local", "")
    assert shlex.split(str(told.value).partition("new plan: ")[2]) == words


def test_less_is_within_a_plan_and_more_is_told() -> None:
    replaced = plan("create-replacement", "replace", "delete-replaced")
    assert plans.beyond(replaced, plan("same")) == []
    assert plans.beyond(replaced, plan("update")) == []
    assert plans.beyond(plan("update"), plan("update")) == []
    assert plans.beyond(plan("update"), plan("replace")) == ["g-domain: replace"]
    assert plans.beyond(plan("update"), plan("delete")) == ["g-domain: delete"]
    assert plans.beyond({}, plan("create")) == ["g-domain: create"]
    assert plans.counted(replaced) == "1 to replace"
    assert plans.counted(plan("same")) == "nothing to do"


def test_the_engines_own_providers_are_neither_counted_nor_more() -> None:
    """As in the engine's own summary; a lab's are resources like others."""
    lab = "urn:pulumi:s::nestlab::nestlab:index:OuterHost$pulumi:providers:libvirt::kvm1-libvirt"
    urns = [
        "urn:pulumi:s::nestlab::pulumi:providers:pulumi-python::default",
        "urn:pulumi:s::nestlab::pulumi:providers:libvirt::default_0_5_4",
        lab,
    ]
    more = {"resourcePlans": {urn: {"steps": ["create"]} for urn in urns}}
    assert plans.counted(more) == "1 to create"
    assert plans.beyond({}, more) == ["kvm1-libvirt: create"]


def test_what_a_plugin_has_looked_at_is_held_to_as_it_is() -> None:
    looked = plan("create", adds={"__defaults": [], "name": "g", "cpu": {"mode": "x"}})
    assert plans.eased(looked) == looked
    gate = plan("create", adds={"name": "g"})
    gate["resourcePlans"][URN]["goal"]["type"] = "pulumi-python:dynamic/nestlab:MachineGate"
    assert plans.eased(gate) == gate


def test_what_none_has_looked_at_is_left_open_but_for_its_words_and_numbers() -> None:
    raw = plan(
        "update",
        updates={"memory": 512, "cpu": {"mode": "x"}},
        deletes=["__defaults", "running", "kernel"],
    )
    change = plans.eased(raw)["resourcePlans"][URN]["goal"]["inputDiff"]
    assert change["updates"] == {"memory": 512, "cpu": UNKNOWN}
    assert "memory" not in change["adds"]
    assert change["adds"]["running"] == change["adds"]["__defaults"] == UNKNOWN
    assert "__defaults" not in change["deletes"]
