"""Nested Xen: Debian with Xen 4.17, a linked clone of the golden image ``xen``, driven by ``xl`` in dom0.

It boots by its own GRUB, as Xen comes before Linux, and learns who may log in from its seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.hypervisors import golden
from components.hypervisors.commands import Commands, Screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.hypervisors.handle import HypervisorMade, Lab, NetworkMade
    from components.hypervisors.libvirt import LibvirtPlace
    from components.spec import GuestSpec, HypervisorSpec, MachinePlan

PROBE: dict[str, Any] = {
    "kind": "ssh",
    "commands": [{"argv": ["xl", "list"], "holds": "Domain-0"}],
    # Its first boot is all of it: nothing is installed, and nothing starts again.
    "steady": 1,
}


def screen(spec: GuestSpec, plan: MachinePlan) -> Screen:
    """Return how a guest is looked at: a paravirtual one has a console and no screen."""
    del spec
    return Screen(enter=("xl", "console", plan.domain_name))


PLACE = Commands(driver="xen", store="/var/lib/nestlab/xen", screen=screen)


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
    return opened.made(plan, place, user=golden.USER)


INSTALLER = install
