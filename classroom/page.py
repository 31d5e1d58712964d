"""Pages that open offline: HTML of one file, which loads nothing and runs nothing, and Markdown beside it."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CSS = """\
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #111; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border: 1px solid #9ca3af; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f3f4f6; white-space: nowrap }
pre { background: #f3f4f6; padding: .6rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
.screens { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; width: 18rem } figure img { width: 100%; border: 1px solid #9ca3af }
.secret { border-left: 4px solid #b91c1c; padding-left: 1rem }
.up { color: #166534 } .drift, .past { color: #92400e } .off, .unknown { color: #b91c1c }
@media print { body { max-width: none } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing but the style and the pictures in the page itself."""
BEGIN = (
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
)
"""How each page begins, and hardly one that somebody else made."""
MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
"""What Markdown takes for more than letters."""


def is_ours(file: Path) -> bool:
    """Whether the HTML ``file`` is a page that was made here."""
    begin = BEGIN.encode()
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(begin)) == begin


def html(title: str, parts: Sequence[str]) -> str:
    """Return a whole page of ``parts``, which are HTML."""
    head = (
        '<meta name="viewport" content="width=device-width">'
        '<meta name="referrer" content="no-referrer">'
    )
    body = "\n".join(parts)
    return (
        f"{BEGIN}{head}\n<title>{escape(title)}</title>\n"
        f"<style>\n{CSS}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts; what is HTML already is a `Raw`."""
    lines = ["<table>", f"<tr>{''.join(f'<th>{escape(each)}</th>' for each in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{_cell(each)}</td>' for each in row)}</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


class Raw(str):
    """A text that is HTML already."""

    __slots__ = ()


def _cell(told: str) -> str:
    return told if isinstance(told, Raw) else escape(told)


def paragraph(told: str) -> str:
    """Return a text as a paragraph; its lines stay lines."""
    return f"<p>{escape(told).replace(chr(10), '<br>')}</p>"


def heading(told: str) -> str:
    """Return a heading."""
    return f"<h2>{escape(told)}</h2>"


def code(told: str) -> str:
    """Return what is to be typed or kept as it is."""
    return f"<pre>{escape(told)}</pre>"


def screens(pictures: Mapping[str, str]) -> str:
    """Return pictures side by side: what each is of -> PNG in Base64."""
    figures = [
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{escape(picture)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, picture in pictures.items()
    ]
    return "\n".join(['<div class="screens">', *figures, "</div>"])


def md(told: str) -> str:
    """Return a text of which Markdown makes nothing else, on one line."""
    return MARKS.sub(r"\\\1", " ".join(told.split()))


def md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(each if n == 1 else md(each) for each in row)} |"
        for n, row in enumerate(lines)
    )


def md_code(told: str) -> str:
    """Return what is to be typed or kept as it is, in Markdown; no line of it ends the block."""
    fence = "`" * max(3, *(len(each) + 1 for each in re.findall("`+", told) or [""]))
    return f"{fence}\n{told.rstrip()}\n{fence}"
