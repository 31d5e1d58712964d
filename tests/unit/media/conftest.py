"""Stand-ins of the vendors' media, each built once; tests that change one copy it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import standins

if TYPE_CHECKING:
    from pathlib import Path


class Media(dict[str, "Path"]):
    """The medium of each kind, and ``debian``, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, kind: str) -> Path:
        if kind.endswith("-usb"):
            return self[kind.removesuffix("-usb")]
        make = standins.debian_iso if kind == "debian" else standins.MAKERS[kind]
        self[kind] = make(self._folder)
        return self[kind]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is to survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
