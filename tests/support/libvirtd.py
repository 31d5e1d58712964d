"""A libvirt with its virsh, in memory: what gates do to it shows in its state.

It answers in the words of libvirt 9's virsh, which `components.kinds.libvirt.virsh` reads, and refuses what
the real one refuses. It is a `Shell`, and can be made to fail: before any command, or at one.
"""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid5
from xml.sax.saxutils import escape, quoteattr

from components.kinds.libvirt import firewall
from components.reach.shell import COMMAND_S, LocalShell, Result, Unreachable

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
    """Names by pool: every file of its folder, whoever put it there, as libvirt does."""
    stopped: set[str] = field(default_factory=set)
    """Pools that are not active."""
    folders: set[str] = field(default_factory=set)
    """Names of undefined pools whose folder stayed."""
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
    flushed: set[str] = field(default_factory=set)
    """Networks whose rules somebody's firewall took away; libvirt writes them when one starts."""
    saved: set[str] = field(default_factory=set)
    """Domains whose memory is saved: their next start goes on from it."""
    down: bool = False
    before: Callable[[FakeLibvirt, list[str]], None] | None = None
    """Called with each command before it runs: to change the world meanwhile, or to raise."""

    def domain(self, name: str, state: str = "running", uuid: str = "") -> None:
        xml = DOMAIN.format(name=escape(name), uuid=uuid or uuid5(SPACE, name))
        self.domains[name] = Made(xml, state)

    def network(self, name: str, state: str = "active", uuid: str = "") -> None:
        xml = NETWORK.format(name=escape(name, {"'": "&apos;"}), uuid=uuid or uuid5(SPACE, name))
        self.networks[name] = Made(xml, state)

    def hosts(self, network: str) -> list[tuple[str, str, str]]:
        """DHCP reservations: MAC, address, name."""
        found = parsed(self.networks[network].xml).iterfind("ip/dhcp/host")
        return [(each.attrib["mac"], each.attrib["ip"], each.attrib["name"]) for each in found]

    def commands(self) -> list[str]:
        """The words of virsh that change something, in order; a note on a domain changes nothing of it."""
        asking = re.compile(
            r"(list|metadata|echo|capabilities|dom(state|stats|display)|(net-|pool-)?(dumpxml|info|name)|"
            r".*-list|net-dhcp-leases|.*uuid)"
        )
        words = []
        for each in self.said:
            if each[0] == "virsh":
                # Several commands may be one line, which virsh takes apart itself.
                words += (
                    [shlex.split(one) for one in each[4].split(";")]
                    if ";" in each[4] or " " in each[4]
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
        if words[0] == "env":
            # As another machine's libvirt is asked (`components.reach.client.virsh`).
            assert words[1].startswith("NESTLAB_SSH=")
            words = words[2:]
        if words[0] == "tail":
            text = self.files.get(words[-1])
            return Result(1, "", "no such file") if text is None else Result(0, text, "")
        if words[0] == "sh" and words[2] == firewall.ASK:
            return self._rules()
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

    def _rules(self) -> Result:
        """Answer `components.kinds.libvirt.firewall.ASK`, as iptables 1.8 prints libvirt 9's rules."""
        rules = [
            f"-A LIBVIRT_PRT -s {subnet} ! -d {subnet} -j MASQUERADE"
            for name, one in self.networks.items()
            if one.state == "active" and name not in self.flushed
            if (subnet := firewall.translated(one.xml))
        ]
        return Result(0, "\n".join(["-P POSTROUTING ACCEPT", *rules, "asked", ""]), "")

    def _script(self) -> Result:
        """Answer `components.kinds.libvirt.census.SCRIPT`, which reads libvirt's own files."""
        if self.down:
            raise Unreachable(f"{self.name}: no answer")
        lines = [f"domain {name}" for name in self.domains]
        alive = {name: one for name, one in self.domains.items() if one.state != "shut off"}
        words = {"in shutdown": "shutdown", "idle": "blocked"}
        lines += [f"runs {words.get(one.state, one.state)} {name}" for name, one in alive.items()]
        lines += [f"network {name}" for name in self.networks]
        lines += [f"pool {name}" for name in self.pools]
        lines += [f"stored {name}" for name in self.pools if name not in self.stopped]
        leased = [(mac, address) for mac, address in self.leases.items()]
        for mac, address in leased:
            lines += [f'lease "ip-address": "{address}",', f'lease "mac-address": "{mac}",']
        lines += [f"up {name}" for name, one in self.networks.items() if one.state == "active"]
        return Result(0, "".join(f"{line}\n" for line in lines), "")

    # As virsh ---------------------------------------------------------------------------------

    def _virsh(self, words: list[str], stdin: str) -> str:
        if ";" in words[0] or " " in words[0]:
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
        """Find a domain by UUID, then by name, as virsh does."""
        return self.domains[self._key(self.domains, names[0], "domain")]

    def _a_network(self, names: list[str]) -> Made:
        return self.networks[self._key(self.networks, names[0], "network")]

    @staticmethod
    def _key(rows: dict[str, Made], asked: str, kind: str) -> str:
        found = next((name for name, one in rows.items() if one.uuid == asked), asked)
        if found not in rows:
            lost = f"{kind.title()} not found: no {kind} with matching name '{asked}'"
            raise Refused(f"failed to get {kind} '{asked}'\nerror: {lost}")
        return found

    def _listed(
        self, rows: dict[str, str], alive: set[str], options: list[str], table: dict[str, str]
    ) -> str:
        """Print ``rows`` (UUID by name) as virsh's three tables of objects do."""
        shown = {n: uuid for n, uuid in rows.items() if "--all" in options or n in alive}
        if "--uuid" in options and "--name" in options:
            return "".join(f"{uuid:<36} {name:<20}\n" for name, uuid in shown.items())
        if "--uuid" in options:
            return "".join(f"{uuid}\n" for uuid in shown.values())
        if "--name" in options:
            return "".join(f"{name}\n" for name in shown)
        return "".join(table[name] for name in shown)

    def _list(self, names: list[str], options: list[str]) -> str:
        del names
        if "--with-managed-save" in options:
            return "".join(f"{name}\n" for name in self.domains if name in self.saved)
        alive = {name for name, one in self.domains.items() if one.state != "shut off"}
        table = {name: f" -    {name}   {one.state}\n" for name, one in self.domains.items()}
        rows = {name: one.uuid for name, one in self.domains.items()}
        return self._listed(rows, alive, options, table)

    def _domstats(self, names: list[str], options: list[str]) -> str:
        """Virsh's own form (virsh-domain-monitor.c, cmdDomstats); numbers are virDomainState's."""
        del names
        assert options == ["--state"]
        numbers = ["no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed"]
        numbers.append("pmsuspended")
        return "".join(
            f"Domain: '{name}'\n  state.state={numbers.index(one.state)}\n  state.reason=1\n\n"
            for name, one in self.domains.items()
        )

    def _net_list(self, names: list[str], options: list[str]) -> str:
        del names
        if "--uuid" in options and "--name" in options:
            raise Refused("Only one argument from --table, --name and --uuid may be specified.")
        alive = {name for name, one in self.networks.items() if one.state == "active"}
        table = {n: f" {n}   {one.state}   yes   yes\n" for n, one in self.networks.items()}
        rows = {name: one.uuid for name, one in self.networks.items()}
        return self._listed(rows, alive, options, table)

    def _net_name(self, names: list[str], options: list[str]) -> str:
        del options
        return f"{parsed(self._a_network(names).xml).findtext('name')}\n"

    def _pool_list(self, names: list[str], options: list[str]) -> str:
        del names
        alive = set(self.pools) - self.stopped
        if options in (["--name"], ["--all", "--name"]):
            # Padded, unlike those of domains and networks (libvirt 9).
            shown = [name for name in self.pools if options[0] == "--all" or name in alive]
            return "".join(f"{name:<20}\n" for name in shown)
        table = {name: f" {name}   active   yes\n" for name in self.pools}
        return self._listed(self.pools, alive, options, table)

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
        return f"{self.pools[self._a_pool(names)]}\n"

    def _dumpxml(self, names: list[str], options: list[str]) -> str:
        one = self._a_domain(names)
        if "--inactive" in options:
            assert "--security-info" in options, (
                "without it the password is lost when defined again"
            )
            return one.xml
        name = self._key(self.domains, names[0], "domain")
        return one.xml.replace("</domain>", f"{self._nic(name)}</domain>")

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
        self._move(names, {"shut off"}, "paused" if "--paused" in options else "running")
        self.saved.discard(names[0])

    def _suspend(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(names, {"running"}, "paused")

    def _managedsave(self, names: list[str], options: list[str]) -> None:
        assert options == ["--running"], "or it is paused when it is started"
        self._move(names, {"running", "paused"}, "shut off")
        self.saved.add(names[0])

    def _managedsave_remove(self, names: list[str], options: list[str]) -> str:
        del options
        self._a_domain(names)
        if names[0] not in self.saved:
            return f"Domain '{names[0]}' has no managed save image; removal skipped\n"
        self.saved.remove(names[0])
        return f"Removed managedsave image for domain '{names[0]}'\n"

    def _resume(self, names: list[str], options: list[str]) -> None:
        del options
        self._move(names, {"paused"}, "running")

    def _domtime(self, names: list[str], options: list[str]) -> None:
        assert options == ["--now"]
        self._a_domain(names)
        raise Refused("Guest agent is not responding: QEMU guest agent is not connected")

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
        if names[0] in self.saved and "--managed-save" not in options:
            raise Refused("Refusing to undefine while domain managed save image exists")
        self.saved.discard(names[0])
        del self.domains[self._key(self.domains, names[0], "domain")]

    def _net_start(self, names: list[str], options: list[str]) -> None:
        del options
        one = self._a_network(names)
        if one.state == "active":
            raise Refused("Requested operation is not valid: network is already active")
        one.state = "active"
        self.flushed.discard(self._key(self.networks, names[0], "network"))

    def _net_destroy(self, names: list[str], options: list[str]) -> None:
        del options
        one = self._a_network(names)
        if one.state != "active":
            raise Refused("Requested operation is not valid: network is not active")
        one.state = "inactive"

    def _net_undefine(self, names: list[str], options: list[str]) -> None:
        del options
        del self.networks[self._key(self.networks, names[0], "network")]

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

    def _metadata(self, names: list[str], options: list[str]) -> None:
        """As virsh's own: the element is put into the namespace by the key (virDomainSetMetadata)."""
        assert options == ["--uri", "--key", "--set", "--config"]
        domain, uri, key, element = names
        own = element.replace("<", f"<{key}:", 1).replace("/>", f" xmlns:{key}='{uri}'/>")
        one = self._a_domain([domain])
        one.xml = one.xml.replace("</domain>", f"<metadata>{own}</metadata></domain>")

    def _domdisplay(self, names: list[str], options: list[str]) -> str:
        del options
        if self._a_domain(names).state != "running":
            raise Refused("Domain is not running")
        return "vnc://127.0.0.1:0\n"

    def _nic(self, domain: str) -> str:
        if domain not in self.taps:
            return ""
        network, tap = self.taps[domain]
        return (
            "<devices><interface type='network'>"
            f"<source network={quoteattr(network)}/><target dev={quoteattr(tap)}/>"
            "</interface></devices>"
        )

    # Pools, as virStorageBackendDeleteLocal (libvirt, storage_util.c) and virsh-pool.c have them.

    def _a_pool(self, names: list[str]) -> str:
        for name, uuid in self.pools.items():
            if names[0] in {name, uuid}:
                return name
        raise Refused(f"failed to get pool '{names[0]}'")

    def _pool_name(self, names: list[str], options: list[str]) -> str:
        del options
        return f"{self._a_pool(names)}\n"

    def _pool_dumpxml(self, names: list[str], options: list[str]) -> str:
        del options
        name = self._a_pool(names)
        return (
            f"<pool type='dir'><name>{name}</name><uuid>{self.pools[name]}</uuid>"
            f"<target><path>/pool/{name}</path></target></pool>"
        )

    def _pool_info(self, names: list[str], options: list[str]) -> str:
        del options
        name = self._a_pool(names)
        state = "inactive" if name in self.stopped else "running"
        return f"Name:           {name}\nState:          {state}\nAutostart:      yes\n"

    def _pool_define(self, xml: str) -> str:
        root = parsed(xml)
        name = root.findtext("name") or ""
        self.pools[name] = root.findtext("uuid") or ""
        self.stopped.add(name)
        return ""

    def _pool_autostart(self, names: list[str], options: list[str]) -> None:
        del options
        self._a_pool(names)

    def _pool_build(self, names: list[str], options: list[str]) -> None:
        del options
        self.volumes.setdefault(self._a_pool(names), [])

    def _pool_start(self, names: list[str], options: list[str]) -> None:
        del options
        name = self._a_pool(names)
        if name not in self.stopped:
            raise Refused(f"pool '{name}' is already active")
        if name not in self.volumes:
            raise Refused(f"cannot open directory '/pool/{name}': No such file or directory")
        self.stopped.remove(name)

    def _an_active_pool(self, names: list[str]) -> str:
        name = self._a_pool(names)
        if name in self.stopped:
            raise Refused(f"storage pool '{name}' is not active")
        return name

    def _pool_refresh(self, names: list[str], options: list[str]) -> None:
        del options
        self._an_active_pool(names)

    def _vol_list(self, names: list[str], options: list[str]) -> str:
        del options
        pool = self._an_active_pool(names)
        return "".join(f" {name}   /pool/{name}\n" for name in self.volumes.get(pool, []))

    def _vol_path(self, names: list[str], options: list[str]) -> str:
        assert options == ["--pool"]
        pool = self._an_active_pool(names[1:])
        if names[0] not in self.volumes.get(pool, []):
            raise Refused(f"failed to get vol '{names[0]}'")
        return f"/pool/{pool}/{names[0]}\n"

    def _vol_delete(self, names: list[str], options: list[str]) -> None:
        assert options == ["--pool"]
        pool = self._an_active_pool(names[1:])
        if names[0] not in self.volumes.get(pool, []):
            raise Refused(f"failed to get vol '{names[0]}'")
        self.volumes[pool].remove(names[0])

    def _pool_destroy(self, names: list[str], options: list[str]) -> None:
        del options
        self.stopped.add(self._an_active_pool(names))

    def _pool_delete(self, names: list[str], options: list[str]) -> None:
        del options
        name = self._a_pool(names)
        if name not in self.stopped:
            raise Refused(f"storage pool '{name}' is still active")
        if self.volumes.get(name):
            raise Refused(f"failed to remove pool '/pool/{name}': Directory not empty")
        self.volumes.pop(name, None)

    def _pool_undefine(self, names: list[str], options: list[str]) -> None:
        del options
        name = self._a_pool(names)
        if name not in self.stopped:
            raise Refused(f"storage pool '{name}' is still active")
        del self.pools[name]
        self.stopped.remove(name)
        if name in self.volumes:
            self.folders.add(name)


class LocalLibvirt(FakeLibvirt, LocalShell):
    """The libvirt of the machine that runs the deployment."""
