"""Guests of a stand-alone ESXi (R176): a folder of the datastore with a ``.vmx`` and a disk (R175).

The free licence keeps the API read-only (Broadcom, vSphere provider's requirements), so they are made
over SSH by ``vmkfstools`` and ``vim-cmd``. Whose a folder is says a file in it. Linked clones are left
out, which ESXi makes through a vCenter only. A seed is a second CD (``vmx``), ``cdrom-image`` as that of an ISO.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.esxi import vimcmd
from components.kinds.esxi.medium import unfit_image
from components.kinds.esxi.names import digest, unfit
from components.kinds.esxi.vimcmd import UPLOAD_S, VOLUMES, must
from components.kinds.esxi.vmx import DATA, DISCS, DISKS, data_stem, differences, has_disk, merged
from components.reach.driver import Driver, DriverError, foreign
from components.reach.orders import DataDisk, GuestOrder, Nic
from components.reach.upload import PART
from components.reach.vmx import ill_named, parsed, rendered, snapshots
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.kinds.esxi.vimcmd import Vm
    from components.reach.shell import Shell

OWNER_FILE = "nestlab.owner"
NIC_MODELS = ("vmxnet3", "e1000", "e1000e")
MOST_NICS = 10
MOST_CORES = 8
"""Of one guest, with the free licence (R163)."""
MEMORY_STEP_MIB = 4
GIB = 1 << 30
SECTOR = 512
COPY_S = 3600.0


class GuestDriver(Driver[GuestOrder]):
    """Registered guests, each in a folder of its own."""

    replaced_by: ClassVar[tuple[str, ...]] = (
        "name",
        "image",
        "disk_bus",
        "firmware",
        "store",
        "owner",
    )

    @override
    def problem(self, wanted: GuestOrder) -> str:
        name = wanted.name
        if wrong := (
            unfit(name) or _unfit_size(wanted) or _unfit_drives(wanted) or _unfit_nic(wanted.nics)
        ):
            return f"{name}: {wrong}"
        for path in (wanted.iso, wanted.image, wanted.seed, *wanted.discs):
            if path and not (path.startswith("/") and path.isprintable()):
                return f"{path!r} can't be the path of a medium of {name}: rename the medium"
        return unfit_image(wanted.image) if wanted.image else ""

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        try:
            wrong = self._seen(shell, wanted)
        except DriverError as refused:
            wrong = str(refused)
        return Seen(ok=not wrong, text=f"guest {wanted.name} {wrong or 'is on'}")

    # Each of its commands asks hostd a moment; none of them can be left out.

    def _seen(self, shell: Shell, wanted: GuestOrder) -> str:
        """Say what is wrong with the guest; empty when nothing is."""
        vmx = vimcmd.read(shell, f"{_home(wanted)}/{wanted.name}.vmx")
        if vmx is None:
            return "is not there any more"
        vmid = _listed(vimcmd.vms(shell)[0], wanted)
        if not vmid:
            return "is not registered any more"
        if differs := differences(parsed(vmx), wanted):
            return f"is not set up as the stack says ({', '.join(differs)})"
        disk = vimcmd.read(shell, f"{_home(wanted)}/{wanted.name}.vmdk")
        if has_disk(wanted) and (wrong := _wrong_size(disk, wanted)):
            return f"has a disk that {wrong}"
        for data in wanted.disks:
            if (has := _has(shell, wanted, data)) < data.gib * GIB:
                return f"has {has / GIB:g} GiB of its disk {data.name}"
        return self._idle(shell, wanted, vmid)

    def _idle(self, shell: Shell, wanted: GuestOrder, vmid: str) -> str:
        """Say why a guest that is set up well does not run, or not the next time."""
        if (state := vimcmd.power_state(shell, vmid)) != "on":
            return f"is {state}"
        if vimcmd.starts(shell, vmid) is not wanted.autostart:
            return f"{'does not start' if wanted.autostart else 'starts'} with its host"
        return ""

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        name, home = wanted.name, _home(wanted)
        # First: nothing of ours may stand beside somebody else's.
        vmid, broken = self._number(shell, wanted)
        _claim(shell, wanted)
        have = parsed(vimcmd.read(shell, f"{home}/{name}.vmx") or "")
        grows = self._disk(shell, wanted)
        more = [disk for disk in wanted.disks if _has(shell, wanted, disk) < disk.gib * GIB]
        if differences(have, wanted) or not have or grows or more:
            grown = [f"{home}/{name}.vmdk"] if grows else []
            grown += [_data(wanted, disk) for disk in more if _has(shell, wanted, disk)]
            _no_snapshots(shell, wanted, grown)
            if vmid:
                vimcmd.stop(shell, wanted.name, vmid)
            if grows:
                _grown(shell, f"{home}/{name}.vmdk", wanted.disk_gib)
            for disk in more:
                if _has(shell, wanted, disk):
                    _grown(shell, _data(wanted, disk), disk.gib)
                else:
                    _made(shell, _data(wanted, disk), ["-c", f"{disk.gib}G"])
            self._drop(shell, wanted)
            text = rendered(merged(have, wanted))
            shell.put(text.encode(), f"{home}/{name}.vmx", timeout_s=UPLOAD_S)
            if vmid:
                vimcmd.reload(shell, vmid)
        if not vmid and broken:
            vmid = _revived(shell, wanted, broken)
        if not vmid:
            vmid = vimcmd.register(shell, f"{home}/{name}.vmx")
        vimcmd.set_autostart(shell, vmid, on=wanted.autostart)
        vimcmd.saved(shell)
        if vimcmd.power_state(shell, vmid) != "on":
            vimcmd.power_on(shell, vmid)

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        home, gone = _home(wanted), _gone(wanted)
        vms, broken = vimcmd.vms(shell)
        vmid = _listed(vms, wanted)
        owner, there = _owner(shell, wanted), shell.run(["test", "-e", home]).ok
        if not there and (vmid or broken):
            # Its files were removed by hand, and its registration stands.
            _claim(shell, wanted)
            owner = wanted.owner
        if owner == wanted.owner:
            if not vmid and broken:
                text = rendered(merged({}, wanted))
                shell.put(text.encode(), f"{home}/{wanted.name}.vmx", timeout_s=UPLOAD_S)
                vmid = _revived(shell, wanted, broken)
            if vmid:
                if vimcmd.power_state(shell, vmid) != "off":
                    vimcmd.power_off(shell, vmid)
                # Not "destroy", which would take disks with it that somebody lent the guest.
                vimcmd.unregister(shell, vmid)
                vimcmd.saved(shell)
            must(shell, ["rm", "-rf", gone], timeout_s=vimcmd.POWER_S)
            # First: what is half gone must not be taken for whole, nor for somebody else's.
            must(shell, ["mv", home, gone])
        must(shell, ["rm", "-rf", gone], timeout_s=vimcmd.POWER_S)

    def _number(self, shell: Shell, wanted: GuestOrder) -> tuple[str, list[str]]:
        """Return the guest's number, empty for none, and the numbers of unreadable ones.

        Raises:
            DriverError: somebody else's guest has its name.
        """
        vms, broken = vimcmd.vms(shell)
        vmid = _listed(vms, wanted)
        strangers = [vm for vm in vms if vm.name == wanted.name]
        if strangers and not vmid:
            raise foreign(
                shell,
                f"guest {wanted.name}, {strangers[0].file},",
                "rename one of the two, or remove that one",
            )
        return vmid, broken

    def _disk(self, shell: Shell, wanted: GuestOrder) -> bool:
        """Make the disk where there is none; return whether it has to grow."""
        disk = f"{_home(wanted)}/{wanted.name}.vmdk"
        there = vimcmd.read(shell, disk)
        if not has_disk(wanted):
            if there is not None:
                raise DriverError(_lossy(wanted, "has a disk, which the stack does not want"))
            return False
        if there is None:
            made = ["-i", wanted.image] if wanted.image else ["-c", f"{wanted.disk_gib}G"]
            _made(shell, disk, made)
            there = vimcmd.read(shell, disk)
        wrong = _wrong_size(there, wanted)
        if wrong and not wanted.image and _size(there) > wanted.disk_gib * GIB:
            raise DriverError(_lossy(wanted, f"has a disk that {wrong}"))
        return bool(wrong)

    def _drop(self, shell: Shell, wanted: GuestOrder) -> None:
        """Remove the further disks that the guest has no more."""
        home, prefix = _home(wanted), data_stem(wanted, "")
        kept = {disk.name for disk in wanted.disks}
        inside = must(shell, ["ls", "-A", home]).split("\n")
        for file in inside:
            name = file.removeprefix(prefix).removesuffix(".vmdk")
            if file != f"{prefix}{name}.vmdk" or name in kept or ill_named(name):
                continue
            say(f"{wanted.name}: its disk {name} is removed")
            for snapshot in sorted(snapshots(inside, file), reverse=True):
                shell.run(["vmkfstools", "-U", f"{home}/{snapshot}"], timeout_s=COPY_S)
            must(shell, ["vmkfstools", "-U", f"{home}/{file}"], timeout_s=COPY_S)


def _made(shell: Shell, disk: str, how: Sequence[str]) -> None:
    """Make a disk, under another name until it is whole: copies take minutes, and connections are cut."""
    half = f"{disk.removesuffix('.vmdk')}-half.vmdk"
    if shell.run(["test", "-e", half]).ok and not shell.run(["vmkfstools", "-U", half]).ok:
        must(shell, ["rm", "-f", half, half.replace(".vmdk", "-flat.vmdk")])
    must(shell, ["vmkfstools", *how, "-d", "thin", half], timeout_s=COPY_S)
    must(shell, ["vmkfstools", "-E", half, disk])


def _no_snapshots(shell: Shell, wanted: GuestOrder, grown: Sequence[str]) -> None:
    """Refuse to grow a disk under a snapshot (see `snapshots`)."""
    inside = must(shell, ["ls", "-A", _home(wanted)]).split("\n") if grown else []
    for disk in grown:
        if found := snapshots(inside, disk.rpartition("/")[2]):
            raise DriverError(
                f"guest {wanted.name} has a snapshot ({found[0]}), which would not fit to a larger disk: "
                "delete its snapshots in the Host Client, or give the disk its size of before"
            )


def _grown(shell: Shell, disk: str, gib: int) -> None:
    must(shell, ["vmkfstools", "-X", f"{gib}G", disk], timeout_s=COPY_S)


def _has(shell: Shell, wanted: GuestOrder, disk: DataDisk) -> int:
    """Return how large a further disk is, bytes; 0 for none."""
    return _size(vimcmd.read(shell, _data(wanted, disk)))


def _data(wanted: GuestOrder, disk: DataDisk) -> str:
    return f"{_home(wanted)}/{data_stem(wanted, disk.name)}.vmdk"


def _listed(vms: Sequence[Vm], wanted: GuestOrder) -> str:
    """Return the guest's number, empty for none."""
    return next((vm.vmid for vm in vms if vm.file == _file(wanted)), "")


