"""A thousand stack files that were written to harm, through the program: refused, quickly and quietly.

The same through the real engine: `tests/double/test_hostile.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

COUNT, SEED, PARTS = 1000, 10, 4
DEADLINE_S = 300


@pytest.mark.parametrize("part", range(PARTS))
def test_no_hostile_stack_file_takes_long_or_much_or_tells_or_reaches_anything(
    tmp_path: Path, part: int
) -> None:
    # The media may be named, and the canary that a link among them leads to may not.
    allow = tmp_path / "allow.yaml"
    allow.write_text(json.dumps({"files": [str(tmp_path / "media")]}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.hostile"),
            *(str(tmp_path), str(COUNT // PARTS), str(SEED + part)),
        ],
        cwd=paths.ROOT,
        env=os.environ | {"NESTLAB_ALLOW": str(allow)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert sum(told["how"].values()) == COUNT // PARTS
    assert told["how"]["refused"] > COUNT // PARTS * 0.7, told["how"]
