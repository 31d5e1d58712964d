"""Taking back what the set-up made: this checkout's folders, and on request the shared cache.

By name, never by place: what else lies in ``.nestlab`` or the cache is somebody's, and stays.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import re
from typing import TYPE_CHECKING

from components.gates import keys
from toolchain.bootstrap import cache, entries, paths, python_env, run, ui
from toolchain.engine import state
from toolchain.engine.environment import BACKEND, backend, environment
from toolchain.image import golden
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ASK_S = 60.0
"""How long another backend may take to list its stacks, seconds."""
HALF_WRITTEN = r"\..+\.\d+"
"""What a kill leaves of a file that was being written (`cache.write`)."""
FINGERPRINT = re.compile(rb"[0-9a-f]{64}")
"""All that is in a file that says what a stack was deployed from (`toolchain.lab`)."""
LOCAL: Mapping[str, tuple[str, ...]] = {
    "locks": (r"(stack|class) .+",),
    "deployed": (HALF_WRITTEN,),
    "bin": (
        "nestlab",
        "pulumi",
        "pulumi-language-python",
        "pulumi-resource-pulumi-python",
        HALF_WRITTEN,
    ),
    "home": (
        *("plugins", "workspaces", "logs", "templates", "templates-policy", "bin", "sdks"),
        *(r"credentials\.json", r"config\.json", r"history\.json", r"\.cachedVersionInfo"),
    ),
    "state": (r"\.pulumi",),
    "config": (r"Pulumi\..+\.yaml", HALF_WRITTEN),
    "project": (r"Pulumi\.yaml", HALF_WRITTEN),
    "media": (
        r"\..+\.iso\.\w{8}",
        r"[a-z]+-[\w.]+-[0-9a-f]+\.iso",
        r"tools-[0-9a-f]{24}\.iso",
        r"sums\.json",
    ),
    "classes": (),
    "snapshots": (r"[\w.-]+\.json", HALF_WRITTEN),
    "screens": (r"[\w.-]+\.png", HALF_WRITTEN),
    "": (
        *(r"env\.sh", "passphrase", r"host\.json", "netns", r"official\.json", r"sums\.json"),
        *(r"golden(-\w+)?\.json", HALF_WRITTEN),
    ),
}
"""What is ours in each folder of ``.nestlab``, and in itself, as regular expressions."""
CLASS: Mapping[str, tuple[str, ...]] = {
    "logs": (r"[a-z0-9-]+\.log",),
    "sheets": (r"([a-z0-9-]+|_class)\.(html|md)", HALF_WRITTEN),
    "": (r"class\.json", HALF_WRITTEN),
}
"""What is ours in each folder of a class, and in itself (`classroom`)."""
STUDENT = b"# Made by `nestlab class`"
"""How a student's stack file begins."""
LOCKS = ("build", "venv", "image")
"""Of the cache: nothing is being made there while they are held."""
SHOWN = 5
"""Names of left-overs that are told."""
ENTRY = re.compile(r"((pulumi|vcsim)[\w.-]*-)?[0-9a-f]{12}")
"""Name of an entry of the cache; what in it is ours says the list in it."""
UNLISTED = (r"pulumi[\w-]*", "vcsim", r"root\.qcow2", "vmlinuz", "initrd")
"""What is in entries that were made before they had a list."""
SHARED: Mapping[str, tuple[str, ...]] = {
    "programs": (r"\.go-(build|modules|path)", r"\.(pulumi|vcsim)[\w.-]*-[0-9a-f]{12}\.making-\w+"),
    "venvs": (),
    "images": (r"\.[0-9a-f]{12}\.making-\w+",),
    "locks": LOCKS,
    "": (),
}
"""What is ours in each folder of the cache."""


def main(argv: list[str]) -> int:
    """Stop what the host set-up started, then remove what is ours here, and in the cache if asked.

    Raises:
        Problem: a lab still stands, whose state is in ``.nestlab``, or it is not known whether.
    """
    parser = argparse.ArgumentParser(prog="clean", description=main.__doc__)
    parser.add_argument(
        "--cache", action="store_true", help="also remove the cache all checkouts share"
    )
    parser.add_argument(
        "--forget", action="store_true", help="remove the state of labs that still stand, too"
    )
    wanted = parser.parse_args(argv)
    if not wanted.forget and (standing := labs_that_stand()):
        away = ", ".join(dict.fromkeys(map(_away, standing)))
        raise ui.Problem(
            f"{', '.join(standing)}: still there, and what it consists of is known only to"
            f" its state and .nestlab, which this would remove.\nTake it down first ({away}), or run"
            " `python3 -m toolchain clean --forget` and remove its guests by hand."
        )
    golden.forget(System())
    importlib.import_module("toolchain.machine.host").stop(argv)
    if python_env.is_ours(paths.VENV):
        cache.remove(paths.VENV)
    for stack in _folders(paths.LOCAL / paths.KEYS.name):
        keys.keys_away(str(stack))
    for marker in _entries(paths.LOCAL / "deployed"):
        if marker.is_file() and FINGERPRINT.fullmatch(marker.read_bytes()):
            marker.unlink()
    _take_classes_away()
    _take_away(paths.LOCAL, LOCAL)
    if wanted.cache and paths.cache().exists():
        _take_cache_away()
    return 0


