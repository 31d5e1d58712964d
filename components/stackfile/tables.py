"""What is said of each kind outside its folder, made anew: ``python3 -m components.stackfile.tables``.

That is ``policies/limits.py``, README's table of proofs, and the first table of each kind's page. A test fails
where one of them is not what the kinds say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from components.stackfile import proofs
from components.stackfile.registry import DEFAULT, HOSTS, KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.stackfile.places import Kind

COMMAND = "python3 -m components.stackfile.tables"
BEGIN, END = f"<!-- made by `{COMMAND}` -->\n", "<!-- end -->\n"
LIMITS = '''\
"""The least a nested hypervisor runs with, by kind, and what it keeps for itself.

Made by ``@COMMAND@`` from the kinds' models, since a published pack carries only this folder.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one kind of hypervisor needs."""

    cores: int
    memory_mib: int
    disk_gib: int
    source: dict[str, str]
    """Who says so, by the names above."""
    reserve_mib: int
    """Memory that the hypervisor keeps for itself, MiB; the rest is for what is inside."""
    reserve_gib: int
    """Disk that the hypervisor keeps for itself, GiB."""
    share_mib: int
    """Of each 1000 MiB of memory, how many it keeps beside ``reserve_mib``."""
    share_gib: int
    """Of each 1000 GiB of disk, likewise."""
    spares: bool
    """Whether it can run its guests without hardware virtualization."""


LIMITS = {
@KINDS@}
ANY = LIMITS["@LEAST@"]
"""For a hypervisor whose kind nobody says: the least of all kinds."""


def limits(kind: str) -> Limits:
    """Return what a hypervisor of ``kind`` needs."""
    return LIMITS.get(kind, ANY)
'''
SIZES = ("cores", "memory_mib", "disk_gib")
UNITS = {"memory_mib": "{} MiB of memory", "cores": "{} cores", "disk_gib": "{} GiB of disk"}


def limits() -> str:
    """Return ``policies/limits.py``."""
    kinds = []
    for name, kind in KINDS.items():
        least = [(size, getattr(kind, size)) for size in SIZES]
        lines = [f"{size}={one.value}," for size, one in least]
        sources = [f"    {json.dumps(size)}: {json.dumps(one.source)}," for size, one in least]
        lines += ["source={", *sources, "},"]
        own = ("reserve_mib", "reserve_gib", "share_mib", "share_gib")
        lines += [f"{each}={getattr(kind, each)}," for each in own]
        lines.append(f"spares={bool(kind.spares)},")
        body = "".join(f"        {line}\n" for line in lines)
        kinds.append(f'    "{name}": Limits(\n{body}    ),\n')
    smallest = min(KINDS, key=lambda name: KINDS[name].memory_mib.value)
    told = {"@COMMAND@": COMMAND, "@KINDS@": "".join(kinds), "@LEAST@": smallest}
    text = LIMITS
    for mark, value in told.items():
        text = text.replace(mark, value)
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["".join(f"| {cell} ".replace("  ", " ") for cell in line) for line in (head, *rows)]
    return "".join(f"{line}|\n" for line in (lines[0], "|---" * len(head), *lines[1:]))


def proved(root: Path) -> str:
    """Return README's table of proofs, for the reports in the checkout ``root``."""
    columns = {name: proofs.nested(name, root) for name in KINDS}
    columns |= {
        f"{host.title}, outer": proofs.outer(name)
        for name, host in HOSTS.items()
        if name != DEFAULT
    }
    rows = [[row, *(column[row] for column in columns.values())] for row in proofs.ROWS]
    return table(["", *columns], rows)


def numbers(kind: Kind) -> str:
    """Return the first table of the page of ``kind``: its sizes, and what it offers."""
    fields, offers = kind.model.model_fields, kind.offers
    sources: dict[str, list[str]] = {}
    for size, text in UNITS.items():
        least = getattr(kind, size)
        sources.setdefault(least.source, []).append(text.format(least.value))
    default = [text.format(fields[size].default) for size, text in UNITS.items()]
    own = [
        f"{reserve} {unit}{f' and {share / 10:g} % of the {what}' if share else ''}"
        for reserve, unit, share, what in (
            (kind.reserve_mib, "MiB", kind.share_mib, "memory"),
            (kind.reserve_gib, "GiB", kind.share_gib, "disk"),
        )
    ]
    images = ", ".join(offers.image_formats) if offers.images else "none"
    holds = {"containers": offers.containers, "nested hypervisors": offers.nests}
    rows = [
        ("least", "; ".join(f"{', '.join(sizes)} ({by})" for by, sizes in sources.items())),
        ("by default", ", ".join(default)),
        ("keeps for itself", ", ".join(own)),
        ("networks", _words(offers.modes)),
        ("a guest's NICs", f"{_words(offers.nic_models)}; at most {offers.nics}"),
        ("a guest's disks", f"{_words(offers.disk_buses)}; images: {images}"),
        ("holds", ", ".join(["guests", *(what for what, yes in holds.items() if yes)])),
    ]
    return table(["", ""], rows)


def _words(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def filled(page: str, block: str) -> str:
    """Return ``page`` with ``block`` between its marks.

    Raises:
        ValueError: it has none, or only one of them.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{BEGIN!r} and {END!r} are not both there")
    return f"{before}{BEGIN}{block}{END}{after}"


def files(root: Path) -> dict[Path, str]:
    """Return what each file has to hold in the checkout ``root``."""
    pages = {root / "README.md": proved(root)}
    pages |= {root / "docs" / f"{name}.md": numbers(kind) for name, kind in KINDS.items()}
    made = {page: filled(page.read_text(encoding="utf-8"), block) for page, block in pages.items()}
    return {root / "policies" / "limits.py": limits(), **made}


def main() -> None:
    """Write them."""
    for file, text in files(Path(__file__).resolve().parents[2]).items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(f"made {file}")


if __name__ == "__main__":
    main()
