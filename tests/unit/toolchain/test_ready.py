"""What soak tests boot is made before they run, where mirrors are reached."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support import ready
from tests.support.appliance import image
from toolchain.bootstrap import ui
from toolchain.testing import SOAK


@pytest.mark.parametrize("soak", [True, False])
def test_images_of_soak_tests_are_made_for_them_and_one_that_fails_keeps_none_from_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, soak: bool
) -> None:
    made: list[str] = []

    def fails() -> None:
        raise ui.Problem("no mirror has it")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(image, "base", lambda: made.append("base"))
    soaks = (("first", "long", fails), ("second", "long", lambda: made.append("second")))
    monkeypatch.setattr(ready, "SOAKS", soaks)
    monkeypatch.setenv(SOAK, "1") if soak else monkeypatch.delenv(SOAK, raising=False)
    assert ready.main() == 0
    assert made == (["base", "second"] if soak else ["base"])
    assert ("no mirror has it" in capsys.readouterr().err) == soak
