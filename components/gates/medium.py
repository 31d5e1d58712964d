"""The discs a nested hypervisor is installed from: its maker's, made to ask nothing, and its answers.

The installer's disc holds no secret and is made once for all labs of a checkout; so is the tools',
with files of the user's that are no ISO by themselves: a maker's installation program. The answers
are one machine's: name, address, keys, a hashed password; they lie where nobody else may read.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import pulumi
from typing_extensions import override

from components.gates.base import BorderResource, Gate, Props
from components.gates.codec import has_unknown
from components.media import fat, installer, iso
from components.media.answers import Answers
from components.remote.waiting import Seen, say
from components.spec import sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Told(TypedDict):
    """`Answers`, as they go through the engine."""

    name: str
    fqdn: str
    mac: str
    password: str
    authorized_key: str
    host_private: str
    host_public: str
    address: str | None
    prefix: int | None
    gateway: str | None
    nameserver: str | None
    disk: str
    timezone: NotRequired[str]
    keyboard: NotRequired[str]
    options: dict[str, str]


class Discs(TypedDict):
    """Properties of the discs of one machine."""

    name: str
    kind: str
    recipe: str
    iso: str
    answers: Told
    tools: dict[str, str]
    media: str
    private: str
    installer: str | None
    tools_disc: str | None
    disc: str | None


class InstallMediumProvider(Gate):
    """Makes the discs, and makes them again when they are gone."""

    shape = Discs

    inputs = ("name", "kind", "recipe", "iso", "answers", "tools", "media", "private")

    @override
    def problems(self, news: Props) -> Iterable[tuple[str, str]]:
        try:
            # In a preview the medium need not be there; `components.settings` refuses before an up.
            if news["iso"] and Path(news["iso"]).is_file():
                installer.RECIPES[news["kind"]].check(iso.Iso(Path(news["iso"])))
            for path in _tools(news).values():
                if path.is_file():
                    _recipe(news).check_tool(path)
            if not has_unknown(news["answers"]):
                _files(news)
        except (iso.WrongMedium, iso.NotMade, ValueError) as wrong:
            yield "iso", str(wrong)

    @override
    def look(self, props: Props) -> Seen:
        for path in filter(None, (props["installer"], props.get("tools_disc"), props["disc"])):
            if not Path(path).is_file():
                return Seen(ok=False, text=f"{path} is not there any more")
        return Seen(ok=True, text="there")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        first = ""
        if news["iso"]:
            first = str(installer.installer(news["kind"], Path(news["iso"]), Path(news["media"])))
        files = _files(news)
        told = hashlib.sha256()
        for name, content in sorted(files.items()):
            told.update(f"{name}\0{len(content)}\0".encode() + content)
        folder = Path(news["private"])
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another content has another name, so that whoever has a copy takes a new one.
        made = folder / f"answers-{told.hexdigest()[:12]}"
        if news["kind"] in installer.RECIPES and installer.RECIPES[news["kind"]].stick:
            disc = made.with_suffix(".img")
            fat.make(files, _recipe(news).LABEL, disc)
        else:
            disc = made.with_suffix(".iso")
            iso.make(files, _recipe(news).LABEL, disc)
        if olds.get("disc") and olds["disc"] != str(disc):
            Path(olds["disc"]).unlink(missing_ok=True)
        return {**news, "installer": first, "tools_disc": _tools_disc(news), "disc": str(disc)}

    @override
    def retire(self, props: Props) -> None:
        if props.get("disc"):
            Path(props["disc"]).unlink(missing_ok=True)


def _files(props: Props) -> dict[str, bytes]:
    made: dict[str, bytes] = _recipe(props).files(Answers(**props["answers"]))
    return made


def _tools(props: Props) -> dict[str, Path]:
    """Return the files of the tools' disc by their names there."""
    return {name: Path(path) for name, path in sorted((props.get("tools") or {}).items())}


def _tools_disc(props: Props) -> str:
    """Return the disc with the user's files, made now if it is not there; empty without any."""
    tools, cache = _tools(props), Path(props["media"])
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


def _recipe(props: Props) -> Any:
    return import_module(f"components.media.{props['recipe']}")


class InstallMedium(BorderResource, module="nestlab", name="InstallMedium"):
    """The discs of one machine, files of this machine.

    ``kind`` is one of `installer.RECIPES`, or a kind that is cloned; ``recipe`` the module of
    `components.media` that says what the answers are.
    """

    installer: pulumi.Output[str]
    """The installer's disc; empty for a machine that is cloned from an image."""
    tools_disc: pulumi.Output[str]
    """The disc with the user's own files; empty without any."""
    disc: pulumi.Output[str]
    """The disc with its answers, or the USB stick's image; another content has another path."""

    def __init__(
        self,
        name: str,
        *,
        kind: str,
        recipe: str,
        iso: str,
        answers: pulumi.Input[Mapping[str, Any]],
        media: str,
        private: str,
        tools: Mapping[str, str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "kind": kind,
            "recipe": recipe,
            "iso": iso,
            "answers": answers,
            "tools": dict(tools or {}),
            "media": media,
            "private": private,
            "installer": None,
            "tools_disc": None,
            "disc": None,
        }
        opts = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(additional_secret_outputs=["answers"])
        )
        super().__init__(InstallMediumProvider(), name, props, opts)
