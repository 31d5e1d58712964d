"""Guests of XCP-ng and XenServer.

A guest is brought to what is wanted in rounds: look, do what is missing, look again. So one function
says what is missing, for a preview that only tells it and for a repeated try after a cut. It leaves
out guest tools, and storage that is shared by several hosts.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.xenserver import console
from components.kinds.xenserver.facts import Host, changed, glanced
from components.kinds.xenserver.names import BRIDGE, LABEL, label, mark, owner, strangers, unfit
from components.kinds.xenserver.xe import SCAN_S, Row, entry, xe
from components.reach.driver import Driver, DriverError
from components.reach.orders import GuestOrder
from components.reach.shell import Unreachable
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Shell

TEMPLATE = "Other install media"
"""XAPI's own template of a guest without disks that boots by BIOS or UEFI, from whatever is there."""
MIB = 1 << 20
GIB = 1 << 30
STOP_S = 60.0
"""How long a guest may take to end by itself, seconds."""
START_S = 300.0
ROUNDS = 8
"""A guest takes four: itself, its settings and disk, the disk in its place, and nothing more to do."""
MOST_NICS = 7
MOST_GIB = 2040
"""XAPI's largest VHD disk (XCP-ng's storage page: 2 TiB without what it notes about it)."""
CD_DEVICE = "3"
"""Where XAPI's own tools put a CD drive."""
SEED_DEVICE = "2"
"""Where the drive of a seed is: XAPI emulates the devices 0 to 3, on IDE, for guests without Xen's own drivers
(xen-api, ``allowed_VBD_devices_HVM``), and Linux leaves CDs to those."""
FIRST_DEVICE = "1"
"""Where the ISO is of a guest that has further discs."""
DATA_DEVICES = tuple(map(str, range(4, 12)))
"""Where further disks are: beyond what XAPI emulates, so a guest sees them with Xen's own drivers, which Linux has."""
MOST_DISCS = 2
"""Of those four, without the disk's and the ISO's."""
NIC_MODELS = ("rtl8139", "e1000")
VIDEO = {"vga": "std", "cirrus": "cirrus"}
"""XAPI's ``platform:vga`` by our name."""
NESTED = ("nested-virt", "exp-nested-hvm")
"""What shows a guest hardware virtualization: XAPI's key since XCP-ng 8.3, and the one before it."""
BOOT = {"hd": "c", "cdrom": "d", "network": "n"}
"""Letters of ``HVM-boot-params:order``."""


@dataclass(frozen=True)
class Step:
    """Something of a guest that is not as wanted, and the commands that mend it."""

    text: str
    commands: Sequence[Sequence[str]]
    halted: bool = False
    """Whether the guest must not run meanwhile, or sees the change only when it starts."""


def places(wanted: GuestOrder) -> dict[str, str]:
    """Return what is in a guest's drives, by their devices: firmware boots the first, so that is its ISO's."""
    iso = FIRST_DEVICE if wanted.discs else CD_DEVICE
    found = {iso: wanted.iso, SEED_DEVICE: wanted.seed}
    found = {device: path for device, path in found.items() if path}
    free = [device for device in (CD_DEVICE, SEED_DEVICE) if device not in found]
    return found | dict(zip(sorted(free[: len(wanted.discs)]), wanted.discs, strict=False))


def _too_many(wanted: GuestOrder) -> str:
    if len(wanted.nics) > MOST_NICS:
        return f"{len(wanted.nics)} NICs given, and XAPI gives a guest {MOST_NICS} at most"
    if len(wanted.disks) > len(DATA_DEVICES):
        return f"{len(wanted.disks)} further disks given, and {len(DATA_DEVICES)} have a place here"
    if any(disk.gib > MOST_GIB for disk in wanted.disks):
        return f"a further disk of more than {MOST_GIB} GiB given, where its storage ends"
    if len(wanted.discs) > MOST_DISCS - bool(wanted.seed):
        return f"{len(wanted.discs)} discs given, and XAPI emulates four drives"
    return ""


def data_label(wanted: GuestOrder, disk: str) -> str:
    """Return what a further disk of a guest is called."""
    return f"{wanted.name}/{disk} ({mark(wanted)})"


def data_of(vdi: Row, wanted: GuestOrder) -> str:
    """Return which further disk of the guest that is; empty for none."""
    found = LABEL.fullmatch(vdi["name-label"])
    mine = found and found[2] == wanted.owner and found[1].startswith(f"{wanted.name}/")
    return found[1].removeprefix(f"{wanted.name}/") if found and mine else ""


