"""What appliances serve is found by the files' places, which move: each of it has to load alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.appliance import image
from tests.support.appliance.kinds import KINDS

if TYPE_CHECKING:
    from pathlib import Path

LIGHT = ("appliance.main", "appliance.sdk", *(f"stubs.{kind.module}" for kind in KINDS.values()))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files alone, as they lie in the image."""
    folder = tmp_path_factory.mktemp("served")
    for file, name in image.code():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
    return folder


@pytest.mark.parametrize("module", [*LIGHT, "appliance.proxmox"])
def test_what_an_appliance_serves_loads_alone(module: str, served: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", f"import tests.support.{module}"],
        cwd=served,
        env={"PYTHONPATH": str(served)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