def _revived(shell: Shell, wanted: GuestOrder, broken: Sequence[str]) -> str:
    """Have ESXi read the .vmx of its unreadable guests again; return ours if it is among them.

    Somebody else's broken guest stays as broken as it is.
    """
    for each in broken:
        vimcmd.reload_any(shell, each)
    return _listed(vimcmd.vms(shell)[0], wanted)


def _unfit_size(wanted: GuestOrder) -> str:
    cores, memory = wanted.cores, wanted.memory_mib
    if cores > MOST_CORES:
        return (
            f"{cores} cores, and ESXi's free licence allows {MOST_CORES} in one guest: "
            f"write {MOST_CORES} or less"
        )
    if memory % MEMORY_STEP_MIB:
        return f"{memory} MiB, and ESXi gives memory in steps of {MEMORY_STEP_MIB}: round it"
    return ""


def _unfit_drives(wanted: GuestOrder) -> str:
    if has_disk(wanted) and wanted.disk_bus not in DISKS:
        return f"its disk is on {wanted.disk_bus!r}: ESXi has {', '.join(DISKS)}"
    for disk in wanted.disks:
        if wrong := ill_named(disk.name):
            return wrong
    for what, those, places in (
        ("discs", wanted.discs, DISCS),
        ("further disks", wanted.disks, DATA),
    ):
        if len(those) > len(places):
            return f"{len(those)} {what}: {len(places)} have a place on its SATA controller"
    return ""


