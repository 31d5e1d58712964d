"""Windows Server with Hyper-V behind the one command line that the product sends: `powershell`.

It insists on that very command line, carries out the document on standard input as the program in it
does (allow-list, splatting, references to earlier results, projection, one JSON answer), and is the
cmdlets: their parameters and types are those of Microsoft's reference (Windows Server 2022), their
refusals the real ones' words where those could be found, else close to them. What a cmdlet does here is
what it is documented to do, or was seen to do in public logs; what is not needed is not there and fails
the test.

Tests may say in the state that the process ends after ``stop_after`` cmdlets, as it does when its
connection is cut, or that cmdlet number ``refuse`` refuses.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from components.kinds.hyperv import powershell
from tests.support.stubs import Refused, Stub, command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Object = dict[str, Any]

ALLOWED = re.findall(r"^'([A-Za-z]+-[A-Za-z]+)'$", powershell.PROGRAM, re.MULTILINE)
VHDX = b"vhdxfile"
MIB, GIB = 1 << 20, 1 << 30
BUSY = "The operation cannot be performed while the virtual machine is in its current state."
IN_USE = (
    "The process cannot access the file because it is being used by another process. (0x80070020)"
)
NO_FILE = "The system cannot find the file specified. (0x80070002)"

# Parameter sets: "Name*" is mandatory. Types: str, str[], int, bool, switch, guid, an enumeration as
# "A|B", or an object as "@Type" (many where it ends with []).
VM = {"VM*": "@VirtualMachine[]"}
SETS: dict[str, list[dict[str, str]]] = {
    "Add-VMDvdDrive": [
        VM | {"ControllerNumber": "int", "ControllerLocation": "int", "Path": "str"}
    ],
    "Add-VMHardDiskDrive": [
        VM
        | {
            "ControllerType": "IDE|SCSI",
            "ControllerNumber": "int",
            "ControllerLocation": "int",
            "Path": "str",
        }
    ],
    "Add-VMNetworkAdapter": [
        VM | {"SwitchName": "str", "IsLegacy": "bool", "Name": "str", "StaticMacAddress": "str"}
    ],
    "Connect-VMNetworkAdapter": [
        {"VMNetworkAdapter*": "@VMNetworkAdapter[]", "SwitchName*": "str"}
    ],
    "Disconnect-VMNetworkAdapter": [{"VMNetworkAdapter*": "@VMNetworkAdapter[]"}],
    "Get-Acl": [{"LiteralPath*": "str[]"}],
    "Get-ChildItem": [{"LiteralPath*": "str[]", "File": "switch", "Directory": "switch"}],
    "Get-CimInstance": [{"ClassName*": "str"}],
    "Get-FileHash": [{"LiteralPath*": "str[]", "Algorithm": "SHA1|SHA256|SHA384|SHA512|MD5"}],
    "Get-Item": [{"LiteralPath*": "str[]"}],
    "Get-NetAdapter": [{"Name": "str[]"}],
    "Get-NetIPAddress": [{"AddressFamily": "IPv4|IPv6", "InterfaceIndex": "int"}],
    "Get-NetNat": [{"Name": "str[]"}],
    "Get-Service": [{"Name": "str[]"}],
    "Get-VHD": [{"Path*": "str[]"}],
    "Get-VM": [{"Name": "str[]"}, {"Id*": "guid"}],
    "Get-VMBios": [VM],
    "Get-VMComPort": [VM | {"Number": "int"}],
    "Get-VMDvdDrive": [VM | {"ControllerNumber": "int", "ControllerLocation": "int"}],
    "Get-VMFirmware": [VM],
    "Get-VMHardDiskDrive": [
        VM | {"ControllerType": "IDE|SCSI", "ControllerNumber": "int", "ControllerLocation": "int"}
    ],
    "Get-VMHost": [{}],
    "Get-VMNetworkAdapter": [
        VM | {"Name": "str"},
        {"ManagementOS*": "switch", "SwitchName": "str"},
    ],
    "Get-VMProcessor": [VM],
    "Get-VMSwitch": [{"Name": "str"}, {"Id*": "guid"}],
    "Move-Item": [{"LiteralPath*": "str[]", "Destination": "str", "Force": "switch"}],
    "New-Item": [{"Path*": "str[]", "ItemType": "str", "Force": "switch"}],
    "New-NetIPAddress": [
        {"InterfaceIndex*": "int", "IPAddress*": "str", "PrefixLength": "int"},
    ],
    "New-NetNat": [{"Name*": "str", "InternalIPInterfaceAddressPrefix": "str"}],
    "New-VHD": [
        {"Path*": "str[]", "SizeBytes*": "int", "Dynamic": "switch"},
        {"Path*": "str[]", "ParentPath*": "str", "SizeBytes": "int", "Differencing": "switch"},
    ],
    "New-VM": [
        {
            "Name": "str",
            "MemoryStartupBytes": "int",
            "Generation": "int",
            "NoVHD": "switch",
            "Path": "str",
            "SwitchName": "str",
        }
    ],
    "New-VMSwitch": [
        {"Name*": "str", "NetAdapterName*": "str[]", "AllowManagementOS": "bool", "Notes": "str"},
        {"Name*": "str", "SwitchType*": "Internal|Private", "Notes": "str"},
    ],
    "Remove-Item": [{"LiteralPath*": "str[]", "Recurse": "switch", "Force": "switch"}],
    "Remove-NetIPAddress": [{"InterfaceIndex": "int", "IPAddress": "str"}],
    "Remove-NetNat": [{"Name": "str[]"}],
    "Remove-VM": [VM | {"Force": "switch"}],
    "Remove-VMDvdDrive": [{"VMDvdDrive*": "@DvdDrive[]"}],
    "Remove-VMHardDiskDrive": [{"VMHardDiskDrive*": "@HardDiskDrive[]"}],
    "Remove-VMNetworkAdapter": [{"VMNetworkAdapter*": "@VMNetworkAdapter[]"}],
    "Remove-VMSavedState": [VM],
    "Remove-VMSwitch": [{"VMSwitch*": "@VMSwitch[]", "Force": "switch"}],
    "Rename-VM": [VM | {"NewName*": "str"}],
    "Rename-VMSwitch": [{"VMSwitch*": "@VMSwitch", "NewName*": "str"}],
    "Resize-VHD": [{"Path*": "str[]", "SizeBytes*": "int"}],
    "Resume-VM": [VM],
    "Set-Acl": [{"LiteralPath*": "str[]", "AclObject*": "@FileSecurity"}],
    "Set-VM": [
        VM
        | {
            "ProcessorCount": "int",
            "StaticMemory": "switch",
            "AutomaticStartAction": "Nothing|StartIfRunning|Start",
            "AutomaticStopAction": "TurnOff|Save|ShutDown",
            "CheckpointType": "Disabled|Production|ProductionOnly|Standard",
            "Notes": "str",
        }
    ],
    "Set-VMBios": [VM | {"StartupOrder": "str[]"}],
    "Set-VMComPort": [VM | {"Number*": "int", "Path": "str", "DebuggerMode": "On|Off"}],
    "Set-VMDvdDrive": [{"VMDvdDrive*": "@DvdDrive[]", "Path": "str"}],
    "Set-VMFirmware": [VM | {"BootOrder": "@VMComponentObject[]", "EnableSecureBoot": "On|Off"}],
    "Set-VMMemory": [VM | {"DynamicMemoryEnabled": "bool", "StartupBytes": "int"}],
    "Set-VMProcessor": [VM | {"Count": "int", "ExposeVirtualizationExtensions": "bool"}],
    "Set-VMSwitch": [
        {
            "VMSwitch*": "@VMSwitch[]",
            "SwitchType": "Private|Internal|External",
            "AllowManagementOS": "bool",
            "Notes": "str",
        },
    ],
    "Start-VM": [VM],
    "Stop-VM": [VM | {"TurnOff": "switch", "Force": "switch", "Save": "switch"}],
}
COMMON = {"Confirm": "switch", "ErrorAction": "str"}
DEVICES = {"HardDiskDrive": "drives", "DvdDrive": "dvds", "VMNetworkAdapter": "nics"}
HOST_KEY = "C:\\ProgramData\\ssh\\ssh_host_ed25519_key"
"""What is there beside the roots, for its rights."""
BIOS = ["CD", "IDE", "LegacyNetworkAdapter", "Floppy"]


class Failed(Exception):
    """A cmdlet that ends with an error."""

    def __init__(self, message: str, identity: str = "OperationFailed") -> None:
        super().__init__(message)
        self.message = message
        self.identity = identity


def ethernet(index: int, name: str, description: str) -> Object:
    return {
        "Name": name,
        "InterfaceDescription": description,
        "ifIndex": index,
        "DeviceID": f"{{ADA97E12-0000-0000-0000-{index:012X}}}",
    }


class Hyperv(Stub):
    """The host: its guests, switches, adapters, addresses, NAT; files are below ``/C:``."""

    roots = ("/C:",)
    initial: ClassVar[dict[str, Any]] = {
        "vms": {},
        "rights": {},
        "switches": {},
        "plugs": [],
        "adapters": [ethernet(4, "Ethernet", "Intel(R) 82574L Gigabit Network Connection")],
        "addresses": [{"IPAddress": "10.77.0.20", "PrefixLength": 24, "InterfaceIndex": 4}],
        "nats": {},
        "ssh": "10.77.0.1 50000 10.77.0.20 22",
        "memory": 2048 * MIB,
        "nested": True,
        "made": 0,
        "stop_after": None,
        "refuse": None,
    }

    @command("powershell", stdin=True)
    def powershell(self, argv: list[str], stdin: bytes) -> str:
        """Windows PowerShell, which is only ever told one program."""
        if ["powershell", *argv] != list(powershell.ARGV):
            raise AssertionError("not the command line that the product is to send")
        text = stdin.decode("ascii")  # nothing else survives every code page
        asked = json.loads(text)
        assert list(asked) == ["calls"], asked
        results: list[list[Object]] = []
        did: list[list[Object]] = []
        failed = None
        for number, call in enumerate(asked["calls"]):
            assert sorted(call) == ["cmdlet", "may_fail", "parameters", "select", "take"], call
            try:
                out = self._call(number, call, did)
            except Failed as no:
                if not _like(no.identity, call["may_fail"]):
                    failed = {"call": number, "message": no.message, "id": no.identity}
                    break
                out = []
            did.append(out)
            results.append([self._row(each, call["select"]) for each in out])
            if self.state["stop_after"] == number + 1:
                self.state["stop_after"] = None
                raise Refused("", 255, half_way=True)
        told = {"results": results, "error": failed}
        said = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        if failed:
            raise Refused("", 1, out=said, half_way=True)
        return said

    def _call(self, number: int, call: Object, did: list[list[Object]]) -> list[Object]:
        name = call["cmdlet"]
        if name not in ALLOWED:
            raise Failed(f"{name} is not one of ours", "RuntimeException")
        if self.state["refuse"] == number:
            self.state["refuse"] = None
            raise Failed(f"{name} was told to refuse", "Injected")
        given = dict(call["parameters"])
        for key, numbers in call["take"].items():
            # As they are by now: Hyper-V's objects are views.
            some = [now for n in numbers for each in did[n] if (now := self._now(each))]
            given[key] = some[0] if len(some) == 1 else some
        method: Callable[..., list[Object] | None] = getattr(
            self, name.lower().replace("-", "_"), self._nothing
        )
        assert method != self._nothing, f"the stub has no {name}"
        return method(**self._bound(name, given)) or []

    def _nothing(self, **_: Any) -> list[Object]:
        return []

    def _bound(self, name: str, given: Object) -> Object:
        """Bind parameters as PowerShell does: by name, of one set, with the types they have."""
        sets = SETS[name]
        known = {key.rstrip("*") for one in sets for key in one} | set(COMMON)
        for key in given:
            if key not in known:
                text = f"A parameter cannot be found that matches parameter name '{key}'."
                raise Failed(text, f"NamedParameterNotFound,{name}")
        fits = [one for one in sets if set(given) <= {key.rstrip("*") for key in one} | set(COMMON)]
        if not fits:
            text = "Parameter set cannot be resolved using the specified named parameters."
            raise Failed(text, f"AmbiguousParameterSet,{name}")
        whole = [
            one for one in fits if all(key.rstrip("*") in given for key in one if key.endswith("*"))
        ]
        if not whole:
            missing = next(
                key.rstrip("*") for key in fits[0] if key.endswith("*") and key[:-1] not in given
            )
            text = (
                "Cannot process command because of one or more missing mandatory parameters: "
                f"{missing}."
            )
            raise Failed(text, f"MissingMandatoryParameter,{name}")
        types = {key.rstrip("*"): kind for key, kind in whole[0].items()} | COMMON
        return {key: _typed(name, key, types[key], value) for key, value in given.items()
                if key not in COMMON}  # fmt: skip

    def _row(self, thing: Object, select: list[str]) -> Object:
        row = {}
        for path in select:
            value: Any = thing
            for word in path.split("."):
                if isinstance(value, list):
                    # Members of all that have it: none of a thing without device.
                    value = [each[word] for each in value if each is not None]
                else:
                    assert word in value, f"{thing.get('type')} has no property {word}"
                    value = value[word]
            if isinstance(value, list):
                value = [each for each in value if each is not None]
                if "." in path:
                    # $a.b.c: what enumerating gives, one of it alone is no list.
                    value = value[0] if len(value) == 1 else value or None
            row[path] = value
        return row

    # What there is ------------------------------------------------------------------------------

    def _id(self) -> str:
        self.state["made"] += 1
        return f"{self.state['made']:08x}-7e57-4000-8000-000000000000"

    def _now(self, thing: Object) -> Object | None:
        """The same thing as it is now; None when it is gone."""
        kind, number = thing.get("type"), thing.get("Id")
        if kind == "VirtualMachine":
            vm: Object | None = self.state["vms"].get(number)
            return vm
        if kind == "VMSwitch":
            switch: Object | None = self.state["switches"].get(number)
            return switch
        owner = self.state["vms"].get(thing.get("VMId"), {})
        if kind in DEVICES:
            return next(
                (each for each in owner.get(DEVICES[kind], []) if each["Id"] == number), None
            )
        return thing

    def _vm_of(self, thing: Object) -> Object:
        vm: Object = self.state["vms"][thing["VMId"]]
        return vm

    def _windows(self, path: str) -> Path:
        """Where a file of Windows really is."""
        if not re.match(r"[A-Za-z]:\\", path):
            raise Failed(f"Cannot find drive or path '{path}'.", "PathNotFound")
        return self.path("/" + path.replace("\\", "/"))

    def _used(self, path: str) -> bool:
        """Whether a guest that is not off has a file, or one of a folder, open."""
        low = path.lower()
        return any(
            (each["Path"] or "").lower() == low
            or (each["Path"] or "").lower().startswith(low + "\\")
            for vm in self.state["vms"].values()
            if vm["State"] not in {"Off", "Saved"}
            for each in vm["drives"] + vm["dvds"]
        )

    def _stopped(self, vm: Object, what: str) -> None:
        if vm["State"] != "Off":
            raise Failed(
                f"{what}\n\n'{vm['Name']}' failed. (Virtual machine ID {vm['Id'].upper()})\n{BUSY}",
                "InvalidState",
            )

    # Files --------------------------------------------------------------------------------------

    def new_item(self, **given: Any) -> list[Object]:
        path = self._windows(given["Path"][0])
        if given["ItemType"] == "File":
            if not path.parent.is_dir():
                raise Failed(
                    f"Could not find a part of the path '{given['Path'][0]}'.", "NewItemIOError"
                )
            path.write_bytes(b"")
            return [{"Name": path.name}]
        assert given["ItemType"] == "Directory"
        if path.exists() and not given.get("Force"):
            text = f"An item with the specified name {given['Path'][0]} already exists."
            raise Failed(text, "DirectoryExist")
        path.mkdir(parents=True, exist_ok=True)
        return [{"Name": path.name}]

    def _there(self, path: str) -> Path:
        real = self._windows(path)
        if not real.exists():
            text = f"Cannot find path '{path}' because it does not exist."
            raise Failed(text, "PathNotFound")
        return real

    def get_item(self, **given: Any) -> list[Object]:
        path = given["LiteralPath"][0]
        if path == "Env:SSH_CONNECTION":
            return [{"Name": "SSH_CONNECTION", "Value": self.state["ssh"]}]
        return [{"Name": self._there(path).name}]

    def get_childitem(self, **given: Any) -> list[Object]:
        folder = self._there(given["LiteralPath"][0])
        return [
            {"Name": each.name, "Length": each.stat().st_size if each.is_file() else None}
            for each in sorted(folder.iterdir())
            if not (given.get("File") and each.is_dir())
        ]

    def get_filehash(self, **given: Any) -> list[Object]:
        import hashlib  # noqa: PLC0415 - heavy, and seldom asked for

        real = self._there(given["LiteralPath"][0])
        assert given["Algorithm"] == "SHA256"
        return [{"Hash": hashlib.sha256(real.read_bytes()).hexdigest().upper()}]

    def get_acl(self, **given: Any) -> list[Object]:
        path = given["LiteralPath"][0]
        if path != HOST_KEY:
            self._there(path)
        return [{"type": "FileSecurity", "Path": path}]

    def set_acl(self, **given: Any) -> None:
        self._there(path := given["LiteralPath"][0])
        self.state["rights"][path.lower()] = given["AclObject"]["Path"]

    def remove_item(self, **given: Any) -> None:
        path = given["LiteralPath"][0]
        rights = self.state["rights"].items()
        self.state["rights"] = {at: of for at, of in rights if not at.startswith(path.lower())}
        real = self._there(path)
        if self._used(path):
            text = f"Cannot remove item {path}: {IN_USE}"
            raise Failed(text, "RemoveFileSystemItemIOError")
        if real.is_dir():
            if not given.get("Recurse") and any(real.iterdir()):
                text = "A command that prompts the user failed: NonInteractive mode."
                raise Failed(text, "InvalidOperation")
            import shutil  # noqa: PLC0415 - heavy

            shutil.rmtree(real)
        else:
            real.unlink()

    def move_item(self, **given: Any) -> None:
        real, to = self._there(given["LiteralPath"][0]), self._windows(given["Destination"])
        if to.exists():
            text = "Cannot create a file when that file already exists."
            raise Failed(text, "MoveFileInfoItemIOError")
        real.rename(to)

    # Disks --------------------------------------------------------------------------------------

    def new_vhd(self, **given: Any) -> list[Object]:
        path = given["Path"][0]
        real = self._windows(path)
        head = f"Failed to create the virtual hard disk.\n\nThe system failed to create '{path}'"
        if real.exists():
            raise Failed(f"{head}: The file exists. (0x80070050).", "OperationFailed")
        if not real.parent.is_dir():
            text = f"{head}: The system cannot find the path specified. (0x80070003)."
            raise Failed(text, "ObjectNotFound")
        size, parent, of = given.get("SizeBytes", 0), given.get("ParentPath", ""), ""
        if parent:
            base = self._windows(parent)
            if not base.is_file():
                raise Failed(f"{head}: {NO_FILE}.", "ObjectNotFound")
            disk = self._disk(base)
            if size and size < disk["size"]:
                raise Failed(
                    f"{head}: The parameter is incorrect. (0x80070057).", "InvalidParameter"
                )
            size, of = size or disk["size"], disk["id"]
        disk = {"id": self._id(), "size": size, "parent": parent, "of": of}
        real.write_bytes(VHDX + json.dumps(disk).encode())
        return [self._vhd(path, disk)]

    def _disk(self, real: Path) -> Object:
        data = real.read_bytes()
        if not data.startswith(VHDX):
            text = "The file or directory is corrupted and unreadable. (0x80070570)."
            raise Failed(text, "InvalidData")
        if data[8:9] == b"{":
            disk: Object = json.loads(data[8:])
            return disk
        import hashlib  # noqa: PLC0415

        return {"id": hashlib.sha256(data).hexdigest(), "size": 2 * GIB, "parent": "", "of": ""}

    def _vhd(self, path: str, disk: Object) -> Object:
        kind = "Differencing" if disk["parent"] else "Dynamic"
        return {"Path": path, "Size": disk["size"], "ParentPath": disk["parent"], "VhdType": kind}

    def get_vhd(self, **given: Any) -> list[Object]:
        path = given["Path"][0]
        real = self._windows(path)
        if not real.is_file():
            text = (
                f"Getting the mounted storage instance for the path '{path}' failed.\n"
                "The operation cannot be performed because the object is not found."
            )
            raise Failed(text, "ObjectNotFound")
        return [self._vhd(path, self._disk(real))]

    def resize_vhd(self, **given: Any) -> None:
        path = given["Path"][0]
        real = self._there(path)
        head = f"Failed to resize the virtual disk.\n\nThe system failed to resize '{path}'"
        if self._used(path):
            raise Failed(f"{head}: {IN_USE}", "OperationFailed")
        disk = self._disk(real)
        if given["SizeBytes"] < disk["size"]:
            text = f"{head}: the virtual disk can't be made smaller than it is used. (0xC03A0028)"
            raise Failed(text, "OperationFailed")
        real.write_bytes(VHDX + json.dumps(disk | {"size": given["SizeBytes"]}).encode())
        # It looks at no checkpoint that stands on it.
        for child in real.parent.glob(f"{real.stem}_*.avhdx"):
            child.write_bytes(b"of another size")

    # Guests -------------------------------------------------------------------------------------

    def get_vmhost(self) -> list[Object]:
        return [{"LogicalProcessorCount": 3, "VirtualMachinePath": "C:\\ProgramData"}]

    def get_ciminstance(self, **given: Any) -> list[Object]:
        assert given["ClassName"] == "Win32_ComputerSystem"
        return [{"HypervisorPresent": True}]

    def get_service(self, **given: Any) -> list[Object]:
        assert given["Name"] == ["vmms"]
        return [{"Name": "vmms", "Status": "Running"}]

    def get_vm(self, **given: Any) -> list[Object]:
        vms: list[Object] = list(self.state["vms"].values())
        if "Id" in given:
            vms = [vm for vm in vms if vm["Id"] == given["Id"].lower()]
            if not vms:
                text = f'Hyper-V was unable to find a virtual machine with ID "{given["Id"]}".'
                raise Failed(text, "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM")
        for name in given.get("Name", []):
            vms = [vm for vm in vms if _like(vm["Name"], name)]
            if not vms and not set("*?[") & set(name):
                text = f'Hyper-V was unable to find a virtual machine with name "{name}".'
                raise Failed(text, "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVM")
        return vms

    def new_vm(self, **given: Any) -> list[Object]:
        name, number = given.get("Name", "New Virtual Machine"), self._id()
        generation = given.get("Generation", 1)
        assert "NoVHD" in given
        memory = given.get("MemoryStartupBytes", GIB)
        self._enough(name, memory)
        home = f"{given['Path']}\\{name}"
        vm: Object = {
            "type": "VirtualMachine",
            "Id": number,
            "Name": name,
            "State": "Off",
            "Notes": "",
            "Path": home,
            "Generation": generation,
            "MemoryStartup": memory,
            "DynamicMemoryEnabled": False,
            "ProcessorCount": 1,
            "ExposeVirtualizationExtensions": False,
            "ComPorts": ["", ""],
            "AutomaticStartAction": "StartIfRunning",
            "AutomaticStopAction": "Save",
            "CheckpointType": "Production",
            "drives": [],
            "dvds": [],
            "nics": [],
            "SecureBoot": "On",
            "order": [],
            "StartupOrder": list(BIOS),
        }
        self.state["vms"][number] = vm
        self._plug(vm, "Network Adapter", "", "00155D000000", dynamic=True, legacy=False)
        if generation == 1:
            self._insert(vm, ("IDE", 1, 0), None)
        return [vm]

    def _enough(self, name: str, memory: int) -> None:
        if memory < 32 * MIB or memory % (2 * MIB):
            text = (
                f"'{name}' failed to modify device 'Memory'.\n\nInvalid startup memory amount "
                f"assigned for '{name}'. Make sure the value is a multiple of 2 MB."
            )
            raise Failed(text, "InvalidParameter")

    def _device(self, vm: Object, kind: str, **more: Any) -> Object:
        made = {"type": kind, "Id": f"Microsoft:{self._id().upper()}", "VMId": vm["Id"], **more}
        vm[DEVICES[kind]].append(made)
        if vm["Generation"] == 2:
            vm["order"].append(made["Id"])
        return made

    def _gone(self, things: list[Object], what: str) -> None:
        for thing in things:
            vm = self._vm_of(thing)
            self._stopped(vm, f"Failed to remove device '{what}'.")
            vm[DEVICES[thing["type"]]].remove(thing)
            vm["order"] = [each for each in vm["order"] if each != thing["Id"]]

    def _insert(self, vm: Object, at: tuple[str, int, int], path: str | None) -> None:
        kind, number, location = at
        where = {"ControllerType": kind, "ControllerNumber": number, "ControllerLocation": location}
        self._device(vm, "DvdDrive", Path=path, Granted=self._identity(path), **where)

    def _identity(self, path: str | None) -> list[int]:
        """What tells a file from another of its name: Hyper-V lets a guest read that which was inserted.

        A machine that was kept has copies of its files, of the same times.
        """
        real = self._windows(path) if path else None
        if real is None or not real.is_file():
            return []
        return [(found := real.stat()).st_size, found.st_mtime_ns]

    def _free(self, vm: Object, at: tuple[str, int, int]) -> None:
        # Microsoft, Plan for Hyper-V scalability: 4 IDE devices, 4 SCSI controllers with 64 disks each.
        numbers, locations = (2, 2) if at[0] == "IDE" else (4, 64)
        if at[1] not in range(numbers) or at[2] not in range(locations):
            text = f"There is no location {at[2]} on controller {at[1]}."
            raise Failed(text, "InvalidParameter")
        for each in vm["drives"] + vm["dvds"]:
            has = (each["ControllerType"], each["ControllerNumber"], each["ControllerLocation"])
            if has == at:
                text = f"The location {at[2]} on controller {at[1]} is already in use."
                raise Failed(text, "InvalidParameter")

    def remove_vm(self, **given: Any) -> None:
        for vm in given["VM"]:
            if vm["State"] not in {"Off", "Saved"}:
                raise Failed(f"Failed to remove the virtual machine.\n{BUSY}", "InvalidState")
            del self.state["vms"][vm["Id"]]

    def rename_vm(self, **given: Any) -> None:
        for vm in given["VM"]:
            vm["Name"] = given["NewName"]

    def set_vm(self, **given: Any) -> None:
        for vm in given.pop("VM"):
            assert not {"ProcessorCount", "StaticMemory"} & set(given)
            vm.update(given)

    def set_vmmemory(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._stopped(vm, "Failed to modify device 'Memory'.")
            self._enough(vm["Name"], given["StartupBytes"])
            vm["MemoryStartup"] = given["StartupBytes"]
            vm["DynamicMemoryEnabled"] = given["DynamicMemoryEnabled"]

    def get_vmprocessor(self, **given: Any) -> list[Object]:
        return [
            {
                "Count": vm["ProcessorCount"],
                "ExposeVirtualizationExtensions": vm["ExposeVirtualizationExtensions"],
            }
            for vm in given["VM"]
        ]

    def set_vmprocessor(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._stopped(vm, "Failed to modify device 'Processor'.")
            vm["ProcessorCount"] = given["Count"]
            vm["ExposeVirtualizationExtensions"] = given["ExposeVirtualizationExtensions"]

    def get_vmcomport(self, **given: Any) -> list[Object]:
        """Both generations have two, each without a pipe at first."""
        return [
            {"type": "VMComPort", "Name": f"COM {number}", "Path": path}
            for vm in given["VM"]
            for number, path in enumerate(vm["ComPorts"], 1)
            if number == given.get("Number", number)
        ]

    def set_vmcomport(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._stopped(vm, "Failed to modify device 'Serial Port'.")
            if given["Number"] not in {1, 2}:
                raise Failed("Number is not in the range of 1 to 2.", "ParameterArgumentValidation")
            path = given.get("Path", "")
            if path and not re.fullmatch(r"\\\\[^\\]+\\pipe\\[^\\]{1,256}", path):
                raise Failed("The named pipe path is not valid.", "InvalidParameter")
            vm["ComPorts"][given["Number"] - 1] = path

    def get_vmharddiskdrive(self, **given: Any) -> list[Object]:
        where = ("ControllerType", "ControllerNumber", "ControllerLocation")
        return [
            each
            for vm in given["VM"]
            for each in vm["drives"]
            if all(each[key] == given.get(key, each[key]) for key in where)
        ]

    def add_vmharddiskdrive(self, **given: Any) -> None:
        for vm in given["VM"]:
            at = (given["ControllerType"], given["ControllerNumber"], given["ControllerLocation"])
            if at[0] == "IDE":
                if vm["Generation"] != 1:
                    raise Failed("Generation 2 has no IDE controller.", "InvalidParameter")
                self._stopped(vm, "Failed to add device 'Virtual Hard Disk'.")
            self._free(vm, at)
            if not self._windows(given["Path"]).is_file():
                text = f"Failed to add device 'Virtual Hard Disk'.\n'{given['Path']}': {NO_FILE}"
                raise Failed(text, "ObjectNotFound")
            where = {
                "ControllerType": at[0],
                "ControllerNumber": at[1],
                "ControllerLocation": at[2],
            }
            self._device(vm, "HardDiskDrive", Path=given["Path"], **where)

    def remove_vmharddiskdrive(self, **given: Any) -> None:
        self._gone(given["VMHardDiskDrive"], "Virtual Hard Disk")

    def get_vmdvddrive(self, **given: Any) -> list[Object]:
        where = ("ControllerNumber", "ControllerLocation")
        return [
            each
            for vm in given["VM"]
            for each in vm["dvds"]
            if all(each[key] == given.get(key, each[key]) for key in where)
        ]

    def _iso(self, path: str, what: str) -> None:
        if path and not self._windows(path).is_file():
            raise Failed(f"{what}\nUser Account does not have permission, or '{path}': {NO_FILE}",
                         "ObjectNotFound")  # fmt: skip

    def add_vmdvddrive(self, **given: Any) -> None:
        for vm in given["VM"]:
            kind = "IDE" if vm["Generation"] == 1 else "SCSI"
            if kind == "IDE":
                self._stopped(vm, "Failed to add device 'Virtual CD/DVD Disk'.")
            at = (kind, given["ControllerNumber"], given["ControllerLocation"])
            self._free(vm, at)
            self._iso(given["Path"], "Failed to add device 'Virtual CD/DVD Disk'.")
            self._insert(vm, at, given["Path"])

    def set_vmdvddrive(self, **given: Any) -> None:
        for drive in given["VMDvdDrive"]:
            self._iso(given["Path"], "Failed to modify device 'Virtual CD/DVD Disk'.")
            drive |= {"Path": given["Path"] or None, "Granted": self._identity(given["Path"])}

    def remove_vmdvddrive(self, **given: Any) -> None:
        self._gone(given["VMDvdDrive"], "Virtual CD/DVD Disk")

    def get_vmnetworkadapter(self, **given: Any) -> list[Object]:
        if "ManagementOS" in given:
            return list(self.state["plugs"])
        name = given.get("Name", "*")
        return [each for vm in given["VM"] for each in vm["nics"] if _like(each["Name"], name)]

    def _plug(
        self, vm: Object, name: str, switch: str, mac: str, *, dynamic: bool, legacy: bool
    ) -> None:
        self._device(
            vm,
            "VMNetworkAdapter",
            Name=name,
            SwitchName=switch or None,
            MacAddress=mac,
            DynamicMacAddressEnabled=dynamic,
            IsLegacy=legacy,
        )

    def _one_switch(self, name: str) -> None:
        found = [each for each in self.state["switches"].values() if _like(each["Name"], name)]
        if not found:
            text = f'Hyper-V was unable to find a virtual switch with name "{name}".'
            raise Failed(text, "InvalidParameter,Microsoft.HyperV.PowerShell.Commands.GetVMSwitch")
        if len(found) > 1:
            raise Failed(f'The virtual switch name "{name}" is not unique.', "InvalidParameter")

    def add_vmnetworkadapter(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._stopped(vm, "Failed to add device 'Ethernet Port'.")
            if given["IsLegacy"] and vm["Generation"] != 1:
                text = "Legacy network adapters are not supported by this generation."
                raise Failed(text, "InvalidParameter")
            if not re.fullmatch(r"[0-9A-Fa-f]{12}", given["StaticMacAddress"]):
                raise Failed("The static MAC address specified is not valid.", "InvalidParameter")
            self._one_switch(given["SwitchName"])
            self._plug(
                vm,
                given["Name"],
                given["SwitchName"],
                given["StaticMacAddress"],
                dynamic=False,
                legacy=given["IsLegacy"],
            )

    def remove_vmnetworkadapter(self, **given: Any) -> None:
        self._gone(given["VMNetworkAdapter"], "Ethernet Port")

    def connect_vmnetworkadapter(self, **given: Any) -> None:
        self._one_switch(given["SwitchName"])
        for nic in given["VMNetworkAdapter"]:
            nic["SwitchName"] = given["SwitchName"]

    def disconnect_vmnetworkadapter(self, **given: Any) -> None:
        for nic in given["VMNetworkAdapter"]:
            nic["SwitchName"] = None

    def _generation(self, vm: Object, number: int) -> None:
        if vm["Generation"] != number:
            text = f"The operation is not supported on generation {vm['Generation']} of '{vm['Name']}'."
            raise Failed(text, "InvalidParameter")

    def get_vmbios(self, **given: Any) -> list[Object]:
        for vm in given["VM"]:
            self._generation(vm, 1)
        return [{"StartupOrder": vm["StartupOrder"]} for vm in given["VM"]]

    def set_vmbios(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._generation(vm, 1)
            self._stopped(vm, "Failed to modify the BIOS.")
            if sorted(given["StartupOrder"]) != sorted(BIOS):
                raise Failed("The boot order is not valid.", "InvalidParameter")
            vm["StartupOrder"] = given["StartupOrder"]

    def get_vmfirmware(self, **given: Any) -> list[Object]:
        rows = []
        for vm in given["VM"]:
            self._generation(vm, 2)
            order = [{"Device": None if each == "file" else {"Id": each}} for each in vm["order"]]
            rows.append({"SecureBoot": vm["SecureBoot"], "BootOrder": order})
        return rows

    def set_vmfirmware(self, **given: Any) -> None:
        for vm in given["VM"]:
            self._generation(vm, 2)
            self._stopped(vm, "Failed to modify the firmware.")
            vm["SecureBoot"] = given.get("EnableSecureBoot", vm["SecureBoot"])
            if "BootOrder" in given:
                assert all(each["VMId"] == vm["Id"] for each in given["BootOrder"])
                vm["order"] = [each["Id"] for each in given["BootOrder"]]

    def start_vm(self, **given: Any) -> None:
        for vm in given["VM"]:
            name = vm["Name"]
            head = f"'{name}' failed to start."
            if vm["State"] not in {"Off", "Saved"}:
                return  # "The virtual machine is already in the specified state.", a warning
            if not self.state["nested"]:
                text = (
                    f"{head}\n\nFailed to start the virtual machine '{name}' because one of the "
                    "Hyper-V components is not running."
                )
                raise Failed(text, "OperationFailed,Microsoft.HyperV.PowerShell.Commands.StartVM")
            others = sum(
                each["MemoryStartup"]
                for each in self.state["vms"].values()
                if each["State"] not in {"Off", "Saved"}
            )
            if others + vm["MemoryStartup"] > self.state["memory"]:
                text = (
                    f"{head}\n\nNot enough memory in the system to start the virtual machine {name}.\n\n"
                    "Could not initialize memory: Not enough memory resources are available to "
                    "complete this operation. (0x8007000E)."
                )
                raise Failed(text, "OutOfMemory,Microsoft.HyperV.PowerShell.Commands.StartVM")
            for each in vm["drives"] + vm["dvds"]:
                self._opened(head, each["Path"])
            for each in vm["dvds"]:
                if each["Path"] and self._identity(each["Path"]) != each["Granted"]:
                    text = (
                        f"{head}\n\n'{name}': service Account does not have permission to open attachment "
                        f"'{each['Path']}'. Error: 'General access denied error' (0x80070005)."
                    )
                    raise Failed(text, "OperationFailed")
            vm["State"] = "Running"

    def _opened(self, head: str, path: str | None) -> None:
        if not path:
            return
        real = self._windows(path)
        if not real.is_file():
            raise Failed(f"{head}\n\nFailed to open attachment '{path}'. Error: '{NO_FILE}'",
                         "OperationFailed")  # fmt: skip
        if real.read_bytes() == b"of another size":
            text = (
                f"{head}\n\nFailed to open attachment '{path}'. Error: 'The chain of virtual hard disks is "
                "corrupted. There is a mismatch in the virtual sizes of the parent virtual hard disk and "
                "differencing disk. (0xC03A0017)'"
            )
            raise Failed(text, "OperationFailed")
        if path.lower().endswith(".vhdx") and (disk := self._disk(real))["parent"]:
            base = self._windows(disk["parent"])
            if not base.is_file() or self._disk(base)["id"] != disk["of"]:
                text = (
                    f"{head}\n\nFailed to open attachment '{path}'. Error: 'The chain of virtual hard "
                    "disks is corrupted. There is a mismatch in the identifiers of the parent virtual "
                    "hard disk and differencing disk. (0xC03A000E)'"
                )
                raise Failed(text, "OperationFailed")

    def stop_vm(self, **given: Any) -> None:
        for vm in given["VM"]:
            if vm["State"] == "Saved":
                raise Failed(f"Failed to stop.\n{BUSY}", "InvalidState")
            assert given.get("TurnOff")
            vm["State"] = "Off"

    def resume_vm(self, **given: Any) -> None:
        for vm in given["VM"]:
            if vm["State"] != "Paused":
                raise Failed(f"Failed to resume.\n{BUSY}", "InvalidState")
            vm["State"] = "Running"

    def remove_vmsavedstate(self, **given: Any) -> None:
        for vm in given["VM"]:
            if vm["State"] != "Saved":
                raise Failed(f"Failed to delete saved state.\n{BUSY}", "InvalidState")
            vm["State"] = "Off"

    # Networks -----------------------------------------------------------------------------------

    def get_vmswitch(self, **given: Any) -> list[Object]:
        switches: list[Object] = list(self.state["switches"].values())
        if "Id" in given:
            switches = [each for each in switches if each["Id"] == given["Id"].lower()]
            if not switches:
                text = f'Hyper-V was unable to find a virtual switch with ID "{given["Id"]}".'
                raise Failed(text, "InvalidParameter")
        return switches

    def new_vmswitch(self, **given: Any) -> list[Object]:
        name, number = given["Name"], self._id()
        switch: Object = {
            "type": "VMSwitch",
            "Id": number,
            "Name": name,
            "SwitchType": given.get("SwitchType", "External"),
            "Notes": given.get("Notes", ""),
            "AllowManagementOS": given.get("SwitchType") != "Private",
            "NetAdapterInterfaceDescription": None,
        }
        if adapters := given.get("NetAdapterName"):
            adapter = next((a for a in self.state["adapters"] if a["Name"] == adapters[0]), None)
            if adapter is None:
                raise Failed(
                    f"No network adapter was found named '{adapters[0]}'.", "ObjectNotFound"
                )
            description = adapter["InterfaceDescription"]
            taken = (s["NetAdapterInterfaceDescription"] for s in self.state["switches"].values())
            if description in taken or description.startswith("Hyper-V Virtual"):
                text = (
                    "Failed while adding virtual Ethernet switch connections.\n\nExternal Ethernet "
                    f"adapter '{description}' is already bound to the Microsoft Virtual Switch protocol."
                )
                raise Failed(text, "InvalidParameter")
            switch["NetAdapterInterfaceDescription"] = description
            switch["AllowManagementOS"] = given.get("AllowManagementOS", True)
        self.state["switches"][number] = switch
        if switch["AllowManagementOS"]:
            self._host_plug(switch)
        return [switch]

    def _host_plug(self, switch: Object) -> None:
        """Give the host an adapter on a switch; on an external one it takes the address over."""
        self.state["made"] += 1
        index = 100 + self.state["made"]
        made = ethernet(
            index,
            f"vEthernet ({switch['Name']})",
            f"Hyper-V Virtual Ethernet Adapter #{index}",
        )
        self.state["adapters"].append(made)
        self.state["plugs"].append(
            {"SwitchName": switch["Name"], "DeviceId": made["DeviceID"], "Switch": switch["Id"]}
        )
        if switch["NetAdapterInterfaceDescription"]:
            self._move(self._physical(switch), index)
        else:
            made_up = {"IPAddress": "169.254.7.7", "PrefixLength": 16, "InterfaceIndex": index}
            self.state["addresses"].append(made_up)

    def _physical(self, switch: Object) -> int:
        return next(
            int(each["ifIndex"])
            for each in self.state["adapters"]
            if each["InterfaceDescription"] == switch["NetAdapterInterfaceDescription"]
        )

    def _move(self, source: int, to: int) -> None:
        for each in self.state["addresses"]:
            if each["InterfaceIndex"] == source:
                each["InterfaceIndex"] = to

    def _host_unplug(self, switch: Object) -> None:
        for plug in [each for each in self.state["plugs"] if each["Switch"] == switch["Id"]]:
            adapter = next(a for a in self.state["adapters"] if a["DeviceID"] == plug["DeviceId"])
            self.state["plugs"].remove(plug)
            self.state["adapters"].remove(adapter)
            if switch["NetAdapterInterfaceDescription"]:
                self._move(adapter["ifIndex"], self._physical(switch))
            self.state["addresses"] = [
                each
                for each in self.state["addresses"]
                if each["InterfaceIndex"] != adapter["ifIndex"]
            ]

    def set_vmswitch(self, **given: Any) -> None:
        for switch in given["VMSwitch"]:
            if "SwitchType" in given:
                assert given["SwitchType"] != "External", "by its adapter"
                self._host_unplug(switch)
                switch |= {
                    "SwitchType": given["SwitchType"],
                    "NetAdapterInterfaceDescription": None,
                }
                switch["AllowManagementOS"] = given["SwitchType"] == "Internal"
            if "AllowManagementOS" in given:
                self._host_unplug(switch)
                switch["AllowManagementOS"] = given["AllowManagementOS"]
            if switch["AllowManagementOS"]:
                self._host_plug(switch)

    def rename_vmswitch(self, **given: Any) -> None:
        switch = given["VMSwitch"]
        for plug in self.state["plugs"]:
            if plug["Switch"] == switch["Id"]:
                plug["SwitchName"] = given["NewName"]
        for vm in self.state["vms"].values():
            for nic in vm["nics"]:
                if nic["SwitchName"] == switch["Name"]:
                    nic["SwitchName"] = given["NewName"]
        switch["Name"] = given["NewName"]

    def remove_vmswitch(self, **given: Any) -> None:
        for switch in given["VMSwitch"]:
            name = switch["Name"]
            nics = [
                (vm, nic)
                for vm in self.state["vms"].values()
                for nic in vm["nics"]
                if nic["SwitchName"] == name
            ]
            if any(vm["State"] != "Off" for vm, _ in nics):
                text = (
                    "Failed while removing virtual Ethernet switch.\n\nThe virtual switch "
                    f"'{name}' cannot be deleted because it is being used by running virtual machines "
                    "or assigned to child pools.\n\nThe operation cannot be performed while the object "
                    "is in use."
                )
                raise Failed(
                    text, "ObjectInUse,Microsoft.HyperV.PowerShell.Commands.RemoveVMSwitchCommand"
                )
            for _, nic in nics:
                nic["SwitchName"] = None
            self._host_unplug(switch)
            del self.state["switches"][switch["Id"]]

    def get_netadapter(self) -> list[Object]:
        return list(self.state["adapters"])

    def get_netipaddress(self, **given: Any) -> list[Object]:
        assert given["AddressFamily"] == "IPv4"
        loopback = {"IPAddress": "127.0.0.1", "PrefixLength": 8, "InterfaceIndex": 1}
        return [*self.state["addresses"], loopback]

    def new_netipaddress(self, **given: Any) -> None:
        if not any(each["ifIndex"] == given["InterfaceIndex"] for each in self.state["adapters"]):
            raise Failed("Element not found.", "Windows System Error 1168,New-NetIPAddress")
        if any(each["IPAddress"] == given["IPAddress"] for each in self.state["addresses"]):
            text = "The object already exists."
            raise Failed(text, "Windows System Error 5010,New-NetIPAddress")
        self.state["addresses"] = [
            each
            for each in self.state["addresses"]
            if each["InterfaceIndex"] != given["InterfaceIndex"]
            or not each["IPAddress"].startswith("169.254.")
        ] + [given]

    def remove_netipaddress(self, **given: Any) -> None:
        def hit(each: Object) -> bool:
            return all(each[key] == value for key, value in given.items())

        if not any(map(hit, self.state["addresses"])):
            text = "No matching MSFT_NetIPAddress objects found by CIM query."
            raise Failed(text, "CmdletizationQuery_NotFound,Remove-NetIPAddress")
        self.state["addresses"] = [each for each in self.state["addresses"] if not hit(each)]

    def get_netnat(self) -> list[Object]:
        return [
            {"Name": name, "InternalIPInterfaceAddressPrefix": prefix}
            for name, prefix in self.state["nats"].items()
        ]

    def new_netnat(self, **given: Any) -> None:
        name, prefix = given["Name"], given["InternalIPInterfaceAddressPrefix"]
        if name in self.state["nats"] or prefix in self.state["nats"].values():
            text = "The parameter is incorrect."
            raise Failed(text, "Windows System Error 87,New-NetNat")
        self.state["nats"][name] = prefix

    def remove_netnat(self, **given: Any) -> None:
        for name in given["Name"]:
            if name not in self.state["nats"]:
                text = (
                    f"No MSFT_NetNat objects found with property 'Name' equal to '{name}'.  "
                    "Verify the value of the property and retry."
                )
                raise Failed(text, "CmdletizationQuery_NotFound_Name,Remove-NetNat")
            del self.state["nats"][name]


def _like(name: str, pattern: str) -> bool:
    """PowerShell's patterns, without regard to capitals."""
    import fnmatch  # noqa: PLC0415

    return fnmatch.fnmatchcase(name.lower(), pattern.lower())


