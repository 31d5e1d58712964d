"""Mutants of every stack that ships: a failure here lets a lab through that a rule is there to stop.

The counts, by stack and by rule: ``python3 -m tests.policy.mutation``.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.policy import mutation, shipped
from tests.support.shipped import STACKS
from toolchain.bootstrap import paths

import rules  # isort: skip - the pack's folder comes with judging

if TYPE_CHECKING:
    from tests.policy.mutation import Counts

RULES = {policy.name for policy in rules.POLICIES} - {"secret-marks"}
FEW = 40
"""Of the mutants of all stacks together, at least so many break each rule."""


@pytest.fixture(scope="module")
def counts() -> list[Counts]:
    return mutation.run()


def test_no_mutant_of_any_stack_survives_and_no_sound_one_is_stopped(counts: list[Counts]) -> None:
    assert [(each.name, *wrong) for each in counts for wrong in each.survived] == []


def test_every_stack_is_mutated_and_every_rule_broken(counts: list[Counts]) -> None:
    assert {each.name.split()[0] for each in counts} == {shipped.name_of(file) for file in STACKS}
    assert all(each.mutants > each.settings > FEW for each in counts)
    by_rule = sum((each.broken for each in counts), Counter[str]())
    assert {rule: by_rule[rule] for rule in RULES if by_rule[rule] < FEW} == {}


@pytest.mark.parametrize("rule", ["nested-cpu", "isolation", "capacity"])
def test_mutants_survive_where_a_rule_is_taken_out(
    monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    fewer = [policy for policy in rules.POLICIES if policy.name != rule]
    with contextlib.chdir(paths.ROOT):
        given = shipped.at(2 * [shipped.name_of(file) for file in STACKS].index("vsphere"))
        assert given is not None
        monkeypatch.setattr(rules, "POLICIES", fewer)
        made = mutation.tried(given)
    assert made.survived
    assert {rule} == set().union(*(wanted - said for _, wanted, said in made.survived))
