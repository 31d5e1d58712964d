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
    sums,
)
from components.spec import (
    load as load_spec,
)
from components.spec.facts import FOLDER, LOCAL_URI
from components.spec.places import places

if TYPE_CHECKING:
    from pathlib import Path

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
        if wrong := sums.wrong(spec, root / FOLDER / "sums.json"):
            raise SpecError(wrong)  # noqa: TRY301 - told like every other problem
        local = spec.host.uri.startswith(LOCAL_URI)
        golden = any(place.kind and place.kind.golden for place in places(spec))
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
                "golden": GoldenImage.read(root) if golden else None,
            },
        )
    except SpecError as wrong:
        raise pulumi.RunError(f"the stack {stack} can't be deployed:\n{wrong}") from None
