"""Nested KVM: a Debian host with libvirt, a linked clone of the golden image.

It boots the image's own kernel directly, so no boot loader runs, and learns who may log in from its
seed. Its guests have hardware virtualization, which the CPU given to it makes real or emulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_libvirt as libvirt

from components.hypervisors import golden
from components.hypervisors.access import access
from components.hypervisors.domain import fingerprint, machine_facts
from components.hypervisors.handle import HypervisorMade, Inside
from components.hypervisors.libvirt import LibvirtPlace
from components.remote.shell import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.hypervisors.handle import Lab, NetworkMade
    from components.spec import HypervisorSpec, MachinePlan

USER = "root"
POOL = "nestlab"
POOL_PATH = "/var/lib/libvirt/nestlab"


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
    """Make a nested KVM host on ``host``."""
    parent = opts.parent
    image = lab.golden["kvm"]
    way = access(name, lab, host, plan, parent, user=USER)
    drives, boot = golden.drives(name, lab, host, plan, image, way.host_key, parent)
    domain, password = host.domain(name, spec, plan, networks, drives, parent, boot)
    gate = host.gate(
        name,
        plan,
        domain,
        {"kind": "libvirt", "forward": list(way.doors.forward)},
        parent,
        instance=fingerprint(machine_facts(spec, plan), image),
        key_folder=way.folder,
        reach=way.reach,
    )
    uri = (
        f"qemu+ssh://{USER}@{way.doors.address}:{way.doors.ports[SSH_PORT]}/system"
        f"?sshauth=privkey&keyfile={way.folder}/id_ed25519&knownhosts={way.folder}/known_hosts"
    )
    # Known only when the gate is open: a provider with a known address connects in preview too.
    provider = libvirt.Provider(
        f"{name}-libvirt",
        uri=gate.answers.apply(lambda _: uri),
        opts=host.bound(parent),
    )
    place = LibvirtPlace(
        lab=lab,
        plan=lab.plan.place(*plan.path),
        name=name,
        owner=parent or gate,
        provider=provider,
        target=gate.reach,
        uri=golden.LIBVIRT,
        accelerator="kvm",
        pool_name=POOL,
        pool_path=POOL_PATH,
        cores=plan.cores,
        inside=Inside(domain, drives[0].volume),
    )
    return HypervisorMade(
        ready=gate,
        address=plan.address or "",
        console=gate.console,
        password=password,
        user=USER,
        place=place,
    )


INSTALLER = install
