"""Dynamic providers served by Pulumi's own host, which everybody has who installed Pulumi.

Ours (`toolchain.engine.dynhost`) does more: it passes on the wish to stop, and tells failures in their own
words. What the gates do has to come out the same without it.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.double.conftest import children, eventually
from tests.double.test_language_host import FILES, WAITS
from tests.double.test_language_host import _runs as runs
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = [pytest.mark.double, pytest.mark.spread]

# `sdk/python/dist/pulumi-resource-pulumi-python` of pulumi 3.259.0, where the project names its .venv.
OFFICIAL = """#!/bin/sh
PATH="{venv}/bin:$PATH"
export PATH
"{venv}/bin/python" -u -m pulumi.dynamic $@
"""


@pytest.fixture
def official(project: Project, tmp_path: Path) -> Project:
    """A project whose engine finds Pulumi's own dynamic host first."""
    folder = tmp_path / "official"
    folder.mkdir()
    script = folder / "pulumi-resource-pulumi-python"
    script.write_text(OFFICIAL.format(venv=paths.VENV))
    script.chmod(0o755)
    project.variables["PATH"] = f"{folder}:{project.variables['PATH']}"
    return project


def test_gates_of_ours_live_and_say_why_they_fail(official: Project, tmp_path: Path) -> None:
    (official.folder / "files.py").write_text(FILES)
    kept = tmp_path / "kept"
    program = f"""
import pulumi
from files import File
from components.gates.secrets import Password
pulumi.export("secret", Password("screen", length=20).value)
pulumi.export("size", File("kept", {str(kept)!r}, "one").size)
"""
    said = official.up(program)
    assert f"using pulumi-resource-pulumi-python from $PATH at {tmp_path}" in said
    assert "3 created" in said
    assert "[secret]" in official.pulumi("stack", "output")
    assert "3 unchanged" in official.up(program)
    failing = official.up(program.replace('"one"', '""'), fails=True)
    assert "is empty" in failing
    wrong = (
        program
        + """
from pulumi import dynamic
class Fails(dynamic.ResourceProvider):
    def create(self, props):
        raise pulumi.RunError("the gate stays shut")
class Failing(dynamic.Resource): pass
Failing(Fails(), "fails", {})
"""
    )
    assert "the gate stays shut" in official.up(wrong, fails=True)


def test_a_wait_ends_at_the_second_interrupt_and_the_next_up_carries_on(
    official: Project, tmp_path: Path
) -> None:
    # Of the first, this host tells nobody: Pulumi's own words then ask for another.
    (official.folder / "waits.py").write_text(WAITS)
    official.write(f"from waits import Wait; Wait('long', {str(tmp_path / 'begun')!r})")
    with official.running("up", "--yes", "--skip-preview") as engine:
        assert eventually((tmp_path / "begun").exists, 30)
        left = children(engine.pid)
        os.killpg(engine.pid, signal.SIGINT)
        assert engine.stdout
        # What the engine says at the first one, about orphaned resources, ends with this word.
        while line := engine.stdout.readline():
            if "orphaned" in line:
                break
        os.killpg(engine.pid, signal.SIGINT)
        engine.communicate(timeout=30)
    assert engine.returncode != 0
    assert not any(map(runs, left))
    (official.folder / "files.py").write_text(FILES)
    said = official.up(f"from files import File; File('kept', {str(tmp_path / 'kept')!r}, 'one')")
    assert "1 created" in said
