"""Pages in a real browser without any network: nothing in its console, nothing loaded, the picture seen.

Only where Debian's chromium is installed, and not in every run: it is none of what nestlab needs.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from classroom import register, sheets, status
from components.reach.picture import png
from tests.support.browser import Browser, browser, reason
from tests.unit.classroom.test_class_sheets import ODD, ROWS
from toolchain import stack_check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(bool(reason()), reason=reason() or "-"),
]
PNG = b"\x89PNG\r\n"
BOXES = "[...document.querySelectorAll('svg rect')].map(r => [r.getBoundingClientRect().width, r.checkVisibility()])"
OUTSIDE = """
[...document.querySelectorAll('svg text')].filter(t => {
  const own = t.getBoundingClientRect(), all = t.ownerSVGElement.getBoundingClientRect();
  return own.width < 1 || own.right > all.right || own.bottom > all.bottom }).length
"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as made:
        yield made


def quiet(chromium: Browser, page: Path) -> None:
    """It says nothing, asks for nothing but the page, and does not scroll sideways."""
    assert chromium.complaints() == []
    assert chromium.loaded() == [page.as_uri()]
    assert chromium.value(WIDE) == 0
    assert chromium.value("getComputedStyle(document.body).maxWidth") != "none", "its style holds"
    assert chromium.picture(1000, 900).startswith(PNG)


def test_a_browser_shows_a_student_s_page(checkout: Path, chromium: Browser) -> None:
    sheet = sheets.Sheet(
        "ana", ODD, "net1", "net1.ana", ROWS, stack_check.plan_of("course"),
        until="2027-01-31", hand_in=ODD, made=True, passwords={"kvm1": "hunter22"}, key="KEY\n",
    )  # fmt: skip
    page = sheets.write(checkout / "sheets", "ana", sheets.html(sheet), "")[0]
    chromium.show(page)
    quiet(chromium, page)
    boxes = chromium.value(BOXES)
    assert len(boxes) == 3, "the host, and what is in it"
    assert all(width > 100 and seen for width, seen in boxes)
    assert chromium.value(OUTSIDE) == 0, "each word lies in the picture"
    assert ODD in chromium.value("document.body.innerText")


def test_a_browser_shows_the_class_s_page(checkout: Path, chromium: Browser) -> None:
    kept = register.Register("net1", price=2.0)
    found = [
        status.Seen("ana", ODD, "net1.ana", "drift", {"1": "up", "2": "1 of 3 off"},
                    ["ipxe: " + "x" * 300], False, 50.0, 210.0, ["its budget, 210.0 of 200 GiB h"]),
    ]  # fmt: skip
    shown = base64.b64encode(png(b"P6\n3 2\n255\n" + bytes(range(18)))).decode()
    text = sheets.class_html(kept, found, "now", {"ana": {"ipxe": shown}})
    page = sheets.write(checkout / "sheets", "_class", text, "")[0]
    chromium.show(page)
    quiet(chromium, page)
    assert ODD in chromium.value("document.body.innerText")
    assert chromium.value("document.images[0].naturalWidth") == 3, "a screen is seen"


def test_what_a_browser_refuses_is_seen_here(tmp_path: Path, chromium: Browser) -> None:
    """These tests can fail: a page with a script and a picture from elsewhere complains and asks."""
    bad = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    bad.write_text(f"{policy}<script>alert(1)</script><img src='http://192.0.2.1/x.png'>")
    chromium.show(bad)
    assert chromium.complaints()
