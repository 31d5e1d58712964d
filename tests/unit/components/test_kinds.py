"""Kinds are found by the names of their files, which move: a stack of one that is not found can't come up."""

from __future__ import annotations

import pytest

from components import kinds


@pytest.mark.parametrize("kind", kinds.NESTED)
def test_every_kind_that_can_be_nested_has_what_installs_it(kind: str) -> None:
    assert callable(kinds.installer(kind))


@pytest.mark.parametrize("kind", kinds.OUTER)
def test_every_kind_of_outer_host_has_what_makes_it_a_place(kind: str) -> None:
    assert callable(kinds.outer(kind))
