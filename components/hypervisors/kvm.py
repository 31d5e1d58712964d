"""Nested KVM: a Debian host with libvirt, a linked clone of the golden image.

It boots the image's own kernel directly, so no boot loader runs, and learns who may log in from its
seed. Its guests have hardware virtualization, which the CPU given to it makes real or emulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_libvirt as libvirt

from components.domain_xml import DiskProfile
from components.hypervisors.access import access
from components.hypervisors.domain import DirectBoot, Drive, fingerprint, machine_facts
from components.hypervisors.handle import HypervisorMade, Inside
from components.hypervisors.libvirt import LibvirtPlace
from components.media import seed
from components.remote.shell import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.gates.secrets import SshKey
    from components.hypervisors.handle import Lab, NetworkMade
    from components.spec import GoldenImage, HypervisorSpec, MachinePlan

USER = "root"
POOL = "nestlab"
POOL_PATH = "/var/lib/libvirt/nestlab"
LIBVIRT = "qemu:///system"


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
    golden = lab.golden["kvm"]
    way = access(name, lab, host, plan, parent, user=USER)
    disk, boot = _system(name, host, plan, golden, parent)
    medium = _seed(name, lab, host, plan, way.host_key, parent)
    drives = [
        Drive(disk, DiskProfile(plan.disk_bus or "virtio")),
        # A virtio disk and not a CD: Debian's cloud kernel has drivers for neither IDE nor SATA.
        Drive(medium, DiskProfile("virtio", readonly=True)),
    ]
    domain, password = host.domain(name, spec, plan, networks, drives, parent, boot)
    gate = host.gate(
        name,
        plan,
        domain,
        {"kind": "libvirt", "forward": list(way.doors.forward)},
        parent,
        instance=fingerprint(machine_facts(spec, plan), golden),
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
        uri=LIBVIRT,
        accelerator="kvm",
        pool_name=POOL,
        pool_path=POOL_PATH,
        cores=plan.cores,
        inside=Inside(domain, disk),
    )
    return HypervisorMade(
        ready=gate,
        address=plan.address or "",
        console=gate.console,
        password=password,
        user=USER,
        place=place,
    )


def _system(
    name: str,
    host: LibvirtPlace,
    plan: MachinePlan,
    golden: GoldenImage,
    parent: pulumi.Resource | None,
) -> tuple[libvirt.Volume, DirectBoot]:
    """Make the system disk, and say what boots from it."""
    cmdline = _words(golden)
    if not host.plan.path and host.lab.spec.host.where == LIBVIRT:
        disk = host.disk(
            name,
            plan,
            parent,
            base_volume_name=golden.volume,
            base_volume_pool=golden.pool,
        )
        return disk, DirectBoot(golden.kernel, golden.initrd, cmdline)
    # The set-up put the image within reach of this machine's libvirt; any other gets a copy.
    copies: dict[str, Any] = {}
    for part, form in (("disk", "qcow2"), ("kernel", "raw"), ("initrd", "raw")):
        copies[part] = libvirt.Volume(
            f"{name}-golden-{part}",
            name=f"{plan.domain_name}-golden-{part}",
            pool=host.pool.name,
            source=getattr(golden.files, part),
            format=form,
            opts=host.options(parent),
        )
    disk = host.disk(name, plan, parent, base_volume_id=copies["disk"].id)
    return disk, DirectBoot(copies["kernel"].id, copies["initrd"].id, cmdline)


def _words(golden: GoldenImage) -> list[dict[str, str]]:
    """Return the kernel arguments as the provider reads them back: words without a value last."""
    pairs = {word.key: word.value for word in golden.cmdline if word.key != "_"}
    alone = " ".join(word.value for word in golden.cmdline if word.key == "_")
    return [pairs, *([{"_": alone}] if alone else [])]


def _seed(
    name: str,
    lab: Lab,
    host: LibvirtPlace,
    plan: MachinePlan,
    host_key: SshKey,
    parent: pulumi.Resource | None,
) -> libvirt.CloudInitDisk:
    user_data: pulumi.Output[str] = pulumi.Output.all(
        lab.key.public, host_key.private, host_key.public
    ).apply(
        lambda keys: seed.user_data(
            name=plan.name, authorized=keys[0], host_private=keys[1], host_public=keys[2]
        )
    )
    return libvirt.CloudInitDisk(
        f"{name}-seed",
        name=f"{plan.domain_name}-seed.iso",
        pool=host.pool.name,
        user_data=user_data,
        meta_data=lab.identity.value.apply(
            lambda identity: seed.meta_data(name=plan.name, instance=f"{identity}-{plan.name}")
        ),
        opts=host.options(parent, delete_before_replace=True),
    )


INSTALLER = install
