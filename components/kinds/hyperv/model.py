"""Windows Server with the Hyper-V role: installed from Microsoft's ISO, driven by PowerShell (R141-R161)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import (
    Drives,
    Hardware,
    InstalledSpec,
    Kind,
    Minimum,
    Offers,
    ordered,
)
from components.stackfile.problems import Problem, listed
from components.stackfile.values import Cores, Gib, Mib  # noqa: TC001 - pydantic reads them at run time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.stackfile.machines import GuestSpec

LEAST_MIB = 32


class HypervSpec(InstalledSpec):
    """Windows Server 2019, 2022 or 2025 with Hyper-V; the size is the course's."""

    kind: Literal["hyperv"] = Field(
        description="What hypervisor it is: Windows Server with the Hyper-V role"
    )
    memory_mib: Mib = Field(4096, description="Memory, MiB: its own 2048 and that of all it holds")
    cores: Cores = Field(3, description="Virtual cores")
    disk_gib: Gib = Field(40, description="System disk, GiB: its own 20 and those of all it holds")
    firmware: Literal["uefi"] = Field(
        "uefi", description="Firmware that boots it: its answers partition the disk for UEFI"
    )
    machine: Literal["q35"] = Field("q35", description="Chipset")
    disk_bus: Literal["sata"] = Field(
        "sata", description="Bus of the system disk: Windows' installer has no driver for virtio"
    )
    nic_model: Literal["e1000e", "e1000"] = Field(
        "e1000e", description="What its NICs look like: Windows has no driver for virtio"
    )
    edition: str = Field(
        "2",
        min_length=1,
        max_length=80,
        description="Which system of the ISO is installed, by number or name; on Microsoft's ISOs 2 is "
        "Standard with a desktop, 1 the same without, which shows no guest's screen",
    )
    locale: str = Field(
        "en-US",
        pattern=r"^[a-z]{2}-[A-Z]{2}$",
        description="Language of the ISO and form of dates and numbers, such as es-ES",
    )
    time_zone: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9 .+-]{1,60}$",
        description="Time zone as Windows calls it, such as Romance Standard Time; default: UTC",
    )
    openssh: str | None = Field(
        None,
        description="Name of a medium: an ISO with OpenSSH-Win64*.msi, or Microsoft's with Languages "
        "and Optional Features; default: it is downloaded by Windows (2025 has it)",
    )

    @override
    def media(self) -> dict[str, str]:
        return super().media() | ({"openssh": self.openssh} if self.openssh else {})

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        modes = {name: network.mode for name, network in ordered(self.networks)}
        nats = [name for name, mode in modes.items() if mode == "nat"]
        for name in nats[1:]:
            rule = (
                f"Windows gives a host one NAT network (Microsoft's manual), and {nats[0]} is one"
            )
            remedy = "make it isolated or bridge"
            wrong.append(Problem(f"networks.{name}.mode", "'nat' given", rule, remedy))
        uplinks = [
            name
            for name, network in ordered(self.networks)
            if network.mode == "bridge" and network.bridge is None
        ]
        for name in uplinks[1:]:
            rule = f"one switch has the adapter that it is managed by, and {uplinks[0]} is that"
            remedy = f"put its machines on {uplinks[0]}, or name another switch with bridge:"
            wrong.append(Problem(f"networks.{name}.bridge", "nothing given", rule, remedy))
        for name, guest in ordered(self.guests):
            wrong += [problem.under(f"guests.{name}") for problem in _unfit(guest)]
        return wrong


def _unfit(guest: GuestSpec) -> Iterator[Problem]:
    """Yield what Hyper-V refuses of a guest when it is too late: generations, memory."""
    models = [nic.model or guest.nic_model or "synthetic" for nic in guest.nics]
    if guest.firmware == "uefi" and "legacy" in models:
        rule = "generation 2, which boots by UEFI, has synthetic NICs alone"
        yield Problem("nic_model", "'legacy' given", rule, "take synthetic, or firmware: bios")
    boot = guest.boot or ()
    if guest.firmware == "bios" and "network" in boot and "legacy" not in models:
        rule = "generation 1, which boots by BIOS, does so from a legacy NIC alone"
        remedy = "set nic_model: legacy, or firmware: uefi"
        yield Problem("boot", f"{listed(boot)} given", rule, remedy)
    if guest.memory_mib < LEAST_MIB or guest.memory_mib % 2:
        rule = f"Hyper-V gives {LEAST_MIB} MiB or more, by twos"
        remedy = f"write {max(LEAST_MIB, guest.memory_mib + guest.memory_mib % 2)}"
        yield Problem("memory_mib", f"{guest.memory_mib} MiB given", rule, remedy)


def drives(spec: GuestSpec) -> Drives:
    """Return what a guest has drives for beside its disk, its ISO and its seed."""
    if spec.firmware == "uefi":
        return Drives(4, "they are places 3 to 6 of SCSI")
    why = "generation 1 has four places on IDE, and disk, iso and configuration have one each"
    return Drives(2 - bool(spec.cloud_init), why)


_MICROSOFT = "Microsoft's system requirements of Windows Server and of nested virtualization"

KIND = Kind(
    name="hyperv",
    title="Hyper-V",
    model=HypervSpec,
    memory_mib=Minimum(4096, f"{_MICROSOFT}: 4 GB for nesting"),
    cores=Minimum(2, "nestlab's guess"),
    disk_gib=Minimum(32, f"{_MICROSOFT}: 32 GB"),
    reserve_mib=2048,
    reserve_gib=20,
    needs_dhcp=False,
    user="Administrator",
    # Explicit enlightenments, and no TSX: with it Windows ends in "Automatic Repair" once it has the role.
    hardware=Hardware(cpu_without=("hle", "rtm"), hyperv=True, localtime=True),
    # NetBIOS' limit, which Windows holds computer names to.
    longest_name=15,
    ready_s=7200,
    offers=Offers(
        image_formats=("vhdx",),
        nic_models=("synthetic", "legacy"),
        # Hyper-V's maximums: eight synthetic adapters and four legacy ones.
        nics=12,
        disk_buses=("ide", "scsi"),
        modes=("bridge", "isolated", "nat"),
        containers=False,
        probes=("none", "tcp", "ssh"),
        drives=drives,
        disks=8,
        uplink="an external switch over the adapter that it is managed by",
        fixed={
            "agent": "Hyper-V's integration services find their host by themselves: install hyperv-daemons in it",
            "console": "a guest's screen is vmconnect's, on the host's own desktop; or RDP, SSH to it",
            "video": "Hyper-V's own adapter",
            "machine": "generation 1 or 2, as its firmware is bios or uefi",
            "disk_bus": "generation 1 boots from IDE alone, generation 2 from SCSI",
        },
    ),
)
