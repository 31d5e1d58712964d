"""The command `nestlab`, once for each student, some at a time: each in a process and with a log of its own.

Not by Pulumi's Automation API: that runs the same engine, without what `nestlab up` puts around it. Here
each student's lab is locked, checked, put right after a kill, judged and asked about as any lab is, since it
is the same command; and whatever one of them does to its process, the others go on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from toolchain.bootstrap import paths, ui

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import FrameType

POLL_S = 0.2
SHOWN = 120
"""Characters of a log's line that are shown."""
ENGINE = {"Updating (": "making", "Destroying (": "removing", "Previewing ": "looking"}
"""How the engine's first line begins, and what goes on from then on."""
STEPS = {
    "up": "checking",
    "down": "removing",
    "reset": "going back",
    "suspend": "saving",
    "resume": "going on",
}
"""What goes on before that, by the verb."""
MARK = "# nestlab "
"""Before each command in a log."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
NOT_BEGUN = "not begun"
ERROR = "error: "
FAILED = frozenset({"error: update failed", "error: preview failed"})
"""What the engine says beside the reason."""
JUDGED = "- [mandatory]"
"""How the engine's line begins that names a policy which stops a deployment."""


class Watch(Protocol):
    """Who is told what goes on."""

    def seen(self, student: str, phase: str, seconds: float, last: str) -> None:
        """Hear of a student's lab: a phase that began, or something new that was seen."""

    def ended(self, result: Outcome) -> None:
        """Hear that one has ended."""

    def tick(self) -> None:
        """Redraw what is shown, if it is."""


@dataclass(frozen=True)
class Task:
    """What is to be done for one student."""

    student: str
    commands: Sequence[Sequence[str]]
    """Words of `nestlab`; each is run when the one before has done what it should."""
    log: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    student: str
    code: int | None
    """Exit status of the last command; None: it was not begun, since somebody pressed Ctrl-C."""
    seconds: float
    last: str
    """Last thing seen of one that was stopped; why, of one that failed."""
    log: Path

    @property
    def ok(self) -> bool:
        """Whether all was done."""
        return self.code == 0


@dataclass
class _Running:
    """A task at work."""

    task: Task
    left: list[Sequence[str]]
    began: float = field(default_factory=time.monotonic)
    phase: str = "waiting"
    last: str = ""
    process: subprocess.Popen[bytes] | None = None
    told: int = 0
    """Bytes of the log that were read."""
    judged: str = ""
    """What a policy stopped, the last one."""
    error: list[str] = field(default_factory=list)
    """The lines of the last error, and what follows it."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def next(self) -> None:
        """Start the next command; its words and all that it prints go to the log."""
        words = self.left.pop(0)
        self.phase, self.last = STEPS.get(words[0], words[0]), ""
        self.error, self.judged = [], ""
        with _log(self.task.log) as handle:
            os.write(handle, f"{MARK}{' '.join(words)}\n".encode())
            self.process = subprocess.Popen(
                [sys.executable, str(paths.ROOT / "nestlab"), *words],
                cwd=paths.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                # A terminal's Ctrl-C is told to each by `Crew`, as to a terminal's own.
                process_group=0,
            )

    def look(self) -> bool:
        """Read what is new in the log; return whether anything is."""
        with suppress(OSError), self.task.log.open("rb") as handle:
            handle.seek(self.told)
            new = handle.read()
            whole = new[: new.rfind(b"\n") + 1]
            self.told += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                self._line(ESCAPES.sub("", line).strip())
            return bool(whole)
        return False

    def _line(self, line: str) -> None:
        if not line or line.startswith(MARK):
            return
        self.last = shown(line)
        self.phase = next((p for start, p in ENGINE.items() if line.startswith(start)), self.phase)
        if line.startswith(JUDGED):
            self.judged = line.removeprefix(JUDGED).strip()
        elif line in FAILED:
            return
        if line.startswith(ERROR):
            self.error = [line.removeprefix(ERROR)]
        elif self.error:
            self.error.append(line)

    def result(self) -> Outcome:
        code = self.process.returncode if self.process else None
        why = self.last if code else ""
        why = shown(self.error[0]) if code and self.error else why
        why = shown(f"policy {self.judged}") if code and self.judged else why
        return Outcome(self.task.student, code, self.seconds, why, self.task.log)


def shown(line: str) -> str:
    """Return ``line`` as far as it is shown: what can't be seen is left out, and it has an end."""
    text = "".join(each for each in line if each.isprintable())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


@contextmanager
def _log(file: Path) -> Iterator[int]:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


class Crew:
    """Runs tasks, at most ``at_once`` at a time, in the order in which they are given."""

    def __init__(self, at_once: int, watch: Watch) -> None:
        self.at_once, self.watch = at_once, watch
        self.stopped = False
        """Whether somebody has asked for an end: what runs then ends its steps, and nothing is begun."""
        self._running: list[_Running] = []

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Run all ``tasks``; return what became of each, in their order."""
        waiting, found = list(tasks), dict[str, Outcome]()
        with self._heard():
            while waiting or self._running:
                while waiting and not self.stopped and len(self._running) < self.at_once:
                    self._begin(waiting.pop(0))
                if self.stopped and waiting:
                    for task in waiting:
                        found[task.student] = Outcome(task.student, None, 0.0, NOT_BEGUN, task.log)
                    waiting = []
                for each in [*self._running]:
                    if result := self._look(each):
                        found[result.student] = result
                        self.watch.ended(result)
                self.watch.tick()
                if self._running:
                    time.sleep(POLL_S)
        return [found[task.student] for task in tasks]

    def _begin(self, task: Task) -> None:
        task.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        task.log.unlink(missing_ok=True)  # of the command before; one of another's mode, too
        made = _Running(task, list(task.commands))
        made.next()
        self._running.append(made)
        self.watch.seen(task.student, made.phase, made.seconds, "")

    def _look(self, at: _Running) -> Outcome | None:
        assert at.process is not None  # noqa: S101 - `_begin` has started it
        code = at.process.poll()
        before = at.phase
        if at.look() or at.phase != before:
            self.watch.seen(at.task.student, at.phase, at.seconds, at.last)
        if code is None:
            return None
        if code == 0 and at.left and not self.stopped:
            at.next()
            self.watch.seen(at.task.student, at.phase, at.seconds, at.last)
            return None
        self._running.remove(at)
        result = at.result()
        if (code == 0 and at.left) or (code and self.stopped):
            # Whatever an engine says that was told to end: "context canceled" is no failure of a lab's.
            return replace(result, code=ui.INTERRUPTED)
        return result

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Pass Ctrl-C and SIGTERM on while the block runs.

        A command that is started where a signal is ignored ignores it too: so both have a handler.
        """
        ignored = {n for n in (signal.SIGINT,) if signal.getsignal(n) is signal.SIG_IGN}

        def told(number: int, _: FrameType | None) -> None:
            if number not in ignored:
                self.stop()

        before = {n: signal.signal(n, told) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Have all that runs end its steps, as Ctrl-C does at a terminal; the second time, at once."""
        self.stopped = True
        for each in self._running:
            if each.process and each.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGINT)
