"""secret-marks: notes which inputs are marked as secret, and changes nothing.

A rule is shown inputs without their marks; only a remediation sees them, and the engine asks it
first. So `plain-secrets` learns from here what it may pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
)
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY, serialize_properties

Path = tuple[str | int, ...]

MARKED: dict[str, set[Path]] = {}
"""Paths of the secret inputs, by the URN of each resource that was looked at."""


def _note(args: ResourceValidationArgs) -> None:
    found: set[Path] = set()
    _walk(serialize_properties(args.props), (), found)
    MARKED[args.urn] = found


def _walk(value: Any, path: Path, found: set[Path]) -> None:
    if isinstance(value, Mapping):
        if value.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG:
            found.add(path)
            return
        for key, inner in value.items():
            _walk(inner, (*path, key), found)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            _walk(inner, (*path, index), found)


SECRET_MARKS = ResourceValidationPolicy(
    name="secret-marks",
    description="Notes which inputs are marked as secret, for plain-secrets.",
    enforcement_level=EnforcementLevel.REMEDIATE,
    severity=Severity.LOW,
    remediation_steps="Nothing: it reports nothing and changes nothing.",
    remediate=_note,
)
