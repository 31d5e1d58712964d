"""What is told of labs: at each layer, their age, and what is past its end."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from classroom import register, status
from toolchain.bootstrap import ui
from toolchain.engine import state

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_now", lambda: NOW)


def kept(**given: Any) -> register.Register:
    made = register.Register("net1")
    made.students["ana"] = register.Given("Ana", lab={"memory_mib": 4096}, **given)
    return made


def row(name: str, layer: int, word: str) -> dict[str, Any]:
    return {"name": name, "layer": layer, "state": word, "said": f"{name} is {word}"}


CASES = {
    "all up": ([row("kvm1", 1, "up"), row("box", 2, "up")], "up", {"1": "up", "2": "up"}),
    "the host off": (
        [row("kvm1", 1, "off"), row("box", 2, "unknown")],
        "off",
        {"1": "1 of 1 off", "2": "1 of 1 unknown"},
    ),
    "suspended": (
        [
            row("kvm1", 1, "suspended") | {"kind": "kvm"},
            row("box", 2, "unknown") | {"kind": "container"},
            row("lab-gate", 1, "up"),
        ],
        "suspended",
        {"1": "1 of 2 suspended", "2": "1 of 1 unknown"},
    ),
    "one of two suspended": (
        [row(n, 1, w) | {"kind": "guest"} for n, w in (("a", "suspended"), ("b", "off"))],
        "off",
        {"1": "2 of 2 off or suspended"},
    ),
    "one inside off": (
        [row("kvm1", 1, "up"), row("box", 2, "off"), row("in", 2, "up")],
        "drift",
        {"1": "up", "2": "1 of 2 off"},
    ),
    "not as wanted": ([row("kvm1", 1, "not as wanted")], "drift", {"1": "1 of 1 not as wanted"}),
    "nobody knows": (
        [row("kvm1", 1, "up"), row("box", 2, "unknown")],
        "unknown",
        {"1": "up", "2": "1 of 1 unknown"},
    ),
    "not made": ([row("kvm1", 1, "not made")], "not made", {"1": "1 of 1 not made"}),
    "half made": (
        [row("kvm1", 1, "up"), row("box", 2, "not made")],
        "drift",
        {"1": "up", "2": "1 of 1 not made"},
    ),
    "nothing": ([], "not made", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_lab_s_state_is_told_by_layer(name: str) -> None:
    rows, word, layers = CASES[name]
    found = status.seen(kept(), "ana", rows, None)
    assert (found.state, found.layers) == (word, layers)
    assert len(found.said) == sum(each["state"] != "up" for each in rows)


def test_what_a_lab_has_used_counts_those_before_it() -> None:
    given = kept(spent=10.0, budget=50, until="2026-11-27")
    found = status.seen(given, "ana", [row("kvm1", 1, "up")], NOW - dt.timedelta(hours=5))
    assert found.hours == 5
    assert found.used == 30  # 4 GiB for 5 hours, and 10 before
    assert found.past == []
    found = status.seen(given, "ana", [], NOW - dt.timedelta(hours=11))
    assert found.past == ["its budget, 54.0 of 50 GiB h"]
    past = kept(until="2026-11-26")
    assert status.seen(past, "ana", [], None).past == ["its end, 2026-11-26"]


def test_who_can_t_be_asked_hinders_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "since", lambda _: None)
    made = kept()
    made.students["bob"] = register.Given("Bob", left=True)
    made.students["eva"] = register.Given("Eva")

    def look(stack: str) -> list[dict[str, Any]]:
        if stack == "net1.ana":
            raise ui.Problem("it is broken\nand more")
        return [row("kvm1", 1, "up")]

    ana, bob, eva = status.of(made, look, {"net1.ana", "net1.bob"}, 2)
    assert (ana.state, ana.said) == ("unknown", ["it is broken"])
    assert (bob.state, bob.left, eva.state) == ("up", True, "not made")
    told = status.lines([ana, bob, eva], 0.5)
    assert told[0].split()[:3] == ["STUDENT", "NAME", "STATE"]
    assert "up (left)" in told[2]
    assert "COST" in told[0]
    assert told[-1] == "ana: it is broken"
    json.dumps([each.as_json() for each in (ana, bob, eva)])


def test_a_lab_s_age_is_that_of_the_first_thing_of_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = [
        {"urn": "a", "custom": True, "type": "x:y:Z", "created": "2026-11-27T10:00:00Z"},
        {"urn": "b", "custom": True, "type": "x:y:Z", "created": "2026-11-27T09:00:00.5Z"},
        {
            "urn": "c",
            "custom": True,
            "type": "pulumi:providers:x",
            "created": "2020-01-01T00:00:00Z",
        },
    ]
    file = checkout / ".nestlab" / "state" / ".pulumi" / "stacks" / "nestlab" / "net1.ana.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))
    monkeypatch.setattr(state, "folder", lambda _: checkout / ".nestlab" / "state" / ".pulumi")
    assert status.since("net1.ana") == dt.datetime(2026, 11, 27, 9, 0, 0, 500000, tzinfo=dt.UTC)
    assert status.since("net1.bob") is None
    file.write_text("{")
    assert status.since("net1.ana") is None


@pytest.mark.parametrize(
    ("hours", "words"), [(None, "-"), (0.5, "30 min"), (5, "5 h"), (100, "4 days")]
)
def test_ages_are_words(hours: float | None, words: str) -> None:
    assert status.age(hours) == words
