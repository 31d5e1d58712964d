"""Networks, media and guests of a stand-alone ESXi, by its own commands (R176).

The free licence keeps the API read-only (Broadcom, vSphere provider's requirements), so they are made
over SSH by ``esxcli``, ``vmkfstools`` and ``vim-cmd``. A guest is a folder of the datastore with a
``.vmx`` and a disk (R175); the ``.vmx`` is what is compared, and only our keys of it, because ESXi
writes its own ones beside them. Whose a folder is says a file in it; whose a port group is, its name.

It leaves out linked clones, which ESXi makes through a vCenter only, and the security policies of
switches: guests here are no hypervisors, so every frame carries the address ESXi gave its NIC.
"""

from __future__ import annotations

import csv
import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.remote.driver import COMMAND_S, DriverError, refusal
from components.remote.interrupt import CANCELLED
from components.remote.upload import PART
from components.remote.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.remote.driver import Props
    from components.remote.shell import Result, Shell

VOLUMES = "/vmfs/volumes/"
UPLINK = "vSwitch0"
"""The switch that the installer makes, on the NIC that ESXi is managed by."""
OWNER_FILE = "nestlab.owner"
NIC_MODELS = ("vmxnet3", "e1000", "e1000e")
MOST_NICS = 10
MOST_CORES = 8
"""R163: of one guest, with the free licence."""
MEMORY_STEP_MIB = 4
LONGEST = 60
"""Bytes of a name: with what is added, a guest's or port group's stays below ESXi's 80."""
HARDWARE = 17
"""Virtual hardware that ESXi 7.0 brought and 8 and 9 run."""
GIB = 1 << 30
SECTOR = 512
POWER_S = 300.0
COPY_S = 3600.0
SUM_S = 1800.0
UPLOAD_S = 300.0
"""For a piece of it, not for all."""
STOP_S = 60.0
"""How long a guest with VMware Tools may take to end by itself, seconds."""
STOP_POLL_S = 2.0

FORBIDDEN = '/\\"|[],%'
"""Letters that file names, .vmx files, lists of VMs or of port groups give another meaning."""
DISKS = {"sata": "sata0:0", "scsi": "scsi0:0", "ide": "ide0:0"}
CD = "ide1:0"
BOOT = {"cdrom": "cdrom", "hd": "hdd", "network": "ethernet0"}
USUAL = {"numvcpus": "1", "firmware": "bios"}
"""What ESXi leaves out of a .vmx when it says no more than the default."""
ADVICE = (
    (
        r"AMD-V|VT-x|VHV disabled|MonitorMode",
        "no hardware virtualization reaches it: the outer host has to be real KVM with nested=1",
    ),
    (
        r"(?i)no space left|not enough space|insufficient disk",
        "its datastore is full: raise disk_gib of this ESXi, or make what is in it smaller",
    ),
    (
        r"not a virtual disk|hosted I/O|unsupported disk",
        "convert the image: qemu-img convert -O vmdk -o subformat=monolithicSparse IMAGE NEW.vmdk",
    ),
    (r"(?i)reserved MACs|static ethernet address", "take a MAC that begins with 52:54:00"),
    (
        r"(?i)memory resources|insufficient memory",
        "make its guests' memory smaller, or raise memory_mib of this ESXi",
    ),
    (
        r"(?i)device or resource busy|failed to lock the file",
        "somebody uses the file, perhaps a command that was cut off: try again in a minute",
    ),
    (
        r"Current license or ESXi version prohibits",
        "the free licence keeps the API read-only: remove licence:, which gives 60 days of everything",
    ),
)


# One command ------------------------------------------------------------------------------------


def _must(shell: Shell, argv: Sequence[str], *, timeout_s: float = COMMAND_S) -> str:
    done = shell.run(argv, timeout_s=timeout_s)
    if not done.ok or _fault(done):
        raise refusal(shell, argv, _words(done))
    return done.out


def _fault(done: Result) -> bool:
    # vim-cmd tells failures by what it prints, and by its exit code in some versions only.
    return bool(re.search(r"(?m)^(.*: ?)?\((vim|vmodl)\.fault\.\w+\) \{", done.out + done.err))


def _words(done: Result) -> str:
    """Return what was said, with the cause and the way out where they are known."""
    said = done.said
    if _fault(done):
        # Messages hold quotes themselves.
        named = re.findall(r'(?m)^   msg = "(.*?)",? *$', done.out + done.err)
        kind = re.search(r"\((?:vim|vmodl)\.fault\.(\w+)\)", done.out + done.err)
        said = next((msg for msg in reversed(named) if msg), kind[1] if kind else said)
    for sign, remedy in ADVICE:
        if re.search(sign, done.out + done.err):
            return f"{said}; {remedy}"
    return said


