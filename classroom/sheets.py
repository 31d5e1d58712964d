"""A page for each student, and one of the class for the teacher.

A student's page holds that lab's secrets and nobody else's; all pages are their owner's alone (0600). The
class's page has no secret.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classroom import page, picture, status
from components.stackfile.problems import counted
from toolchain.bootstrap import cache, ui

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from classroom.register import Register
    from classroom.status import Seen
    from components.stackfile import LabPlan

    Screens = Mapping[str, Mapping[str, str]]
    """Student -> machine -> what its screen shows, PNG in Base64."""

FOLDER = "sheets"
CLASS_PAGE = "_class"
"""Name of the class's page: no student has such an id."""
KEY_FILE = "id_lab"
"""What the page calls the file of the lab's key."""


@dataclass(frozen=True)
class Sheet:
    """What a student is told."""

    student: str
    name: str
    called: str
    """The class."""
    stack: str
    rows: Sequence[Mapping[str, Any]]
    """The lab's machines, as `nestlab show --json` has them."""
    plan: LabPlan
    until: str = ""
    hand_in: str = ""
    made: bool = False
    """Whether the lab is up as a whole: before, there is nothing to connect to."""
    passwords: Mapping[str, str] = field(default_factory=dict)
    """Of screens, by machine."""
    logins: Mapping[str, str] = field(default_factory=dict)
    """Of users, by machine."""
    key: str = ""
    """Private key that opens the nested hypervisors."""

    @property
    def title(self) -> str:
        """What the page is called."""
        return f"{self.name}: lab {self.called}-{self.student}"

    @property
    def box(self) -> picture.Box:
        """The lab as a picture's boxes."""
        return picture.boxes(self.plan, {row["name"]: row["kind"] for row in self.rows})

    def machines(self) -> list[list[str]]:
        """Return a row for each machine: name, kind, layer, address, user, web."""
        return [
            [
                r["name"],
                r["kind"],
                str(r["layer"]),
                r["address"] or "-",
                r["user"] or "-",
                r["url"] or "-",
            ]
            for r in self.rows
        ]

    def ways(self) -> Iterator[tuple[str, str]]:
        """Yield a title and a command for each way in."""
        for row in self.rows:
            if row["user"] and row["address"] and not row["enter"]:
                yield (
                    f"{row['name']}, from the machine that runs the labs",
                    f"ssh -i {KEY_FILE} {row['user']}@{row['address']}",
                )
            elif row["enter"]:
                where = row["inside"][-1] if row["inside"] else "the machine that runs the labs"
                command = shlex.join(row["enter"])
                if len(command) <= LONGEST and "\n" not in command:
                    yield f"{row['name']}, on {where}", command
                else:
                    known = f"nestlab enter -s {self.stack} {row['name']}"
                    yield f"{row['name']}, in the checkout of nestlab", known
        if self.rows:
            name = self.rows[0]["name"]
            yield "or, in the checkout of nestlab", f"nestlab enter -s {self.stack} {name}"

    def screens(self) -> list[list[str]]:
        """Return a row for each screen: machine, where, on which machine, password."""
        return [
            [
                row["name"],
                row["console"],
                row["inside"][-1] if row["inside"] else "the machine that runs the labs",
                self.passwords.get(row["name"], "none"),
            ]
            for row in self.rows
            if ":" in row["console"]
        ]


MACHINES = ("machine", "kind", "layer", "address", "user", "web")
LONGEST = 160
"""Letters of a command that people may copy from a page; what opens a console of Hyper-V's is a program."""
SCREENS = ("machine", "screen", "on", "password")
LOGINS = ("machine", "password of its user")
NOT_MADE = "The lab is not up yet: how to get in is told once it is."
SCREEN_NOTE = "Display N of vnc://HOST:N is TCP port 5900 + N. A screen on 127.0.0.1 is seen there alone: go through SSH (-L 5900:127.0.0.1:5900)."
KEY_NOTE = f"Save it as {KEY_FILE}, and `chmod 600 {KEY_FILE}`. It opens your lab and no other: keep this page to yourself."
FURTHER = "From elsewhere add -J YOU@HOST, with your login on the machine that runs the labs."


