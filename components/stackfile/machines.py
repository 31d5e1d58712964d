"""What the machines of a place look like: guests, and the part they share with hypervisors.

A guest comes from an ISO (an installer, a live system), or as a linked clone of a disk image. No
raw domain XML may be given: what the profile can't say belongs into a kind.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads it at run time
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import override

from components.stackfile.cloud_init import (
    CloudInitSpec,  # noqa: TC001 - pydantic reads it at run time
)
from components.stackfile.networks import NicModel, NicSpec
from components.stackfile.offered import Offered
from components.stackfile.problems import Problem, refuse
from components.stackfile.values import (
    Address,
    Cores,
    Flag,
    Gib,
    Later,
    Listen,
    Mib,
    Name,
    Port,
    Seconds,
    SpecModel,
)

DiskBus = Annotated[str, Offered("disk_buses")]
Probe = Literal["lease", "tcp", "none", "ssh"]
BootDevice = Literal["cdrom", "hd", "network"]
VNC_FIRST_PORT = 5900
"""QEMU counts VNC displays from this port up."""


def _form(value: Any) -> str:
    return "<list>" if isinstance(value, list | tuple | dict) else "<name>"


Nics = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[tuple[NicSpec, ...], Tag("<list>")],
    Discriminator(_form),
]
"""A network's name for one NIC, or a list of NICs. The tags never reach a message."""


