"""The policy pack judges each `nestlab up`, unless somebody says otherwise; what was judged is not judged again."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.engine import changes
from toolchain.engine.marker import Marker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The words that the engine was run with, in a checkout with one stack."""
    words: list[tuple[str, ...]] = []
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "LOCAL", tmp_path / "l")
    for file in ("__main__.py", "components/x.py", "policies/x.py", "stacks/Pulumi.local.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()

    def run(*given: str, **_: Any) -> int:
        words.append(given)
        return 0

    def previewed(_: str, *more: str) -> changes.Preview:
        words.append(("preview", *more))
        return changes.Preview((), clean=True, warnings=())

    monkeypatch.setattr(lab, "run", run)
    monkeypatch.setattr(lab, "previewed", previewed)
    return words


def deploy(*, policies: bool = True, fresh: bool = False) -> bool | None:
    return lab._deploy(
        "local", Marker("local", policies=policies), lose=False, fresh=fresh, aside=False
    )


def test_the_pack_judges_what_is_made_and_what_changes(
    asked: list[tuple[str, ...]], tmp_path: Path
) -> None:
    pack = ("--policy-pack", "policies")  # no path: a comma in it would make two
    assert deploy(fresh=True) is True
    assert asked.pop()[-2:] == pack
    # It stands as it was judged: a preview that finds nothing to do needs no pack.
    assert deploy() is False
    assert asked.pop() == ("preview",)
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text("more")
    assert deploy() is True
    assert asked == [
        ("preview", *pack),
        ("up", "--yes", "--skip-preview", "--suppress-progress", *pack),
    ]


def test_another_pack_judges_anew(asked: list[tuple[str, ...]], tmp_path: Path) -> None:
    deploy(fresh=True)
    (tmp_path / "policies" / "x.py").write_text("more")
    assert deploy() is True
    assert "--policy-pack" in asked[-1]


def test_a_lab_that_was_made_without_it_is_judged_once_it_is_on(
    asked: list[tuple[str, ...]],
) -> None:
    assert deploy(policies=False, fresh=True) is True
    assert "--policy-pack" not in asked[-1]
    assert deploy(policies=False) is False
    assert deploy() is True
    assert "--policy-pack" in asked[-1]


def test_what_a_policy_stops_is_told_by_its_name() -> None:
    """The events as the engine prints them; the answer says no more than that the preview failed."""
    urn = "urn:pulumi:x::nestlab::libvirt:index/network:Network::lab-network"
    event = {"resourceUrn": urn, "policyName": "isolation", "message": "why\nmend it so\n"}
    lines = [
        json.dumps({"sequence": 1, "preludeEvent": {}}),
        json.dumps({"policyEvent": {**event, "enforcementLevel": "advisory"}}),
        json.dumps({"policyEvent": {**event, "enforcementLevel": "mandatory"}}),
        "no JSON",
        "[]",
        json.dumps({"policyEvent": {"enforcementLevel": "mandatory"}}),
    ]
    assert changes.violations("\n".join(lines)) == ["isolation: lab-network: why mend it so"]


def test_a_preview_that_a_policy_stops_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"policyName": "isolation", "message": "why", "enforcementLevel": "mandatory"}
    asked: list[bool] = []

    def preview(*_: str, events: bool = False) -> subprocess.CompletedProcess[str]:
        asked.append(events)
        told: dict[str, Any] = {"diagnostics": [{"severity": "error", "message": "preview failed"}]}
        return subprocess.CompletedProcess(
            [], 1, json.dumps({"policyEvent": event} if events else told), ""
        )

    monkeypatch.setattr(lab, "_preview", preview)
    with pytest.raises(ui.Problem, match=r"^isolation: : why$"):
        lab.previewed("local", "--policy-pack", "policies")
    with pytest.raises(ui.Problem, match=r"^preview failed$"):
        lab.previewed("local")
    assert asked == [False, True, False]
