"""What a stack under review may name: judged by the name alone, nothing is looked at or opened."""

from __future__ import annotations

import copy
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from components.stackfile.allow import STRICT, USUAL, VARIABLE, Allowed
from components.stackfile.loader import examine

if TYPE_CHECKING:
    from pathlib import Path

    from components.stackfile import LabSpec
    from components.stackfile.problems import Problem


ABSENT = "not-here"
"""A folder that nobody makes."""


class Named(Allowed):
    """Judges paths by their letters: on a CI machine none of them need be there."""

    @override
    def file(self, path: str) -> tuple[str, str] | None:
        if not path.isprintable():
            return "a path is printable text", "rename the file"
        plain = os.path.normpath(path)
        if any(_under(plain, each) for each in self.listed):
            return None
        parts = plain.removeprefix(f"{self.root}/").split("/")
        if _under(plain, self.root) and not any(part.startswith(".") for part in parts):
            return None
        if any(_under(plain, each) for each in USUAL):
            return None
        rule = (
            "a stack under review may name files of the project and of the usual folders for media"
        )
        return rule, f"move it there, or add its folder to files: in the file that {VARIABLE} names"

    @override
    def key(self, path: str) -> tuple[str, str] | None:
        return self.file(path)

    @override
    def uplink(self, nic: str) -> tuple[str, str] | None:
        return None


def understood(data: object, root: Path) -> tuple[LabSpec | None, list[Problem]]:
    """Return the lab that ``data`` says, below ``root``, and all that is wrong with it.

    Hosts and their NICs may be any: nobody is asked there. ``NESTLAB_ALLOW`` may name an allow.yaml; without it the
    strict form holds, whatever the user's own file says.

    Raises:
        SpecError: the allow.yaml can't be read.
    """
    chosen = os.environ.get(VARIABLE) or STRICT
    said = Allowed.read(root, {VARIABLE: chosen})
    given: dict[str, Any] = {each.name: getattr(said, each.name) for each in fields(Allowed)}
    return examine(
        data,
        root=root,
        exists=lambda _: True,
        allowed=Named(**given | {"hosts": ("*",), "home": ""}),
    )


def elsewhere(data: Any, root: Path) -> Any:
    """Return the lab ``data`` with its files at paths below ``root`` where none is.

    Media are sampled when they are there; on both versions they are not, so that none is opened.
    """
    told = copy.deepcopy(data)
    for group in ("media", "templates"):
        for each in (told.get(group) or {}).values() if isinstance(told, dict) else ():
            if isinstance(each, dict) and isinstance(each.get("path"), str):
                each["path"] = f"{root}/{ABSENT}/{each['path'].lstrip('/')}"
    return told


def _under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
