"""A machine with libvirt and QEMU: this one, or another over SSH."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field
from typing_extensions import override

from components.stackfile.host import Accelerates, Entry, HostKind, HostSpec
from components.stackfile.machines import Probe
from components.stackfile.networks import Mode
from components.stackfile.places import Drives, Offers
from components.stackfile.pools import POOLS
from components.stackfile.values import Folder, Uri  # noqa: TC001 - pydantic reads them at run time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.stackfile.machines import GuestSpec

LOCAL_URI = "qemu:///system"
SSH_PORT = 22
PLACES = {"pc": ("ide", 4), "q35": ("sata", 6)}
"""The bus of CDs by chipset, and how many drives are on it: QEMU's pc has two IDE channels of two, q35's own
AHCI controller six ports (its manual, "i440fx PC" and ICH9_SATA; libvirt makes further controllers of SATA alone)."""


def drives(spec: GuestSpec) -> Drives:
    """Return what a guest has drives for beside its disk, its ISO and its seed."""
    bus, places = PLACES[spec.machine]
    # A seed is a CD of Windows, and where the disk is on neither virtio nor SCSI (`volumes.seed_drive`).
    told = spec.cloud_init
    seed = told is not None and (told.windows or spec.disk_bus in {"ide", "sata"})
    disk = bool(spec.image or spec.disk_gib) and spec.disk_bus == bus
    taken = {"its disk": disk, "its iso": bool(spec.iso), "its configuration": seed}
    who = [what for what, there in taken.items() if there]
    most = places - len(who)
    why = f"{spec.machine} has {places} places on {bus.upper()}"
    return Drives(most, f"{why}, of which {' and '.join(who)} take {len(who)}" if who else why)


LIBVIRT = Offers(
    nic_models=("virtio", "e1000", "e1000e", "vmxnet3", "rtl8139"),
    disk_buses=("virtio", "scsi", "sata", "ide"),
    virtio=("virtio", "scsi"),
    modes=tuple(mode for mode in get_args(Mode) if mode != "macvtap"),
    containers=False,
    apart="containers need a nested hypervisor, here they would share the host's kernel",
    nests=True,
    golden=True,
    sticks=True,
    dhcp=True,
    probes=get_args(Probe),
    drives=drives,
    disks=8,
)
"""libvirt with QEMU, wherever it runs."""


class LibvirtHost(HostSpec):
    """A machine with libvirt, and how much of it the lab may take."""

    kind: Literal["libvirt"] = Field(
        "libvirt", description="What the outer host is: a machine with libvirt"
    )
    uri: Uri = Field(
        "qemu:///system",
        description="Its libvirt: qemu:///system, or qemu+ssh://USER@HOST/system?keyfile=PATH",
    )
    accelerator: Accelerates = Field(
        "auto",
        description="What runs the first layer: kvm; tcg, emulation; auto, the doctor's verdict on this machine; for another one say which",
    )
    pool_path: Folder | None = Field(
        None,
        description=f"Its folder in which the lab makes one of its own for its disks; default: {POOLS}",
    )

    @property
    @override
    def is_here(self) -> bool:
        return self.uri.startswith(LOCAL_URI)

    @property
    @override
    def accelerates(self) -> Accelerates:
        return self.accelerator

    @property
    @override
    def swept(self) -> str:
        return self.uri

    @property
    @override
    def chosen(self) -> str | None:
        return self.pool_path

    @property
    @override
    def folders(self) -> str:
        return self.pool_path or POOLS

    @property
    @override
    def ends_networks(self) -> bool:
        return not self.is_here

    @property
    @override
    def where(self) -> str:
        return self.uri

    @property
    @override
    def entry(self) -> Entry | None:
        parts = urlsplit(self.uri)
        if not parts.hostname:
            return None
        return Entry("uri", parts.username or "", parts.hostname, parts.port or SSH_PORT)

    @property
    @override
    def own_files(self) -> Mapping[str, str]:
        given = dict(parse_qsl(urlsplit(self.uri).query))
        here = ("keyfile", "knownhosts", *(() if self.entry else ("socket",)))
        return {name: given[name] for name in here if name in given}


# No containers: they would share the kernel of the class's host.
HOST = HostKind(
    name="libvirt",
    title="libvirt",
    model=LibvirtHost,
    offers=replace(LIBVIRT, modes=get_args(Mode), uplinks=True, closes=True),
)
