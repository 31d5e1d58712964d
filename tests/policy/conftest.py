"""Stylesheets are judged by running them, with the program that the provider runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("xsltproc"):
        return
    lacking = pytest.mark.skip(reason="xsltproc, which the provider runs, is not installed")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(lacking)
