"""What a guest's .vmx is to say on ESXi, and in what a given one differs from that.

Only our keys are compared, because ESXi writes its own ones beside them and people theirs.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING

from components.kinds.esxi import console
from components.kinds.esxi.vimcmd import VOLUMES
from components.reach.vmx import is_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.orders import GuestOrder

HARDWARE = 17
"""Virtual hardware that ESXi 7.0 brought and 8 and 9 run."""
DISKS = {"sata": "sata0:0", "scsi": "scsi0:0", "ide": "ide0:0"}
CD = "ide1:0"
SEED = "sata0:1"
"""Beside a disk on SATA, and no slave of an IDE drive that may not be there: the seed is a CD of its own."""
DISCS = ("sata0:2", "sata0:3", "sata0:4", "sata0:5")
"""Of the 30 places of a SATA controller (VMware's configuration maximums), those of further CDs."""
DATA = tuple(f"sata0:{place}" for place in range(6, 14))
"""Those of further disks."""
BOOT = {"cdrom": "cdrom", "hd": "hdd", "network": "ethernet0"}
USUAL = {
    "numvcpus": "1",
    "firmware": "bios",
    "vhv.enable": "FALSE",
    **{f"{drive}.startconnected": "TRUE" for drive in (SEED, *DISCS, "serial0")},
}
"""What ESXi leaves out of a .vmx when it says no more than the default."""


def _volume_path(path: str) -> str:
    """Return a path without its datastore: ESXi writes that one's UUID where we write its name."""
    return re.sub(rf"^{VOLUMES}[^/]+/", "", path)


def has_disk(wanted: GuestOrder) -> bool:
    """Whether a guest has a disk."""
    return bool(wanted.image or wanted.disk_gib)


def data_stem(wanted: GuestOrder, disk: str) -> str:
    """Return what the file of a further disk is called, without its ending."""
    return f"{wanted.name}-data-{disk}"


def _decided(wanted: GuestOrder) -> dict[str, str]:
    """Return the settings that the stack decides; what of them was changed by hand is mended."""
    found = {
        "displayName": wanted.name,
        "memSize": str(wanted.memory_mib),
        "numvcpus": str(wanted.cores),
        "firmware": "efi" if wanted.firmware == "uefi" else "bios",
        "bios.bootOrder": ",".join(BOOT[each] for each in wanted.boot),
        "annotation": f"nestlab {wanted.owner}",
        "vhv.enable": "TRUE" if wanted.nested else "FALSE",
        f"{CD}.present": "TRUE" if wanted.iso else "FALSE",
        **console.settings(wanted.store, wanted.name),
    }
    if wanted.iso:
        found[f"{CD}.deviceType"] = "cdrom-image"
        found[f"{CD}.fileName"] = wanted.iso
    more = zip_longest((SEED, *DISCS), (wanted.seed, *wanted.discs), fillvalue="")
    for drive, disc in more:
        found[f"{drive}.present"] = "TRUE" if disc else "FALSE"
        if disc:
            found["sata0.present"] = "TRUE"
            found[f"{drive}.deviceType"] = "cdrom-image"
            found[f"{drive}.fileName"] = disc
            # One that is not connected is a drive without a disc in it.
            found[f"{drive}.startConnected"] = "TRUE"
    for slot, data in zip_longest(DATA, wanted.disks):
        found[f"{slot}.present"] = "TRUE" if data else "FALSE"
        if data:
            found["sata0.present"] = "TRUE"
            found[f"{slot}.fileName"] = f"{data_stem(wanted, data.name)}.vmdk"
    if has_disk(wanted):
        disk = DISKS[wanted.disk_bus]
        found[f"{disk}.present"] = "TRUE"
        found[f"{disk}.fileName"] = f"{wanted.name}.vmdk"
    for number, nic in enumerate(wanted.nics):
        found |= {
            f"ethernet{number}.present": "TRUE",
            f"ethernet{number}.virtualDev": nic.model,
            f"ethernet{number}.networkName": nic.network,
            f"ethernet{number}.addressType": "static",
            f"ethernet{number}.address": nic.mac,
        }
    return found


def _beginning(wanted: GuestOrder) -> dict[str, str]:
    """Return what else a new guest begins with; people may change it."""
    found = {
        "config.version": "8",
        "virtualHW.version": str(HARDWARE),
        "guestOS": "other-64",
        "nvram": f"{wanted.name}.nvram",
        # A question would keep it from starting, and nobody is there to answer.
        "msg.autoAnswer": "TRUE",
        "floppy0.present": "FALSE",
        "svga.present": "TRUE",
        "pciBridge0.present": "TRUE",
        "sata0.present": "TRUE",
        f"{CD}.startConnected": "TRUE",
    }
    for number in range(4, 8):
        # NICs are on PCI Express.
        found |= {
            f"pciBridge{number}.present": "TRUE",
            f"pciBridge{number}.virtualDev": "pcieRootPort",
            f"pciBridge{number}.functions": "8",
        }
    if has_disk(wanted):
        bus = DISKS[wanted.disk_bus].partition(":")[0]
        if wanted.disk_bus != "ide":
            found[f"{bus}.present"] = "TRUE"
        if wanted.disk_bus == "scsi":
            found[f"{bus}.virtualDev"] = "lsilogic"
            found["scsi0:0.deviceType"] = "scsi-hardDisk"
    for number in range(len(wanted.nics)):
        # Else ESXi refuses addresses of VMware's own range that it did not give itself.
        found[f"ethernet{number}.checkMACAddress"] = "FALSE"
        found[f"ethernet{number}.startConnected"] = "TRUE"
    return found


def _nic_of(key: str) -> int:
    """Return the number of the NIC that a key is about; -1 for none."""
    found = re.match(r"ethernet(\d+)\.", key)
    return int(found[1]) if found else -1


def differences(have: Mapping[str, str], wanted: GuestOrder) -> list[str]:
    """Return the keys in which a .vmx is not what the stack says."""
    real = {key.casefold(): value for key, value in have.items()}
    found = []
    for key, value in _decided(wanted).items():
        low = key.casefold()
        usual = "FALSE" if low.endswith(".present") else USUAL.get(low, "")
        if not _same(low, real.get(low, usual), value):
            found.append(key)
    nics = len(wanted.nics)
    return found + [
        key
        for key, value in real.items()
        if key.endswith(".present") and _nic_of(key) >= nics and value.upper() == "TRUE"
    ]


def _same(key: str, real: str, value: str) -> bool:
    if key == "annotation":
        # People write notes below.
        return value in real
    if key in {f"{drive}.filename" for drive in (CD, SEED, *DISCS, "serial0")}:
        return _volume_path(real) == _volume_path(value)
    if key.endswith(".filename"):
        return is_of(real, value)
    if key == "displayname" or key.endswith(".networkname"):
        return real == value
    return real.lower() == value.lower()


def merged(have: Mapping[str, str], wanted: GuestOrder) -> dict[str, str]:
    """Return a .vmx as the stack says, with what ESXi and people put into it kept."""
    made = _beginning(wanted) | {
        key: value for key, value in have.items() if _nic_of(key) < len(wanted.nics)
    }
    by_low = {key.casefold(): key for key in made}
    for key, value in _decided(wanted).items():
        at = by_low.get(key.casefold(), key)
        if at not in made or not _same(key.casefold(), made[at], value):
            made[at] = value
    # A disk that comes back under its name is another one: a snapshot of the old one would not fit to it.
    empty = {f"{slot}.filename" for slot in DATA[len(wanted.disks) :]}
    for key in [key for key in made if "generatedaddress" in key.lower() or key.lower() in empty]:
        del made[key]
    return made
