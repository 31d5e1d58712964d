"""VMware Workstation Pro on Linux by its commands, with systemd and qemu-img beside it.

What is refused and in which words was taken from what people paste of the real commands: vmrun says
"Error: ..." on standard output with exit code 255; vmware-networks tells each service. A running guest
holds its settings in memory and writes them when it ends, so what somebody writes into its .vmx
meanwhile is lost; it adds keys of its own. Left out: everything inside guests, and VMware Tools but
for whether they are there. Where vmware-vmx lacks a library no guest starts, and `vmrun list` works
("libXcursor.so.1 ... the virtual machine won't start", reports on 17.6.3).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from tests.support.stubs import Refused, Stub, command

if TYPE_CHECKING:
    from collections.abc import Iterator

STORE = "/var/lib/nestlab/workstation"
SYSTEM = "/etc/systemd/system"
SUN_PATH = 108
"""unix(7)."""
SPARSE = "KDMV"
"""Magic of a sparse VMDK; here, what it holds follows as JSON."""
ADAPTERS = ("ide", "buslogic", "lsilogic")
NESTED = (
    "You are running VMware Workstation via an incompatible hypervisor. You may not power on a virtual "
    "machine until this hypervisor is disabled."
)
USAGE = "vmrun version 1.17.0\n\nUsage: vmrun [AUTHENTICATION-FLAGS] COMMAND [PARAMETERS]\n"


def error(text: str) -> Refused:
    """What vmrun refuses."""
    return Refused("", 255, out=f"Error: {text}\n")


def keys(text: str) -> dict[str, str]:
    """A .vmx as VMware reads it: keys in any case, the last of several wins."""
    found = re.findall(r'(?m)^\s*([^\s=#]+)\s*=\s*"(.*)"\s*$', text)
    plain = re.compile(r"\|([0-9A-Fa-f]{2})")
    return {key.lower(): plain.sub(lambda it: chr(int(it[1], 16)), value) for key, value in found}


def changed(text: str, **values: str) -> str:
    """A .vmx with some keys set (a dot is written as two underscores)."""
    for name, value in values.items():
        key = name.replace("__", ".")
        kept = [
            line for line in text.splitlines() if not line.lower().startswith(f"{key.lower()} ")
        ]
        text = "\n".join([*kept, f'{key} = "{value}"']) + "\n"
    return text


class Workstation(Stub):
    """A Linux host with Workstation Pro, inside another hypervisor."""

    roots = (STORE, "/etc/vmware", SYSTEM)
    initial: ClassVar[dict[str, Any]] = {
        "running": {},
        "connected": {},
        "ports": {},
        "tools": [],
        "resumed": [],
        "saved": {},
        "up": [],
        "dhcp": {},
        "nat": {},
        "modules": True,
        "libraries": True,
    }

    # vmrun ---------------------------------------------------------------------------------------

    @command("vmrun")
    def vmrun(self, argv: list[str], stdin: bytes) -> str:
        """``vmrun -T ws list | start VMX [gui|nogui] | stop VMX [hard|soft] | suspend VMX``."""
        del stdin
        if argv[:1] == ["-T"]:
            if argv[1:2] != ["ws"]:
                raise error("Unable to connect to host.")
            argv = argv[2:]
        match argv:
            case ["list"]:
                return "\n".join([f"Total running VMs: {len(self.running)}", *self.running, ""])
            case ["start", vmx]:
                return self._start(vmx)
            case ["start", vmx, "gui" | "nogui"]:
                return self._start(vmx)
            case ["stop", vmx, *rest] if rest in ([], ["hard"], ["soft"]):
                return self._stop(vmx, soft=rest != ["hard"])
            case ["suspend", vmx, *rest] if rest in ([], ["hard"], ["soft"]):
                return self._suspend(vmx)
            case [word, *_] if not word.startswith("-"):
                raise error(f"Unrecognized command: {word}")
            case _:
                raise Refused("", 255, out=USAGE)

    @property
    def running(self) -> dict[str, str]:
        """The settings of what runs, by path."""
        held: dict[str, str] = self.state["running"]
        return held

    def _open(self, vmx: str) -> str:
        if not vmx.endswith(".vmx"):
            raise error(f"Cannot open VM: {vmx}, unknown file suffix")
        if not self.path(vmx).is_file():
            raise error(f"Cannot open VM: {vmx}, The virtual machine cannot be found")
        text = self.path(vmx).read_text()
        if not {"config.version", "virtualhw.version"} <= keys(text).keys():
            raise error(
                f"Cannot open VM: {vmx}, Cannot read the virtual machine configuration file"
            )
        return text

    def _start(self, vmx: str) -> str:
        text = self._open(vmx)
        told = keys(text)
        if vmx in self.running:
            raise error("The file is already in use")
        if not self.state["modules"] or not self.state["libraries"]:
            raise error("Unknown error")
        if told.get("vmx.allownested", "").upper() != "TRUE":
            raise error(NESTED)
        if "guestos" not in told:
            raise error("The configuration file does not specify a guest operating system")
        if int(told["memsize"]) % 4:
            raise error("The memory size is not a multiple of 4 MB")
        self._drives(vmx, told)
        nics = list(self._nics(told))
        if saved := told.get("checkpoint.vmstate"):
            if not self.path(f"{vmx.rpartition('/')[0]}/{saved}").is_file():
                raise error("A file was not found")
            before = self.state["saved"][vmx]
            if any(told.get(key) != before.get(key) for key in ("memsize", "numvcpus", "firmware")):
                raise error("The virtual machine's settings do not fit to its suspended state")
            self.path(f"{vmx.rpartition('/')[0]}/{saved}").unlink()
            self.state["resumed"].append(vmx)
        self.state["connected"][vmx] = nics
        self.state["ports"][vmx] = self._port(told)
        more = {f"ethernet{n}__pciSlotNumber": str(160 + n) for n in range(len(nics))}
        text = changed(
            text, uuid__bios="56 4d 13", cleanShutdown="FALSE", checkpoint__vmState="", **more
        )
        self.running[vmx] = text
        self.path(vmx).write_text(text)
        self.path(f"{vmx}.lck").mkdir(exist_ok=True)
        self.path(f"{vmx.rpartition('/')[0]}/vmware.log").touch()
        return ""

    def _drives(self, vmx: str, told: dict[str, str]) -> None:
        home = vmx.rpartition("/")[0]
        for key, value in told.items():
            slot = re.fullmatch(r"((?:scsi|sata|ide|nvme)(\d):\d+)\.present", key)
            if not slot or value.upper() != "TRUE":
                continue
            if told.get(f"{slot[1].partition(':')[0]}.present", "").upper() != "TRUE":
                raise error(f"Unable to find the controller of {slot[1]}")
            name = told.get(f"{slot[1]}.filename", "")
            if told.get(f"{slot[1]}.devicetype", "") == "cdrom-image":
                continue  # one that is missing is disconnected, and said in its log
            file = self.path(name if name.startswith("/") else f"{home}/{name}")
            if file.is_file() and file.read_text() == "of another parent":
                raise error("The parent virtual disk has been modified since the child was created")
            if not file.is_file() or not file.read_text().startswith(SPARSE):
                raise error("A file was not found")

    def _port(self, told: dict[str, str]) -> str:
        """Where its first serial port is served; one that can't be starts disconnected, and no more is said."""
        if told.get("serial0.present", "").upper() != "TRUE":
            return "none"
        if told.get("serial0.startconnected", "").upper() == "FALSE":
            return "disconnected"
        # Without a word it is a device of the host's, and the client of a pipe.
        served = (told.get("serial0.filetype"), told.get("serial0.pipe.endpoint"))
        path = told.get("serial0.filename", "")
        fits = path.startswith("/") and len(path) < SUN_PATH and self.path(path).parent.is_dir()
        return path if served == ("pipe", "server") and fits else "disconnected"

    def _nics(self, told: dict[str, str]) -> Iterator[str]:
        number = 0
        while told.get(f"ethernet{number}.present", "").upper() == "TRUE":
            nic = f"ethernet{number}"
            if told[f"{nic}.virtualdev"] not in {"vlance", "e1000", "e1000e", "vmxnet3"}:
                raise error(f"Unknown network device {told[f'{nic}.virtualdev']}")
            address = told[f"{nic}.address"].lower()
            within = re.fullmatch(r"00:50:56:[0-3][0-9a-f](:[0-9a-f]{2}){2}", address)
            if not within and told.get(f"{nic}.checkmacaddress", "").upper() != "FALSE":
                raise error(f"Invalid MAC address specified: {address}")
            how = told.get(f"{nic}.connectiontype", "bridged")
            vmnet = told[f"{nic}.vnet"].removeprefix("/dev/") if how == "custom" else "vmnet0"
            alive = any(f" on {vmnet} " in line for line in self.state["up"])
            yield f"{vmnet} {address}" if alive else "disconnected"
            number += 1

    def _stop(self, vmx: str, *, soft: bool) -> str:
        if vmx not in self.running:
            self._open(vmx)
            raise error(f"The virtual machine is not powered on: {vmx}")
        if soft and vmx not in self.state["tools"]:
            raise error(f"The VMware Tools are not running in the virtual machine: {vmx}")
        self._end(vmx, cleanShutdown="TRUE")
        return ""

    def _suspend(self, vmx: str) -> str:
        if vmx not in self.running:
            self._open(vmx)
            raise error(f"The virtual machine is not powered on: {vmx}")
        self.state["saved"][vmx] = keys(self.running[vmx])
        state = f"{vmx.rpartition('/')[2].removesuffix('.vmx')}-1a2b3c4d.vmss"
        self.path(f"{vmx.rpartition('/')[0]}/{state}").touch()
        self._end(vmx, checkpoint__vmState=state)
        return ""

    def _end(self, vmx: str, **values: str) -> None:
        text = changed(self.running.pop(vmx), **values)
        self.state["connected"].pop(vmx, None)
        self.state["ports"].pop(vmx, None)
        if self.path(vmx).parent.is_dir():
            self.path(vmx).write_text(text)
        if self.path(f"{vmx}.lck").is_dir():
            self.path(f"{vmx}.lck").rmdir()

    # Disks ---------------------------------------------------------------------------------------

    @command("vmware-vdiskmanager")
    def vdiskmanager(self, argv: list[str], stdin: bytes) -> str:
        """``-c -s SIZE -a ADAPTER -t TYPE FILE`` and ``-x SIZE FILE``."""
        del stdin
        options: dict[str, str] = {}
        words = list(argv)
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option == "-c":
                options[option] = ""
            elif option in {"-s", "-a", "-t", "-x"} and words:
                options[option] = words.pop(0)
            else:
                raise Refused("", 1, out=f"vmware-vdiskmanager: unknown option {option}\nUsage:\n")
        if len(words) != 1 or ("-c" in options) is ("-x" in options):
            raise Refused(
                "", 1, out="VMware Virtual Disk Manager\nUsage: vmware-vdiskmanager OPTIONS\n"
            )
        path = words[0]
        if "-c" in options:
            self._create(path, options)
            return (
                f"Creating disk '{path}'\n  Create: 100% done.\nVirtual disk creation successful.\n"
            )
        self._expand(path, self._bytes(options["-x"]))
        return "  Grow: 100% done.\nDisk expansion completed successfully.\n"

    def _bytes(self, size: str) -> int:
        found = re.fullmatch(r"(\d+)(KB|MB|GB)", size, re.IGNORECASE)
        if not found:
            raise Refused("", 1, out=f"Invalid disk size: {size}\n")
        return int(found[1]) << {"KB": 10, "MB": 20, "GB": 30}[found[2].upper()]

    def _create(self, path: str, options: dict[str, str]) -> None:
        if options.get("-a") not in ADAPTERS:
            raise Refused("", 1, out=f"Invalid adapter type: {options.get('-a')}\n")
        if options.get("-t") not in {"0", "1", "2", "3", "4", "5"}:
            raise Refused("", 1, out=f"Invalid disk type: {options.get('-t')}\n")
        size = self._bytes(options.get("-s", ""))
        if self.path(path).exists():
            why = "Failed to create disk: The file already exists (0x2700000009)."
            raise Refused("", 1, out=f"Creating disk '{path}'\n{why}\n")
        if not self.path(path).parent.is_dir():
            why = "Failed to create disk: The destination path does not exist (0x3ea)."
            raise Refused("", 1, out=f"Creating disk '{path}'\n{why}\n")
        self._vmdk(path, capacity=size, adapter=options["-a"], image="")

    def _expand(self, path: str, size: int) -> None:
        start = "Failed to expand the disk"
        if not self.path(path).is_file():
            raise Refused("", 1, out=f"{start} : The file specified cannot be found (0x4).\n")
        disk = json.loads(self.path(path).read_text().removeprefix(SPARSE))
        if any(path.startswith(f"{vmx.rpartition('/')[0]}/") for vmx in self.running):
            raise Refused("", 1, out=f"{start} : Failed to lock the file (0x4000000015).\n")
        if size <= disk["capacity"]:
            raise Refused(
                "", 1, out=f"{start} : One of the parameters supplied is invalid (0x1).\n"
            )
        self._vmdk(path, **{**disk, "capacity": size})
        # It knows nothing of a snapshot that stands on it.
        stem = self.path(path).name.removesuffix(".vmdk")
        for child in self.path(path).parent.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9][0-9].vmdk"):
            child.write_text("of another parent")

    def _vmdk(self, path: str, **held: Any) -> None:
        self.path(path).write_text(SPARSE + json.dumps(held))

    @command("qemu-img")
    def qemu_img(self, argv: list[str], stdin: bytes) -> str:
        """``info --output=json FILE`` and ``convert -O vmdk -o OPTIONS FILE TO``."""
        del stdin
        match argv:
            case ["info", "--output=json", path]:
                return json.dumps({"virtual-size": self._virtual(path), "filename": path})
            case ["convert", "-O", "vmdk", "-o", how, source, to]:
                options = dict(each.partition("=")[::2] for each in how.split(","))
                if not options.keys() <= {"adapter_type", "subformat", "compat6", "hwversion"}:
                    raise Refused(f"qemu-img: {to}: Invalid parameter '{how}'")
                size = self._virtual(source)
                if options.get("subformat") != "monolithicSparse":
                    raise Refused("qemu-img: this stub makes one file only")
                if not self.path(to).parent.is_dir():
                    raise Refused(f"qemu-img: {to}: error while converting vmdk: Could not create")
                content = self.path(source).read_bytes().hex()[:64]
                self._vmdk(to, capacity=size, adapter=options["adapter_type"], image=content)
                return ""
            case _:
                raise Refused("qemu-img: unrecognized option\nTry 'qemu-img --help'")

    def _virtual(self, path: str) -> int:
        if not self.path(path).is_file():
            opened = f"Could not open '{path}'"
            raise Refused(f"qemu-img: {opened}: {opened}: No such file or directory")
        data = self.path(path).read_bytes()
        return int.from_bytes(data[24:32], "big") if data.startswith(b"QFI\xfb") else len(data)

    # Networks ------------------------------------------------------------------------------------

    @command("vmware-networks")
    def networks(self, argv: list[str], stdin: bytes) -> str:
        """``--start``, ``--stop`` and ``--status``."""
        del stdin
        match argv:
            case ["--start"]:
                return self._networks_start()
            case ["--stop"]:
                lines = [_stopped(line) for line in self.state["up"]]
                self.state.update(up=[], dhcp={}, nat={})
                return "\n".join([*lines, "Stopped all configured services on all networks", ""])
            case ["--status"]:
                return self._status()
            case _:
                raise Refused("Usage: vmware-networks [--start | --stop | --status ...]", 1)

    def _configured(self) -> dict[int, dict[str, str]]:
        file = self.path("/etc/vmware/networking")
        text = file.read_text() if file.is_file() else ""
        if text and not text.startswith("VERSION=1,"):
            raise Refused("Failed to read /etc/vmware/networking", 1)
        found: dict[int, dict[str, str]] = {}
        for number, key, value in re.findall(r"(?m)^answer VNET_(\d+)_(\w+) (.*)$", text):
            found.setdefault(int(number), {})[key] = value
        for device, number in re.findall(r"(?m)^add_bridge_mapping (\S+) (\d+)$", text):
            found.setdefault(int(number), {})["BRIDGE"] = device
        if text:
            found.setdefault(0, {}).setdefault("BRIDGE", "auto")
        return dict(sorted(found.items()))

    def _wanted(self) -> Iterator[tuple[str, str, int, dict[str, str]]]:
        """Yield what should run: its status line, what its start says, its network."""
        for number, told in self._configured().items():
            on = f"on vmnet{number}"
            if "BRIDGE" in told:
                yield (
                    f"Bridge networking {on} is running",
                    f"Started Bridge networking {on}",
                    number,
                    told,
                )
            if told.get("VIRTUAL_ADAPTER") == "yes":
                yield (
                    f"Hostonly virtual adapter {on} is enabled",
                    f"Enabled hostonly virtual adapter {on}",
                    number,
                    told,
                )
            for key in ("DHCP", "NAT"):
                if told.get(key) == "yes":
                    yield (
                        f"{key} service {on} is running",
                        f"Started {key} service {on}",
                        number,
                        told,
                    )

    def _networks_start(self) -> str:
        lines, failed = [], False
        for line, says, number, told in self._wanted():
            if line in self.state["up"]:
                continue  # goes on as it was, whatever its files say by now
            if self.state["modules"] and self._service(line, number, told):
                self.state["up"].append(line)
                lines.append(says)
            else:
                verb = says.replace("Started", "start").replace("Enabled", "enable")
                lines.append(f"Failed to {verb}")
                failed = True
        if failed:
            out = "\n".join([*lines, "Failed to start some/all services", ""])
            raise Refused("", 1, out=out, half_way=True)
        return "\n".join([*lines, "Started all configured services on all networks", ""])

    def _service(self, line: str, number: int, told: dict[str, str]) -> bool:
        """Whether a service comes up; what it read then is what it does."""
        if line.startswith("Hostonly"):
            return {"HOSTONLY_SUBNET", "HOSTONLY_NETMASK"} <= told.keys()
        own, vmnet = f"/etc/vmware/vmnet{number}", f"vmnet{number}"
        if line.startswith("DHCP"):
            file = self.path(f"{own}/dhcpd/dhcpd.conf")
            if not file.is_file() or not self.path(f"{own}/dhcpd/dhcpd.leases").is_file():
                return False
            text = re.sub(r"#.*", "", file.read_text())
            subnet = rf"subnet\s+{re.escape(told['HOSTONLY_SUBNET'])}\s+netmask"
            self.state["dhcp"][vmnet] = text
            return bool(re.search(subnet, text)) and text.count("{") == text.count("}")
        if line.startswith("NAT"):
            file = self.path(f"{own}/nat/nat.conf")
            if not file.is_file() or "[host]" not in file.read_text():
                return False
            self.state["nat"][vmnet] = dict(re.findall(r"(?m)^(\w+) = (.*)$", file.read_text()))
        return True

    def _status(self) -> str:
        lines, all_run = [], True
        for line, *_ in self._wanted():
            if line in self.state["up"]:
                lines.append(line)
                continue
            all_run = False
            lines.append(
                line.replace("is running", "is not running").replace("enabled", "disabled")
            )
        if all_run:
            last = "All the services configured on all the networks are running"
            return "\n".join([*lines, last, ""])
        last = "Some/All of the configured services are not running"
        raise Refused("", 1, out="\n".join([*lines, last, ""]))

    # systemd -------------------------------------------------------------------------------------

    @command("systemctl")
    def systemctl(self, argv: list[str], stdin: bytes) -> str:
        """``daemon-reload``, ``enable UNIT`` and ``disable UNIT``."""
        del stdin
        match argv:
            case ["daemon-reload"]:
                return ""
            case ["enable" | "disable" as verb, unit]:
                template = f"{SYSTEM}/{re.sub(r'@.*[.]', '@.', unit, count=1)}"
                if "@" in unit and not self.path(template).is_file():
                    raise Refused(f"Failed to {verb} unit: Unit file {unit} does not exist.")
                link = self.path(f"{SYSTEM}/multi-user.target.wants/{unit}")
                if verb == "disable":
                    link.unlink(missing_ok=True)
                    return ""
                link.parent.mkdir(exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(template)
                self.warn(f"Created symlink {SYSTEM}/multi-user.target.wants/{unit} → {template}.")
                return ""
            case [verb, *_]:
                raise Refused(f"Unknown command verb {verb}.")
            case _:
                raise Refused("Too few arguments.")


def _stopped(line: str) -> str:
    """What ``--stop`` says of a service that ran."""
    if line.startswith("Hostonly"):
        return f"Disabled hostonly virtual adapter on {line.split(' on ')[1].split(maxsplit=1)[0]}"
    return f"Stopped {line.removesuffix(' is running')}"


DEFAULTS = {
    "/etc/vmware/networking": (
        "VERSION=1,0\n"
        "answer VNET_1_DHCP yes\nanswer VNET_1_DHCP_CFG_HASH AC6F\nanswer VNET_1_DISPLAY_NAME \n"
        "answer VNET_1_HOSTONLY_NETMASK 255.255.255.0\nanswer VNET_1_HOSTONLY_SUBNET 172.16.9.0\n"
        "answer VNET_1_VIRTUAL_ADAPTER yes\n"
        "answer VNET_8_DHCP yes\nanswer VNET_8_DHCP_CFG_HASH B7DE\nanswer VNET_8_DISPLAY_NAME \n"
        "answer VNET_8_HOSTONLY_NETMASK 255.255.255.0\nanswer VNET_8_HOSTONLY_SUBNET 172.16.86.0\n"
        "answer VNET_8_NAT yes\nanswer VNET_8_VIRTUAL_ADAPTER yes\n"
    ),
    "/etc/vmware/vmnet1/dhcpd/dhcpd.conf": "subnet 172.16.9.0 netmask 255.255.255.0 {\n}\n",
    "/etc/vmware/vmnet1/dhcpd/dhcpd.leases": "",
    "/etc/vmware/vmnet8/dhcpd/dhcpd.conf": "subnet 172.16.86.0 netmask 255.255.255.0 {\n}\n",
    "/etc/vmware/vmnet8/dhcpd/dhcpd.leases": "",
    "/etc/vmware/vmnet8/nat/nat.conf": "[host]\nip = 172.16.86.2\n",
}
"""What an installation leaves, so that Workstation's own networks are there."""
