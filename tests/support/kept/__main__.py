"""``python3 -m tests.support.kept NAME``: keep a state of the layout as it is, as NAME."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.support import allowed
from tests.support.kept import STATES, make


def main(name: str) -> None:
    """Keep it; there must be none of that name. What is kept is whole if the same layout changes nothing of it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        os.environ["NESTLAB_ALLOW"] = str(allowed.write(Path(folder)))
        labs = []
        for part in ("made", "given"):
            (Path(folder) / part).mkdir()
            labs.append(make(name, Path(folder) / part, running))
        labs[0].project.pulumi("up", "--yes", "--skip-preview")
        labs[0].keep(STATES / name)
        labs[1].give_back(STATES / name)
        labs[1].project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


if __name__ == "__main__":
    main(*sys.argv[1:])
