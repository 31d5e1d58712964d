"""Xen 4.17 by `xl` in dom0, with systemd-networkd, dnsmasq's unit and iproute2 beside it.

What is refused, in which words and with which exit code, and what ``xl list -v`` and ``-l`` print, was
taken from a real one (Debian 12). Left out: everything inside guests, ballooning, and all that HVM
guests have.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from tests.support.stubs import Refused, Stub, command

STORE = "/var/lib/nestlab/xen"
FREE_MIB = 2500
HEAD = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID"
    "                            Reason-Code\tSecurity Label\n"
)
NETWORKD = "/etc/systemd/network"
GRUB = "/usr/lib/grub-xen/grub-x86_64-xen.bin"


def line(name: str, number: int, mib: int, cores: int, state: str, uuid: str) -> str:
    tail = f"{uuid}        -                -"
    return f"{name:<40} {number:5} {mib:5} {cores:5}     {state}     {12.5:5.1f} {tail}\n"


def libxl(text: str, code: int) -> Refused:
    return Refused(f"libxl: error: libxl_device.c:1:f: {text}\nlibxl: error: it failed", code)


def _sections(text: str) -> list[dict[str, str]]:
    """Return the routing policy rules of a file of systemd-networkd's."""
    parts = re.split(r"(?m)^\[(.*)\]$", text)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return [
        dict(re.findall(r"(?m)^(\w+)=(.*)$", each))
        for name, each in found
        if name == "RoutingPolicyRule"
    ]


def _rule(section: dict[str, str]) -> dict[str, Any]:
    """Return a rule as the kernel has it: with a table, also where it forbids."""
    made: dict[str, Any] = {"priority": int(section["Priority"]), "src": "all"}
    if "To" in section:
        address, length = section["To"].split("/")
        made |= {"dst": address, "dstlen": int(length)}
    if "IncomingInterface" in section:
        made["iif"] = section["IncomingInterface"]
    made["table"] = section.get("Table", "main")
    return (
        made | ({"action": section["Type"]} if "Type" in section else {}) | {"protocol": "static"}
    )


