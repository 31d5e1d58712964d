"""What of a guest's settings is not as the stack says, and the cmdlets that mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.kinds.hyperv import console
from components.kinds.hyperv.cmdlets import NO_PATH
from components.kinds.hyperv.facts import generation
from components.kinds.hyperv.names import DATA, DISK, PART, data_of, disk_of, folder_of, mark
from components.kinds.hyperv.objects import Bios, Firmware
from components.kinds.hyperv.powershell import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.kinds.hyperv.facts import Guest, GuestFacts
    from components.kinds.hyperv.objects import Vm
    from components.kinds.hyperv.powershell import Parameter
    from components.reach.orders import GuestOrder, Nic

MIB, GIB = 1 << 20, 1 << 30
DEVICE_AT = {1: ("IDE", 0, 0), 2: ("SCSI", 0, 0)}
"""Where the system disk is, by generation: nothing else is booted from."""
DVD_AT = {1: ("IDE", 1, 0), 2: ("SCSI", 0, 1)}
SEED_AT = {1: ("IDE", 1, 1), 2: ("SCSI", 0, 2)}
"""Microsoft, Add-VMDvdDrive: a drive is where controller and location say; two are on each IDE controller."""
BESIDE_DISK = ("IDE", 0, 1)
DISCS_AT = tuple(("SCSI", 0, location) for location in range(3, 7))
"""Where further discs are: generation 1 has drives for discs on its two IDE controllers alone, generation 2 on SCSI
(Microsoft, Hyper-V's storage of both generations)."""
DATA_AT = tuple(("SCSI", 0, location) for location in range(8, 16))
"""Where further disks are: New-VM gives both generations a SCSI controller."""
BIOS_NAMES = {"cdrom": "CD", "hd": "IDE", "network": "LegacyNetworkAdapter"}
BIOS_ORDER = ("CD", "IDE", "LegacyNetworkAdapter", "Floppy")
"""Set-VMBios wants them all; those that the stack does not name come last."""


@dataclass
class Work:
    """What is not as wanted, and what mends it; the first call gives the guest."""

    script: Script = field(default_factory=Script)
    wrong: list[str] = field(default_factory=list)
    off: bool = False
    """Whether the guest has to be off for it."""
    vm: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"VM": [0]})

    def note(self, text: str, *, off: bool = False) -> None:
        """Say what is wrong, and whether it can be mended while the guest runs."""
        self.wrong.append(text)
        self.off = self.off or off


def model_of(nic: Nic) -> str:
    """Return what a NIC is: legacy, or synthetic where nothing is said."""
    return "legacy" if nic.model == "legacy" else "synthetic"


def _mac(nic: Nic) -> str:
    return nic.mac.replace(":", "").replace("-", "").upper()


def has_disk(wanted: GuestOrder) -> bool:
    """Whether a guest has a disk."""
    return bool(wanted.image or wanted.disk_gib)


def make_disk(script: Script, wanted: GuestOrder) -> None:
    """Add what makes the disk."""
    size = wanted.disk_gib * GIB
    made_of: dict[str, Parameter] = {"SizeBytes": size} if size else {}
    if wanted.image:
        made_of |= {"ParentPath": wanted.image, "Differencing": True}
    else:
        made_of["Dynamic"] = True
    new_vhd(script, wanted, disk_of(wanted), made_of)


def new_vhd(
    script: Script, wanted: GuestOrder, path: str, made_of: Mapping[str, Parameter]
) -> None:
    """Add what makes a disk, under its name only when it is whole."""
    part = f"{folder_of(wanted)}\\{PART}"
    script.add("Remove-Item", may_fail=NO_PATH, LiteralPath=part, Force=True)
    script.add("New-VHD", Path=part, given=made_of)
    script.add("Move-Item", LiteralPath=part, Destination=path)


def differences(found: GuestFacts, guest: Guest, wanted: GuestOrder) -> Work:
    """Compare a guest with what is wanted; what mends it switches it off first where that is needed."""
    work = _compared(found, guest, wanted, stop="")
    if work.off and guest.vm.state != "Off":
        stop = "Remove-VMSavedState" if guest.vm.state == "Saved" else "Stop-VM"
        work = _compared(found, guest, wanted, stop=stop)
    return work


