"""The house has a policeman: each rule holds, and each is seen to be broken where it is."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.architecture import FROZEN, breaches
from toolchain.bootstrap.paths import ROOT
from toolchain.testing import TIERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOMS = ("components", "policies", "toolchain", "cli", "classroom", "review", "nestlab", "docs")


def test_the_house_keeps_its_rules() -> None:
    assert breaches(ROOT) == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for room in ROOMS:
        if (ROOT / room).is_dir():
            shutil.copytree(
                ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__")
            )
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / FROZEN).parent.mkdir(parents=True)
    shutil.copy(ROOT / FROZEN, tmp_path / FROZEN)
    return tmp_path


def added(path: str, text: str) -> Callable[[Path], None]:
    def plant(house: Path) -> None:
        file = house / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + text)

    return plant


def moved_provider(house: Path) -> None:
    names = json.loads((house / FROZEN).read_text())
    names["nestlab:Password"] = "components.gates.passwords.PasswordProvider"
    (house / FROZEN).write_text(json.dumps(names))


def second_token(house: Path) -> None:
    added(
        "components/gates/second.py",
        'class Other(Resource, module="nestlab", name="Password"):\n'
        "    def __init__(self):\n        super().__init__(OtherProvider(), 1)\n",
    )(house)


PLANTED = {
    "a room above": (
        added("components/reach/waiting.py", "\nfrom components.gates import base\n"),
        "reach may not import gates",
    ),
    "late, in a function": (
        added("components/stackfile/plan.py", "\ndef f():\n    from components.media import iso\n"),
        "stackfile may not import media",
    ),
    "a kind's name in a general room": (
        added("components/place/orders.py", "\nfrom components.kinds.esxi import model\n"),
        "names the kind esxi",
    ),
    "another kind": (
        added("components/kinds/hyperv/install.py", "\nfrom components.kinds.xen import model\n"),
        "hyperv names the kind xen",
    ),
    "policies lean on components": (
        added("policies/limits.py", "\nfrom components.stackfile import plan\n"),
        "policies stand apart",
    ),
    "the bootstrap leans on a package": (
        added("toolchain/bootstrap/paths.py", "\ndef f():\n    import yaml\n"),
        "the bootstrap is of the standard library, and it imports yaml",
    ),
    "a class that makes things itself": (
        added("classroom/work.py", "\nfrom components.gates import base\n"),
        "classroom may not import gates",
    ),
    "a second job that does the first one's work": (
        added("review/markdown.py", "\nfrom components.stackfile import plan\n"),
        "works beside a token",
    ),
    "a circle": (
        added("components/reach/interrupt.py", "\nfrom components.reach import shell\n"),
        "a circle",
    ),
    "a name of its own": (added("components/kinds/xen/helpers.py", ""), "no name that a kind's"),
    "one token twice": (second_token, "two resources have this token"),
    "a provider that moved": (moved_provider, "states name components.gates.passwords"),
    "a long file": (added("components/lab.py", "\n" * 500), "a file has 500 at most"),
    "a long function": (
        added("policies/limits.py", "\ndef f():\n" + "    pass\n" * 61),
        "a function has 60 at most",
    ),
    "Any on the way to a driver": (
        added("components/reach/orders.py", "\nfrom typing import Any\n\nLOOSE: Any = None\n"),
        "it says Any",
    ),
    "a property by its text": (
        added("components/gates/seed.py", '\n\ndef f(props):\n    return props["disc"]\n'),
        "properties are fields",
    ),
    "a check that decides by a kind's name": (
        added(
            "components/stackfile/checks/wiring.py",
            '\n\ndef f(place: Place) -> bool:\n    return place.title == "proxmox"\n',
        ),
        "a general room names proxmox",
    ),
    "a kind's provider in a general room": (
        added("components/place/machine.py", "\n\ndef f():\n    import pulumi_vsphere\n"),
        "a general room names vsphere",
    ),
    "a kind's name in a field": (
        added("components/stackfile/places.py", "\n\ndef f(hosts_xen: bool) -> None: ...\n"),
        "a general room names xen",
    ),
    "a page that names what is gone": (
        added("docs/architecture.md", "\n`components/spec/kinds`\n"),
        "components/spec/kinds is not there",
    ),
    "a page that names what has moved": (
        added("docs/architecture.md", "\n`toolchain/recover.py`\n"),
        "toolchain/recover.py is not there",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_breach_is_seen(name: str, house: Path) -> None:
    plant, words = PLANTED[name]
    plant(house)
    found = breaches(house)
    assert any(words in line for line in found), found


def test_no_two_files_of_a_tier_have_one_name() -> None:
    """pytest takes the second of two such files for the first, and stops."""
    for folders in TIERS.values():
        files = [each for folder in folders for each in (ROOT / folder).rglob("test_*.py")]
        names = [each.name for each in files]
        assert sorted(names) == sorted(set(names))
