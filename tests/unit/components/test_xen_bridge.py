"""Networks of mode bridge inside a Xen host: one that is there, of which nothing is made and nothing removed.

A failure here is a host that loses the bridge that it is reached by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from components.kinds.xen.network import DRIVER
from components.reach.driver import DriverError
from components.stackfile.places import UPLINK
from tests.support.commands import Machine
from tests.support.orders import network_order
from tests.support.stubs.xen import Xen

if TYPE_CHECKING:
    from pathlib import Path

JOINED = replace(
    network_order(mode="bridge", bridge=UPLINK, dhcp=False, reservations=[]),
    subnet="", gateway="", prefix=0, dhcp_start="", dhcp_end="", domain="",
)  # fmt: skip


def host(at: Path) -> Machine:
    machine = Machine(at, Xen)
    machine.path(f"/sys/class/net/{UPLINK}/bridge").mkdir(parents=True)
    return machine


def test_it_is_looked_at_and_otherwise_left_as_it_is(tmp_path: Path) -> None:
    machine = host(tmp_path)
    shell, before = machine.shell(), machine.contents()
    assert DRIVER.problem(JOINED) == ""
    assert DRIVER.called(JOINED) == UPLINK
    DRIVER.ensure(shell, JOINED)
    assert DRIVER.look(shell, JOINED).ok
    DRIVER.remove(shell, JOINED)
    DRIVER.remove(shell, JOINED)
    assert machine.contents() == before


@pytest.mark.parametrize("what", ["no device", "no bridge"])
def test_one_that_is_not_there_is_said_and_not_made(tmp_path: Path, what: str) -> None:
    machine = Machine(tmp_path, Xen)
    if what == "no bridge":
        machine.path(f"/sys/class/net/{UPLINK}").mkdir(parents=True)
    seen = DRIVER.look(machine.shell(), JOINED)
    assert (seen.ok, f"its host has no bridge {UPLINK}" in seen.text) == (False, True)
    with pytest.raises(DriverError, match=f"bridge {UPLINK} of stub1, which is not there: make it"):
        DRIVER.ensure(machine.shell(), JOINED)


def test_a_bridge_of_a_name_that_no_setting_can_hold_is_refused() -> None:
    wrong = DRIVER.problem(replace(JOINED, bridge="br0,mac=1"))
    assert wrong.startswith("bridge 'br0,mac=1' can't be written")