def _compared(found: GuestFacts, guest: Guest, wanted: GuestOrder, *, stop: str) -> Work:
    work = Work()
    work.script.add("Get-VM", Id=guest.vm.id)
    if stop:
        hard: dict[str, Parameter] = {"TurnOff": True, "Force": True} if stop == "Stop-VM" else {}
        work.script.add(stop, take=work.vm, given=hard)
    _settings(work, guest.vm, wanted, expose=guest.expose)
    _memory(work, guest.vm, wanted)
    _port(work, guest, wanted)
    anew = {
        device
        for device, made in (
            ("hd", _system_disk(work, found, guest, wanted)),
            ("cdrom", _cds(work, guest, wanted)),
            ("network", _nics(work, guest, wanted)),
        )
        if made
    }
    _boot(work, guest, wanted, anew)
    # Last: firmware tries what is added in the end.
    further_disks(work, found, guest, wanted)
    return work


def _settings(work: Work, vm: Vm, wanted: GuestOrder, *, expose: bool) -> None:
    """Name, notes, what it does when its host starts and stops, processors."""
    if vm.name != wanted.name:
        work.note(f"is called {vm.name} now")
        work.script.add("Rename-VM", take=work.vm, NewName=wanted.name)
    notes = vm.notes.splitlines()
    right = {
        "AutomaticStartAction": "Start" if wanted.autostart else "Nothing",
        # Saving would need the guest's memory again, as disk.
        "AutomaticStopAction": "ShutDown",
        "CheckpointType": "Disabled",
    }
    has = dict(zip(right, (vm.start_action, vm.stop_action, vm.checkpoints), strict=True))
    if mark(wanted) not in notes:
        work.note("does not bear the lab's mark in its notes")
        work.script.add("Set-VM", take=work.vm, Notes="\n".join([mark(wanted), *notes]))
    if off := [key for key, value in right.items() if has[key] != value]:
        work.note(f"has {off[0]} {has[off[0]]}, not {right[off[0]]}")
        work.script.add("Set-VM", take=work.vm, given=right)
    cores, nested = wanted.cores, wanted.nested
    if vm.cores != cores or expose is not nested:
        said = f"has {vm.cores} cores, not {cores}"
        if expose is not nested:
            said = "sees virtualization" if expose else "sees no virtualization"
        work.note(said, off=True)
        work.script.add(
            "Set-VMProcessor", take=work.vm, Count=cores, ExposeVirtualizationExtensions=nested
        )


def _memory(work: Work, vm: Vm, wanted: GuestOrder) -> None:
    size = wanted.memory_mib * MIB
    if vm.memory != size or vm.dynamic_memory:
        has = "dynamic memory" if vm.dynamic_memory else f"{vm.memory // MIB} MiB"
        work.note(f"has {has}, not {size // MIB} MiB", off=True)
        work.script.add("Set-VMMemory", take=work.vm, DynamicMemoryEnabled=False, StartupBytes=size)


def _port(work: Work, guest: Guest, wanted: GuestOrder) -> None:
    """Serve its first serial port; generation 2 looks whether it has one when it starts."""
    path = console.pipe(wanted.owner)
    if guest.pipe.lower() != path.lower():
        has = f"on {guest.pipe}" if guest.pipe else "nowhere"
        work.note(f"has its serial port {has}, not on {path}", off=True)
        work.script.add("Set-VMComPort", take=work.vm, Number=console.NUMBER, Path=path)


