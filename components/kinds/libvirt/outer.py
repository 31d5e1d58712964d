"""A machine with libvirt as a lab's outer host."""

from __future__ import annotations

import pulumi
import pulumi_libvirt as libvirt

from components.kinds.libvirt.place import LibvirtPlace
from components.place.contract import Lab, pool_of
from components.reach.shell import LOCAL


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> LibvirtPlace:
    """See `components.place.contract.Outer`: access to another machine is by key."""
    del password
    uri = lab.spec.host.where
    return LibvirtPlace(
        lab=lab,
        plan=lab.plan.place(),
        name=f"{lab.prefix}host",
        owner=owner,
        provider=libvirt.Provider(
            f"{lab.prefix}host-libvirt",
            uri=uri,
            opts=pulumi.ResourceOptions(
                parent=owner,
                # The provider connects at once, and says of a failure what few understand.
                depends_on=[] if lab.spec.host.is_here else [lab.identity],
            ),
        ),
        target=LOCAL,
        uri=uri,
        accelerator=lab.accelerator,
        pool_name=pool_of(lab.spec.name),
        pool_path=lab.identity.folder.apply(lambda known: known or _before(lab)),
        group=lab.identity.group,
        cores=cores,
    )


def _before(lab: Lab) -> str:
    """Folder of a lab that was made when folders had no mark: it stays there until it is taken down."""
    host = lab.spec.host
    given = host.chosen
    return given or lab.plan.pool_path
