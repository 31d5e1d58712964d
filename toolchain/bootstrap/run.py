"""Running other programs: always with a deadline, and with a readable word when they fail."""

from __future__ import annotations

import shlex
import subprocess
from os import PathLike, fspath
from typing import TYPE_CHECKING

from toolchain.bootstrap.ui import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_LINES = 12
"""Lines of a failed command's own words that are shown; the cause is nearly always among the last."""


def _words(command: Sequence[str | PathLike[str]]) -> str:
    return shlex.join(fspath(word) for word in command)


def tail(text: str) -> str:
    """Return the last lines of a command's output, indented."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-SHOWN_LINES:])


def run(
    command: Sequence[str | PathLike[str]],
    *,
    timeout: float,
    remedy: str = "",
    cwd: str | PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Run ``command`` and return its standard output.

    ``timeout`` is in seconds; ``remedy`` is what the user can do when the command fails. The
    command's own process group is not changed, so Ctrl-C reaches it.

    Raises:
        Problem: it is not installed, took too long, or failed; with its last lines of output.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
            env=env,
        )
    except FileNotFoundError as missing:
        name = missing.filename or command[0]
        raise Problem(
            _join(f"{name} is not there; it is needed for: {_words(command)}", remedy)
        ) from None
    except subprocess.TimeoutExpired as late:
        said = tail(_text(late.stderr) or _text(late.stdout))
        text = f"{_words(command)} did not end within {timeout:.0f} s"
        raise Problem(_join(f"{text}\n{said}" if said else text, remedy)) from None
    if done.returncode:
        said = tail(done.stderr or done.stdout)
        text = f"{_words(command)} failed with status {done.returncode}"
        raise Problem(_join(f"{text}:\n{said}" if said else text, remedy))
    return done.stdout


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _join(text: str, remedy: str) -> str:
    return f"{text}\n{remedy}" if remedy else text