def _kept(shell: Shell) -> None:
    """Have ESXi write its own settings to disk.

    It does so once an hour and when it is shut down: switched off the hard way it would forget
    switches and guests that were made since.
    """
    done = shell.run(["auto-backup.sh"], timeout_s=COMMAND_S)
    if not done.ok:
        say(f"{shell.name}: its settings were not saved ({done.said}), a power cut may lose them")


def unfit(name: str) -> str:
    """Say why ESXi can't have something of that ``name``; empty when it can."""
    if (
        name
        and len(name.encode(errors="replace")) <= LONGEST
        and name == name.strip()
        and name[0] not in "-."
        and name.isprintable()
        and not any(letter in FORBIDDEN for letter in name)
    ):
        return ""
    return (
        f"{name!r} can't be a name on ESXi: at most {LONGEST} bytes, no line breaks, none of "
        f"{' '.join(FORBIDDEN)}, no blank at either end, no - or . at the beginning: rename it"
    )


def _volume_path(path: str) -> str:
    """Return a path without its datastore: ESXi writes that one's UUID where we write its name."""
    return re.sub(rf"^{VOLUMES}[^/]+/", "", path)


# .vmx -------------------------------------------------------------------------------------------


def parse_vmx(text: str) -> dict[str, str]:
    """Return the settings of a .vmx by their keys as written, values unescaped."""
    lines = re.findall(r'(?m)^\s*([^\s=#]+)\s*=\s*"([^"\n]*)"\s*$', text)
    return {key: _unescaped(value) for key, value in lines}


def render_vmx(settings: Mapping[str, str]) -> str:
    """Return ``settings`` as a .vmx; no value can end before its quotes do."""
    head = {".encoding": "UTF-8"} | dict(settings)
    return "".join(f'{key} = "{_escaped(value)}"\n' for key, value in head.items())


def _escaped(value: str) -> str:
    return "".join(
        f"|{ord(letter):02X}" if letter in '|"#' or ord(letter) < ord(" ") else letter
        for letter in value
    )


