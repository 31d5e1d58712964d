"""`__main__.py` as the engine runs it, against the recording engine."""

from __future__ import annotations

import cProfile
import inspect
import itertools
import json
import pstats
import runpy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components.place.contract import BootQueue
from tests.support.engine import deploy
from tests.unit.components.labs import Machine
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from tests.support.engine import Recorder, Registered

NETWORK = {"lab": {"subnet": "10.77.0.0/20"}}


def program(lab: dict[str, Any]) -> None:
    """Run the program of the stack whose setting is ``lab``."""
    pulumi.runtime.set_all_config({"nestlab:lab": json.dumps({"name": "lab", **lab})})
    runpy.run_path(str(paths.ROOT / "__main__.py"), run_name="__main__")


def preview(lab: dict[str, Any]) -> Recorder:
    return deploy(lambda: program(lab), preview=True)


def guests(number: int, **more: Any) -> dict[str, Any]:
    guest = {"iso": "ipxe", "network": "lab", "ready": {"probe": "none"}}
    return {
        "host": {"accelerator": "tcg"},
        "media": {"ipxe": {"path": "tests/cases/files/absent.iso"}},
        "networks": NETWORK,
        "guests": {f"g{number}": guest for number in range(number)},
        **more,
    }


def calls(lab: dict[str, Any]) -> int:
    """How many functions are called in the preview of ``lab``: a measure that no other load moves."""
    profile = cProfile.Profile()
    profile.runcall(preview, lab)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_a_preview_grows_no_faster_than_its_lab() -> None:
    preview(guests(1))  # what is imported once
    few, more, many = (calls(guests(number)) for number in (25, 50, 100))
    assert many - more < 2.4 * (more - few), (few, more, many)


def test_a_long_queue_of_boots_does_not_end_at_pythons_limit_of_calls() -> None:
    queue = BootQueue(1)
    names = [f"m{number}" for number in range(250)]

    def program() -> None:
        for name in names:
            queue.joined(Machine(name, queue.turn()))

    most = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 240)
    try:
        made = deploy(program)
    finally:
        sys.setrecursionlimit(most)
    for before, name in itertools.pairwise(names):
        assert made.named(name).depends_on == {made.named(before).urn}


def test_the_stacks_outputs_are_those_of_the_lab() -> None:
    assert set(preview(guests(1)).stack_outputs) == {"sheet", "passwords", "logins", "key"}


@pytest.mark.parametrize("number", [1, 40])
def test_a_failed_registration_is_told_whatever_waits_for_it(number: int) -> None:
    def fails(resource: Registered) -> dict[str, Any]:
        if resource.name == "g0-domain":
            raise RuntimeError("no room for g0")
        return {}

    lab = guests(number, boot={"concurrency": 1})
    with pytest.raises(Exception, match="no room for g0"):
        deploy(lambda: program(lab), outputs=fails, preview=True)


FRESH = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    for each in [each for each in sys.modules if each.partition(".")[0] == "components"]:
        del sys.modules[each]
"""
"""Imports each module as the first of all: what others have imported hides a circle."""


def test_whatever_is_imported_first_can_be() -> None:
    room = paths.ROOT / "components"
    files = [*room.glob("*.py"), *(file.parent for file in room.glob("*/__init__.py"))]
    names = sorted(f"components.{file.stem}" for file in files if file.stem != "__init__")
    assert "components.settings" in names, "which the program imports first"
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *names],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr[-2000:]
