"""What a vSphere machine is made of: whether it is as wanted, what mends it, what makes it again.

Devices that somebody added stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.kinds.vsphere.api import VERSION, sdk

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Nic:
    """One network card."""

    mac: str
    model: str
    network: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a machine is to be made of."""

    memory_mib: int
    cores: int
    nics: list[Nic]
    cds: list[str]
    """Files of its datastore, in the order of the drives."""
    boot: list[str]
    """Of cdrom, hd, network."""
    seed: str = ""
    """Of its CDs the one that it reads when it starts; empty for none."""


FOLDER = "nestlab"
"""Of the datastore, for the media of all labs."""
IDE_KEYS = (200, 201)
"""Every machine has these two controllers, with these keys."""
IDE_UNITS = 2
CARDS = {"vmxnet3": "VirtualVmxnet3", "e1000e": "VirtualE1000e", "e1000": "VirtualE1000"}
KEPT = (
    "name",
    "uuid",
    "version",
    "guestId",
    "annotation",
    "firmware",
    "nestedHVEnabled",
    "flags",
    "tools",
    "cpuAllocation",
    "memoryAllocation",
    "cpuHotAddEnabled",
    "cpuHotRemoveEnabled",
    "memoryHotAddEnabled",
    "swapPlacement",
)
"""What a machine that is made again has as before, by one name in what it is and what is asked for."""
UNCHECKED = ".checkMACAddress"
"""Ends the name of a setting that lets a card have an address that is not VMware's."""


def differences(config: Any, wanted: Wanted) -> list[str]:
    """Return in what a machine is not as wanted, in words."""
    found = []
    for word, value, right in (
        ("MiB of memory", config.hardware.memoryMB, wanted.memory_mib),
        ("cores", config.hardware.numCPU, wanted.cores),
    ):
        if value != right:
            found.append(f"has {value} {word} instead of {right}")
    there = {card.macAddress.lower(): card for card in _cards(config)}
    for nic in wanted.nics:
        card = there.get(nic.mac.lower())
        if card is None:
            found.append(f"has no NIC {nic.mac}")
        elif _network(card) != nic.network:
            found.append(f"has its NIC {nic.mac} on {_network(card) or 'no network'}")
    discs = [_disc(drive) for drive in _drives(config)]
    for number, path in enumerate(wanted.cds):
        if discs[number : number + 1] != [path]:
            found.append(f"does not have the CD {path}")
    found += [f"has the CD {path} in a drive" for path in discs[len(wanted.cds) :] if _ours(path)]
    if _boots(config) != wanted.boot:
        found.append(f"does not boot from {', '.join(wanted.boot)}")
    return found


def while_it_runs(config: Any, wanted: Wanted) -> bool:
    """Whether a running machine can be put right: another disc in a drive, a NIC on another network.

    Not another seed, which is read at a start alone.
    """
    if wanted.seed and wanted.seed not in map(_disc, _drives(config)):
        return False
    macs = {card.macAddress.lower() for card in _cards(config)}
    return (
        config.hardware.memoryMB == wanted.memory_mib
        and config.hardware.numCPU == wanted.cores
        and all(nic.mac.lower() in macs for nic in wanted.nics)
        and len(_drives(config)) >= len(wanted.cds)
        and _boots(config) == wanted.boot
    )


def correction(config: Any, wanted: Wanted, store: str) -> Any:
    """Return what a machine is told so that it is as wanted."""
    vim = sdk().vim

    spec = vim.vm.ConfigSpec(
        deviceChange=[
            *_drives_put_right(config, wanted.cds, store),
            *_cards_put_right(config, wanted.nics),
        ]
    )
    if config.hardware.memoryMB != wanted.memory_mib:
        spec.memoryMB = wanted.memory_mib
    if config.hardware.numCPU != wanted.cores:
        spec.numCPUs = spec.numCoresPerSocket = wanted.cores
    if _boots(config) != wanted.boot:
        # All of them: what is left out is not left alone.
        spec.bootOptions = config.bootOptions or vim.vm.BootOptions()
        spec.bootOptions.bootOrder = _boot_order(config, wanted.boot)
    return spec


