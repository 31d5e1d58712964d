"""Names of what stands on a Hyper-V host: which Windows takes, and how what is the lab's own is told apart.

A guest is known by the folder it lives in, which bears its owner's number and which New-VM takes in the
same breath as its name; its notes say the same for people. Switches carry the mark in their notes from
the moment they are made, NAT has it as its name.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.reach.orders import GuestOrder, NetworkOrder

LONGEST_NAME = 60
"""Letters: Windows' paths have 260, and a guest's GUID stands below its name (Hyper-V itself: 100)."""
IN_NO_PATH = r'\/:*?"<>|[]`'
"""What NTFS has no names with, and what PowerShell reads as a pattern."""
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
"""Names that are devices in every folder of Windows, with any suffix."""
DISK, PART = "disk.vhdx", "part.vhdx"
"""A guest's disk, and what it is called while it is made."""
DATA = "data-"
"""How the files of its further disks begin."""


def mark(wanted: GuestOrder | NetworkOrder) -> str:
    """Return what tells the lab's own from what somebody made by hand."""
    return f"nestlab {wanted.owner}"


def windows(path: str) -> str:
    """Return a path as Windows writes it."""
    return path.replace("/", "\\")


def problem_of_name(what: str, name: str) -> str:
    """Say why Windows can't have ``name``; empty when it can."""
    wrong = ""
    if not name or name != name.strip() or name.endswith("."):
        wrong = "is empty, or begins or ends with a blank or a dot"
    elif any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        wrong = "holds a line break, another control letter or half a letter"
    elif found := sorted(set(name) & set(IN_NO_PATH)):
        wrong = f"holds {' '.join(found)}"
    elif len(name) > LONGEST_NAME:
        wrong = f"has {len(name)} letters, and the paths of Windows leave room for {LONGEST_NAME}"
    elif name.partition(".")[0].strip().lower() in DEVICES:
        wrong = "is a device of Windows"
    return f"{what} {name!r} {wrong}: Windows has no file of that name, rename it" if wrong else ""


def problem_of_owner(wanted: GuestOrder | NetworkOrder) -> str:
    """Say why an owner can't name a folder; empty when it can."""
    owner = wanted.owner
    if re.fullmatch(r"[0-9A-Za-z-]{1,64}", owner):
        return ""
    return f"its owner {owner!r} is no UUID: it names a folder"


def folder_of(wanted: GuestOrder) -> str:
    """Return the folder of a guest; no other lab's guest has one of that name."""
    return windows(f"{wanted.store}/guests/{wanted.owner}")


def disk_of(wanted: GuestOrder) -> str:
    """Return the path of a guest's disk."""
    return f"{folder_of(wanted)}\\{DISK}"


def data_of(wanted: GuestOrder, disk: str) -> str:
    """Return the path of a further disk of a guest."""
    return f"{folder_of(wanted)}\\{DATA}{disk}.vhdx"


def nat_of(wanted: NetworkOrder) -> str:
    """Return what Windows' NAT behind a network is called."""
    return f"nestlab-{wanted.owner}"
