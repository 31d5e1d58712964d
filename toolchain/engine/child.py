"""Running the engine as a child: whoever is told to end passes that on, and the engine ends its steps.

A terminal tells all of its group; `make` and a service manager tell their own child alone. Killed
itself, such a parent leaves the engine at work: the next command waits for one that says `ATTENDED`
of itself instead of ending at its lock (`toolchain.engine.recover`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType

ATTENDED = "NESTLAB_ATTENDED"
"""Variable of an engine that somebody else was started for: it may outlive that one."""
_cut = False


def was_cut() -> bool:
    """Return whether somebody told the last engine that `run` ran to end."""
    return _cut


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdout: IO[str] | None = None,
) -> int:
    """Run the engine by ``command``, in ``cwd`` or here, to its end, and return its status.

    What it prints goes to ``stdout``, or where ours does.

    SIGTERM becomes its SIGINT, at which it ends its steps. So does a SIGINT that comes before it is
    there; later ones it is given by the terminal that sent them.
    """
    global _cut  # noqa: PLW0603 - one process runs one engine at a time
    engine: subprocess.Popen[bytes] | None = None
    early = _cut = False

    def told(number: int, _: FrameType | None) -> None:
        nonlocal early
        global _cut  # noqa: PLW0603 - likewise
        _cut = True
        if engine is None:
            early = True
        elif number == signal.SIGTERM:
            engine.send_signal(signal.SIGINT)

    # What is ignored, as by a job in the background, is meant to be.
    ours = [each for each in (signal.SIGTERM, signal.SIGINT) if _is_heard(each)]
    before = {number: signal.signal(number, told) for number in ours}
    try:
        given = {**env, ATTENDED: "yes"}
        with subprocess.Popen(command, cwd=cwd, env=given, stdout=stdout) as engine:
            # Set by a signal in the middle of the line above, which a plain handler would end there.
            if early:
                engine.send_signal(signal.SIGINT)
            return engine.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_heard(number: signal.Signals) -> bool:
    return signal.getsignal(number) not in {signal.SIG_IGN, None}


def destroy(engine: str, stack: str, words: Sequence[str]) -> int:
    """Run ``engine`` with these ``words``, a destroy, and remove the state of ``stack`` when it is empty."""
    status = run([engine, *words], env=os.environ)
    if status == 0:
        rest = ("stack", "rm", "--yes", "--preserve-config", "--stack", stack)
        status = run([engine, "-C", str(paths.ROOT), *rest], env=os.environ)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(destroy(sys.argv[1], sys.argv[2], sys.argv[3:]))
