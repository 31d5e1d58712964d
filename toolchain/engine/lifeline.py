"""Living and ending with the engine, for the two hosts that it starts.

The engine reads what its hosts print, ends them with SIGINT, and when it is killed itself it tells
nobody. The kernel could end them then (``PR_SET_PDEATHSIG``), but it acts when the parent's
*thread* ends, and the engine, a Go program, starts and ends threads as it likes.
"""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READY = "pulumi-python:nestlab:ready"
"""A function of the dynamic host that does nothing: the engine starts that host to ask it."""
ENDING = (signal.SIGINT, signal.SIGTERM)
LOOK_EVERY_S = 0.3
GARBAGE = 50_000
"""Objects more than were freed before garbage is looked for: the program of a lab makes fewer."""


def watch(end: Callable[[], None]) -> None:
    """Call ``end`` from a thread of its own when the engine says so, or is gone.

    Call it on the main thread. A plain signal handler would not do: it waits for the main thread,
    which nothing wakes when the kernel gives the signal to another one. The wake-up pipe is
    written by whichever thread gets it.
    """
    engine = os.getppid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in ENDING:
        signal.signal(number, lambda *_: None)

    def look() -> None:
        while os.getppid() == engine:
            if not select.select([woken], [], [], LOOK_EVERY_S)[0]:
                continue
            # A program may handle other signals, which come through the same pipe.
            if set(os.read(woken, 64)) & set(ENDING):
                break
        end()

    threading.Thread(target=look, name="lifeline", daemon=True).start()


def collect_again() -> None:
    """Look for garbage again, which the hosts do without while they import: all of that stays.

    It would take a tenth of the time of each import, and of a program.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(GARBAGE)


def speak_by_lines() -> None:
    """Pass each printed line on when it ends: the engine's pipe would be filled first otherwise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
