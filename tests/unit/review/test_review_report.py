"""A report that the first job did not write, or should not have, is refused before a word of it is shown."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from review import report, sources
from toolchain.engine.stack_file import LARGEST

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {"version": 1, "number": 7, "base": "main", "head": "b", "stacks": []}
STACK = {"name": "a", "fate": "added"}


def written(folder: Path, told: Any) -> Path:
    file = folder / "labs.json"
    file.write_text(told if isinstance(told, str) else json.dumps(told))
    return file


def test_a_good_one_is_read(tmp_path: Path) -> None:
    assert report.read(written(tmp_path, GOOD)).number == 7


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "[]",
        "{" * 100_000,
        GOOD | {"version": 2},
        GOOD | {"more": 1},
        GOOD | {"number": -1},
        GOOD | {"number": "7"},
        GOOD | {"base": "x" * 201},
        GOOD | {"stacks": [STACK] * 101},
        GOOD | {"stacks": [STACK | {"fate": "fine"}]},
        GOOD | {"stacks": [STACK | {"refused": "x" * 20_001}]},
        GOOD | {"stacks": [STACK | {"changes": [{"operation": "run", "kind": "k", "name": "n"}]}]},
        json.dumps(GOOD)[:-1] + ', "head": "' + "x" * report.LARGEST + '"}',
    ],
    ids=range(13),
)
def test_one_beyond_the_bounds_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(report.BadReport):
        report.read(written(tmp_path, wrong))


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(root), *words], check=True, capture_output=True)


@pytest.fixture
def branch(tmp_path: Path) -> Path:
    """A repository with whatever may stand in a stack file's place."""
    root = tmp_path / "repository"
    stacks = root / "stacks"
    stacks.mkdir(parents=True)
    (stacks / "Pulumi.good.yaml").write_text("config: {}\n")
    (stacks / "Pulumi.link.yaml").symlink_to("/etc/passwd")
    (stacks / "Pulumi.huge.yaml").write_text("x" * (LARGEST + 1))
    (stacks / "Pulumi.$(touch x).yaml").write_text("config: {}\n")
    (stacks / "Pulumi...yaml").write_text("config: {}\n")
    (stacks / "other.yaml").write_text("config: {}\n")
    (stacks / "Pulumi.folder.yaml").mkdir()
    (stacks / "Pulumi.folder.yaml" / "file").write_text("x")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "stacks")
    return root


@pytest.mark.parametrize("place", ["folder", "ref"])
def test_what_stands_for_a_stack_file_is_data_or_refused(branch: Path, place: str) -> None:
    if place == "folder":
        os.mkfifo(branch / "stacks" / "Pulumi.pipe.yaml")
    found = dict(sources.of(str(branch) if place == "folder" else "main", branch))
    if place == "folder":
        assert "it is no file" in found.pop("pipe").wrong
    assert found["good"] == sources.StackText(b"config: {}\n")
    assert "link" in found["link"].wrong
    assert "larger than" in found["huge"].wrong
    assert found["folder"].wrong
    assert set(found) == {"good", "link", "huge", "folder"}


def test_a_linked_folder_is_not_entered(branch: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "stacks").symlink_to(branch / "stacks")
    assert dict(sources.of(str(other), branch)) == {}


@pytest.mark.parametrize("ref", ["--output=x", "no-such", "-x", "main:stacks", "$(touch x)", ""])
def test_no_ref_is_refused_and_nothing_is_run(branch: Path, ref: str) -> None:
    before = sorted(branch.iterdir())
    with pytest.raises(sources.NoSource):
        sources.of(ref, branch)
    assert sorted(branch.iterdir()) == before
