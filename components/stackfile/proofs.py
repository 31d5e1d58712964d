"""How each part of each kind was proved: what its ``proof`` says, and what a run on the real product found.

``proof.NESTED`` and ``proof.OUTER`` of a kind say it by `ROWS`; what the kind does not offer is said by its
model. A report of `nestlab prove KIND` that is kept in ``docs/proofs`` goes before both.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from components import kinds
from components.stackfile.registry import HOSTS, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from components.stackfile.places import Offers

ROWS = (
    "unattended install",
    "readiness of the product itself",
    "networks",
    "guest from an ISO",
    "guest from an image",
    "guest with a configuration",
    "further CDs and disks of a guest",
    "container from a template",
    "console",
    "edit in place",
    "switched off or removed by hand",
    "nested hypervisors inside",
)
"""What is proved of each kind, in the order of README's table."""
REAL, FAILED, UNTRIED, NONE = "real", "failed", "not tried", "no"
REPORTS = "docs/proofs"


def nested(kind: str, root: Path) -> dict[str, str]:
    """Return how each of `ROWS` was proved of a nested hypervisor; ``root`` is the checkout's."""
    said = _said(kind, "NESTED", KINDS[kind].offers)
    report = root / REPORTS / f"{kind}.json"
    if report.is_file():
        for row, cell in json.loads(report.read_text(encoding="utf-8"))["cells"].items():
            said[row] = merged(said[row], cell["result"])
    return said


def outer(kind: str) -> dict[str, str]:
    """Return how each of `ROWS` was proved of an outer host."""
    return _said(kind, "OUTER", HOSTS[kind].offers)


def merged(said: str, result: str) -> str:
    """Return what holds where ``said`` stands and a run on the real product had ``result``."""
    if result == UNTRIED or (result == REAL and said.split(maxsplit=1)[0] == REAL):
        return said
    return result


def _said(kind: str, role: str, offers: Offers) -> dict[str, str]:
    lacking = {
        "guest from an image": not offers.images,
        "guest with a configuration": "cloud_init" in offers.fixed,
        "container from a template": not offers.containers,
        "nested hypervisors inside": not offers.nests,
    }
    try:
        told: Mapping[str, Any] = getattr(kinds.part(kind, "proof"), role)
    except ModuleNotFoundError:
        told = {}
    return {row: NONE if lacking.get(row) else str(told.get(row, UNTRIED)) for row in ROWS}
