"""VirtualBox 7 by its command line, with systemd, iproute2 and qemu-img beside it.

What is refused, in which words and how things are printed was taken from VirtualBox' manual and what
its sources print; `RTGetOpt` takes ``--option value`` and ``--option=value``, and options that it does
not know fail. When a guest starts that is on a NAT network, VirtualBox sets options 3, 6 and 15 of its
DHCP server for all to what it thinks right (NATNetworkImpl.cpp, `Start` and `i_updateDnsOptions`), and
machines' own options are left as they are; seen on 7.2.22, as are the lists of servers. Left out: progress bars (on error output in the real one), snapshots but for their mark
in what is shown, and everything inside guests.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from tests.support.stubs import Refused, Stub, command

if TYPE_CHECKING:
    from collections.abc import Iterator

STORE = "/var/lib/nestlab/virtualbox"
VDI = "stub VDI "
FRESH = {
    "VMState": "poweroff",
    "description": "",
    "memory": 128,
    "vram": 8,
    "cpus": 1,
    "chipset": "piix3",
    "firmware": "BIOS",
    "ioapic": "on",
    "rtcuseutc": "off",
    "nested-hw-virt": "off",
    "graphicscontroller": "vboxvga",
    "boot": ["floppy", "dvd", "disk", "none"],
    "vrde": "off",
    "vrdeports": "",
    "vrdeaddress": "",
    "vrdeauthtype": "null",
    "uart": "off",
    "uartmode": "disconnected",
    "controllers": {},
    "drives": {},
    "snapshot": "",
    "session": 0,
    "busy": "",
}
NIC = {
    "nic": "none",
    "nictype": "82540EM",
    "macaddress": "",
    "cableconnected": "on",
    "nat-network": "",
    "hostonlyadapter": "",
    "bridgeadapter": "",
}
CONTROLLERS = {
    "ide": {"piix3": "PIIX3", "piix4": "PIIX4", "ich6": "ICH6"},
    "sata": {"intelahci": "IntelAhci"},
    "scsi": {"lsilogic": "LsiLogic", "buslogic": "BusLogic"},
    "virtio": {"virtio": "VirtioSCSI", "virtio-scsi": "VirtioSCSI"},
}
PORTS = {"ide": (2, 2), "sata": (30, 1), "scsi": (16, 1), "virtio": (256, 1)}
SHOWN = {"ide": (2, 2), "sata": (30, 1), "scsi": (4, 1), "virtio": (4, 1)}
"""Ports and devices; fewer are shown here, the real ones print them all."""
MODIFIED = (
    *(
        "name",
        "description",
        "memory",
        "vram",
        "cpus",
        "chipset",
        "firmware",
        "ioapic",
        "rtcuseutc",
        "nested_hw_virt",
    ),
    *("graphicscontroller", "boot", "vrde", "vrdeport", "vrdeaddress", "vrdeauthtype", "nic"),
    *("nictype", "macaddress", "nat_network", "natnetwork", "hostonlyadapter", "bridgeadapter"),
    *("cableconnected", "uart", "uartmode"),
)
"""Options of modifyvm."""
ALONE = frozenset({"off", "disconnected"})
"""What --uartN and --uartmodeN take without a second word (VBoxManageModifyVM.cpp)."""
SUN_PATH = 108
"""DrvNamedPipe.cpp cuts a socket's path off, for a zero at its end."""
NIC_TYPES = ("Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio")
WHOLE = re.compile(r"\d+")
MESSAGES = {
    "vmx": "VT-x is being used by another hypervisor (VERR_VMX_IN_VMX_ROOT_MODE).\n"
    "VBoxManage: error: VirtualBox can't operate in VMX root mode. Please disable the KVM kernel "
    "extension, recompile your kernel and reboot (VERR_VMX_IN_VMX_ROOT_MODE)",
    "svme": "SVM is not enabled on the host (VERR_SVM_HOST_SVME_NOT_ENABLED)",
}


def refused(text: str, code: str = "NS_ERROR_FAILURE (0x80004005)", of: str = "Machine") -> Refused:
    """Refuse as the server does: the message, its code, and a line of VBoxManage's source."""
    return Refused(
        f"VBoxManage: error: {text}\n"
        f"VBoxManage: error: Details: code {code}, component {of}Wrap, interface I{of}, "
        "callee nsISupports\n"
        'VBoxManage: error: Context: "Something(a, b.raw())" at line 651 of file VBoxManage.cpp'
    )


def syntax(text: str) -> Refused:
    """Refuse as VBoxManage itself does."""
    return Refused(f"Usage:\n\nVBoxManage ...\n\nVBoxManage: error: {text}", 2)


def argument(text: str) -> Refused:
    return Refused(f"VBoxManage: error: {text}", 2)


