"""Oracle VirtualBox 7 on a Linux host: a cloud image that sets itself up (R62 to R86)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from components.stackfile.places import ClonedSpec, Drives, Kind, Minimum, Offers
from components.stackfile.problems import Problem
from components.stackfile.values import Cores, Gib, Mib, Sha256  # noqa: TC001 - pydantic reads them at run time

DiscFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]*$")]
"""A file in the root of a CD, whose name no shell reads as anything else."""


class VirtualboxSpec(ClonedSpec):
    """A Linux host with VirtualBox 7."""

    kind: Literal["virtualbox"] = Field(
        description="What hypervisor it is: Oracle VirtualBox on a Debian or Ubuntu cloud image"
    )
    memory_mib: Mib = Field(4096, description="Memory, MiB: its own 1024 and that of all it holds")
    cores: Cores = Field(2, description="Virtual cores")
    disk_gib: Gib = Field(30, description="System disk, GiB: its own 8 and those of all it holds")
    tools: str | None = Field(
        None,
        description="Name of a medium: a CD labelled nestlab-tools that holds what package and "
        "extension_pack name; default: none",
    )
    package: DiscFile | None = Field(
        None,
        description="Oracle's package on that CD, such as virtualbox-7.1_7.1.4-165100~Debian~bookworm"
        "_amd64.deb; default: the distribution's own, which Ubuntu has and Debian 12 has not",
    )
    extension_pack: DiscFile | None = Field(
        None,
        description="Oracle's extension pack on that CD, of the same version: guests' screens by RDP; "
        "for personal and educational use (PUEL)",
    )
    licence: Sha256 | None = Field(
        None,
        description="SHA-256 of the extension pack's licence, as VBoxManage's --accept-license takes "
        "it: giving it accepts the licence",
    )

    @override
    def media(self) -> dict[str, str]:
        return super().media() | ({"tools": self.tools} if self.tools else {})

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        for field in ("package", "extension_pack"):
            value = getattr(self, field)
            if value and not self.tools:
                rule = "it lies on a CD, and none is named"
                remedy = "add tools: with the name of a medium"
                wrong.append(Problem(field, f"{value!r} given", rule, remedy))
        if self.tools and not (self.package or self.extension_pack):
            rule = "nothing is taken from that CD"
            remedy = "name a package: or an extension_pack: on it, or remove it"
            wrong.append(Problem("tools", f"{self.tools!r} given", rule, remedy))
        if bool(self.extension_pack) is not bool(self.licence):
            field = "licence" if self.extension_pack else "extension_pack"
            rule = "Oracle's extension pack is installed by who accepts its licence"
            wrong.append(Problem(field, "nothing given", rule, "give both, or neither"))
        return wrong + self._screens()

    def _screens(self) -> list[Problem]:
        """Return what is wrong with the screens of its guests: RDP, on loopback, without a password."""
        wrong = []
        taken: dict[int, str] = {}
        for name, guest in self.guests.items():
            at, console = f"guests.{name}.console", guest.console
            given = console.model_fields_set
            if "console" not in guest.model_fields_set or console.type == "none":
                continue
            if not self.extension_pack:
                rule = "VirtualBox shows screens by its extension pack alone"
                remedy = "give the hypervisor an extension_pack:, or remove it"
                wrong.append(Problem(at, "a setting given", rule, remedy))
                continue
            if console.port is None:
                rule = "a guest has a screen on the port that is named, by RDP"
                remedy = "add one, such as port: 5900"
                wrong.append(Problem(f"{at}.port", "nothing given", rule, remedy))
            elif console.port in taken:
                rule = f"guest {taken[console.port]} has its screen there"
                wrong.append(Problem(f"{at}.port", f"{console.port} given", rule, "take another"))
            else:
                taken[console.port] = name
            if "type" in given and console.type != "vnc":
                rule = "its screens are RDP, whatever a viewer is called elsewhere"
                wrong.append(Problem(f"{at}.type", f"{console.type!r} given", rule, "remove it"))
            if not ip_address(console.listen).is_loopback:
                rule = "VirtualBox' screens have no password here, so they stay on loopback"
                remedy = "remove it and come by `ssh -L`"
                wrong.append(Problem(f"{at}.listen", f"{console.listen!r} given", rule, remedy))
            for field in ("password", "websocket"):
                if field in given and getattr(console, field):
                    rule = "VirtualBox' screens have none here: they listen on loopback only"
                    shown = f"{getattr(console, field)} given"
                    wrong.append(Problem(f"{at}.{field}", shown.lower(), rule, "remove it"))
        return wrong


_LAB = "nestlab's settings for Linux with VirtualBox"

KIND = Kind(
    name="virtualbox",
    title="VirtualBox",
    model=VirtualboxSpec,
    memory_mib=Minimum(4096, f"{_LAB}: Linux, VirtualBox' own, and a guest's 2 GiB"),
    cores=Minimum(2, _LAB),
    disk_gib=Minimum(30, f"{_LAB}: Linux with a compiler, media, and guests' disks"),
    reserve_mib=1024,
    reserve_gib=8,
    needs_dhcp=False,
    # Packages are fetched, and kernel modules compiled; under emulation that takes its time.
    ready_s=3600,
    offers=Offers(
        image_formats=("qcow2", "raw", "vdi", "vmdk", "vhd", "vhdx"),
        nic_models=("e1000", "virtio", "pcnet"),
        # VirtualBox' manual, Virtual Networking: eight with the chipset PIIX3.
        nics=8,
        disk_buses=("sata", "scsi", "ide", "virtio"),
        virtio=("virtio",),
        modes=("nat", "isolated", "bridge"),
        drives=lambda _: Drives(8, "they are SATA's ports 3 to 10"),
        disks=8,
        containers=False,
        dhcp=True,
        # VirtualBox' manual, "NAT networks", and its natd (VBoxNetLwipNAT, VBoxNetSlirpNAT).
        keeps={
            "nat": {
                2: "VirtualBox leads it to its host's own loopback",
                3: "VirtualBox 7.2 has its name server there",
            }
        },
        uplink="the device of its default route",
        probes=("none", "tcp", "ssh"),
        # VirtualBox' manual, "Network Address Translation Service": the host has no device on it.
        beyond=("nat",),
        fixed={
            "agent": "Guest Additions find their host by themselves: install virtualbox-guest-utils in it",
        },
    ),
)
