"""From a stack's setting and the set-up's findings to what `components.lab.deploy` is called with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

from components.media import installers
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


def load(data: object, root: Path, stack: str, *, preview: bool = False) -> Given:
    """Return what the stack says, checked as a whole.

    In a ``preview`` media need not be there, which it warns of: vendors' ISOs can't be handed to
    whoever looks at a pull request.

    Raises:
        pulumi.RunError: something in it, or in the set-up, is wrong; one line for each problem.
    """
    absent: list[str] = []

    def there(path: str) -> bool:
        if os.path.exists(path):  # noqa: PTH110 - `load` hands over texts
            return True
        absent.append(path)
        return preview

    try:
        spec = load_spec(data, root=root, exists=there)
        wrong = sums.wrong(spec, root / FOLDER / "sums.json") + installers.wrong(spec)
        if wrong:
            raise SpecError(wrong)  # noqa: TRY301 - told like every other problem
        for path in absent:
            pulumi.log.warn(f"{path} is not there; before `pulumi up` it has to be")
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
