"""The laws themselves: each is broken by a driver that has the fault it is for.

Tried on the kind whose host is in memory; ``NESTLAB_RED=all`` tries one case of every kind.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from components.reach.driver import DriverError
from components.reach.waiting import Seen
from tests.contract import test_laws as laws
from tests.contract.conftest import CASES, Trial

if TYPE_CHECKING:
    from collections.abc import Callable


class Faulty:
    """A driver but for what is replaced in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.done: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)


class NeverSatisfied(Faulty):
    def look(self, shell: Any, wanted: Any) -> Seen:
        self.driver.look(shell, wanted)
        return Seen(ok=False, text="never")


class MadeAnew(Faulty):
    def ensure(self, shell: Any, wanted: Any) -> None:
        self.driver.ensure(shell, wanted)
        self.driver.remove(shell, wanted)
        self.driver.ensure(shell, wanted)


class RemovesNothing(Faulty):
    def remove(self, shell: Any, wanted: Any) -> None: ...


class TakesAll(Faulty):
    def ensure(self, shell: Any, wanted: Any) -> None:
        try:
            self.driver.ensure(shell, wanted)
        except DriverError as why:
            if "left alone" not in str(why):
                raise


class TriesOnce(Faulty):
    """What a first try has begun it takes for done."""

    def _once(self, what: str, shell: Any, wanted: Any) -> None:
        if what not in self.done:
            self.done.add(what)
            getattr(self.driver, what)(shell, wanted)

    def ensure(self, shell: Any, wanted: Any) -> None:
        self._once("ensure", shell, wanted)


class RemovesOnce(TriesOnce):
    @override
    def ensure(self, shell: Any, wanted: Any) -> None:
        self.driver.ensure(shell, wanted)

    def remove(self, shell: Any, wanted: Any) -> None:
        self._once("remove", shell, wanted)


class ChangesNothing(Faulty):
    """What is there it takes for what is wanted."""

    def ensure(self, shell: Any, wanted: Any) -> None:
        if not any(each(shell, wanted).ok for each in (self.driver.look, self.look)):
            self.driver.ensure(shell, wanted)

    def look(self, shell: Any, wanted: Any) -> Seen:
        seen: Seen = self.driver.look(shell, wanted)
        gone = "not there" in seen.text or "has no" in seen.text
        return seen if gone else Seen(ok=True, text="it is there")


class TakesAnyText(Faulty):
    def problem(self, wanted: Any) -> str:
        del wanted
        return ""


FAULTS: list[tuple[Callable[[Trial], None], type[Faulty], str]] = [
    (laws.test_1_what_was_made_satisfies_a_look, NeverSatisfied, ""),
    (laws.test_2_made_again_nothing_changes, MadeAnew, ""),
    (laws.test_3_and_4_removed_twice_or_never_made_is_fine, RemovesNothing, ""),
    (laws.test_5_a_strangers_of_the_same_name_is_left_alone, TakesAll, "stranger"),
    (laws.test_6_made_whatever_command_fails, TriesOnce, ""),
    (laws.test_6_changed_whatever_command_fails, TriesOnce, "edits"),
    (laws.test_7_removed_whatever_command_fails, RemovesOnce, ""),
    (laws.test_8_a_text_arrives_unchanged_or_is_refused, TakesAnyText, "texts"),
    (laws.test_9_content_is_sent_once, MadeAnew, "sends"),
    (laws.test_10_an_edit_arrives_and_nothing_else_changes, ChangesNothing, "edits"),
    (laws.test_10_an_edit_without_a_way_back_arrives, ChangesNothing, "one_way"),
    (laws.test_10_what_was_done_by_hand_is_seen_and_mended, ChangesNothing, ""),
]
"""A law, the fault it is for, and what a case has to have for it."""
KINDS = [name for name in CASES if name.startswith("kvm.") or os.environ.get("NESTLAB_RED")]


@pytest.mark.parametrize(
    ("law", "fault", "needs"), FAULTS, ids=[f"{law.__name__[5:30]}-{fault.__name__}" for law, fault, _ in FAULTS]
)  # fmt: skip
@pytest.mark.parametrize("trial", KINDS, indirect=True)
def test_a_law_is_broken_by_the_fault_that_it_is_for(
    trial: Trial, law: Callable[[Trial], None], fault: type[Faulty], needs: str
) -> None:
    if needs and not getattr(trial.case, needs):
        return
    wrong: Any = fault(trial.driver)
    with pytest.raises((Exception, pytest.fail.Exception)):
        law(replace(trial, driver=wrong))