def _unescaped(value: str) -> str:
    return re.sub(r"\|([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), value)


def _has_disk(wanted: Props) -> bool:
    return bool(wanted["image"] or wanted["disk_gib"])


def _decided(wanted: Props) -> dict[str, str]:
    """Return the settings that the stack decides; what of them was changed by hand is mended."""
    found = {
        "displayName": wanted["name"],
        "memSize": str(wanted["memory_mib"]),
        "numvcpus": str(wanted["cores"]),
        "firmware": "efi" if wanted["firmware"] == "uefi" else "bios",
        "bios.bootOrder": ",".join(BOOT[each] for each in wanted["boot"]),
        "annotation": f"nestlab {wanted['owner']}",
        f"{CD}.present": "TRUE" if wanted["iso"] else "FALSE",
    }
    if wanted["iso"]:
        found[f"{CD}.deviceType"] = "cdrom-image"
        found[f"{CD}.fileName"] = wanted["iso"]
    if _has_disk(wanted):
        disk = DISKS[wanted["disk_bus"]]
        found[f"{disk}.present"] = "TRUE"
        found[f"{disk}.fileName"] = f"{wanted['name']}.vmdk"
    for number, nic in enumerate(wanted["nics"]):
        found |= {
            f"ethernet{number}.present": "TRUE",
            f"ethernet{number}.virtualDev": nic["model"],
            f"ethernet{number}.networkName": nic["network"],
            f"ethernet{number}.addressType": "static",
            f"ethernet{number}.address": nic["mac"],
        }
    return found


def _beginning(wanted: Props) -> dict[str, str]:
    """Return what else a new guest begins with; people may change it."""
    found = {
        "config.version": "8",
        "virtualHW.version": str(HARDWARE),
        "guestOS": "other-64",
        "nvram": f"{wanted['name']}.nvram",
        "vhv.enable": "FALSE",
        # A question would keep it from starting, and nobody is there to answer.
        "msg.autoAnswer": "TRUE",
        "floppy0.present": "FALSE",
        "svga.present": "TRUE",
        "pciBridge0.present": "TRUE",
        f"{CD}.startConnected": "TRUE",
    }
    for number in range(4, 8):
        # NICs are on PCI Express.
        found |= {
            f"pciBridge{number}.present": "TRUE",
            f"pciBridge{number}.virtualDev": "pcieRootPort",
            f"pciBridge{number}.functions": "8",
        }
    if _has_disk(wanted):
        bus = DISKS[wanted["disk_bus"]].partition(":")[0]
        if wanted["disk_bus"] != "ide":
            found[f"{bus}.present"] = "TRUE"
        if wanted["disk_bus"] == "scsi":
            found[f"{bus}.virtualDev"] = "lsilogic"
            found["scsi0:0.deviceType"] = "scsi-hardDisk"
    for number in range(len(wanted["nics"])):
        # Else ESXi refuses addresses of VMware's own range that it did not give itself.
        found[f"ethernet{number}.checkMACAddress"] = "FALSE"
        found[f"ethernet{number}.startConnected"] = "TRUE"
    return found


def _nic_of(key: str) -> int:
    """Return the number of the NIC that a key is about; -1 for none."""
    found = re.match(r"ethernet(\d+)\.", key)
    return int(found[1]) if found else -1


def _differences(have: Mapping[str, str], wanted: Props) -> list[str]:
    """Return the keys in which a .vmx is not what the stack says."""
    real = {key.casefold(): value for key, value in have.items()}
    found = []
    for key, value in _decided(wanted).items():
        low = key.casefold()
        usual = "FALSE" if low.endswith(".present") else USUAL.get(low, "")
        if not _same(low, real.get(low, usual), value, wanted):
            found.append(key)
    nics = len(wanted["nics"])
    return found + [
        key
        for key, value in real.items()
        if key.endswith(".present") and _nic_of(key) >= nics and value.upper() == "TRUE"
    ]


def _same(key: str, real: str, value: str, wanted: Props) -> bool:
    if key == "annotation":
        # People write notes below.
        return value in real
    if key == f"{CD}.filename":
        return _volume_path(real) == _volume_path(value)
    if key.endswith(".filename"):
        return _is_disk(real, wanted)
    if key == "displayname" or key.endswith(".networkname"):
        return real == value
    return real.lower() == value.lower()


def _is_disk(file: str, wanted: Props) -> bool:
    """Whether ``file`` is the guest's disk, or a snapshot's that somebody made of it."""
    return bool(re.fullmatch(rf"{re.escape(wanted['name'])}(-\d{{6}})?\.vmdk", file))


def _merged(have: Mapping[str, str], wanted: Props) -> dict[str, str]:
    """Return a .vmx as the stack says, with what ESXi and people put into it kept."""
    made = _beginning(wanted) | {
        key: value for key, value in have.items() if _nic_of(key) < len(wanted["nics"])
    }
    by_low = {key.casefold(): key for key in made}
    for key, value in _decided(wanted).items():
        at = by_low.get(key.casefold(), key)
        if at not in made or not _same(key.casefold(), made[at], value, wanted):
            made[at] = value
    for key in [key for key in made if "generatedaddress" in key.lower()]:
        del made[key]
    return made


# Lists ------------------------------------------------------------------------------------------


class Vm(NamedTuple):
    """A registered guest."""

    vmid: str
    name: str
    file: str
    """As ESXi writes it: ``[datastore1] web/web.vmx``."""
    note: str

    @property
    def path(self) -> str:
        """Its .vmx as a path."""
        store, _, file = self.file.removeprefix("[").partition("] ")
        return f"{VOLUMES}{store}/{file}"


_VM = re.compile(r"(?m)^(\d+) +(.*?) +(\[[^\]\n]*\] .*?\.vmx) +\S+ +vmx-\d+(?: +(.*?))? *$")


def _vms(shell: Shell) -> tuple[list[Vm], list[str]]:
    """Return the registered guests, and the numbers of those whose .vmx ESXi can't read."""
    argv = ["vim-cmd", "vmsvc/getallvms"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok or _fault(done):
        raise refusal(shell, argv, _words(done))
    found = [Vm(*(part or "" for part in each)) for each in _VM.findall(done.out)]
    return found, re.findall(r"Skipping invalid VM '(\d+)'", done.out + done.err)


def _state(shell: Shell, vmid: str) -> str:
    """Return "on", "off" or "suspended"."""
    argv = ["vim-cmd", "vmsvc/power.getstate", vmid]
    out = _must(shell, argv)
    if found := re.search(r"(?m)^(?:Powered (on|off)|(Suspended)) *$", out):
        return found[1] or found[2].lower()
    raise refusal(shell, argv, repr(out.strip()))


AUTOSTART = "hostsvc/autostartmanager"


# Guests -----------------------------------------------------------------------------------------


class GuestDriver:
    """See `components.remote.driver.Driver`."""

    replaced_by = ("name", "image", "disk_bus", "firmware", "store")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = wanted["name"]
        if wrong := unfit(name) or _unfit_size(wanted) or _unfit_nic(wanted["nics"]):
            return f"{name}: {wrong}"
        if _has_disk(wanted) and wanted["disk_bus"] not in DISKS:
            return f"{name} has its disk on {wanted['disk_bus']!r}: ESXi has {', '.join(DISKS)}"
        for path in (wanted["iso"], wanted["image"]):
            if path and not (path.startswith("/") and path.isprintable()):
                return f"{path!r} can't be the path of a medium of {name}: rename the medium"
        return _unfit_image(wanted["image"]) if wanted["image"] else ""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        try:
            wrong = self._seen(shell, wanted)
        except DriverError as refused:
            wrong = str(refused)
        return Seen(ok=not wrong, text=f"guest {wanted['name']} {wrong or 'is on'}")

    # Each of its commands asks hostd a moment; none of them can be left out.
    glance = look

    def _seen(self, shell: Shell, wanted: Props) -> str:
        """Say what is wrong with the guest; empty when nothing is."""
        vmx = _read(shell, f"{_home(wanted)}/{wanted['name']}.vmx")
        if vmx is None:
            return "is not there any more"
        vmid = _listed(_vms(shell)[0], wanted)
        if not vmid:
            return "is not registered any more"
        if differs := _differences(parse_vmx(vmx), wanted):
            return f"is not set up as the stack says ({', '.join(differs)})"
        disk = _read(shell, f"{_home(wanted)}/{wanted['name']}.vmdk")
        if _has_disk(wanted) and (wrong := _wrong_size(disk, wanted)):
            return f"has a disk that {wrong}"
        return self._idle(shell, wanted, vmid)

    def _idle(self, shell: Shell, wanted: Props, vmid: str) -> str:
        """Say why a guest that is set up well does not run, or not the next time."""
        if (state := _state(shell, vmid)) != "on":
            return f"is {state}"
        if _starts(shell, vmid) is not wanted["autostart"]:
            return f"{'does not start' if wanted['autostart'] else 'starts'} with its host"
        return ""

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        name, home = wanted["name"], _home(wanted)
        _claim(shell, wanted)
        vmid, broken = self._number(shell, wanted)
        have = parse_vmx(_read(shell, f"{home}/{name}.vmx") or "")
        grows = self._disk(shell, wanted)
        if _differences(have, wanted) or not have or grows:
            if vmid:
                _stop(shell, wanted, vmid)
            if grows:
                size = f"{wanted['disk_gib']}G"
                _must(shell, ["vmkfstools", "-X", size, f"{home}/{name}.vmdk"], timeout_s=COPY_S)
            text = render_vmx(_merged(have, wanted))
            shell.put(text.encode(), f"{home}/{name}.vmx", timeout_s=UPLOAD_S)
            if vmid:
                _must(shell, ["vim-cmd", "vmsvc/reload", vmid])
        if not vmid and broken:
            vmid = _revived(shell, wanted, broken)
        if not vmid:
            vmid = _must(shell, ["vim-cmd", "solo/registervm", f"{home}/{name}.vmx"]).strip()
        _autostart(shell, vmid, on=wanted["autostart"])
        _kept(shell)
        if _state(shell, vmid) != "on":
            _must(shell, ["vim-cmd", "vmsvc/power.on", vmid], timeout_s=POWER_S)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        home, gone = _home(wanted), _gone(wanted)
        vms, broken = _vms(shell)
        vmid = _listed(vms, wanted)
        owner, there = _owner(shell, wanted), shell.run(["test", "-e", home]).ok
        if not there and (vmid or broken):
            # Its files were removed by hand, and its registration stands.
            _claim(shell, wanted)
            owner = wanted["owner"]
        if owner == wanted["owner"]:
            if not vmid and broken:
                text = render_vmx(_merged({}, wanted))
                shell.put(text.encode(), f"{home}/{wanted['name']}.vmx", timeout_s=UPLOAD_S)
                vmid = _revived(shell, wanted, broken)
            if vmid:
                if _state(shell, vmid) != "off":
                    _must(shell, ["vim-cmd", "vmsvc/power.off", vmid], timeout_s=POWER_S)
                # Not "destroy", which would take disks with it that somebody lent the guest.
                _must(shell, ["vim-cmd", "vmsvc/unregister", vmid])
                _kept(shell)
            _must(shell, ["rm", "-rf", gone], timeout_s=POWER_S)
            # First: what is half gone must not be taken for whole, nor for somebody else's.
            _must(shell, ["mv", home, gone])
        _must(shell, ["rm", "-rf", gone], timeout_s=POWER_S)

    def _number(self, shell: Shell, wanted: Props) -> tuple[str, list[str]]:
        """Return the guest's number, empty for none, and the numbers of unreadable ones.

        Raises:
            DriverError: somebody else's guest has its name.
        """
        vms, broken = _vms(shell)
        vmid = _listed(vms, wanted)
        strangers = [vm for vm in vms if vm.name == wanted["name"]]
        if strangers and not vmid:
            raise DriverError(
                f"{shell.name} has a guest {wanted['name']} that is not this lab's "
                f"({strangers[0].file}): rename one of the two, or remove that one"
            )
        return vmid, broken

    def _disk(self, shell: Shell, wanted: Props) -> bool:
        """Make the disk where there is none; return whether it has to grow."""
        name, home = wanted["name"], _home(wanted)
        disk, half = f"{home}/{name}.vmdk", f"{home}/{name}-half.vmdk"
        there = _read(shell, disk)
        if not _has_disk(wanted):
            if there is not None:
                raise DriverError(_lossy(wanted, "has a disk, which the stack does not want"))
            return False
        if there is None:
            # Under another name until it is whole: copies take minutes, and connections are cut.
            if shell.run(["test", "-e", half]).ok and not shell.run(["vmkfstools", "-U", half]).ok:
                _must(shell, ["rm", "-f", half, half.replace(".vmdk", "-flat.vmdk")])
            if wanted["image"]:
                made = ["vmkfstools", "-i", wanted["image"], "-d", "thin", half]
            else:
                made = ["vmkfstools", "-c", f"{wanted['disk_gib']}G", "-d", "thin", half]
            _must(shell, made, timeout_s=COPY_S)
            _must(shell, ["vmkfstools", "-E", half, disk])
            there = _read(shell, disk)
        wrong = _wrong_size(there, wanted)
        if wrong and not wanted["image"] and _size(there) > wanted["disk_gib"] * GIB:
            raise DriverError(_lossy(wanted, f"has a disk that {wrong}"))
        return bool(wrong)


def _listed(vms: Sequence[Vm], wanted: Props) -> str:
    """Return the guest's number, empty for none."""
    return next((vm.vmid for vm in vms if vm.file == _file(wanted)), "")


def _revived(shell: Shell, wanted: Props, broken: Sequence[str]) -> str:
    """Have ESXi read the .vmx of its unreadable guests again; return ours if it is among them.

    Somebody else's broken guest stays as broken as it is.
    """
    for each in broken:
        shell.run(["vim-cmd", "vmsvc/reload", each], timeout_s=COMMAND_S)
    return _listed(_vms(shell)[0], wanted)


def _unfit_size(wanted: Props) -> str:
    cores, memory = wanted["cores"], wanted["memory_mib"]
    if cores > MOST_CORES:
        return (
            f"{cores} cores, and ESXi's free licence allows {MOST_CORES} in one guest (R163): "
            f"write {MOST_CORES} or less"
        )
    if memory % MEMORY_STEP_MIB:
        return f"{memory} MiB, and ESXi gives memory in steps of {MEMORY_STEP_MIB}: round it"
    return ""


def _unfit_nic(nics: Sequence[Mapping[str, str]]) -> str:
    if len(nics) > MOST_NICS:
        return f"{len(nics)} NICs, and ESXi gives {MOST_NICS} to a guest: remove some"
    for number, nic in enumerate(nics):
        if nic["model"] not in NIC_MODELS:
            return f"NIC {number} is {nic['model']!r}: ESXi has {', '.join(NIC_MODELS)}"
        if not nic["network"].isprintable():
            return f"NIC {number} is on {nic['network']!r}: rename that network"
        if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", nic["mac"]):
            return f"NIC {number} has {nic['mac']!r}, which is no MAC: correct it"
    return ""


def _lossy(wanted: Props, what: str) -> str:
    return (
        f"guest {wanted['name']} {what}, and nothing is taken off a disk: put disk_gib back, or have "
        "the guest made anew, empty, with `pulumi up --replace` and its URN"
    )


def _unfit_image(path: str) -> str:
    if path.lower().endswith(".vmdk"):
        return ""
    return (
        f"{path} is no .vmdk, and ESXi copies no other images: convert it with qemu-img convert -O "
        "vmdk -o subformat=monolithicSparse IMAGE NEW.vmdk, and name that one"
    )


def _home(wanted: Props) -> str:
    return f"{wanted['store']}/guests/{wanted['name']}"


def _gone(wanted: Props) -> str:
    """Return where a guest's folder is while it is being removed."""
    return f"{wanted['store']}/guests/.{_digest(wanted['owner'], wanted['name'])}.gone"


def _file(wanted: Props) -> str:
    """Return a guest's .vmx as ESXi lists it."""
    store, _, folder = _home(wanted).removeprefix(VOLUMES).partition("/")
    return f"[{store}] {folder}/{wanted['name']}.vmx"


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]


def _owner(shell: Shell, wanted: Props) -> str:
    return (_read(shell, f"{_home(wanted)}/{OWNER_FILE}") or "").strip()


def _read(shell: Shell, path: str) -> str | None:
    """Return what a file holds; None where there is none, which is not that it can't be read."""
    done = shell.run(["cat", path])
    if not done.ok and "No such file or directory" in done.err:
        return None
    if not done.ok:
        raise DriverError(f"{path} on {shell.name} can't be read: {_words(done)}")
    return done.out


def _claim(shell: Shell, wanted: Props) -> None:
    """Make the guest's folder with our mark in it, unless it is somebody else's."""
    home = _home(wanted)
    owner = _owner(shell, wanted)
    if owner == wanted["owner"]:
        return
    there = shell.run(["test", "-e", home]).ok
    inside = _must(shell, ["ls", "-A", home]).split("\n") if there else []
    if [each for each in inside if each and not each.endswith(PART)]:
        raise DriverError(
            f"{home} on {shell.name} holds {'another lab' if owner else 'somebody'}'s files: "
            "remove the folder, or rename the guest"
        )
    _must(shell, ["mkdir", "-p", home])
    shell.put(wanted["owner"].encode(), f"{home}/{OWNER_FILE}", timeout_s=UPLOAD_S)


def _size(descriptor: str | None) -> int:
    """Return the size of a disk, bytes; 0 where its descriptor does not tell."""
    extents = re.findall(r"(?m)^RW (\d+) ", descriptor or "")
    return sum(map(int, extents)) * SECTOR


def _wrong_size(descriptor: str | None, wanted: Props) -> str:
    """Say what is wrong with a disk, from its descriptor; empty when nothing is."""
    if descriptor is None:
        return "is gone"
    have, want = _size(descriptor), wanted["disk_gib"] * GIB
    if not have or not want or have == want or (wanted["image"] and have > want):
        return ""
    return f"is {have / GIB:g} GiB and not {want / GIB:g}"


def _stop(shell: Shell, wanted: Props, vmid: str) -> None:
    """Stop a guest, gently where it has VMware Tools."""
    if (state := _state(shell, vmid)) == "off":
        return
    say(f"{shell.name}: {wanted['name']} is stopped, its settings change")
    asked = shell.run(["vim-cmd", "vmsvc/power.shutdown", vmid], timeout_s=COMMAND_S)
    if state == "on" and asked.ok and not _fault(asked):
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and not CANCELLED.wait(STOP_POLL_S):
            if _state(shell, vmid) == "off":
                return
    _must(shell, ["vim-cmd", "vmsvc/power.off", vmid], timeout_s=POWER_S)


def _starts(shell: Shell, vmid: str) -> bool:
    """Whether a guest starts with its host: it has to be told so, and the host that any may."""
    sequence = _must(shell, ["vim-cmd", f"{AUTOSTART}/get_autostartseq"])
    entries = re.findall(
        r"key = 'vim\.VirtualMachine:(\d+)'[^}]*?startAction = \"(\w+)\"", sequence, re.DOTALL
    )
    if dict(entries).get(vmid, "none").lower() not in {"poweron", "systemdefault"}:
        return False
    return _any_starts(shell)


def _any_starts(shell: Shell) -> bool:
    defaults = _must(shell, ["vim-cmd", f"{AUTOSTART}/get_defaults"])
    return bool(re.search(r"(?m)^ *enabled = true", defaults))


def _autostart(shell: Shell, vmid: str, *, on: bool) -> None:
    if _starts(shell, vmid) is on:
        return
    if on and not _any_starts(shell):
        _must(shell, ["vim-cmd", f"{AUTOSTART}/enable_autostart", "true"])
    # Action, delay and order of its start; action and delay of its stop; heartbeat.
    how = ["PowerOn", "0", "1", "systemDefault", "0", "systemDefault"]
    if not on:
        how = ["none", "0", "0", "none", "0", "systemDefault"]
    _must(shell, ["vim-cmd", f"{AUTOSTART}/update_autostartentry", vmid, *how])


# Media ------------------------------------------------------------------------------------------


class MediumDriver:
    """See `components.remote.driver.Driver`."""

    replaced_by = ("name", "store")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = wanted["name"]
        return unfit(name) or ("" if name.endswith(".iso") else _unfit_image(name))

    def called(self, wanted: Props) -> str:
        """Return its path there."""
        return f"{wanted['store']}/media/{wanted['name']}"

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        path, size = self.called(wanted), wanted["size"]
        done = shell.run(["stat", "-c", "%s", path])
        if not done.ok:
            return Seen(ok=False, text=f"{path} is not there any more")
        have = done.out.strip()
        return Seen(ok=have == str(size), text=f"{path} has {have} of {size} bytes")

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        seen = self.glance(shell, wanted)
        if not seen.ok or not wanted["sha256"]:
            return seen
        path = self.called(wanted)
        found = _must(shell, ["sha256sum", path], timeout_s=SUM_S).split(maxsplit=1)[0]
        if found.lstrip("\\") == wanted["sha256"].lower():
            return seen
        return Seen(ok=False, text=f"{path} has SHA-256 {found}")

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        if self.look(shell, wanted).ok:
            return
        path = self.called(wanted)
        _must(shell, ["mkdir", "-p", f"{wanted['store']}/media"])
        shell.put(Path(wanted["path"]), path, timeout_s=UPLOAD_S)
        seen = self.look(shell, wanted)
        if not seen.ok:
            raise DriverError(
                f"{shell.name}: {seen.text}, and the stack says otherwise: {wanted['path']} is damaged "
                "or was changed meanwhile; get it again, or correct the stack"
            )

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        path = self.called(wanted)
        _must(shell, ["rm", "-f", path, f"{path}{PART}"])


# Networks ---------------------------------------------------------------------------------------

SWITCHES = ["network", "vswitch", "standard"]


class Group(NamedTuple):
    """A port group: what a guest's NIC is plugged into."""

    switch: str
    vlan: str


class Networks(NamedTuple):
    """All switches, and all port groups by name."""

    uplinks: dict[str, list[str]]
    """By switch."""
    groups: dict[str, Group]


def _networks(shell: Shell) -> Networks:
    switches = _must(shell, ["esxcli", *SWITCHES, "list"])
    groups = _must(shell, ["esxcli", "--formatter=csv", *SWITCHES, "portgroup", "list"])
    uplinks: dict[str, list[str]] = {}
    for block in re.split(r"(?m)^(?=\S)", switches):
        fields = dict(re.findall(r"(?m)^   ([^:\n]+): ?(.*)$", block))
        if "Name" in fields:
            listed = fields.get("Uplinks", "").split(",")
            uplinks[fields["Name"]] = [each.strip() for each in listed if each.strip()]
    rows = csv.DictReader(groups.splitlines())
    return Networks(
        uplinks, {row["Name"]: Group(row["VirtualSwitch"], row["VLANID"]) for row in rows}
    )


class NetworkDriver:
    """See `components.remote.driver.Driver`.

    A network is a port group: of mode bridge on a switch that is there, of mode isolated on one of its
    own that has no uplink.
    """

    replaced_by = ("name",)

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wrong := unfit(wanted["name"]):
            return wrong
        if wanted["mode"] not in {"bridge", "isolated"}:
            return f"mode {wanted['mode']!r} is none of ESXi's: take bridge or isolated"
        if wanted["mode"] == "bridge" and wanted["bridge"]:
            return unfit(wanted["bridge"])
        return ""

    def called(self, wanted: Props) -> str:
        """Return its port group's name, which nobody else's has."""
        return f"{wanted['name']}-{_digest(wanted['owner'])}"

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        try:
            wrong = self._wrong(_networks(shell), wanted)
        except DriverError as refused:
            wrong = str(refused)
        text = wrong or f"network {wanted['name']} is on {_switch(wanted)}"
        return Seen(ok=not wrong, text=text)

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        found = _networks(shell)
        if not self._wrong(found, wanted):
            return
        switch, own, group = _switch(wanted), _own_switch(wanted), self.called(wanted)
        if switch not in found.uplinks:
            if switch != own:
                raise DriverError(
                    f"{shell.name} has no switch {switch}: name one of "
                    f"{', '.join(sorted(found.uplinks))} with bridge:, or make it"
                )
            _esxcli(shell, "add", f"--vswitch-name={switch}")
        elif switch == own:
            for uplink in found.uplinks[own]:
                words = [f"--uplink-name={uplink}", f"--vswitch-name={own}"]
                _esxcli(shell, "uplink", "remove", *words)
        have = found.groups.get(group)
        if have and have.switch != switch:
            self._unplug(shell, have.switch, group)
            have = None
        if not have:
            words = [f"--portgroup-name={group}", f"--vswitch-name={switch}"]
            _esxcli(shell, "portgroup", "add", *words)
        elif have.vlan != "0":
            _esxcli(shell, "portgroup", "set", f"--portgroup-name={group}", "--vlan-id=0")
        if switch != own:
            self._drop(shell, own, group)
        _kept(shell)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        group, own = self.called(wanted), _own_switch(wanted)
        found = _networks(shell)
        if group not in found.groups and own not in found.uplinks:
            return
        if group in found.groups:
            self._unplug(shell, found.groups[group].switch, group)
        self._drop(shell, own, group)
        _kept(shell)

    def _wrong(self, found: Networks, wanted: Props) -> str:
        name, switch = wanted["name"], _switch(wanted)
        have = found.groups.get(self.called(wanted))
        if have is None:
            return f"network {name} is not there any more"
        if have.switch != switch or have.vlan != "0":
            return f"network {name} is on {have.switch}, VLAN {have.vlan}, and not on {switch}"
        if switch == _own_switch(wanted) and found.uplinks.get(switch):
            return f"network {name} is not isolated: it leads to {found.uplinks[switch][0]}"
        if switch != _own_switch(wanted) and _own_switch(wanted) in found.uplinks:
            return f"network {name} has a switch {_own_switch(wanted)} that it does not need"
        return ""

    def _unplug(self, shell: Shell, switch: str, group: str) -> None:
        """Remove a port group; the lab's guests that run in it are stopped, as ESXi asks for."""
        words = [f"--portgroup-name={group}", f"--vswitch-name={switch}"]
        try:
            _esxcli(shell, "portgroup", "remove", *words)
        except DriverError:
            stopped = [_stop_in(shell, vm, group) for vm in _vms(shell)[0]]
            if not any(stopped):
                raise
            _esxcli(shell, "portgroup", "remove", *words)

    def _drop(self, shell: Shell, own: str, group: str) -> None:
        """Remove the network's own switch, unless somebody put something else onto it."""
        found = _networks(shell)
        if own not in found.uplinks:
            return
        others = [name for name, each in found.groups.items() if each.switch == own]
        if [name for name in others if name != group]:
            say(f"{shell.name}: switch {own} stays, it holds {', '.join(others)}")
            return
        _esxcli(shell, "remove", f"--vswitch-name={own}")


def _stop_in(shell: Shell, vm: Vm, group: str) -> bool:
    """Stop a guest if it is a lab's and has a NIC in ``group``; return whether it was stopped."""
    if not vm.note.startswith("nestlab "):
        return False
    settings = parse_vmx(shell.run(["cat", vm.path]).out)
    plugged = [value for key, value in settings.items() if key.lower().endswith(".networkname")]
    if group not in plugged or _state(shell, vm.vmid) != "on":
        return False
    say(f"{shell.name}: {vm.name} is stopped, its network changes")
    _must(shell, ["vim-cmd", "vmsvc/power.off", vm.vmid], timeout_s=POWER_S)
    return True


def _switch(wanted: Props) -> str:
    if wanted["mode"] == "isolated":
        return _own_switch(wanted)
    bridge: str = wanted["bridge"] or UPLINK
    return bridge


def _own_switch(wanted: Props) -> str:
    return f"nestlab-{_digest(wanted['owner'], wanted['name'])}"


def _esxcli(shell: Shell, *words: str) -> None:
    _must(shell, ["esxcli", *SWITCHES, *words])


DRIVERS = {"network": NetworkDriver(), "medium": MediumDriver(), "guest": GuestDriver()}
