"""Nested Xen: Debian with Xen 4.17, a linked clone of the golden image ``xen``, driven by ``xl`` in dom0.

It boots by its own GRUB, as Xen comes before Linux, and learns who may log in from its seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.probes import Command, Probe
from components.kinds.libvirt import cloned as golden
from components.kinds.xen.model import KIND
from components.place.driven import Commands

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.kinds.libvirt.place import LibvirtPlace
    from components.place.contract import HypervisorMade, Lab, NetworkMade
    from components.stackfile import HypervisorSpec, MachinePlan

# Its first boot is all of it: nothing is installed, and nothing starts again.
PROBE = Probe(kind="ssh", commands=[Command(["xl", "list"], "Domain-0")])


PLACE = Commands(driver="xen", store="/var/lib/nestlab/xen")


def install(
    name: str,
    *,
    lab: Lab,
    host: LibvirtPlace,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> HypervisorMade:
    """Make a nested Xen host on ``host``."""
    opened, _ = golden.opened(
        name,
        lab.golden["xen"],
        PROBE,
        direct=False,
        lab=lab,
        host=host,
        spec=spec,
        plan=plan,
        networks=networks,
        parent=opts.parent,
    )
    place = PLACE.at(
        name,
        lab=lab,
        plan=lab.plan.place(*plan.path),
        target=opened.reach,
        cores=plan.cores,
        owner=opts.parent,
        inside=opened.inside,
    )
    return opened.made(plan, place, user=KIND.user)


INSTALLER = install
