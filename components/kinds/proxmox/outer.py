"""A node of a Proxmox VE cluster as a lab's outer host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_proxmoxve as px

from components.kinds.proxmox.api import Api
from components.kinds.proxmox.host import ProxmoxHost
from components.kinds.proxmox.place import ProxmoxPlace
from components.place import cluster
from components.reach.shell import LOCAL

if TYPE_CHECKING:
    from components.place.contract import Lab

TOGETHER = 4
"""Most machines of one lab that start at the same time on a cluster, where the stack says nothing."""


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> ProxmoxPlace:
    """See `components.place.contract.Outer`: one node of a cluster, chosen by the lab's name."""
    del cores  # those of this machine
    host = lab.spec.host
    if not isinstance(host, ProxmoxHost) or password is None:
        raise TypeError("a Proxmox VE cluster is an outer host of kind proxmox, with a password")
    node, node_cores = cluster.node(lab, host, owner)
    token = "!" in host.user
    provider = px.Provider(
        f"{lab.prefix}host-proxmox",
        endpoint=f"{host.endpoint}/",
        insecure=host.insecure,
        api_token=password.apply(lambda secret: f"{host.user}={secret}") if token else None,
        username=None if token else host.user,
        password=None if token else password,
        opts=pulumi.ResourceOptions(parent=owner),
    )

    def known(secret: str) -> Api:
        return Api(url=host.endpoint, user=host.user, password=secret, insecure=host.insecure)

    return ProxmoxPlace(
        lab=lab,
        plan=lab.plan.place(),
        name=f"{lab.prefix}host",
        owner=owner,
        provider=provider,
        api=pulumi.Output.secret(password.apply(known)),
        target=LOCAL,
        node=node,
        cores=min(node_cores, TOGETHER),
        files=host.files,
        disks=host.disks,
        uplink=host.uplink,
        linked=host.linked,
        web=host.endpoint,
    )
