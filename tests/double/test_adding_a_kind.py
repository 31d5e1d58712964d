"""docs/adding-a-kind.md as it stands: its blocks make a kind, whose lab comes up, is mended and goes.

A failure here is a page that leaves something out, or a house where a kind is more than a folder, a
line and a stack file.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.stackfile import load
from tests.support import inner
from tests.support.architecture import breaches
from tests.support.checkout import Checkout
from tests.support.commands import Machine
from tests.support.stubs.toy import Toy
from toolchain.bootstrap import paths
from toolchain.engine import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

PAGE = paths.ROOT / "docs" / "adding-a-kind.md"
BLOCK = re.compile(r"^```(?:python|yaml|text) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in which somebody did what the page says."""
    if not environment.built_here():
        pytest.skip("needs the engine: run `make toolchain`")
    made = Checkout.make(tmp_path / "lab")
    blocks = dict(BLOCK.findall(PAGE.read_text()))
    line = blocks.pop("line")
    for name, text in blocks.items():
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text(text)
    registry = made.root / "components/kinds/__init__.py"
    registry.write_text(registry.read_text().replace("NESTED = (\n", f"NESTED = (\n{line}"))
    done = made.run(sys.executable, "-m", "toolchain", "toolchain")
    assert done.code == 0, done.said
    return made


def lab(checkout: Checkout, memory_mib: int) -> dict[str, Any]:
    told = yaml.safe_load((checkout.root / "stacks/Pulumi.toy.yaml").read_text())
    [given] = told["config"]["nestlab:lab"]["hypervisors"].values()
    given["guests"]["web"]["memory_mib"] = memory_mib
    made = told["config"]["nestlab:lab"] | {"hypervisors": {"x": given}}
    return dict(made)


def test_a_kind_is_a_folder_a_line_and_a_stack_file(
    checkout: Checkout, sshd: Serve, tmp_path: Path
) -> None:
    assert breaches(checkout.root) == [], "the page keeps the house's rules"
    with pytest.raises(Exception, match="known kinds of hypervisor"):
        load(lab(checkout, 256), root=checkout.root)  # this checkout has no such kind
    machine = Machine(tmp_path / "toy", Toy)
    (checkout.root / "media").mkdir(exist_ok=True)
    (checkout.root / "media/live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    disk = checkout.root / "media/debian-13-generic-amd64.raw"
    disk.write_bytes(bytes(510) + b"\x55\xaa" + bytes(4096))
    target = sshd(machine).target("x")

    def run(*words: str, memory_mib: int = 256) -> str:
        data = lab(checkout, memory_mib)
        program = inner.program("toy", data, target, checkout.root)
        # No libvirt below it: a state that names a stranger's is taken by no command.
        program = program.replace("test:///default", "").replace(
            str(paths.ROOT), str(checkout.root)
        )
        (checkout.root / "__main__.py").write_text(program)
        pulumi = str(checkout.root / ".nestlab/bin/pulumi")
        done = checkout.run(
            pulumi, *words, "--stack", "toy", "--color", "never", "--non-interactive"
        )
        assert done.code == 0, done.said
        return done.said

    def boxes() -> dict[str, tuple[str, str]]:
        found = machine.state["things"]
        return {one["name"]: (one["state"], one["memory"]) for one in found if one["what"] == "box"}

    run("stack", "init")
    run("up", "--yes", "--skip-preview")
    assert boxes() == {"web": ("on", "256")}
    same = run("up", "--yes", "--skip-preview")
    assert "changed" not in same.replace("unchanged", "")
    run("up", "--yes", "--skip-preview", memory_mib=384)
    assert boxes() == {"web": ("on", "384")}
    assert machine.shell().run(["toyctl", "stop", "web"]).ok
    assert "guest web is off; `pulumi up` mends it" in run("preview", memory_mib=384)
    run("up", "--yes", "--skip-preview", memory_mib=384)
    assert boxes() == {"web": ("on", "384")}
    run("destroy", "--yes", "--skip-preview", memory_mib=384)
    assert machine.state["things"] == []