def _system_disk(work: Work, found: GuestFacts, guest: Guest, wanted: GuestOrder) -> bool:
    """Make, grow and plug in the system disk; return whether it is another drive than before."""
    path, size = disk_of(wanted), wanted.disk_gib * GIB
    home = f"{folder_of(wanted)}\\".lower()
    # A checkpoint made by hand has its own file, beside the disk it stands on.
    mine = [
        each
        for each in guest.drives
        if each.path.lower().startswith(home) and not is_data(each.path, wanted)
    ]
    at = _where(DEVICE_AT[generation(wanted)])
    if not has_disk(wanted):
        if mine:
            work.note("has a disk, and the stack gives it none")
        return False
    if DISK not in found.files:
        work.note("has no disk any more: a new one is made", off=True)
        if mine:
            drives = work.script.add("Get-VMHardDiskDrive", take=work.vm, given=at)
            work.script.add("Remove-VMHardDiskDrive", take={"VMHardDiskDrive": [drives]})
            mine = []
        make_disk(work.script, wanted)
    elif size and found.disk_bytes != size:
        work.note(f"has {found.disk_bytes / GIB:g} GiB of disk, not {size // GIB}", off=True)
        work.script.add("Resize-VHD", Path=path, SizeBytes=size)
    if mine:
        return False
    work.note("is not connected to its disk", off=True)
    work.script.add("Add-VMHardDiskDrive", take=work.vm, given=at, Path=path)
    return True


def is_data(path: str, wanted: GuestOrder) -> bool:
    """Whether a file is a further disk of the guest, or a checkpoint's that somebody made of it."""
    return path.lower().startswith(f"{folder_of(wanted)}\\{DATA}".lower())


def is_of(plugged: str, path: str) -> bool:
    """Whether what is plugged in is the disk ``path``, or a checkpoint's of it, which Hyper-V calls NAME_GUID.avhdx."""
    stem = re.escape(path.lower().removesuffix(".vhdx"))
    return bool(re.fullmatch(rf"{stem}(\.vhdx|_[^\\]+\.avhdx)", plugged.lower()))


def under_checkpoint(found: GuestFacts, guest: Guest, wanted: GuestOrder) -> str:
    """Return the checkpoint's file that stands on a disk which is to grow, empty for none.

    Resize-VHD does it all the same, and what stands on the disk does not open any more (0xC03A0017: "a mismatch in
    the virtual sizes of the parent virtual hard disk and differencing disk").
    """
    grows = {disk_of(wanted): (found.disk_bytes, wanted.disk_gib)}
    grows |= {
        data_of(wanted, disk.name): (found.sizes.get(disk.name, 0), disk.gib)
        for disk in wanted.disks
    }
    small = [path for path, (has, gib) in grows.items() if 0 < has < gib * GIB]
    others = (
        each.path
        for path in small
        for each in guest.drives
        if each.path.lower() != path.lower() and is_of(each.path, path)
    )
    return next(others, "")


def further_disks(work: Work, found: GuestFacts, guest: Guest, wanted: GuestOrder) -> None:
    """Make, grow and plug in further disks; what the guest has no more is unplugged and removed."""
    plugged = {
        (each.controller, each.number, each.location): each.path.lower()
        for each in guest.drives
        if is_data(each.path, wanted)
    }
    right = {
        at: data_of(wanted, disk.name) for at, disk in zip(DATA_AT, wanted.disks, strict=False)
    }
    files = {f"{folder_of(wanted)}\\{each}".lower() for each in found.files}
    for at, path in plugged.items():
        own = right.get(at, "").lower()
        if own in files and is_of(path, own):
            continue
        work.note(f"has {path} plugged in", off=True)
        drive = work.script.add("Get-VMHardDiskDrive", take=work.vm, given=_where(at))
        work.script.add("Remove-VMHardDiskDrive", take={"VMHardDiskDrive": [drive]})
    for at, disk in zip(DATA_AT, wanted.disks, strict=False):
        path, size = right[at], disk.gib * GIB
        if path.lower() not in files:
            work.note(f"has no disk {disk.name}: a new one is made", off=True)
            new_vhd(work.script, wanted, path, {"SizeBytes": size, "Dynamic": True})
        elif found.sizes.get(disk.name, size) < size:
            has = found.sizes[disk.name] / GIB
            work.note(f"has {has:g} GiB of disk {disk.name}, not {disk.gib}", off=True)
            work.script.add("Resize-VHD", Path=path, SizeBytes=size)
        if path.lower() not in files or not is_of(plugged.get(at, ""), path):
            work.note(f"is not connected to its disk {disk.name}", off=True)
            work.script.add("Add-VMHardDiskDrive", take=work.vm, given=_where(at), Path=path)
    kept = {f"{DATA}{disk.name}.vhdx" for disk in wanted.disks}
    for file in sorted(found.files - kept):
        if file.startswith(DATA) and file.endswith(".vhdx"):
            work.note(f"has a disk {file}, which is removed", off=True)
            path = f"{folder_of(wanted)}\\{file}"
            work.script.add("Remove-Item", may_fail=NO_PATH, LiteralPath=path, Force=True)


