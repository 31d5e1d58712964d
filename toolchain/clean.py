"""Taking back what the set-up made: this checkout's folders, and on request the shared cache."""

from __future__ import annotations

import argparse
import importlib
import json

from toolchain import cache, golden, paths, ui
from toolchain.system import System


def main(argv: list[str]) -> int:
    """Stop what the host set-up started, then remove ``.nestlab``, ``.venv``, and the cache if asked.

    Raises:
        Problem: a lab still stands, whose state is in ``.nestlab``.
    """
    parser = argparse.ArgumentParser(prog="clean", description=main.__doc__)
    parser.add_argument(
        "--cache", action="store_true", help="also remove the cache all checkouts share"
    )
    parser.add_argument(
        "--forget", action="store_true", help="remove the state of labs that still stand, too"
    )
    wanted = parser.parse_args(argv)
    if (standing := labs_that_stand()) and not wanted.forget:
        raise ui.Problem(
            f"{', '.join(standing)}: still there, and what it consists of is known only to"
            " .nestlab/state, which this would remove.\nTake it down first (`make down`), or run"
            " `python3 -m toolchain clean --forget` and remove its guests by hand."
        )
    golden.forget(System())
    importlib.import_module("toolchain.host").stop(argv)
    for what in (paths.LOCAL, paths.VENV):
        cache.remove(what)
    if wanted.cache:
        with cache.locked("build"):
            cache.remove(paths.cache())
    gone = f".nestlab, .venv and {paths.cache()}" if wanted.cache else ".nestlab and .venv"
    ui.say(f"removed {gone}")
    return 0


def labs_that_stand() -> list[str]:
    """Return the stacks in this checkout's file backend that still hold something real."""
    standing = []
    for file in sorted((paths.STATE / ".pulumi" / "stacks").glob("**/*.json")):
        try:
            latest = json.loads(file.read_text())["checkpoint"]["latest"] or {}
        except (ValueError, KeyError):
            continue  # not a stack: history and locks lie elsewhere, this is somebody's own file
        real = [
            resource
            for resource in latest.get("resources") or []
            if resource.get("custom") and not resource["type"].startswith("pulumi:providers:")
        ]
        if real:
            standing.append(f"stack {file.stem} ({len(real)} resources)")
    return standing
