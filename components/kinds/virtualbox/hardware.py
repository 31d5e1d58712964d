"""A guest's order as VirtualBox' hardware: settings, controllers and drives; no command is run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from components.kinds.virtualbox import console as serial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.reach.orders import Console, GuestOrder

NICS = {"e1000": "82540EM", "virtio": "virtio", "pcnet": "Am79C973"}
BOOT = {"cdrom": "dvd", "hd": "disk", "network": "net"}
POSITIONS = 4
"""Places in VirtualBox' boot order."""
CHIPSETS = {"pc": "piix3", "q35": "ich9"}
MOST_NICS = {"pc": 8, "q35": 36}
MOST_CORES = 64
VIDEO = {"vga": ("vboxvga", "vboxvga"), "none": ("none", "null")}
"""Graphics controllers, as they are given and as they are shown."""
PLUGS = {"natnetwork": "nat-network", "hostonly": "hostonlyadapter", "bridged": "bridgeadapter"}
"""What says which network, for each way to be plugged in: the option and what showvminfo calls it."""


@dataclass(frozen=True)
class Controller:
    """A disk controller of a guest."""

    name: str
    bus: str
    model: str
    shown: str


CONTROLLERS = {
    "sata": Controller("SATA", "sata", "IntelAhci", "IntelAhci"),
    "ide": Controller("IDE", "ide", "PIIX4", "PIIX4"),
    "scsi": Controller("SCSI", "scsi", "LsiLogic", "LsiLogic"),
    "virtio": Controller("VirtIO", "virtio", "VirtIO", "VirtioSCSI"),
}
DISCS = range(3, 11)
"""Of the 30 ports that a SATA controller has (StorageControllerImpl.cpp), those of further CDs."""
DATA = range(11, 19)
"""Those of further disks."""
OWN = frozenset(one.name for one in CONTROLLERS.values())


@dataclass(frozen=True)
class Drive:
    """A disk or a CD of a guest, where it is plugged in."""

    controller: Controller
    port: int
    kind: Literal["hdd", "dvddrive"]
    path: str

    @property
    def key(self) -> str:
        """What showvminfo calls its place."""
        return f"{self.controller.name}-{self.port}-0"


def folder(wanted: GuestOrder) -> str:
    """Return where everything of a guest lies."""
    return f"{wanted.store}/guests/{wanted.owner}"


def disk(wanted: GuestOrder) -> str:
    """Return the path of a guest's disk, empty for none."""
    return f"{folder(wanted)}/disk.vdi" if wanted.image or wanted.disk_gib else ""


def drives(wanted: GuestOrder) -> list[Drive]:
    """Return what a guest has in its drives.

    CDs stay off SCSI and virtio: few installers start from there.
    """
    bus = CONTROLLERS[wanted.disk_bus or "sata"]
    found = [Drive(bus, 0, "hdd", disk(wanted))] if disk(wanted) else []
    if wanted.iso:
        cd = bus if bus.name == "IDE" else CONTROLLERS["sata"]
        found.append(Drive(cd, 1, "dvddrive", wanted.iso))
    if wanted.seed:
        found.append(Drive(CONTROLLERS["sata"], 2, "dvddrive", wanted.seed))
    more = (
        Drive(CONTROLLERS["sata"], port, "dvddrive", disc)
        for port, disc in zip(DISCS, wanted.discs, strict=False)
    )
    disks = (
        Drive(CONTROLLERS["sata"], port, "hdd", data(wanted, disk.name))
        for port, disk in zip(DATA, wanted.disks, strict=False)
    )
    return [*found, *more, *disks]


def data(wanted: GuestOrder, disk: str) -> str:
    """Return the path of a further disk."""
    return f"{folder(wanted)}/data-{disk}.vdi"


