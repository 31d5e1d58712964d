"""A medium that is not the file the stack means is refused, and not read again each time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from components.media import sums
from components.stackfile import LabSpec, load
from tests.support import images

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DATA = images.raw(8192)


def lab(folder: Path, sum_: str) -> LabSpec:
    image = folder / "disk.img"
    if not image.exists():
        image.write_bytes(DATA)
        # What the umask says must not matter: the sum of a file that only its owner reads is not told.
        image.chmod(0o644)
    told: dict[str, Any] = {"name": "lab", "media": {"disk": {"path": str(image), "sha256": sum_}}}
    return load(told, root=folder)


def test_the_right_sum_is_no_problem_in_either_case(tmp_path: Path) -> None:
    right = hashlib.sha256(DATA).hexdigest()
    assert sums.wrong(lab(tmp_path, right), tmp_path / "memo.json") == []


def test_a_wrong_sum_says_the_place_both_sums_and_what_to_do(tmp_path: Path) -> None:
    (problem,) = sums.wrong(lab(tmp_path, "0" * 64), tmp_path / "memo.json")
    assert problem.path == "lab.media.disk.sha256"
    assert hashlib.sha256(DATA).hexdigest() in problem.rule
    assert "get the file again" in problem.remedy


def test_the_sum_of_a_file_that_only_its_owner_reads_is_not_told(tmp_path: Path) -> None:
    spec = lab(tmp_path, "0" * 64)
    (tmp_path / "disk.img").chmod(0o600)
    (problem,) = sums.wrong(spec, tmp_path / "memo.json")
    assert hashlib.sha256(DATA).hexdigest() not in str(problem)


def test_a_file_is_read_once_for_each_of_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = hashlib.sha256(DATA).hexdigest()
    spec, memo = lab(tmp_path, right), tmp_path / "memo.json"
    assert sums.wrong(spec, memo) == []

    def refuse(*_: object) -> None:
        raise AssertionError("the file was read again")

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", refuse)
        assert sums.wrong(spec, memo) == []
    (tmp_path / "disk.img").write_bytes(DATA + b"!")
    assert len(sums.wrong(spec, memo)) == 1, "a changed file is read again"


def test_a_broken_memo_is_forgotten(tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    memo.write_text("{")
    assert sums.wrong(lab(tmp_path, hashlib.sha256(DATA).hexdigest()), memo) == []
