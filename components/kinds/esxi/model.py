"""VMware ESXi, stand-alone: installed from its ISO, with virtual machines of its own (R162)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import Drives, InstalledSpec, Kind, Minimum, Offers
from components.stackfile.problems import Problem, choose, listed
from components.stackfile.values import Cores, Gib, Later, Mib

if TYPE_CHECKING:
    from components.stackfile.networks import NicModel

_Nic = Literal["vmxnet3", "e1000e"]
NICS: tuple[NicModel, ...] = get_args(_Nic)
"""ESXi 7.0 dropped the driver of e1000; without a NIC it knows it does not install (R168, R169)."""

MOST_CORES = 8
FREE = "that ESXi's free licence allows in one guest"
"""Of one guest, with the free licence (R163)."""
MEMORY_STEP_MIB = 4


_Licence = Annotated[
    str,
    Field(pattern=r"^[0-9A-Z]{5}(-[0-9A-Z]{5}){4}$"),
    Later(
        "an ESXi's licence",
        "five groups of five capital letters and digits, with hyphens between them",
        "00000-00000-00000-00000-00000",
    ),
]


class EsxiSpec(InstalledSpec):
    """ESXi 7.0, 8.0 or 9.0, managed on its own, without a vCenter."""

    kind: Literal["esxi"] = Field(description="What hypervisor it is: VMware ESXi, stand-alone")
    memory_mib: Mib = Field(12288, description="Memory, MiB: its own 2048 and that of all it holds")
    cores: Cores = Field(4, description="Virtual cores")
    disk_gib: Gib = Field(50, description="System disk, GiB: its own 33 and those of all it holds")
    machine: Literal["q35", "pc"] = Field(
        "q35",
        description="Chipset; pc to ESXi 8.0 only: the CD is on IDE there, which 9.0 can't read. On "
        "Proxmox VE it has to be pc",
    )
    disk_bus: Literal["sata"] | None = Field(
        "sata", description="Bus of the system disk: the only one that every ESXi from 7.0 on sees"
    )
    nic_model: _Nic | None = Field("vmxnet3", description="What NICs look like to it")
    licence: _Licence | None = Field(
        None, description="Licence key, five groups; default: none, which is 60 days of everything"
    )

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        for number, nic in enumerate(self.nics):
            if nic.model is not None and nic.model not in NICS:
                rule = f"ESXi has drivers for {listed(NICS)}"
                at = f"network.{number}.model"
                wrong.append(Problem(at, f"{nic.model!r} given", rule, choose(nic.model, NICS)))
        for name, guest in self.guests.items():
            if guest.cores > MOST_CORES:
                given, rule = f"{guest.cores} cores given", f"{MOST_CORES} are the most {FREE}"
                remedy = f"write {MOST_CORES} or less"
                wrong.append(Problem(f"guests.{name}.cores", given, rule, remedy))
            if guest.memory_mib % MEMORY_STEP_MIB:
                given = f"{guest.memory_mib} MiB given"
                rule = f"ESXi gives memory in steps of {MEMORY_STEP_MIB} MiB"
                remedy = f"write {-(-guest.memory_mib // MEMORY_STEP_MIB) * MEMORY_STEP_MIB}"
                wrong.append(Problem(f"guests.{name}.memory_mib", given, rule, remedy))
        return wrong


KIND = Kind(
    stick=True,
    name="esxi",
    title="VMware ESXi",
    model=EsxiSpec,
    memory_mib=Minimum(8192, "VMware's requirements for 7.0 and 8.0; 12288 to run guests"),
    cores=Minimum(2, "VMware: with less it does not install; 4 recommended"),
    # systemMediaSize=min leaves it 32.25 GiB.
    disk_gib=Minimum(
        37, "VMware: 33 for its system, and a datastore is made of 4 more or not at all"
    ),
    reserve_mib=2048,
    reserve_gib=33,
    needs_dhcp=False,
    reads_ahci=False,
    ready_s=3600,
    offers=Offers(
        nic_models=("vmxnet3", "e1000", "e1000e"),
        # VMware's configuration maximums: 10 NICs of a virtual machine.
        nics=10,
        disk_buses=("sata", "scsi", "ide"),
        modes=("bridge", "isolated"),
        containers=False,
        probes=("none", "ssh"),
        # A switch without an uplink has no port of ESXi's own.
        beyond=("isolated",),
        image_formats=("vmdk",),
        drives=lambda _: Drives(4, "they are SATA's places 2 to 5"),
        disks=8,
        uplink="vSwitch0, its switch to the network it is managed by",
        fixed={
            "agent": "VMware's tools find their host by themselves: install open-vm-tools in it",
            "console": "its Host Client shows screens, at https://ADDRESS/ui",
            "video": "VMware's own adapter",
            "machine": "VMware's own chipset",
        },
    ),
)
