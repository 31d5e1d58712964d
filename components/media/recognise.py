"""What an ISO is, said for somebody who gave the wrong one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from components.media.iso import TEXT, WrongMedium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.media.iso import Iso

BEGINNING = 1 << 14
"""Of a text on the medium, bytes that are searched for what it is."""
LONG = 60
"""Of somebody else's text, letters that are shown."""


def what(iso: Iso) -> str:
    """Return what the ISO is, as the end of a sentence, with its volume id."""
    return f"{_name(iso)} (volume {iso.volume_id!r})"


def _name(iso: Iso) -> str:
    return next(name for name in _guesses(iso) if name)


def _guesses(iso: Iso) -> Iterator[str]:
    """Return what it may be, the surest first."""
    cd_info, disk_info = _first(iso, "/.cd-info"), _first(iso, "/.disk/info")
    if told := pairs(cd_info) or pairs(disk_info):
        yield f"the installer of {_shown(' '.join(told.get(k, '') for k in ('PRODUCTLONG', 'RELEASE')))}"
    if disk_info:
        yield f"an ISO of {_shown(disk_info.splitlines()[0])}"
    for form, before, name in _TITLES:
        if found := re.search(form, _first(iso, name)):
            yield f"{before} {_shown(' '.join(found.groups()))}"
    if iso.find("/sources/boot.wim"):
        yield "a Windows installer"
    if any(iso.find(name) for name in ("/answer.toml", "/ks.cfg", "/user-data")):
        yield "a CD of answers, not an installer"
    kind = "a CD that boots" if iso.boots() else "a CD that does not boot"
    yield f"{kind}, with {len(iso.files())} files"


_TITLES = (
    (
        r"(?ms)^\[branding\]$.*?^name\s*=\s*([^\n]+)\nversion\s*=\s*([^\n]+)",
        "the installer of",
        "/.treeinfo",
    ),
    (r"(?m)^(?:name|family)\s*=\s*(.+)$", "the installer of", "/.treeinfo"),
    (r"(?m)^title=(?:Loading )?(.+?)\s*$", "the", "/boot.cfg"),
)
"""What tells a name: its form, what is said before it, the file."""


def _first(iso: Iso, name: str) -> str:
    found = iso.find(name)
    if not found:
        return ""
    try:
        return iso.read(found, TEXT)[:BEGINNING].decode("utf-8", "replace").strip()
    except WrongMedium:
        return ""  # it only helps to say what the medium is


def _shown(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:LONG].strip()


def pairs(told: str) -> dict[str, str]:
    """Return the lines ``KEY='value'`` of a text, if it has a product among them."""
    found = dict(re.findall(r"(?m)^([A-Z]+)=['\"]?([^'\"\n]*)['\"]?$", told))
    return found if "PRODUCT" in found or "PRODUCTLONG" in found else {}
