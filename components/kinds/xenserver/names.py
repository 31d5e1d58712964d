"""What of XAPI's objects is the lab's: labels there are not unique, so it is known by its owner.

The owner stands in ``other-config`` (a guest's, with the guest's own UUID beside it, since a clone that
somebody makes of it copies all of that), in the description of a network, in the label of a disk.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from components.kinds.xenserver.xe import Row, entry
from components.reach.driver import foreign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
    from components.reach.shell import Shell

BRIDGE = "bridge:"
"""Begins what guests call a network that XAPI had already."""
LABEL = re.compile(r"(.*) \(nestlab ([\w-]+)\)", re.DOTALL)


def mark(wanted: GuestOrder | MediumOrder | NetworkOrder) -> str:
    return f"nestlab {wanted.owner}"


def label(wanted: GuestOrder | MediumOrder) -> str:
    """Return what tells a disk, or a guest that is half made, from all others."""
    return f"{wanted.name} ({mark(wanted)})"


def marks(row: Row) -> set[str]:
    """Return the owners that a network names."""
    found = {entry(row["other-config"], "nestlab")}
    if row["name-description"].startswith("nestlab "):
        found.add(row["name-description"].removeprefix("nestlab "))
    return found - {""}


def unfit(what: str, text: str) -> str:
    """Say why XAPI can't take ``text``: its messages are XML, and `xe` sends its words as lines."""
    wrong = [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} or c in "\ufffe\uffff"]
    if wrong:
        return f"{what} {text!r} holds {wrong[0]!r}, which XAPI can't take: remove it"
    return "" if text.strip() else f"{what} is empty, and XAPI shows it to people: give one"


def owner(wanted: GuestOrder | MediumOrder | NetworkOrder) -> str:
    owner = wanted.owner
    if re.fullmatch(r"[\w-]+", owner, re.ASCII):
        return ""
    return f"owner {owner!r} is no UUID: it comes from the lab, not from a stack file"


def strangers(
    shell: Shell, what: str, command: str, wanted: GuestOrder | NetworkOrder, found: Iterable[Row]
) -> None:
    """Refuse a name that somebody else's object has: nobody could tell the two apart."""
    for row in found:
        raise foreign(
            shell,
            f"the {what} {wanted.name!r}, {row['uuid']},",
            f"call it something else (`xe {command}-param-set uuid={row['uuid']} name-label=...`), "
            "or remove it, or rename the one in the stack",
        )
