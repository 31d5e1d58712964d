"""``python3 -m toolchain SUB``: the set-up's own steps, each a module of this package (standard library).

What is about labs is the command `nestlab`, which begins with the first of them.
"""

from __future__ import annotations

import importlib
import os
import sys

from toolchain.bootstrap import paths, ui

COMMANDS = {
    "toolchain": (
        "toolchain.engine.build",
        "find or build the engine, its plugins and the Python environment",
    ),
    "host": ("toolchain.machine.host", "prepare this machine's libvirt"),
    "image": ("toolchain.image.image", "make the golden image of the nested KVM host"),
    "doctor": (
        "toolchain.doctor.command",
        "say whether this machine can run nested labs, and what to mend",
    ),
    "test": ("toolchain.testing", "run the tests, tier by tier"),
    "clean": ("toolchain.clean", "remove what the set-up made (--cache: the shared cache too)"),
}
"""Subcommand -> module with ``main(argv) -> int``."""
OF_LABS = frozenset({"up", "down", "show", "enter", "prove"})
"""Verbs of the command `nestlab` alone."""
PRIVATE = 0o077
"""Our umask: what we write is its user's alone. Tests set what they want themselves."""


def _usage() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "usage: python3 -m toolchain COMMAND [OPTIONS]\n\n" + "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run one set-up command; return the process's exit status (2: wrong usage, 130: Ctrl-C)."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(_usage())
        return 0 if argv else 2
    if argv[0] in OF_LABS:
        command = str(paths.ROOT / "nestlab")
        os.execv(sys.executable, [sys.executable, command, *argv])  # noqa: S606 - no shell is wanted
    if argv[0] not in COMMANDS:
        ui.fail(f"there is no command {argv[0]!r}")
        print(_usage(), file=sys.stderr)
        return 2
    module = COMMANDS[argv[0]][0]
    if argv[0] != "test":
        os.umask(PRIVATE)
    return ui.ended(lambda: _run(module, argv[1:]))


def _run(module: str, words: list[str]) -> int:
    paths.check()
    return int(importlib.import_module(module).main(words))


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - met by whoever starts it with an older python3
        sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    # As for what it starts (`toolchain.engine.environment.INTERPRETER`).
    sys.dont_write_bytecode = False
    sys.exit(main(sys.argv[1:]))
