"""The .vmx: what VMware's products know of a guest, as lines of ``key = "value"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def parsed(text: str) -> dict[str, str]:
    """Return the settings of a .vmx by their keys as written, values unescaped."""
    lines = re.findall(r'(?m)^\s*([^\s=#]+)\s*=\s*"([^"\n]*)"\s*$', text)
    return {key: unescaped(value) for key, value in lines}


def rendered(settings: Mapping[str, str]) -> str:
    """Return ``settings`` as a .vmx; no value can end before its quotes do."""
    head = {".encoding": "UTF-8"} | dict(settings)
    return "".join(f'{key} = "{escaped(value)}"\n' for key, value in head.items())


def escaped(value: str) -> str:
    """Return a value as VMware writes it: what would end it is | and two hexadecimal digits."""
    return "".join(
        f"|{ord(letter):02X}" if letter in '|"#' or ord(letter) < ord(" ") else letter
        for letter in value
    )


def unescaped(value: str) -> str:
    """Return what `escaped` was given."""
    return re.sub(r"\|([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), value)
