"""Hyper-V on Windows Server, by its PowerShell cmdlets (R141-R161), all sent by `components.remote.powershell`.

A guest is known by the folder it lives in, which bears its owner's number and which New-VM takes in the
same breath as its name; its notes say the same for people. From then on it is addressed by its GUID:
Hyper-V lets two guests have one name, and reads * and ? in names. Switches carry the mark in their notes
from the moment they are made, NAT has it as its name.

Left out: generation 2's secure boot (lab images are not signed for it), dynamic memory, checkpoints,
spoofing of MAC addresses: no hypervisor stands inside these guests.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.remote import upload
from components.remote.driver import DriverError
from components.remote.powershell import ARGV, Script, answer, error_text, shown
from components.remote.shell import Unreachable
from components.remote.waiting import Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.remote.driver import Driver, Props
    from components.remote.powershell import Row
    from components.remote.shell import Shell

MIB, GIB = 1 << 20, 1 << 30
LONGEST_NAME = 60
"""Letters: Windows' paths have 260, and a guest's GUID stands below its name (Hyper-V itself: 100)."""
IN_NO_PATH = r'\/:*?"<>|[]`'
"""What NTFS has no names with, and what PowerShell reads as a pattern."""
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
"""Names that are devices in every folder of Windows, with any suffix."""
LEAST_MIB = 32
"""Least memory of a guest: "between 32 MB and" is what Hyper-V itself says."""
MOST_NICS = {"legacy": 4, "synthetic": 8}
"""Of one guest (Microsoft: Plan for Hyper-V scalability)."""
IMAGE_SUFFIX = ".vhdx"
DISK, PART = "disk.vhdx", "part.vhdx"
"""A guest's disk, and what it is called while it is made."""
IMAGE_MARK = b"vhdxfile"
CONVERT = "convert it: qemu-img convert -O vhdx FILE {name}.vhdx"

ASK_S = 120.0
"""PowerShell and its modules take seconds to load; under emulation tens of them."""
DISK_S = 600.0
HASH_S = 1800.0
STALL_S = 120.0
SWITCH_S = 90.0
"""An adapter that becomes a switch's is silent for seconds, and the connection may not survive it."""
BACK_S = 300.0
STILL_S = 120.0
"""How long a guest may take to end what it is in the middle of: starting, saving."""
TRIES = 4

OWN = re.compile(r"([0-9a-f]{12}|[0-9]+)\.(iso|vhdx)")
"""Names of media as `_file` makes them."""
NO_PATH = "PathNotFound*"
NO_GUEST = "InvalidParameter*"
NOTHING_TAKEN = "ParameterArgument*"
"""Failures that only say that there is nothing, by PowerShell's id of them; ANY says no more."""
ANY = "*"

DEVICE_AT = {1: ("IDE", 0, 0), 2: ("SCSI", 0, 0)}
"""Where the system disk is, by generation: nothing else is booted from."""
DVD_AT = {1: ("IDE", 1, 0), 2: ("SCSI", 0, 1)}
BIOS_NAMES = {"cdrom": "CD", "hd": "IDE", "network": "LegacyNetworkAdapter"}
BIOS_ORDER = ("CD", "IDE", "LegacyNetworkAdapter", "Floppy")
"""Set-VMBios wants them all; those that the stack does not name come last."""
STEADY = frozenset({"Running", "Off", "Saved", "Paused"})

CAUSES = {
    "one of the Hyper-V components is not running": "Windows' hypervisor did not start: the machine "
    "around it gives no virtualization (nested off, or emulated without it; `make doctor` tells), or "
    "its boot entry says hypervisorlaunchtype off",
    "0x8007000E": "the host has too little memory left: give it more, or its guests less",
    "OutOfMemory": "the host has too little memory left: give it more, or its guests less",
    "0x80070070": "the host's disk is full: raise its disk_gib, or remove something",
    "0x80070020": "something holds the file open: a guest with this medium in its drive, or a backup",
    "0xC03A000E": "the image that this disk is a clone of was changed after it was cloned: put the old "
    "one back, or have the guest made anew",
    "0xC03A001A": "Hyper-V takes no disk that is sparse, compressed or encrypted by NTFS: copy it anew",
    "is already bound to the Microsoft Virtual Switch protocol": "the adapter belongs to another "
    "virtual switch: name that one with bridge:, or remove it",
    "being used by running virtual machines": "a guest is still connected to it: stop or move it",
    "Windows System Error 5010": "another adapter of the host has this address: take another subnet",
    "Windows System Error 87": "its subnet overlaps another network of the host: take another one",
    "is not recognized as the name of a cmdlet": "the Hyper-V role is not (wholly) installed: see "
    "C:\\nestlab-setup.log on it",
}
"""What a refusal comes from, by its words or by what is the same in every language."""


def ask(shell: Shell, script: Script, *, timeout_s: float = ASK_S) -> list[list[Row]]:
    """Carry out ``script``; return the objects of each of its calls.

    Raises:
        DriverError: a cmdlet refused.
    """
    done = shell.run(ARGV, stdin=script.document().encode("ascii"), timeout_s=timeout_s)
    told = answer(done.out)
    if told is None:
        words = error_text(done.err) or done.said
        raise DriverError(f"`powershell` on {shell.name}: {words}")
    if failed := told["error"]:
        number = failed["call"]
        what = shown(script.calls[number]) if 0 <= number < len(script.calls) else "powershell"
        words = " ".join(failed["message"].split()) or failed["id"]
        raise DriverError(f"`{what}` on {shell.name}: {words}{_cause(words, failed['id'])}")
    return told["results"]


def _cause(words: str, identity: str) -> str:
    said = f"{words} {identity}".lower()
    why = next((why for mark, why in CAUSES.items() if mark.lower() in said), "")
    return f"\n  {why}" if why else ""


def mark(wanted: Props) -> str:
    """Return what tells the lab's own from what somebody made by hand."""
    return f"nestlab {wanted['owner']}"


