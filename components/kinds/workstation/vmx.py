"""A guest's order as a .vmx of Workstation: what it is to say, what is compared, what VMware added.

VMware rewrites and extends it whenever the guest runs; so only our own keys are compared.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING

from components.kinds.workstation import console as serial
from components.reach.vmx import escaped, is_of, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.reach.orders import GuestOrder, Nic

DISK = "disk.vmdk"
NICS = ("e1000", "e1000e", "vmxnet3")
DATA = tuple(f"sata0:{place}" for place in range(7, 15))
"""Those of further disks."""
BOOT = {"cdrom": "cdrom", "hd": "hdd", "network": "ethernet0"}
SLOTS = {"sata": "sata0:0", "scsi": "scsi0:0"}
CD = "sata0:1"
SEED = "sata0:2"
DISCS = ("sata0:3", "sata0:4", "sata0:5", "sata0:6")
"""Of the 30 places of a SATA controller (Workstation's maximums), those of further CDs."""
MOST_CORES = 32
MOST_NICS = 10
HARDWARE = "19"
"""Virtual hardware of Workstation 16.2 and later, which has all that is asked for here."""
NOTHING: Mapping[str, str] = MappingProxyType({})
FALSE = "FALSE"
TRUE = "TRUE"
_LINE = re.compile(r'\s*([^\s=#]+)\s*=\s*(?:"(.*)"|(.*?))\s*')


def parsed(text: str) -> dict[str, str]:
    """Return a .vmx by its keys in lower case, as VMware takes them in any."""
    found = {}
    for line in text.splitlines():
        if pair := _LINE.fullmatch(line):
            found[pair[1].lower()] = unescaped(pair[2] if pair[2] is not None else pair[3])
    return found


def merged(text: str, settings: Mapping[str, str]) -> str:
    """Return a .vmx with ``settings`` in it; what VMware added stays."""
    ours = {key.lower(): f'{key} = "{escaped(value)}"' for key, value in settings.items()}
    lines = []
    for line in text.splitlines():
        pair = _LINE.fullmatch(line)
        if pair and pair[1].lower() in ours:
            continue
        lines.append(line)
    # VMware reads the encoding before all else.
    first = [ours.pop(".encoding")] if ".encoding" in ours else []
    return "\n".join([*first, *lines, *ours.values()]) + "\n"


def same(has: str, value: str) -> bool:
    if value in {FALSE, ""}:
        return has.upper() in {FALSE, ""}
    return has == value or (
        has.casefold() == value.casefold() and value in {TRUE, "custom", "static"}
    )


def _fixed(wanted: GuestOrder) -> Iterator[tuple[str, str]]:
    """Yield what every guest is to be."""
    yield ".encoding", "UTF-8"
    yield "config.version", "8"
    yield "virtualHW.version", HARDWARE
    yield "displayName", wanted.name
    yield "annotation", f"nestlab {wanted.owner}"
    yield "guestOS", "other-64"
    # Workstation itself runs inside another hypervisor.
    yield "vmx.allowNested", TRUE
    # Nobody is there to answer.
    yield "msg.autoAnswer", TRUE
    yield "uuid.action", "keep"
    yield "floppy0.present", FALSE
    yield "mks.enable3d", FALSE
    yield "pciBridge0.present", TRUE
    for number in (4, 5, 6, 7):
        yield f"pciBridge{number}.present", TRUE
        yield f"pciBridge{number}.virtualDev", "pcieRootPort"
        yield f"pciBridge{number}.functions", "8"


def data_file(disk: str) -> str:
    """Return what a further disk is called."""
    return f"data-{disk}.vmdk"


def settings(
    wanted: GuestOrder, plugs: Sequence[str], vmdk: str = DISK, has: Mapping[str, str] = NOTHING
) -> dict[str, str]:
    """Return what the .vmx is to say; ``plugs`` are the networks of its NICs.

    ``vmdk`` is what its disk is called at the moment: a snapshot puts another before it. ``has`` is what the
    .vmx says now.
    """
    found = dict(_fixed(wanted))
    found["memsize"] = str(wanted.memory_mib)
    found["numvcpus"] = found["cpuid.coresPerSocket"] = str(wanted.cores)
    found["vhv.enable"] = TRUE if wanted.nested else FALSE
    found["firmware"] = "efi" if wanted.firmware == "uefi" else "bios"
    found["bios.bootOrder"] = ",".join(BOOT[each] for each in wanted.boot)
    bus = wanted.disk_bus or "sata"
    disk = SLOTS[bus] if has_disk(wanted) else ""
    found["scsi0.present"] = TRUE if disk == SLOTS["scsi"] else FALSE
    found["scsi0.virtualDev"] = "lsilogic"
    found["sata0.present"] = TRUE
    for slot in SLOTS.values():
        found[f"{slot}.present"] = TRUE if slot == disk else FALSE
    if disk:
        found[f"{disk}.fileName"] = vmdk
    media = (wanted.iso, wanted.seed, *wanted.discs)
    for drive, medium in zip_longest((CD, SEED, *DISCS), media, fillvalue=""):
        found[f"{drive}.present"] = TRUE if medium else FALSE
        if medium:
            found[f"{drive}.deviceType"] = "cdrom-image"
            found[f"{drive}.fileName"] = medium
            found[f"{drive}.startConnected"] = TRUE
    for slot, disk_ in zip_longest(DATA, wanted.disks):
        found[f"{slot}.present"] = TRUE if disk_ else FALSE
        if disk_:
            held, own = has.get(f"{slot}.filename", ""), data_file(disk_.name)
            found[f"{slot}.fileName"] = held if is_of(held, own) else own
    for number, (nic, vmnet) in enumerate(zip(wanted.nics, plugs, strict=True)):
        found |= _nic(f"ethernet{number}", nic, vmnet)
    found |= serial.settings(wanted.store, wanted.name)
    console = wanted.console
    port = console.port if console.type != "none" else 0
    found["RemoteDisplay.vnc.enabled"] = TRUE if port else FALSE
    if port:
        found["RemoteDisplay.vnc.port"] = str(port)
        found["RemoteDisplay.vnc.ip"] = console.listen
    return found


def _nic(key: str, nic: Nic, vmnet: str) -> dict[str, str]:
    return {
        f"{key}.present": TRUE,
        f"{key}.virtualDev": nic.model or NICS[0],
        f"{key}.startConnected": TRUE,
        f"{key}.connectionType": "custom",
        f"{key}.vnet": f"/dev/{vmnet}",
        f"{key}.addressType": "static",
        f"{key}.address": nic.mac.lower(),
        # VMware takes static ones of 00:50:56:00 to 3F only, unless told.
        f"{key}.checkMACAddress": FALSE,
    }


def has_disk(wanted: GuestOrder) -> bool:
    """Whether a guest has a disk."""
    return bool(wanted.image or wanted.disk_gib)


def secrets(wanted: GuestOrder) -> dict[str, str]:
    """Return what is written and never compared: VMware may keep a password in another form."""
    console = wanted.console
    open_ = console.type != "none" and console.port
    password = console.password if open_ else ""
    return {"RemoteDisplay.vnc.password": password, "RemoteDisplay.vnc.key": ""}


def unknown(wanted: GuestOrder, vmx: Mapping[str, str]) -> dict[str, str]:
    """Return NICs and drives that somebody else plugged in."""
    own = {
        *SLOTS.values(),
        CD,
        SEED,
        *DISCS,
        *DATA,
        *(f"ethernet{n}" for n in range(len(wanted.nics))),
    }
    device = re.compile(r"(ethernet\d+|(?:scsi|sata|ide|nvme)\d+:\d+)\.present")
    found = ((key, device.fullmatch(key)) for key in vmx)
    return {key: FALSE for key, it in found if it and it[1] not in own and vmx[key].upper() == TRUE}


def disk_in_use(vmx: Mapping[str, str]) -> str:
    """Return what a guest's disk is called at the moment."""
    names = (vmx.get(f"{slot}.filename", "") for slot in SLOTS.values())
    # The newest snapshot is what is in use, should both buses have had it.
    return max((name for name in names if is_of(name, DISK)), default=DISK, key=len)
