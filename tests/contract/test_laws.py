"""The laws that every driver keeps, written once and tried on all kinds' stand-ins.

A failure here is an object that is made twice, half made and taken for whole, not mended, or somebody
else's and changed all the same. What a law has to know of a driver is in `tests.contract.kinds`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest

from components.reach.driver import DriverError
from tests.contract.kinds import PENDING, cases, with_drivers
from tests.support.commands import every_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.conftest import Trial

HOSTILE = (
    "plain", "a b", " leading", "trailing ", "-n", "--force", "-rf /", "..", ".", "a/b", "/etc/passwd",
    "$(reboot)", "`id`", "$HOME", "a; id", "a'b", 'a"b', "a'b\"c", "a\\b", "a|22b", "&|>x<#", "*", "~", "%n%s",
    "{a,b}", "x=y", "name: x", "a,b", "two\nlines", "x\r", "\t", "", "ä日本😀", "\u202eevil", "\ufffe", "\ud800",
    "x" * 300, '"}', "[x]", "null", "@file", "#x", "!!", "x; nestlab: y", "web (nestlab 1)",
)  # fmt: skip
"""Texts that a shell, a format or a product may take for something else."""
NAMES = (
    "plain",
    "a b",
    "-n",
    "$(reboot)",
    "a'b",
    'a"b',
    "a\\b",
    "a,b",
    "*",
    "ä日本😀",
    "x=y",
    "#x",
    "{a,b}",
)
"""Some of them: what a file or a network may be called somewhere."""
SOMEBODY = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c0f"
"""Another lab's owner."""


def test_every_driver_is_under_the_laws() -> None:
    tried = {case.name.partition(" ")[0] for case in cases()}
    lacking = {kind for kind, names in with_drivers().items() if not tried.issuperset(names)}
    assert lacking == PENDING, "PENDING names kinds that are in, or not those that are out"


def test_1_what_was_made_satisfies_a_look(trial: Trial) -> None:
    host = trial.afresh()
    assert trial.driver.problem(trial.order) == ""
    assert not trial.look(host).ok, "it is not there yet"
    trial.ensure(host)
    trial.satisfied(host)


def test_2_made_again_nothing_changes(trial: Trial) -> None:
    host = trial.made()
    before, count = host.contents(), len(host.calls)
    trial.ensure(host)
    said = [f"{line} " for call in host.calls[count:] for line in trial.case.said(call)]
    asks = tuple(f"{each} " for each in trial.case.asks)
    assert [line for line in said if not line.startswith(asks)] == []
    assert host.contents() == before
    trial.satisfied(host)


def test_3_and_4_removed_twice_or_never_made_is_fine(trial: Trial) -> None:
    host = trial.afresh()
    before = trial.contents(host)
    trial.remove(host)
    trial.same(host, before, "there was nothing of ours")
    trial.ensure(host)
    trial.remove(host)
    assert not trial.look(host).ok
    gone = trial.contents(host)
    trial.remove(host)
    trial.same(host, gone, "it is as it was")
    trial.ensure(host)
    trial.satisfied(host)


def test_5_a_strangers_of_the_same_name_is_left_alone(trial: Trial) -> None:
    if trial.case.stranger is None:
        assert trial.case.no_stranger, "say why nobody else can have the name"
        return
    host = trial.afresh()
    trial.case.stranger(host)
    theirs = host.contents()
    with pytest.raises(DriverError, match="left alone"):
        trial.ensure(host)
    assert host.contents() == theirs
    trial.remove(host)
    assert host.contents() == theirs
    if hasattr(trial.order, "owner"):
        host = trial.made()
        ours = trial.contents(host)
        trial.remove(host, replace(trial.order, owner=SOMEBODY))
        trial.same(host, ours, "another lab takes away its own")


def test_6_made_whatever_command_fails(trial: Trial) -> None:
    whole = trial.contents(trial.made())

    def there(host: Any) -> None:
        trial.satisfied(host)
        trial.same(host, whole, "it is as it was")

    assert every_failure(trial.afresh, trial.ensure, there, hows=trial.case.hows)


def test_6_changed_whatever_command_fails(trial: Trial) -> None:
    if not trial.case.edits:
        return
    wanted = trial.order
    for _, edit in _edits(trial):
        wanted = replace(wanted, **edit)
    host = trial.afresh()
    trial.ensure(host, wanted)
    at_once = trial.contents(host)

    def there(host: Any) -> None:
        trial.satisfied(host, wanted)
        trial.same(host, at_once, "as if it had been made so")

    kept = trial.made().keep()
    tried = every_failure(
        kept, lambda host: trial.ensure(host, wanted), there, hows=trial.case.hows
    )
    assert tried