def windows(path: str) -> str:
    """Return a path as Windows writes it."""
    return path.replace("/", "\\")


def _problem_of_name(what: str, name: str) -> str:
    """Say why Windows can't have ``name``; empty when it can."""
    wrong = ""
    if not name or name != name.strip() or name.endswith("."):
        wrong = "is empty, or begins or ends with a blank or a dot"
    elif any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        wrong = "holds a line break, another control letter or half a letter"
    elif found := sorted(set(name) & set(IN_NO_PATH)):
        wrong = f"holds {' '.join(found)}"
    elif len(name) > LONGEST_NAME:
        wrong = f"has {len(name)} letters, and the paths of Windows leave room for {LONGEST_NAME}"
    elif name.partition(".")[0].strip().lower() in DEVICES:
        wrong = "is a device of Windows"
    return f"{what} {name!r} {wrong}: Windows has no file of that name, rename it" if wrong else ""


def _problem_of_owner(wanted: Props) -> str:
    owner = wanted["owner"]
    if re.fullmatch(r"[0-9A-Za-z-]{1,64}", owner):
        return ""
    return f"its owner {owner!r} is no UUID: it names a folder"


# Media ------------------------------------------------------------------------------------------


class MediumDriver:
    """ISOs and disk images, in a folder each; another content is another file.

    Windows lets nobody write over a file that a guest has in its drive, and a disk that others are
    clones of must never change.
    """

    replaced_by: tuple[str, ...] = ("name", "store")

    def called(self, wanted: Props) -> str:
        """Return its path on the host."""
        return windows(_file(wanted))

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wrong := _problem_of_name("medium", wanted["name"]):
            return wrong
        name, suffix = Path(wanted["name"]).stem, Path(wanted["name"]).suffix.lower()
        path = Path(wanted["path"])
        if suffix == ".iso":
            return ""
        remedy = CONVERT.format(name=name)
        if suffix != IMAGE_SUFFIX:
            return (
                f"{path} is used as a disk image, and Hyper-V takes {IMAGE_SUFFIX} alone: {remedy}"
            )
        if path.is_file():
            with path.open("rb") as handle:
                head = handle.read(len(IMAGE_MARK))
            if head != IMAGE_MARK:
                return f"{path} is called {IMAGE_SUFFIX} and is none: {remedy}"
        return ""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`; its SHA-256 was checked when it was sent."""
        size = wanted["size"]
        found = {row["Name"]: row["Length"] for row in self._files(shell, wanted)}
        name = _file(wanted).rpartition("/")[2]
        if name not in found:
            return Seen(ok=False, text=f"medium {wanted['name']} is not there any more")
        if found[name] != size:
            text = f"medium {wanted['name']} has {found[name]} bytes there and {size} here"
            return Seen(ok=False, text=text)
        return Seen(ok=True, text=f"medium {wanted['name']} is there")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        to = _file(wanted)
        if not self._whole(shell, wanted):
            _sound(wanted)
            script = Script()
            script.add("New-Item", ItemType="Directory", Force=True, Path=windows(_folder(wanted)))
            ask(shell, script)
            shell.put(Path(wanted["path"]), f"/{to}", timeout_s=STALL_S)
            if not self._whole(shell, wanted):
                raise DriverError(
                    f"{windows(to)} on {shell.name} is not what was sent: its size or SHA-256 differs; "
                    "see whether its disk is full, and try again"
                )
        if to.endswith(".iso"):
            # Images are left: disks may be clones of them.
            script = Script()
            for name in self._own(shell, wanted) - {to.rpartition("/")[2]}:
                old = windows(f"{_folder(wanted)}/{name}")
                script.add("Remove-Item", may_fail=ANY, LiteralPath=old, Force=True)
            if script.calls:
                ask(shell, script)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`; what somebody put beside it stays, and the folder with it."""
        script = Script()
        for name in sorted(self._own(shell, wanted)):
            path = windows(f"{_folder(wanted)}/{name}")
            script.add("Remove-Item", LiteralPath=path, Force=True)
        if script.calls:
            ask(shell, script, timeout_s=DISK_S)
        script = Script()
        folder = windows(_folder(wanted))
        script.add("Get-ChildItem", "Name", may_fail=NO_PATH, LiteralPath=folder)
        if not ask(shell, script)[0]:
            _remove_folder(shell, folder)

    def _own(self, shell: Shell, wanted: Props) -> set[str]:
        """Names of files there that nestlab gave: of this medium, of others before it, half sent."""
        names = {str(row["Name"]) for row in self._files(shell, wanted)}
        return {name for name in names if OWN.fullmatch(name.removesuffix(upload.PART))}

    def _files(self, shell: Shell, wanted: Props) -> list[Row]:
        script = Script()
        folder = windows(_folder(wanted))
        script.add(
            "Get-ChildItem", "Name", "Length", may_fail=NO_PATH, LiteralPath=folder, File=True
        )
        return ask(shell, script)[0]

    def _whole(self, shell: Shell, wanted: Props) -> bool:
        if not self.look(shell, wanted).ok:
            return False
        if not wanted["sha256"]:
            return True
        script = Script()
        path = windows(_file(wanted))
        script.add("Get-FileHash", "Hash", LiteralPath=path, Algorithm="SHA256")
        found = ask(shell, script, timeout_s=HASH_S)[0][0]["Hash"]
        return bool(found.lower() == wanted["sha256"].lower())


def _folder(wanted: Props) -> str:
    return f"{wanted['store']}/media/{wanted['name']}"


def _file(wanted: Props) -> str:
    """Return its path with forward slashes: another content has another name."""
    content = wanted["sha256"][:12].lower() or str(wanted["size"])
    return f"{_folder(wanted)}/{content}{Path(wanted['name']).suffix.lower()}"


def _sound(wanted: Props) -> None:
    """Refuse a file of this machine that is not there or not the one meant, before it is sent."""
    path = Path(wanted["path"])
    if not path.is_file():
        raise DriverError(f"{path} is not there: put the file there, or correct the stack")
    if not wanted["sha256"]:
        return
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != wanted["sha256"].lower():
        raise DriverError(
            f"{path} has SHA-256 {found}, and the stack says {wanted['sha256']}: "
            "it is damaged or another file; get it again, or correct the stack"
        )


def _remove_folder(shell: Shell, folder: str) -> None:
    script = Script()
    script.add("Get-Item", "Name", may_fail=NO_PATH, LiteralPath=folder)
    if ask(shell, script)[0]:
        script = Script()
        script.add("Remove-Item", LiteralPath=folder, Recurse=True, Force=True)
        ask(shell, script, timeout_s=DISK_S)


# Networks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Switches:
    """The host's networks, as far as a network of ours has to know them."""

    mark: str
    all: list[Row]
    addresses: list[Row]
    nats: list[Row]
    plugs: list[Row]
    """The host's own NICs on its switches."""
    adapters: list[Row]

    @property
    def ours(self) -> Row | None:
        """The switch that bears our mark, whatever it is called by now."""
        marked = (row for row in self.all if self.mark in (row["Notes"] or "").splitlines())
        return next(marked, None)

    def translates(self, nat: str) -> str:
        """Subnet that the NAT of a name serves; empty where there is none of it."""
        found = (row["InternalIPInterfaceAddressPrefix"] for row in self.nats if row["Name"] == nat)
        return next(found, "")

    def named(self, name: str) -> list[Row]:
        """Switches of a name; Windows does not tell capitals from small letters."""
        return [row for row in self.all if row["Name"].lower() == name.lower()]

    def interface(self, switch: str) -> int | None:
        """Number of the host's adapter on ``switch``; None where there is none (yet)."""
        plugs = {row["DeviceId"].lower() for row in self.plugs if row["SwitchName"] == switch}
        found = (row["ifIndex"] for row in self.adapters if row["DeviceID"].lower() in plugs)
        return next((int(index) for index in found), None)

    def on(self, interface: int) -> list[Row]:
        """Addresses of an adapter, without those that it made up itself."""
        return [
            row
            for row in self.addresses
            if row["InterfaceIndex"] == interface and not row["IPAddress"].startswith("169.254.")
        ]