def _boot_order(config: Any, wanted: Sequence[str]) -> list[Any]:
    vim = sdk().vim

    options, disk = vim.vm.BootOptions, vim.vm.device.VirtualDisk
    disks = [each for each in config.hardware.device if isinstance(each, disk)]
    devices = {
        "cdrom": [options.BootableCdromDevice()],
        "hd": [options.BootableDiskDevice(deviceKey=each.key) for each in disks[:1]],
        "network": [
            options.BootableEthernetDevice(deviceKey=each.key) for each in _cards(config)[:1]
        ],
    }
    return [device for word in wanted for device in devices[word]]


def definition(config: Any) -> str:
    """Return the XML that makes a machine again, with the UUIDs it and its disks have."""
    vim = sdk().vim

    hardware = config.hardware
    store = config.files.vmPathName.partition("]")[0] + "]"
    boot = config.bootOptions
    if boot is not None:
        # Its devices are other ones then; `correction` sets it.
        boot.bootOrder = []
    spec = vim.vm.ConfigSpec(
        **{each: getattr(config, each) for each in KEPT},
        powerOpInfo=config.defaultPowerOps,
        bootOptions=boot,
        numCPUs=hardware.numCPU,
        numCoresPerSocket=hardware.numCoresPerSocket,
        memoryMB=hardware.memoryMB,
        files=vim.vm.FileInfo(vmPathName=store),
        extraConfig=[each for each in config.extraConfig if each.key.endswith(UNCHECKED)],
        deviceChange=[
            vim.vm.device.VirtualDeviceSpec(
                operation="add",
                device=device,
                fileOperation="create" if isinstance(device, vim.vm.device.VirtualDisk) else None,
            )
            for device in map(_anew, hardware.device)
            if device is not None
        ],
    )
    made: bytes = sdk().SoapAdapter.Serialize(spec, version=VERSION)
    return made.decode()


def again(xml: str) -> Any:
    """Return the specification that `definition` wrote."""
    vim = sdk().vim

    return sdk().SoapAdapter.Deserialize(xml, vim.vm.ConfigSpec)


def shell(xml: str) -> Any:
    """Return the specification of a machine that is one by its UUID alone, to be deleted as that."""
    vim = sdk().vim

    whole = again(xml)
    return vim.vm.ConfigSpec(
        # Somebody may have one of its name by now.
        name=f"{whole.name}-{whole.uuid}",
        uuid=whole.uuid,
        version=whole.version,
        guestId=whole.guestId,
        annotation=whole.annotation,
        numCPUs=1,
        memoryMB=4,
        files=whole.files,
    )


def _anew(device: Any) -> Any:
    """Return what a machine that is made again is given in place of a device; None for nothing."""
    vim = sdk().vim

    kinds = vim.vm.device
    kept = (
        kinds.VirtualSCSIController,
        kinds.VirtualSATAController,
        kinds.VirtualDisk,
        kinds.VirtualCdrom,
        kinds.VirtualEthernetCard,
    )
    if not isinstance(device, kept):
        return None
    made = type(device)(
        key=device.key, controllerKey=device.controllerKey, unitNumber=device.unitNumber
    )
    if isinstance(device, kinds.VirtualSCSIController):
        made.busNumber, made.sharedBus = device.busNumber, device.sharedBus
        made.controllerKey = made.unitNumber = None
    elif isinstance(device, kinds.VirtualSATAController):
        made.busNumber = device.busNumber
        made.controllerKey = made.unitNumber = None
    elif isinstance(device, kinds.VirtualDisk):
        made.capacityInKB = device.capacityInKB
        made.backing = kinds.VirtualDisk.FlatVer2BackingInfo(
            fileName=device.backing.fileName.partition("]")[0] + "]",
            diskMode=device.backing.diskMode,
            thinProvisioned=device.backing.thinProvisioned,
            # The provider knows its disks by it.
            uuid=device.backing.uuid,
        )
    else:
        made.backing, made.connectable = device.backing, device.connectable
        if isinstance(device, kinds.VirtualEthernetCard):
            made.macAddress, made.addressType = device.macAddress, device.addressType
            # By its name: the network may be another object by then.
            made.backing = kinds.VirtualEthernetCard.NetworkBackingInfo(deviceName=_network(device))
    return made


