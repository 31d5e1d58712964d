"""What is said of a kind outside its folder is made from it, and current."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components import kinds
from components.stackfile import proofs, tables
from components.stackfile.registry import HOSTS, KINDS

ROOT = Path(__file__).parents[3]
MADE = tables.files(ROOT)


@pytest.mark.parametrize("file", MADE, ids=lambda file: file.name)
def test_what_is_made_from_the_kinds_is_current(file: Path) -> None:
    assert file.read_text() == MADE[file], f"run: {tables.COMMAND}"


def test_the_command_makes_them_anew(tmp_path: Path) -> None:
    for room in ("components", "docs", "policies"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    model = tmp_path / "components/kinds/xen/model.py"
    told = re.sub(r"memory_mib=Minimum\(\d+,", "memory_mib=Minimum(3333,", model.read_text())
    model.write_text(told.replace('"netfront"', '"a-new-one"'))
    subprocess.run([sys.executable, *tables.COMMAND.split()[1:]], cwd=tmp_path, check=True)
    assert "memory_mib=3333," in (tmp_path / "policies/limits.py").read_text()
    assert "| least | 3333 MiB of memory" in (tmp_path / "docs/xen.md").read_text()
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    schema = [sys.executable, "-m", "components.stackfile.schema"]
    done = subprocess.run(schema, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert '"a-new-one"' in done.stdout, "the words of a kind stand in its folder alone"
    assert "netfront" not in done.stdout


@pytest.mark.parametrize("page", ["", tables.BEGIN, tables.END])
def test_a_page_without_both_marks_is_not_guessed_at(page: str) -> None:
    with pytest.raises(ValueError, match="not both there"):
        tables.filled(page, "| x |\n")


def test_a_kind_says_nothing_of_what_there_is_no_such_part_or_thing() -> None:
    for role, of in (("NESTED", KINDS), ("OUTER", HOSTS)):
        for name in of:
            try:
                told = getattr(kinds.part(name, "proof"), role, {})
            except ModuleNotFoundError:
                continue
            assert set(told) <= set(proofs.ROWS), name
            offers = of[name].offers
            assert ("container from a template" in told) <= offers.containers
            assert ("guest from an image" in told) <= offers.images
            assert ("nested hypervisors inside" in told) <= offers.nests


def test_every_kind_that_ships_says_how_it_was_proved() -> None:
    for name in KINDS:
        assert proofs.UNTRIED not in proofs.nested(name, ROOT).values(), name
