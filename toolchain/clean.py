"""Taking back what the set-up made: this checkout's folders, and on request the shared cache."""

from __future__ import annotations

import argparse
import importlib

from toolchain import cache, paths, ui


def main(argv: list[str]) -> int:
    """Stop what the host set-up started, then remove ``.nestlab``, ``.venv``, and the cache if asked."""
    parser = argparse.ArgumentParser(prog="clean", description=main.__doc__)
    parser.add_argument("--cache", action="store_true", help="also remove the cache all checkouts share")
    wanted = parser.parse_args(argv)
    importlib.import_module("toolchain.host").stop(argv)
    for what in (paths.LOCAL, paths.VENV):
        cache.remove(what)
    if wanted.cache:
        with cache.locked("build"):
            cache.remove(paths.cache())
    ui.say("removed " + (f".nestlab, .venv and {paths.cache()}" if wanted.cache else ".nestlab and .venv"))
    return 0
