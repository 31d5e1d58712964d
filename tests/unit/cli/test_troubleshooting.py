"""docs/troubleshooting.md quotes what nestlab prints: a message that was reworded would be looked for in vain."""

from __future__ import annotations

import ast
import re

import pytest

from toolchain.bootstrap import paths

PAGE = paths.ROOT / "docs" / "troubleshooting.md"
SOURCES = ("cli", "classroom", "components", "toolchain")
QUOTED = re.compile(r"`` ?(.+?)``|`([^`]+)`")
VALUE = "\0"
"""Stands for what a message is filled with; the page writes three dots."""


def quoted() -> list[str]:
    """What stands between backticks in the first column of each table."""
    cells = [line.split(" | ")[0] for line in PAGE.read_text().splitlines() if line[:2] == "| "]
    return [one or other for cell in cells for one, other in QUOTED.findall(cell)]


@pytest.fixture(scope="module")
def messages() -> str:
    """All texts of the product's code, one after the other."""
    found = [
        _text(node)
        for folder in SOURCES
        for file in (paths.ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
    ]
    return "\n\n\n".join(text for text in found if text)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each) or VALUE for each in node.values)
    return ""


def test_there_is_something_to_look_up() -> None:
    assert len(quoted()) > 20


@pytest.mark.parametrize("said", quoted())
def test_what_the_page_quotes_is_said(said: str, messages: str) -> None:
    pieces = [re.escape(piece.strip()) for piece in said.split("...") if piece.strip()]
    assert re.search(r"[^\n]*?".join(pieces), messages), said
