"""What was tried of a kind on the real product, and how it came out: the report of `nestlab prove`.

A cell is one of the table in README.md. Only what was tried in this run is "real" or "failed"; whatever
was not says so, with the reason. A report that is kept in docs/proofs is what that table is made from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from components.stackfile.proofs import FAILED, REAL, ROWS, UNTRIED

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """How one thing came out."""

    result: str
    said: str
    """What was seen, or why nothing was tried."""
    seconds: float = 0.0


@dataclass
class Proof:
    """All of one run."""

    kind: str
    about: dict[str, str]
    """When, with what, on what: by name."""
    cells: dict[str, Cell] = field(default_factory=dict)
    """By `ROWS`."""

    def whole(self) -> dict[str, Cell]:
        """Return a cell for each row; those that nobody came to were not tried."""
        untried = Cell(UNTRIED, "the run did not come to it")
        return {row: self.cells.get(row, untried) for row in ROWS}

    @property
    def ok(self) -> bool:
        """Whether something was tried, and nothing of it failed."""
        results = {cell.result for cell in self.cells.values()}
        return REAL in results and FAILED not in results

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        cells = {row: asdict(cell) for row, cell in self.whole().items()}
        return {"kind": self.kind, "about": self.about, "cells": cells}

    def markdown(self) -> str:
        """Return all of it for people."""
        lines = [f"# {self.kind}", "", *(f"- {name}: {said}" for name, said in self.about.items())]
        lines += ["", "| | result | seen | seconds |", "|---|---|---|---|"]
        for row, cell in self.whole().items():
            said = " ".join(cell.said.split()).replace("|", "\\|")
            lines.append(f"| {row} | {cell.result} | {said} | {cell.seconds:.0f} |")
        return "\n".join(lines) + "\n"

    def keep(self, folder: Path) -> list[Path]:
        """Write both forms into ``folder``; return where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{self.kind}.json", folder / f"{self.kind}.md"]
        files[0].write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
        files[1].write_text(self.markdown(), encoding="utf-8")
        return files
