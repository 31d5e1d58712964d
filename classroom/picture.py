"""A picture of a lab: layer within layer, with networks and addresses; as SVG, and as text for Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from components.stackfile import LabPlan, MachinePlan, NetworkPlan

WIDTH, LINE, EDGE, TITLE = 760, 22, 12, 26
"""Of the picture, a line of text, the space around a box, and its title: pixels."""
COLOURS = ("#f3f4f6", "#dbeafe", "#dcfce7", "#fef9c3", "#fce7f3")
"""Of the boxes, by layer; the text on them is black."""
MIB = 1024


@dataclass(frozen=True)
class Box:
    """A place or a machine: lines of text, and what is in it."""

    title: str
    layer: int
    lines: tuple[str, ...] = ()
    inside: list[Box] = field(default_factory=list)

    @property
    def height(self) -> int:
        """Pixels from its upper edge to its lower."""
        inner = sum(each.height + EDGE for each in self.inside)
        return TITLE + LINE * len(self.lines) + inner + EDGE


def boxes(plan: LabPlan, kinds: Mapping[str, str]) -> Box:
    """Return the lab as boxes; ``kinds`` says of each machine what it is."""
    whole = Box("outer host", 0, tuple(map(_network, plan.places[0].networks.values())))
    made: dict[tuple[str, ...], Box] = {(): whole}
    for place in plan.places:
        for machine in place.machines.values():
            inner = next((p for p in plan.places if p.path == machine.path), None)
            networks = tuple(map(_network, inner.networks.values())) if inner else ()
            box = Box(
                f"{machine.name}: {kinds.get(machine.name, 'guest')}",
                machine.layer,
                (_size(machine), *_nics(machine), *networks),
            )
            made[machine.path] = box
            made[place.path].inside.append(box)
    return whole


def _network(network: NetworkPlan) -> str:
    where = network.subnet or f"bridge {network.bridge or 'of the host'}"
    return f"network {network.name}: {where}, {network.mode}"


def _size(machine: MachinePlan) -> str:
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    memory = machine.memory_mib
    size = f"{memory // MIB} GiB" if memory % MIB == 0 else f"{memory} MiB"
    return f"{size}, {cores}" + (f", disk {machine.disk_gib} GiB" if machine.disk_gib else "")


def _nics(machine: MachinePlan) -> Iterator[str]:
    for nic in machine.nics:
        yield f"on {nic.network}: {nic.address or 'address by DHCP'}"


def svg(box: Box, title: str) -> str:
    """Return the picture as one SVG element that needs nothing else."""
    high = box.height + 2
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {high}" '
        f'width="{WIDTH}" height="{high}" font-family="sans-serif" font-size="14">'
    )
    lines = [begin, f"<title>{escape(title)}</title>", *_svg(box, 1, 1, WIDTH - 2), "</svg>"]
    return "\n".join(lines)


def _svg(box: Box, x: int, y: int, width: int) -> Iterator[str]:
    colour = COLOURS[box.layer % len(COLOURS)]
    yield (
        f'<rect x="{x}" y="{y}" width="{width}" height="{box.height}" rx="6" fill="{colour}" '
        'stroke="#374151"/>'
    )
    y += LINE - 4
    yield f'<text x="{x + EDGE}" y="{y}" font-weight="bold">{escape(box.title)}</text>'
    for line in box.lines:
        y += LINE
        yield f'<text x="{x + EDGE}" y="{y}">{escape(line)}</text>'
    y += TITLE - LINE + 4
    for each in box.inside:
        yield from _svg(each, x + EDGE, y, width - 2 * EDGE)
        y += each.height + EDGE


def text(box: Box) -> str:
    """Return the picture as lines of text."""
    return "\n".join(_text(box, ""))


def _text(box: Box, before: str) -> Iterator[str]:
    yield f"{before}{box.title}"
    for line in box.lines:
        yield f"{before}   {line}"
    for each in box.inside:
        yield from _text(each, f"{before}   ")
