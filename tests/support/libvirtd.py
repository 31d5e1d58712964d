"""A libvirt with its virsh, in memory: what gates do to it shows in its state.

It answers in the words of libvirt 9's virsh, which `components.remote.virsh` reads, and refuses what
the real one refuses. It is a `Shell`, and can be made to fail: before any command, or at one.
"""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from components.remote.shell import COMMAND_S, LocalShell, Result, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SPACE = UUID(int=0)
NETWORK = (
    "<network><name>{name}</name><uuid>{uuid}</uuid><bridge name='nl{name}'/>"
    "<ip address='10.77.0.1' netmask='255.255.255.0'><dhcp>"
    "<range start='10.77.0.2' end='10.77.0.254'/></dhcp></ip></network>"
)
DOMAIN = "<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid></domain>"
UNREACHABLE = "error: failed to connect to the hypervisor\nerror: Failed to connect socket"


def parsed(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 - made by tests


class Refused(Exception):
    """virsh ends with 1 and says this on standard error."""


class Said(Exception):
    """virsh ran a whole line and left ``result``."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.err)
        self.result = result


@dataclass
class Made:
    """A domain or network."""

    xml: str
    state: str
    """In virsh's words; "active" or "inactive" for a network."""
    autostart: bool = False

    @property
    def uuid(self) -> str:
        return parsed(self.xml).findtext("uuid") or ""


@dataclass
class FakeLibvirt:
    """One place with libvirt."""

    name: str = "this machine"
    domains: dict[str, Made] = field(default_factory=dict)
    networks: dict[str, Made] = field(default_factory=dict)
    pools: dict[str, str] = field(default_factory=dict)
    """UUID by name."""
    volumes: dict[str, list[str]] = field(default_factory=dict)
    """Names by pool."""
    leases: dict[str, str] = field(default_factory=dict)
    """Address by MAC."""
    taps: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Network and interface, by domain."""
    ports: set[tuple[str, int]] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    label: str = "+64055:+64055"
    """As whom QEMU runs, in libvirt's words."""
    said: list[list[str]] = field(default_factory=list)
    """Every command, in order."""
    down: bool = False
    before: Callable[[FakeLibvirt, list[str]], None] | None = None
    """Called with each command before it runs: to change the world meanwhile, or to raise."""

    def domain(self, name: str, state: str = "running", uuid: str = "") -> None:
        xml = DOMAIN.format(name=name, uuid=uuid or uuid5(SPACE, name))
        self.domains[name] = Made(xml, state)

    def network(self, name: str, state: str = "active", uuid: str = "") -> None:
        xml = NETWORK.format(name=name, uuid=uuid or uuid5(SPACE, name))
        self.networks[name] = Made(xml, state)

    def hosts(self, network: str) -> list[tuple[str, str, str]]:
        """DHCP reservations: MAC, address, name."""
        found = parsed(self.networks[network].xml).iterfind("ip/dhcp/host")
        return [(each.attrib["mac"], each.attrib["ip"], each.attrib["name"]) for each in found]

    def commands(self) -> list[str]:
        """The words of virsh that change something, in order."""
        asking = re.compile(
            r"(list|echo|capabilities|dom(state|display|iflist)|(net-)?(dumpxml|info)|.*-list|net-dhcp-leases|.*uuid)"
        )
        words = []
        for each in self.said:
            if each[0] == "virsh":
                # Several commands may be one line, which virsh takes apart itself.
                words += (
                    [shlex.split(one) for one in each[4].split(";")]
                    if ";" in each[4]
                    else [each[4:]]
                )
        return [" ".join(each) for each in words if not asking.fullmatch(each[0].split()[0])]

    # As a shell -------------------------------------------------------------------------------

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        raise AssertionError(f"nothing sends files: {source!r}, {to}, {mode}, {timeout_s}")

    def connects(self, host: str, port: int) -> bool:
        if self.down:
            raise Unreachable(f"{self.name}: no answer")
        return (host, port) in self.ports

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        assert timeout_s > 0
        words = list(argv)
        self.said.append(words)
        if self.before:
            self.before(self, words)
        if words[0] == "tail":
            text = self.files.get(words[-1])
            return Result(1, "", "no such file") if text is None else Result(0, text, "")
        if words[0] == "sh":
            return self._script()
        return self._client(words, stdin) if words[0] == "virsh" else Result(0, "", "")

    def _client(self, words: list[str], stdin: bytes) -> Result:
        assert words[1:3] == ["-q", "-c"]
        if self.down:
            return Result(1, "", UNREACHABLE)
        try:
            return Result(0, self._virsh(words[4:], stdin.decode()), "")
        except Refused as refused:
            return Result(1, "", f"error: {refused}")
        except Said as said:
            return said.result

    def _script(self) -> Result:
        """Answer `components.remote.census.SCRIPT`, which reads libvirt's own files."""
        if self.down:
            raise Unreachable(f"{self.name}: no answer")
        lines = [f"domain {name}" for name in self.domains]
        alive = {name: one for name, one in self.domains.items() if one.state != "shut off"}
        lines += [f"runs {name} {one.state}" for name, one in alive.items()]
        lines += [f"network {name}" for name in self.networks]
        leased = [(mac, address) for mac, address in self.leases.items()]
        for mac, address in leased:
            lines += [f'lease "ip-address": "{address}",', f'lease "mac-address": "{mac}",']
        lines += [f"up {name}" for name, one in self.networks.items() if one.state == "active"]
        return Result(0, "".join(f"{line}\n" for line in lines), "")

    # As virsh ---------------------------------------------------------------------------------

    def _virsh(self, words: list[str], stdin: str) -> str:
        if ";" in words[0]:
            return self._line(words[0])
        command, names = words[0], [word for word in words[1:] if not word.startswith("--")]
        method = getattr(self, "_" + command.replace("-", "_"), None)
        assert method, f"virsh {command} is not played here"
        options = [word for word in words[1:] if word.startswith("--")]
        if "define" in command and "un" not in command:
            return str(method(stdin))
        return str(method(names, options) or "")

    def _line(self, line: str) -> str:
        """Run a whole line: virsh goes on after a failure, and its exit code is the last one's."""
        told, wrong, last = "", [], True
        for each in line.split(";"):
            last = True
            try:
                told += self._virsh(shlex.split(each), "")
            except Refused as refused:
                last = False
                wrong.append(f"error: {refused}\n")
        raise Said(Result(0 if last else 1, told, "".join(wrong)))

    def _capabilities(self, names: list[str], options: list[str]) -> str:
        """As libvirt 9 on Debian 12 tells."""
        del names, options
        label = "".join(
            f"<baselabel type='{kind}'>{self.label}</baselabel>" for kind in ("kvm", "qemu")
        )
        none = "<secmodel><model>none</model><doi>0</doi></secmodel>"
        dac = f"<secmodel><model>dac</model><doi>0</doi>{label}</secmodel>"
        return f"<capabilities><host><uuid>4a</uuid>{none}{dac}</host></capabilities>"

    def _echo(self, names: list[str], options: list[str]) -> str:
        del options
        return " ".join(names)

    def _a_domain(self, names: list[str]) -> Made:
        if names[0] not in self.domains:
            raise Refused(f"failed to get domain '{names[0]}'")
        return self.domains[names[0]]

    def _a_network(self, names: list[str]) -> Made:
        if names[0] not in self.networks:
            name = names[0]
            lost = f"Network not found: no network with matching name '{name}'"
            raise Refused(f"failed to get network '{name}'\nerror: {lost}")
        return self.networks[names[0]]

    def _list(self, names: list[str], options: list[str]) -> str:
        del names
        if "--uuid" in options:
            return "".join(f"{one.uuid} {name}\n" for name, one in self.domains.items())
        if options == ["--name"]:
            alive = [n for n, one in self.domains.items() if one.state != "shut off"]
            return "\n".join(alive)
        return "".join(f" -    {name}   {one.state}\n" for name, one in self.domains.items())

    def _net_list(self, names: list[str], options: list[str]) -> str:
        del names
        if "--uuid" in options and "--name" in options:
            raise Refused("Only one argument from --table, --name and --uuid may be specified.")
        if "--name" in options:
            return "\n".join(self.networks)
        rows = self.networks.items()
        return "".join(f" {name}   {one.state}   yes   yes\n" for name, one in rows)

    def _pool_list(self, names: list[str], options: list[str]) -> str:
        del names, options
        return "".join(f"{uuid} {name}      \n" for name, uuid in self.pools.items())

    def _domstate(self, names: list[str], options: list[str]) -> str:
        del options
        return f"{self._a_domain(names).state}\n"

    def _domuuid(self, names: list[str], options: list[str]) -> str:
        del options
        return f"{self._a_domain(names).uuid}\n"

    def _net_uuid(self, names: list[str], options: list[str]) -> str:
        del options
        return f"{self._a_network(names).uuid}\n"

    def _pool_uuid(self, names: list[str], options: list[str]) -> str:
        del options
        if names[0] not in self.pools:
            raise Refused(f"failed to get pool '{names[0]}'")
        return self.pools[names[0]]

    def _dumpxml(self, names: list[str], options: list[str]) -> str:
        assert "--security-info" in options, "without it the password is lost when defined again"
        return self._a_domain(names).xml

    def _net_dumpxml(self, names: list[str], options: list[str]) -> str:
        del options
        return self._a_network(names).xml

    def _define(self, xml: str) -> str:
        self.domains[parsed(xml).findtext("name") or ""] = Made(xml, "shut off")
        return ""

    def _net_define(self, xml: str) -> str:
        self.networks[parsed(xml).findtext("name") or ""] = Made(xml, "inactive")
        return ""

    def _autostart(self, names: list[str], options: list[str]) -> None:
        self._a_domain(names).autostart = "--disable" not in options

    def _net_autostart(self, names: list[str], options: list[str]) -> None:
        self._a_network(names).autostart = "--disable" not in options

    def _move(self, names: list[str], allowed: set[str], to: str) -> None:
        one = self._a_domain(names)
        if one.state not in allowed:
            raise Refused(f"Requested operation is not valid: domain is {one.state}")
        one.state = to

    def _start(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(names, {"shut off"}, "running")

    def _resume(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(names, {"paused"}, "running")

    def _reset(self, names: list[str], options: list[str]) -> None:
        del options
        if self._a_domain(names).state != "running":
            raise Refused("Requested operation is not valid: domain is not running")

    def _dompmwakeup(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(names, {"pmsuspended"}, "running")

    def _destroy(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(
            names, {"running", "paused", "crashed", "pmsuspended", "in shutdown"}, "shut off"
        )

    def _undefine(self, names: list[str], options: list[str]) -> None:
        assert "--nvram" in options, "libvirt refuses a UEFI guest without it"
        if self._a_domain(names).state != "shut off":
            raise Refused("domain is running, which this lab never undefines")
        del self.domains[names[0]]

    def _net_start(self, names: list[str], options: list[str]) -> None:
        del options
        one = self._a_network(names)
        if one.state == "active":
            raise Refused("Requested operation is not valid: network is already active")
        one.state = "active"

    def _net_destroy(self, names: list[str], options: list[str]) -> None:
        del options
        one = self._a_network(names)
        if one.state != "active":
            raise Refused("Requested operation is not valid: network is not active")
        one.state = "inactive"

    def _net_undefine(self, names: list[str], options: list[str]) -> None:
        del options
        self._a_network(names)
        del self.networks[names[0]]

    def _net_info(self, names: list[str], options: list[str]) -> str:
        del options
        one = self._a_network(names)
        active = "yes" if one.state == "active" else "no"
        return (
            f"Name:           {names[0]}\nActive:         {active}\nBridge:         nl{names[0]}\n"
        )

    def _net_update(self, names: list[str], options: list[str]) -> None:
        network, command, section, xml = names
        one = self._a_network([network])
        live = one.state == "active"
        assert section == "ip-dhcp-host"
        assert ("--live" in options) is live, "a network that is down has nothing live"
        assert "--config" in options, "or it is forgotten at the next start"
        root = parsed(one.xml)
        dhcp = root.find("ip/dhcp")
        assert dhcp is not None
        new = parsed(xml)
        for host in dhcp.findall("host"):
            same = host.attrib == new.attrib
            if command == "delete" and same:
                dhcp.remove(host)
                one.xml = ET.tostring(root, encoding="unicode")
                return
            if command == "add" and any(host.get(k) == new.get(k) for k in ("mac", "ip", "name")):
                raise Refused("there is an existing dhcp host entry that matches")
        if command == "delete":
            raise Refused("couldn't locate a matching dhcp host entry")
        dhcp.append(new)
        one.xml = ET.tostring(root, encoding="unicode")

    def _net_dhcp_leases(self, names: list[str], options: list[str]) -> str:
        assert options == ["--mac"]
        self._a_network(names)
        mac = names[1]
        if mac not in self.leases:
            return ""
        return f" 2026-11-24 06:00:00   {mac}   ipv4   {self.leases[mac]}/24   guest   01:{mac}\n"

    def _domdisplay(self, names: list[str], options: list[str]) -> str:
        del options
        if self._a_domain(names).state != "running":
            raise Refused("Domain is not running")
        return "vnc://127.0.0.1:0\n"

    def _domiflist(self, names: list[str], options: list[str]) -> str:
        del options
        if names[0] not in self.taps:
            return ""
        network, tap = self.taps[names[0]]
        return f" {tap}   network   {network}   virtio   52:54:00:00:00:01\n"

    def _pool_start(self, names: list[str], options: list[str]) -> None:
        del options
        raise Refused(f"pool '{names[0]}' is already active")

    def _pool_refresh(self, names: list[str], options: list[str]) -> None:
        del names, options

    def _vol_list(self, names: list[str], options: list[str]) -> str:
        del options
        return "".join(f" {name}   /pool/{name}\n" for name in self.volumes.get(names[0], []))

    def _vol_delete(self, names: list[str], options: list[str]) -> None:
        assert options == ["--pool"]
        if names[0] not in self.volumes.get(names[1], []):
            raise Refused(f"failed to get vol '{names[0]}'")
        self.volumes[names[1]].remove(names[0])

    def _pool_destroy(self, names: list[str], options: list[str]) -> None:
        del options
        assert not self.volumes.get(names[0]), "a pool is removed with its volumes"

    def _pool_delete(self, names: list[str], options: list[str]) -> None:
        del names, options

    def _pool_undefine(self, names: list[str], options: list[str]) -> None:
        del options
        del self.pools[names[0]]


class LocalLibvirt(FakeLibvirt, LocalShell):
    """The libvirt of the machine that runs the deployment."""