def html(sheet: Sheet) -> str:
    """Return a student's page."""
    parts = [
        *([page.paragraph(f"Until {sheet.until}.")] if sheet.until else []),
        page.heading("The lab"),
        picture.svg(sheet.box, sheet.title),
        page.table(MACHINES, sheet.machines()),
        page.heading("How to connect"),
    ]
    if sheet.made:
        for title, command in sheet.ways():
            parts += [page.paragraph(title), page.code(command)]
        parts.append(page.paragraph(FURTHER))
        parts += [
            f'<div class="secret">\n{page.paragraph(KEY_NOTE)}',
            page.code(sheet.key),
            "</div>",
        ]
        if sheet.logins:
            rows = sorted(map(list, sheet.logins.items()))
            parts += ['<div class="secret">', page.table(LOGINS, rows), "</div>"]
        if screens := sheet.screens():
            parts += [page.heading("Screens"), page.paragraph(SCREEN_NOTE)]
            parts += ['<div class="secret">', page.table(SCREENS, screens), "</div>"]
    else:
        parts.append(page.paragraph(NOT_MADE))
    if sheet.hand_in:
        parts += [page.heading("What to hand in"), page.paragraph(sheet.hand_in)]
    return page.html(sheet.title, parts)


def markdown(sheet: Sheet) -> str:
    """Return the same in Markdown."""
    parts = [
        f"# {page.md(sheet.title)}",
        *([f"Until {sheet.until}."] if sheet.until else []),
        "## The lab",
        page.md_code(picture.text(sheet.box)),
        page.md_table(MACHINES, sheet.machines()),
        "## How to connect",
    ]
    if sheet.made:
        for title, command in sheet.ways():
            parts += [page.md(title), page.md_code(command)]
        parts += [page.md(FURTHER), page.md(KEY_NOTE), page.md_code(sheet.key)]
        if sheet.logins:
            parts.append(page.md_table(LOGINS, sorted(map(list, sheet.logins.items()))))
        if screens := sheet.screens():
            parts += ["## Screens", page.md(SCREEN_NOTE), page.md_table(SCREENS, screens)]
    else:
        parts.append(NOT_MADE)
    if sheet.hand_in:
        parts += ["## What to hand in", "\n".join(map(page.md, sheet.hand_in.splitlines()))]
    return "\n\n".join(parts) + "\n"


HEAD = ("student", "name", "state", "layers", "why", "age", "GiB h", "cost", "past")


def class_html(
    kept: Register, found: Sequence[Seen], when: str, screens: Screens | None = None
) -> str:
    """Return the teacher's page, as it was seen ``when``, with what the ``screens`` showed."""
    rows = []
    for each, cells in zip(found, _rows(kept, found), strict=True):
        # An id has none of what HTML takes for more.
        link = page.Raw(f'<a href="{each.student}.html">{each.student}</a>')
        word = page.Raw(f'<span class="{each.state.split()[0]}">{cells[2]}</span>')
        rows.append([link, cells[1], word, *cells[3:]])
    parts = [page.paragraph(_summary(found, when)), page.table(HEAD, rows)]
    for student, pictures in (screens or {}).items():
        if pictures:
            # An id has none of what HTML takes for more.
            title = f"{student}, {kept.students[student].name}".removesuffix(", ")
            parts += [page.heading(f"Screens of {title}"), page.screens(pictures)]
    return page.html(f"Class {kept.name}", parts)


def class_markdown(kept: Register, found: Sequence[Seen], when: str) -> str:
    """Return the same in Markdown."""
    parts = [f"# Class {kept.name}", _summary(found, when), page.md_table(HEAD, _rows(kept, found))]
    return "\n\n".join(parts) + "\n"


def _summary(found: Sequence[Seen], when: str) -> str:
    words = [each.state for each in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f"{counted(len(found), 'labs')}: {counts or 'none'}. Seen {when}."


def _rows(kept: Register, found: Sequence[Seen]) -> list[list[str]]:
    return [
        [
            each.student,
            each.name,
            each.state + (" (left)" if each.left else ""),
            "; ".join(f"{layer}: {words}" for layer, words in each.layers.items()) or "-",
            "; ".join(each.said) or "-",
            status.age(each.hours),
            f"{each.used:.1f}",
            f"{each.used * kept.price:.2f}" if kept.price else "-",
            " and ".join(each.past) or "-",
        ]
        for each in found
    ]


def write(folder: Path, name: str, html_: str, markdown_: str) -> list[Path]:
    """Write a page both ways; only its owner may read it. Return the files.

    Raises:
        Problem: somebody's own file has the name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = [folder / f"{name}.html", folder / f"{name}.md"]
    there = [each for each in files if os.path.lexists(each)]
    if there and not page.is_ours(files[0]):
        raise ui.Problem(
            f"{there[0]} is there, and `nestlab class sheet` did not make it: rename it, or name another folder, --to FOLDER."
        )
    for file, text in zip(files, (html_, markdown_), strict=True):
        cache.write(file, text, 0o600)
    return files


def remove(folder: Path, student: str) -> None:
    """Remove a student's page: its secrets are those of a lab that is gone."""
    for suffix in ("html", "md"):
        (folder / f"{student}.{suffix}").unlink(missing_ok=True)
