"""States that an earlier layout of the code made, with the world that they are about, as files of the tests.

A state names its providers by module path, its resources by URN and what they were made from by the
names of properties, so a later layout has to take it as its own. A kept one is encrypted by a passphrase
of the tests; what only the machine that it was made on had (how its server is reached, a folder) is left
out, and is put in anew. ``python3 -m tests.support.kept NAME`` keeps one more of today's; none is ever
made anew. What a name begins with is the world: ``proxmox-v1``, ``vsphere-v1``; ``v1`` is of Xen.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from tests.double.conftest import Project, scratch, shares_loopback
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

STATES = paths.ROOT / "tests" / "cases" / "states"
PASSPHRASE = "kept"
ROOT = "/kept-root"
"""Stands in what is kept for the folder of whoever made it."""
PLAINTEXT = "plaintext"
STATE, WORLD, STACK = "state.json", "world.json", "Pulumi.dev.yaml"
ISO = bytes(0x8001) + b"CD001" + bytes(4096)


@dataclass
class Lab(ABC):
    """A lab whose program and media are below ``folder``, and what it stands on."""

    folder: Path
    running: ExitStack
    """Ends what it stands on."""
    project: Project = field(init=False)
    media: ClassVar[Mapping[str, bytes]]
    """Its files, the same to the last byte each time: labs know them by what is in them."""

    def __post_init__(self) -> None:
        shares_loopback()
        for name, content in self.media.items():
            (self.folder / name).write_bytes(content)
        self.project = scratch(self.folder, PASSPHRASE)
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Start what it stands on, with nothing there, and write its program."""

    @abstractmethod
    def world(self) -> Any:
        """Return what it stands on, as JSON."""

    @abstractmethod
    def have(self, world: Any) -> None:
        """Be what `world` told of."""

    @abstractmethod
    def harm(self) -> None:
        """Switch the guest ``live`` off by hand."""

    @abstractmethod
    def left(self) -> set[str]:
        """What of the lab is there."""

    def marked(self, told: Any) -> Any:
        """Return ``told`` without what only this machine has."""
        return exchanged(told, {str(self.folder): ROOT})

    def own(self, told: Any) -> Any:
        """Return what `marked` did, with what this machine has."""
        return exchanged(told, {ROOT: str(self.folder)})

    def states(self, *words: str) -> Any:
        """Return the state, in clear if ``words`` say so."""
        return json.loads(self.project.pulumi("stack", "export", *words))

    def give(self, told: Any) -> None:
        """Make ``told`` the state."""
        file = self.project.folder / "given.json"
        file.write_text(json.dumps(told))
        self.project.pulumi("stack", "import", "--file", str(file))
        file.unlink()

    def keep(self, to: Path) -> None:
        """Keep its state and its world in the folder ``to``."""
        world = _json(self.marked(self.world()))
        to.mkdir(parents=True)
        (to / WORLD).write_text(world)
        self.give(self.marked(self.states("--show-secrets")))
        told = self.states()
        for each in told["deployment"]["resources"]:
            # Where in whose files it was asked for.
            each.pop("sourcePosition", None)
            each.pop("stackTrace", None)
        (to / STATE).write_text(_json(told))
        (to / STACK).write_text((self.project.folder / STACK).read_text())

    def give_back(self, kept: Path) -> None:
        """Take the state and the world that are kept in the folder ``kept``."""
        self.have(self.own(json.loads((kept / WORLD).read_text())))
        (self.project.folder / STACK).write_text((kept / STACK).read_text())
        self.give(json.loads((kept / STATE).read_text()))
        self.give(self.own(self.states("--show-secrets")))


def make(name: str, folder: Path, running: ExitStack) -> Lab:
    """Return a lab of the kind that the kept state ``name`` is of, with nothing in it."""
    world = name.rpartition("-")[0] or "xen"
    made: Callable[[Path, ExitStack], Lab] = import_module(f"{__name__}.{world}").LAB
    return made(folder, running)


def exchanged(
    told: Any, texts: Mapping[str, str], known: Callable[[Any], Any] = lambda _: None
) -> Any:
    """Return ``told`` with other ``texts`` wherever one is, and what ``known`` has for a part of it."""
    found = known(told)
    if found is not None:
        return found
    if isinstance(told, list):
        return [exchanged(each, texts, known) for each in told]
    if isinstance(told, dict) and PLAINTEXT in told:
        # A secret in clear is JSON in a text.
        inner = exchanged(json.loads(told[PLAINTEXT]), texts, known)
        return {**told, PLAINTEXT: json.dumps(inner)}
    if isinstance(told, dict):
        return {
            exchanged(key, texts, known): exchanged(each, texts, known)
            for key, each in told.items()
        }
    if isinstance(told, str):
        for old, new in texts.items():
            told = told.replace(old, new)
    return told


def _json(told: Any) -> str:
    return json.dumps(told, indent=1, sort_keys=True) + "\n"
