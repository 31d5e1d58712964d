"""A lab of two machines on a libvirt that is played, of which snapshots are taken and which is suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid5

from cli import renewal, snapshots
from tests.support.libvirtd import SPACE, FakeLibvirt
from toolchain import lab
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DOMAINS = {name: str(uuid5(SPACE, name)) for name in ("net-a", "net-b")}
ROW = {"inside": [], "address": "10.0.0.2", "kind": "kvm"}
ROWS = [
    {**ROW, "name": "a", "domain": "net-a"},
    {**ROW, "name": "b", "domain": "net-b"},
    {**ROW, "name": "in", "domain": "in", "inside": ["a"], "address": "10.1.0.2"},
]
LAB = snapshots.Lab("net", "libvirt", "x", "pool", "0123", DOMAINS, "digest")


def stands(host: FakeLibvirt, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be the lab of each stack, with what is noted of it below ``folder``; all inside answer."""
    monkeypatch.setattr(paths, "LOCAL", folder)
    monkeypatch.setattr(snapshots, "LocalShell", lambda: host)
    monkeypatch.setattr(snapshots, "of", lambda _: LAB)
    monkeypatch.setattr(lab, "outputs", lambda _: {"sheet": ROWS})
    monkeypatch.setattr(
        renewal, "stand_still", lambda _, asked: {n: list(a) for n, a in asked.items()}
    )
    monkeypatch.setattr(renewal, "go_on", lambda *_: None)