class ConsoleSpec(SpecModel):
    """Where a machine's screen can be seen."""

    type: Literal["vnc", "spice", "none"] = Field("vnc", description="Protocol of the screen")
    listen: Listen = Field(
        "127.0.0.1", description="Address of its host on which the console listens"
    )
    port: Port | None = Field(None, description="TCP port; default: the next free one from 5900")
    websocket: Annotated[int, Field(strict=True, ge=-1, le=65535)] | None = Field(
        None, description="WebSocket port for noVNC; -1 lets libvirt choose; default: none"
    )
    password: Flag = Field(
        True, description="Whether a password is generated; can't be off beyond loopback"
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        wrong = []
        if not self.password and self.type != "none" and not ip_address(self.listen).is_loopback:
            rule = f"on {self.listen} whoever reaches the host would hold the machine's keyboard"
            remedy = "remove it, or listen on 127.0.0.1"
            wrong.append(Problem("password", "false given", rule, remedy))
        if self.websocket is not None and self.type != "vnc":
            rule = f"only VNC goes through a WebSocket, and the type is {self.type}"
            wrong.append(
                Problem("websocket", f"{self.websocket} given", rule, "remove it or set type: vnc")
            )
        if self.websocket == 0:
            rule = "a WebSocket needs a port"
            remedy = "write -1 for one that libvirt chooses"
            wrong.append(Problem("websocket", "0 given", rule, remedy))
        if self.port is not None and self.type == "none":
            rule = "there is no console to listen on it"
            wrong.append(Problem("port", f"{self.port} given", rule, "remove it or set type: vnc"))
        if self.port is not None and self.type == "vnc" and self.port < VNC_FIRST_PORT:
            rule = f"QEMU's VNC displays begin at port {VNC_FIRST_PORT}"
            remedy = f"take {VNC_FIRST_PORT} or a higher one"
            wrong.append(Problem("port", f"{self.port} given", rule, remedy))
        if wrong:
            refuse(*wrong)
        return self


class MachineSpec(SpecModel):
    """What a guest and a nested hypervisor share: size, NICs, virtual hardware."""

    memory_mib: Mib = Field(description="Memory, MiB")
    cores: Cores = Field(
        1, description="Virtual cores; all machines together may exceed the real ones"
    )
    disk_gib: Gib = Field(
        0, description="System disk, GiB; 0: no disk, or with an image the image's own size"
    )
    network: Nics | None = Field(
        None, description="Network of the same place, or a list of NICs; default: no NIC"
    )
    address: Address | None = Field(
        None, description="Fixed IPv4 address of the one NIC; default: a planned one"
    )
    nic_model: NicModel | None = Field(
        None, description="What NICs look like to the machine; default: the first its place offers"
    )
    disk_bus: DiskBus | None = Field(
        None, description="Bus of the system disk; default: the first its place offers"
    )
    firmware: Literal["bios", "uefi"] = Field("bios", description="Firmware that boots the machine")
    machine: Literal["q35", "pc"] = Field(
        "pc", description="Chipset; pc has IDE, q35 has PCI Express"
    )
    video: Literal["virtio", "vga", "qxl", "cirrus", "none"] = Field(
        "vga", description="Graphics adapter; vga is understood by every installer"
    )
    console: ConsoleSpec = Field(
        default_factory=ConsoleSpec, description="Where the screen can be seen"
    )
    autostart: Flag = Field(True, description="Whether it starts with its host")
    nested: Flag | None = Field(
        None,
        description="Whether its CPU shows hardware virtualization (vmx, svm), which hypervisors in it need; "
        "default: true for a hypervisor, for a guest what its place shows by itself (docs/nested.md)",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := self.contradictions():
            refuse(*wrong)
        return self

    def contradictions(self) -> list[Problem]:
        """Return what in this machine contradicts itself, whatever the place around it."""
        wrong = []
        if self.machine == "q35" and self.disk_bus == "ide":
            rule = "the chipset q35 has no IDE controller"
            remedy = "set disk_bus: sata, or machine: pc"
            wrong.append(Problem("disk_bus", "'ide' given", rule, remedy))
        if self.address is not None and not isinstance(self.network, str):
            rule = "it belongs to the one NIC of `network: NAME`"
            remedy = "name the network, or give each NIC of the list its own address"
            wrong.append(Problem("address", f"{str(self.address)!r} given", rule, remedy))
        return wrong

    @property
    def nics(self) -> tuple[NicSpec, ...]:
        """The NICs in order, whichever way they were written."""
        if isinstance(self.network, str):
            return (NicSpec(network=self.network, address=self.address),)
        return self.network or ()

    def media(self) -> dict[str, str]:
        """Return the media the machine uses, by the field that names them."""
        return {}


class ReadySpec(SpecModel):
    """When a guest counts as up."""

    probe: Probe | None = Field(
        None,
        description="lease: it took its address by DHCP; tcp: it accepts a connection on `port`; "
        "none: it was started; ssh: its user logs in, and what cloud_init says is done. Default: ssh with "
        "cloud_init, lease where its network has DHCP, else none",
    )
    port: Port | None = Field(None, description="TCP port of probe tcp")
    deadline_s: Seconds | None = Field(
        None,
        description="Longest wait, seconds; default: boot.lease_s, with probe ssh boot.ready_s",
    )
    reset_s: Annotated[int, Field(strict=True, ge=10, le=86400)] | None = Field(
        None,
        description="After how many seconds a guest that is not up is reset, repeated until the "
        "deadline: emulated firmware hangs now and then; not for installers. Default: never",
    )

    @model_validator(mode="after")
    def _port_goes_with_tcp(self) -> Self:
        if self.probe == "tcp" and self.port is None:
            rule = "probe tcp connects to a port"
            refuse(Problem("port", "nothing given", rule, "add one, such as port: 22"))
        if self.probe != "tcp" and self.port is not None:
            rule = "only probe tcp connects to a port"
            refuse(Problem("port", f"{self.port} given", rule, "remove it or set probe: tcp"))
        return self


class GuestSpec(MachineSpec):
    """A guest made from an ISO, from a disk image, or from both."""

    memory_mib: Mib = Field(512, description="Memory, MiB")
    iso: str | None = Field(None, description="Name of a medium: the ISO in its CD drive")
    discs: tuple[str, ...] = Field(
        (),
        description="Names of media: ISOs in further CD drives, in order, such as a disc with drivers or answers",
    )
    image: str | None = Field(
        None, description="Name of a medium: the qcow2 or raw image its disk is a clone of"
    )
    disks: Mapping[Name, Annotated[Gib, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Further disks, empty at first: GiB by name. They stay with whatever else of the guest changes, and "
        "can grow; one that is removed is lost with what is on it",
    )
    boot: Annotated[tuple[BootDevice, ...], Field(min_length=1)] | None = Field(
        None,
        description="Boot order; of hd, cdrom and network, default: its image, its CD, its empty disk",
    )
    cloud_init: CloudInitSpec | None = Field(
        None,
        description="User, keys, host name, packages, commands for an image with cloud-init, {} for the "
        "defaults; default: it is told nothing",
    )
    agent: Flag = Field(
        False,
        description="Whether its host speaks to QEMU's guest agent, which has to be installed in it; on libvirt its "
        "channel is always there",
    )
    ready: ReadySpec = Field(default_factory=ReadySpec, description="When it counts as up")

    @override
    def contradictions(self) -> list[Problem]:
        wrong = super().contradictions()
        if self.ready.probe == "ssh" and self.cloud_init is None:
            rule = "nobody is known to it who could log in"
            remedy = "add cloud_init: {}, or take another probe"
            wrong.append(Problem("ready.probe", "'ssh' given", rule, remedy))
        if self.iso is None and self.image is None:
            rule = "a guest boots from something"
            remedy = "add iso: or image: with the name of a medium"
            wrong.append(Problem("iso", "neither iso nor image given", rule, remedy))
        return wrong + self._twice() + self._unbootable()

    def _twice(self) -> list[Problem]:
        there = (self.iso, *self.discs)
        return [
            Problem(f"discs.{number}", f"{name!r} given", "it is in a drive already", "remove it")
            for number, name in enumerate(self.discs)
            if name in there[: number + 1]
        ]

    def _unbootable(self) -> list[Problem]:
        lacking = {
            "cdrom": ("it has no iso", self.iso is None),
            "hd": ("it has neither image nor disk_gib", self.image is None and not self.disk_gib),
            "network": ("it has no NIC", not self.network),
        }
        order = self.boot or ()
        wrong = []
        for number, device in enumerate(order):
            why, lacks = lacking[device]
            if lacks:
                remedy = f"remove {device!r} or add what it needs"
                wrong.append(Problem(f"boot.{number}", f"{device!r} given", why, remedy))
            if device in order[:number]:
                rule = "a device is tried once"
                wrong.append(Problem(f"boot.{number}", f"{device!r} given", rule, "remove it"))
        return wrong

    @property
    def boot_order(self) -> tuple[BootDevice, ...]:
        """What firmware tries, in order; an empty disk comes after the installer's CD."""
        if self.boot is not None:
            return self.boot
        if self.iso is None:
            return ("hd",)
        if self.image is not None:
            return ("hd", "cdrom")
        return ("cdrom", "hd") if self.disk_gib else ("cdrom",)

    @override
    def media(self) -> dict[str, str]:
        found = {"iso": self.iso, "image": self.image}
        found |= {f"discs.{number}": name for number, name in enumerate(self.discs)}
        return {field: name for field, name in found.items() if name is not None}


_Word = Annotated[str, Later("a word of a container's command", "a text", "OUTPUT")]


class ContainerSpec(SpecModel):
    """A system container, made from a template by the hypervisor it lives on."""

    template: str = Field(
        description="Name of a template: one of the lab's, or one built into the kind of its host"
    )
    memory_mib: Mib = Field(64, description="Most memory it may use, MiB")
    cores: Cores = Field(1, description="Virtual cores it may use")
    network: str | None = Field(None, description="Network of the same place; default: none")
    address: Address | None = Field(None, description="Fixed IPv4 address; default: a planned one")
    command: Annotated[tuple[_Word, ...], Field(min_length=1)] | None = Field(
        None, description="What it runs, words of a command line; default: the template's init"
    )
    autostart: Flag = Field(True, description="Whether it starts with its host")

    @model_validator(mode="after")
    def _address_needs_a_network(self) -> Self:
        if self.address is not None and self.network is None:
            rule = "an address is one of a network's"
            refuse(
                Problem(
                    "address", f"{str(self.address)!r} given", rule, "add network:, or remove it"
                )
            )
        return self

    @property
    def nics(self) -> tuple[NicSpec, ...]:
        """Its NIC, or none."""
        if self.network is None:
            return ()
        return (NicSpec(network=self.network, address=self.address),)
