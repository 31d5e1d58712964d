"""What the tests of the components share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from components.kinds.libvirt import census
from components.reach import interrupt, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees what another one left: a census, or the wish to stop. Waits poll fast."""
    monkeypatch.setattr(waiting, "POLL_S", 0.001)
    census._shared.clear()
    yield
    census._shared.clear()
    interrupt.CANCELLED.clear()
