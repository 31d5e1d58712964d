"""Which checkout of nestlab set this machine up, and what can be said of a lab by what it knows.

Its ``.nestlab`` holds the doctor's verdict, the golden images and the keys of labs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi

from components.contents import RefusedLab
from components.findings import FOLDER
from components.settings import facts_of, is_there, understood
from components.stackfile import later
from components.stackfile.loader import examine
from components.stackfile.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.stackfile import LabSpec
    from components.stackfile.allow import Allowed

ROOT = "NESTLAB_ROOT"
"""Variable that says which, set by every checkout's ``.nestlab/env.sh``."""

KEYS = "NESTLAB_KEYS"
"""Variable with the folder of all keys, set by the same file; see `components.kinds.kvm.install`."""


def checkout_of(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the checkout: the one that is ``given``, or `ROOT`'s, or the one that this code lies in.

    Raises:
        RefusedLab: there is none; the message says what makes one.
    """
    if isinstance(given, pulumi.Output):
        raise RefusedLab([later.refused("checkout")])
    named = os.fspath(given) if given is not None else os.environ.get(ROOT, "")
    by = "checkout" if given is not None else ROOT
    found = Path(named).expanduser().absolute() if named else Path(__file__).resolve().parents[1]
    if (found / FOLDER).is_dir():
        return found
    shown = f"{named!r} given" if named else "nothing given"
    rule = f"a lab needs what `make toolchain host doctor` of a checkout of nestlab found, and {found} has no {FOLDER}"
    remedy = f"run that there, and `. {FOLDER}/env.sh`, or name its folder"
    raise RefusedLab([Problem(by, shown, rule, remedy)])


def keys_of(home: Path) -> Path:
    """Return the folder of all labs' keys, where provider plugins look for them too.

    Raises:
        RefusedLab: the engine, which starts them, was started without `KEYS`; ``home`` has what sets it.
    """
    if named := os.environ.get(KEYS, ""):
        return Path(named)
    rule = "providers of what is in a nested host take its keys from there, and are started by the engine"
    remedy = f"run `. {home}/{FOLDER}/env.sh` in the shell that runs pulumi"
    raise RefusedLab([Problem(KEYS, "nothing given", rule, remedy)])


@dataclass(frozen=True)
class Where:
    """Where a lab finds on this machine what it needs."""

    root: Path
    """The program's folder, from which relative paths of files are meant."""
    home: Path
    """The checkout that set this machine up."""
    private: Path
    """Folder for files of this lab that nobody else may read: one of the checkout's keys."""
    stack: str
    preview: bool
    """Whether media, and the password of a remote host, need not be there."""


@dataclass
class Survey:
    """A lab as far as it is understood, what it depends on, and all that is wrong with either."""

    spec: LabSpec | None
    problems: list[Problem]
    facts: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `components.lab.deploy`."""
    absent: list[str] = field(default_factory=list)
    """Files that are not there."""

    def warn(self) -> None:
        """Tell of what has to be there before `pulumi up`."""
        for path in self.absent:
            pulumi.log.warn(f"{path} is not there; before `pulumi up` it has to be")


def outline(data: object, where: Where, allowed: Allowed) -> Survey:
    """Return what can be said of ``data`` whatever the machine, and quickly."""
    absent: list[str] = []
    there = _there(absent, where)
    return Survey(*examine(data, root=where.root, exists=there, allowed=allowed), absent=absent)


def survey(
    data: object, where: Where, allowed: Allowed, password: pulumi.Output[str] | None
) -> Survey:
    """Return all that can be said of ``data`` on this machine, as `components.settings.load` does."""
    absent: list[str] = []
    spec, problems = understood(data, where.root, allowed, _there(absent, where), where.home)
    found = Survey(spec, problems, absent=absent)
    if spec is not None:
        facts, wrong = facts_of(spec, where.home, where.stack, password, preview=where.preview)
        found.facts = {"root": where.root, "home": where.home, "private": where.private, **facts}
        found.problems += [_at_home(each, where.home) for each in wrong]
    return found


def _there(absent: list[str], where: Where) -> Callable[[str], bool]:
    def there(path: str) -> bool:
        if is_there(path):
            return True
        absent.append(path)
        return where.preview

    return there


def _at_home(problem: Problem, home: Path) -> Problem:
    """Return ``problem`` with the checkout that its command is to run in, where it is about that one."""
    if not problem.path.startswith(f"{FOLDER}/"):
        return problem
    return replace(problem, path=f"{home}/{problem.path}", remedy=f"{problem.remedy} in {home}")
