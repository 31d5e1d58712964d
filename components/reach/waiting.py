"""Waiting for something on another machine: with a deadline, with progress, and told to stop.

Progress goes to standard error, which the engine shows as it comes; it is what people see of a
boot that takes a minute.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.reach.interrupt import CANCELLED
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRESS_S = 10.0
"""How often a wait that goes on says what it sees, seconds."""
POLL_S = 0.4
"""How long between two looks: each costs an emulated machine a tenth of a second of its two cores."""


@dataclass(frozen=True)
class Seen:
    """What a look at something showed."""

    ok: bool
    text: str
    """What was seen, as the end of a sentence: "kvm1: ..."."""


class NotReady(Refused):
    """The deadline passed, or the engine asked to stop; the message holds the last thing seen."""


def say(text: str) -> None:
    """Tell the user something in the course of a deployment."""
    print(text, file=sys.stderr, flush=True)


def wait_for(name: str, look: Callable[[], Seen], *, deadline_s: float) -> Seen:
    """Call ``look`` until it sees what it wants; return that.

    Raises:
        NotReady: not within ``deadline_s`` seconds, or the deployment is being stopped.
    """
    began = time.monotonic()
    told = began
    last = ""
    while True:
        seen = look()
        now = time.monotonic()
        if seen.ok:
            return seen
        if now - began >= deadline_s:
            raise NotReady(f"{name}: not ready after {now - began:.0f} s; last seen: {seen.text}")
        if now - told >= PROGRESS_S or (seen.text != last and now - told >= PROGRESS_S / 4):
            say(f"{name}: {now - began:.0f} s, {seen.text}")
            told, last = now, seen.text
        if CANCELLED.wait(POLL_S):
            raise NotReady(f"{name}: stopped while waiting; last seen: {seen.text}")
