"""What a Hyper-V host has of a network or a guest, as its cmdlets tell it.

A guest is addressed by its GUID once it is found: Hyper-V lets two guests have one name, and reads * and
? in names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.kinds.hyperv import console
from components.kinds.hyperv.cmdlets import ANY, NO_GUEST, NO_PATH, NOTHING_TAKEN, ask
from components.kinds.hyperv.names import data_of, disk_of, folder_of, mark
from components.kinds.hyperv.objects import (
    Adapter,
    Address,
    Bios,
    Card,
    Drive,
    File,
    Firmware,
    Nat,
    Plug,
    Port,
    Processor,
    Switch,
    Vhd,
    Vm,
    objects,
    properties,
)
from components.kinds.hyperv.powershell import Script

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.orders import GuestOrder, NetworkOrder
    from components.reach.shell import Shell


@dataclass(frozen=True)
class Switches:
    """The host's networks, as far as a network of ours has to know them."""

    mark: str
    all: list[Switch]
    addresses: list[Address]
    nats: list[Nat]
    plugs: list[Plug]
    """The host's own NICs on its switches."""
    adapters: list[Adapter]

    @property
    def ours(self) -> Switch | None:
        """The switch that bears our mark, whatever it is called by now."""
        return next((each for each in self.all if self.mark in each.notes.splitlines()), None)

    def translates(self, nat: str) -> str:
        """Subnet that the NAT of a name serves; empty where there is none of it."""
        return next((each.subnet for each in self.nats if each.name == nat), "")

    def named(self, name: str) -> list[Switch]:
        """Switches of a name; Windows does not tell capitals from small letters."""
        return [each for each in self.all if each.name.lower() == name.lower()]

    def interface(self, switch: str) -> int | None:
        """Number of the host's adapter on ``switch``; None where there is none (yet)."""
        plugs = {each.device.lower() for each in self.plugs if each.switch == switch}
        found = (each.interface for each in self.adapters if each.device.lower() in plugs)
        return next(found, None)

    def on(self, interface: int) -> list[Address]:
        """Addresses of an adapter, without those that it made up itself."""
        return [
            each
            for each in self.addresses
            if each.interface == interface and not each.address.startswith("169.254.")
        ]


def switches(shell: Shell, wanted: NetworkOrder) -> Switches:
    """Read all that a network of ours has to do with, at once."""
    script = Script()
    script.add("Get-VMSwitch", *properties(Switch))
    script.add("Get-NetIPAddress", *properties(Address), AddressFamily="IPv4")
    script.add("Get-NetNat", *properties(Nat), may_fail="" if wanted.mode == "nat" else ANY)
    script.add("Get-VMNetworkAdapter", *properties(Plug), may_fail=ANY, ManagementOS=True)
    script.add("Get-NetAdapter", *properties(Adapter))
    told = ask(shell, script)
    return Switches(
        mark(wanted),
        objects(Switch, told[0]),
        objects(Address, told[1]),
        objects(Nat, told[2]),
        objects(Plug, told[3]),
        objects(Adapter, told[4]),
    )


@dataclass
class Guest:
    """A guest as it is on the host."""

    vm: Vm
    drives: list[Drive]
    dvds: list[Drive]
    nics: list[Card]
    firmware: Bios | Firmware | None
    """Of the generation that it is to have; None where it is of the other one."""
    expose: bool
    """Whether it sees virtualization itself."""
    pipe: str
    """What its first serial port is served on; empty for none."""


@dataclass
class GuestFacts:
    """What the host has of a guest: the guest itself, or nothing, and its folder."""

    guest: Guest | None
    files: frozenset[str]
    disk_bytes: int
    """Size of its disk as the guest sees it; 0 where there is none."""
    sizes: Mapping[str, int]
    """Likewise of its further disks that are there, by name."""
    strangers: list[Vm]
    """Other guests of the name."""


def generation(wanted: GuestOrder) -> int:
    """Return a guest's generation, by its firmware."""
    return 2 if wanted.firmware == "uefi" else 1


