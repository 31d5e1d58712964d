"""The workflow files, by the field's linter of GitHub Actions: only where it is installed, and not in every run."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

LINTER = "actionlint"
"""`go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.7` is one way to it."""
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not shutil.which(LINTER), reason=f"needs {LINTER} on PATH"),
]


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    words = [LINTER, "-no-color", "-shellcheck=", "-pyflakes=", str(file)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("job", ["preview", "comment"])
def test_a_workflow_is_one_that_github_takes(job: str, tmp_path: Path) -> None:
    file = paths.ROOT / "review" / "workflows" / f"labs-{job}.yml"
    done = lint(file)
    assert done.returncode == 0, done.stdout
    # The linter reads it: a job that is not there is found.
    wrong = tmp_path / file.name
    wrong.write_text(file.read_text().replace("runs-on:", "needs: [nobody]\n    runs-on:", 1))
    assert "nobody" in lint(wrong).stdout
