"""Every command of the README, in its order, in a fresh checkout: what it promises is true.

Left out are `make test`, which is what runs this, and `make bench`, which takes too long; both are
named here so that a third exception can't creep in. `make clean` is tried last and only where it would
not stop libvirt under somebody else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import Checkout, virsh

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.host

README = Path(__file__).parents[2] / "README.md"
LEFT_OUT = {"make test", "make bench"}
LAST = ("make clean", "make clean CACHE=1")


def commands() -> list[str]:
    """The README's shell commands in their order, comments cut off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(make [a-z]+(?: [A-Z]+=\w+)?)`", README.read_text())
    named = [line for line in inline if "STACK=name" not in line]
    return list(dict.fromkeys([line for line in [*lines, *named] if line]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = Checkout.make(tmp_path_factory.mktemp("readme"), new=True)
    try:
        yield made
    finally:
        made.destroy()


def test_every_command_of_the_readme_works(folder: Checkout) -> None:
    told = commands()
    assert {"make up", "make down", "pulumi destroy"} <= set(told), "the README names its commands"
    environment = ""
    for command in told:
        if command in LEFT_OUT or command in LAST:
            continue
        if command.startswith(". "):
            environment = f"{command} && export PULUMI_SKIP_CONFIRMATIONS=true && "
            continue
        done = folder.run("bash", "-c", f"{environment}{command}", timeout_s=600)
        assert done.code == 0, f"{command}\n{done.said}"
    assert folder.left() == []


def test_make_clean_takes_back_what_the_set_up_made(folder: Checkout) -> None:
    if virsh("list", "--name").strip():
        pytest.skip("somebody's guests run in the libvirt that it would stop")
    done = folder.make_target("clean")
    assert done.code == 0, done.said
    assert not (folder.root / ".nestlab").exists()
    assert not (folder.root / ".venv").is_symlink()
    again = folder.make_target("host")
    assert again.code == 0, f"and the next set-up starts it again\n{again.said}"
