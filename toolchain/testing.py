"""`make test`: units first, then doubles, then the real host; the first tier that fails ends it.

The host tier needs the machine set up, and sets it up as `make up` does. Tests tell what they need
and are skipped with a reason where it can't be had; with NESTLAB_NO_SKIPS set that is a failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess

from toolchain import build, host, image, packages, paths, ui
from toolchain.doctor import verdict
from toolchain.environment import environment
from toolchain.system import System

TIERS = {
    "unit": ("tests/unit", "tests/policy"),
    "double": ("tests/double",),
    "host": ("tests/host",),
}
PARALLEL = {"unit": ("-n", "auto", "--dist", "loadfile")}
"""Engines and guests are timed by their deadlines, so the other tiers run one test at a time."""
PACKAGES = ("libxml2-utils", "openssh-server")
"""Debian packages that only tests need: libvirt's schemas are checked by xmllint, and the doubles of
remote command lines sit behind a real sshd."""


def main(argv: list[str]) -> int:
    """Run the tiers in order; return pytest's status of the first that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python3 -m toolchain test", description=__doc__)
    parser.add_argument("tiers", nargs="*", choices=[*TIERS, []], help="default: all, in order")
    parser.add_argument("--soak", action="store_true", help="also the tests that take many minutes")
    wanted = parser.parse_args(argv)
    build.main(["--all"])
    _install(System())
    marks = [] if wanted.soak else ["-m", "not soak"]
    for tier in wanted.tiers or TIERS:
        _prepare(tier)
        folders = [folder for folder in TIERS[tier] if (paths.ROOT / folder).is_dir()]
        status = _pytest(*folders, *marks, *PARALLEL.get(tier, ()))
        if status:
            ui.fail(f"the tier {tier} failed; again with: python3 -m toolchain test {tier}")
            return status
    return 0


def _install(system: System) -> None:
    """Install what the tests of every tier need, units too: what is lacking would be skipped."""
    lacking = packages.missing(system, (*packages.NEEDED, *PACKAGES))
    if lacking and system.is_root() and system.which("apt-get"):
        packages.install(system, lacking)
    elif lacking:
        ui.warn(f"tests that need {', '.join(lacking)} are skipped")


def _prepare(tier: str) -> None:
    system = System()
    if tier == "unit":
        return
    try:
        host.main([])
        image.main([])
        if tier == "host":
            image.main(["xen"])
        verdict.ensure(system)
    except ui.Problem as problem:
        if tier == "host":
            raise
        # Doubles need no libvirt; the few that preview the project's own stacks say why they skip.
        ui.warn(str(problem))


def _pytest(*words: str) -> int:
    namespace = host.namespace()
    inside = ["ip", "netns", "exec", namespace] if namespace and os.geteuid() == 0 else []
    command = [*inside, str(paths.VENV / "bin" / "python3"), "-m", "pytest", "-q", *words]
    return subprocess.run(command, cwd=paths.ROOT, env=environment(), check=False).returncode
