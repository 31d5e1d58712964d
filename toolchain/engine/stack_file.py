"""Reading the stack file, which a branch may have put anything in the place of: never more of it than a stack is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.bootstrap import paths, ui
from toolchain.bootstrap.regular import Irregular, read

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1 << 20
"""Of a stack file, bytes: 500 machines, the most of a lab, take half of it with every field written out,
and the engine takes seconds to read two."""
MOST_FIELDS = 15_000
"""Of a stack file, told by its colons: 30 for each of 500 machines. The engine compares each key of a mapping
with each other one (yaml.v3's check for a key given twice): 30,000 in one took it 12 s."""


def of(stack: str) -> Path:
    """Return the file of ``stack``, whether it is there or not."""
    return paths.ROOT / "stacks" / f"Pulumi.{stack}.yaml"


def stacks() -> list[str]:
    """Return the names of the stacks that have a file, sorted."""
    found = (paths.ROOT / "stacks").glob("Pulumi.*.yaml")
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in found)


def content(file: Path) -> bytes:
    """Return what is in a stack file; a branch may hold a link to anything in its place.

    Raises:
        Problem: it leads out of the checkout, is no file, or larger than a stack can be.
    """
    try:
        real = file.resolve(strict=True)
    except RuntimeError:
        raise ui.Problem(f"{file} is a link that leads to itself.") from None
    if not real.is_relative_to(paths.ROOT.resolve()):
        raise ui.Problem(
            f"{file} is a link that leads out of the checkout: put the file itself there."
        )
    return regular(real)


def regular(file: Path) -> bytes:
    """Return what is in ``file``, which may be anything but for where it is.

    Raises:
        Problem: it is no file, larger than a stack can be, or has more fields.
    """
    try:
        found = read(file, LARGEST)
    except Irregular as wrong:
        raise ui.Problem(
            f"{file} {wrong}, and no stack is as large, or anything else than a file: put the stack "
            "file itself there."
        ) from None
    if (fields := found.count(b":")) > MOST_FIELDS:
        raise ui.Problem(
            f"{file} has {fields} colons, and no stack has more than {MOST_FIELDS} fields: make several "
            "labs of it."
        )
    return found


def words(file: Path) -> str:
    """Return the text of a stack file as far as there is one to read, for who only looks for words in it."""
    try:
        return content(file).decode(errors="replace")
    except (OSError, ui.Problem):
        return ""  # so it is refused by whoever reads it
