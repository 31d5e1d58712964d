"""What a class was given, and keeps: each student's subnets and node, kept beside the labs' states.

Written before anything is made for a student, and forgotten only when that student's lab is gone: so the
roster may change in any way, and nobody's lab moves.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, paths, regular, ui

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 1
FOLDER = "classes"
FILE = "class.json"


@dataclass
class Given:
    """What one student has."""

    name: str = ""
    subnets: dict[str, str] = field(default_factory=dict)
    """By the network's name in the template."""
    node: str = ""
    """Of a cluster; empty where the outer host is none."""
    left: bool = False
    """Whether the roster has the student no more."""
    spent: float = 0.0
    """What labs of the student that are gone have used: GiB of memory times hours."""
    lab: dict[str, int] = field(default_factory=dict)
    """Size of the lab on its outer host when it was last planned: memory_mib, disk_gib, cores."""
    until: str = ""
    """Last day of the lab, as in the roster."""
    budget: float | None = None


@dataclass
class Register:
    """A class as it was last planned."""

    name: str
    roster: str = ""
    """Full path of its roster."""
    template: str = ""
    subnets: str = ""
    price: float | None = None
    hand_in: str = ""
    students: dict[str, Given] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the class's logs and sheets are."""
        return folder(self.name)

    def stack(self, student: str) -> str:
        """Return the stack of a student."""
        return f"{self.name}.{student}"

    def lab(self, student: str) -> str:
        """Return the name of a student's lab."""
        return f"{self.name}-{student}"

    def taken(self) -> Iterator[IPv4Network]:
        """Yield every subnet that somebody has."""
        for given in self.students.values():
            yield from map(IPv4Network, given.subnets.values())

    def write(self) -> None:
        """Keep it; the old one stays until the new one is whole."""
        made = self.folder
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = json.dumps({"version": VERSION, **asdict(self)}, indent=1)
        cache.write(made / FILE, f"{told}\n", 0o600)


def folder(name: str) -> Path:
    """Return the folder of the class called ``name``, whether it is there or not."""
    return paths.LOCAL / FOLDER / name


def known() -> list[str]:
    """Return the names of the classes of this checkout."""
    return sorted(file.parent.name for file in (paths.LOCAL / FOLDER).glob(f"*/{FILE}"))


def read(name: str) -> Register:
    """Return what the class ``name`` was given; an empty one where there is none yet.

    Raises:
        Problem: what is there can't be read. It is never taken for empty: labs may stand.
    """
    file = folder(name) / FILE
    try:
        told = json.loads(regular.text(file))
        students = {id_: Given(**each) for id_, each in told.pop("students").items()}
        made = {VERSION: Register}[told.pop("version")](**told, students=students)
        list(made.taken())
    except FileNotFoundError:
        return Register(name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as wrong:
        raise ui.Problem(
            f"{file} can't be read ({wrong}), and says which subnets the labs of the class {name} have.\n"
            f"Put back a copy of it; or take each lab down (`nestlab down -s {name}.STUDENT`) and remove it."
        ) from None
    return made


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Let one command at a time work on the class ``name``."""
    with cache.locked(f"class {name}", paths.LOCAL / "locks"):
        yield