def _take_classes_away() -> None:
    for each in _folders(paths.LOCAL / "classes"):
        for folder, known in CLASS.items():
            cache.remove_known(each / folder, known)
    for file in (paths.ROOT / "stacks").glob("Pulumi.*.*.yaml"):
        if file.is_file() and file.read_bytes().startswith(STUDENT):
            file.unlink()


def _take_cache_away() -> None:
    with contextlib.ExitStack() as held:
        for lock in LOCKS:
            held.enter_context(cache.locked(lock))
        for name in cache.FOLDERS:
            for entry in _folders(paths.cache() / name):
                if not ENTRY.fullmatch(entry.name) or entry.is_symlink():
                    continue
                listed = (entry / entries.MANIFEST).exists()
                if (entry / "pyvenv.cfg").is_file() and not listed:
                    cache.remove(entry)  # an environment whose making was killed
                else:
                    entries.remove(entry, (*cache.BESIDE, *(() if listed else UNLISTED)))
        _take_away(paths.cache(), SHARED)


def _take_away(place: Path, ours: Mapping[str, Sequence[str]]) -> None:
    """Remove what is ours in ``place``, and say what stays there."""
    for folder, known in ours.items():
        cache.remove_known(place / folder, known)
    if not place.exists():
        ui.say(f"removed {place}")
        return
    found = sorted(place.rglob("*"))
    left = [str(each.relative_to(place)) for each in found if not each.is_dir()] or [
        "empty folders"
    ]
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    ui.say(f"{place} stays, with what nestlab did not make: {', '.join(left[:SHOWN])}{more}")


def labs_that_stand() -> list[str]:
    """Return the stacks that hold something real, in words, and those of which it is not known.

    Asked are this checkout's own backend, and the one in force where that is another.

    Raises:
        Problem: the backend in force does not answer.
    """
    own = state.folder(backend())
    chosen = state.folder(environment()[BACKEND])
    standing = _in_files(sorted((own / "stacks").rglob("*"))) if own else []
    if chosen is None:
        standing += _elsewhere()
    elif chosen != own:
        standing += _in_files(state.files(chosen))
    told = " ".join(standing)
    for folder in _folders(paths.LOCAL / paths.KEYS.name):
        # Of a program that is none of ours: PROJECT~STACK~LAB, see `components.lab.Lab`.
        project, _, stack = folder.name.rpartition("~")[0].partition("~")
        named = _of_program(stack, project) if stack else f"stack {folder.name}"
        if keys.host_files(folder) and f"{named} " not in told:
            standing.append(f"{named} (keys of its hosts are in {folder})")
    return standing


def _of_program(stack: str, project: str) -> str:
    """Return how a stack is told of whose program is none of nestlab's own."""
    return f"stack {stack} of the program {project}"


def _away(standing: str) -> str:
    """Return the command that takes down what `labs_that_stand` told of."""
    words = standing.split()
    if words[2:5] == ["of", "the", "program"]:
        return f"`pulumi destroy --stack {words[1]}` in the folder of {words[5]}"
    return ui.make("down", words[1])


def _in_files(files: Iterable[Path]) -> list[str]:
    standing = []
    for file in files:
        if file.is_dir() or state.is_beside(file):
            continue
        stack, project = state.stack_in(file), file.parent.name
        ours = project in {state.PROJECT, "stacks"}
        named = f"stack {stack}" if ours else _of_program(stack, project)
        try:
            real = len(state.read(file).real)
        except state.Unreadable as wrong:
            standing.append(f"{named} (as far as is known: {wrong})")
            continue
        if real:
            standing.append(f"{named} ({real} resources)")
    return standing


def _elsewhere() -> list[str]:
    """Return the stacks that stand in a backend which only the engine can ask."""
    url = environment()[BACKEND]
    words = [str(paths.BIN / "pulumi"), "stack", "ls", "--json"]
    remedy = (
        f"It is asked whether a lab stands in {url}. Unset {BACKEND} if none does, or run"
        " `python3 -m toolchain clean --forget`."
    )
    told = run.run(words, timeout=ASK_S, remedy=remedy, cwd=paths.ROOT, env=environment())
    # Without a count it is not known to be empty.
    return [
        f"stack {one['name']} ({one.get('resourceCount', 'unknown')} resources)"
        for one in json.loads(told)
        if one.get("resourceCount") != 0
    ]


def _folders(place: Path) -> list[Path]:
    return [each for each in _entries(place) if each.is_dir()]


def _entries(place: Path) -> list[Path]:
    return sorted(place.iterdir()) if place.is_dir() else []