class NetworkDriver:
    """Virtual switches (R157): External over the adapter the host is managed by, or Internal.

    Mode isolated is Internal with the host's address; nat has Windows' NAT behind it. Neither has DHCP.
    """

    replaced_by: tuple[str, ...] = ("name", "mode", "bridge")

    def called(self, wanted: Props) -> str:
        """Return the switch's name."""
        name: str = wanted["bridge"] if _joins(wanted) else wanted["name"]
        return name

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wanted["mode"] not in {"bridge", "isolated", "nat"}:
            return f"mode {wanted['mode']} given: Hyper-V has bridge, isolated and nat"
        return _problem_of_name("network", self.called(wanted)) or _problem_of_owner(wanted)

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        seen = _switches(shell, wanted)
        wrong = next(self._wrong(seen, wanted), "")
        return Seen(ok=not wrong, text=wrong or f"switch {self.called(wanted)} is there")

    glance = look

    def _wrong(self, seen: _Switches, wanted: Props) -> Iterator[str]:
        name, mode = self.called(wanted), wanted["mode"]
        if _joins(wanted):
            if not seen.named(name):
                yield f"the host has no virtual switch {name}"
            return
        ours = seen.ours
        if ours is None:
            yield f"switch {name} is not there any more"
            return
        if ours["Name"] != name:
            yield f"switch {name} is called {ours['Name']} now"
        kind = "External" if mode == "bridge" else "Internal"
        if ours["SwitchType"] != kind:
            yield f"switch {name} is {ours['SwitchType'].lower()}, not {kind.lower()}"
        if mode != "bridge":
            yield from _wrong_inside(seen, ours, wanted)
        elif not ours["AllowManagementOS"]:
            yield f"switch {name} keeps its adapter from the host itself"

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        name, mode = self.called(wanted), wanted["mode"]
        if _joins(wanted):
            if not _switches(shell, wanted).named(name):
                raise DriverError(
                    f"{shell.name} has no virtual switch {name}: make it there, or remove bridge: and "
                    "have one made over the adapter that it is managed by"
                )
            return
        seen = self._switch(shell, wanted)
        if mode != "bridge":
            self._inside(shell, wanted, seen)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`; guests that are still plugged in lose their cable."""
        for _ in range(TRIES):
            seen = _switches(shell, wanted)
            script = Script()
            if any(row["Name"] == _nat(wanted) for row in seen.nats):
                script.add("Remove-NetNat", Name=_nat(wanted), Confirm=False)
            if ours := seen.ours:
                _unplug(shell, script, ours["Name"])
                switch = script.add("Get-VMSwitch", Id=ours["Id"])
                script.add("Remove-VMSwitch", take={"VMSwitch": [switch]}, Force=True)
            if not script.calls:
                return
            _through_a_cut(shell, script, f"removing switch {self.called(wanted)}")
        if _switches(shell, wanted).ours:
            raise DriverError(f"switch {self.called(wanted)} on {shell.name} is still there")

    def _switch(self, shell: Shell, wanted: Props) -> _Switches:
        """Make the switch, or make it what it was; return what there is then."""
        name, mode = wanted["name"], wanted["mode"]
        for _ in range(TRIES):
            seen = _switches(shell, wanted)
            ours, script = seen.ours, Script()
            if ours is None:
                _nobodys(shell, seen, name)
                if mode == "bridge":
                    adapter = _uplink(shell, seen)
                    script.add(
                        "New-VMSwitch",
                        Name=name,
                        NetAdapterName=adapter,
                        AllowManagementOS=True,
                        Notes=mark(wanted),
                    )
                else:
                    script.add("New-VMSwitch", Name=name, SwitchType="Internal", Notes=mark(wanted))
                _through_a_cut(shell, script, f"making switch {name}")
                continue
            if (
                ours["SwitchType"] != "External"
                if mode == "bridge"
                else ours["SwitchType"] == "External"
            ):
                # Converting it would leave the host without the address it is managed by.
                self.remove(shell, wanted)
                continue
            switch = script.add("Get-VMSwitch", Id=ours["Id"])
            if ours["Name"] != name:
                _nobodys(shell, seen, name)
                script.add("Rename-VMSwitch", take={"VMSwitch": [switch]}, NewName=name)
            if mode == "bridge" and not ours["AllowManagementOS"]:
                script.add("Set-VMSwitch", take={"VMSwitch": [switch]}, AllowManagementOS=True)
            if mode != "bridge" and ours["SwitchType"] != "Internal":
                script.add("Set-VMSwitch", take={"VMSwitch": [switch]}, SwitchType="Internal")
            if len(script.calls) == 1:
                return seen
            _through_a_cut(shell, script, f"changing switch {name}")
        raise DriverError(f"switch {name} on {shell.name} does not become what it is to be")

    def _inside(self, shell: Shell, wanted: Props, seen: _Switches) -> None:
        """Give the host its own address on the switch and no other, and NAT where it is wanted."""
        name = wanted["name"]
        interface = seen.interface(name)
        if interface is None:
            seen = _plugged(shell, wanted)
            interface = seen.interface(name)
        script = Script()
        has = seen.on(interface) if interface is not None else []
        stray = _stray(has, wanted)
        for row in stray:
            script.add(
                "Remove-NetIPAddress",
                InterfaceIndex=interface,
                IPAddress=row["IPAddress"],
                Confirm=False,
            )
        if len(stray) == len(has):
            script.add(
                "New-NetIPAddress",
                InterfaceIndex=interface,
                IPAddress=wanted["gateway"],
                PrefixLength=wanted["prefix"],
            )
        _translate(shell, script, wanted, seen)
        if script.calls:
            ask(shell, script)


def _plugged(shell: Shell, wanted: Props) -> _Switches:
    """Wait until Windows has found the host's adapter on a switch that was made just now."""
    name = wanted["name"]
    last: list[_Switches] = []

    def there() -> Seen:
        last[:] = [_switches(shell, wanted)]
        found = last[0].interface(name) is not None
        return Seen(ok=found, text=f"the host has no adapter on switch {name} yet")

    wait_for(f"switch {name}", there, deadline_s=STILL_S)
    return last[0]


def _translate(shell: Shell, script: Script, wanted: Props, seen: _Switches) -> None:
    """Add to ``script`` what puts Windows' NAT behind the network, or takes it away."""
    name, has = _nat(wanted), seen.translates(_nat(wanted))
    prefix = wanted["subnet"] if wanted["mode"] == "nat" else ""
    if has == prefix:
        return
    if has:
        script.add("Remove-NetNat", Name=name, Confirm=False)
    others = sorted(row["Name"] for row in seen.nats if row["Name"] != name)
    if prefix and others:
        raise DriverError(
            f"{shell.name} has the NAT {others[0]} already, and Windows gives a host one: "
            "make this network mode isolated or bridge, or remove that one with Remove-NetNat"
        )
    if prefix:
        script.add("New-NetNat", Name=name, InternalIPInterfaceAddressPrefix=prefix)


def _wrong_inside(seen: _Switches, ours: Row, wanted: Props) -> Iterator[str]:
    """Say what is wrong with the host's own part in an internal network."""
    name = wanted["name"]
    interface = seen.interface(ours["Name"])
    if interface is None:
        yield f"the host has no adapter on switch {name}"
    elif _stray(seen.on(interface), wanted):
        yield f"the host has another address on switch {name}"
    elif not seen.on(interface):
        yield f"the host has no address on switch {name}"
    if seen.translates(_nat(wanted)) != (wanted["subnet"] if wanted["mode"] == "nat" else ""):
        yield f"network {name} has no NAT, or another one"


def _joins(wanted: Props) -> bool:
    """Whether it is a switch of somebody else's that is joined."""
    return bool(wanted["mode"] == "bridge" and wanted["bridge"])


def _nat(wanted: Props) -> str:
    return f"nestlab-{wanted['owner']}"


def _stray(rows: Sequence[Row], wanted: Props) -> list[Row]:
    right = (wanted["gateway"], wanted["prefix"])
    return [row for row in rows if (row["IPAddress"], row["PrefixLength"]) != right]


def _nobodys(shell: Shell, seen: _Switches, name: str) -> None:
    """Refuse a name that a switch of somebody else's has."""
    if seen.named(name):
        raise DriverError(
            f"{shell.name} has a virtual switch {name} that is not this lab's: rename this network, "
            f"join that one with mode: bridge and bridge: {name}, or remove it"
        )


def _switches(shell: Shell, wanted: Props) -> _Switches:
    script = Script()
    script.add("Get-VMSwitch", "Id", "Name", "SwitchType", "Notes", "AllowManagementOS",
               "NetAdapterInterfaceDescription")  # fmt: skip
    script.add(
        "Get-NetIPAddress", "IPAddress", "PrefixLength", "InterfaceIndex", AddressFamily="IPv4"
    )
    script.add("Get-NetNat", "Name", "InternalIPInterfaceAddressPrefix",
               may_fail="" if wanted["mode"] == "nat" else ANY)  # fmt: skip
    script.add("Get-VMNetworkAdapter", "SwitchName", "DeviceId", may_fail=ANY, ManagementOS=True)
    script.add("Get-NetAdapter", "Name", "InterfaceDescription", "ifIndex", "DeviceID")
    return _Switches(mark(wanted), *ask(shell, script))


def _uplink(shell: Shell, seen: _Switches) -> str:
    """Return the name of the adapter that this connection came in by."""
    script = Script()
    script.add("Get-Item", "Value", LiteralPath="Env:SSH_CONNECTION")
    came = str(ask(shell, script)[0][0]["Value"]).split()
    # CLIENT PORT SERVER PORT (ssh(1), ENVIRONMENT)
    own = came[2] if len(came) == 4 else ""  # noqa: PLR2004
    index = next((row["InterfaceIndex"] for row in seen.addresses if row["IPAddress"] == own), None)
    adapter = next((row for row in seen.adapters if row["ifIndex"] == index), None)
    if adapter is None:
        raise DriverError(
            f"{shell.name} has no adapter with the address {own or came} it is managed by"
        )
    plugs = {row["DeviceId"].lower(): row["SwitchName"] for row in seen.plugs}
    taken = plugs.get(adapter["DeviceID"].lower()) or next(
        (
            row["Name"]
            for row in seen.all
            if row["NetAdapterInterfaceDescription"] == adapter["InterfaceDescription"]
        ),
        None,
    )
    if taken:
        raise DriverError(
            f"the adapter that {shell.name} is managed by belongs to the virtual switch {taken} already: "
            f"join that one with bridge: {taken}, or remove it"
        )
    return str(adapter["Name"])


def _unplug(shell: Shell, script: Script, switch: str) -> None:
    """Add to ``script`` what takes guests off ``switch``; Hyper-V removes none that is in use."""
    asked = Script()
    guests = asked.add("Get-VM")
    asked.add(
        "Get-VMNetworkAdapter",
        "VMId",
        "Name",
        "SwitchName",
        take={"VM": [guests]},
        may_fail=NOTHING_TAKEN,
    )
    rows = ask(shell, asked)[1]
    for row in rows:
        same = [each for each in rows if (each["VMId"], each["Name"]) == (row["VMId"], row["Name"])]
        # By name: two of one name could not be told apart, and one may be on another switch.
        if row["SwitchName"] == switch and len(same) == 1:
            guest = script.add("Get-VM", Id=row["VMId"])
            nic = script.add("Get-VMNetworkAdapter", take={"VM": [guest]}, Name=row["Name"])
            script.add("Disconnect-VMNetworkAdapter", take={"VMNetworkAdapter": [nic]})


def _through_a_cut(shell: Shell, script: Script, what: str) -> None:
    """Carry out what may take the network from under this connection, and wait until it is back."""
    try:
        ask(shell, script, timeout_s=SWITCH_S)
    except Unreachable as cut:
        say(f"{shell.name}: {what} cut the connection ({cut}); waiting for it")
    else:
        return

    def back() -> Seen:
        probe = Script()
        probe.add("Get-VMHost")
        try:
            ask(shell, probe)
        except Unreachable as silent:
            return Seen(ok=False, text=str(silent))
        return Seen(ok=True, text="it answers again")

    wait_for(f"{shell.name}, after {what}", back, deadline_s=BACK_S)


# Guests -----------------------------------------------------------------------------------------


@dataclass
class _Guest:
    """A guest as it is on the host."""

    vm: Row
    drives: list[Row]
    dvds: list[Row]
    nics: list[Row]
    firmware: Row
    """Of its generation; empty where it is of the other one."""
    expose: bool
    """Whether it sees virtualization itself."""


@dataclass
class _Found:
    """What the host has of a guest: the guest itself, or nothing, and its folder."""

    guest: _Guest | None
    files: frozenset[str]
    disk_bytes: int
    """Size of its disk as the guest sees it; 0 where there is none."""
    strangers: list[Row]
    """Other guests of the name."""


@dataclass
class _Work:
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


class GuestDriver:
    """Virtual machines of generation 1 (firmware bios) or 2 (uefi).

    The disk is a dynamic VHDX, or a differencing one on the uploaded image; it is made under another
    name first, so that a disk that is there is whole, and is removed only with its guest.
    """

    replaced_by: tuple[str, ...] = ("name", "firmware", "image", "store")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        names = [_problem_of_name("network", nic["network"]) for nic in wanted["nics"]]
        named = [_problem_of_name("guest", wanted["name"]), _problem_of_owner(wanted), *names]
        return next(filter(None, named), "") or _problem_of_hardware(wanted)

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        found = _read(shell, wanted)
        name = wanted["name"]
        if found.guest is None:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if wrong := _work(found, found.guest, wanted).wrong:
            return Seen(ok=False, text=f"guest {name} {wrong[0]}")
        state = found.guest.vm["State"]
        return Seen(ok=state == "Running", text=f"guest {name} is {state.lower()}")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        found = _read(shell, wanted)
        if found.guest is None:
            _make(shell, wanted, found)
            found = _read(shell, wanted)
        guest = found.guest
        if guest is None:
            raise DriverError(f"guest {wanted['name']} on {shell.name} was made and is gone again")
        if guest.vm["State"] not in STEADY:
            found = _still(shell, wanted)
            guest = found.guest
            if guest is None:
                raise DriverError(f"guest {wanted['name']} on {shell.name} was removed meanwhile")
        _keeps_its_disk(shell, found, wanted)
        work = _work(found, guest, wanted)
        state = guest.vm["State"]
        if work.off and state != "Off":
            say(f"{wanted['name']}: switched off for its new settings ({work.wrong[0]})")
            state = "Off"
        if state == "Paused":
            work.script.add("Resume-VM", take=work.vm)
        elif state != "Running":
            work.script.add("Start-VM", take=work.vm)
        if len(work.script.calls) > 1:
            ask(shell, work.script, timeout_s=DISK_S)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        found = _read(shell, wanted)
        if found.guest:
            script = Script()
            vm = {"VM": [script.add("Get-VM", Id=found.guest.vm["Id"])]}
            if found.guest.vm["State"] not in {"Off", "Saved"}:
                script.add("Stop-VM", take=vm, TurnOff=True, Force=True)
            script.add("Remove-VM", take=vm, Force=True)
            ask(shell, script, timeout_s=DISK_S)
        _remove_folder(shell, _home(wanted))


def _problem_of_hardware(wanted: Props) -> str:
    """Say what Hyper-V does not give a guest; empty when it gives all of it."""
    memory = wanted["memory_mib"]
    if memory < LEAST_MIB or memory % 2:
        return f"{memory} MiB of memory: Hyper-V gives {LEAST_MIB} or more, by twos"
    models = [_model(nic) for nic in wanted["nics"]]
    for model, most in MOST_NICS.items():
        if models.count(model) > most:
            return f"{models.count(model)} NICs of model {model}: Hyper-V gives a guest {most}"
    if wanted["firmware"] == "uefi" and "legacy" in models:
        return "a legacy NIC with firmware uefi: generation 2 has synthetic ones alone"
    if wanted["firmware"] == "bios" and "network" in wanted["boot"] and "legacy" not in models:
        return "boot from the network with firmware bios: only a legacy NIC does, or firmware uefi"
    if wanted["image"] and not wanted["image"].lower().endswith(IMAGE_SUFFIX):
        return f"image {wanted['image']}: Hyper-V takes {IMAGE_SUFFIX} alone"
    return ""


def _home(wanted: Props) -> str:
    """Return the folder of a guest; no other lab's guest has one of that name."""
    return windows(f"{wanted['store']}/guests/{wanted['owner']}")


def _disk(wanted: Props) -> str:
    return f"{_home(wanted)}\\{DISK}"


def _generation(wanted: Props) -> int:
    return 2 if wanted["firmware"] == "uefi" else 1


def _model(nic: Props) -> str:
    return "legacy" if nic["model"] == "legacy" else "synthetic"


def _mac(nic: Props) -> str:
    return str(nic["mac"]).replace(":", "").replace("-", "").upper()


def _has_disk(wanted: Props) -> bool:
    return bool(wanted["image"] or wanted["disk_gib"])


def _ours(row: Row, wanted: Props) -> bool:
    """Whether a guest is this one: by its folder, which it had before it had notes."""
    home = _home(wanted).lower()
    path = (row["Path"] or "").lower()
    return (
        path == home
        or path.startswith(f"{home}\\")
        or mark(wanted) in (row["Notes"] or "").splitlines()
    )


VM = ("Id", "Name", "State", "Notes", "Path", "Generation", "MemoryStartup", "DynamicMemoryEnabled",
      "ProcessorCount", "AutomaticStartAction", "AutomaticStopAction", "CheckpointType")  # fmt: skip
DRIVE = ("Id", "ControllerType", "ControllerNumber", "ControllerLocation", "Path")


def _read(shell: Shell, wanted: Props) -> _Found:
    """Read all there is to know of a guest, at once where its name still finds it."""
    told = _asked(shell, wanted, Name=wanted["name"])
    ours = next((row for row in told[0] if _ours(row, wanted)), None)
    if ours and (len(told[1]) != 1 or told[1][0]["Id"] != ours["Id"] or not told[6]):
        # Renamed by hand, or not the only one of its name: perhaps of another generation.
        told = _asked(shell, wanted, Id=ours["Id"])
        ours = next((row for row in told[0] if _ours(row, wanted)), None)
    name = wanted["name"].lower()
    guest = None
    if ours:
        processors, drives, dvds, nics, firmware = told[2:7]
        guest = _Guest(
            vm=ours,
            drives=drives,
            dvds=dvds,
            nics=nics,
            firmware=firmware[0] if firmware else {},
            expose=any(row["ExposeVirtualizationExtensions"] for row in processors),
        )
    return _Found(
        guest=guest,
        files=frozenset(str(row["Name"]).lower() for row in told[7]),
        disk_bytes=int(told[8][0]["Size"]) if told[8] else 0,
        strangers=[
            row for row in told[0] if row["Name"].lower() == name and not _ours(row, wanted)
        ],
    )


def _asked(shell: Shell, wanted: Props, **which: Any) -> list[list[Row]]:
    script = Script()
    script.add("Get-VM", *VM)
    vm = {"VM": [script.add("Get-VM", "Id", may_fail=NO_GUEST, **which)]}

    def part(cmdlet: str, *select: str, may_fail: str = NOTHING_TAKEN) -> None:
        script.add(cmdlet, *select, take=vm, may_fail=may_fail)

    part("Get-VMProcessor", "ExposeVirtualizationExtensions")
    part("Get-VMHardDiskDrive", *DRIVE)
    part("Get-VMDvdDrive", *DRIVE)
    part("Get-VMNetworkAdapter", "Id", "Name", "SwitchName", "MacAddress",
         "DynamicMacAddressEnabled", "IsLegacy")  # fmt: skip
    if _generation(wanted) == 1:
        part("Get-VMBios", "StartupOrder", may_fail=ANY)
    else:
        part("Get-VMFirmware", "SecureBoot", "BootOrder.Device.Id", may_fail=ANY)
    script.add("Get-ChildItem", "Name", may_fail=NO_PATH, LiteralPath=_home(wanted), File=True)
    script.add("Get-VHD", "Size", may_fail=ANY, Path=_disk(wanted))
    return ask(shell, script)


def _still(shell: Shell, wanted: Props) -> _Found:
    """Wait until a guest is not in the middle of something."""
    found: list[_Found] = []

    def steady() -> Seen:
        found[:] = [_read(shell, wanted)]
        guest = found[0].guest
        state = guest.vm["State"] if guest else "Off"
        return Seen(ok=state in STEADY, text=f"it is {state.lower()}")

    wait_for(wanted["name"], steady, deadline_s=STILL_S)
    return found[0]


def _keeps_its_disk(shell: Shell, found: _Found, wanted: Props) -> None:
    """Refuse to make a disk smaller, or to take it away, while its guest stays."""
    want = wanted["disk_gib"] * GIB
    if DISK in found.files and not found.disk_bytes:
        # In its own words, why it can't be read.
        script = Script()
        script.add("Get-VHD", "Size", Path=_disk(wanted))
        found.disk_bytes = int(ask(shell, script)[0][0]["Size"])
    if not found.disk_bytes or (wanted["image"] and not want) or found.disk_bytes <= want:
        return
    raise DriverError(
        f"the disk of {wanted['name']} on {shell.name} has {found.disk_bytes / GIB:g} GiB, and the stack "
        f"says {want // GIB}: it can grow, not shrink; write {-(-found.disk_bytes // GIB)}, or remove "
        "the guest from the stack, `pulumi up`, and add it again: what is on it is lost then"
    )


def _make(shell: Shell, wanted: Props, found: _Found) -> None:
    """Make the guest itself, on the disk that it had if that is still there."""
    if found.strangers:
        raise DriverError(
            f"{shell.name} has a guest {wanted['name']} that is not this lab's: rename this guest, or "
            "remove that one"
        )
    script = Script()
    script.add("New-Item", ItemType="Directory", Force=True, Path=_home(wanted))
    if _has_disk(wanted):
        if DISK in found.files:
            say(f"{wanted['name']}: made again, on its own disk")
        else:
            _make_disk(script, wanted)
    script.add(
        "New-VM",
        Name=wanted["name"],
        Generation=_generation(wanted),
        MemoryStartupBytes=wanted["memory_mib"] * MIB,
        NoVHD=True,
        Path=_home(wanted),
    )
    ask(shell, script, timeout_s=DISK_S)


def _make_disk(script: Script, wanted: Props) -> None:
    """Add what makes the disk, under its name only when it is whole."""
    part = f"{_home(wanted)}\\{PART}"
    size = wanted["disk_gib"] * GIB
    script.add("Remove-Item", may_fail=NO_PATH, LiteralPath=part, Force=True)
    made_of: dict[str, Any] = {"SizeBytes": size} if size else {}
    made_of |= (
        {"ParentPath": wanted["image"], "Differencing": True}
        if wanted["image"]
        else {"Dynamic": True}
    )
    script.add("New-VHD", Path=part, **made_of)
    script.add("Move-Item", LiteralPath=part, Destination=_disk(wanted))


def _work(found: _Found, guest: _Guest, wanted: Props) -> _Work:
    """Compare a guest with what is wanted; what mends it switches it off first where that is needed."""
    work = _compared(found, guest, wanted, stop="")
    if work.off and guest.vm["State"] != "Off":
        stop = "Remove-VMSavedState" if guest.vm["State"] == "Saved" else "Stop-VM"
        work = _compared(found, guest, wanted, stop=stop)
    return work


def _compared(found: _Found, guest: _Guest, wanted: Props, *, stop: str) -> _Work:
    work = _Work()
    work.script.add("Get-VM", Id=guest.vm["Id"])
    if stop:
        hard: dict[str, Any] = {"TurnOff": True, "Force": True} if stop == "Stop-VM" else {}
        work.script.add(stop, take=work.vm, **hard)
    _settings(work, guest.vm, wanted, expose=guest.expose)
    _memory(work, guest.vm, wanted)
    anew = {
        device
        for device, made in (
            ("hd", _system_disk(work, found, guest, wanted)),
            ("cdrom", _cd(work, guest, wanted)),
            ("network", _nics(work, guest, wanted)),
        )
        if made
    }
    _boot(work, guest, wanted, anew)
    return work


def _settings(work: _Work, vm: Row, wanted: Props, *, expose: bool) -> None:
    """Name, notes, what it does when its host starts and stops, processors."""
    if vm["Name"] != wanted["name"]:
        work.note(f"is called {vm['Name']} now")
        work.script.add("Rename-VM", take=work.vm, NewName=wanted["name"])
    notes = (vm["Notes"] or "").splitlines()
    right: dict[str, Any] = {
        "AutomaticStartAction": "Start" if wanted["autostart"] else "Nothing",
        # Saving would need the guest's memory again, as disk.
        "AutomaticStopAction": "ShutDown",
        "CheckpointType": "Disabled",
    }
    if mark(wanted) not in notes:
        work.note("does not bear the lab's mark in its notes")
        work.script.add("Set-VM", take=work.vm, Notes="\n".join([mark(wanted), *notes]))
    if off := [key for key, value in right.items() if vm[key] != value]:
        work.note(f"has {off[0]} {vm[off[0]]}, not {right[off[0]]}")
        work.script.add("Set-VM", take=work.vm, **right)
    cores = wanted["cores"]
    if vm["ProcessorCount"] != cores or expose:
        said = "sees virtualization" if expose else f"has {vm['ProcessorCount']} cores, not {cores}"
        work.note(said, off=True)
        work.script.add(
            "Set-VMProcessor", take=work.vm, Count=cores, ExposeVirtualizationExtensions=False
        )


def _memory(work: _Work, vm: Row, wanted: Props) -> None:
    size = wanted["memory_mib"] * MIB
    if vm["MemoryStartup"] != size or vm["DynamicMemoryEnabled"]:
        has = (
            "dynamic memory" if vm["DynamicMemoryEnabled"] else f"{vm['MemoryStartup'] // MIB} MiB"
        )
        work.note(f"has {has}, not {size // MIB} MiB", off=True)
        work.script.add("Set-VMMemory", take=work.vm, DynamicMemoryEnabled=False, StartupBytes=size)


def _system_disk(work: _Work, found: _Found, guest: _Guest, wanted: Props) -> bool:
    """Make, grow and plug in the system disk; return whether it is another drive than before."""
    path, size = _disk(wanted), wanted["disk_gib"] * GIB
    home = f"{_home(wanted)}\\".lower()
    # A checkpoint made by hand has its own file, beside the disk it stands on.
    mine = [row for row in guest.drives if (row["Path"] or "").lower().startswith(home)]
    if not _has_disk(wanted):
        if mine:
            work.note("has a disk, and the stack gives it none")
        return False
    if DISK not in found.files:
        work.note("has no disk any more: a new one is made", off=True)
        if mine:
            drives = work.script.add("Get-VMHardDiskDrive", take=work.vm)
            work.script.add("Remove-VMHardDiskDrive", take={"VMHardDiskDrive": [drives]})
            mine = []
        _make_disk(work.script, wanted)
    elif size and found.disk_bytes != size:
        work.note(f"has {found.disk_bytes / GIB:g} GiB of disk, not {size // GIB}", off=True)
        work.script.add("Resize-VHD", Path=path, SizeBytes=size)
    if mine:
        return False
    work.note("is not connected to its disk", off=True)
    kind, number, location = DEVICE_AT[_generation(wanted)]
    work.script.add(
        "Add-VMHardDiskDrive",
        take=work.vm,
        ControllerType=kind,
        ControllerNumber=number,
        ControllerLocation=location,
        Path=path,
    )
    return True


def _cd(work: _Work, guest: _Guest, wanted: Props) -> bool:
    """Put the ISO into the drive; return whether it is another drive than before."""
    iso, dvds = wanted["iso"], guest.dvds
    if not iso:
        if any(row["Path"] for row in dvds):
            work.note("has a medium in its drive")
            drives = work.script.add("Get-VMDvdDrive", take=work.vm)
            work.script.add("Set-VMDvdDrive", take={"VMDvdDrive": [drives]}, Path=None)
        return False
    at = DVD_AT[_generation(wanted)]
    where = [
        (row["ControllerType"], row["ControllerNumber"], row["ControllerLocation"]) for row in dvds
    ]
    if where == [at]:
        if (dvds[0]["Path"] or "").lower() != iso.lower():
            work.note("has another medium in its drive, or none")
            drives = work.script.add("Get-VMDvdDrive", take=work.vm)
            work.script.add("Set-VMDvdDrive", take={"VMDvdDrive": [drives]}, Path=iso)
        return False
    work.note("has no CD drive, or another one", off=True)
    if dvds:
        drives = work.script.add("Get-VMDvdDrive", take=work.vm)
        work.script.add("Remove-VMDvdDrive", take={"VMDvdDrive": [drives]})
    work.script.add(
        "Add-VMDvdDrive", take=work.vm, ControllerNumber=at[1], ControllerLocation=at[2], Path=iso
    )
    return True


def _nics(work: _Work, guest: _Guest, wanted: Props) -> bool:
    """Make the NICs, or plug them in; return whether they are others than before."""
    right = [
        (f"nic{n}", _mac(nic), _model(nic) == "legacy") for n, nic in enumerate(wanted["nics"])
    ]
    has = [
        # One with a dynamic MAC is none of ours.
        (row["Name"], "" if row["DynamicMacAddressEnabled"] else row["MacAddress"], row["IsLegacy"])
        for row in guest.nics
    ]
    if sorted(has) != sorted(right):
        work.note("has other NICs", off=True)
        if has:
            nics = work.script.add("Get-VMNetworkAdapter", take=work.vm)
            work.script.add("Remove-VMNetworkAdapter", take={"VMNetworkAdapter": [nics]})
        for (name, mac, legacy), nic in zip(right, wanted["nics"], strict=True):
            work.script.add(
                "Add-VMNetworkAdapter",
                take=work.vm,
                Name=name,
                SwitchName=nic["network"],
                StaticMacAddress=mac,
                IsLegacy=legacy,
            )
        return True
    plugged = {row["Name"]: row["SwitchName"] for row in guest.nics}
    for number, nic in enumerate(wanted["nics"]):
        name = f"nic{number}"
        if plugged[name] != nic["network"]:
            work.note(f"has {name} on {plugged[name] or 'no network'}, not {nic['network']}")
            one = work.script.add("Get-VMNetworkAdapter", take=work.vm, Name=name)
            work.script.add(
                "Connect-VMNetworkAdapter",
                take={"VMNetworkAdapter": [one]},
                SwitchName=nic["network"],
            )
    return False


def _boot(work: _Work, guest: _Guest, wanted: Props, anew: set[str]) -> None:
    """Set what is booted from; ``anew`` are devices that firmware has yet to be told of."""
    order = [str(device) for device in wanted["boot"]]
    if _generation(wanted) == 1:
        first = [BIOS_NAMES[device] for device in order]
        right = first + [name for name in BIOS_ORDER if name not in first]
        if guest.firmware.get("StartupOrder") != right:
            work.note("boots in another order", off=True)
            work.script.add("Set-VMBios", take=work.vm, StartupOrder=right)
        return
    if guest.firmware.get("SecureBoot") != "Off":
        work.note("has secure boot on", off=True)
        work.script.add("Set-VMFirmware", take=work.vm, EnableSecureBoot="Off")
    rows = {"hd": guest.drives, "cdrom": guest.dvds, "network": guest.nics}
    device_of = {row["Id"]: device for device in rows for row in rows[device]}
    told = guest.firmware.get("BootOrder.Device.Id") or []
    # What an installer added for itself has no device, and stays where it is.
    ids = told if isinstance(told, list) else [told]
    has = [device_of[each] for each in ids if each in device_of]
    right = [device for device in order for _ in rows[device]]
    if has[: len(right)] == right and not anew & set(order):
        return
    work.note("boots in another order", off=True)
    cmdlets = {
        "hd": "Get-VMHardDiskDrive",
        "cdrom": "Get-VMDvdDrive",
        "network": "Get-VMNetworkAdapter",
    }
    devices = [work.script.add(cmdlets[device], take=work.vm) for device in order]
    work.script.add("Set-VMFirmware", take={**work.vm, "BootOrder": devices})


DRIVERS: dict[str, Driver] = {
    "network": NetworkDriver(),
    "medium": MediumDriver(),
    "guest": GuestDriver(),
}