def _where(at: tuple[str, int, int]) -> dict[str, Parameter]:
    return dict(zip(("ControllerType", "ControllerNumber", "ControllerLocation"), at, strict=True))


def _cds(work: Work, guest: Guest, wanted: GuestOrder) -> bool:
    """Put ISO, seed and further discs into their drives; return whether these are others than before."""
    dvds, first = guest.dvds, generation(wanted)
    right = _discs(wanted)
    if not right:
        if any(each.path for each in dvds):
            work.note("has a medium in its drive")
            drives = work.script.add("Get-VMDvdDrive", take=work.vm)
            work.script.add("Set-VMDvdDrive", take={"VMDvdDrive": [drives]}, Path=None)
        return False
    has = {(each.controller, each.number, each.location): each.path for each in dvds}
    if sorted(has) == sorted(right):
        for at, path in right.items():
            if has[at].lower() != path.lower():
                _insert(work, at, path, seed=bool(wanted.seed) and at == SEED_AT[first])
        return False
    work.note("has no CD drive, or another one", off=True)
    if dvds:
        drives = work.script.add("Get-VMDvdDrive", take=work.vm)
        work.script.add("Remove-VMDvdDrive", take={"VMDvdDrive": [drives]})
    for (_, number, location), path in right.items():
        where: dict[str, Parameter] = {"ControllerNumber": number, "ControllerLocation": location}
        work.script.add("Add-VMDvdDrive", take=work.vm, given=where, Path=path)
    return True


def most_discs(wanted: GuestOrder) -> int:
    """Return how many further discs a guest has drives for."""
    return 2 - bool(wanted.seed) if generation(wanted) == 1 else len(DISCS_AT)


def _discs(wanted: GuestOrder) -> dict[tuple[str, int, int], str]:
    """Return what is in its drives, by where they are: firmware boots the first, so that is its ISO's."""
    first = generation(wanted)
    places = {DVD_AT[first]: wanted.iso, SEED_AT[first]: wanted.seed}
    found = {at: path for at, path in places.items() if path}
    if first != 1 or not wanted.discs:
        return found | dict(zip(DISCS_AT, wanted.discs, strict=False))
    seed = {SEED_AT[1]: wanted.seed} if wanted.seed else {}
    discs = [each for each in (wanted.iso, *wanted.discs) if each]
    free = [at for at in (BESIDE_DISK, DVD_AT[1], SEED_AT[1]) if at not in seed]
    return seed | dict(zip(free[max(0, len(free) - len(discs)) :], discs, strict=False))


def insert_again(work: Work, wanted: GuestOrder) -> None:
    """Take its discs out of the drives of a guest that is off, and put them in.

    Hyper-V lets a guest read a file when that is put into a drive; one that was removed since and sent again has
    lost that right, and its guest would not start ("does not have permission to open attachment").
    """
    for at, path in _discs(wanted).items():
        where: dict[str, Parameter] = {"ControllerNumber": at[1], "ControllerLocation": at[2]}
        drive = work.script.add("Get-VMDvdDrive", take=work.vm, given=where)
        for content in (None, path):
            work.script.add("Set-VMDvdDrive", take={"VMDvdDrive": [drive]}, Path=content)