class GuestDriver(Driver[GuestOrder]):
    """See `components.reach.driver.Driver`."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "image", "owner")

    @override
    def problem(self, wanted: GuestOrder) -> str:
        models = sorted({nic.model for nic in wanted.nics})
        if unknown := [model for model in models if model not in NIC_MODELS]:
            return f"XAPI emulates no NIC {unknown[0]!r}: take {' or '.join(NIC_MODELS)}"
        if len(models) > 1:
            return f"all NICs of a guest are of one model, and {' and '.join(models)} are given"
        if wanted.video not in VIDEO:
            return f"XAPI has no adapter {wanted.video!r}: take {' or '.join(VIDEO)}"
        if wanted.disk_gib > MOST_GIB:
            return f"a disk of {wanted.disk_gib} GiB given, and its storage ends at {MOST_GIB}"
        return _too_many(wanted) or self._unfit(wanted) or self._unanswered(wanted)

    def _unfit(self, wanted: GuestOrder) -> str:
        texts = [("name", wanted.name)]
        media = (("iso", wanted.iso), ("image", wanted.image), ("seed", wanted.seed))
        texts += [each for each in media if each[1]]
        texts += [("disc", disc) for disc in wanted.discs]
        texts += [("network", nic.network) for nic in wanted.nics]
        for what, text in texts:
            if wrong := unfit(what, text):
                return wrong
        for nic in wanted.nics:
            if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", nic.mac, re.ASCII):
                return f"{nic.mac!r} is no MAC: write it like 52:54:00:12:34:56"
        return owner(wanted)

    def _unanswered(self, wanted: GuestOrder) -> str:
        """Dom0 asks whether a guest answers, and it is not on its internal networks."""
        ready = wanted.ready
        mine = [nic for nic in wanted.nics if nic.address and nic.address == ready.host]
        if ready.probe != "tcp" or not mine or mine[0].network.startswith(BRIDGE):
            return ""
        return (
            f"probe tcp asks {ready.host} on the network {mine[0].network!r}, which only guests "
            "are on: set probe: none, or put its NIC with the pinned address on a bridge"
        )

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        return self._seen(Host(shell), wanted)

    @override
    def glance(self, shell: Shell, wanted: GuestOrder) -> Seen:
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: GuestOrder) -> Seen:
        name = wanted.name
        try:
            row = self._find(host, wanted)
            if row is None:
                return Seen(ok=False, text=f"guest {name} is not there any more")
            if steps := self._steps(host, row, wanted):
                found = ", ".join(step.text for step in steps)
                return Seen(ok=False, text=f"guest {name} is not as the stack says: {found}")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        state = row["power-state"]
        return Seen(ok=state == "running", text=f"guest {name} is {state}")

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        changed(shell)
        host = Host(shell)
        for _ in range(ROUNDS):
            host = host.again()
            row = self._find(host, wanted)
            if row is None:
                self._install(host, wanted)
                continue
            if row["power-state"] in {"suspended", "paused"}:
                self._wake(shell, row)
                continue
            steps = self._steps(host, row, wanted)
            if not steps:
                if row["power-state"] == "running":
                    return
                xe(shell, "vm-start", f"uuid={row['uuid']}", timeout_s=START_S)
                return
            if row["power-state"] != "halted" and any(step.halted for step in steps):
                texts = ", ".join(step.text for step in steps if step.halted)
                say(f"guest {wanted.name} is stopped for a moment: {texts}")
                self._stop(shell, row["uuid"])
            for step in steps:
                for words in step.commands:
                    xe(shell, *words, timeout_s=SCAN_S)
        raise DriverError(f"guest {wanted.name} on {shell.name} does not stay as it was set up")

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        changed(shell)
        host = Host(shell)
        mine = [*self._marked(host, wanted), *host.all("vm", name_label=label(wanted))]
        for uuid, state in {row["uuid"]: row["power-state"] for row in mine}.items():
            if state != "halted":
                xe(shell, "vm-shutdown", f"uuid={uuid}", "--force", timeout_s=START_S)
            kept = xe(shell, "snapshot-list", f"snapshot-of={uuid}", "params=uuid", "--minimal")
            for snapshot in filter(None, kept.strip().split(",")):
                xe(shell, "snapshot-destroy", f"uuid={snapshot}", timeout_s=START_S)
            xe(shell, "vm-destroy", f"uuid={uuid}")
        mine = Host(shell).all("vdi", name_label=label(wanted))
        for row in [*mine, *(each for each in Host(shell).all("vdi") if data_of(each, wanted))]:
            # One that is plugged into something belongs to a clone that somebody made.
            if not row["vbd-uuids"]:
                xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)

    # What is there ------------------------------------------------------------------------------

    def _marked(self, host: Host, wanted: GuestOrder) -> list[Row]:
        return [
            row
            for row in host.all("vm")
            if entry(row["other-config"], "nestlab") == wanted.owner
            and entry(row["other-config"], "nestlab-self") == row["uuid"]
        ]

    def _find(self, host: Host, wanted: GuestOrder) -> Row | None:
        """Return the guest, or one that was only just begun."""
        mine = self._marked(host, wanted) or host.all("vm", name_label=label(wanted))
        return mine[0] if mine else None

    def _steps(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        """Return all that is not as wanted, in the order in which it is to be mended."""
        return [
            *self._settings(host, row, wanted),
            *self._size(row, wanted),
            *self._nics(host, row, wanted),
            *self._cds(host, row, wanted),
            *self._disk(host, row, wanted),
            *self._data(host, row, wanted),
        ]

    def _settings(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        uuid, other = row["uuid"], row["other-config"]
        booting, platform = row["HVM-boot-params"], row["platform"]
        own = "other-config:nestlab"
        # Which guest it is comes first: what is half made keeps its long name until then.
        soon = [
            ("its mark", entry(other, "nestlab-self"), f"{own}-self", uuid),
            ("its mark", entry(other, "nestlab"), own, wanted.owner),
            ("its name", row["name-label"], "name-label", wanted.name),
            (
                "boot order",
                entry(booting, "order"),
                "HVM-boot-params:order",
                "".join(BOOT[each] for each in wanted.boot),
            ),
            (
                "autostart",
                entry(other, "auto_poweron") or "false",
                "other-config:auto_poweron",
                "true" if wanted.autostart else "false",
            ),
        ]
        halted = [
            (
                "firmware",
                entry(booting, "firmware") or "bios",
                "HVM-boot-params:firmware",
                wanted.firmware,
            ),
            ("graphics adapter", entry(platform, "vga"), "platform:vga", VIDEO[wanted.video]),
        ]
        if wanted.nics:
            found = entry(platform, "nic_type") or NIC_MODELS[0]
            halted.append(("NIC model", found, "platform:nic_type", wanted.nics[0].model))
        steps = self._nested(row, wanted)
        if serial := console.mended(row):
            steps.append(Step("serial port", serial, halted=True))
        for settings, stops in ((soon, False), (halted, True)):
            wrong = [(text, f"{key}={value}") for text, has, key, value in settings if has != value]
            if wrong:
                text = ", ".join(dict.fromkeys(text for text, _ in wrong))
                command = ("vm-param-set", f"uuid={uuid}", *(word for _, word in wrong))
                steps.append(Step(text, [command], stops))
        pool = host.pool()
        if wanted.autostart and entry(pool["other-config"], "auto_poweron") != "true":
            pooled = ("pool-param-set", f"uuid={pool['uuid']}", "other-config:auto_poweron=true")
            steps.append(Step("autostart of its host", [pooled]))
        return steps

    def _nested(self, row: Row, wanted: GuestOrder) -> list[Step]:
        """Return what shows it hardware virtualization, or no longer does: most guests have no such keys."""
        uuid = f"uuid={row['uuid']}"
        # As XAPI reads it (vm_platform.ml, is_true).
        on = {key: entry(row["platform"], key).lower() in {"true", "1"} for key in NESTED}
        wrong = [key for key, shows in on.items() if shows is not wanted.nested]
        if not wrong:
            return []
        if wanted.nested:
            words = [f"platform:{key}=true" for key in wrong]
            commands: list[Sequence[str]] = [("vm-param-set", uuid, *words)]
        else:
            gone = ("vm-param-remove", uuid, "param-name=platform")
            commands = [(*gone, f"param-key={key}") for key in wrong]
        return [Step("nested virtualization", commands, halted=True)]

    def _size(self, row: Row, wanted: GuestOrder) -> list[Step]:
        uuid, steps = row["uuid"], []
        size = str(wanted.memory_mib * MIB)
        limits = ("static-min", "dynamic-min", "dynamic-max", "static-max")
        if any(row[f"memory-{each}"] != size for each in limits):
            words = [f"{each}={size}" for each in limits]
            command = ("vm-memory-limits-set", f"uuid={uuid}", *words)
            steps.append(Step("memory", [command], halted=True))
        cores = wanted.cores
        most, first = int(row["VCPUs-max"]), int(row["VCPUs-at-startup"])
        if (most, first) != (cores, cores):
            words = [f"VCPUs-max={cores}", f"VCPUs-at-startup={cores}"]
            # The one may never be more than the other, not even for a moment.
            ordered = words if cores >= first else words[::-1]
            steps.append(Step("cores", [("vm-param-set", f"uuid={uuid}", *ordered)], halted=True))
        return steps

    def _nics(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        want = {
            str(number): (nic.mac.lower(), host.network(nic.network))
            for number, nic in enumerate(wanted.nics)
        }
        steps, kept = [], set()
        for vif in host.all("vif", vm_uuid=row["uuid"]):
            device = vif["device"]
            if want.get(device) == (vif["MAC"].lower(), vif["network-uuid"]):
                kept.add(device)
            else:
                gone = ("vif-destroy", f"uuid={vif['uuid']}")
                steps.append(Step(f"NIC {device}", [gone], halted=True))
        for device, (mac, network) in want.items():
            if device not in kept:
                where = (f"vm-uuid={row['uuid']}", f"device={device}")
                made = ("vif-create", *where, f"network-uuid={network}", f"mac={mac}")
                steps.append(Step(f"NIC {device}", [made], halted=True))
        return steps

    def _cds(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        """Media are changed while a guest runs, but for a seed, which is read when it starts; drives are not."""
        vdis = {device: self._medium(host, path) for device, path in places(wanted).items()}
        every = host.all("vbd", vm_uuid=row["uuid"], type="CD")
        drives = {each["userdevice"]: each for each in every}
        steps = []
        for device in sorted(vdis.keys() - drives.keys(), key=int):
            where = (f"vm-uuid={row['uuid']}", f"device={device}", "type=CD", "mode=RO")
            made = ("vbd-create", *where, f"vdi-uuid={vdis[device]}")
            steps.append(Step(f"CD drive {device}", [made], halted=True))
        for device, drive in sorted(drives.items()):
            wants, full = vdis.get(device, ""), drive["empty"] != "true"
            uuid = f"uuid={drive['uuid']}"
            if not wants and device in {FIRST_DEVICE, SEED_DEVICE}:
                steps.append(Step(f"CD drive {device}", [("vbd-destroy", uuid)], halted=True))
            elif (drive["vdi-uuid"] if full else "") != wants:
                commands: list[Sequence[str]] = [("vbd-eject", uuid)] if full else []
                if wants:
                    commands.append(("vbd-insert", uuid, f"vdi-uuid={wants}"))
                seed = bool(wanted.seed) and device == SEED_DEVICE
                steps.append(Step(f"medium in its CD drive {device}", commands, halted=seed))
        return steps

    def _medium(self, host: Host, path: str) -> str:
        """Return the UUID of the ISO that is the file ``path``; empty for none.

        Raises:
            DriverError: it is not there.
        """
        if not path:
            return ""
        found = host.iso(path)
        if found is None:
            raise DriverError(f"{host.shell.name} has no medium {path} any more")
        return found["uuid"]

    def _disk(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        size = wanted.disk_gib * GIB
        plugs = {
            vbd["vdi-uuid"]: vbd["userdevice"]
            for vbd in host.all("vbd", vm_uuid=row["uuid"], type="Disk")
        }
        mine = host.all("vdi", name_label=label(wanted), is_a_snapshot="false")
        plugged = [vdi for vdi in mine if vdi["uuid"] in plugs]
        if not size and not wanted.image:
            if plugged:
                raise DriverError(
                    f"guest {wanted.name} has a disk, and the stack says none: what is on it "
                    "would be lost; give disk_gib again, or rename the guest to make it anew"
                )
            return []
        if plugged:
            return self._grow(plugged[0], size, wanted)
        loose = [vdi for vdi in mine if not vdi["vbd-uuids"]]
        if not loose:
            return [Step("disk", [self._new_disk(host, size, wanted)])]
        if "0" in plugs.values():
            raise DriverError(
                f"guest {wanted.name} on {host.shell.name} has a disk in the place of its own "
                f"{loose[0]['uuid']}: detach it (`xe vbd-list vm-uuid={row['uuid']}`)"
            )
        where = (f"vm-uuid={row['uuid']}", "device=0", "type=Disk", "mode=RW", "bootable=true")
        plug = ("vbd-create", *where, f"vdi-uuid={loose[0]['uuid']}")
        return [*self._grow(loose[0], size, wanted), Step("disk", [plug], halted=True)]

    def _data(self, host: Host, row: Row, wanted: GuestOrder) -> list[Step]:
        """Return what is to be done with further disks; one that the guest has no more goes with what is on it."""
        have = {data_of(vdi, wanted): vdi for vdi in host.all("vdi", is_a_snapshot="false")}
        plugs = {
            vbd["userdevice"]: vbd for vbd in host.all("vbd", vm_uuid=row["uuid"], type="Disk")
        }
        right = dict(zip(DATA_DEVICES, wanted.disks, strict=False))
        steps: list[Step] = []
        for device in DATA_DEVICES:
            name = right[device].name if device in right else ""
            held = plugs.get(device)
            if held and held["vdi-uuid"] != have.get(name, {}).get("uuid"):
                gone = ("vbd-destroy", f"uuid={held['uuid']}")
                steps.append(Step(f"disk in the place {device}", [gone], halted=True))
        for device, disk in right.items():
            vdi = have.get(disk.name)
            if vdi is None:
                where = (f"sr-uuid={host.storage()}", f"name-label={data_label(wanted, disk.name)}")
                made = ("vdi-create", *where, f"virtual-size={disk.gib * GIB}", "type=user")
                steps.append(Step(f"disk {disk.name}", [made]))
                continue
            if int(vdi["virtual-size"]) < disk.gib * GIB:
                grown = ("vdi-resize", f"uuid={vdi['uuid']}", f"disk-size={disk.gib * GIB}")
                steps.append(Step(f"size of disk {disk.name}", [grown], halted=True))
            held = plugs.get(device)
            if not held or held["vdi-uuid"] != vdi["uuid"]:
                at = (f"vm-uuid={row['uuid']}", f"device={device}", "type=Disk", "mode=RW")
                plug = ("vbd-create", *at, f"vdi-uuid={vdi['uuid']}")
                steps.append(Step(f"disk {disk.name}", [plug], halted=True))
        kept = {"", *(disk.name for disk in wanted.disks)}
        for name in sorted(have.keys() - kept):
            if not have[name]["vbd-uuids"]:
                lost = ("vdi-destroy", f"uuid={have[name]['uuid']}")
                steps.append(Step(f"disk {name}, which is removed", [lost]))
        return steps

    def _grow(self, vdi: Row, size: int, wanted: GuestOrder) -> list[Step]:
        has = int(vdi["virtual-size"])
        if size > has:
            command = ("vdi-resize", f"uuid={vdi['uuid']}", f"disk-size={size}")
            return [Step("size of its disk", [command], halted=True)]
        if size and size < has:
            raise DriverError(
                f"the disk of guest {wanted.name} has {has / GIB:g} GiB and the stack says "
                f"{size // GIB}: disks don't shrink; write disk_gib: {-(-has // GIB)} or more"
                + (", or none for as much as its image has" if wanted.image else "")
            )
        return []

    def _new_disk(self, host: Host, size: int, wanted: GuestOrder) -> Sequence[str]:
        if not wanted.image:
            where = (f"sr-uuid={host.storage()}", f"name-label={label(wanted)}")
            return ("vdi-create", *where, f"virtual-size={size}", "type=user")
        image = host.image(wanted.image)
        if image is None:
            raise DriverError(f"{host.shell.name} has no image {wanted.image} any more")
        if size and size < (has := int(image["virtual-size"])):
            raise DriverError(
                f"guest {wanted.name}: its image has {has / GIB:g} GiB and the stack says "
                f"{size // GIB}: write disk_gib: {-(-has // GIB)} or more, or none"
            )
        return ("vdi-clone", f"uuid={image['uuid']}", f"new-name-label={label(wanted)}")

    # Doing --------------------------------------------------------------------------------------

    def _install(self, host: Host, wanted: GuestOrder) -> None:
        others = host.all("vm", name_label=wanted.name)
        strangers(host.shell, "guest", "vm", wanted, others)
        made = (f"template={TEMPLATE}", f"new-name-label={label(wanted)}")
        xe(host.shell, "vm-install", *made, timeout_s=START_S)

    def _wake(self, shell: Shell, row: Row) -> None:
        how = "vm-resume" if row["power-state"] == "suspended" else "vm-unpause"
        xe(shell, how, f"uuid={row['uuid']}", timeout_s=START_S)

    def _stop(self, shell: Shell, uuid: str) -> None:
        """Ask the guest to end; one without Xen's tools, or that does not, is switched off."""
        with suppress(Unreachable, DriverError):
            xe(shell, "vm-shutdown", f"uuid={uuid}", timeout_s=STOP_S)
        state = xe(shell, "vm-param-get", f"uuid={uuid}", "param-name=power-state").strip()
        if state != "halted":
            xe(shell, "vm-shutdown", f"uuid={uuid}", "--force", timeout_s=START_S)


DRIVER = GuestDriver()
