"""Names of network namespaces, given by whoever stands in one: others have to be able to enter, too."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
]

GIVES = """
import subprocess, sys
from toolchain.machine import daemons
subprocess.run([*daemons.outside(), "ip", "netns", *sys.argv[1:]], check=True)
"""


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Names of a namespace that is there, and of one that is not yet."""
    first, second = (f"nestlab-{uuid.uuid4().hex[:6]}" for _ in "ab")
    subprocess.run(["ip", "netns", "add", first], check=True)
    try:
        yield first, second
    finally:
        for name in (first, second):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_a_namespace_made_from_inside_another_one_can_be_entered_by_all(
    names: tuple[str, str],
) -> None:
    first, second = names
    inside = ["ip", "netns", "exec", first, sys.executable, "-c", GIVES]
    subprocess.run([*inside, "add", second], cwd=paths.ROOT, check=True)
    subprocess.run(["ip", "netns", "exec", second, "true"], check=True)
    subprocess.run([*inside, "delete", second], cwd=paths.ROOT, check=True)
    said = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert second not in said
