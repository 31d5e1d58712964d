"""From what a stack file holds to a `LabSpec`, or to one message with everything that is wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import ValidationError

from components.spec.bounds import exceeded
from components.spec.checks import check
from components.spec.explain import explain
from components.spec.lab import LabSpec
from components.spec.problems import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from components.spec.allow import Allowed


def load(
    data: object,
    *,
    root: Path,
    exists: Callable[[str], bool] = os.path.exists,
    allowed: Allowed | None = None,
) -> LabSpec:
    """Return the lab that ``data`` (the value of ``nestlab:lab``) describes.

    Relative paths of files are taken from ``root``, the project's folder. ``exists`` says whether
    a file is there; a file that is there is also looked into. ``allowed`` says what a stack may name;
    None, for who takes nothing from the lab that it names: everything.

    Raises:
        SpecError: with every problem. Rules across the whole lab are only asked once each part
            of it is right by itself.
    """
    if too_much := exceeded(data):
        raise SpecError(too_much)
    try:
        lab = LabSpec.model_validate(data, context={"root": str(root)})
    except ValidationError as refused:
        raise SpecError(explain(refused, LabSpec, "lab")) from None
    if problems := check(lab, exists, allowed):
        raise SpecError(problems)
    return lab
