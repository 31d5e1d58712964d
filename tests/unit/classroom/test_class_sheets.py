"""Pages open offline, hold what they should and nobody else's secrets, and nothing in a name becomes more than text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from typing_extensions import override

from classroom import page, picture, register, sheets, status
from toolchain import stack_check
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from pathlib import Path

ODD = "<script>alert(1)</script> & `rm` | [x](http://e.test) *b*"
ROWS: list[dict[str, Any]] = [
    {
        "name": "kvm1",
        "kind": "kvm",
        "layer": 1,
        "inside": [],
        "address": "10.77.0.9",
        "user": "root",
        "console": "vnc://127.0.0.1:0",
        "url": "",
        "enter": [],
    },
    {
        "name": "box",
        "kind": "container",
        "layer": 2,
        "inside": ["kvm1"],
        "address": "10.78.0.7",
        "user": "root",
        "console": "lxc-attach -n box",
        "url": "",
        "enter": ["lxc-attach", "-n", "box"],
    },
]
VOID = {"img", "meta", "br"}


class Reader(HTMLParser):
    """Reads a page as a browser does, and says what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.refers: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), "nothing runs"
            if name in {"href", "src", "srcset", "action", "data", "poster"}:
                self.refers.append(value or "")

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def sheet(checkout: Path) -> sheets.Sheet:
    del checkout
    return sheets.Sheet(
        "ana",
        ODD,
        "net1",
        "net1.ana",
        ROWS,
        stack_check.plan_of("course"),
        until="2027-01-31",
        hand_in=f"First line\n{ODD}",
        made=True,
        passwords={"kvm1": "scr33n"},
        logins={"kvm1": "l0g1n"},
        key="-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
    )


def test_a_page_is_whole_and_loads_nothing(sheet: sheets.Sheet) -> None:
    text = sheets.html(sheet)
    read = Reader(text)
    assert read.open == []
    assert read.refers == []
    assert "script" not in read.tags
    assert "Content-Security-Policy" in text
    assert not re.search(r"@import|url\(", text)


def test_what_is_told(sheet: sheets.Sheet) -> None:
    words = Reader(sheets.html(sheet)).words
    for each in (
        ODD,
        "Until 2027-01-31.",
        "network lab: 10.77.0.0/24, nat",
        "network inner: 10.78.0.0/24, nat",
        "4 GiB, 2 cores, disk 8 GiB",
        "ssh -i id_lab root@10.77.0.9",
        "lxc-attach -n box",
        "nestlab enter -s net1.ana kvm1",
        "scr33n",
        "l0g1n",
        "BEGIN KEY",
        "vnc://127.0.0.1:0",
        "First line",
    ):
        assert each in words, each
    markdown = sheets.markdown(sheet)
    for each in ("scr33n", "BEGIN KEY", "ssh -i id_lab root@10.77.0.9", "network inner"):
        assert each in markdown


@pytest.mark.parametrize(
    "words", [["powershell", "-EncodedCommand", "A" * 2000], ["sh", "-c", "a\nb"]]
)
def test_what_nobody_would_type_is_left_to_nestlab(sheet: sheets.Sheet, words: list[str]) -> None:
    box = {**ROWS[1], "enter": words}
    told = dict(replace(sheet, rows=[ROWS[0], box]).ways())
    assert told["box, in the checkout of nestlab"] == f"nestlab enter -s {sheet.stack} box"
    assert not any(words[-1] in command for command in told.values())


def test_before_the_lab_is_up_there_is_no_way_in(sheet: sheets.Sheet) -> None:
    early = sheets.Sheet("ana", "Ana", "net1", "net1.ana", ROWS, sheet.plan)
    for text in (sheets.html(early), sheets.markdown(early)):
        assert "not up yet" in text
        assert "ssh -i" not in text


def test_markdown_makes_nothing_of_a_name(sheet: sheets.Sheet) -> None:
    text = sheets.markdown(sheet)
    title = text.splitlines()[0]
    assert "\\<script\\>" in title
    assert "\\[x\\]" in title
    assert "\\|" in title
    assert page.md_code("a\n```\nb").startswith("````\n")


def test_the_picture_is_xml_and_its_boxes_lie_within_one_another(sheet: sheets.Sheet) -> None:
    text = picture.svg(sheet.box, ODD)
    root = ET.fromstring(text)  # noqa: S314 - our own
    boxes = [
        tuple(float(each.get(name, "")) for name in ("x", "y", "width", "height"))
        for each in root.iter()
        if each.tag.endswith("rect")
    ]
    assert len(boxes) == 3, "the host, kvm1, box"
    for (x, y, w, h), (x2, y2, w2, h2) in pairwise(boxes):
        assert x < x2
        assert y < y2
        assert x + w > x2 + w2
        assert y + h > y2 + h2
    lowest = max(float(each.get("y", "")) for each in root.iter() if each.tag.endswith("text"))
    assert lowest < boxes[0][3]
    assert picture.text(sheet.box).splitlines()[0] == "outer host"


def test_pages_are_their_owner_s_and_go_with_the_lab(sheet: sheets.Sheet, tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    files = sheets.write(folder, "ana", sheets.html(sheet), sheets.markdown(sheet))
    assert [each.stat().st_mode & 0o777 for each in files] == [0o600, 0o600]
    assert folder.stat().st_mode & 0o777 == 0o700
    sheets.remove(folder, "ana")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["ana.html", "ana.md"])
def test_a_file_of_somebodys_own_stays_as_it_is(
    name: str, sheet: sheets.Sheet, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text("<!doctype html>\nmy own")
    with pytest.raises(ui.Problem, match="did not make it: rename it, or name another folder"):
        sheets.write(mine, "ana", sheets.html(sheet), sheets.markdown(sheet))
    assert [each.name for each in mine.iterdir()] == [name]
    assert (mine / name).read_text().endswith("my own")
    (mine / name).unlink()
    for _ in range(2):
        sheets.write(mine, "ana", sheets.html(sheet), sheets.markdown(sheet))


def test_the_class_has_a_page_without_secrets() -> None:
    kept = register.Register("net1", price=2.0)
    kept.students["ana"] = register.Given(ODD, until="2020-01-01", lab={"memory_mib": 1024})
    kept.students["bob"] = register.Given("Bob", left=True, spent=3.0)
    rows = [{"name": "kvm1", "layer": 1, "state": "off", "said": "<b>it is off</b>"}]
    found = [status.seen(kept, "ana", rows, None), status.seen(kept, "bob", [], None)]
    text = sheets.class_html(kept, found, "now")
    read = Reader(text)
    assert read.open == []
    assert read.refers == ["ana.html", "bob.html"]
    assert "b" not in read.tags
    assert "2 labs: 1 off, 1 not made. Seen now." in read.words
    assert "its end, 2020-01-01" in read.words
    assert "6.00" in read.words
    assert "not made (left)" in sheets.class_markdown(kept, found, "now")


def test_the_class_s_page_has_what_screens_show() -> None:
    kept = register.Register("net1")
    kept.students["ana"], kept.students["bob"] = register.Given(ODD), register.Given("Bob")
    found = [status.seen(kept, "ana", [], None)]
    shown = {"ana": {ODD: "aGVsbG8="}, "bob": {}}
    text = sheets.class_html(kept, found, "now", shown)
    read = Reader(text)
    assert read.open == []
    assert 'src="data:image/png;base64,aGVsbG8="' in text
    assert f"Screens of ana, {ODD}" in read.words
    assert "Bob" not in text, "nothing of a lab without a picture"
