"""From a stack's setting and the set-up's findings to what `components.lab.deploy` is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

from components.spec import (
    GoldenImage,
    HostFacts,
    LabSpec,
    SpecError,
    resolve_accelerator,
)
from components.spec import (
    load as load_spec,
)
from components.spec.facts import FOLDER, LOCAL_URI

if TYPE_CHECKING:
    from pathlib import Path

NEEDS_GOLDEN = {"kvm"}
"""Kinds of nested hypervisors that are clones of the golden image."""
CORES_UNKNOWN = 2
"""Cores of an outer host that the doctor has not seen: as many machines boot at a time."""


@dataclass(frozen=True)
class Given:
    """A stack's lab, and the facts that its deployment depends on."""

    spec: LabSpec
    facts: dict[str, Any]
    """Keyword arguments of `components.lab.deploy`."""


def load(data: object, root: Path, stack: str) -> Given:
    """Return what the stack says, checked as a whole.

    Raises:
        pulumi.RunError: something in it, or in the set-up, is wrong; one line for each problem.
    """
    try:
        spec = load_spec(data, root=root)
        local = spec.host.uri.startswith(LOCAL_URI)
        host = None
        if local and (spec.host.accelerator == "auto" or (root / FOLDER / "host.json").exists()):
            host = HostFacts.read(root)
        return Given(
            spec,
            {
                "root": root,
                "private": root / FOLDER / "keys" / stack,
                "accelerator": resolve_accelerator(spec, host),
                "cores": host.cores if host else CORES_UNKNOWN,
                "golden": GoldenImage.read(root) if _kinds(spec) & NEEDS_GOLDEN else None,
            },
        )
    except SpecError as wrong:
        raise pulumi.RunError(f"the stack {stack} can't be deployed:\n{wrong}") from None


def _kinds(place: Any) -> set[str]:
    found: set[str] = set()
    for nested in place.hypervisors.values():
        found |= {nested.kind} | _kinds(nested)
    return found
