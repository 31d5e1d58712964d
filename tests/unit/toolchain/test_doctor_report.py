"""The table must be readable in a log and its commands must survive copying."""

from __future__ import annotations

import shlex

import pytest

from toolchain.doctor.report import Check, State, exit_status, paragraph, table

LONG = "a finding of many words that does not fit beside its name on one line " * 3


def test_a_row_says_state_name_finding_advice_and_command() -> None:
    row = Check("nested KVM", State.WARN, "it is off", "Switch it on:", ("modprobe kvm_intel",))
    assert table([row]).splitlines() == [
        "  warn  nested KVM   it is off",
        "                     Switch it on:",
        "                   $ modprobe kvm_intel",
    ]


@pytest.mark.parametrize("width", [20, 60, 80, 100, 300])
def test_no_line_is_wider_than_the_terminal_nor_than_a_hundred_columns(width: int) -> None:
    rows = [Check("x", State.FAIL, LONG, LONG, ("apt-get install " + "package-name " * 20,))]
    assert max(map(len, table(rows, width=width).splitlines())) <= max(60, min(width, 100))
    assert max(map(len, paragraph(LONG).splitlines())) <= 100


def test_a_broken_command_is_still_the_same_command_for_a_shell() -> None:
    command = "echo 'options kvm_intel nested=1' | tee /etc/modprobe.d/x.conf " + "word " * 40
    lines = table([Check("x", State.WARN, "y", "", (command,))], width=60).splitlines()[1:]
    assert len(lines) > 3
    shell = "\n".join(lines).strip().removeprefix("$ ")
    assert shlex.split(shell.replace("\\\n", "")) == shlex.split(command)


def test_colour_is_only_there_when_asked_for() -> None:
    rows = [Check("x", State.FAIL, "broken")]
    assert "\033" not in table(rows)
    assert "\033[31mfail\033[0m" in table(rows, colour=True)


@pytest.mark.parametrize(
    ("state", "status"), [(State.OK, 0), (State.WARN, 0), (State.NA, 0), (State.FAIL, 1)]
)
def test_only_what_makes_labs_impossible_ends_with_one(state: State, status: int) -> None:
    assert exit_status([Check("a", State.OK, ""), Check("b", state, "")]) == status
