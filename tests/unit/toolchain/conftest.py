"""A backend with a stack, and the libvirts that its state is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.libvirtd import FakeLibvirt
from tests.unit.toolchain.checkpoints import Engine
from toolchain.bootstrap import paths
from toolchain.engine import found, recover

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file backend, and a checkout of its own."""
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    monkeypatch.setattr(paths, "KEYS", tmp_path / "keys")
    monkeypatch.setattr(recover, "ENDING_S", 0.3)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "Pulumi.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PULUMI_STACK", raising=False)
    folder = tmp_path / "with space"
    monkeypatch.setenv("PULUMI_BACKEND_URL", folder.as_uri())
    return folder / ".pulumi"


@pytest.fixture
def outer(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    place = FakeLibvirt()
    monkeypatch.setattr(found, "LocalShell", lambda: place)
    return place


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    place = FakeLibvirt("one")
    monkeypatch.setattr(found, "SshShell", lambda *_: place)
    return place


@pytest.fixture
def engine(backend: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(recover, "_pulumi", lambda *_, **__: pytest.fail("asked the engine"))
    return Engine(backend, "$NESTLAB_KEYS")
