"""docs/components.md: its programs run, and its YAML is what the package takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.package.schema import OUTPUTS, TOKEN
from components.package.served import Components
from tests.support.engine import deploy
from tests.unit.components import test_face
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from tests.support.engine import Recorder

checkout = test_face.checkout
TEXT = (paths.ROOT / "docs" / "components.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def preview(code: str) -> Recorder:
    def program() -> None:
        exec(compile(code, "docs/components.md", "exec"), {"__name__": "__main__"})  # noqa: S102

    return deploy(program, preview=True, project="course")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_each_program_previews(number: int) -> None:
    code = blocks("python")[number]
    made = preview(code)
    for name in re.findall(r"^(?:\w+ = )?(\w+)\(\"", code, re.MULTILINE):
        assert made.of_type(f":{name}"), name


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_yaml_is_what_the_package_takes(text: str) -> None:
    resources = yaml.safe_load(text)["resources"]
    answered: dict[str, set[str]] = {}

    def program() -> dict[str, Any]:
        package, told = Components(), dict[str, Any]()
        for name, each in resources.items():
            state = package.construct(name, each["type"], each["properties"]).state
            answered[name] = set(state)
            told |= {f"{name} {output}": value for output, value in state.items()}
        return told

    made = deploy(program, preview=True)
    assert next(each["type"] for each in resources.values()) == TOKEN
    assert made.of_type("libvirt:index/domain:Domain")
    for name, output in re.findall(r"\$\{(\w+)\.(\w+)", text):
        assert output in answered[name], output


def test_no_output_is_left_out() -> None:
    assert [
        name for name in OUTPUTS if f"`{name}`" not in TEXT and f"`lab.{name}`" not in TEXT
    ] == []
