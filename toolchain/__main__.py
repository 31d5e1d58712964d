"""``python3 -m toolchain SUB``: the set-up commands the Makefile calls, each a module of this package."""

from __future__ import annotations

import importlib
import os
import sys

from toolchain import paths, ui

COMMANDS = {
    "toolchain": (
        "toolchain.build",
        "find or build the engine, its plugins and the Python environment",
    ),
    "host": ("toolchain.host", "prepare this machine's libvirt"),
    "image": ("toolchain.image", "make the golden image of the nested KVM host"),
    "doctor": (
        "toolchain.doctor.command",
        "say whether this machine can run nested labs, and what to mend",
    ),
    "up": ("toolchain.lab", "bring the lab up"),
    "down": ("toolchain.lab", "take the lab down"),
    "show": ("toolchain.lab", "print the connection sheet"),
    "enter": ("toolchain.lab", "open a shell on a machine of the lab"),
    "test": ("toolchain.testing", "run the tests, tier by tier"),
    "clean": ("toolchain.clean", "remove what the set-up made (--cache: the shared cache too)"),
}
"""Subcommand -> module with ``main(argv) -> int``. Modules of several commands get the name first."""
SHARED = frozenset({"toolchain.lab"})
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
    if argv[0] not in COMMANDS:
        ui.fail(f"there is no command {argv[0]!r}")
        print(_usage(), file=sys.stderr)
        return 2
    module = COMMANDS[argv[0]][0]
    if argv[0] != "test":
        os.umask(PRIVATE)
    try:
        paths.check()
        entry = importlib.import_module(module).main
        return int(entry(argv if module in SHARED else argv[1:]))
    except KeyboardInterrupt:
        ui.say("\nstopped; the same command carries on from here")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ui.Problem, OSError) as problem:
        ui.fail(ui.in_words(problem))
        return 1


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - met by whoever starts it with an older python3
        sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    sys.exit(main(sys.argv[1:]))