def _insert(work: Work, at: tuple[str, int, int], path: str, *, seed: bool) -> None:
    """Put another medium into a drive; a seed is read when its guest starts."""
    what = "another seed in its drive" if seed else "another medium in its drive"
    work.note(f"has {what}, or none", off=seed)
    where: dict[str, Parameter] = {"ControllerNumber": at[1], "ControllerLocation": at[2]}
    drive = work.script.add("Get-VMDvdDrive", take=work.vm, given=where)
    work.script.add("Set-VMDvdDrive", take={"VMDvdDrive": [drive]}, Path=path)


def _nics(work: Work, guest: Guest, wanted: GuestOrder) -> bool:
    """Make the NICs, or plug them in; return whether they are others than before."""
    right = [(f"nic{n}", _mac(nic), model_of(nic) == "legacy") for n, nic in enumerate(wanted.nics)]
    has = [
        # One with a dynamic MAC is none of ours.
        (each.name, "" if each.dynamic_mac else each.mac, each.legacy)
        for each in guest.nics
    ]
    if sorted(has) != sorted(right):
        work.note("has other NICs", off=True)
        if has:
            nics = work.script.add("Get-VMNetworkAdapter", take=work.vm)
            work.script.add("Remove-VMNetworkAdapter", take={"VMNetworkAdapter": [nics]})
        for (name, mac, legacy), nic in zip(right, wanted.nics, strict=True):
            work.script.add(
                "Add-VMNetworkAdapter",
                take=work.vm,
                Name=name,
                SwitchName=nic.network,
                StaticMacAddress=mac,
                IsLegacy=legacy,
            )
        return True
    plugged = {each.name: each.switch for each in guest.nics}
    for number, nic in enumerate(wanted.nics):
        name = f"nic{number}"
        if plugged[name] != nic.network:
            work.note(f"has {name} on {plugged[name] or 'no network'}, not {nic.network}")
            one = work.script.add("Get-VMNetworkAdapter", take=work.vm, Name=name)
            work.script.add(
                "Connect-VMNetworkAdapter",
                take={"VMNetworkAdapter": [one]},
                SwitchName=nic.network,
            )
    return False


def _boot(work: Work, guest: Guest, wanted: GuestOrder, anew: set[str]) -> None:
    """Set what is booted from; ``anew`` are devices that firmware has yet to be told of."""
    order = [str(device) for device in wanted.boot]
    firmware = guest.firmware
    if generation(wanted) == 1:
        first = [BIOS_NAMES[device] for device in order]
        right = first + [name for name in BIOS_ORDER if name not in first]
        if not isinstance(firmware, Bios) or firmware.order != right:
            work.note("boots in another order", off=True)
            work.script.add("Set-VMBios", take=work.vm, StartupOrder=right)
        return
    if not isinstance(firmware, Firmware) or firmware.secure_boot != "Off":
        work.note("has secure boot on", off=True)
        work.script.add("Set-VMFirmware", take=work.vm, EnableSecureBoot="Off")
    ids = {
        "hd": [each.id for each in guest.drives if not is_data(each.path, wanted)],
        "cdrom": [each.id for each in guest.dvds],
        "network": [each.id for each in guest.nics],
    }
    device_of = {each: device for device, those in ids.items() for each in those}
    # What an installer added for itself has no device, and stays where it is.
    told = firmware.order if isinstance(firmware, Firmware) else []
    has = [device_of[each] for each in told if each in device_of]
    right = [device for device in order for _ in ids[device]]
    if has[: len(right)] == right and not anew & set(order):
        return
    work.note("boots in another order", off=True)
    cmdlets = {
        "hd": "Get-VMHardDiskDrive",
        "cdrom": "Get-VMDvdDrive",
        "network": "Get-VMNetworkAdapter",
    }
    # Of its disks the system disk alone.
    only = {"hd": _where(DEVICE_AT[2])}
    devices = [
        work.script.add(cmdlets[device], take=work.vm, given=only.get(device, {}))
        for device in order
    ]
    work.script.add("Set-VMFirmware", take={**work.vm, "BootOrder": devices})
