"""The discs a nested hypervisor is installed from: its maker's, made to ask nothing, and its answers.

The installer's disc holds no secret and is made once for all labs of a checkout; so is the tools',
with files of the user's that are no ISO by themselves: a maker's installation program. The answers
are one machine's: name, address, keys, a hashed password; they lie where nobody else may read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from components import kinds
from components.gates.base import BorderResource, Gate, Made, Named, Secret
from components.gates.codec import has_unknown
from components.media import fat, iso, sums
from components.media.answers import Answers, Told
from components.media.unattended import ON_STICK, remaster_of, unattended
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pulumi


@dataclass(frozen=True, kw_only=True)
class Discs(Named):
    """Properties of the discs of one machine."""

    kind: str
    """Of the machine, with "-usb" where its answers come on a stick."""
    recipe: str
    """Its kind, whose ``media`` says what the answers are."""
    iso: str
    """What it is installed from; empty for a machine that is cloned from an image."""
    answers: Secret[Told]
    tools: dict[str, str] = field(default_factory=dict)
    """Files on one more disc, paths by their names there."""
    media: str
    """Folder for discs without secrets, one for all labs of a checkout."""
    private: str
    """Folder for the answers, which nobody else may read."""
    installer: Made[str] = None
    tools_disc: Made[str] = None
    disc: Made[str] = None


class _Recipe(Protocol):
    """What the ``media`` of a kind has; the last two where it takes tools."""

    LABEL: str
    TOOLS_LABEL: str

    def files(self, answers: Answers) -> dict[str, bytes]: ...

    def check_tool(self, path: Path) -> None: ...


class InstallMediumProvider(Gate[Discs]):
    """Makes the discs, and makes them again when they are gone."""

    shape = Discs

    @override
    def problems(self, news: Discs) -> Iterable[tuple[str, str]]:
        try:
            # In a preview the medium need not be there; `components.settings` refuses before an up.
            if news.iso and Path(news.iso).is_file():
                remaster_of(news.kind).check(iso.Iso(Path(news.iso)))
            for path in _tools(news).values():
                if path.is_file():
                    _recipe(news).check_tool(path)
            if not has_unknown(news.answers):
                _files(news)
        except (iso.WrongMedium, iso.NotMade, ValueError) as wrong:
            yield "iso", str(wrong)

    @override
    def look(self, props: Discs) -> Seen:
        return lies_there(props.installer, props.tools_disc, props.disc)

    @override
    def mend(self, olds: Discs | None, news: Discs) -> Discs:
        first = ""
        if news.iso:
            first = str(unattended(news.kind, Path(news.iso), Path(news.media)))
        files, label = _files(news), _recipe(news).LABEL
        stick = news.kind.endswith(ON_STICK)

        def make(disc: Path) -> None:
            (fat.make if stick else iso.make)(files, label, disc)

        ending = ".img" if stick else ".iso"
        disc = private_disc(files, news.private, ending, make, olds.disc if olds else None)
        return replace(news, installer=first, tools_disc=_tools_disc(news), disc=disc)

    @override
    def retire(self, props: Discs) -> None:
        forget(props.disc)


def lies_there(*paths: str | None) -> Seen:
    """Look whether those of ``paths`` that are told are files."""
    for path in filter(None, paths):
        if not Path(path).is_file():
            return Seen(ok=False, text=f"{path} is not there any more")
    return Seen(ok=True, text="there")


def private_disc(
    files: Mapping[str, bytes],
    folder: str,
    ending: str,
    make: Callable[[Path], None],
    old: str | None,
) -> str:
    """Have ``make`` write a disc with ``files`` in ``folder``, where nobody else may read; return its path.

    Another content has another name, so that whoever has a copy takes a new one; ``old``, the one before, goes.
    """
    told = hashlib.sha256()
    for name, content in sorted(files.items()):
        told.update(f"{name}\0{len(content)}\0".encode() + content)
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    disc = Path(folder, f"answers-{told.hexdigest()[:12]}{ending}")
    make(disc)
    if old != str(disc):
        forget(old)
    return str(disc)


def forget(disc: str | None) -> None:
    """Remove a disc that was made, if one was."""
    if disc:
        Path(disc).unlink(missing_ok=True)


def _files(props: Discs) -> dict[str, bytes]:
    return _recipe(props).files(Answers(**vars(props.answers)))


def _tools(props: Discs) -> dict[str, Path]:
    """Return the files of the tools' disc by their names there."""
    return {name: Path(path) for name, path in sorted(props.tools.items())}


def _tools_disc(props: Discs) -> str:
    """Return the disc with the user's files, made now if it is not there; empty without any."""
    tools, cache = _tools(props), Path(props.media)
    if not tools:
        return ""
    cache.mkdir(parents=True, exist_ok=True)
    digests = sums.sha256(tools.values(), cache / "sums.json")
    told = hashlib.sha256()
    for name, path in tools.items():
        told.update(f"{name}\0{digests[path]}\0".encode())
    disc = cache / f"tools-{told.hexdigest()[:24]}.iso"
    if not disc.is_file():
        say(
            f"{', '.join(path.name for path in tools.values())}: put onto a CD, once on this machine"
        )
        iso.make(
            {f"/{name}": path for name, path in tools.items()}, _recipe(props).TOOLS_LABEL, disc
        )
    return str(disc)


def _recipe(props: Discs) -> _Recipe:
    made: _Recipe = kinds.part(props.recipe, "media")
    return made


class InstallMedium(BorderResource, module="nestlab", name="InstallMedium"):
    """The discs of one machine, files of this machine."""

    installer: pulumi.Output[str]
    """The installer's disc; empty for a machine that is cloned from an image."""
    tools_disc: pulumi.Output[str]
    """The disc with the user's own files; empty without any."""
    disc: pulumi.Output[str]
    """The disc with its answers, or the USB stick's image; another content has another path."""

    def __init__(self, name: str, props: Discs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(InstallMediumProvider(), name, props, opts)
