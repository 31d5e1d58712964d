"""What is done to one kind of installer so that it asks nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.media.iso import TEXT, Iso, WrongMedium
from components.media.recognise import what

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Edits:
    """Changes to an installer; none of them is secret or belongs to one machine."""

    changes: Mapping[str, bytes] = field(default_factory=dict)
    removes: tuple[str, ...] = ()
    uefi_image: str | None = None


@dataclass(frozen=True)
class Remaster:
    """How the installer of one kind is known, and made unattended."""

    version: int
    """Raised with each change of `edits`: what was made before is then made anew."""
    check: Callable[[Iso], None]
    """Raises `WrongMedium` for another medium."""
    edits: Callable[[Iso], Edits]
    """Of a medium that passed `check`."""
    stick: bool = False
    """Whether it reads its answers from a USB stick instead of a CD."""


def other(iso: Iso, wanted: str, remedy: str) -> WrongMedium:
    """Return the refusal of a medium that is something else."""
    return WrongMedium(f"{iso.path} is {what(iso)}", wanted, remedy)


def text(iso: Iso, name: str) -> str | None:
    """Return a text file of the medium, None where it is not there."""
    found = iso.find(name)
    return None if found is None else iso.read(found, TEXT).decode("utf-8", "surrogateescape")
