"""`nestlab up --plan` on the real engine: what was approved is done, and nothing else; the providers are stand-ins."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from review import stage, stand_in
from toolchain import lab
from toolchain.bootstrap import paths, ui
from toolchain.engine import marker as marking
from toolchain.engine import plans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.double, pytest.mark.spread]


@dataclass
class Standing:
    """A project whose stacks `lab` deploys on stand-ins."""

    on: stage.Stage
    plan: Path

    def write(self, text: bytes, stack: str = "local") -> None:
        """Write the stack's file, and the copy of it that the engine is given and writes its salt into."""
        for folder in (self.on.folder / "nestlab" / "stacks", self.on.folder / "stacks"):
            (folder / f"Pulumi.{stack}.yaml").write_bytes(text)

    def edit(self, old: bytes, new: bytes) -> None:
        text = (self.on.folder / "nestlab" / "stacks" / "Pulumi.local.yaml").read_bytes()
        assert old in text
        self.write(text.replace(old, new))

    def marker(self, stack: str = "local") -> marking.Marker:
        return marking.Marker(stack)

    def keep(self, stack: str = "local") -> None:
        lab._keep(stack, self.marker(stack), self.plan)

    def up(self, stack: str = "local") -> bool | None:
        marker = self.marker(stack)
        approved = plans.read(self.plan, stack, marker.now)
        return lab._deploy(stack, marker, lose=False, fresh=True, aside=False, approved=approved)

    def resources(self) -> list[str]:
        return [str(each["urn"]).rpartition("::")[2] for each in self.on.resources("local")]


@pytest.fixture
def standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Standing]:
    """A stack that was never made: the one that ships as ``request.param``, or local."""
    if not (paths.BIN / "pulumi").is_file():
        pytest.skip("needs the engine: run `make toolchain`")
    text = (
        paths.ROOT / "stacks" / f"Pulumi.{getattr(request, 'param', 'local')}.yaml"
    ).read_bytes()
    with stand_in.serving(stage.asked_by(text)) as providers:
        on = stage.Stage.make(tmp_path / "stage", providers)
        root = tmp_path / "stage" / "nestlab"
        (root / "stacks").mkdir()
        shutil.copytree(
            paths.ROOT / "policies", root / "policies", ignore=lambda *_: ["__pycache__"]
        )
        where = SimpleNamespace(ROOT=root, BIN=paths.BIN, LOCAL=tmp_path / "local")
        for module in (lab, marking):
            monkeypatch.setattr(module, "paths", where)
        monkeypatch.setattr(lab, "environment", lambda: on.variables)
        on.standing("local", None)
        made = Standing(on, tmp_path / "plan.json")
        made.write(text)
        yield made


@pytest.mark.parametrize("standing", ["local", "proxmox", "esxi"], indirect=True)
def test_what_was_approved_is_done_also_inside_a_host_that_was_not_there(
    standing: Standing, capfd: pytest.CaptureFixture[str]
) -> None:
    standing.keep()
    assert standing.resources() == [], "a plan changes nothing"
    assert "to create" in "".join(capfd.readouterr())
    assert standing.plan.stat().st_mode & 0o777 == 0o600
    assert standing.up() is True
    planned = json.loads(standing.plan.read_text())["plan"]["resourcePlans"]
    assert len(standing.resources()) == len(planned) > 10
    assert standing.up() is False, "it was done, and there is nothing left of it"


def test_a_stack_file_that_was_edited_since_is_refused_in_words(standing: Standing) -> None:
    standing.keep()
    standing.edit(b"memory_mib: 64", b"memory_mib: 65")
    with pytest.raises(ui.Problem, match=r"the stack file of local.* is not what .* approved for"):
        standing.up()
    assert standing.resources() == []


def test_the_engine_itself_is_held_to_the_plan(
    standing: Standing, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file is edited at the very moment after we have looked."""
    standing.keep()
    marker = standing.marker()
    approved = plans.read(standing.plan, "local", marker.now)
    monkeypatch.setattr(plans, "beyond", lambda *_: [])
    standing.edit(b"memory_mib: 64", b"memory_mib: 65")
    did = lab._deploy("local", marker, lose=False, fresh=True, aside=False, approved=approved)
    assert did is None
    assert "violates plan" in "".join(capfd.readouterr())
    assert "kvm1-domain" not in standing.resources()


def test_more_than_was_approved_is_told_before_anything_is_done(standing: Standing) -> None:
    standing.keep()
    marker = standing.marker()
    approved = plans.read(standing.plan, "local", marker.now)
    # As of a lab whose disk was there when the plan was made.
    urn = next(each for each in approved["resourcePlans"] if each.endswith("::kvm1-disk"))
    approved["resourcePlans"][urn]["steps"] = ["same"]
    with pytest.raises(
        ui.Problem, match=r"more would be done .*nothing was changed:\n  kvm1-disk: create"
    ):
        lab._deploy("local", marker, lose=True, fresh=True, aside=False, approved=approved)
    assert standing.resources() == []


def test_another_stacks_plan_and_a_damaged_one_are_refused_in_words(standing: Standing) -> None:
    standing.write((paths.ROOT / "stacks" / "Pulumi.local.yaml").read_bytes(), "other")
    standing.on.standing("other", None)
    standing.keep("other")
    with pytest.raises(ui.Problem, match="is a plan for the stack 'other', and 'local' was asked"):
        standing.up()
    whole = standing.plan.read_bytes()
    for damaged in (
        whole[:-500],
        whole.replace(b'"create"', b'"delete"', 1),
        b"",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
    ):
        standing.plan.write_bytes(damaged)
        with pytest.raises(ui.Problem, match="no plan that this version keeps, or is damaged"):
            standing.up("other")
    standing.plan.unlink()
    with pytest.raises(ui.Problem, match="no such plan"):
        standing.up("other")
    standing.plan.symlink_to("/dev/zero")
    with pytest.raises(ui.Problem, match="is no regular file"):
        standing.up("other")
