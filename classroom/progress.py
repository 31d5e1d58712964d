"""What people and programs see while a class is at work: a line for each student, or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from typing_extensions import override

from classroom.work import Watch
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from classroom.work import Outcome

HEARTBEAT_S = 20.0
"""Where lines can't be drawn anew, one that goes on is told of this often."""
REDRAW_S = 0.4
CLEAR = "\033[K"


def of(*, as_json: bool, width: int) -> Watch:
    """Return who tells: JSON on standard output, else lines on standard error; ``width`` of an id."""
    if as_json:
        return Programs(sys.stdout)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal(sys.stderr, width)
    return Lines(sys.stderr, width)


def line(student: str, phase: str, seconds: float, last: str, width: int) -> str:
    """Return what goes on with one student's lab, as one line."""
    return f"{student:<{width}}  {phase:<8}  {seconds:4.0f} s  {last}".rstrip()


def end(result: Outcome) -> str:
    """Return in a word how a task ended."""
    if result.code == ui.INTERRUPTED or result.code is None:
        return "stopped"
    return "done" if result.ok else "failed"


class Programs(Watch):
    """A JSON object a line: ``event`` is "seen" or "ended"."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def _tell(self, **told: object) -> None:
        print(json.dumps(told), file=self.out, flush=True)

    @override
    def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
        self._tell(event="seen", student=student, phase=phase, seconds=round(seconds, 1), last=last)

    @override
    def ended(self, result: Outcome) -> None:
        self._tell(
            event="ended",
            student=result.student,
            phase=end(result),
            seconds=round(result.seconds, 1),
            last=result.last,
            code=result.code,
            log=str(result.log),
        )

    @override
    def tick(self) -> None:
        pass


class Lines(Watch):
    """A line when a phase begins or ends, and now and then in a long one."""

    def __init__(self, out: TextIO, width: int) -> None:
        self.out, self.width = out, width
        self._said: dict[str, tuple[str, float]] = {}

    @override
    def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
        before, when = self._said.get(student, ("", 0.0))
        if phase == before and seconds - when < HEARTBEAT_S:
            return
        self._said[student] = phase, seconds
        print(line(student, phase, seconds, last, self.width), file=self.out, flush=True)

    @override
    def ended(self, result: Outcome) -> None:
        self._said.pop(result.student, None)
        said = line(result.student, end(result), result.seconds, result.last, self.width)
        print(said, file=self.out, flush=True)

    @override
    def tick(self) -> None:
        pass


class Terminal(Watch):
    """A line for each that is at work, drawn anew; who has ended stays above."""

    def __init__(self, out: TextIO, width: int) -> None:
        self.out, self.width = out, width
        self._at: dict[str, tuple[str, float, str]] = {}
        """By student: phase, when it began, last thing seen."""
        self._drawn, self._when = 0, 0.0

    @override
    def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
        self._at[student] = phase, time.monotonic() - seconds, last

    @override
    def ended(self, result: Outcome) -> None:
        self._at.pop(result.student, None)
        self._wipe()
        print(
            line(result.student, end(result), result.seconds, result.last, self.width)[
                : _columns()
            ],
            file=self.out,
        )
        self._draw()

    @override
    def tick(self) -> None:
        if time.monotonic() - self._when >= REDRAW_S:
            self._wipe()
            self._draw()

    def _wipe(self) -> None:
        for _ in range(self._drawn):
            self.out.write(f"\033[A\r{CLEAR}")
        self._drawn = 0

    def _draw(self) -> None:
        now = time.monotonic()
        for student, (phase, began, last) in self._at.items():
            text = line(student, phase, now - began, last, self.width)[: _columns()]
            self.out.write(f"{text}{CLEAR}\n")
        self._drawn, self._when = len(self._at), now
        self.out.flush()


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    except OSError:
        return 79
