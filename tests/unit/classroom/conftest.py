"""A checkout of its own with a template, on a machine of a known size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from toolchain.bootstrap import paths
from toolchain.doctor import capacity

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = """\
# The lab of the course.
config:
  nestlab:lab:
    name: course
    networks:
      lab: {mode: nat, subnet: 10.77.0.0/24}
    hypervisors:
      kvm1:
        kind: kvm
        memory_mib: 4096
        cores: 2
        disk_gib: 8
        network: lab
        address: 10.77.0.9
        networks:
          inner: {mode: nat, subnet: 10.78.0.0/24}
        containers:
          box: {template: busybox, memory_mib: 64, network: inner}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout; its stack ``course`` is the template, and nothing was ever made in it."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for path, where in (("LOCAL", ""), ("BIN", "bin"), ("STATE", "state"), ("CONFIG", "config")):
        monkeypatch.setattr(paths, path, tmp_path / ".nestlab" / where)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr(capacity, "memory_mib", lambda: 1024 + 10 * 4096)
    monkeypatch.setattr(capacity, "disk_free_gib", lambda folder: (folder, 100.0))
    monkeypatch.setattr(capacity, "cores", lambda: 4)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.course.yaml").write_text(TEMPLATE)
    return tmp_path
