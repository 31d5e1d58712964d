"""A nested Xen host: Debian 12 with Xen 4.17 and xl, from the golden image ``xen`` (R95, R96)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import (
    UPLINK,
    Drives,
    Hardware,
    HypervisorSpec,
    Kind,
    Minimum,
    Offers,
)
from components.stackfile.problems import Problem
from components.stackfile.values import Cores, Gib, Mib  # noqa: TC001 - pydantic reads them at run time

NIC: Literal["virtio"] = "virtio"


class XenSpec(HypervisorSpec):
    """A Debian host with Xen and its toolstack xl, cloned from a golden image."""

    kind: Literal["xen"] = Field(description="What hypervisor it is: Debian with Xen")
    memory_mib: Mib = Field(4096, description="Memory, MiB: its own 1664 and that of all it holds")
    cores: Cores = Field(2, description="Virtual cores")
    disk_gib: Gib = Field(8, description="System disk, GiB: its own 3 and those of all it holds")
    machine: Literal["pc"] = Field("pc", description="Chipset: pc, the one its image boots on")
    firmware: Literal["bios"] = Field("bios", description="Firmware: bios, for the image's GRUB")
    disk_bus: Literal["virtio"] = Field(
        "virtio", description="Bus of the system disk: the one its image has a driver for"
    )
    nic_model: Literal["virtio"] = Field(NIC, description="What its NICs look like to it")

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions() + [
            Problem(
                f"network.{number}.model",
                f"{nic.model!r} given",
                f"its image has a driver for {NIC}",
                "remove it",
            )
            for number, nic in enumerate(self.nics)
            if nic.model not in {None, NIC}
        ]
        rule = "its guests are paravirtual, and Xen shows these no hardware virtualization"
        return wrong + [
            Problem(f"guests.{name}.nested", "true given", rule, "remove it")
            for name, guest in self.guests.items()
            if guest.nested
        ]


_LAB = "nestlab's settings for Debian with Xen"

KIND = Kind(
    name="xen",
    title="Xen",
    model=XenSpec,
    memory_mib=Minimum(3072, f"{_LAB}: dom0 has 1536 MiB, Xen itself 128, guests the rest"),
    cores=Minimum(2, _LAB),
    disk_gib=Minimum(8, f"{_LAB}: its system has 0.5 GiB of it, media and guests the rest"),
    reserve_mib=1664,
    reserve_gib=3,
    needs_dhcp=True,
    golden="xen",
    # Its guests are paravirtual.
    needs=lambda _: False,
    spares="paravirtual",
    # An emulated processor with all that QEMU can emulate stops Xen 4.17 at boot.
    hardware=Hardware(cpu="Nehalem"),
    offers=Offers(
        nic_models=("netfront",),
        disk_buses=("xen",),
        modes=("nat", "isolated", "bridge"),
        uplink="a bridge on its first NIC",
        uplink_device=UPLINK,
        containers=False,
        dhcp=True,
        image_formats=("raw",),
        probes=("none", "tcp", "ssh"),
        drives=lambda _: Drives(4, "they are xvdd to xvdg"),
        disks=8,
        fixed={
            "agent": "its guests are paravirtual, and the kernel takes xl's word for switching off",
            "firmware": "its guests are paravirtual, PV GRUB boots them",
            "machine": "its guests are paravirtual and have no chipset",
            "video": "its guests are paravirtual and have a text console",
            "console": "its guests are paravirtual: `xl console NAME` shows their text console",
            "boot": "PV GRUB boots the disk's boot/grub/grub.cfg, or the CD's if that has none",
        },
    ),
)
