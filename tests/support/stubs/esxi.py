"""A stand-alone ESXi 8: ``vim-cmd``, ``esxcli``, ``vmkfstools`` and ``auto-backup.sh`` as they behave there.

Outputs and refusals are those of hosts from 6.5 to 9.0, as people's sessions and tools show them. What
the driver has to live with is done too: a .vmx that is read gets ESXi's own keys, loses the values
that are defaults, and names datastores by UUID; faults are printed, and end with 0 where ``fault_exit``
says so, as in some versions; notes of several lines break the list of VMs.

Names of datastores: `Esxi.LABEL` is a link to `Esxi.UUID`, both below /vmfs/volumes; make them with
`furnish`.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

from tests.support.stubs import Refused, Stub, command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOT_FOUND = """\
(vim.fault.NotFound) {{
   faultCause = (vmodl.MethodFault) null,\x20
   faultMessage = <unset>
   msg = "Unable to find a VM corresponding to "{vmid}""
}}
"""
POWER_STATE = """\
{doing} failed: (vim.fault.InvalidPowerState) {{
   faultCause = (vmodl.MethodFault) null,\x20
   faultMessage = <unset>,\x20
   requestedState = "{asked}",\x20
   existingState = "{real}"
   msg = "The attempted operation cannot be performed in the current state ({shown})."
}}
"""
FAULT = """\
{before}(vim.fault.{kind}) {{
   faultCause = (vmodl.MethodFault) null,\x20
   faultMessage = <unset>,\x20
   msg = "{text}"
}}
"""
API_STATES = {
    "Powered on": ("poweredOn", "Powered on"),
    "Powered off": ("poweredOff", "Powered off"),
    "Suspended": ("suspended", "Suspended"),
}
STATIC_REFUSED = re.compile(r"00:0c:29:|00:05:69:|00:50:56:[4-9a-f]", re.IGNORECASE)
SECTORS_PER_GIB = 1 << 21
GUESTS = {"other-64": "otherGuest64", "other": "otherGuest"}


class Esxi(Stub):
    """The host; VMs are ``{vmid: {vmx, power}}`` with ``vmx`` a path by the datastore's UUID."""

    LABEL = "/vmfs/volumes/datastore1"
    UUID = "/vmfs/volumes/61a2b3c4-aaaaaaaa-bbbb-525400123456"
    roots = ("/vmfs",)
    initial: ClassVar[dict[str, Any]] = {
        "next": 1,
        "vms": {},
        "switches": {"vSwitch0": {"uplinks": ["vmnic0"]}},
        "groups": {
            "VM Network": {"switch": "vSwitch0", "vlan": "0"},
            "Management Network": {"switch": "vSwitch0", "vlan": "0"},
        },
        "autostart": {"enabled": False, "entries": {}},
        "saved": {},
        "virtualization": True,
        "tools": False,
        "fault_exit": 1,
    }

    @classmethod
    def furnish(cls, volumes: Path) -> None:
        """Make the datastore below ``volumes``, the real folder of /vmfs/volumes."""
        store = volumes / cls.UUID.rpartition("/")[2]
        store.mkdir(parents=True)
        (volumes / "datastore1").symlink_to(store.name)

    # vim-cmd ------------------------------------------------------------------------------------

    @command("vim-cmd")
    def vim_cmd(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        if not argv:
            raise Refused("", out="Commands available under /:\nhostsvc/  solo/  vmsvc/\n")
        words = argv[1:]
        if words[:1] == ["--"]:
            words = words[1:]
        elif any(re.fullmatch(r"-\d+", word) for word in words):
            raise self._usage("vim-cmd: invalid option")
        known: dict[str, tuple[Callable[..., str], int]] = {
            "vmsvc/getallvms": (self._all, 0),
            "vmsvc/power.getstate": (self._get_state, 1),
            "vmsvc/power.on": (self._on, 1),
            "vmsvc/power.off": (self._off, 1),
            "vmsvc/power.shutdown": (self._shutdown, 1),
            "vmsvc/power.suspend": (self._suspend, 1),
            "vmsvc/reload": (self._reload, 1),
            "vmsvc/unregister": (self._unregister, 1),
            "solo/registervm": (self._register, 1),
            "hostsvc/hostsummary": (self._summary, 0),
            "hostsvc/autostartmanager/get_autostartseq": (self._sequence, 0),
            "hostsvc/autostartmanager/get_defaults": (self._defaults, 0),
            "hostsvc/autostartmanager/enable_autostart": (self._enable, 1),
            "hostsvc/autostartmanager/update_autostartentry": (self._entry, 7),
        }
        if argv[0] not in known:
            raise self._usage(f"Invalid command '{argv[0]}'.")
        do, needs = known[argv[0]]
        if len(words) < needs:
            raise self._usage("Insufficient arguments.")
        return do(*words[:needs])

    def _usage(self, text: str) -> Refused:
        return Refused("", out=f"{text}\n")

    def _faulted(self, text: str) -> Refused:
        return Refused("", self.state["fault_exit"], out=text)

    def _vm(self, vmid: str) -> dict[str, Any]:
        vm: dict[str, Any] | None = self.state["vms"].get(vmid)
        if vm is None or not self._readable(vm):
            raise self._faulted(NOT_FOUND.format(vmid=vmid))
        return vm

    def _readable(self, vm: dict[str, Any]) -> bool:
        # hostd keeps what it has read until the file is gone and it looks again.
        return bool(vm["valid"]) and self.path(vm["vmx"]).is_file()

    def _settings(self, vmx: str) -> dict[str, str]:
        text = self.path(vmx).read_text()
        if not re.search(r"(?m)^config\.version", text):
            raise self._faulted(
                FAULT.format(
                    before="", kind="InvalidVmConfig", text="Invalid virtual machine configuration."
                )
            )
        found = re.findall(r'(?m)^\s*([^\s=#]+)\s*=\s*"([^"\n]*)"\s*$', text)
        return {
            key: re.sub(r"\|([0-9A-Fa-f]{2})", lambda hexa: chr(int(hexa[1], 16)), value)
            for key, value in found
        }

    def _get(self, settings: dict[str, str], key: str, usual: str = "") -> str:
        return {k.lower(): v for k, v in settings.items()}.get(key.lower(), usual)

    def _adopt(self, vmx: str) -> None:
        """Write a .vmx anew, as hostd and the VM's own process do."""
        settings = self._settings(vmx)
        usual = {"numvcpus": "1", "firmware": "bios", "vhv.enable": "FALSE"}
        kept = {
            key: value
            for key, value in settings.items()
            if usual.get(key.lower()) != value
            and not (key.lower().endswith(".startconnected") and value == "TRUE")
            and not (key.lower().endswith(":0.present") and value == "FALSE")
        }
        for key, value in kept.items():
            if key.lower().endswith(".filename"):
                kept[key] = value.replace(f"{self.LABEL}/", f"{self.UUID}/")
        kept.setdefault("uuid.bios", "56 4d 12 34 00 00 00 00-00 00 00 00 00 00 00 01")
        kept.setdefault("sched.cpu.units", "mhz")
        kept.setdefault("svga.vramSize", "16777216")
        for number in range(10):
            if f"ethernet{number}.present" in kept:
                kept.setdefault(f"ethernet{number}.pciSlotNumber", str(160 + 32 * number))
        lines = [f'{key} = "{self._escaped(value)}"\n' for key, value in kept.items()]
        self.path(vmx).write_text("".join(lines))

    def _escaped(self, value: str) -> str:
        return "".join(f"|{ord(c):02X}" if c in '|"#' or c < " " else c for c in value)

    def _all(self) -> str:
        rows = [("Vmid", "Name", "File", "Guest OS", "Version", "Annotation")]
        skipped = ""
        for vmid, vm in self.state["vms"].items():
            if not self._readable(vm):
                skipped += f"Skipping invalid VM '{vmid}'\n"
                continue
            settings = self._settings(vm["vmx"])
            guest = self._get(settings, "guestOS", "other")
            rows.append(
                (
                    vmid,
                    self._get(settings, "displayName"),
                    vm["vmx"].replace(f"{self.UUID}/", "[datastore1] "),
                    GUESTS.get(guest, guest),
                    f"vmx-{self._get(settings, 'virtualHW.version')}",
                    self._get(settings, "annotation"),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        head = "   ".join(cell.center(width) for cell, width in zip(rows[0], widths, strict=True))
        lines = [
            "   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows[1:]
        ]
        if skipped:
            self.warn(skipped.rstrip("\n"))
        return "\n".join([head, *lines]) + "\n"

    def _get_state(self, vmid: str) -> str:
        return f"Retrieved runtime info\n{self._vm(vmid)['power']}\n"

    def _wrong_state(self, doing: str, asked: str, vm: dict[str, Any]) -> Refused:
        real, shown = API_STATES[vm["power"]]
        text = POWER_STATE.format(doing=doing, asked=asked, real=real, shown=shown)
        return self._faulted(f"{text}")

    def _on(self, vmid: str) -> str:
        vm = self._vm(vmid)
        before = "Powering on VM:\n"
        if vm["power"] == "Powered on":
            raise self._wrong_state(f"{before}Power on", "poweredOn", vm)
        if why := self._unstartable(vm):
            fault = FAULT.format(before="Power on failed: ", kind="GenericVmConfigFault", text=why)
            raise self._faulted(before + fault)
        vm["power"] = "Powered on"
        self._port(vm["vmx"])
        self._adopt(vm["vmx"])
        return before

    def _port(self, vmx: str) -> None:
        """Open the file of a serial port, and have the guest say something there.

        One that is there is asked about; unless an answer is given, msg.autoAnswer takes the one that loses
        nothing (libvirt, src/esx/README), and without that the guest would wait for ever.
        """
        settings = self._settings(vmx)
        told = {
            key: self._get(settings, f"serial0.{key}")
            for key in ("present", "fileType", "fileName")
        }
        connected = self._get(settings, "serial0.startConnected", "TRUE").upper() == "TRUE"
        if told["present"].upper() != "TRUE" or told["fileType"] != "file" or not connected:
            return
        name = told["fileName"]
        file = self.path(name if name.startswith("/") else f"{vmx.rpartition('/')[0]}/{name}")
        answer = self._get(settings, "answer.msg.serial.file.open")
        if file.exists() and not answer and not self._get(settings, "msg.autoAnswer"):
            raise AssertionError("msg.serial.file.open: nobody answers")
        old = file.read_text() if file.exists() and answer != "Replace" else ""
        file.write_text(f"{old}login: \n")

    def _loose(self, settings: dict[str, str]) -> str:
        """Say which device is on a controller that is not there."""
        for key, value in settings.items():
            found = re.fullmatch(r"(?i)((sata|scsi)\d+):\d+\.present", key)
            there = found and self._get(settings, f"{found[1]}.present").upper() == "TRUE"
            if found and value.upper() == "TRUE" and not there:
                return f"Device '{key.rpartition('.')[0]}' is on a controller that is not there."
        return ""

    def _unstartable(self, vm: dict[str, Any]) -> str:  # noqa: C901, PLR0911 - one check each
        settings = self._settings(vm["vmx"])
        if loose := self._loose(settings):
            return loose
        if not self.state["virtualization"]:
            return "This host does not support Intel VT-x."
        if int(self._get(settings, "memSize", "0")) % 4:
            return "Invalid memory setting: memory size is not a multiple of 4 MB."
        for key, value in settings.items():
            device = key.rpartition(".")[0]
            if self._get(settings, f"{device}.present").upper() != "TRUE":
                continue
            made = self._get(settings, f"{device}.fileType") == "file"
            if key.lower().endswith(".filename") and value and not made:
                file = value if value.startswith("/") else f"{vm['vmx'].rpartition('/')[0]}/{value}"
                if not self.path(file).exists():
                    cd = "cdrom" in self._get(settings, f"{device}.deviceType")
                    if not cd or self._get(settings, f"{device}.startConnected", "TRUE") == "TRUE":
                        return f"File {file} was not found"
                elif self.path(file).read_bytes() == b"of another parent":
                    return "The parent virtual disk has been modified since the child was created"
            if key.lower().endswith(".networkname") and value not in self.state["groups"]:
                return (
                    f"Network interface '{device}' uses network '{value}', which is not accessible."
                )
            if (
                key.lower().endswith(".address")
                and self._get(settings, f"{device}.addressType") == "static"
                and STATIC_REFUSED.match(value)
                and self._get(settings, f"{device}.checkMACAddress", "TRUE").upper() == "TRUE"
            ):
                return (
                    f"Impermissible static Ethernet address: '{value}'. "
                    "It conflicts with VMware reserved MACs."
                )
        return ""

    def _off(self, vmid: str) -> str:
        vm = self._vm(vmid)
        if vm["power"] == "Powered off":
            raise self._wrong_state("Powering off VM:\nPower off", "poweredOff", vm)
        vm["power"] = "Powered off"
        return "Powering off VM:\n"

    def _shutdown(self, vmid: str) -> str:
        vm = self._vm(vmid)
        if vm["power"] != "Powered on":
            raise self._wrong_state("Shut down", "poweredOff", vm)
        if not self.state["tools"]:
            text = "Cannot complete operation because VMware Tools is not running in this virtual machine."
            raise self._faulted(FAULT.format(before="", kind="ToolsUnavailable", text=text))
        vm["power"] = "Powered off"
        return ""

    def _suspend(self, vmid: str) -> str:
        vm = self._vm(vmid)
        if vm["power"] != "Powered on":
            raise self._wrong_state("Suspending VM:\nSuspend", "suspended", vm)
        vm["power"] = "Suspended"
        return "Suspending VM:\n"

    def _reload(self, vmid: str) -> str:
        vm = self.state["vms"].get(vmid)
        if vm is None or not self.path(vm["vmx"]).is_file():
            raise self._faulted(NOT_FOUND.format(vmid=vmid))
        self._adopt(vm["vmx"])
        vm["valid"] = True
        return ""

    def _unregister(self, vmid: str) -> str:
        vm = self._vm(vmid)
        if vm["power"] != "Powered off":
            raise self._wrong_state("Unregister", "poweredOff", vm)
        del self.state["vms"][vmid]
        self.state["autostart"]["entries"].pop(vmid, None)
        return ""

    def _register(self, vmx: str) -> str:
        path = vmx.replace(f"{self.LABEL}/", f"{self.UUID}/")
        if not self.path(path).is_file():
            text = f"File {vmx} was not found"
            raise self._faulted(FAULT.format(before="", kind="NotFound", text=text))
        settings = self._settings(path)
        for vm in self.state["vms"].values():
            named = self._readable(vm) and self._get(self._settings(vm["vmx"]), "displayName")
            if vm["vmx"] == path or named == self._get(settings, "displayName"):
                text = "The specified key, name, or identifier already exists."
                raise self._faulted(FAULT.format(before="", kind="AlreadyExists", text=text))
        vmid = str(self.state["next"])
        self.state["next"] += 1
        self.state["vms"][vmid] = {"vmx": path, "power": "Powered off", "valid": True}
        self._adopt(path)
        return f"{vmid}\n"

    def _summary(self) -> str:
        return (
            "(vim.host.Summary) {\n   host = 'vim.HostSystem:ha-host',\n"
            '   runtime = (vim.host.RuntimeInfo) {\n      connectionState = "connected",\n'
            "      inMaintenanceMode = false,\n   },\n}\n"
        )

    def _sequence(self) -> str:
        entries = self.state["autostart"]["entries"]
        if not entries:
            return "(vim.host.AutoStartManager.AutoPowerInfo) []\n"
        blocks = [
            "   (vim.host.AutoStartManager.AutoPowerInfo) {\n"
            f"      key = 'vim.VirtualMachine:{vmid}', \n"
            f"      startOrder = {entry['order']}, \n      startDelay = {entry['delay']}, \n"
            '      waitForHeartbeat = "systemDefault", \n'
            f'      startAction = "{entry["action"]}", \n      stopDelay = 0, \n'
            '      stopAction = "systemDefault"\n   }'
            for vmid, entry in entries.items()
        ]
        return "(vim.host.AutoStartManager.AutoPowerInfo) [\n" + ", \n".join(blocks) + "\n]\n"

    def _defaults(self) -> str:
        enabled = str(self.state["autostart"]["enabled"]).lower()
        return (
            "(vim.host.AutoStartManager.SystemDefaults) {\n"
            f"   enabled = {enabled}, \n   startDelay = 120, \n   stopDelay = 120, \n"
            '   waitForHeartbeat = false, \n   stopAction = "PowerOff"\n}\n'
        )

    def _enable(self, how: str) -> str:
        if how not in {"true", "false", "1", "0"}:
            raise self._usage("Invalid argument.")
        self.state["autostart"]["enabled"] = how in {"true", "1"}
        return "Enabled AutoStart\n" if how in {"true", "1"} else "Disabled AutoStart\n"

    def _entry(self, vmid: str, *how: str) -> str:
        self._vm(vmid)
        action, delay, order, stop, stop_delay, heartbeat = how
        fits = (
            action.lower() in {"poweron", "none", "systemdefault"}
            and stop.lower() in {"systemdefault", "none", "poweroff", "suspend", "guestshutdown"}
            and heartbeat.lower() in {"yes", "no", "systemdefault"}
            and all(re.fullmatch(r"-?\d+", each) for each in (delay, order, stop_delay))
        )
        if not fits:
            text = "A specified parameter was not correct: spec.powerInfo"
            raise self._faulted(FAULT.format(before="", kind="InvalidArgument", text=text))
        self.state["autostart"]["entries"][vmid] = {
            "action": action,
            "delay": delay,
            "order": order,
        }
        return "Updated AutoStart order.\n"

    # esxcli -------------------------------------------------------------------------------------

    @command("esxcli")
    def esxcli(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        words, options = [], {}
        for word in argv:
            if found := re.fullmatch(r"--([a-z-]+)=(.*)", word, re.DOTALL):
                options[found[1]] = found[2]
            elif word.startswith("-"):
                raise Refused("", out=f"Error: Invalid option {word}\n")
            else:
                words.append(word)
        form = options.pop("formatter", "")
        if form not in {"", "csv"}:
            raise Refused("", out=f"Error: Invalid value for formatter: {form}\n")
        name = " ".join(words)
        switch = "network vswitch standard"
        known: dict[str, tuple[Callable[..., str], list[str]]] = {
            "system version get": (self._version, []),
            f"{switch} list": (self._switches, []),
            f"{switch} add": (self._switch_add, ["vswitch-name"]),
            f"{switch} remove": (self._switch_remove, ["vswitch-name"]),
            f"{switch} uplink remove": (self._uplink_remove, ["uplink-name", "vswitch-name"]),
            f"{switch} portgroup list": (self._groups, []),
            f"{switch} portgroup add": (self._group_add, ["portgroup-name", "vswitch-name"]),
            f"{switch} portgroup remove": (self._group_remove, ["portgroup-name", "vswitch-name"]),
            f"{switch} portgroup set": (self._group_set, ["portgroup-name", "vlan-id"]),
        }
        if name not in known:
            raise Refused("", out=f"Error: Unknown command or namespace {name}\n\n")
        do, needs = known[name]
        for option in options:
            if option not in needs:
                raise Refused("", out=f"Error: Invalid option --{option}\n")
        for need in needs:
            if need not in options:
                raise Refused("", out=f"Error: Missing required parameter --{need}\n")
        return do(*(options[need] for need in needs), **({"form": form} if form else {}))

    def _version(self) -> str:
        return (
            "   Product: VMware ESXi\n   Version: 8.0.3\n   Build: Releasebuild-24022510\n"
            "   Update: 3\n   Patch: 35\n"
        )

    def _switch(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self.state["switches"].get(name)
        if found is None:
            raise Refused("", out="Sysinfo error: Not foundSee VMkernel log for details.\n")
        return found

    def _switches(self) -> str:
        blocks = []
        for name, switch in self.state["switches"].items():
            groups = [g for g, each in self.state["groups"].items() if each["switch"] == name]
            blocks.append(
                f"{name}\n   Name: {name}\n   Class: cswitch\n   Num Ports: 2560\n   Used Ports: 4\n"
                "   Configured Ports: 128\n   MTU: 1500\n   CDP Status: listen\n"
                "   Beacon Enabled: false\n   Beacon Interval: 1\n   Beacon Threshold: 3\n"
                f"   Beacon Required By: \n   Uplinks: {', '.join(switch['uplinks'])}\n"
                f"   Portgroups: {', '.join(groups)}\n"
            )
        return "\n".join(blocks)

    def _switch_add(self, name: str) -> str:
        if name in self.state["switches"]:
            raise Refused("", out="A virtual switch with this name already exists\n")
        if len(name) > 31:
            raise Refused("", out=f"Unable to add vswitch {name}: Bad parameter\n")
        self.state["switches"][name] = {"uplinks": []}
        return ""

    def _switch_remove(self, name: str) -> str:
        self._switch(name)
        if [each for each in self.state["groups"] if self._in_use(each, name)]:
            raise Refused("", out="Sysinfo error: BusySee VMkernel log for details.\n")
        del self.state["switches"][name]
        groups = self.state["groups"]
        self.state["groups"] = {k: v for k, v in groups.items() if v["switch"] != name}
        return ""

    def _uplink_remove(self, uplink: str, name: str) -> str:
        switch = self._switch(name)
        if uplink not in switch["uplinks"]:
            raise Refused("", out=f"Not a valid pnic: {uplink}\n")
        switch["uplinks"].remove(uplink)
        return ""

    def _clients(self, group: str) -> int:
        count = 1 if group == "Management Network" else 0
        for vm in self.state["vms"].values():
            if vm["power"] == "Powered on" and self._readable(vm):
                settings = self._settings(vm["vmx"])
                count += sum(
                    key.lower().endswith(".networkname") and value == group
                    for key, value in settings.items()
                )
        return count

    def _in_use(self, group: str, switch: str) -> bool:
        return self.state["groups"][group]["switch"] == switch and self._clients(group) > 0

    def _groups(self, *, form: str = "") -> str:
        rows = self.state["groups"].items()
        if form:
            lines = [
                f"{self._clients(name)},{name},{each['vlan']},{each['switch']},\n"
                for name, each in rows
            ]
            return "ActiveClients,Name,VLANID,VirtualSwitch,\n" + "".join(lines)
        head = "Name                Virtual Switch  Active Clients  VLAN ID\n"
        return head + "".join(f"{name}  {each['switch']}  0  0\n" for name, each in rows)

    def _group_add(self, group: str, switch: str) -> str:
        self._switch(switch)
        if group in self.state["groups"]:
            raise Refused("", out=f"A portgroup with the name {group} already exists\n")
        self.state["groups"][group] = {"switch": switch, "vlan": "0"}
        return ""

    def _group_of(self, group: str) -> dict[str, str]:
        found: dict[str, str] | None = self.state["groups"].get(group)
        if found is None:
            raise Refused("", out=f"Unable to find portgroup {group}\n")
        return found

    def _group_remove(self, group: str, switch: str) -> str:
        self._switch(switch)
        if self._group_of(group)["switch"] != switch:
            raise Refused("", out=f"Unable to find portgroup {group} on vswitch {switch}\n")
        if self._in_use(group, switch):
            raise Refused("", out="Sysinfo error: BusySee VMkernel log for details.\n")
        del self.state["groups"][group]
        return ""

    def _group_set(self, group: str, vlan: str) -> str:
        if not vlan.isdigit() or int(vlan) > 4095:
            raise Refused("", out=f"Invalid VLAN id {vlan}\n")
        self._group_of(group)["vlan"] = vlan
        return ""

    # vmkfstools ---------------------------------------------------------------------------------

    @command("vmkfstools")
    def vmkfstools(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        match argv:
            case ["-c", size, "-d", "thin", disk]:
                self._new(
                    disk, self._gib(size) * SECTORS_PER_GIB, b"", "Failed to create virtual disk"
                )
                return "Create: 100% done.\n"
            case ["-i", source, "-d", "thin", disk]:
                return self._clone(source, disk)
            case ["-X", size, disk]:
                have, sectors = self._open(disk), self._gib(size) * SECTORS_PER_GIB
                if sectors <= have:
                    raise Refused(
                        "Failed to extend disk: One of the parameters supplied is invalid (1).", 255
                    )
                self._locked(disk)
                self._describe(disk, sectors)
                # It looks at no snapshot that stands on it, whose guest starts no more (VMware's KB 1007849).
                stem = self.path(disk).name.removesuffix(".vmdk")
                for child in self.path(disk).parent.glob(
                    f"{stem}-[0-9][0-9][0-9][0-9][0-9][0-9].vmdk"
                ):
                    child.write_text("of another parent")
                return "Grow: 100% done.\n"
            case ["-U", disk]:
                self._open(disk)
                self._locked(disk)
                self.path(disk).unlink()
                self.path(self._flat(disk)).unlink(missing_ok=True)
                return "Destroy: 100% done.\n"
            case ["-E", old, new]:
                sectors = self._open(old)
                self._locked(old)
                if self.path(new).exists():
                    raise Refused(f"Failed to rename '{old}': The file already exists (39).", 255)
                self.path(old).unlink()
                self.path(self._flat(old)).rename(self.path(self._flat(new)))
                self._describe(new, sectors)
                return ""
            case _:
                raise Refused("", out="No valid command specified\n\nOPTIONS FOR FILE SYSTEMS:\n")

    def _gib(self, size: str) -> int:
        if not re.fullmatch(r"[1-9]\d*[gG]", size):
            raise Refused(f"Invalid size: {size}", 1)
        return int(size[:-1])

    def _flat(self, disk: str) -> str:
        return re.sub(r"\.vmdk$", "-flat.vmdk", disk)

    def _describe(self, disk: str, sectors: int) -> None:
        flat = self._flat(disk).rpartition("/")[2]
        self.path(disk).write_text(
            '# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID=fffffffe\nparentCID=ffffffff\n'
            f'createType="vmfs"\n\n# Extent description\nRW {sectors} VMFS "{flat}"\n\n'
            '# The Disk Data Base\n#DDB\n\nddb.thinProvisioned = "1"\nddb.adapterType = "lsilogic"\n'
        )

    def _open(self, disk: str) -> int:
        file = self.path(disk)
        if not file.is_file() or not self.path(self._flat(disk)).is_file():
            raise Refused(
                f"Failed to open '{disk}': The system cannot find the file specified (25).", 255
            )
        found = re.search(r"(?m)^RW (\d+) ", file.read_text(errors="replace"))
        if not found:
            raise Refused(
                f"Failed to open '{disk}': The file specified is not a virtual disk (15).", 255
            )
        return int(found[1])

    def _locked(self, disk: str) -> None:
        real = disk.replace(f"{self.LABEL}/", f"{self.UUID}/")
        for vm in self.state["vms"].values():
            if (
                vm["power"] != "Powered off"
                and vm["vmx"].rpartition("/")[0] == real.rpartition("/")[0]
            ):
                raise Refused(
                    f"Failed to lock the file '{disk}': Device or resource busy (16).", 255
                )

    def _new(self, disk: str, sectors: int, data: bytes, failed: str) -> None:
        if not self.path(disk).parent.is_dir():
            raise Refused(f"{failed}: No such file or directory (131072).", 255)
        if self.path(disk).exists() or self.path(self._flat(disk)).exists():
            raise Refused(f"{failed}: The file already exists (39).", 255)
        self.path(self._flat(disk)).write_bytes(data)
        self._describe(disk, sectors)

    def _clone(self, source: str, disk: str) -> str:
        file = self.path(source)
        if not file.is_file():
            raise Refused(
                "DiskLib_Check() failed for source disk The system cannot find the file specified (25).",
                255,
            )
        data = file.read_bytes()
        if not data.startswith(b"KDMV"):
            raise Refused(
                "DiskLib_Check() failed for source disk The file specified is not a virtual disk (15).",
                255,
            )
        # A sparse extent's header: magic, version, flags, capacity in sectors.
        sectors = int.from_bytes(data[12:20], "little")
        self._new(disk, sectors, data, "Failed to clone disk")
        return f"Destination disk format: VMFS thin-provisioned\nCloning disk '{source}'...\nClone: 100% done.\n"

    # Its own settings ---------------------------------------------------------------------------

    @command("auto-backup.sh")
    def backup(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        if argv:
            raise Refused("usage: auto-backup.sh")
        kept = ("switches", "groups", "autostart")
        self.state["saved"] = {
            "vms": {vmid: vm["vmx"] for vmid, vm in self.state["vms"].items()},
            **{key: deepcopy(self.state[key]) for key in kept},
        }
        return "Files /etc/vmware/dvsdata.db is successfully saved\n"