def _ours(vm: Vm, wanted: GuestOrder) -> bool:
    """Whether a guest is this one: by its folder, which it had before it had notes."""
    home, path = folder_of(wanted).lower(), vm.path.lower()
    return path == home or path.startswith(f"{home}\\") or mark(wanted) in vm.notes.splitlines()


def read(shell: Shell, wanted: GuestOrder) -> GuestFacts:
    """Read all there is to know of a guest, at once where its name still finds it."""
    told = _asked(shell, wanted, {"Name": wanted.name})
    ours = told.ours(wanted)
    if ours and (told.which != [ours.id] or not told.firmware):
        # Renamed by hand, or not the only one of its name: perhaps of another generation.
        told = _asked(shell, wanted, {"Id": ours.id})
        ours = told.ours(wanted)
    name = wanted.name.lower()
    guest = None
    if ours:
        guest = Guest(
            vm=ours,
            drives=told.drives,
            dvds=told.dvds,
            nics=told.nics,
            firmware=told.firmware[0] if told.firmware else None,
            expose=any(each.exposes for each in told.processors),
            pipe=next((each.path for each in told.ports), ""),
        )
    return GuestFacts(
        guest=guest,
        files=frozenset(each.name.lower() for each in told.files),
        disk_bytes=told.disks[0].size if told.disks else 0,
        sizes={name: vhd.size for name, vhd in told.data.items()},
        strangers=[
            each for each in told.guests if each.name.lower() == name and not _ours(each, wanted)
        ],
    )


@dataclass(frozen=True)
class _Told:
    """What was answered of a guest that was asked for by its name or its id."""

    guests: list[Vm]
    """All of the host's."""
    which: list[str]
    """Ids of those that the rest is about."""
    processors: list[Processor]
    drives: list[Drive]
    dvds: list[Drive]
    nics: list[Card]
    firmware: list[Bios] | list[Firmware]
    ports: list[Port]
    files: list[File]
    disks: list[Vhd]
    data: dict[str, Vhd]

    def ours(self, wanted: GuestOrder) -> Vm | None:
        return next((each for each in self.guests if _ours(each, wanted)), None)


def _asked(shell: Shell, wanted: GuestOrder, which: Mapping[str, str]) -> _Told:
    script = Script()
    script.add("Get-VM", *properties(Vm))
    vm = {"VM": [script.add("Get-VM", "Id", may_fail=NO_GUEST, given=which)]}

    def part(cmdlet: str, of: type, may_fail: str = NOTHING_TAKEN, **given: int) -> None:
        script.add(cmdlet, *properties(of), take=vm, may_fail=may_fail, given=given)

    first = generation(wanted) == 1
    part("Get-VMProcessor", Processor)
    part("Get-VMHardDiskDrive", Drive)
    part("Get-VMDvdDrive", Drive)
    part("Get-VMNetworkAdapter", Card)
    part("Get-VMBios" if first else "Get-VMFirmware", Bios if first else Firmware, ANY)
    part("Get-VMComPort", Port, Number=console.NUMBER)
    folder, files = folder_of(wanted), properties(File)
    script.add("Get-ChildItem", *files, may_fail=NO_PATH, LiteralPath=folder, File=True)
    names = [disk.name for disk in wanted.disks]
    for path in (disk_of(wanted), *(data_of(wanted, name) for name in names)):
        script.add("Get-VHD", *properties(Vhd), may_fail=ANY, Path=path)
    told = ask(shell, script)
    return _Told(
        guests=objects(Vm, told[0]),
        which=[str(row["Id"]) for row in told[1]],
        processors=objects(Processor, told[2]),
        drives=objects(Drive, told[3]),
        dvds=objects(Drive, told[4]),
        nics=objects(Card, told[5]),
        firmware=objects(Bios, told[6]) if first else objects(Firmware, told[6]),
        ports=objects(Port, told[7]),
        files=objects(File, told[8]),
        disks=objects(Vhd, told[9]),
        data={
            name: vhd
            for name, rows in zip(names, told[10:], strict=True)
            for vhd in objects(Vhd, rows)
        },
    )