def _unfit_nic(nics: Sequence[Nic]) -> str:
    if len(nics) > MOST_NICS:
        return f"{len(nics)} NICs, and ESXi gives {MOST_NICS} to a guest: remove some"
    for number, nic in enumerate(nics):
        if nic.model not in NIC_MODELS:
            return f"NIC {number} is {nic.model!r}: ESXi has {', '.join(NIC_MODELS)}"
        if not nic.network.isprintable():
            return f"NIC {number} is on {nic.network!r}: rename that network"
        if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", nic.mac):
            return f"NIC {number} has {nic.mac!r}, which is no MAC: correct it"
    return ""


def _lossy(wanted: GuestOrder, what: str) -> str:
    return (
        f"guest {wanted.name} {what}, and nothing is taken off a disk: put disk_gib back, or have "
        "the guest made anew, empty, with `pulumi up --replace` and its URN"
    )


def _home(wanted: GuestOrder) -> str:
    return f"{wanted.store}/guests/{wanted.name}"


def _gone(wanted: GuestOrder) -> str:
    """Return where a guest's folder is while it is being removed."""
    return f"{wanted.store}/guests/.{digest(wanted.owner, wanted.name)}.gone"


def _file(wanted: GuestOrder) -> str:
    """Return a guest's .vmx as ESXi lists it."""
    store, _, folder = _home(wanted).removeprefix(VOLUMES).partition("/")
    return f"[{store}] {folder}/{wanted.name}.vmx"


