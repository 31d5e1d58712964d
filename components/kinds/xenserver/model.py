"""XCP-ng 8.3 and XenServer 8: installed from their ISO, with virtual machines of their own (R99)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import Drives, Hardware, InstalledSpec, Kind, Minimum, Offers
from components.stackfile.problems import Problem
from components.stackfile.values import Cores, Gib, Mib  # noqa: TC001 - pydantic reads them at run time

if TYPE_CHECKING:
    from components.stackfile.machines import GuestSpec

NIC: Literal["e1000"] = "e1000"


def drives(spec: GuestSpec) -> Drives:
    """Return what a guest has drives for beside its disk, its ISO and its seed."""
    why = "XAPI emulates four drives, and disk, iso and configuration have one each"
    return Drives(2 - bool(spec.cloud_init), why)


class XenServerSpec(InstalledSpec):
    """XCP-ng 8.3 or XenServer 8; older ones have other installers."""

    kind: Literal["xenserver"] = Field(description="What hypervisor it is: XCP-ng or XenServer")
    memory_mib: Mib = Field(
        8192, description="Memory, MiB: its own, 1168 and 5.8 %, and that of all it holds"
    )
    cores: Cores = Field(4, description="Virtual cores")
    disk_gib: Gib = Field(64, description="System disk, GiB: its own 42 and those of all it holds")
    # XCP-ng's guide to XCP-ng in a VM: with UEFI "installation may complete but may not boot", and
    # its kernel has virtio drivers for neither disks nor NICs.
    machine: Literal["pc"] = Field("pc", description="Chipset: pc, the one it is known to work on")
    firmware: Literal["bios"] = Field(
        "bios", description="Firmware: bios; with UEFI an installed one may not boot"
    )
    disk_bus: Literal["scsi", "sata"] = Field(
        "scsi", description="Bus of the system disk: scsi is LSI Logic's; it knows no virtio"
    )
    nic_model: Literal["e1000"] = Field(NIC, description="What its NICs look like to it")
    video: Literal["vga", "cirrus"] = Field("vga", description="Graphics adapter")
    sr_type: Literal["ext", "lvm"] = Field(
        "ext", description="Storage of its guests' disks: ext takes what they use, lvm all at once"
    )

    @override
    def contradictions(self) -> list[Problem]:
        return super().contradictions() + [
            Problem(
                f"network.{number}.model",
                f"{nic.model!r} given",
                f"XCP-ng has drivers for {NIC} among what this host emulates, and none for virtio",
                "remove it",
            )
            for number, nic in enumerate(self.nics)
            if nic.model not in {None, NIC}
        ]


_GUIDE = "XCP-ng's guide to XCP-ng in a VM"

KIND = Kind(
    name="xenserver",
    title="XCP-ng or XenServer",
    model=XenServerSpec,
    memory_mib=Minimum(4096, _GUIDE),
    cores=Minimum(2, _GUIDE),
    # min_primary_disk_size
    disk_gib=Minimum(50, f"{_GUIDE}; its installer refuses less than 46"),
    # Its control domain takes 1024 MiB and 5 % of what there is and 256 MiB (python-libs, xcp/dom0.py,
    # default_memory_v3), Xen itself about 128 MiB and 1/128.
    reserve_mib=1168,
    share_mib=58,
    # Its installer's partitions: 512 + 18432 + 18432 + 1024 + 4096 MiB.
    reserve_gib=42,
    needs_dhcp=False,
    hardware=Hardware(scsi="lsilogic"),
    ready_s=5400,
    offers=Offers(
        # The emulated model; a guest with Xen's own drivers uses those beside either of them.
        nic_models=("rtl8139", "e1000"),
        # XenServer's configuration limits: seven virtual NICs of a guest.
        nics=7,
        disk_buses=("xen",),
        modes=("bridge", "isolated"),
        containers=False,
        probes=("none", "tcp", "ssh"),
        # XCP-ng's documentation, internal networks: none of the host's own interfaces is on one.
        beyond=("isolated",),
        drives=drives,
        disks=8,
        uplink="the network that it is managed by",
        image_formats=("raw", "vhd"),
        fixed={
            "agent": "Xen's guest tools find their host by themselves: install xe-guest-utilities in it",
            "machine": "each of its guests has the chipset pc",
            "console": "XO Lite, its web interface, shows screens to who logs in there",
        },
    ),
)