def options(words: list[str], **known: bool) -> Iterator[tuple[str, str]]:
    """Yield the options (True: takes a value), and plain words under the name "".

    Numbered options (``--nic1``) are known by their name without the number.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            yield "", word
            continue
        name, equals, value = word.partition("=")
        bare = name.lstrip("-").rstrip("0123456789")
        key = name.lstrip("-").replace("-", "_")
        short = bare.replace("-", "_")
        takes = known.get(key, known.get(short))
        if not name.startswith("--") or takes is None:
            raise syntax(f"Unknown option: {word}")
        if takes and not equals:
            if not rest:
                raise syntax(f"Missing argument to '{name}'")
            value = rest.pop(0)
            if short in {"uart", "uartmode"} and value not in ALONE:
                if not rest:
                    raise syntax(f"Missing or Invalid argument to '{name}'")
                value = f"{value},{rest.pop(0)}"
        yield name.lstrip("-"), value


def chosen(words: list[str], **known: bool) -> dict[str, str]:
    return dict(options(words, **known))


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def pair(key: str, value: str) -> str:
    return f'{key}="{quoted(value)}"\n'


class VirtualBox(Stub):
    """A host with VirtualBox 7, root's."""

    roots = ("/var/lib/nestlab", "/etc/vbox", "/etc/systemd/system")
    initial: ClassVar[dict[str, Any]] = {
        "vms": {},
        "natnets": {},
        "hostonly": {},
        "dhcp": {},
        "extra": {},
        "media": {},
        "devices": ["enp1s0", "enp2s0"],
        "route": "enp1s0",
        "enabled": [],
        "module": True,
        "start": "",
        "deaf": False,
        "resolver": "127.0.0.53",
        "search": "",
    }

    @command("VBoxManage")
    def manage(self, argv: list[str], stdin: bytes) -> str:
        """Carry out one command."""
        del stdin
        for machine in self.state["vms"].values():
            self._pass_time(machine)
        after = json.dumps(self.state)
        try:
            return self._carry_out(argv)
        except Refused as no:
            # What went on by itself did so all the same.
            self.state.clear()
            self.state.update(json.loads(after))
            no.half_way = True
            raise

    def _carry_out(self, argv: list[str]) -> str:
        match argv:
            case ["--version"]:
                if not self.state["module"]:
                    return (
                        "WARNING: The character device /dev/vboxdrv does not exist.\n7.1.4r165100\n"
                    )
                return "7.1.4r165100\n"
            case ["list", *words]:
                return self._list(words)
            case [name, *words] if hasattr(self, f"do_{name}"):
                told: str = getattr(self, f"do_{name}")(words)
                return told
        raise syntax(f"Invalid command '{argv[0] if argv else ''}'")

    def _pass_time(self, machine: dict[str, Any]) -> None:
        """What goes on by itself between two commands: a session ends, a state becomes another."""
        machine["session"] = max(0, machine["session"] - 1)
        if machine["busy"] and machine["session"] == 0:
            machine["VMState"], machine["busy"] = machine["busy"], ""

    # Guests

    def _find(self, name: str) -> tuple[str, dict[str, Any]]:
        for number, machine in self.state["vms"].items():
            if name in {number, machine["name"]}:
                return number, machine
        asked = (
            f"with UUID {{{name}}}" if re.fullmatch(r"[0-9a-f-]{36}", name) else f"named '{name}'"
        )
        text = f"Could not find a registered machine {asked}"
        raise refused(text, "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)", "VirtualBox")

    def _locked(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return a machine that nobody else changes at the moment, and that is off."""
        number, machine = self._find(name)
        if machine["session"] or machine["VMState"] in {"running", "paused", "gurumeditation"}:
            text = f"The machine '{machine['name']}' is already locked for a session (or being unlocked)"
            raise refused(text, "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)")
        return number, machine

    def _mutable(self, machine: dict[str, Any]) -> None:
        if machine["VMState"] in {"saved", "aborted-saved"}:
            text = "The machine is not mutable (state is Saved)"
            raise refused(text, "VBOX_E_INVALID_VM_STATE (0x80bb0002)")

    def do_createvm(self, words: list[str]) -> str:
        """``createvm --name NAME``."""
        given = chosen(
            words, name=True, ostype=True, uuid=True, basefolder=True, register=False, groups=True,
            default=False, platform_architecture=True,
        )  # fmt: skip
        if "" in given:
            raise syntax(f"Invalid parameter '{given['']}'")
        if not given.get("name"):
            raise syntax("Parameter --name is required")
        if given.get("ostype") not in {"Other_64", "Linux_64", "Other"}:
            raise Refused("VBoxManage: error: Unknown or invalid guest OS type given.")
        if "register" not in given:
            raise AssertionError("what is not registered is of no use to anybody here")
        number = given.get("uuid") or str(uuid.uuid4())
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", number):
            raise syntax(f"Invalid UUID: {number}")
        # No leading dots, hyphens and blanks, and no such end.
        safe = re.sub(r"^[.\- ]|[. ]$", "_", re.sub(r"[^\w .()-]", "_", given["name"]))
        file = f"{given.get('basefolder', f'{STORE}/VMs')}/{safe}/{safe}.vbox"
        if self.path(file).exists():
            text = f"Machine settings file '{file}' already exists"
            raise refused(text, "VBOX_E_FILE_ERROR (0x80bb0004)")
        if number in self.state["vms"]:
            other = self.state["vms"][number]["name"]
            text = f"Registered machine with UUID {{{number}}} ('{other}') already exists"
            raise refused(text, "E_INVALIDARG (0x80070057)", "VirtualBox")
        self.path(file).parent.mkdir(parents=True)
        self.path(file).write_text("<VirtualBox/>\n")
        nics = {str(n): dict(NIC, macaddress=f"08002700000{n}") for n in range(1, 9)}
        # Without a word the first NIC is behind NAT of its own.
        nics["1"]["nic"] = "nat"
        fresh = json.loads(json.dumps(FRESH))
        self.state["vms"][number] = {**fresh, "name": given["name"], "CfgFile": file, "nics": nics}
        return (
            f"Virtual machine '{given['name']}' is created and registered.\n"
            f"UUID: {number}\nSettings file: '{file}'\n"
        )

    def do_modifyvm(self, words: list[str]) -> str:
        """``modifyvm NAME --OPTION VALUE...``."""
        if not words:
            raise syntax("Not enough parameters")
        _, machine = self._locked(words[0])
        self._mutable(machine)
        for name, value in options(words[1:], **dict.fromkeys(MODIFIED, True)):
            if not name:
                raise syntax(f"Invalid parameter '{value}'")
            self._modify(machine, name, value)
        return ""

    def _modify(self, machine: dict[str, Any], name: str, value: str) -> None:  # noqa: C901, PLR0912 - one branch for each option
        key, number = re.fullmatch(r"(.*?)(\d*)", name).groups()  # type: ignore[union-attr]
        if key in {"memory", "vram", "cpus"}:
            if not WHOLE.fullmatch(value):
                raise syntax(f"Invalid '{name}' value: {value}")
            most = {"memory": 2**21, "vram": 256, "cpus": 64}[key]
            if not 1 <= int(value) <= most:
                text = f"Invalid {key}: {value} (must be in range [1, {most}])"
                raise refused(text, "E_INVALIDARG (0x80070057)")
            machine[key] = int(value)
        elif key in {"ioapic", "rtcuseutc", "vrde", "nested-hw-virt"}:
            machine[key] = self._flag(name, value)
        elif key == "chipset":
            self._one(name, value, "piix3", "ich9")
            if value == "ich9":
                more = range(len(machine["nics"]) + 1, 37)
                machine["nics"] |= {str(n): dict(NIC) for n in more}
            else:
                machine["nics"] = {str(n): machine["nics"][str(n)] for n in range(1, 9)}
            machine[key] = value
        elif key == "firmware":
            machine[key] = self._one(name, value, "bios", "efi", "efi32", "efi64").upper()
        elif key == "graphicscontroller":
            self._one(name, value, "none", "vboxvga", "vmsvga", "vboxsvga")
            machine[key] = "null" if value == "none" else value
        elif key == "boot":
            if number not in {"1", "2", "3", "4"}:
                raise argument(f"Invalid boot slot number in '{name}'")
            self._one(name, value, "none", "floppy", "dvd", "disk", "net")
            machine["boot"][int(number) - 1] = value
        elif key in {"vrdeport", "vrdeaddress", "vrdeauthtype"}:
            machine["vrdeports" if key == "vrdeport" else key] = value
        elif key in {"name", "description"}:
            machine[key] = value
        elif key in {"uart", "uartmode"}:
            self._modify_port(machine, key, number, value)
        else:
            self._modify_nic(machine, key, number, value)

    def _modify_port(self, machine: dict[str, Any], key: str, number: str, value: str) -> None:
        """The first serial port; nobody sets the three others here."""
        assert number == "1", "four there are, and this stub keeps one"
        if value in ALONE:
            machine[key] = value
        elif key == "uart":
            base, line = value.split(",")
            try:
                machine[key] = f"{int(base, 0):#06x},{int(line, 0)}"
            except ValueError:
                raise argument(f"Error parsing UART I/O base '{base}'") from None
        else:
            mode = value.partition(",")[0]
            self._one("uartmode1", mode, "server", "client", "tcpserver", "tcpclient", "file")
            machine[key] = value

    def _modify_nic(self, machine: dict[str, Any], key: str, number: str, value: str) -> None:
        key = "nat-network" if key == "natnetwork" else key
        if number not in machine["nics"]:
            raise argument(f"Invalid NIC slot number: {number}")
        if key == "nic":
            self._one(
                key, value, "none", "null", "nat", "natnetwork", "bridged", "intnet", "hostonly"
            )
        elif key == "nictype":
            self._one(key, value, *NIC_TYPES)
        elif key == "cableconnected":
            self._flag(key, value)
        elif key == "macaddress" and not re.fullmatch(
            r"[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10}", value
        ):
            raise refused(
                "Invalid MAC address format", "E_INVALIDARG (0x80070057)", "NetworkAdapter"
            )
        machine["nics"][number][key] = value.upper() if key == "macaddress" else value

    def _one(self, name: str, value: str, *known: str) -> str:
        if value not in known:
            raise argument(f"Invalid --{name} argument '{value}'")
        return value

    def _flag(self, name: str, value: str) -> str:
        if value not in {"on", "off"}:
            raise syntax(f"Invalid '--{name}' value: {value}")
        return value

    def do_showvminfo(self, words: list[str]) -> str:
        """``showvminfo NAME --machinereadable``."""
        given = chosen(words, machinereadable=False, details=False)
        if "" not in given:
            raise syntax("VM name or UUID required")
        number, machine = self._find(given[""])
        if "machinereadable" not in given:
            raise AssertionError("nobody reads the other form")
        if not self.path(machine["CfgFile"]).exists():
            return f'name="<inaccessible>"\nUUID="{number}"\n'
        return "".join(self._shown(number, machine))

    def _shown(self, number: str, machine: dict[str, Any]) -> Iterator[str]:
        yield pair("name", machine["name"])
        yield 'encryption="disabled"\ngroups="/"\nplatformArchitecture="x86"\nostype="Other/Unknown (64-bit)"\n'
        yield pair("UUID", number) + pair("CfgFile", machine["CfgFile"])
        yield f'memory={machine["memory"]}\npagefusion="off"\nvram={machine["vram"]}\n'
        yield "cpuexecutioncap=100\n"
        yield pair("chipset", machine["chipset"]) + pair("firmware", machine["firmware"])
        yield f'cpus={machine["cpus"]}\nhpet="off"\n'
        for position, device in enumerate(machine["boot"], 1):
            yield pair(f"boot{position}", device)
        yield pair("ioapic", machine["ioapic"]) + pair("rtcuseutc", machine["rtcuseutc"])
        yield pair("nested-hw-virt", machine["nested-hw-virt"])
        yield f'VMState="{machine["VMState"]}"\nVMStateChangeTime="2026-07-01T12:00:00.000000000"\n'
        yield f'graphicscontroller="{machine["graphicscontroller"]}"\nmonitorcount=1\n'
        yield from self._shown_drives(machine)
        for place, nic in machine["nics"].items():
            yield from self._shown_nic(place, nic)
        yield f'hidpointing="ps2mouse"\nuart1="{machine["uart"]}"\n'
        if machine["uart"] != "off":
            # Nothing is escaped here (VBoxManageInfo.cpp).
            yield f'uartmode1="{machine["uartmode"]}"\nuarttype1="16550A"\n'
        yield 'audio="none"\n'
        if machine["VMState"] == "running":
            # Goes on behind its quote.
            yield 'VideoMode="720,400,0"@0,0 1\n'
        if machine["vrde"] == "on":
            yield f'vrde="on"\nvrdeport=-1\nvrdeports="{machine["vrdeports"]}"\n'
            yield f'vrdeaddress="{machine["vrdeaddress"]}"\nvrdeauthtype="{machine["vrdeauthtype"]}"\n'
            yield "vrdeproperty[Security/Method]=<not set>\n"
        else:
            yield 'vrde="off"\n'
        if machine["description"]:
            yield pair("description", machine["description"])
        if machine["snapshot"]:
            yield f'SnapshotName="{machine["snapshot"]}"\nSnapshotUUID="{uuid.UUID(int=1)}"\n'
        yield "GuestMemoryBalloon=0\n"

    def _shown_drives(self, machine: dict[str, Any]) -> Iterator[str]:
        for index, (name, (_, model)) in enumerate(machine["controllers"].items()):
            yield pair(f"storagecontrollername{index}", name)
            yield pair(f"storagecontrollertype{index}", model)
            yield f'storagecontrollerbootable{index}="on"\n'
        for name, (bus, _) in machine["controllers"].items():
            ports, devices = SHOWN[bus]
            for port in range(ports):
                for device in range(devices):
                    held = machine["drives"].get(f"{name}-{port}-{device}")
                    path = held["path"] if held else "none"
                    yield f'"{quoted(name)}-{port}-{device}"="{quoted(path)}"\n'
                    if held:
                        yield f'"{quoted(name)}-ImageUUID-{port}-{device}"="{uuid.UUID(int=2)}"\n'

    def _shown_nic(self, place: str, nic: dict[str, str]) -> Iterator[str]:
        if nic["nic"] == "none":
            yield f'nic{place}="none"\n'
            return
        for how, key in (
            ("natnetwork", "nat-network"),
            ("hostonly", "hostonlyadapter"),
            ("bridged", "bridgeadapter"),
        ):
            if nic["nic"] == how:
                yield f'{key}{place}="{nic[key]}"\n'
        if nic["nic"] == "nat":
            yield f'natnet{place}="nat"\n'
        yield f'macaddress{place}="{nic["macaddress"]}"\n'
        yield f'cableconnected{place}="{nic["cableconnected"]}"\nnic{place}="{nic["nic"]}"\n'
        yield f'nictype{place}="{nic["nictype"]}"\nnicspeed{place}="0"\n'

    def do_startvm(self, words: list[str]) -> str:
        """``startvm NAME --type headless``."""
        given = chosen(words, type=True)
        _, machine = self._find(given.get("", ""))
        self._one("type", given.get("type", "gui"), "headless", "emergencystop")
        if given["type"] == "emergencystop":
            machine["VMState"], machine["session"] = "aborted", 0
            return ""
        if machine["session"] or machine["VMState"] in {"running", "paused", "gurumeditation"}:
            text = (
                f"The machine '{machine['name']}' is already locked by a session "
                "(or being locked or unlocked)"
            )
            raise refused(text, "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)")
        if self.state["start"]:
            machine["VMState"] = "aborted" if machine["VMState"] == "aborted" else "poweroff"
            raise refused(MESSAGES[self.state["start"]], of="Console")
        for nic in machine["nics"].values():
            self._check_nic(nic)
        for held in machine["drives"].values():
            if held["path"] != "emptydrive" and not self.path(held["path"]).exists():
                text = (
                    f"Could not open the medium '{held['path']}'.\nVBoxManage: error: VD: error "
                    f"VERR_FILE_NOT_FOUND opening image file '{held['path']}' (VERR_FILE_NOT_FOUND)"
                )
                raise refused(text, of="Medium")
        self._serve(machine)
        machine["VMState"] = "running"
        for nic in machine["nics"].values():
            if nic["nic"] == "natnetwork":
                self._nat_started(nic["nat-network"])
        return (
            f'Waiting for VM "{words[0]}" to power on...\n'
            f'VM "{words[0]}" has been successfully started.\n'
        )

    def _serve(self, machine: dict[str, Any]) -> None:
        """Make the socket of a serial port, as a server does that is told its path."""
        how, _, path = machine["uartmode"].partition(",")
        if machine["uart"] == "off" or how != "server":
            return
        cut = path.encode()[: SUN_PATH - 1].decode(errors="replace")
        if not self.path(cut).parent.is_dir():
            text = f"NamedPipe#0 failed to bind to local socket {path} (VERR_FILE_NOT_FOUND)"
            raise refused(text, of="Console")

    def _check_nic(self, nic: dict[str, str]) -> None:
        if nic["nic"] == "hostonly" and nic["hostonlyadapter"] not in self.state["hostonly"]:
            text = (
                f"Interface ('{nic['hostonlyadapter']}') is not a Host-Only Adapter interface "
                "(VERR_INTERNAL_ERROR)"
            )
            raise refused(text, of="Console")
        if nic["nic"] == "bridged" and nic["bridgeadapter"] not in self.state["devices"]:
            text = f"Nonexistent host networking interface, name '{nic['bridgeadapter']}' (VERR_INTERNAL_ERROR)"
            raise refused(text, of="Console")
        if nic["nic"] == "natnetwork" and nic["nat-network"] not in self.state["natnets"]:
            raise refused(
                "Failed to attach the network LUN (VERR_INTNET_FLT_IF_NOT_FOUND)", of="Console"
            )

    def _nat_started(self, name: str) -> None:
        """Set what the network's DHCP server tells all its clients."""
        if (server := self.state["dhcp"].get(name)) is None:
            return
        net = self.state["natnets"][name]["network"]
        resolver = self.state["resolver"]
        if resolver.startswith("127."):
            # Its own name server (.1 before 7.2), but for what it maps: "127.0.0.1=2".
            at = "2" if resolver == "127.0.0.1" else "3"
            resolver = re.sub(r"\d+/.*", at, net)
        server["options"] |= {"3": re.sub(r"\d+/.*", "1", net), "6": resolver}
        server["options"].pop("15", None)
        if self.state["search"]:
            server["options"]["15"] = self.state["search"]

    def do_controlvm(self, words: list[str]) -> str:
        """``controlvm NAME poweroff|acpipowerbutton|resume|pause|savestate``."""
        match words:
            case [name, "poweroff" | "acpipowerbutton" | "resume" | "pause" | "savestate" as what]:
                _, machine = self._find(name)
            case _:
                raise syntax("Not enough parameters")
        state = machine["VMState"]
        if state not in {"running", "paused", "gurumeditation"}:
            raise argument(f"Machine '{machine['name']}' is not currently running.")
        if what == "resume":
            if state != "paused":
                text = f"Cannot resume the machine as it is not paused (machine state: {state.title()})"
                raise refused(text, "VBOX_E_INVALID_VM_STATE (0x80bb0002)", "Console")
            machine["VMState"] = "running"
        elif what == "acpipowerbutton":
            if state == "running" and not self.state["deaf"]:
                self._soon(machine, "poweroff", "stopping")
        elif what == "savestate":
            self._soon(machine, "saved", "saving")
        elif what == "pause":
            machine["VMState"] = "paused"
        else:
            self._soon(machine, "poweroff", "poweroff")
        return ""

    def _soon(self, machine: dict[str, Any], state: str, now: str) -> None:
        """Let a machine come to ``state`` after two more commands, when its session has ended."""
        machine["VMState"], machine["busy"], machine["session"] = now, state, 3

    def do_discardstate(self, words: list[str]) -> str:
        """``discardstate NAME``."""
        _, machine = self._locked(words[0])
        if machine["VMState"] not in {"saved", "aborted-saved"}:
            text = f"Cannot discard the machine state since it is in the {machine['VMState']} state"
            raise refused(text, "VBOX_E_INVALID_VM_STATE (0x80bb0002)")
        machine["VMState"] = "poweroff"
        return ""

    def do_unregistervm(self, words: list[str]) -> str:
        """``unregistervm NAME``; without --delete its files stay."""
        given = chosen(words)
        number, machine = self._find(given.get("", ""))
        if machine["session"] or machine["VMState"] in {"running", "paused", "gurumeditation"}:
            text = f"Cannot unregister the machine '{machine['name']}' while it is locked"
            raise refused(text, "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)")
        del self.state["vms"][number]
        for held in machine["drives"].values():
            if not self._children(held["path"]) and not self._users(held["path"]):
                self.state["media"].pop(held["path"], None)
        return ""

    # Disks

    def do_storagectl(self, words: list[str]) -> str:
        """``storagectl NAME --name CONTROLLER --add BUS --controller MODEL`` or ``--remove``."""
        _, machine = self._locked(words[0])
        self._mutable(machine)
        given = chosen(words[1:], name=True, add=True, controller=True, remove=False, bootable=True,
                       portcount=True, hostiocache=True)  # fmt: skip
        name = given.get("name", "")
        if not name:
            raise syntax("Storage controller name not specified\n")
        if "remove" in given:
            if name not in machine["controllers"]:
                text = f"Could not find a storage controller named '{name}'"
                raise refused(text, "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)")
            del machine["controllers"][name]
            kept = {k: v for k, v in machine["drives"].items() if k.rsplit("-", 2)[0] != name}
            machine["drives"] = kept
            return ""
        bus = "virtio" if given.get("add") == "virtio-scsi" else given.get("add", "")
        if bus not in CONTROLLERS:
            raise argument(f"Invalid --add argument '{given.get('add', '')}'")
        if name in machine["controllers"]:
            text = f"Storage controller named '{name}' already exists"
            raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        if any(bus == other for other, _ in machine["controllers"].values()):
            raise refused(
                f"Too many storage controllers of type {bus}", "E_INVALIDARG (0x80070057)"
            )
        models = CONTROLLERS[bus]
        asked = given.get("controller", next(iter(models))).lower()
        if asked not in models:
            raise refused(f"Invalid controller type {asked}", "E_INVALIDARG (0x80070057)")
        machine["controllers"][name] = [bus, models[asked]]
        return ""

    def do_storageattach(self, words: list[str]) -> str:  # noqa: C901 - one branch for each option
        """``storageattach NAME --storagectl C --port P --device D --type T --medium M``."""
        _, machine = self._find(words[0])
        given = chosen(words[1:], storagectl=True, port=True, device=True, type=True, medium=True,
                       forceunmount=False, mtype=True)  # fmt: skip
        if machine["session"]:
            text = f"The machine '{machine['name']}' is already locked for a session (or being unlocked)"
            raise refused(text, "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)")
        self._mutable(machine)
        if machine["VMState"] != "poweroff" and machine["VMState"] != "aborted":
            text = f"Controller '{given.get('storagectl')}' does not support hot-plugging"
            raise refused(text, "VBOX_E_INVALID_VM_STATE (0x80bb0002)", "Console")
        name, port, device = (given.get(key, "") for key in ("storagectl", "port", "device"))
        if name not in machine["controllers"]:
            raise argument(f"Could not find a controller named '{name}'\n")
        bus = machine["controllers"][name][0]
        ports, devices = PORTS[bus]
        if not (WHOLE.fullmatch(port) and WHOLE.fullmatch(device)):
            raise syntax("Port not specified")
        if int(port) >= ports or int(device) >= devices:
            text = (
                f"The port and/or device parameter are out of range: port={port}, device={device}"
            )
            raise refused(text, "E_INVALIDARG (0x80070057)")
        key, medium = f"{name}-{port}-{device}", given.get("medium", "")
        if medium == "none":
            if key not in machine["drives"]:
                text = f"No storage device attached to device slot {device} on port {port} of controller '{name}'"
                raise refused(text, "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)")
            del machine["drives"][key]
            return ""
        kind = self._one("type", given.get("type", ""), "hdd", "dvddrive")
        if not self.path(medium).is_file():
            raise self._no_file(medium)
        if kind == "hdd":
            self._open(medium)
            if self._children(medium):
                text = f"Medium '{medium}' has children and can't be written"
                raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        if key in machine["drives"] and kind == "hdd":
            text = f"Medium '{machine['drives'][key]['path']}' is already attached to port {port}"
            raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        if kind == "hdd" and self._users(medium):
            text = f"Medium '{medium}' is already attached to another virtual machine"
            raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)")
        self.state["media"].setdefault(medium, {"kind": kind, "parent": "", "mib": 0})
        machine["drives"][key] = {"kind": kind, "path": medium}
        return ""

    def _no_file(self, path: str) -> Refused:
        text = f"Could not find file for the medium '{path}' (VERR_FILE_NOT_FOUND)"
        return refused(text, "VBOX_E_FILE_ERROR (0x80bb0004)", "Medium")

    def _children(self, path: str) -> list[str]:
        return [child for child, medium in self.state["media"].items() if medium["parent"] == path]

    def _users(self, path: str) -> list[str]:
        return [
            machine["name"]
            for machine in self.state["vms"].values()
            for held in machine["drives"].values()
            if held["path"] == path
        ]

    def _open(self, path: str) -> dict[str, Any]:
        """Return the disk at ``path``, registered from now on."""
        if path not in self.state["media"]:
            if not self.path(path).is_file():
                raise self._no_file(path)
            text = self.path(path).read_text(errors="replace")
            if not text.startswith(VDI):
                text = (
                    f"Could not get the storage format of the medium '{path}' (VERR_NOT_SUPPORTED)"
                )
                raise refused(text, "VBOX_E_IPRT_ERROR (0x80bb0005)", "Medium")
            self.state["media"][path] = {"kind": "hdd", **json.loads(text.removeprefix(VDI))}
        found: dict[str, Any] = self.state["media"][path]
        return found

    def _make(self, path: str, mib: int, parent: str) -> None:
        if path in self.state["media"]:
            text = (
                f"Cannot register the hard disk '{path}' {{{uuid.UUID(int=3)}}} because a hard disk "
                f"'{path}' with UUID {{{uuid.UUID(int=4)}}} already exists"
            )
            raise refused(text, "E_INVALIDARG (0x80070057)", "VirtualBox")
        if self.path(path).exists():
            raise refused(f"VDI: cannot create image '{path}' (VERR_ALREADY_EXISTS)", of="Medium")
        if not self.path(path).parent.is_dir():
            raise refused(f"VDI: cannot create image '{path}' (VERR_PATH_NOT_FOUND)", of="Medium")
        about = {"mib": mib, "parent": parent}
        self.path(path).write_text(VDI + json.dumps(about))
        self.state["media"][path] = {"kind": "hdd", **about}

    def do_createmedium(self, words: list[str]) -> str:
        """``createmedium disk --filename F --size MIB`` or ``--diffparent BASE``."""
        given = chosen(words, filename=True, size=True, diffparent=True, format=True, variant=True)
        if given.get("") != "disk":
            raise syntax(f"Invalid parameter '{given.get('')}'")
        if "filename" not in given:
            raise syntax("Parameter --filename is required")
        if base := given.get("diffparent"):
            self._make(given["filename"], self._open(base)["mib"], base)
        elif not WHOLE.fullmatch(given.get("size", "")) or given["size"] == "0":
            raise syntax("Parameter --size is required")
        else:
            self._make(given["filename"], int(given["size"]), "")
        return f"Medium created. UUID: {uuid.UUID(int=5)}\n"

    def do_clonemedium(self, words: list[str]) -> str:
        """``clonemedium disk FROM TO``: a whole copy."""
        if len(words) < 3 or words[0] != "disk":
            raise syntax("Mandatory input or output medium parameter not specified")
        chosen(words[3:], format=True, variant=True)
        self._make(words[2], self._open(words[1])["mib"], "")
        return f"Clone medium created in format 'VDI'. UUID: {uuid.UUID(int=5)}\n"

    def do_modifymedium(self, words: list[str]) -> str:
        """``modifymedium disk PATH --resize MIB``."""
        given = chosen(words[2:], resize=True)
        medium = self._open(words[1])
        if medium["parent"] or self._children(words[1]):
            text = f"Resizing to new size {given['resize']} is not yet supported for medium '{words[1]}'"
            raise refused(text, "VBOX_E_NOT_SUPPORTED (0x80bb0009)", "Medium")
        if int(given["resize"]) < medium["mib"]:
            text = f"Shrinking is not yet supported for medium '{words[1]}'"
            raise refused(text, "VBOX_E_NOT_SUPPORTED (0x80bb0009)", "Medium")
        medium["mib"] = int(given["resize"])
        about = {"mib": medium["mib"], "parent": ""}
        self.path(words[1]).write_text(VDI + json.dumps(about))
        return ""

    def do_showmediuminfo(self, words: list[str]) -> str:
        """``showmediuminfo disk PATH``."""
        if len(words) != 2 or words[0] != "disk":
            raise syntax("Medium name or UUID required")
        medium = self._open(words[1])
        return (
            f"UUID:           {uuid.UUID(int=5)}\nParent UUID:    base\nState:          created\n"
            f"Type:           normal (base)\nLocation:       {words[1]}\nStorage format: VDI\n"
            f"Format variant: dynamic default\nCapacity:       {medium['mib']} MBytes\n"
            "Size on disk:   2 MBytes\nEncryption:     disabled\n"
        )

    def do_closemedium(self, words: list[str]) -> str:
        """``closemedium disk|dvd PATH``."""
        match words:
            case ["disk" | "dvd" as kind, path]:
                pass
            case _:
                raise syntax("Medium name or UUID required")
        if path not in self.state["media"]:
            if not self.path(path).is_file():
                raise self._no_file(path)
            if kind == "disk":
                self._open(path)
        if users := self._users(path):
            text = (
                f"Medium '{path}' cannot be closed because it is still attached to "
                f"{len(users)} virtual machines"
            )
            raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)", "Medium")
        if children := self._children(path):
            text = f"Cannot close medium '{path}' because it has {len(children)} child media"
            raise refused(text, "VBOX_E_OBJECT_IN_USE (0x80bb000c)", "Medium")
        self.state["media"].pop(path, None)
        return ""

    # Networks

    def do_getextradata(self, words: list[str]) -> str:
        """``getextradata global KEY``."""
        if len(words) != 2 or words[0] != "global":
            raise AssertionError("only what belongs to all of VirtualBox")
        value = self.state["extra"].get(words[1])
        return f"Value: {value}\n" if value else "No value set!\n"

    def do_setextradata(self, words: list[str]) -> str:
        """``setextradata global KEY [VALUE]``: without a value it is forgotten."""
        if len(words) < 2 or words[0] != "global":
            raise syntax("Not enough parameters")
        if len(words) == 2:
            self.state["extra"].pop(words[1], None)
        else:
            self.state["extra"][words[1]] = words[2]
        return ""

    def do_natnetwork(self, words: list[str]) -> str:  # noqa: C901, PLR0912 - one branch for each option
        """``natnetwork add|modify|remove --netname NAME``."""
        what, *rest = words or [""]
        if what not in {"add", "modify", "remove"}:
            raise syntax(f"Invalid parameter '{what}'")
        if what == "remove":
            given = chosen(rest, netname=True)
        else:
            given = chosen(
                rest, netname=True, network=True, enable=False, disable=False, dhcp=True, ipv6=True
            )
        name = given.get("netname")
        if name is None:
            raise syntax("You need to specify the --netname option")
        nets = self.state["natnets"]
        if what == "add":
            if not given.get("network"):
                raise syntax("You need to specify the --network option")
            if name in nets:
                raise argument("NATNetwork server already exists")
            nets[name] = {"dhcp": True, "enabled": False}
        elif name not in nets:
            raise argument("NATNetwork server does not exist")
        if what == "remove":
            del nets[name]
            return ""
        if network := given.get("network"):
            if not re.fullmatch(r"\d+(\.\d+){3}/\d+", network):
                raise argument("Failed to set configuration")
            nets[name]["network"] = network
        if "dhcp" in given:
            nets[name]["dhcp"] = self._flag("dhcp", given["dhcp"]) == "on"
        if "enable" in given or "disable" in given:
            nets[name]["enabled"] = "enable" in given
        return ""

    def do_hostonlyif(self, words: list[str]) -> str:
        """``hostonlyif create|remove|ipconfig``."""
        have = self.state["hostonly"]
        match words:
            case ["create"]:
                number = next(n for n in range(99) if f"vboxnet{n}" not in have)
                have[f"vboxnet{number}"] = ["192.168.56.1", "255.255.255.0"]
                return f"Interface 'vboxnet{number}' was successfully created\n"
            case ["remove", name]:
                if name not in have:
                    raise self._no_interface(name)
                del have[name]
                return ""
            case ["ipconfig", name, *rest]:
                given = chosen(rest, ip=True, netmask=True, dhcp=False)
                if name not in have:
                    raise self._no_interface(name)
                if "ip" not in given:
                    raise syntax("Neither -dhcp nor -ip nor -ipv6 was specfified")
                self._check_range(given["ip"])
                have[name] = [given["ip"], given.get("netmask", "255.255.255.0")]
                return ""
            case _:
                raise syntax(f"Unknown sub-command '{words[0] if words else ''}'")

    def _no_interface(self, name: str) -> Refused:
        return refused(f"The host network interface named '{name}' could not be found", of="Host")

    def _check_range(self, address: str) -> None:
        """Since 6.1.28 host-only interfaces have addresses of allowed ranges alone."""
        from ipaddress import ip_address, ip_network  # noqa: PLC0415 - 10 ms to load

        file = self.path("/etc/vbox/networks.conf")
        lines = file.read_text().splitlines() if file.exists() else ["* 192.168.56.0/21"]
        ranges = [word for line in lines if line.startswith("*") for word in line.split()[1:]]
        if not any(ip_address(address) in ip_network(one) for one in ranges):
            raise Refused(
                "VBoxManage: error: Code E_ACCESSDENIED (0x80070005) - Access denied (extended info "
                'not available)\nVBoxManage: error: Context: "EnableStaticIPConfig(Bstr(pszIp).raw(), '
                'Bstr(pszNetmask).raw())" at line 242 of file VBoxManageHostonly.cpp'
            )

    def do_dhcpserver(self, words: list[str]) -> str:  # noqa: C901 - one branch for each option
        """``dhcpserver add|modify|remove|restart --network=NAME``."""
        what, *rest = words or [""]
        if what not in {"add", "modify", "remove", "restart"}:
            raise syntax(f"Unknown sub-command '{what}'")
        which = {"network": True}
        more = {"server_ip": True, "netmask": True, "lower_ip": True, "upper_ip": True,
                "enable": False, "disable": False, "global": False, "set_opt": True, "del_opt": True,
                "mac_address": True, "fixed_address": True, "remove_config": False}  # fmt: skip
        given = list(options(rest, **which, **(more if what in {"add", "modify"} else {})))
        name = dict(given).get("network")
        if not name:
            raise syntax(
                "You need to specify either --network or --interface to identify the DHCP server"
            )
        servers = self.state["dhcp"]
        if what == "add":
            for option, old in (("server-ip", "ip"), ("netmask", "netmask"), ("lower-ip", "lowerip"),
                                ("upper-ip", "upperip")):  # fmt: skip
                if option not in dict(given):
                    raise syntax(f"Missing required option: --{old}")
            if name in servers:
                raise argument("DHCP server already exists")
            servers[name] = {"enabled": False, "options": {}, "fixed": {}, "own": {}}
        elif name not in servers:
            if what == "modify":
                raise argument("DHCP server does not exist")
            raise argument(f"Failed to find DHCP server for network '{name}'")
        if what == "remove":
            del servers[name]
        elif what == "restart":
            if not any(machine["VMState"] == "running" for machine in self.state["vms"].values()):
                raise Refused("VBoxManage: error: Failed to restart the server", 2)
        else:
            self._configure(servers[name], given)
        return ""

    def _configure(self, server: dict[str, Any], given: list[tuple[str, str]]) -> None:  # noqa: C901, PLR0912 - one branch for each option
        scope, number = "", ""
        for name, value in given:
            if number:
                assert not name, "the value of an option follows it"
                told = server["own"].setdefault(scope, {}) if scope else server["options"]
                told[number] = value
                number = ""
            elif name in {"server-ip", "netmask", "lower-ip", "upper-ip"}:
                server[name] = value
            elif name in {"enable", "disable"}:
                server["enabled"] = name == "enable"
            elif name == "global":
                scope = ""
            elif name == "set-opt":
                number = value
            elif name == "del-opt":
                told = server["own"].get(scope, {}) if scope else server["options"]
                if told.pop(value, None) is None:
                    text = f"DHCP option {value} was not found"
                    raise refused(text, "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)", "DHCPConfig")
            elif name == "mac-address":
                if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", value):
                    raise syntax(f"Invalid '--mac-address' value: {value}")
                scope = value.lower()
                server["fixed"].setdefault(scope, "")
            elif name == "fixed-address":
                if not scope:
                    raise syntax(
                        "--fixed-address can only be applied to a VM NIC or an MAC address"
                    )
                server["fixed"][scope] = value
            elif name == "remove-config":
                server["fixed"].pop(scope, None)
                server["own"].pop(scope, None)
                scope = ""
            elif name == "":
                raise syntax(f"Invalid parameter '{value}'")

    # Lists

    def _list(self, words: list[str]) -> str:
        match words:
            case ["vms"]:
                vms = self.state["vms"].items()
                return "".join(f'"{one["name"]}" {{{number}}}\n' for number, one in vms)
            case ["hostinfo"]:
                return "Host Information:\n\nHost time: 2026-07-01\nProcessor online count: 2\n"
            case ["--long", "natnets"]:
                return "".join(self._natnet(*one) for one in self.state["natnets"].items())
            case ["hostonlyifs"]:
                return "".join(self._device(*one) for one in self.state["hostonly"].items())
            case ["bridgedifs"]:
                return "".join(
                    self._device(name, ["10.0.0.5", "255.255.255.0"])
                    for name in self.state["devices"]
                )
            case ["dhcpservers"]:
                return "\n".join(self._server(*one) for one in self.state["dhcp"].items())
            case _:
                raise syntax(f"Unknown subcommand: {words}")

    def _natnet(self, name: str, net: dict[str, Any]) -> str:
        gateway = re.sub(r"\d+/.*", "1", net["network"])
        yes = {True: "Yes", False: "No"}
        return (
            f"Name:         {name}\nEnabled:      {yes[net['enabled']]}\n"
            f"Network:      {net['network']}\nGateway:      {gateway}\n"
            f"DHCP Server:  {yes[net['dhcp']]}\nIPv6:         No\n"
            "IPv6 Prefix:  fd17:625c:f037:2::/64\nIPv6 Default: No\n"
            "loopback mappings (ipv4)\n        127.0.0.1=2\n\n"
        )

    def _device(self, name: str, address: list[str]) -> str:
        return (
            f"Name:            {name}\nGUID:            786f6276-656e-4074-8000-0a0027000000\n"
            f"DHCP:            Disabled\nIPAddress:       {address[0]}\nNetworkMask:     {address[1]}\n"
            "IPV6Address:     \nIPV6NetworkMaskPrefixLength: 0\n"
            "HardwareAddress: 0a:00:27:00:00:00\nMediumType:      Ethernet\nWireless:        No\n"
            f"Status:          Up\nVBoxNetworkName: HostInterfaceNetworking-{name}\n\n"
        )

    def _server(self, name: str, server: dict[str, Any]) -> str:
        config = (
            "    minLeaseTime:     default\n    defaultLeaseTime: default\n"
            "    maxLeaseTime:     default\n    Forced options:   None\n    Suppressed opts.: None\n"
        )
        text = (
            f"NetworkName:    {name}\nDhcpd IP:       {server['server-ip']}\n"
            f"LowerIPAddress: {server['lower-ip']}\nUpperIPAddress: {server['upper-ip']}\n"
            f"NetworkMask:    {server['netmask']}\n"
            f"Enabled:        {'Yes' if server['enabled'] else 'No'}\nGlobal Configuration:\n{config}"
            f"        1/legacy: {server['netmask']}\n"
        )
        for number, value in server["options"].items():
            text += f"      {int(number):3d}/legacy: {value}\n"
        text += "Groups:               None\n"
        if not server["fixed"]:
            return f"{text}Individual Configs:   None\n"
        for mac, address in server["fixed"].items():
            text += f"Individual Config:    MAC {mac}\n"
            text += f"    Fixed Address:    {address or 'dynamic'}\n{config}"
            own = server["own"].get(mac, {}).items()
            told = [f"      {int(number):3d}/legacy: {value}\n" for number, value in own]
            text += "".join(told) or "    DHCP options:     None\n"
        return text

    # Beside VirtualBox

    @command("ip")
    def ip(self, argv: list[str], stdin: bytes) -> str:
        """``ip -o route show default``."""
        del stdin
        if argv != ["-o", "route", "show", "default"]:
            raise Refused(f'Object "{argv[-1]}" is unknown, try "ip help".', 255)
        device = self.state["route"]
        return f"default via 10.0.0.1 dev {device} proto static \n" if device else ""

    @command("systemctl")
    def systemctl(self, argv: list[str], stdin: bytes) -> str:
        """``systemctl enable|disable [--now] UNIT``, ``is-enabled UNIT``, ``daemon-reload``."""
        del stdin
        match [word for word in argv if word != "--now" or argv[0] == "is-enabled"]:
            case ["daemon-reload"]:
                return ""
            case ["enable" | "disable" | "is-enabled" as what, unit]:
                template = re.sub(r"@.*\.", "@.", unit)
                there = self.path(f"/etc/systemd/system/{template}").exists()
                enabled = self.state["enabled"]
                if what == "is-enabled":
                    word = "enabled" if unit in enabled else "disabled" if there else "not-found"
                    if word == "enabled":
                        return "enabled\n"
                    raise Refused("", 1 if there else 4, out=f"{word}\n")
                if what == "enable":
                    if not there:
                        text = f"Failed to enable unit: Unit file {template} does not exist."
                        raise Refused(text)
                    if unit not in enabled:
                        enabled.append(unit)
                        enabled.sort()
                elif unit in enabled:
                    enabled.remove(unit)
                return ""
            case _:
                raise Refused(f"Unknown command verb '{argv[0] if argv else ''}'.")

    @command("qemu-img")
    def qemu_img(self, argv: list[str], stdin: bytes) -> str:
        """``qemu-img convert -O vdi FROM TO``."""
        del stdin
        match argv:
            case ["convert", "-O", "vdi", source, to]:
                pass
            case _:
                raise Refused(f"qemu-img: Command not found: {argv[:1]}")
        if not self.path(source).is_file():
            text = f"qemu-img: Could not open '{source}': No such file or directory"
            raise Refused(text)
        data = self.path(source).read_bytes()
        size = int.from_bytes(data[24:32], "big") if data[:4] == b"QFI\xfb" else len(data)
        about = {"mib": max(1, size >> 20), "parent": ""}
        self.path(to).write_text(VDI + json.dumps(about))
        return ""
