"""Text consoles of guests: what opens them, in every kind that its own commands drive."""

from __future__ import annotations

import pytest

from components import kinds
from components.reach import linux_host
from components.reach.driver import console_of
from tests.support.orders import OWNER

STORE = "/var/lib/nestlab/x"
OPENED = {
    "esxi": ["tail", "-n", "+1", "-f", f"{STORE}/guests/web/console.log"],
    "workstation": ["socat", "-,rawer,escape=0x1d", f"UNIX-CONNECT:{STORE}/guests/web/serial"],
    "xen": ["xl", "console", "web"],
}  # fmt: skip


@pytest.mark.parametrize("kind", OPENED)
def test_a_console_is_opened_by_a_command_on_its_hypervisor(kind: str) -> None:
    assert console_of(kind, "web", STORE, OWNER) == OPENED[kind]


def test_every_kind_with_guests_of_its_own_commands_has_one() -> None:
    driven = {kind for kind in kinds.NESTED if kinds.has(kind, "guest")}
    assert driven
    assert [kind for kind in driven if not kinds.has(kind, "console")] == []


def test_a_kind_without_one_opens_none() -> None:
    assert console_of("proxmox", "web", STORE, OWNER) == ()


def test_a_socket_that_linux_would_cut_off_is_none() -> None:
    assert linux_host.no_socket("/" + "x" * 106) == ""
    assert "108 bytes, and a Unix socket's path has 107" in linux_host.no_socket("/" + "x" * 107)
    assert "108 bytes" in linux_host.no_socket("/x" + "ä" * 53)
