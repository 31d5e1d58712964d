"""What nested hypervisors share that are linked clones of a golden image: system disk and seed.

An image that has a kernel beside it is booted directly, any other by its own boot loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi
import pulumi_libvirt as libvirt

from components.domain_xml import DiskProfile
from components.hypervisors.access import access
from components.hypervisors.domain import DirectBoot, Drive, fingerprint, machine_facts
from components.hypervisors.handle import Inside, Opened
from components.hypervisors.libvirt import HALF_MADE, PRIVATE, as_url
from components.media import seed as script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from components.gates.secrets import SshKey
    from components.hypervisors.access import Access
    from components.hypervisors.handle import JsonMap, Lab, NetworkMade
    from components.hypervisors.libvirt import LibvirtPlace
    from components.spec import GoldenImage, HypervisorSpec, MachinePlan

LIBVIRT = "qemu:///system"
USER = "root"
"""Whom the seed lets in."""


def opened(
    name: str,
    golden: pulumi.Output[GoldenImage],
    probe: JsonMap,
    *,
    direct: bool,
    lab: Lab,
    host: LibvirtPlace,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    parent: pulumi.Resource | None,
) -> tuple[Opened, Access]:
    """Make a clone of ``golden`` and wait until it takes orders; ``probe`` lacks where it is reached.

    ``direct``: the image has a kernel beside it, which is booted; otherwise its own boot loader is.
    """
    way = access(name, lab, host, plan, parent, user=USER)
    disks, boot = drives(name, lab, host, plan, golden, way.host_key, parent, direct=direct)
    domain, password = host.domain(name, spec, plan, networks, disks, parent, boot)
    gate = host.gate(
        name,
        plan,
        domain,
        {**probe, "forward": list(way.doors.forward)},
        parent,
        instance=fingerprint(machine_facts(spec, plan)),
        key_folder=way.folder,
        reach=way.reach,
    )
    inside = Inside(domain, disks[0].volume)
    return Opened(gate, gate.reach, gate.answers, inside, gate.console, password), way


def drives(
    name: str,
    lab: Lab,
    host: LibvirtPlace,
    plan: MachinePlan,
    golden: pulumi.Output[GoldenImage],
    host_key: SshKey,
    parent: pulumi.Resource | None,
    *,
    direct: bool,
) -> tuple[list[Drive], DirectBoot | None]:
    """Make the disks of a clone of ``golden``, and say what boots from the first."""
    disk, boot = system(name, host, plan, golden, parent, direct=direct)
    medium = seed(name, lab, host, plan, host_key, parent)
    return [
        Drive(disk, DiskProfile(plan.disk_bus or "virtio")),
        # A virtio disk and not a CD: the image has drivers for neither IDE nor SATA.
        Drive(medium, DiskProfile("virtio", readonly=True)),
    ], boot


def system(
    name: str,
    host: LibvirtPlace,
    plan: MachinePlan,
    golden: pulumi.Output[GoldenImage],
    parent: pulumi.Resource | None,
    *,
    direct: bool,
) -> tuple[libvirt.Volume, DirectBoot | None]:
    """Make the system disk, and say what boots from it; None: its own boot loader."""

    def of(part: Callable[[GoldenImage], str]) -> pulumi.Output[str]:
        return golden.apply(part)

    cmdline = golden.apply(_words)
    if not host.plan.path and host.lab.spec.host.where == LIBVIRT:
        disk = host.disk(
            name,
            plan,
            parent,
            base_volume_name=of(lambda each: each.volume),
            base_volume_pool=of(lambda each: each.pool),
        )
        if not direct:
            return disk, None
        kernel, initrd = of(lambda each: each.kernel), of(lambda each: each.initrd)
        return disk, DirectBoot(kernel, initrd, cmdline)

    # The set-up put the image within reach of this machine's libvirt; any other gets a copy.
    def copy(part: str, form: str) -> pulumi.Output[str]:
        made = libvirt.Volume(
            f"{name}-golden-{part}",
            name=host.volume(f"{plan.domain_name}-golden-{part}"),
            pool=host.pool.name,
            xml=PRIVATE,
            source=of(lambda each: as_url(str(getattr(each.files, part)))),
            format=form,
            opts=host.options(parent, depends_on=[host.ready], ignore_changes=["xml"]),
        )
        return made.id

    disk = host.disk(name, plan, parent, base_volume_id=copy("disk", "qcow2"))
    if not direct:
        return disk, None
    return disk, DirectBoot(copy("kernel", "raw"), copy("initrd", "raw"), cmdline)


def _words(golden: GoldenImage) -> list[dict[str, str]]:
    """Return the kernel arguments as the provider reads them back: words without a value last."""
    pairs = {word.key: word.value for word in golden.cmdline if word.key != "_"}
    alone = " ".join(word.value for word in golden.cmdline if word.key == "_")
    return [pairs, *([{"_": alone}] if alone else [])]


def seed(
    name: str,
    lab: Lab,
    host: LibvirtPlace,
    plan: MachinePlan,
    host_key: SshKey,
    parent: pulumi.Resource | None,
) -> libvirt.CloudInitDisk:
    """Make the medium that says who may log in, and as whom the machine answers."""
    user_data: pulumi.Output[str] = pulumi.Output.all(
        lab.key.public, host_key.private, host_key.public
    ).apply(
        lambda keys: script.user_data(
            name=plan.name, authorized=keys[0], host_private=keys[1], host_public=keys[2]
        )
    )
    return libvirt.CloudInitDisk(
        f"{name}-seed",
        name=host.volume(f"{plan.domain_name}-seed.iso"),
        pool=host.pool.name,
        user_data=user_data,
        meta_data=lab.identity.value.apply(
            lambda identity: script.meta_data(name=plan.name, instance=f"{identity}-{plan.name}")
        ),
        opts=host.options(
            parent,
            depends_on=[host.ready],
            delete_before_replace=True,
            replace_on_changes=HALF_MADE,
        ),
    )
