"""Whatever a branch wrote is text in the comment; the comment fits, and says what was left out."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from review import markdown, report

BILL = report.Bill(memory_mib=1, cores=1, disk_gib=1, addresses=256)
HOSTILE = [
    "@torvalds and @org/team",
    "[click](https://evil.example/?a=b)",
    "![x](https://evil.example/pixel.png)",
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "--> <!-- nestlab review -->",
    "https://evil.example www.evil.example evil@evil.example #1 GH-1 org/repo#2",
    "```\n</details>\n# heading\n| a | b |\n|---|---|",
    "`code` **bold** ~~gone~~ $math$ :smile: [^1] \\",
    'x"]; click n0 "javascript:alert(1)" %% {{init: {}}} end',
    "\u202eevil\u2066 \x1b[31m \x00 \u200b",
    "0123456789abcdef0123456789abcdef01234567",
    "- [ ] task\r\n1. list\n> quote",
]


def hostile(text: str) -> report.Report:
    node = report.Node(path=[text[:200]], what=text[:200], text=text[:200], networks=[text[:200]])
    version = report.Version(bill=BILL, nodes=[node, node])
    change = report.Change(operation="replace", kind=text, name=text, why=[text])
    finding = report.Finding(rule=text, level="mandatory", text=text, line=3, name=text)
    stack = report.Stack(
        name=text,
        was=text,
        fate="renamed",
        refused=" ".join(text.splitlines()),
        changes=[change],
        losses=[text],
        findings=[finding],
        before=version,
        after=version,
    )
    return report.Report(base=text, head=text, stacks=[stack])


def outside_of_pictures(body: str) -> str:
    return re.sub(r"```mermaid\n.*?\n```", "", body, flags=re.DOTALL)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_branch_wrote_is_text(text: str) -> None:
    body = markdown.comment(hostile(text))
    calm = markdown.comment(hostile("calm"))
    plain = outside_of_pictures(body)
    # The same marks as a report with nothing in it, and no more.
    for mark in (
        "<",
        ">",
        "`",
        "[",
        "]",
        "(",
        "!",
        "@",
        "\\",
        "~",
        "$",
        "://",
        "<!--",
        "-->",
        "**",
        "```",
    ):
        assert plain.count(mark) == outside_of_pictures(calm).count(mark), mark
    assert body.count("\n") == calm.count("\n")
    assert body.count("|") == calm.count("|")
    assert body.count("```") == calm.count("```")
    # What GitHub looks for once Markdown is done.
    seen = html.unescape(plain)
    assert not re.search(r"@[A-Za-z0-9]|https?://[a-z]|www\.[a-z]|#\d|GH-\d|[0-9a-f]{7}", seen)
    assert not re.search("[\x00-\x09\x0b-\x1f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff]", seen)
    assert body.isprintable() or set(body) - {"\n", markdown.JOINED} == {
        each for each in body if each.isprintable()
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_a_picture_holds_nothing_but_boxes(text: str) -> None:
    for picture in re.findall(
        r"```mermaid\n(.*?)\n```", markdown.comment(hostile(text)), re.DOTALL
    ):
        for line in picture.splitlines()[2:]:
            assert re.fullmatch(
                r'  (n\d+(\[|\{\{)"[A-Za-z0-9 .#;]*"(\]|\}\})|(n\d+|host) --- n\d+)', line
            ), line


def many(count: int) -> report.Report:
    change = report.Change(operation="create", kind="k" * 100, name="n" * 100, why=["w" * 100])
    node = [report.Node(path=[f"m{n}"], what="guest", text="t" * 60) for n in range(80)]
    version = report.Version(bill=BILL, nodes=node)
    stacks = [
        report.Stack(
            name=f"s{n}", fate="changed", changes=[change] * 80, before=version, after=version
        )
        for n in range(count)
    ]
    return report.Report(base="main", head="b", stacks=stacks, left_out=3)


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (1, "20 more resources are not shown."),
        (3, "the pictures of"),
        (30, "the details of"),
        (100, "fit into"),
    ],
)
def test_it_fits_and_says_what_was_left_out(count: int, says: str) -> None:
    body = markdown.comment(many(count))
    assert len(body) <= markdown.LARGEST
    assert says in body
    assert body.startswith(markdown.MARKER)
    assert "3 more stacks are not shown." in body or "the rest was left out" in body
    assert "| s0 |" in body


def test_the_difference_of_the_bill_is_told() -> None:
    less = report.Version(bill=BILL, nodes=[])
    more: Any = BILL.model_copy(update={"memory_mib": 4097})
    stack = report.Stack(
        name="a", fate="changed", before=less, after=report.Version(bill=more, nodes=[])
    )
    body = markdown.comment(report.Report(base="main", head="b", stacks=[stack]))
    assert "| 4097 MiB (+4096) | 1 | 1 GiB | 256 |" in body
