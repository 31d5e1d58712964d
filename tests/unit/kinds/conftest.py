"""What the tests of the kinds share with those of the components."""

from __future__ import annotations

from tests.unit.components.conftest import alone

__all__ = ["alone"]
