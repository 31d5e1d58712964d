"""An ESXi host of a vCenter as a lab's outer host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_vsphere as vs

from components.gates.codec import later
from components.kinds.vsphere.api import Api
from components.kinds.vsphere.gates.node import OneHost, VsphereNode
from components.kinds.vsphere.host import VsphereHost
from components.kinds.vsphere.place import TOGETHER, VspherePlace
from components.place import cluster
from components.reach.shell import LOCAL

if TYPE_CHECKING:
    from components.place.contract import Lab


def outer(
    lab: Lab, *, owner: pulumi.Resource, cores: int, password: pulumi.Output[str] | None
) -> VspherePlace:
    """See `components.place.contract.Outer`: one host of a vCenter, chosen by the lab's name."""
    del cores  # those of this machine
    host = lab.spec.host
    if not isinstance(host, VsphereHost) or password is None:
        raise TypeError("a vCenter is an outer host of kind vsphere, with a password")
    name, node_cores = cluster.node(lab, host, owner)

    def known(secret: str) -> Api:
        return Api(server=host.server, user=host.user, password=secret, insecure=host.insecure)

    api: pulumi.Output[Api] = pulumi.Output.secret(password.apply(known))
    node = VsphereNode(
        f"{lab.prefix}host-node",
        OneHost(
            api=later(api),
            server=host.server,
            datacenter=host.datacenter,
            node=later(name),
            datastore=host.datastore,
        ),
        pulumi.ResourceOptions(parent=owner),
    )
    provider = vs.Provider(
        f"{lab.prefix}host-vsphere",
        vsphere_server=node.endpoint,
        user=host.user,
        password=password,
        allow_unverified_ssl=host.insecure,
        opts=pulumi.ResourceOptions(parent=owner),
    )
    return VspherePlace(
        lab=lab,
        plan=lab.plan.place(),
        owner=owner,
        host=host,
        provider=provider,
        api=api,
        node=node,
        on=name,
        target=LOCAL,
        cores=min(node_cores, TOGETHER),
    )
