"""The schema is what an editor shows while a lab is written: it is current, and says no less."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from components.stackfile import load, reference
from components.stackfile.schema import KEY, schema
from tests.support.shipped import STACKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]


def valid(stack: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema()).is_valid(stack))


def test_the_committed_schema_is_current(golden: Callable[[Path, str], None]) -> None:
    golden(ROOT / "stacks" / "schema.json", json.dumps(schema(), indent=2) + "\n")


def test_the_module_prints_the_schema() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "components.stackfile.schema"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(printed.stdout) == schema()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("stack", STACKS, ids=lambda file: file.stem)
def test_a_stack_file_of_the_repository_fits_the_schema_and_names_it(stack: Path) -> None:
    jsonschema.validate(yaml.safe_load(stack.read_text()), schema())
    assert stack.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


@pytest.mark.parametrize("stack", STACKS, ids=lambda file: file.stem)
def test_git_leaves_out_the_media_that_a_stack_names(stack: Path) -> None:
    """They are somebody else's, and large: `git add` must not take them."""
    media = yaml.safe_load(stack.read_text())["config"][KEY].get("media", {})
    wanted = [each["path"] for each in media.values() if not Path(each["path"]).is_absolute()]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *wanted, "stacks/none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == wanted


@pytest.mark.parametrize(
    "lab",
    [
        {},
        {"name": "Not A Name"},
        {"name": "lab", "hots": {}},
        {"name": "lab", "networks": {"Not A Name": {"subnet": "10.77.0.0/24"}}},
        {"name": "lab", "networks": {"a": {"mode": "host-only"}}},
        {"name": "lab", "guests": {"a": {"memory_mib": "512"}}},
        {"name": "lab", "guests": {"a": {"memory_mib": 8}}},
        {"name": "lab", "hypervisors": {"a": {"kind": "beos", "network": "lab"}}},
        {"name": "lab", "hypervisors": {"a": {"network": "lab"}}},
        {"name": "lab", "hypervisors": {"a": {"kind": "kvm", "network": [{"mac": "x"}]}}},
    ],
    ids=repr,
)
def test_what_an_editor_can_know_is_refused_by_the_schema_already(lab: dict[str, Any]) -> None:
    assert not valid({"config": {KEY: lab}})


def test_a_stack_may_hold_what_the_engine_adds() -> None:
    lab = {"name": "lab", "networks": {"a": {"subnet": "10.77.0.0/24"}}}
    assert valid({"encryptionsalt": "v1:x", "config": {KEY: lab, "nestlab:key": {"secure": "x"}}})


def _fields(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items():
            yield f"{at}.{name}", field
        for key, value in node.items():
            yield from _fields(value, f"{at}.{key}")


def test_every_field_is_described_and_a_size_says_its_unit() -> None:
    units = {"_mib": "MiB", "_gib": "GiB", "_s": "seconds"}
    fields = dict(_fields(schema()["$defs"]))
    assert len(fields) > 50
    for name, field in fields.items():
        assert field.get("description"), f"{name} has no description"
        for end, unit in units.items():
            if name.endswith(end):
                assert unit in field["description"], f"{name} does not say its unit"


def test_the_page_about_the_stack_file_is_current() -> None:
    committed = ROOT / "docs" / "stack-file.md"
    assert committed.read_text() == reference.page(), (
        "run: python -m components.stackfile.reference > docs/stack-file.md"
    )


@pytest.mark.parametrize("stack", STACKS, ids=lambda path: path.stem)
def test_no_stack_file_is_committed_with_the_salt_of_somebodys_state(stack: Path) -> None:
    # The engine writes it while a lab is up here, and `make down` takes it out again.
    name = f"stacks/{stack.name}"
    asked = ["git", "show", f"HEAD:{name}"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    committed = done.stdout if done.returncode == 0 else stack.read_text()
    assert "encryptionsalt" not in committed, (
        f"git checkout -p {name}, and commit without that line"
    )


@pytest.mark.parametrize("page", ["README.md", "docs/stack-file.md"])
def test_the_stacks_on_a_page_are_accepted(page: str) -> None:
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    stacks = [yaml.safe_load(text) for text in found if KEY in text]
    assert stacks
    for stack in stacks:
        assert valid(stack)
        assert load(stack["config"][KEY], root=ROOT, exists=lambda _: True).name
