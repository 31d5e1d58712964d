"""The drives of a guest's seed and discs on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.gates.codec import later
from components.kinds.proxmox.gates.seed import PveSeed, SeedFile
from components.reach.shell import NOWHERE

if TYPE_CHECKING:
    import pulumi

    from components.kinds.proxmox.place import ProxmoxPlace
    from components.place.seeds import Seeded
    from components.stackfile import GuestSpec, MachinePlan

FIRST = 2
"""Of the places on SATA, that of the first disc."""
DRIVES = {"scsi": "scsi1", "virtio": "scsi1", "sata": "sata1", "ide": "ide1"}
"""Where a seed is, by the bus of the disk: its guest has a driver for that bus, or for virtio's. Not ide3, which the
provider takes for the CD of a guest that has none, and would remove after a refresh (its vm.go, dvCDROMInterface)."""


def as_cd(volume: str) -> str:
    """Return ``volume`` in a CD drive, as an option of a guest."""
    return f"{volume},media=cdrom"


def further_drives(
    node: ProxmoxPlace,
    name: str,
    seeded: Seeded | None,
    spec: GuestSpec,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
) -> dict[str, pulumi.Input[str]]:
    """Return the drives of a guest's seed and further discs, as options of it."""
    found = seed_drive(node, name, seeded, plan, parent) if seeded else {}
    discs = {
        f"sata{number}": node.medium(disc, "iso").id.apply(as_cd)
        for number, disc in enumerate(spec.discs, FIRST)
    }
    return found | discs


def seed_drive(
    node: ProxmoxPlace,
    name: str,
    seeded: Seeded,
    plan: MachinePlan,
    parent: pulumi.Resource | None,
) -> dict[str, pulumi.Input[str]]:
    """Send a seed, and return the drive that it is in, as an option of its guest.

    Another configuration's is another file, so the guest has it before the old one goes. A second CD is an
    option like any other: ``scsi[n]``, ``sata[n]`` and ``ide[n]`` of qm.conf(5), with ``media=cdrom``.
    """
    file = PveSeed(
        f"{name}-seed-{seeded.mark}",
        SeedFile(
            api=later(node.api),
            node=later(node.node),
            storage=node.files,
            called=f"{seeded.called}.iso",
            path=later(seeded.disc),
            size=later(seeded.size),
            sha256=later(seeded.sha256),
            closes=later(node.target) if node.ours else NOWHERE,
        ),
        node.bound(parent),
    )
    # Windows has a driver for SATA's by itself, and that for virtio-scsi only where somebody installed it.
    drive = DRIVES["sata" if seeded.windows else plan.disk_bus or "scsi"]
    return {drive: file.volume.apply(as_cd)}
