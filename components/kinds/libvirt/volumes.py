"""Volumes that are made from a file of this machine: how the provider is told of them, and the seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi_libvirt as libvirt

from components.gates.codec import later
from components.kinds.libvirt import domain_xml
from components.kinds.libvirt.domain import Drive, as_url
from components.kinds.libvirt.domain_xml import DiskProfile
from components.kinds.libvirt.gates.disk import Disk, DiskGate

if TYPE_CHECKING:
    from pathlib import Path

    import pulumi

    from components.kinds.libvirt.place import LibvirtPlace
    from components.place.seeds import Seeded
    from components.stackfile import GuestSpec, MachinePlan

PRIVATE = libvirt.VolumeXmlArgs(xslt=domain_xml.PRIVATE_VOLUME)
"""How a volume is kept from other accounts; a lab's older volumes are not made again for it."""
GIB = 1 << 30
LIKE_DISKS = ("virtio", "scsi")
"""Buses on which a seed is a disk that can't be written to: images for clouds have a driver for the bus of
their own disk, and often none for CD drives (Debian's cloud kernel)."""


def seed_volume(
    host: LibvirtPlace,
    name: str,
    called: str,
    disc: pulumi.Output[str],
    parent: pulumi.Resource | None,
) -> libvirt.Volume:
    """Make the volume ``called`` of a seed, a disc of this machine."""
    return libvirt.Volume(
        name,
        name=host.volume(called),
        pool=host.pool.name,
        xml=PRIVATE,
        source=disc.apply(as_url),
        # As libvirt finds it when it looks again: told otherwise it would be made anew, and its host with it.
        format="iso",
        opts=host.once(parent, depends_on=[host.ready], ignore_changes=["xml"]),
    )


def seed_drive(
    host: LibvirtPlace,
    name: str,
    seeded: Seeded,
    spec: GuestSpec,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
) -> Drive:
    """Make the volume of a guest's seed, and say how the guest sees it.

    Another configuration is another volume, by its name in the state too: so the guest is given the new one
    before the old one goes.
    """
    logical = f"{name}-seed-{seeded.mark}"
    volume = seed_volume(host, logical, f"{seeded.called}.img", seeded.disc, parent)
    bus = plan.disk_bus or LIKE_DISKS[0]
    # cloudbase-init finds a label on a CD; a disk it takes as one only with a program that it need not have.
    if bus in LIKE_DISKS and not seeded.windows:
        return Drive(volume, DiskProfile(bus, readonly=True))
    return Drive(volume, DiskProfile("ide" if spec.machine == "pc" else "sata", "cdrom"))


def data_drive(
    host: LibvirtPlace,
    name: str,
    disk: str,
    gib: int,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
) -> Drive:
    """Make a further disk of a guest, empty; its gate grows it, as the provider would make it anew."""
    # A guest may be called as another with the name of its disk; no name has a dot.
    called = host.volume(f"{plan.called}.{disk}.qcow2")
    volume = libvirt.Volume(
        f"{name}-disk-{disk}",
        name=called,
        pool=host.pool.name,
        xml=PRIVATE,
        format="qcow2",
        size=gib * GIB,
        opts=host.once(parent, depends_on=[host.ready], ignore_changes=["xml", "size"]),
    )
    gate = DiskGate(
        f"{name}-disk-{disk}-gate",
        Disk(
            target=later(host.target),
            uri=host.uri,
            pool=host.pool_name,
            volume=later(volume.name),
            domain=plan.called,
            disk=disk,
            gib=gib,
        ),
        host.bound(parent, depends_on=[volume]),
    )
    return Drive(volume, DiskProfile(plan.disk_bus or LIKE_DISKS[0]), gate)


def format_of(image: Path) -> str:
    """Return what the provider calls the format of ``image``."""
    if not image.is_file():
        return "qcow2"  # in a preview it need not be there
    with image.open("rb") as handle:
        return "qcow2" if handle.read(4) == b"QFI\xfb" else "raw"
