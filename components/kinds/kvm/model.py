"""A nested KVM host: Debian with libvirt, from the golden image, ready at its first boot."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from components.kinds.libvirt.host import LIBVIRT
from components.stackfile.places import UPLINK, HypervisorSpec, Kind, Minimum
from components.stackfile.values import Cores, Gib, Mib  # noqa: TC001 - pydantic reads them at run time


class KvmSpec(HypervisorSpec):
    """A Debian host with libvirt and QEMU, cloned from the golden image."""

    kind: Literal["kvm"] = Field(description="What hypervisor it is: Debian with KVM and libvirt")
    memory_mib: Mib = Field(4096, description="Memory, MiB: its own 512 and that of all it holds")
    cores: Cores = Field(2, description="Virtual cores")
    disk_gib: Gib = Field(8, description="System disk, GiB: its own 2 and those of all it holds")


_LAB = "nestlab's settings for Debian with KVM"

KIND = Kind(
    name="kvm",
    title="a KVM host",
    model=KvmSpec,
    memory_mib=Minimum(2048, _LAB),
    cores=Minimum(2, _LAB),
    disk_gib=Minimum(8, "size of the disk nestlab's own measurements ran with"),
    reserve_mib=512,
    reserve_gib=2,
    needs_dhcp=True,
    golden="kvm",
    # Without it its libvirt emulates.
    needs=lambda _: False,
    spares="emulated",
    offers=replace(
        LIBVIRT,
        containers=True,
        uplink="a bridge on its first NIC",
        uplink_device=UPLINK,
        templates={"busybox": "BusyBox: one static program, its shell and small tools"},
    ),
)
