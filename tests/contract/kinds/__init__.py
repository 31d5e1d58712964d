"""The cases of each kind, found by the kind's name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from components import kinds

if TYPE_CHECKING:
    from tests.contract.case import Case

PENDING: frozenset[str] = frozenset()
"""Kinds whose drivers are not under the laws yet; a test says when one is."""


def with_drivers() -> dict[str, list[str]]:
    """Return the kinds that have drivers, each with their names."""
    found: dict[str, list[str]] = {}
    for kind in kinds.NESTED:
        for what in ("network", "medium", "guest", "container"):
            if find_spec(f"{kinds.__name__}.{kind}.{what}"):
                found.setdefault(kind, []).append(f"{kind}.{what}")
    return found


def cases() -> list[Case[Any, Any]]:
    """Return the cases of all kinds."""
    modules = [kind for kind in kinds.NESTED if find_spec(f"{__name__}.{kind}")]
    return [case for kind in modules for case in import_module(f"{__name__}.{kind}").CASES]
