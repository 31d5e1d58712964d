"""What the doctor says of a machine's NICs: ``python -m components.kinds.libvirt.uplink.report UPLINKS``.

A module of its own, as the doctor works before there is an environment, and asks this one's Python. It is run in the
network namespace that libvirt lives in.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from components.kinds.libvirt.uplink import checks
from components.kinds.libvirt.uplink.host import Facts, Host, Manager
from components.kinds.libvirt.uplink.steps import Wanted
from components.reach.shell import LocalShell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Nic:
    """A NIC of the machine; devices that programs make are none."""

    name: str
    wireless: bool
    manager: Manager


@dataclass(frozen=True)
class Report:
    """What was found."""

    nics: list[Nic]
    problems: list[str]
    """Why uplinks of the stack can't be, each with what to do."""
    risks: list[str]
    """What may keep guests from being reached, each with what to do."""


def report(host: Host, uplinks: dict[str, Wanted]) -> Report:
    """Look at ``host``; ``uplinks`` are those of a stack, by network.

    Raises:
        Unreachable, NetError: it can't tell.
    """
    links = host.look().links.values()
    real = [
        each.ifname for each in links if each.link_type == "ether" and not each.linkinfo.info_kind
    ]
    facts = host.look(*dict.fromkeys([*real, *(each.nic for each in uplinks.values())]))

    def told(judge: Callable[[Facts, Wanted], Iterator[str]]) -> list[str]:
        return [
            f"network {name}: {why}" for name, it in uplinks.items() for why in judge(facts, it)
        ]

    return Report(
        [Nic(name, name in facts.wireless, facts.managers.get(name, "")) for name in real],
        told(checks.problems),
        told(checks.warnings),
    )


def main(argv: list[str]) -> int:
    """Print the report as JSON; ``argv[0]`` has the stack's uplinks by network, as JSON."""
    uplinks = {name: Wanted(**each) for name, each in json.loads(argv[0]).items()}
    print(json.dumps(asdict(report(Host(LocalShell()), uplinks))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
