"""How the set-up commands speak: one line per step with its seconds, one message per problem.

Everything goes to standard error, so that what a command answers can be piped. Colour and the
moving line appear on a terminal only; in a log each long step leaves a few plain lines.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SET_UP = frozenset({"toolchain", "host"})
"""Targets of `make` that the command `nestlab` has no verb for: it does what they do by itself."""
DEFAULT_STACK = "local"
"""What `make` means where no ``STACK=`` is given, as the Makefile says."""
QUIET_S = 1.0
"""Steps that end sooner leave no line: a second run of a command is silent."""
HEARTBEAT_S = 20.0
"""In a log (no terminal), a running step reports its seconds this often."""


class Problem(Exception):
    """Something the user can mend: printed without a traceback, exit status 1.

    The message says what was found, the rule with its reason, and what to do.
    """


HINTS = {
    errno.ENOSPC: "Free some space there, and run the same command again.",
    errno.EDQUOT: "Your quota there is used up: free some space, and run the same command again.",
    errno.EROFS: "It is on a file system that is mounted read-only, and nestlab keeps files in its checkout"
    " (.nestlab) and in a cache (NESTLAB_CACHE or XDG_CACHE_HOME lead elsewhere).",
    errno.EACCES: "You may not write or read there: change its owner or mode, or have nestlab keep its"
    " cache elsewhere (NESTLAB_CACHE or XDG_CACHE_HOME).",
    errno.EIO: "The disk fails; the kernel's log (`dmesg`) says more.",
}
HINTS[errno.EPERM] = HINTS[errno.EACCES]
INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""


def ended(work: Callable[[], int]) -> int:
    """Return the exit status of ``work``; what it could not do is printed here, and nowhere else."""
    try:
        return work()
    except KeyboardInterrupt:
        say("\nstopped; the same command carries on from here")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Problem, Refused, OSError) as problem:
        fail(in_words(problem))
        return 1


def in_words(trouble: Exception) -> str:
    """Return what a user reads about a `Problem`, or about what the system refused."""
    if not isinstance(trouble, OSError):
        return str(trouble)
    files = [str(each) for each in (trouble.filename, trouble.filename2) if each]
    what = f"{' and '.join(files)}: " if files else ""
    hint = HINTS.get(trouble.errno or 0, "")
    return f"{what}{trouble.strerror or trouble}" + (f".\n{hint}" if hint else "")


def _terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _paint(text: str, code: str) -> str:
    coloured = _terminal() and "NO_COLOR" not in os.environ
    return f"\033[{code}m{text}\033[0m" if coloured else text


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line of information."""
    _print(text)


_spoken = "make"
"""The command that messages name: `make`, or the one that the user has called."""


def speak(command: str) -> None:
    """Have messages name ``command``'s verbs, for somebody who did not come by `make`."""
    global _spoken  # noqa: PLW0603 - one process is one command
    _spoken = command


def make(target: str, stack: str, *more: str) -> str:
    """Return the command for ``stack`` as a message prints it: it works as it stands.

    ``more`` is said as `make` takes it: ``NAME=kvm1``, or a switch as ``LOSE=1``.
    """
    chosen = stack != DEFAULT_STACK
    # What is the set-up's own is a target alone.
    if _spoken == "make" or target in SET_UP:
        words = [f"STACK={shlex.quote(stack)}"] if chosen else []
        return f"`{' '.join(['make', target, *words, *more])}`"
    words = ["-s", shlex.quote(stack)] if chosen else []
    for each in more:
        name, _, value = each.partition("=")
        words.append(f"--{name.lower()}" if value == "1" else value)
    return f"`{' '.join([_program(), target, *words])}`"


def _program() -> str:
    """Return how the user calls the command from where they are."""
    here = Path(__file__).resolve().parents[2] / _spoken
    found = shutil.which(_spoken)
    if found and Path(found).resolve() == here:
        return _spoken
    path = os.path.relpath(here)
    return shlex.quote(path if "/" in path else f"./{path}")


def warn(text: str) -> None:
    """Print something the user should know although the command carries on."""
    _print(f"{_paint('warning:', '33')} {text}")


def fail(text: str) -> None:
    """Print a problem's text the way every nestlab command prints it."""
    _print(f"{_paint('error:', '31')} {text}")


class Step:
    """A running step; ``note`` replaces the detail shown beside its elapsed seconds."""

    def __init__(self, text: str, detail: str) -> None:
        self.text = text
        self.detail = detail
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began

    def note(self, detail: str) -> None:
        """Replace the detail, for example the name of the file being fetched."""
        self.detail = detail

    def line(self, state: str) -> str:
        """Return the step as one line: what, how long so far, and the detail if any."""
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{self.text} {state} {self.seconds:.0f} s{detail}"


def _follow(step: Step, done: threading.Event) -> None:
    if _terminal():
        while not done.wait(0.2):
            if step.seconds >= QUIET_S:
                sys.stderr.write(f"\r\033[K{step.line('...')}")
                sys.stderr.flush()
        return
    if done.wait(QUIET_S):
        return
    _print(step.line("..."))
    while not done.wait(HEARTBEAT_S):
        _print(step.line("..."))


@contextmanager
def step(text: str, detail: str = "") -> Iterator[Step]:
    """Show ``text`` with its elapsed seconds while the block runs.

    ``detail`` says how long it may take or what is being worked on. A step shorter than
    ``QUIET_S`` seconds prints nothing. A failing step leaves its last line in place.
    """
    running = Step(text, detail)
    done = threading.Event()
    follower = threading.Thread(target=_follow, args=(running, done), daemon=True)
    follower.start()
    state = "stopped after"
    try:
        yield running
        state = "done in"
        running.detail = ""
    finally:
        done.set()
        follower.join()
        if running.seconds >= QUIET_S:
            clear = "\r\033[K" if _terminal() else ""
            _print(clear + running.line(state))
