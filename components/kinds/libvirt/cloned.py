"""What nested hypervisors share that are linked clones of a golden image: system disk and seed.

An image that has a kernel beside it is booted directly, any other by its own boot loader.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pulumi
import pulumi_libvirt as libvirt

from components.gates.codec import later
from components.gates.seed import Seed, SeedDisc
from components.kinds.libvirt import seed as script
from components.kinds.libvirt.domain import DirectBoot, Drive, as_url
from components.kinds.libvirt.domain_xml import DiskProfile
from components.kinds.libvirt.volumes import PRIVATE, seed_volume
from components.place.contract import Awaited, Inside, Opened
from components.place.login import planned_login
from components.place.machine import fingerprint, machine_facts
from components.stackfile.registry import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from components.findings import GoldenImage
    from components.gates.probes import Probe
    from components.kinds.libvirt.place import LibvirtPlace
    from components.place.contract import Lab, NetworkMade
    from components.place.login import Login
    from components.stackfile import HypervisorSpec, MachinePlan

LIBVIRT = "qemu:///system"
STUCK_S = 120.0
"""It boots by itself in a fraction of this, seconds; emulated, on a busy machine, in half of it."""


def opened(
    name: str,
    golden: pulumi.Output[GoldenImage],
    probe: Probe,
    *,
    direct: bool,
    lab: Lab,
    host: LibvirtPlace,
    spec: HypervisorSpec,
    plan: MachinePlan,
    networks: Mapping[str, NetworkMade],
    parent: pulumi.Resource | None,
) -> tuple[Opened, Login]:
    """Make a clone of ``golden`` and wait until it takes orders; ``probe`` lacks where it is reached.

    ``direct``: the image has a kernel beside it, which is booted; otherwise its own boot loader is.
    """
    login = planned_login(name, lab, host, plan, parent, user=KINDS[spec.kind].user)
    disks, boot = drives(name, lab, host, plan, golden, login, parent, direct=direct)
    domain, password = host.domain(name, spec, plan, networks, disks, parent, boot)
    gate = host.gate(
        name,
        plan,
        domain,
        Awaited(
            probe=replace(probe, forward=list(login.route.forward)),
            reach=login.reach,
            key_folder=login.folder,
            stuck_s=STUCK_S,
        ),
        parent,
        instance=fingerprint(machine_facts(spec, plan)),
    )
    inside = Inside(domain, disks[0].volume)
    return Opened(gate, gate.reach, gate.answers, inside, gate.console, password), login


def drives(
    name: str,
    lab: Lab,
    host: LibvirtPlace,
    plan: MachinePlan,
    golden: pulumi.Output[GoldenImage],
    login: Login,
    parent: pulumi.Resource | None,
    *,
    direct: bool,
) -> tuple[list[Drive], DirectBoot | None]:
    """Make the disks of a clone of ``golden``, and say what boots from the first."""
    disk, boot = system(name, host, plan, golden, parent, direct=direct)
    medium = seed(name, lab, host, plan, login, parent)
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
            name=host.volume(f"{plan.called}-golden-{part}"),
            pool=host.pool.name,
            xml=PRIVATE,
            source=of(lambda each: as_url(str(getattr(each.files, part)))),
            format=form,
            opts=host.once(parent, depends_on=[host.ready], ignore_changes=["xml"]),
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
    login: Login,
    parent: pulumi.Resource | None,
) -> libvirt.Volume:
    """Make the medium that says who may log in, and as whom the machine answers."""
    files: pulumi.Output[dict[str, str]] = pulumi.Output.all(
        authorized=login.key.public,
        host_private=login.host_key.private,
        host_public=login.host_key.public,
        instance=lab.identity.value.apply(lambda identity: f"{identity}-{plan.name}"),
    ).apply(lambda known: script.files(name=plan.name, uplink=_uplink(lab, plan), **known))
    made = SeedDisc(
        f"{name}-seed-disc",
        Seed(label=script.LABEL, files=later(files), private=login.folder),
        host.bound(parent),
    )
    # Not what older labs called theirs: it would be that one, and go with it.
    called = f"{plan.called}-seed.img"
    return seed_volume(host, f"{name}-seed", called, made.disc, parent)


def _uplink(lab: Lab, plan: MachinePlan) -> script.Uplink | None:
    """Return the bridge that one of its networks joins; None where none does."""
    inside = lab.plan.place(*plan.path)
    device = KINDS[inside.kind].offers.uplink_device if inside.kind else ""
    joined = device and any(
        network.mode == "bridge" and network.bridge == device
        for network in inside.networks.values()
    )
    return script.Uplink(device, plan.nics[0].mac) if joined else None
