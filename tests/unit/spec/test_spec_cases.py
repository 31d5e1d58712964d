"""Whole labs: those refused with their exact text, those accepted with their whole plan.

A failure here means that a student meets another message, or that machines of running labs get
other names and addresses, which replaces them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.stackfile import LabSpec, SpecError, load, plan, totals
from tests.support.shipped import STACKS

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = Path(__file__).parents[2] / "cases"
REFUSED = sorted((CASES / "refused").glob("*.yaml"))
ACCEPTED = sorted((CASES / "accepted").glob("*.yaml"))


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def loaded(data: Any) -> LabSpec:
    return load(data, root=CASES, exists=lambda path: "missing" not in path)


@pytest.mark.parametrize("case", REFUSED, ids=lambda file: file.stem)
def test_a_wrong_lab_is_refused_with_every_problem(
    case: Path, golden: Callable[[Path, str], None]
) -> None:
    with pytest.raises(SpecError) as refused:
        loaded(read(case))
    said = str(refused.value)
    assert "hunter2" not in said, "a secret typed into the wrong field reached the message"
    assert said.splitlines() == [str(problem) for problem in refused.value.problems]
    golden(case.with_suffix(".txt"), said.replace(str(CASES), "<root>") + "\n")


@pytest.mark.parametrize("case", REFUSED, ids=lambda file: file.stem)
def test_a_problem_says_what_was_found_the_rule_and_the_remedy(case: Path) -> None:
    with pytest.raises(SpecError) as refused:
        loaded(read(case))
    for problem in refused.value.problems:
        assert problem.path.partition(".")[0] == "lab", "a path begins at the lab"
        assert all((problem.found, problem.rule, problem.remedy)), f"half a message: {problem}"


def test_each_case_has_its_expected_text_and_none_is_left_over() -> None:
    texts = {file.stem for file in (CASES / "refused").glob("*.txt")}
    assert texts == {file.stem for file in REFUSED}
    plans = {file.stem for file in (CASES / "accepted").glob("*.json")}
    assert plans == {file.stem for file in ACCEPTED}


def test_each_case_says_in_its_first_line_what_it_is_about() -> None:
    for case in [*REFUSED, *ACCEPTED]:
        assert case.read_text().startswith("# "), case.name


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda file: file.stem)
def test_an_accepted_lab_is_planned_as_expected(
    case: Path, golden: Callable[[Path, str], None]
) -> None:
    lab = loaded(read(case))
    seen = {"totals": asdict(totals(lab)), "plan": asdict(plan(lab))}
    golden(case.with_suffix(".json"), json.dumps(seen, indent=1) + "\n")


@pytest.mark.parametrize("stack", STACKS, ids=lambda file: file.stem)
def test_a_stack_file_of_the_repository_is_accepted(stack: Path) -> None:
    lab = load(read(stack)["config"]["nestlab:lab"], root=CASES, exists=lambda _: True)
    assert plan(lab).place().networks, "a stack that ships shows something"