def settings(
    wanted: GuestOrder, plugs: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, Sequence[str], str]]:
    """Yield what a guest is to be: showvminfo's key, modifyvm's words, and how that is shown.

    The option is the key with two hyphens before it.
    """
    for key, value, shown in _settings(wanted, plugs):
        yield key, (value,), shown
    yield from serial.settings(wanted.store, wanted.owner)


def _settings(
    wanted: GuestOrder, plugs: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, str]]:
    efi = wanted.firmware == "uefi"
    yield "name", wanted.name, wanted.name
    mark = f"nestlab {wanted.owner}"
    yield "description", mark, mark
    for key, number in (("memory", wanted.memory_mib), ("cpus", wanted.cores), ("vram", 16)):
        yield key, str(number), str(number)
    chipset = CHIPSETS[wanted.machine]
    yield "chipset", chipset, chipset
    yield "firmware", "efi" if efi else "bios", "EFI" if efi else "BIOS"
    yield "ioapic", "on", "on"
    yield "rtcuseutc", "on", "on"
    nested = "on" if wanted.nested else "off"
    yield "nested-hw-virt", nested, nested
    yield "graphicscontroller", *VIDEO[wanted.video]
    order = [BOOT[device] for device in wanted.boot]
    for position in range(1, POSITIONS + 1):
        device = order[position - 1] if position <= len(order) else "none"
        yield f"boot{position}", device, device
    yield from _screen(wanted.console)
    for number, (nic, (how, which)) in enumerate(zip(wanted.nics, plugs, strict=True), 1):
        model = NICS[nic.model or "e1000"]
        yield f"nic{number}", how, how
        yield f"nictype{number}", model, model
        mac = nic.mac.replace(":", "").upper()
        yield f"macaddress{number}", mac, mac
        yield f"{PLUGS[how]}{number}", which, which
        yield f"cableconnected{number}", "on", "on"


def _screen(console: Console) -> Iterator[tuple[str, str, str]]:
    """Yield its RDP screen: on loopback only, where nobody but root of the host gets at it."""
    port = str(console.port)
    if port == "0" or console.type == "none":
        yield "vrde", "off", "off"
        return
    yield "vrde", "on", "on"
    yield "vrdeports", port, port
    yield "vrdeaddress", console.listen, console.listen
    yield "vrdeauthtype", "null", "null"


OPTIONS = {"vrdeports": "vrdeport"}
"""Options that are not called as what showvminfo shows."""


def impossible(wanted: GuestOrder) -> str:
    """Say what of its hardware VirtualBox has not."""
    if wanted.video not in VIDEO:
        return f"video {wanted.video}: VirtualBox has no such adapter; set vga or none"
    if (bus := wanted.disk_bus or "sata") not in CONTROLLERS:
        return f"disk_bus {bus}: VirtualBox has {', '.join(CONTROLLERS)}"
    for nic in wanted.nics:
        if nic.model and nic.model not in NICS:
            return f"NIC model {nic.model}: VirtualBox has {', '.join(NICS)}"
    if wanted.cores > MOST_CORES:
        return f"{wanted.cores} cores: VirtualBox gives a guest {MOST_CORES} at most"
    return _too_many(wanted) or serial.impossible(wanted.store, wanted.owner)


def _too_many(wanted: GuestOrder) -> str:
    if len(wanted.discs) > len(DISCS):
        return f"{len(wanted.discs)} discs: {len(DISCS)} have a port here"
    if len(wanted.disks) > len(DATA):
        return f"{len(wanted.disks)} further disks: {len(DATA)} have a port here"
    most = MOST_NICS[wanted.machine]
    if len(wanted.nics) > most:
        return f"{len(wanted.nics)} NICs: the chipset {wanted.machine} has {most} at most"
    return ""


def fits(drive: Drive, held: str, info: Mapping[str, str]) -> bool:
    """Whether what is in a drive's place is what belongs there."""
    # A snapshot that somebody took has put a disk of its own before ours.
    return held == drive.path or (
        drive.kind == "hdd" and "SnapshotUUID" in info and held not in {"none", "emptydrive"}
    )
