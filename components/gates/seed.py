"""The seed of a nested host from a golden image, or of a guest: a disc with a few files, some of them secret.

A file of this machine that its owner alone may read, made here and not by pulumi-libvirt's CloudInitDisk:
that one gives its volume the mode 0644 and takes no other.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Named, Secret, Unasked
from components.gates.medium import forget, lies_there, private_disc
from components.media import iso
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    import pulumi
    from pulumi.dynamic import DiffResult


@dataclass(frozen=True, kw_only=True)
class Seed(Named):
    """Properties of a seed."""

    label: str
    """What the disc is called."""
    files: Secret[dict[str, str]]
    """Texts by absolute path."""
    private: str
    """Folder in which it is made."""
    mark: Unasked[str] = ""
    """What tells the content from that of others, where a preview says that it will be another."""
    changed: Unasked[str] = ""
    """What is said then."""
    disc: Made[str] = None
    size: Made[int] = None
    """Bytes."""
    sha256: Made[str] = None


class SeedDiscProvider(Gate[Seed]):
    """Makes the disc, and makes it again when it is gone."""

    shape = Seed

    @override
    def look(self, props: Seed) -> Seen:
        return lies_there(props.disc)

    @override
    def mend(self, olds: Seed | None, news: Seed) -> Seed:
        files = {name: text.encode() for name, text in news.files.items()}

        def make(disc: Path) -> None:
            iso.make(files, news.label, disc)

        made = private_disc(files, news.private, ".iso", make, olds.disc if olds else None)
        content = Path(made).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        return replace(news, disc=made, size=len(content), sha256=sha256)

    @override
    def compare(self, olds: Seed, news: Seed) -> DiffResult:
        if olds.mark != news.mark:
            say(f"{olds.name}: {news.changed}")
        return super().compare(olds, news)

    @override
    def retire(self, props: Seed) -> None:
        forget(props.disc)
        if props.mark:  # of a guest, whose folder has nothing more
            with contextlib.suppress(OSError):
                Path(props.private).rmdir()


class SeedDisc(BorderResource, module="nestlab", name="SeedDisc"):
    """A disc with a few files."""

    disc: pulumi.Output[str]
    """The disc, a file of this machine; another content has another path."""
    size: pulumi.Output[int]
    """Bytes."""
    sha256: pulumi.Output[str]

    def __init__(self, name: str, props: Seed, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(SeedDiscProvider(), name, props, opts)
