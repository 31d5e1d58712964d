"""VMware Workstation Pro on a Linux host: a cloud image that sets itself up (R87 to R94)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import ClonedSpec, Drives, Kind, Minimum, Offers
from components.stackfile.problems import Problem
from components.stackfile.values import Cores, Gib, Mib  # noqa: TC001 - pydantic reads them at run time

MOST_CORES = 32
"""In one guest: Workstation Pro 17, configuration maximums."""
MOST_NICS = 10
"""Workstation User's Manual: up to 10 virtual network adapters."""
MEMORY_STEP_MIB = 4
"""Workstation refuses a memory size that is no multiple of it."""


class WorkstationSpec(ClonedSpec):
    """A Linux host with VMware Workstation Pro 17 or newer, from the user's own installation bundle."""

    kind: Literal["workstation"] = Field(
        description="What hypervisor it is: VMware Workstation Pro on a Debian or Ubuntu cloud image"
    )
    memory_mib: Mib = Field(8192, description="Memory, MiB: its own 1024 and that of all it holds")
    cores: Cores = Field(4, description="Virtual cores")
    disk_gib: Gib = Field(40, description="System disk, GiB: its own 8 and those of all it holds")
    bundle: str = Field(
        description="Name of a medium: its maker's VMware-Workstation-Full-*.x86_64.bundle, as "
        "downloaded with a Broadcom account; installing it accepts its licence agreement"
    )

    @override
    def media(self) -> dict[str, str]:
        return super().media() | {"bundle": self.bundle}

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        for name, guest in self.guests.items():
            at = f"guests.{name}"
            if guest.cores > MOST_CORES:
                given, rule = (
                    f"{guest.cores} cores given",
                    f"Workstation gives a guest {MOST_CORES}",
                )
                wrong.append(Problem(f"{at}.cores", given, rule, f"write {MOST_CORES} or less"))
            if guest.memory_mib % MEMORY_STEP_MIB:
                given = f"{guest.memory_mib} MiB given"
                rule = f"Workstation gives memory in steps of {MEMORY_STEP_MIB} MiB"
                remedy = f"write {-(-guest.memory_mib // MEMORY_STEP_MIB) * MEMORY_STEP_MIB}"
                wrong.append(Problem(f"{at}.memory_mib", given, rule, remedy))
            if len(guest.nics) > MOST_NICS:
                given, rule = f"{len(guest.nics)} NICs given", f"a guest has {MOST_NICS} at most"
                wrong.append(Problem(f"{at}.network", given, rule, "remove some"))
        return wrong + self._screens()

    def _screens(self) -> list[Problem]:
        """Return what is wrong with the screens of its guests: VNC, on the port that is named."""
        wrong = []
        taken: dict[int, str] = {}
        for name, guest in self.guests.items():
            at, console = f"guests.{name}.console", guest.console
            if "console" not in guest.model_fields_set or console.type == "none":
                continue
            if console.port is None:
                rule = "Workstation chooses no port by itself: a screen is on the one that is named"
                remedy = "add one, such as port: 5901"
                wrong.append(Problem(f"{at}.port", "nothing given", rule, remedy))
            elif console.port in taken:
                rule = f"guest {taken[console.port]} has its screen there"
                wrong.append(Problem(f"{at}.port", f"{console.port} given", rule, "take another"))
            else:
                taken[console.port] = name
            if console.type != "vnc":
                rule = "Workstation shows screens by VNC"
                wrong.append(Problem(f"{at}.type", f"{console.type!r} given", rule, "remove it"))
            if console.websocket is not None:
                rule = "Workstation's VNC has no WebSocket"
                shown = f"{console.websocket} given"
                wrong.append(Problem(f"{at}.websocket", shown, rule, "remove it"))
        return wrong


_LAB = "nestlab's settings for Linux with Workstation"

KIND = Kind(
    name="workstation",
    title="VMware Workstation",
    model=WorkstationSpec,
    memory_mib=Minimum(
        8192, f"{_LAB}; VMware itself asks for 2 GB at least and recommends 4 for the host alone"
    ),
    cores=Minimum(4, f"{_LAB}: each guest's core has a thread of its own there"),
    disk_gib=Minimum(40, f"{_LAB}: Linux with a compiler, media, and guests' disks"),
    reserve_mib=1024,
    reserve_gib=8,
    needs_dhcp=False,
    # Packages are fetched, and kernel modules compiled; under emulation that takes its time.
    ready_s=3600,
    offers=Offers(
        nic_models=("e1000", "e1000e", "vmxnet3"),
        # VMware's configuration maximums: 10 NICs of a virtual machine.
        nics=10,
        disk_buses=("sata", "scsi"),
        modes=("nat", "isolated", "bridge"),
        probes=("none", "tcp", "ssh"),
        drives=lambda _: Drives(4, "they are SATA's places 3 to 6"),
        disks=8,
        containers=False,
        dhcp=True,
        image_formats=("qcow2", "raw", "vmdk", "vdi", "vhd", "vhdx"),
        uplink="vmnet0, Workstation's bridge to the host's own network",
        fixed={
            "agent": "VMware's tools find their host by themselves: install open-vm-tools in it",
            "video": "VMware's own adapter",
            "machine": "VMware's own chipset",
        },
    ),
)
