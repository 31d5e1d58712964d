"""From a bare Python to the command `nestlab`: the environment is made ready, then its packages are used.

All of the command but this may use what is in the environment. What has to work without one (`doctor`
looks at a machine that can have none yet, `clean` takes it away) is the set-up's own.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from toolchain import __main__ as setup
from toolchain.bootstrap import paths, python_env, ui

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT = frozenset({"doctor", "clean"})
"""Verbs that no environment is made for."""
OTHERS = ("site-packages", "dist-packages")
"""Folders of packages that this Python has by itself."""


def main(argv: list[str]) -> int:
    """Run the command with ``argv``; return its exit status."""
    return ui.ended(lambda: _run(argv))


def _run(argv: list[str]) -> int:
    before = os.umask(setup.PRIVATE)
    paths.check()
    if argv and argv[0] in WITHOUT and not python_env.ready():
        return setup.main(argv)
    _use(python_env.ensure())
    # What was made is its user's alone; tests, and what people start, get the mode they are used to.
    os.umask(before)
    # In the same process: a second Python, and the same modules again, would be a fifth of a second.
    return int(importlib.import_module("cli.app").main(argv))


def _use(environment: Path) -> None:
    """Let this Python, by which ``environment`` was made, find its packages, ahead of its own others'."""
    packages = str(next((environment / "lib").glob("python*/site-packages")))
    if packages not in sys.path:
        at = [number for number, path in enumerate(sys.path) if path.endswith(OTHERS)]
        sys.path.insert(min(at, default=len(sys.path)), packages)
