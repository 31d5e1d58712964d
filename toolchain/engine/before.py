"""What the ``pulumi`` wrapper asks before a command: is there something to put right, and what is read.

The engine writes into the stack file that it reads: the salt of its secrets, and all lines anew. So it
is given a copy, and the file in ``stacks/`` stays byte for byte what its owner wrote; the salt is in the
state too, where the engine finds it. ``pulumi config`` alone is meant to write, and gets the file itself.

Started for each deployment, without the packages of the environment: what it imports is what it costs.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.bootstrap import cache, entries, paths, regular, ui
from toolchain.engine import environment, foreign, plugins, stack_file, state, strays
from toolchain.engine.environment import BACKEND, PHRASE_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENGINES = ("meta.yaml", f"stacks/{state.PROJECT}/*", f"locks/*/{state.PROJECT}/*/*.json")
"""What the engine reads in a backend, whatever else it is called."""
STACKS = "stacks"
"""The folder of the stack files, as Pulumi.yaml says."""
PUT_RIGHT = 10
"""Exit status: `toolchain.engine.recover` has to run first."""
SALT = re.compile(rb"^encryptionsalt: .*\n?", re.MULTILINE)
SECRET = re.compile(rb"^ +secure: ", re.MULTILINE)
NOTE = b"""
# A copy of %s, written anew by each command: edit that one.
"""
SHADOW = f"""\
# `pulumi stack init` writes the stack file of the project that it runs in: here it runs in this one.
name: {state.PROJECT}
runtime: python
stackConfigDir: ../{paths.CONFIG.name}
"""


def main(argv: list[str]) -> int:
    """Print what the engine shall read, for pulumi's words after ``--``; nothing: what it finds itself.

    With ``new`` as the first word that is the folder of a project in which `pulumi stack init` does no
    harm, with ``name`` the stack that they are about, else the stack's file. Returns `PUT_RIGHT` when a killed run left something.
    """
    cut = argv.index("--")
    words = argv[cut + 1 :]
    if argv[:cut] == ["new"]:
        if folder := _project(words):
            print(folder)
        return 0
    if argv[:cut] == ["name"]:
        print(state.stack_of(words) or "")
        return 0
    refuse_pipes(os.environ)
    stack = state.stack_of(words)
    _refuse_damage(stack)
    if stack is None:
        return 0
    # An official engine downloads what a program asks for.
    if environment.built_here() and (lacking := plugins.lacking(stack)):
        raise ui.Problem(
            f"the stack {stack} asks for {' and '.join(lacking)}, whose plugin is not there yet.\n"
            f"Run {ui.make('toolchain', stack)}, and the same command again."
        )
    if not state.is_given(words, "--config-file"):
        print(copy(stack))
    backend = state.folder()
    told: Any = None
    if backend and (file := state.file_of(stack, backend)):
        told = foreign.refuse(file)
    elif backend and (paths.ROOT / STACKS / f"Pulumi.{stack}.yaml").is_file():
        # The engine asks whether to make it on a terminal; elsewhere it only says that there is none.
        ui.say(f"the stack {stack} was never made here; `pulumi stack init {stack}` makes it")
    if backend and (left_behind(stack, backend) or _may_have_strays(words, stack, backend, told)):
        return PUT_RIGHT
    return 0


def refuse_pipes(given: Mapping[str, str]) -> None:
    """See to it that the engine waits at none of the files that it reads, with these variables ``given``.

    Raises:
        Problem: one is a pipe, whose reader waits for somebody who writes.
    """
    read = [
        *(Path(given.get(PHRASE_FILE) or paths.PASSPHRASE), *paths.HOME.glob("*.json")),
        *paths.HOME.glob("workspaces/*.json"),
    ]
    if backend := state.folder(given.get(BACKEND, "")):
        read += (each for at in ENGINES for each in backend.glob(at))
    for file in read:
        if regular.waits(file):
            raise ui.Problem(
                f"{file} is a pipe: who reads it waits until somebody writes. Move it elsewhere."
            )


def _may_have_strays(words: Sequence[str], stack: str, backend: Path, told: Any) -> bool:
    """Whether these ``words`` may make or remove something, and stumble over what a failed step left."""
    if state.command_of(words) not in strays.CHANGING or told is None:
        return False
    try:
        return strays.may_be(stack, backend, told["checkpoint"].get("latest") or {})
    except state.DAMAGE:
        return True  # which the recovery looks at more closely


def _refuse_damage(stack: str | None) -> None:
    """Look whether engine, Python environment and what ``stack`` asks for still are what was made in the cache.

    The plugins of other stacks hinder nobody; without a stack only the engine is looked at.

    Raises:
        Problem: one is not, and would end with a signal or a trace, and no word of what to do.
    """
    links = [
        paths.BIN / "pulumi-language-python",
        *(plugins.place(each) for each in (plugins.of(stack) if stack else ())),
    ]
    made = [link.readlink().parent for link in links if link.is_symlink()]
    if paths.VENV.is_symlink():
        # A package that is gone or cut would end in a trace of whatever imports it.
        made.append(paths.VENV.resolve())
    for entry in made:
        if (entry / entries.MANIFEST).exists() and (wrong := entries.damage(entry)):
            raise ui.Problem(
                f"{wrong}.\nRun {ui.make('toolchain', stack or ui.DEFAULT_STACK)}, which makes it again, and"
                " the same command."
            )


def _project(words: Sequence[str]) -> Path | None:
    if not state.is_this_project(state.project_file(words)):
        return None
    # These name other files, which the words are meant to be about.
    if state.is_given(words, "-C", "--cwd", "--copy-config-from", "--remote-config"):
        return None
    for file in (paths.ROOT / STACKS).glob("Pulumi.*.yaml"):
        stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
        if state.NAME.fullmatch(stack):
            copy(stack)
    folder = paths.LOCAL / "project"
    cache.write(folder / "Pulumi.yaml", SHADOW)
    return folder


def copy(stack: str) -> Path:
    """Copy the file of ``stack`` for the engine, and return where it is; none, where there is none.

    A salt in it is left out: it is that of a state, here or elsewhere, and the state here knows its own.
    It stays where somebody put a secret into the file, which can't be read without it.
    """
    name = f"Pulumi.{state.named(stack)}.yaml"
    to = paths.LOCAL / paths.CONFIG.name / name
    try:
        told = stack_file.content(paths.ROOT / STACKS / name)
    except FileNotFoundError:
        to.unlink(missing_ok=True)
        return to
    if not SECRET.search(told):
        told = SALT.sub(b"", told)
    cache.write_bytes(to, told + NOTE % f"{STACKS}/{name}".encode(), 0o600)
    return to


def left_behind(stack: str, backend: Path) -> bool:
    """Whether a lock or an operation that never ended may be there; a cheap look, which errs to yes."""
    if state.locks(stack, backend):
        return True
    file = state.file_of(stack, backend)
    if file is None:
        return False
    raw = regular.read(file, state.LARGEST)
    return raw[:1] != b"{" or b'"pending_operations"' in raw


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ui.Problem, OSError) as problem:
        ui.fail(ui.in_words(problem))
        sys.exit(1)
