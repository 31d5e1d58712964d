"""The stack files that the project ships: what somebody keeps beside them is no matter of its tests."""

from __future__ import annotations

import subprocess

from toolchain.bootstrap import paths


def _files() -> list[str]:
    words = ["git", "ls-files", "-z", "--", "stacks/Pulumi.*.yaml"]
    told = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in told.stdout.split("\0") if name)


STACKS = [paths.ROOT / name for name in _files() if (paths.ROOT / name).is_file()]
