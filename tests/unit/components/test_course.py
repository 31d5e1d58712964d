"""Numbers of the course's items: in docstrings alone, and each is explained on one page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROOMS = ("components", "policies", "cli", "toolchain")
PAGE = ROOT / "docs" / "course.md"
NUMBER = re.compile(r"\bR(\d{1,3})\b")


def docstrings(tree: ast.Module) -> set[ast.Constant]:
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else []:
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                found.add(each.value)
    return found


def test_a_number_is_in_docstrings_alone_and_the_page_explains_it() -> None:
    explained = {f"R{number}" for number in NUMBER.findall(PAGE.read_text())}
    used: set[str] = set()
    for file in (each for room in ROOMS for each in (ROOT / room).rglob("*.py")):
        tree = ast.parse(file.read_text())
        about = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                numbers = {f"R{number}" for number in NUMBER.findall(node.value)}
                assert not numbers or node in about, f"{file}:{node.lineno} is read by users"
                used |= numbers
    assert used, "else the page goes"
    assert used <= explained


def test_no_page_and_no_stack_has_one() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "stacks").iterdir()]
    for page in pages:
        if page.is_file() and page != PAGE:
            assert not NUMBER.search(page.read_text()), page