def _typed(cmdlet: str, key: str, kind: str, value: Any) -> Any:  # noqa: C901, PLR0911
    """Convert a value as PowerShell would, but for what would hide a mistake."""
    many = kind.endswith("[]")
    wrong = Failed(
        f"Cannot bind parameter '{key}'. Cannot convert value {value!r} to type {kind}.",
        f"CannotConvertArgumentNoMessage,{cmdlet}",
    )
    if kind.startswith("@"):
        wanted = kind[1:].removesuffix("[]")
        things = value if isinstance(value, list) else [value]
        if not things:
            text = f"Cannot bind argument to parameter '{key}' because it is an empty array."
            raise Failed(text, f"ParameterArgumentValidationErrorEmptyArrayNotAllowed,{cmdlet}")
        types = set(DEVICES) if wanted == "VMComponentObject" else {wanted}
        if any(each.get("type") not in types for each in things) or (not many and len(things) > 1):
            raise wrong
        return things if many else things[0]
    if many:
        values = value if isinstance(value, list) else [value]
        return [_typed(cmdlet, key, kind[:-2], each) for each in values]
    if kind == "str" and value is None:
        return ""
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in {"bool", "switch"} and isinstance(value, bool):
        return value
    if kind == "guid" and isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F-]{36}", value):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if "|" in kind and value in kind.split("|"):
        return value
    raise wrong
