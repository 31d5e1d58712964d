"""Proxmox VE as a nested hypervisor: its maker's installer, told everything on a second CD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_proxmoxve as px

from components.gates.probes import Command, Probe
from components.kinds.proxmox import probe
from components.kinds.proxmox.api import Api
from components.kinds.proxmox.model import KIND
from components.kinds.proxmox.place import DISKS, FILES, ProxmoxPlace
from components.place import installation as installed
from components.place.installation import Installation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.kinds.proxmox.model import ProxmoxSpec
    from components.place.contract import (
        HypervisorMade,
        Lab,
        NestingPlace,
        NetworkMade,
    )
    from components.stackfile import (
        MachinePlan,
    )

PORT = 8006


def _recipe(spec: ProxmoxSpec, plan: MachinePlan) -> Installation:
    return Installation(
        media="proxmox",
        api=PORT,
        disk="vda" if plan.disk_bus == "virtio" else "sda",
        options={"filesystem": spec.filesystem},
        probe=Probe(
            kind="proxmox",
            commands=[Command(["pveversion"], "pve-manager")],
            node=plan.name,
            storages=[FILES, DISKS],
        ),
    )


def install(
    name: str,
    *,
    lab: Lab,
    host: NestingPlace,
    spec: ProxmoxSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    opts: pulumi.ResourceOptions,
) -> HypervisorMade:
    """Make a nested Proxmox VE on ``host``."""
    made = installed.install(
        name,
        _recipe(spec, plan),
        lab=lab,
        host=host,
        spec=spec,
        plan=plan,
        networks=networks,
        opts=opts,
    )
    opened = made.opened
    # Known only when the gate is open: a provider with a known address connects in preview too.
    known = opened.answers.apply(lambda _: made.url)
    provider = px.Provider(
        f"{name}-proxmox",
        endpoint=known.apply(lambda each: f"{each}/"),
        username=probe.USER,
        password=made.password,
        insecure=True,
        opts=host.bound(opts.parent),
    )
    api: pulumi.Output[Api] = pulumi.Output.all(known, made.password).apply(
        lambda each: Api(url=each[0], user=probe.USER, password=each[1], insecure=True)
    )
    place = ProxmoxPlace(
        lab=lab,
        plan=lab.plan.place(*plan.path),
        name=name,
        owner=opts.parent,
        provider=provider,
        api=api,
        target=opened.reach,
        node=plan.name,
        cores=plan.cores,
        kvm=spec.kvm,
        web=f"https://{plan.address}:{PORT}",
        ours=True,
        inside=opened.inside,
    )
    return opened.made(
        plan,
        place,
        user=KIND.user,
        user_password=made.password,
        url=f"https://{plan.address}:{PORT}",
    )


INSTALLER = install
