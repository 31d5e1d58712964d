"""What is noted of a lab's snapshot and of its saved memory, in a file of the checkout's own, 0600.

Whatever is being taken or removed is noted before it is, so that whoever comes after a kill finds it by its name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, paths, regular
from toolchain.engine import state

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "snapshots"
VERSION = 1


@dataclass
class Taken:
    """A snapshot that was taken as a whole."""

    name: str
    at: float
    """Seconds since 1970."""
    identity: str
    state: str
    """Digest of what the lab's state said."""
    host: dict[str, str]
    domains: dict[str, str]
    """UUID by name."""
    answered: dict[str, list[str]]
    """Addresses that answered a ping, by the machine that they are in."""
    bytes: int
    """By which the disks grew."""


@dataclass
class Suspended:
    """A lab whose machines' memory was saved."""

    answered: dict[str, list[str]]
    """Addresses that answered a ping, by the machine that they are in."""


@dataclass
class Record:
    """What is noted of a lab."""

    taken: Taken | None = None
    going: list[str] = field(default_factory=list)
    """Names that may be in the domains, and are to go."""
    resetting: bool = False
    """Whether the lab is on its way back, and has neither time nor randomness of its own yet."""
    suspended: Suspended | None = None
    """Set before its memory is saved, until it goes on with the time of then."""


def file(stack: str) -> Path:
    """Return the file of what is noted of ``stack``."""
    return paths.LOCAL / FOLDER / f"{state.named(stack)}.json"


def read(stack: str) -> Record:
    """Return what is noted of ``stack``; what can't be read is nothing."""
    try:
        told = json.loads(regular.text(file(stack)))
        taken = Taken(**told["taken"]) if told["taken"] else None
        asleep = Suspended(**told["suspended"]) if told.get("suspended") else None
        return Record(taken, list(told["going"]), bool(told["resetting"]), asleep)
    except (OSError, ValueError, LookupError, TypeError):
        return Record()


def write(stack: str, record: Record) -> None:
    """Note ``record``, whole or not at all."""
    at = file(stack)
    at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache.write(at, json.dumps({"version": VERSION, **asdict(record)}, indent=1), mode=0o600)


def forget(stack: str) -> None:
    """Forget the snapshot and the saved memory of a lab that is gone, which took them along."""
    file(stack).unlink(missing_ok=True)