class Xen(Stub):
    """A Debian host with Xen; guests pay no heed to ``xl shutdown`` unless they are ``polite``."""

    roots = (
        *("/var/lib/nestlab", "/var/lib/misc", "/etc/xen", NETWORKD, "/etc/dnsmasq.d"),
        "/sys/class/net",
    )
    initial: ClassVar[dict[str, Any]] = {
        "domains": {},
        "last": 0,
        "links": {"eth0": {"addresses": ["10.77.0.5/24"], "network": ""}},
        "units": {},
        "polite": True,
        "halves": False,
    }

    # xl

    @command("xl")
    def xl(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        match argv:
            case ["list", "-v"]:
                return self._listed()
            case ["list", "-l", number]:
                return self._long(number)
            case ["create", path]:
                return self._create(path)
            case ["destroy", which]:
                self._gone(self._found(which))
                return ""
            case ["shutdown", which]:
                number = self._found(which)
                if self.state["polite"]:
                    self._gone(number)
                self.warn(f"Shutting down domain {number}")
                return ""
            case ["pause" | "unpause" as how, which]:
                number = self._found(which)
                self.state["domains"][number]["state"] = "--p---" if how == "pause" else "-b----"
                return ""
            case _:
                raise Refused(f"command not implemented: {argv}", 1)

    def _listed(self) -> str:
        rows = [line("Domain-0", 0, 1536, 2, "r-----", "00000000-0000-0000-0000-000000000000")]
        for number, one in self.state["domains"].items():
            about, built = one["config"]["c_info"], one["config"]["b_info"]
            mib = built["target_memkb"] // 1024
            rows.append(line(about["name"], int(number), mib, 1, one["state"], about["uuid"]))
        return HEAD + "".join(rows)

    def _long(self, number: str) -> str:
        if number not in self.state["domains"]:
            raise Refused(f"Error: Domain '{number}' does not exist.", 1)
        config = self.state["domains"][number]["config"]
        return json.dumps([{"domid": int(number), "config": config}], indent=4) + "\n"

    def _found(self, which: str) -> str:
        if which == "0":
            raise AssertionError("nobody may touch dom0")
        if which.isdigit():
            if which not in self.state["domains"]:
                raise libxl(f"Domain {which}:Non-existant domain", 1)
            return which
        for number, one in self.state["domains"].items():
            if one["config"]["c_info"]["name"] == which:
                return str(number)
        raise Refused(f"{which} is an invalid domain identifier (rc=-6)", 1)

    def _gone(self, number: str) -> None:
        for device in self.state["domains"].pop(number)["vifs"]:
            self._unlink(device)

    def _create(self, path: str) -> str:
        real = self.path(path)
        if not real.is_file():
            raise Refused(f"Failed to stat config file: {path}: No such file or directory", 1)
        settings = self._parsed(real.read_text())
        name, uuid = settings["name"], settings["uuid"]
        held = self.state["domains"].values()
        if any(one["config"]["c_info"]["name"] == name for one in held):
            raise Refused(
                f'libxl: error: libxl_create.c:1:f: Domain with name "{name}" already exists.\n'
                "cannot make domain: -6",
                3,
            )
        if any(one["config"]["c_info"]["uuid"] == uuid for one in held):
            raise libxl(f"A domain with UUID {uuid} already exists", 3)
        if settings["type"] != "pv":
            raise libxl("neither hap nor shadow paging available", 6)
        if settings["kernel"] != GRUB:
            raise libxl(f"failed to open file '{settings['kernel']}': No such file", 3)
        disks = [self._disk(one) for one in settings.get("disk", [])]
        nics = [self._nic(one, place) for place, one in enumerate(settings.get("vif", []))]
        kib = settings["memory"] * 1024
        taken = sum(one["config"]["b_info"]["max_memkb"] for one in held)
        if taken + kib > FREE_MIB * 1024:
            raise libxl("can't allocate low memory for domain: Out of memory", 3)
        self.state["last"] += 1
        number = str(self.state["last"])
        vifs = [f"vif{number}.{nic['devid']}" for nic in nics]
        for device, nic in zip(vifs, nics, strict=True):
            self._plug(device, nic["bridge"])
        self.state["domains"][number] = {
            "state": "-b----",
            "vifs": vifs,
            "config": {
                "c_info": {"type": "pv", "name": name, "uuid": uuid},
                "b_info": {
                    "max_vcpus": settings["vcpus"],
                    "max_memkb": kib,
                    "target_memkb": kib,
                },
                **({"disks": disks} if disks else {}),
                **({"nics": nics} if nics else {}),
                "on_reboot": settings["on_reboot"],
            },
        }
        return f"Parsing config from {path}\n"

    def _parsed(self, text: str) -> dict[str, Any]:
        settings = {}
        for each in text.splitlines():
            if each and not each.startswith("#"):
                key, equals, value = each.partition(" = ")
                # xl's grammar is C's strings, numbers and lists of both: a part of JSON, in one line.
                if not equals or not re.fullmatch(r"[a-z_]+", key):
                    raise Refused(
                        "config parsing error\nFailed to parse config: Invalid argument", 1
                    )
                settings[key] = json.loads(value)
        return settings

    def _disk(self, text: str) -> dict[str, Any]:
        match = re.fullmatch(r"file:([^,]+),(xvd[a-z])(:cdrom)?,([rw])", text)
        if match is None:
            raise Refused(f"unknown disk specification {text}", 1)
        path, device, cd, mode = match.groups()
        if not self.path(path).is_file():
            raise libxl(f"Disk vdev={device} failed to stat: {path}: No such file or directory", 3)
        found = {"pdev_path": path, "vdev": device, "format": "raw"}
        return found | ({"is_cdrom": 1} if cd else {}) | ({"readwrite": 1} if mode == "w" else {})

    def _nic(self, text: str, place: int) -> dict[str, Any]:
        pairs = dict(each.split("=", 1) for each in text.split(","))
        if pairs.keys() - {"mac", "bridge"}:
            raise Refused(f"unrecognized argument `{text}'", 1)
        if pairs["bridge"] not in self.state["links"]:
            raise libxl(f"Could not find bridge device {pairs['bridge']}", 3)
        return {"devid": place, **pairs}

    # Links: what the kernel has, and its files

    def _plug(self, device: str, bridge: str) -> None:
        self.state["links"].setdefault(device, {"addresses": [], "network": ""})
        place = self.path(f"/sys/class/net/{device}")
        place.mkdir(parents=True, exist_ok=True)
        (place / "master").unlink(missing_ok=True)
        (place / "master").symlink_to(f"../../../virtual/net/{bridge}")

    def _unlink(self, device: str) -> None:
        del self.state["links"][device]
        for folder in self.path("/sys/class/net").iterdir():
            master = folder / "master"
            if master.is_symlink() and device in {master.readlink().name, folder.name}:
                master.unlink()

    @command("ip")
    def ip(self, argv: list[str], stdin: bytes) -> str:
        """ip(8); rules as iproute2 6.1 of Debian 12 prints those of systemd 252."""
        del stdin
        links = self.state["links"]
        if argv == ["-j", "-4", "rule", "show"]:
            rows = [rule for each in links.values() for rule in each.get("rules", ())]
            rows += [
                {"priority": number, "src": "all", "table": table}
                for number, table in ((0, "local"), (32766, "main"), (32767, "default"))
            ]
            return json.dumps(sorted(rows, key=lambda row: row["priority"]))
        device = argv[argv.index("dev") + 1] if "dev" in argv else ""
        match argv:
            case ["link", "delete", "dev", _] if device not in links:
                raise Refused(f'Cannot find device "{device}"', 1)
            case _ if device not in links:
                raise Refused(f'Device "{device}" does not exist.', 1)
            case ["-o", "-4", "addr", "show", "dev", _]:
                rows = links[device]["addresses"]
                return "".join(
                    f"5: {device}    inet {one} brd x scope global {device}\n" for one in rows
                )
            case ["link", "show", "dev", _]:
                return f"5: {device}: <BROADCAST,MULTICAST,UP> mtu 1500\n"
            case ["link", "delete", "dev", _]:
                self._unlink(device)
                return ""
            case ["link", "set", "dev", _, "master", bridge]:
                if bridge not in links:
                    raise Refused(f'Error: argument "{bridge}" is wrong: Device does not exist', 1)
                self._plug(device, bridge)
                return ""
            case _:
                raise Refused(f'Command "{argv}" is unknown, try "ip help".', 255)

    @command("networkctl")
    def networkctl(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        links = self.state["links"]
        match argv:
            case ["reload"]:
                for file in self.path(NETWORKD).glob("*.netdev"):
                    device = re.findall(r"(?m)^Name=(.*)$", file.read_text())[0]
                    links.setdefault(device, {"addresses": [], "network": ""})
                for device in links:
                    if self._network(device) != links[device]["network"]:
                        self._configure(device)
                        if self.state["halves"]:
                            # systemd 252 on a busy host, when it was told twice: addresses, and no rules.
                            links[device]["rules"] = []
            case ["reconfigure", device]:
                if device not in links:
                    raise Refused(f'Interface "{device}" not found.', 1)
                self._configure(device)
            case _:
                raise Refused(f"Unknown command verb {argv[0]}.", 1)
        return ""

    def _network(self, device: str) -> str:
        file = self.path(f"{NETWORKD}/20-{device}.network")
        return file.read_text() if file.is_file() else ""

    def _configure(self, device: str) -> None:
        text = self._network(device)
        addresses = re.findall(r"(?m)^Address=(.*)$", text)
        self.state["links"][device].update(
            network=text, addresses=addresses, rules=[_rule(each) for each in _sections(text)]
        )

    # Units

    @command("systemctl")
    def systemctl(self, argv: list[str], stdin: bytes) -> str:
        del stdin
        *words, unit = argv
        match = re.fullmatch(r"dnsmasq@(.+)", unit)
        if match is None:
            raise Refused(f"Unit {unit}.service could not be found.", 5)
        one = self.state["units"].setdefault(unit, {"active": False, "enabled": False})
        can = self.path(f"/etc/dnsmasq.d/{match[1]}.conf").is_file()
        match words:
            case ["is-active"]:
                if not one["active"]:
                    raise Refused("", 3, out="inactive\n")
                return "active\n"
            case ["is-enabled"]:
                if not one["enabled"]:
                    raise Refused("", 1, out="disabled\n")
                return "enabled\n"
            case ["enable"]:
                one["enabled"] = True
            case ["start" | "restart"]:
                one["active"] = can  # with a condition that does not hold, systemd says nothing
            case ["disable", "--now"]:
                one.update(active=False, enabled=False)
            case _:
                raise Refused(f"Unknown command verb {words}.", 1)
        return ""