def _owner(shell: Shell, wanted: GuestOrder) -> str:
    return (vimcmd.read(shell, f"{_home(wanted)}/{OWNER_FILE}") or "").strip()


def _claim(shell: Shell, wanted: GuestOrder) -> None:
    """Make the guest's folder with our mark in it, unless it is somebody else's."""
    home = _home(wanted)
    owner = _owner(shell, wanted)
    if owner == wanted.owner:
        return
    there = shell.run(["test", "-e", home]).ok
    inside = must(shell, ["ls", "-A", home]).split("\n") if there else []
    if [each for each in inside if each and not each.endswith(PART)]:
        whose = "another lab" if owner else "somebody"
        raise foreign(
            shell, f"{home} with {whose}'s files", "remove the folder, or rename the guest"
        )
    must(shell, ["mkdir", "-p", home])
    shell.put(wanted.owner.encode(), f"{home}/{OWNER_FILE}", timeout_s=UPLOAD_S)


def _size(descriptor: str | None) -> int:
    """Return the size of a disk, bytes; 0 where its descriptor does not tell."""
    extents = re.findall(r"(?m)^RW (\d+) ", descriptor or "")
    return sum(map(int, extents)) * SECTOR


def _wrong_size(descriptor: str | None, wanted: GuestOrder) -> str:
    """Say what is wrong with a disk, from its descriptor; empty when nothing is."""
    if descriptor is None:
        return "is gone"
    have, want = _size(descriptor), wanted.disk_gib * GIB
    if not have or not want or have == want or (wanted.image and have > want):
        return ""
    return f"is {have / GIB:g} GiB and not {want / GIB:g}"


DRIVER = GuestDriver()
