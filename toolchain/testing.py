"""`make test`: units first, then doubles, then the real host; the first tier that fails ends it.

The host tier needs the machine set up, and sets it up as `make up` does. Tests tell what they need
and are skipped with a reason where it can't be had; with NESTLAB_NO_SKIPS set that is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

from toolchain.bootstrap import paths, ui
from toolchain.doctor import verdict
from toolchain.engine import build
from toolchain.engine.environment import environment
from toolchain.image import image
from toolchain.machine import host, packages
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIERS = {
    # The longest files first: the last one is waited for by one core.
    "unit": ("tests/policy", "tests/contract", "tests/test_architecture.py", "tests/unit"),
    "double": ("tests/double",),
    "host": ("tests/host",),
}
APART = tuple(
    f"tests/host/test_{name}.py" for name in ("appliances", "lab", "outside", "class", "xen")
)
"""Labs that come and go beside each other, the longest first."""
BY_FILE = ("--dist", "loadscope")
"""How workers are given tests (`tests.conftest`)."""
RUNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "unit": ((*TIERS["unit"], "-n", "auto", "--dist", "loadfile"),),
    "double": ((*TIERS["double"], "-n", "2", *BY_FILE),),
    "host": (
        (*TIERS["host"], *(f"--ignore={each}" for each in APART)),
        (*APART, "-n", "3", *BY_FILE, "--no-loadscope-reorder"),
    ),
}
"""What pytest is called with, tier by tier. Doubles have engines and stand-ins of their own, labs machines of
their own: two at a time, as the doubles' deadlines bear on two cores, and three labs, as a lab waits a sixth of its
time and its deadlines are minutes. What stops libvirtd, kills, or looks at all
that a machine has, is alone."""
SOAK = "NESTLAB_SOAK"
"""Variable by which those tests know that they are meant that fetch a whole product of somebody's."""
PACKAGES = ("libxml2-utils", "openssh-server")
"""Debian packages that only tests need: libvirt's schemas are checked by xmllint, and the doubles of
remote command lines sit behind a real sshd."""


IN_MEMORY = ("unit", "double")
"""Tiers whose files go with them: thousands of small ones, of which half the time was the disk's."""
MOUNT = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'mount -t tmpfs -o mode=1777 nestlab-tests "$0" && exec "$@"',
)
"""Runs a command with a folder in memory, which others don't see and which ends with it."""
BEHIND = 10
"""How much nicer than the tests that run is who makes what the later ones need."""


def main(argv: list[str]) -> int:
    """Run the tiers in order; return pytest's status of the first that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python3 -m toolchain test", description=__doc__)
    parser.add_argument("tiers", nargs="*", choices=[*TIERS, []], help="default: all, in order")
    parser.add_argument("--soak", action="store_true", help="also the tests that take many minutes")
    wanted = parser.parse_args(argv)
    tiers = wanted.tiers or list(TIERS)
    # Units need the Python environment alone, and what they preview.
    build.main([] if tiers[0] == "unit" else ["--all"])
    _install(System())
    marks = [] if wanted.soak else ["-m", "not soak"]
    for number, tier in enumerate(tiers):
        _prepare(tier, soak=wanted.soak)
        later = tiers[number + 1 :] if tier == "unit" else []
        with _ahead(later, soak=wanted.soak), _place(tier) as place:
            for words in RUNS[tier]:
                if status := _pytest(*words, *marks, soak=wanted.soak, place=place):
                    ui.fail(f"the tier {tier} failed; again with: python3 -m toolchain test {tier}")
                    return status
    return 0


@contextlib.contextmanager
def _ahead(tiers: Sequence[str], *, soak: bool) -> Iterator[None]:
    """Make what ``tiers`` need meanwhile: images are unpacked by one processor, and wait for mirrors.

    Without a word: whoever needs it makes what is still lacking, and says what went wrong.
    """
    if not tiers:
        yield
        return
    maker = multiprocessing.get_context("fork").Process(target=_make, args=(tiers, soak))
    maker.start()
    try:
        yield
        if maker.is_alive():
            with ui.step("plugins and images of the later tests"):
                maker.join()
    finally:
        # With what it runs: compilers and package tools.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(maker.pid or 0, signal.SIGTERM)
        maker.join()


def _make(tiers: Sequence[str], soak: bool) -> None:
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.nice(BEHIND)
    for tier in tiers:
        _prepare(tier, soak=soak)


@contextlib.contextmanager
def _place(tier: str) -> Iterator[str]:
    """Give a folder to be mounted over for the files of ``tier``; none, where they belong on the disk."""
    if tier not in IN_MEMORY or os.geteuid() != 0:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="nestlab-") as folder:
        tried = subprocess.run([*MOUNT, folder, "true"], capture_output=True, check=False)
        yield folder if tried.returncode == 0 else ""


def _install(system: System) -> None:
    """Install what the tests of every tier need, units too: what is lacking would be skipped."""
    lacking = packages.missing(system, (*packages.NEEDED, *PACKAGES))
    if lacking and system.is_root() and system.which("apt-get"):
        packages.install(system, lacking)
    elif lacking:
        ui.warn(f"tests that need {', '.join(lacking)} are skipped")


def _prepare(tier: str, *, soak: bool) -> None:
    system = System()
    if tier == "unit":
        return
    build.main(["--all"])
    try:
        host.main([])
        image.main([])
        if tier == "host":
            image.main(["xen"])
            _ready(soak=soak)
        verdict.ensure(system)
    except ui.Problem as problem:
        if tier == "host":
            raise
        # Doubles need no libvirt; the few that preview the project's own stacks say why they skip.
        ui.warn(str(problem))


def _ready(*, soak: bool) -> None:
    """Have made what tests unpack from packages: in the namespace no mirror is reached."""
    told = environment() | ({SOAK: "1"} if soak else {})
    command = [str(paths.VENV / "bin" / "python3"), "-m", "tests.support.ready"]
    subprocess.run(command, cwd=paths.ROOT, env=told, check=True)


def _pytest(*words: str, soak: bool, place: str) -> int:
    namespace = host.namespace()
    inside = ["ip", "netns", "exec", namespace] if namespace and os.geteuid() == 0 else []
    command = [*inside, str(paths.VENV / "bin" / "python3"), "-m", "pytest", "-q", *words]
    told = environment() | ({SOAK: "1"} if soak else {})
    if place:
        command, told = [*MOUNT, place, *command], told | {"TMPDIR": place}
    return subprocess.run(command, cwd=paths.ROOT, env=told, check=False).returncode
