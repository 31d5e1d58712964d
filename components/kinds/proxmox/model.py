"""Proxmox VE: installed from its ISO, with virtual machines and containers of its own (R112)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from components.kinds.proxmox.host import DISCS, PACKED
from components.stackfile.places import InstalledSpec, Kind, Minimum, Offers
from components.stackfile.problems import Problem
from components.stackfile.values import Cores, Flag, Gib, Mib  # noqa: TC001 - pydantic reads them at run time


class ProxmoxSpec(InstalledSpec):
    """Proxmox VE 8.4 or newer, the first that can be told to answer as the machine that was planned."""

    kind: Literal["proxmox"] = Field(description="What hypervisor it is: Proxmox VE")
    memory_mib: Mib = Field(4096, description="Memory, MiB: its own 1024 and that of all it holds")
    cores: Cores = Field(2, description="Virtual cores")
    disk_gib: Gib = Field(
        32, description="System disk, GiB: its own, 16 and 2 %, and those of all it holds"
    )
    filesystem: Literal["ext4", "xfs"] = Field(
        "ext4",
        description="File system of its root; guests' disks are on LVM-thin beside it",
    )
    kvm: Flag = Field(
        True,
        description="Whether its guests use hardware virtualization; false where the outer host "
        "gives none",
    )

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        if self.nested is False and self.kvm:
            rule = "with nested: false it sees no hardware virtualization, and starts no guest with KVM"
            remedy = "add kvm: false, which emulates them, or remove nested:"
            wrong.append(Problem("kvm", "true given, or left as it is", rule, remedy))
        return wrong


LVM = {"swapsize": 1.0, "maxroot": 12.0, "minfree": 0.5}
"""What its installer is told of the system disk, GiB; by itself it gives root up to 96, swap up to 8."""
_ADMIN = "Proxmox VE Administration Guide, System Requirements"

KIND = Kind(
    name="proxmox",
    title="Proxmox VE",
    model=ProxmoxSpec,
    memory_mib=Minimum(2048, f"{_ADMIN}: 1 GB for evaluation, and its guests'"),
    cores=Minimum(2, "nestlab's guess"),
    disk_gib=Minimum(20, "nestlab's guess, for its installer's default layout"),
    reserve_mib=1024,
    # With `LVM`: 0.5 or 1 GiB to boot, swap, root, free, and 1 % of the rest, at least 1 GiB, twice for the
    # pool's own bookkeeping (pve-installer, Install.pm, create_lvm_volumes).
    reserve_gib=16,
    share_gib=20,
    needs_dhcp=False,
    ready_s=3600,
    needs=lambda spec: spec.kvm,
    spares="emulated",
    # The same KVM as in a nested KVM host.
    lives_emulated=True,
    offers=Offers(
        nic_models=("virtio", "e1000", "e1000e", "vmxnet3", "rtl8139"),
        disk_buses=("scsi", "virtio", "sata", "ide"),
        virtio=("scsi", "virtio"),
        modes=("bridge", "isolated"),
        # net0 to net31 of its API.
        nics=32,
        containers=True,
        packed=PACKED,
        nests=True,
        ahci=("q35",),
        ends=True,
        probes=("none", "tcp", "ssh"),
        drives=lambda _: DISCS,
        disks=8,
        uplink="vmbr0, its bridge to the network it is managed by",
        fixed={
            "console": "its web interface shows screens, with noVNC",
            "command": "a container runs its template's init",
        },
    ),
)