def test_7_removed_whatever_command_fails(trial: Trial) -> None:
    host = trial.made()
    made = host.keep()
    trial.remove(host)
    nothing = trial.contents(host)

    def gone(host: Any) -> None:
        assert not trial.look(host).ok
        trial.same(host, nothing, "it is as it was")

    assert every_failure(made, trial.remove, gone, hows=trial.case.hows)


def test_8_a_text_arrives_unchanged_or_is_refused(trial: Trial) -> None:
    before = trial.contents(trial.afresh())
    for field, put in trial.case.texts.items():
        for text in HOSTILE:
            wanted = put(trial.order, text)
            if trial.driver.problem(wanted):
                continue
            host = trial.afresh()
            try:
                trial.ensure(host, wanted)
                trial.satisfied(host, wanted)
                if read := trial.case.arrived.get(field):
                    assert read(host, wanted) == text
                trial.remove(host, wanted)
                trial.same(host, before, "it is as it was")
            except Exception as wrong:
                wrong.add_note(f"{field} is {text!r}")
                raise


def test_8_what_others_are_called_arrives_unchanged_or_is_refused(trial: Trial) -> None:
    for field, need in trial.case.needs.items():
        for text in NAMES:
            host = trial.afresh()
            try:
                wanted = need(host, trial.order, text)
                if wanted is None or trial.driver.problem(wanted):
                    continue
                before = trial.contents(host)
                trial.ensure(host, wanted)
                trial.satisfied(host, wanted)
                trial.remove(host, wanted)
                trial.same(host, before, "it is as it was")
            except Exception as wrong:
                wrong.add_note(f"{field} is {text!r}")
                raise


def test_9_content_is_sent_once(trial: Trial) -> None:
    if trial.case.sends is None:
        assert ".medium" not in trial.case.name, "say how often it was sent"
        return
    host = trial.made()
    trial.ensure(host)
    trial.satisfied(host)
    assert trial.case.sends(host) == 1


def test_10_an_edit_arrives_and_nothing_else_changes(trial: Trial) -> None:
    decided = {each.name for each in fields(trial.order)}
    known = {*trial.driver.replaced_by, *trial.case.fixed, *trial.case.edits, *trial.case.one_way}
    assert known >= decided, f"no edit is known of {decided - known}"
    original = trial.contents(trial.made())
    kept = trial.made().keep()
    for field, edit in _edits(trial):
        wanted = replace(trial.order, **edit)
        try:
            host = trial.afresh()
            trial.ensure(host, wanted)
            at_once = trial.contents(host)
            host = kept()
            assert not trial.look(host, wanted).ok, "an edit has to be seen"
            trial.ensure(host, wanted)
            trial.satisfied(host, wanted)
            trial.same(host, at_once, "as if it had been made so")
            trial.ensure(host)
            trial.satisfied(host)
            trial.same(host, original, "and back again")
        except Exception as wrong:
            wrong.add_note(f"another {field}")
            raise


def _edits(trial: Trial) -> Iterator[tuple[str, dict[str, Any]]]:
    for field, value in trial.case.edits.items():
        yield field, value if isinstance(value, dict) else {field: value}


def test_10_an_edit_without_a_way_back_arrives(trial: Trial) -> None:
    for field, value in trial.case.one_way.items():
        wanted = replace(trial.order, **{field: value})
        host = trial.afresh()
        trial.ensure(host, wanted)
        at_once = trial.contents(host)
        host = trial.made()
        assert not trial.look(host, wanted).ok, f"another {field} has to be seen"
        trial.ensure(host, wanted)
        trial.satisfied(host, wanted)
        trial.same(host, at_once, "as if it had been made so")
        with suppress(DriverError):
            trial.ensure(host)
        trial.same(host, at_once, "refused or not, nothing is lost")


def test_10_what_was_done_by_hand_is_seen_and_mended(trial: Trial) -> None:
    assert trial.case.harms, "say what can be done to it by hand"
    whole = trial.contents(trial.made())
    kept = trial.made().keep()
    for harm, do in trial.case.harms.items():
        host = kept()
        do(host)
        try:
            assert not trial.look(host).ok, "it has to be seen"
            trial.ensure(host)
            trial.satisfied(host)
            trial.same(host, whole, "it is as it was")
        except Exception as wrong:
            wrong.add_note(f"when {harm}")
            raise