def _cards(config: Any) -> list[Any]:
    vim = sdk().vim

    card = vim.vm.device.VirtualEthernetCard
    return [each for each in config.hardware.device if isinstance(each, card)]


def _network(card: Any) -> str:
    return str(getattr(card.backing, "deviceName", "") or "")


def _drives(config: Any) -> list[Any]:
    """Return the CD drives in the order in which a machine sees them."""
    vim = sdk().vim

    drive = vim.vm.device.VirtualCdrom
    found = [each for each in config.hardware.device if isinstance(each, drive)]
    return sorted(found, key=lambda each: (each.controllerKey or 0, each.unitNumber or 0))


def _disc(drive: Any) -> str:
    """Return the file in a drive, without its datastore; empty for none."""
    return str(getattr(drive.backing, "fileName", "") or "").partition("] ")[2]


def _ours(path: str) -> bool:
    """Whether a disc is one that a lab put in; what somebody else did stays."""
    return path.startswith(f"{FOLDER}/")


def _boots(config: Any) -> list[str]:
    """Return from what a machine boots, in the stack's words."""
    options = config.bootOptions
    order = (options.bootOrder if options is not None else None) or ()
    return [_boot_word(each) for each in order]


def _boot_word(device: Any) -> str:
    kind = type(device).__name__
    words = {"Cdrom": "cdrom", "Disk": "hd", "Ethernet": "network"}
    return next((word for part, word in words.items() if part in kind), kind)


def _drives_put_right(config: Any, paths: Sequence[str], store: str) -> list[Any]:
    vim = sdk().vim

    kinds = vim.vm.device
    changes, there = [], _drives(config)
    taken = {
        (each.controllerKey, each.unitNumber)
        for each in config.hardware.device
        if each.controllerKey in IDE_KEYS
    }
    free = [
        (key, unit) for key in IDE_KEYS for unit in range(IDE_UNITS) if (key, unit) not in taken
    ]
    for number, path in enumerate(paths):
        backing = kinds.VirtualCdrom.IsoBackingInfo(fileName=f"[{store}] {path}")
        plugged = kinds.VirtualDevice.ConnectInfo(
            allowGuestControl=True, connected=True, startConnected=True
        )
        if number < len(there):
            drive = there[number]
            if _disc(drive) == path:
                continue
            drive.backing, drive.connectable = backing, plugged
            changes.append(kinds.VirtualDeviceSpec(operation="edit", device=drive))
            continue
        controller, unit = free.pop(0)
        drive = kinds.VirtualCdrom(
            key=-1 - number,
            controllerKey=controller,
            unitNumber=unit,
            backing=backing,
            connectable=plugged,
        )
        changes.append(kinds.VirtualDeviceSpec(operation="add", device=drive))
    for drive in there[len(paths) :]:
        if _ours(_disc(drive)):
            drive.backing = kinds.VirtualCdrom.RemotePassthroughBackingInfo(
                deviceName="", exclusive=False
            )
            changes.append(kinds.VirtualDeviceSpec(operation="edit", device=drive))
    return changes


def _cards_put_right(config: Any, nics: Sequence[Nic]) -> list[Any]:
    vim = sdk().vim

    kinds = vim.vm.device
    changes = []
    there = {card.macAddress.lower(): card for card in _cards(config)}
    for number, nic in enumerate(nics):
        card = there.get(nic.mac.lower())
        backing = kinds.VirtualEthernetCard.NetworkBackingInfo(deviceName=nic.network)
        if card is None:
            card = getattr(kinds, CARDS[nic.model])(
                key=-100 - number,
                backing=backing,
                addressType="manual",
                macAddress=nic.mac,
                connectable=kinds.VirtualDevice.ConnectInfo(
                    allowGuestControl=True, connected=True, startConnected=True
                ),
            )
            changes.append(kinds.VirtualDeviceSpec(operation="add", device=card))
        elif _network(card) != nic.network:
            card.backing = backing
            changes.append(kinds.VirtualDeviceSpec(operation="edit", device=card))
    return changes
