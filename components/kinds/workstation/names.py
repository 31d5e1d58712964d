"""What Workstation and its host take as a name, a path, an address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.reach.driver import UUID

if TYPE_CHECKING:
    from components.reach.orders import GuestOrder, MediumOrder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""VMware's commands read paths in the locale of whoever calls, and systemd has escapes of its own."""
STORE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
PLUG = re.compile(rf"vmnet\d{{1,3}}|of {UUID.pattern}")
"""What `NetworkDriver.called` returns."""


def unquotable(text: object, what: str) -> str:
    """Say why ``text`` can't be a value of a .vmx, empty when it can."""
    if all(" " <= letter <= "~" for letter in str(text)):
        return ""
    return f"{what} {str(text)!r} holds a letter beyond ASCII's printable ones: rename it"


def bad_store(wanted: MediumOrder | GuestOrder) -> str:
    if STORE.fullmatch(wanted.store):
        return ""
    return f"store {wanted.store!r} is no plain absolute path"
