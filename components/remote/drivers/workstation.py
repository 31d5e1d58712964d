"""Guests, networks and media of VMware Workstation Pro on a Linux host, by `vmrun` as root.

A guest is a folder with a .vmx that is written here and rewritten, and extended, by VMware whenever
it runs; so only our own keys are compared, and it is changed only while the guest is off. Whose it is
says a file beside it, and the guest's notes say so too. An own network is one of the numbers vmnet2 to
vmnet254, claimed by a link named after it.

Workstation has no commands for networks on Linux: `/etc/vmware/networking` holds what they are, and
`vmware-networks` stops and starts them, all at once. Snapshots, shared folders, VMware Tools and
linked clones (made only of a guest with a snapshot, and never larger than that) are left out.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from components.remote.driver import COMMAND_S, DriverError, cause_in, refusal
from components.remote.media import FileMediumDriver
from components.remote.shell import Unreachable
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.remote.driver import Driver, Props
    from components.remote.shell import Result, Shell

COPY_S = 1800.0
"""Converting or enlarging a disk under emulation, seconds."""
UPLOAD_S = 900.0
START_S = 300.0
STOP_S = 90.0
"""How long a guest may take to shut down before its settings change, seconds; with VMware Tools only."""
OFF_S = 30.0
"""How long VMware may take after a guest's end to write its settings and let go of them, seconds."""

CLAIMS = "/etc/vmware/nestlab"
"""Links named like networks of labs, to the owner's UUID: made at once, so never half."""
NETWORKING = "/etc/vmware/networking"
BRIDGE = "vmnet0"
"""Workstation's own bridge to the device that its host reaches the world by."""
NUMBERS = (*range(2, 8), *range(9, 255))
"""Networks that are nobody's at first: 0, 1 and 8 are Workstation's own."""
NATD_IP6 = "fd15:4ba5:5a2b:1008::/64"
"""Workstation's default, of which IPv6 stays off."""

WANTS = "/etc/systemd/system/multi-user.target.wants"
UNIT = "nestlab-workstation@{name}.service"
UNIT_FILE = "/etc/systemd/system/nestlab-workstation@.service"
UNIT_TEXT = """\
[Unit]
Description=VMware Workstation guest %i of nestlab
After=network-online.target vmware.service vmware-networks.service
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
# VMware's settings of root; systemd sets no home for system services.
Environment=HOME=/root
KillMode=process
ExecStart=/usr/bin/vmrun -T ws start {store}/guests/%i/{vmx} nogui

[Install]
WantedBy=multi-user.target
"""

MARK = "nestlab.owner"
VMX = "guest.vmx"
DISK = "disk.vmdk"
COMPLETE = "disk.complete"
"""Says that the disk was made to its end."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""VMware's commands read paths in the locale of whoever calls, and systemd has escapes of its own."""
STORE = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
PLUG = re.compile(rf"vmnet\d{{1,3}}|of {UUID.pattern}")
"""What `NetworkDriver.called` returns."""
DOMAIN = re.compile(r"[A-Za-z0-9.-]+")
NO_FILE = "No such file or directory"

CAUSES = {
    "incompatible hypervisor": 'vmx.allowNested = "TRUE" is missing in /etc/vmware/config there, '
    "without which Workstation starts nothing inside another hypervisor",
    **dict.fromkeys(
        ("VT-x is not", "AMD-V is not", "does not support Intel VT-x", "does not support AMD-V"),
        "the machine has no virtualization of its own: the host it stands on has to nest",
    ),
    **dict.fromkeys(
        ("/dev/vmmon", "/dev/vmnet", "Failed to start some/all services"),
        "Workstation's kernel modules are not loaded: `vmware-modconfig --console --install-all` there "
        "says why; they have to fit the kernel, and a new one may need a newer Workstation",
    ),
    **dict.fromkeys(
        ("already in use", "Failed to lock the file", "Insufficient permission"),
        "somebody has it open: close Workstation's window there",
    ),
    "Not enough physical memory": "its guests want more memory than the machine has: give it more in "
    "the stack, or them less",
    "No space left": "its disk is full: guests and media want more than disk_gib of the machine",
    "Unknown error": "Workstation keeps the reason to itself: vmware.log in the guest's folder has it",
}
"""What is behind a message of VMware's, and the way out."""

_networks = threading.RLock()
"""Networks stop and start together: one change at a time, and no guest may start meanwhile."""


# What the host is told and says ------------------------------------------------------------------


def _refused(shell: Shell, argv: Sequence[str], done: Result) -> DriverError:
    return refusal(shell, argv, done.said, cause_in(f"{done.out}\n{done.err}", CAUSES))


def _must(shell: Shell, *argv: str, timeout_s: float = COMMAND_S) -> str:
    done = shell.run(argv, timeout_s=timeout_s)
    if not done.ok:
        raise _refused(shell, argv, done)
    return done.out


def _failed(done: Result) -> bool:
    """Whether vmrun refused: it says so on standard output, and not every version by its exit code."""
    return not done.ok or done.out.startswith("Error:")


def _vmrun(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    argv = ["vmrun", "-T", "ws", *words]
    done = shell.run(argv, timeout_s=timeout_s)
    if _failed(done):
        raise _refused(shell, argv, done)
    return done.out


def _read(shell: Shell, *paths: str) -> dict[str, str]:
    """Return the contents of those of ``paths`` that are there."""
    argv = ["tail", "-v", "-n", "+1", *paths]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok and NO_FILE not in done.err:
        raise _refused(shell, argv, done)
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^(?===> .+ <==$)", done.out):
        head, _, content = part.partition(" <==\n")
        if head.startswith("==> "):
            found[head.removeprefix("==> ")] = content.removesuffix("\n")
    return found


def _listed(shell: Shell, *folders: str) -> dict[str, str]:
    """Return what is in ``folders``, themselves included, each with what it is a link to."""
    argv = ["find", *folders, "-maxdepth", "1", "-printf", r"%p\t%l\n"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    if not done.ok and NO_FILE not in done.err:
        raise _refused(shell, argv, done)
    lines = (line.partition("\t") for line in done.out.splitlines())
    return {path: to for path, tab, to in lines if tab}


def _number(listed: Mapping[str, str], owner: str) -> str:
    """Return the owner's network, such as vmnet2; empty for none."""
    claims = {path: to for path, to in listed.items() if path.startswith(f"{CLAIMS}/")}
    return next((path.rpartition("/")[2] for path, to in claims.items() if to == owner), "")


def _strange(wanted: Props) -> str:
    if UUID.fullmatch(str(wanted["owner"])):
        return ""
    return f"its owner {wanted['owner']!r} is no UUID, by which it would be known again"


def _unquotable(text: object, what: str) -> str:
    """Say why ``text`` can't be a value of a .vmx, empty when it can."""
    if all(" " <= letter <= "~" for letter in str(text)):
        return ""
    return f"{what} {str(text)!r} holds a letter beyond ASCII's printable ones: rename it"


# Networks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """What an own network is to be."""

    subnet: IPv4Network
    host: str
    """Address of the host on it."""
    nat: str
    """Address of Workstation's NAT device, the guests' gateway; empty without NAT."""
    dhcp: bool
    domain: str
    fixed: Mapping[str, str]
    """Addresses by MAC, lower case."""

    @property
    def answers(self) -> dict[str, str]:
        """What `NETWORKING` says of it, by the end of the key."""
        return {
            "DHCP": _yes(self.dhcp),
            "HOSTONLY_NETMASK": str(self.subnet.netmask),
            "HOSTONLY_SUBNET": str(self.subnet.network_address),
            "NAT": _yes(self.nat),
            "VIRTUAL_ADAPTER": "yes",
        }

    def free(self) -> tuple[str, str] | None:
        """Return the longest run of addresses that nobody has, for guests of somebody else."""
        first, last = int(self.subnet[1]), int(self.subnet[-2])
        taken = {self.host, *self.fixed.values(), *([self.nat] if self.nat else [])}
        ends = sorted({int(IPv4Address(each)) for each in taken} | {first - 1, last + 1})
        low, high = max(pairwise(ends), key=lambda gap: gap[1] - gap[0])
        return (str(IPv4Address(low + 1)), str(IPv4Address(high - 1))) if high - low > 1 else None


def net(wanted: Props) -> Net:
    """Return what an own network is to be.

    Workstation's NAT device has an address beside the host's, .2 where nobody planned it.

    Raises:
        ValueError: something in it is no address, or no address is left.
    """
    subnet = IPv4Network(str(wanted["subnet"]))
    fixed = {}
    for one in wanted["reservations"]:
        mac, address = str(one["mac"]), str(IPv4Address(str(one["address"])))
        if not MAC.fullmatch(mac):
            raise ValueError(f"{mac!r} is no MAC")
        fixed[mac.lower()] = address
    host = str(IPv4Address(str(wanted["gateway"])))
    if host != str(subnet[1]):
        raise ValueError(f"Workstation's host has the first address of {subnet}, not {host}")
    domain = str(wanted["domain"])
    if domain and not DOMAIN.fullmatch(domain):
        raise ValueError(f"{domain!r} is no DNS domain")
    nat = ""
    if wanted["mode"] == "nat":
        planned = {host, *fixed.values()}
        choices = chain([2], range(subnet.num_addresses - 2, 1, -1))
        nat = next((str(subnet[n]) for n in choices if str(subnet[n]) not in planned), "")
        if not nat:
            raise ValueError(
                f"no address of {subnet} is left for Workstation's NAT device, which needs one of its "
                "own: take a larger subnet"
            )
    return Net(subnet, host, nat, wanted["dhcp"], domain, fixed)


def dhcpd_conf(made: Net, vmnet: str) -> str:
    """Return ``dhcpd.conf`` of ``vmnet`` (vmnet-dhcpd, ISC DHCP 2.0).

    In VMware's own form: it generates the marked part anew where it sees need, and keeps what follows.
    """
    number = int(vmnet.removeprefix("vmnet"))
    inner = []
    if free := made.free():
        inner.append(f"range {free[0]} {free[1]};")
    inner.append(f"option broadcast-address {made.subnet.broadcast_address};")
    if made.nat:
        inner += [f"option domain-name-servers {made.nat};", f"option routers {made.nat};"]
    if made.domain:
        inner.append(f'option domain-name "{made.domain}";')
    lines = [
        f"# Configuration file for ISC 2.0 vmnet-dhcpd operating on {vmnet}.",
        "# Written by nestlab.",
        "",
        '###### VMNET DHCP Configuration. Start of "DO NOT MODIFY SECTION" #####',
        "allow unknown-clients;",
        "default-lease-time 1800;",
        "max-lease-time 7200;",
        "",
        f"subnet {made.subnet.network_address} netmask {made.subnet.netmask} {{",
        *(f"\t{each}" for each in inner),
        "}",
        f"host {vmnet} {{",
        f"\thardware ethernet 00:50:56:C0:00:{number:02X};",
        f"\tfixed-address {made.host};",
        "\toption domain-name-servers 0.0.0.0;",
        '\toption domain-name "";',
        "\toption routers 0.0.0.0;",
        "}",
        '####### VMNET DHCP Configuration. End of "DO NOT MODIFY SECTION" #######',
    ]
    for mac, address in made.fixed.items():
        lines += [
            f"host nestlab-{mac.replace(':', '')} {{",
            f"\thardware ethernet {mac};",
            f"\tfixed-address {address};",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _served(text: str) -> tuple[object, ...]:
    """Return what a ``dhcpd.conf`` decides, without what VMware may write in another way."""
    plain = re.sub(r"#.*", "", text)
    hosts = re.findall(r"host\s+nestlab-\S+\s*\{(.*?)\}", plain, re.DOTALL)
    fixed = {}
    for host in hosts:
        mac = re.search(r"hardware\s+ethernet\s+([0-9A-Fa-f:]+)", host)
        address = re.search(r"fixed-address\s+([\d.]+)", host)
        if mac and address:
            fixed[mac[1].lower()] = address[1]
    subnet = re.search(r"subnet\s+([\d.]+)\s+netmask\s+([\d.]+)\s*\{(.*?)\}", plain, re.DOTALL)
    if not subnet:
        return (fixed,)
    inside = {" ".join(each.split()) for each in subnet[3].split(";") if each.strip()}
    told = ("range", "option routers", "option domain-name ", "option domain-name-servers")
    return (fixed, subnet[1], subnet[2], {each for each in inside if each.startswith(told)})


def nat_conf(made: Net, vmnet: str) -> str:
    """Return ``nat.conf`` of ``vmnet``; MACs are not VMware's, which allowAnyOUI lets pass."""
    return (
        "# VMware NAT configuration file, written by nestlab; forwarded ports may be added\n\n"
        f"[host]\nip = {made.nat}\nnetmask = {made.subnet.netmask}\ndevice = /dev/{vmnet}\n"
        f"activeFTP = 1\nallowAnyOUI = 1\nhostIp = {made.host}\nresetConnectionOnLinkDown = 1\n"
        f"resetConnectionOnDestLocalHost = 1\nnatIp6Enable = 0\nnatIp6Prefix = {NATD_IP6}\n\n"
        "[tcp]\ntimeWaitTimeout = 30\n\n[udp]\ntimeout = 60\n\n"
        "[netbios]\nnbnsTimeout = 2\nnbnsRetries = 3\nnbdsTimeout = 3\n\n"
        "[incomingtcp]\n\n[incomingudp]\n"
    )


def _translated(text: str) -> dict[str, str]:
    """Return what a ``nat.conf`` decides: the rest may be somebody's forwarded ports."""
    found = dict(re.findall(r"(?m)^\s*(\w+)\s*=\s*(\S+)\s*$", text))
    return {key: found.get(key, "") for key in ("ip", "netmask", "device", "allowAnyOUI", "hostIp")}


def answered(text: str, vmnet: str) -> dict[str, str]:
    """Return what `NETWORKING` says of ``vmnet``, by the end of the key."""
    number = vmnet.removeprefix("vmnet")
    return dict(re.findall(rf"(?m)^answer VNET_{number}_(\S+) (.*?)\s*$", text))


def _with(text: str, vmnet: str, answers: Mapping[str, str]) -> str:
    """Return `NETWORKING` with these answers for ``vmnet`` and no others of it."""
    number = vmnet.removeprefix("vmnet")
    kept = [line for line in text.splitlines() if not line.startswith(f"answer VNET_{number}_")]
    if not any(line.startswith("VERSION=") for line in kept):
        kept.insert(0, "VERSION=1,0")
    return "\n".join([*kept, *(f"answer VNET_{number}_{k} {v}" for k, v in answers.items())]) + "\n"


def _taken(text: str) -> set[int]:
    """Return the networks that `NETWORKING` speaks of."""
    found = re.findall(r"(?m)^answer VNET_(\d+)_|^add_bridge_mapping \S+ (\d+)", text)
    return {int(one or other) for one, other in found}


def _yes(flag: object) -> str:
    return "yes" if flag else "no"


def _running(shell: Shell) -> set[str]:
    """Return what runs of Workstation's networks, in the words of ``vmware-networks --status``."""
    argv = ["vmware-networks", "--status"]
    done = shell.run(argv, timeout_s=COMMAND_S)
    lines = {line.strip() for line in done.out.splitlines()}
    found = {line for line in lines if re.search(r" on vmnet\d+ is (running|enabled)$", line)}
    # Its exit code tells whether all of them run.
    if (
        not done.ok
        and not any(" on vmnet" in line for line in lines)
        and "services" not in done.out
    ):
        raise _refused(shell, argv, done)
    return found


class NetworkDriver:
    """NAT and host-only networks of Workstation, and its bridges; see `Driver`."""

    replaced_by: tuple[str, ...] = ("name", "mode", "bridge", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wanted["mode"] == "bridge":
            bridge = str(wanted["bridge"])
            if not bridge or re.fullmatch(r"vmnet(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-4])", bridge):
                return ""
            return (
                f"bridge {bridge!r}: Workstation's are called vmnet0 to vmnet254; name one, or none"
            )
        if wanted["mode"] not in {"nat", "isolated"}:
            return f"Workstation has no networks of mode {wanted['mode']}: nat, isolated, bridge"
        if wrong := _strange(wanted):
            return wrong
        try:
            net(wanted)
        except (ValueError, IndexError) as why:
            return f"network {str(wanted['name'])!r}: {why}"
        return ""

    def called(self, wanted: Props) -> str:
        """Return a bridge's name, or who has claimed a number: which one, only its host knows."""
        if wanted["mode"] == "bridge":
            return str(wanted["bridge"]) or BRIDGE
        return f"of {wanted['owner']}"

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name = wanted["name"]
        if wanted["mode"] == "bridge":
            bridge = self.called(wanted)
            bridged = self._bridges(shell, bridge)
            text = f"network {name} is {bridge}" if bridged else f"{bridge} bridges to nothing"
            return Seen(ok=bridged, text=text)
        vmnet = _number(_listed(shell, CLAIMS), wanted["owner"])
        if not vmnet:
            return Seen(ok=False, text=f"network {name} is not there any more")
        if other := self._other(net(wanted), vmnet, _read(shell, *_files(vmnet))):
            return Seen(ok=False, text=f"network {name} is not set up as the stack says: {other}")
        if down := self._down(net(wanted), vmnet, _running(shell)):
            return Seen(ok=False, text=f"network {name} is down: {down}")
        return Seen(ok=True, text=f"network {name} is up")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        with _networks:
            if wanted["mode"] == "bridge":
                self._bridge(shell, wanted)
                return
            made = net(wanted)
            vmnet = _number(_listed(shell, CLAIMS), wanted["owner"]) or self._claim(shell, wanted)
            files = _read(shell, *_files(vmnet))
            if self._other(made, vmnet, files):
                self._change(shell, made, vmnet, files)
            elif not self._down(made, vmnet, _running(shell)):
                return
            argv = ["vmware-networks", "--start"]
            done = shell.run(argv, timeout_s=COMMAND_S)
            # Its exit code is about all networks, somebody else's too.
            if down := self._down(made, vmnet, _running(shell)):
                say(f"{wanted['name']}: {down}")
                raise _refused(shell, argv, done)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        if wanted["mode"] == "bridge":
            return
        with _networks:
            vmnet = _number(_listed(shell, CLAIMS), wanted["owner"])
            if not vmnet:
                return
            before = _running(shell)
            networking = _read(shell, NETWORKING).get(NETWORKING, "")
            # While it is still known, or its daemons would run on.
            _must(shell, "vmware-networks", "--stop")
            if answered(networking, vmnet):
                self._write(shell, NETWORKING, _with(networking, vmnet, {}))
            _must(shell, "rm", "-rf", "--one-file-system", f"/etc/vmware/{vmnet}")
            argv = ["vmware-networks", "--start"]
            done = shell.run(argv, timeout_s=COMMAND_S)
            others = {line for line in before if not line.split(" is ")[0].endswith(f" {vmnet}")}
            if not done.ok and others - _running(shell):
                raise _refused(shell, argv, done)
            _must(shell, "rm", "-f", f"{CLAIMS}/{vmnet}")

    def _bridges(self, shell: Shell, bridge: str) -> bool:
        form = re.compile(rf"Bridged? networking on {bridge} is running")
        return any(form.fullmatch(line) for line in _running(shell))

    def _bridge(self, shell: Shell, wanted: Props) -> None:
        bridge = self.called(wanted)
        if self._bridges(shell, bridge):
            return
        argv = ["vmware-networks", "--start"]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if self._bridges(shell, bridge):
            return
        if not done.ok:
            raise _refused(shell, argv, done)
        raise DriverError(
            f"network {wanted['name']} on {shell.name}: {bridge} bridges to nothing there: make it a "
            "bridge with Workstation's Virtual Network Editor, or take bridge: out of the stack"
        )

    def _claim(self, shell: Shell, wanted: Props) -> str:
        """Return a number that was nobody's."""
        _must(shell, "mkdir", "-p", CLAIMS)
        claimed = {path.rpartition("/")[2] for path in _listed(shell, CLAIMS)}
        taken = _taken(_read(shell, NETWORKING).get(NETWORKING, ""))
        for number in NUMBERS:
            vmnet = f"vmnet{number}"
            if number in taken or vmnet in claimed:
                continue
            _must(shell, "ln", "-s", wanted["owner"], f"{CLAIMS}/{vmnet}")
            return vmnet
        raise DriverError(
            f"network {wanted['name']} on {shell.name}: all of vmnet0 to vmnet254 are used"
        )

    def _other(self, made: Net, vmnet: str, files: Mapping[str, str]) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        networking, dhcpd, nat = _files(vmnet)
        has = answered(files.get(networking, ""), vmnet)
        for key, value in made.answers.items():
            if has.get(key, "no") != value:
                return f"{key} is {has.get(key, 'not set')} and not {value}"
        if made.dhcp and _served(files.get(dhcpd, "")) != _served(dhcpd_conf(made, vmnet)):
            return "its DHCP server hands out other addresses"
        if made.nat and _translated(files.get(nat, "")) != _translated(nat_conf(made, vmnet)):
            return "its NAT device has other settings"
        return ""

    def _down(self, made: Net, vmnet: str, running: set[str]) -> str:
        """Say what of it does not run, empty for nothing."""
        needed = [f"Hostonly virtual adapter on {vmnet} is enabled"]
        if made.dhcp:
            needed.append(f"DHCP service on {vmnet} is running")
        if made.nat:
            needed.append(f"NAT service on {vmnet} is running")
        missing = [each.split(" is ")[0] for each in needed if each not in running]
        return f"{missing[0]} does not run" if missing else ""

    def _change(self, shell: Shell, made: Net, vmnet: str, files: Mapping[str, str]) -> None:
        """Stop all networks and write what this one is; nothing is started."""
        networking, dhcpd, nat = _files(vmnet)
        if answered(files.get(networking, ""), vmnet):
            say(
                f"{vmnet}: Workstation's networks start anew; its guests are cut off for some seconds"
            )
        # First: what runs on with old settings would look as if it had the new ones.
        _must(shell, "vmware-networks", "--stop")
        if made.dhcp:
            _must(shell, "mkdir", "-p", str(Path(dhcpd).parent))
            self._write(shell, dhcpd, dhcpd_conf(made, vmnet))
            _must(shell, "touch", str(Path(dhcpd).with_name("dhcpd.leases")))
        if made.nat and _translated(files.get(nat, "")) != _translated(nat_conf(made, vmnet)):
            _must(shell, "mkdir", "-p", str(Path(nat).parent))
            self._write(shell, nat, nat_conf(made, vmnet))
        text = files.get(networking, "")
        kept = {
            key: value for key, value in answered(text, vmnet).items() if key not in made.answers
        }
        # Of the file that was there: VMware would take another for a change by hand, and keep that.
        kept.pop("DHCP_CFG_HASH", None)
        self._write(shell, networking, _with(text, vmnet, made.answers | kept))

    def _write(self, shell: Shell, path: str, text: str) -> None:
        shell.put(text.encode(), path, timeout_s=COMMAND_S)


def _files(vmnet: str) -> tuple[str, str, str]:
    """Return what decides about a network: that of all, its DHCP server's, its NAT device's."""
    own = f"/etc/vmware/{vmnet}"
    return NETWORKING, f"{own}/dhcpd/dhcpd.conf", f"{own}/nat/nat.conf"


# Media -------------------------------------------------------------------------------------------


LONGEST = 200
"""Of a medium's name: a file's, and the ending it has while it grows."""


def _no_medium(wanted: Props) -> str:
    """Return why ``wanted`` is no medium; guests' disks are copies of an image, which is one."""
    name = str(wanted["name"])
    if wrong := _unquotable(name, "medium"):
        return wrong
    reserved = {"", ".", "..", "guests"}
    if "/" in name or name.strip() != name or name in reserved or len(name) > LONGEST:
        return f"medium {name!r} is no name of a file: rename it"
    return _bad_store(wanted)


def _bad_store(wanted: Props) -> str:
    if STORE.fullmatch(str(wanted["store"])):
        return ""
    return f"store {wanted['store']!r} is no plain absolute path"


# Settings of a guest -----------------------------------------------------------------------------

NICS = ("e1000", "e1000e", "vmxnet3")
BOOT = {"cdrom": "cdrom", "hd": "hdd", "network": "ethernet0"}
SLOTS = {"sata": "sata0:0", "scsi": "scsi0:0"}
CD = "sata0:1"
MOST_CORES = 32
MOST_NICS = 10
HARDWARE = "19"
"""Virtual hardware of Workstation 16.2 and later, which has all that is asked for here."""
FALSE = "FALSE"
TRUE = "TRUE"
_LINE = re.compile(r'\s*([^\s=#]+)\s*=\s*(?:"(.*)"|(.*?))\s*')


def quoted(value: str) -> str:
    """Return a value of a .vmx: VMware writes a quote and its own escape as | and two digits."""
    return '"' + value.replace("|", "|7C").replace('"', "|22") + '"'


def unquoted(text: str) -> str:
    """Return what `quoted` was given."""
    return re.sub(r"\|([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), text)


def parsed(text: str) -> dict[str, str]:
    """Return a .vmx by its keys in lower case, as VMware takes them in any."""
    found = {}
    for line in text.splitlines():
        if pair := _LINE.fullmatch(line):
            found[pair[1].lower()] = unquoted(pair[2] if pair[2] is not None else pair[3])
    return found


def merged(text: str, settings: Mapping[str, str]) -> str:
    """Return a .vmx with ``settings`` in it; what VMware added stays."""
    ours = {key.lower(): f"{key} = {quoted(value)}" for key, value in settings.items()}
    lines = []
    for line in text.splitlines():
        pair = _LINE.fullmatch(line)
        if pair and pair[1].lower() in ours:
            continue
        lines.append(line)
    # VMware reads the encoding before all else.
    first = [ours.pop(".encoding")] if ".encoding" in ours else []
    return "\n".join([*first, *lines, *ours.values()]) + "\n"


def _same(has: str, value: str) -> bool:
    if value in {FALSE, ""}:
        return has.upper() in {FALSE, ""}
    return has == value or (
        has.casefold() == value.casefold() and value in {TRUE, "custom", "static"}
    )


def _fixed(wanted: Props) -> Iterator[tuple[str, str]]:
    """Yield what every guest is to be."""
    yield ".encoding", "UTF-8"
    yield "config.version", "8"
    yield "virtualHW.version", HARDWARE
    yield "displayName", wanted["name"]
    yield "annotation", f"nestlab {wanted['owner']}"
    yield "guestOS", "other-64"
    # Workstation itself runs inside another hypervisor.
    yield "vmx.allowNested", TRUE
    # Nobody is there to answer.
    yield "msg.autoAnswer", TRUE
    yield "uuid.action", "keep"
    yield "floppy0.present", FALSE
    yield "mks.enable3d", FALSE
    yield "pciBridge0.present", TRUE
    for number in (4, 5, 6, 7):
        yield f"pciBridge{number}.present", TRUE
        yield f"pciBridge{number}.virtualDev", "pcieRootPort"
        yield f"pciBridge{number}.functions", "8"


def settings(wanted: Props, plugs: Sequence[str], vmdk: str = DISK) -> dict[str, str]:
    """Return what the .vmx is to say; ``plugs`` are the networks of its NICs.

    ``vmdk`` is what its disk is called at the moment: a snapshot puts another before it.
    """
    found = dict(_fixed(wanted))
    found["memsize"] = str(wanted["memory_mib"])
    found["numvcpus"] = found["cpuid.coresPerSocket"] = str(wanted["cores"])
    found["firmware"] = "efi" if wanted["firmware"] == "uefi" else "bios"
    found["bios.bootOrder"] = ",".join(BOOT[each] for each in wanted["boot"])
    bus = wanted["disk_bus"] or "sata"
    disk = SLOTS[bus] if has_disk(wanted) else ""
    found["scsi0.present"] = TRUE if disk == SLOTS["scsi"] else FALSE
    found["scsi0.virtualDev"] = "lsilogic"
    found["sata0.present"] = TRUE
    for slot in SLOTS.values():
        found[f"{slot}.present"] = TRUE if slot == disk else FALSE
    if disk:
        found[f"{disk}.fileName"] = vmdk
    found[f"{CD}.present"] = TRUE if wanted["iso"] else FALSE
    if wanted["iso"]:
        found[f"{CD}.deviceType"] = "cdrom-image"
        found[f"{CD}.fileName"] = wanted["iso"]
        found[f"{CD}.startConnected"] = TRUE
    for number, (nic, vmnet) in enumerate(zip(wanted["nics"], plugs, strict=True)):
        found |= _nic(f"ethernet{number}", nic, vmnet)
    console = wanted["console"]
    port = console["port"] if console["type"] != "none" else 0
    found["RemoteDisplay.vnc.enabled"] = TRUE if port else FALSE
    if port:
        found["RemoteDisplay.vnc.port"] = str(port)
        found["RemoteDisplay.vnc.ip"] = console["listen"]
    return found


def _nic(key: str, nic: Props, vmnet: str) -> dict[str, str]:
    return {
        f"{key}.present": TRUE,
        f"{key}.virtualDev": nic["model"] or NICS[0],
        f"{key}.startConnected": TRUE,
        f"{key}.connectionType": "custom",
        f"{key}.vnet": f"/dev/{vmnet}",
        f"{key}.addressType": "static",
        f"{key}.address": str(nic["mac"]).lower(),
        # VMware takes static ones of 00:50:56:00 to 3F only, unless told.
        f"{key}.checkMACAddress": FALSE,
    }


def has_disk(wanted: Props) -> bool:
    """Whether a guest has a disk."""
    return bool(wanted["image"] or wanted["disk_gib"])


def _secrets(wanted: Props) -> dict[str, str]:
    """Return what is written and never compared: VMware may keep a password in another form."""
    console = wanted["console"]
    open_ = console["type"] != "none" and console["port"]
    password = console["password"] if open_ else ""
    return {"RemoteDisplay.vnc.password": password, "RemoteDisplay.vnc.key": ""}


def _more(wanted: Props, vmx: Mapping[str, str]) -> dict[str, str]:
    """Return NICs and drives that somebody else plugged in."""
    own = {*SLOTS.values(), CD, *(f"ethernet{n}" for n in range(len(wanted["nics"])))}
    device = re.compile(r"(ethernet\d+|(?:scsi|sata|ide|nvme)\d+:\d+)\.present")
    found = ((key, device.fullmatch(key)) for key in vmx)
    return {key: FALSE for key, it in found if it and it[1] not in own and vmx[key].upper() == TRUE}


def _vmdk(vmx: Mapping[str, str]) -> str:
    """Return what a guest's disk is called at the moment."""
    names = (vmx.get(f"{slot}.filename", "") for slot in SLOTS.values())
    form = re.compile(rf"{DISK.removesuffix('.vmdk')}(-\d{{6}})?\.vmdk")
    # The newest snapshot is what is in use, should both buses have had it.
    return max((name for name in names if form.fullmatch(name)), default=DISK, key=len)


# Guests ------------------------------------------------------------------------------------------


def folder(wanted: Props) -> str:
    """Return where everything of a guest lies."""
    return f"{wanted['store']}/guests/{wanted['name']}"


def _gone(wanted: Props) -> str:
    """Return where a guest goes before it is removed, so that no half of it is in the way."""
    return f"{wanted['store']}/guests/.{wanted['owner']}.gone"


@dataclass(frozen=True)
class Found:
    """A guest's folder as it is."""

    owner: str
    text: str
    """Its .vmx."""
    listed: Mapping[str, str]
    on: bool
    vmx: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vmx", parsed(self.text))

    @property
    def saved(self) -> bool:
        """Whether it was suspended: VMware names the file that it goes on from."""
        return bool(self.vmx.get("checkpoint.vmstate")) and not self.on


class GuestDriver:
    """See `Driver`. Its answer to a glance is that to a look: three commands that are quick.

    That a guest is paused, vmrun does not tell.
    """

    replaced_by: tuple[str, ...] = ("name", "image", "disk_gib", "store", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = str(wanted["name"])
        if not NAME.fullmatch(name):
            return (
                f"guest {name!r}: VMware's commands and systemd take it as a path, so it has to have 1 "
                "to 64 ASCII letters, digits and ._- and begin with a letter or digit: rename it"
            )
        console = wanted["console"]
        texts = [
            (wanted["iso"], "medium"),
            (wanted["image"], "medium"),
            (console["listen"], "address"),
        ]
        found = (_unquotable(text, what) for text, what in texts)
        wrong = next(filter(None, found), "") or _strange(wanted) or _bad_store(wanted)
        if wrong:
            return wrong
        if _unquotable(console["password"], ""):
            return "its console's password holds a letter beyond ASCII's printable ones"
        return next(self._unsuited(wanted), "")

    def _unsuited(self, wanted: Props) -> Iterator[str]:
        """Yield what of it Workstation does not have."""
        if wanted["disk_bus"] not in {*SLOTS, ""}:
            yield f"disk_bus {wanted['disk_bus']}: Workstation has {', '.join(SLOTS)} here"
        for nic in wanted["nics"]:
            if nic["model"] not in {*NICS, ""}:
                yield f"NIC model {nic['model']}: Workstation has {', '.join(NICS)}"
            if not MAC.fullmatch(str(nic["mac"])):
                yield f"{nic['mac']!r} is no MAC"
            if not PLUG.fullmatch(str(nic["network"])):
                yield f"{nic['network']!r} is no network of Workstation's"
        if len(wanted["nics"]) > MOST_NICS:
            yield f"{len(wanted['nics'])} NICs: Workstation gives a guest {MOST_NICS} at most"
        if wanted["cores"] > MOST_CORES:
            yield f"{wanted['cores']} cores: Workstation gives a guest {MOST_CORES} at most"
        if wanted["memory_mib"] % 4:
            yield f"{wanted['memory_mib']} MiB: Workstation gives memory in steps of 4 MiB"

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name = wanted["name"]
        found = self._found(shell, wanted)
        if found.owner != wanted["owner"] or not found.text:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if self._lost(wanted, found):
            return Seen(ok=False, text=f"guest {name}: its disk is not there any more")
        try:
            plugs = self._plugs(wanted, found.listed, shell)
        except DriverError as unplugged:
            return Seen(ok=False, text=str(unplugged))
        if other := self._other(wanted, found, plugs):
            return Seen(ok=False, text=f"guest {name} is not set up as the stack says: {other}")
        if self._starts_with_host(wanted, found) is not wanted["autostart"]:
            return Seen(ok=False, text=f"guest {name}: whether it starts with its host has changed")
        state = "running" if found.on else "suspended" if found.saved else "off"
        return Seen(ok=found.on, text=f"guest {name} is {state}")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        found = self._found(shell, wanted)
        if found.owner != wanted["owner"]:
            self._take(shell, wanted, found)
        plugs = self._plugs(wanted, found.listed, shell)
        lost = self._lost(wanted, found)
        other = "its disk is gone" if lost else self._other(wanted, found, plugs)
        if other:
            found = self._off(shell, wanted, found, other, lost=lost)
            if lost:
                self._make_disk(shell, wanted, found)
            self._write(shell, wanted, found, plugs, lost=lost)
        if not found.on:
            self._start(shell, wanted)
        self._start_with_host(shell, wanted, found)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        found = self._found(shell, wanted)
        if found.owner == wanted["owner"]:
            if found.on:
                self._stop_hard(shell, wanted)
            _must(shell, "rm", "-rf", "--one-file-system", _gone(wanted))
            # At once: a folder that lost its mark on the way would be taken for a stranger's.
            _must(shell, "mv", "-T", folder(wanted), _gone(wanted))
        if found.owner in {"", wanted["owner"]} and self._starts_with_host(wanted, found):
            _must(shell, "systemctl", "disable", UNIT.format(name=wanted["name"]))
        _must(shell, "rm", "-rf", "--one-file-system", _gone(wanted))

    # What it is

    def _found(self, shell: Shell, wanted: Props) -> Found:
        home = folder(wanted)
        files = _read(shell, f"{home}/{MARK}", f"{home}/{VMX}")
        running = _vmrun(shell, "list").splitlines()
        return Found(
            owner=files.get(f"{home}/{MARK}", "").strip(),
            text=files.get(f"{home}/{VMX}", ""),
            listed=_listed(shell, home, CLAIMS, WANTS),
            on=f"{home}/{VMX}" in running,
        )

    def _lost(self, wanted: Props, found: Found) -> bool:
        home = folder(wanted)
        needed = {f"{home}/{COMPLETE}", f"{home}/{DISK}"}
        return has_disk(wanted) and not needed <= found.listed.keys()

    def _plugs(self, wanted: Props, listed: Mapping[str, str], shell: Shell) -> list[str]:
        """Return the networks of its NICs, as their host calls them."""
        plugs = []
        for nic in wanted["nics"]:
            network = str(nic["network"])
            vmnet = _number(listed, network[3:]) if network.startswith("of ") else network
            if not vmnet:
                raise DriverError(
                    f"guest {wanted['name']}: its network is not there on {shell.name}"
                )
            plugs.append(vmnet)
        return plugs

    def _other(self, wanted: Props, found: Found, plugs: Sequence[str]) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        has = found.vmx
        for key, value in settings(wanted, plugs, _vmdk(has)).items():
            if not _same(has.get(key.lower(), ""), value):
                return f"{key} is {has.get(key.lower(), 'not set')!r} and not {value!r}"
        for key in _more(wanted, has):
            return f"{key} is {TRUE!r}"
        locked = any(has.get(f"remotedisplay.vnc.{key}") for key in ("password", "key"))
        if locked is not bool(_secrets(wanted)["RemoteDisplay.vnc.password"]):
            return "whether its screen asks for a password has changed"
        return ""

    # What is done to it

    def _take(self, shell: Shell, wanted: Props, found: Found) -> None:
        """Mark the guest's folder, which is new or empty, as the owner's."""
        home = folder(wanted)
        inside = [each for each in found.listed if each.startswith(f"{home}/")]
        if any(not each.startswith(f"{home}/{MARK}.") for each in inside):
            raise DriverError(
                f"{home} on {shell.name} is not this lab's and is left alone: rename the guest in the "
                f"stack, or remove that folder there"
            )
        _must(shell, "mkdir", "-p", f"{wanted['store']}/guests")
        _must(shell, "mkdir", "-p", "-m", "700", home)
        owner = f"{wanted['owner']}\n".encode()
        shell.put(owner, f"{home}/{MARK}", mode=0o600, timeout_s=COMMAND_S)

    def _off(self, shell: Shell, wanted: Props, found: Found, why: str, *, lost: bool) -> Found:
        """Return the guest as it is once it is off, for a change."""
        if not found.on and (lost or not found.saved):
            return found
        name = wanted["name"]
        say(f"{name}: stopped for a change: {why}")
        if found.saved:
            # What it holds in memory would not fit to other hardware; so it goes on, and shuts down.
            self._start(shell, wanted)
        if not lost and self._shuts_down(shell, wanted):
            return self._found(shell, wanted)
        if not lost:
            say(f"{name}: it did not shut down by itself, and is switched off")
        self._stop_hard(shell, wanted)
        return self._found(shell, wanted)

    def _shuts_down(self, shell: Shell, wanted: Props) -> bool:
        """Ask it to shut down; VMware asks its Tools in the guest, which may not be there."""
        argv = ["vmrun", "-T", "ws", "stop", f"{folder(wanted)}/{VMX}", "soft"]
        with suppress(Unreachable, NotReady):
            shell.run(argv, timeout_s=STOP_S)
            return self._ends(shell, wanted)
        return False

    def _stop_hard(self, shell: Shell, wanted: Props) -> None:
        argv = ["vmrun", "-T", "ws", "stop", f"{folder(wanted)}/{VMX}", "hard"]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if not self._ends(shell, wanted):
            raise _refused(shell, argv, done)

    def _ends(self, shell: Shell, wanted: Props) -> bool:
        """Whether it is off, and VMware done with its settings."""
        home = folder(wanted)
        if f"{home}/{VMX}" in _vmrun(shell, "list").splitlines():
            return False

        def let_go() -> Seen:
            held = f"{home}/{VMX}.lck" in _listed(shell, home)
            return Seen(ok=not held, text="VMware has its settings open")

        # A lock that a crash left would be there for ever, and means nothing.
        with suppress(NotReady):
            wait_for(wanted["name"], let_go, deadline_s=OFF_S)
        return True

    def _make_disk(self, shell: Shell, wanted: Props, found: Found) -> None:
        """Make the disk anew, and clear away what belonged to another one: snapshots, saved memory."""
        home = folder(wanted)
        keep = {home, f"{home}/{MARK}", f"{home}/{VMX}"}
        old = sorted(
            each for each in found.listed if each.startswith(f"{home}/") and each not in keep
        )
        # What says that it is complete goes first.
        old.sort(key=lambda each: not each.endswith(f"/{COMPLETE}"))
        if old:
            _must(shell, "rm", "-rf", "--one-file-system", *old)
        path, size = f"{home}/{DISK}", wanted["disk_gib"]
        if wanted["image"]:
            form = ["-O", "vmdk", "-o", "adapter_type=lsilogic,subformat=monolithicSparse"]
            _must(shell, "qemu-img", "convert", *form, wanted["image"], path, timeout_s=COPY_S)
            if size << 30 > self._capacity(shell, wanted["image"]):
                _must(shell, "vmware-vdiskmanager", "-x", f"{size}GB", path, timeout_s=COPY_S)
        else:
            how = ["-c", "-s", f"{size}GB", "-a", "lsilogic", "-t", "0"]
            _must(shell, "vmware-vdiskmanager", *how, path, timeout_s=COPY_S)
        _must(shell, "touch", f"{home}/{COMPLETE}")

    def _capacity(self, shell: Shell, image: str) -> int:
        told = _must(shell, "qemu-img", "info", "--output=json", image)
        return int(json.loads(told)["virtual-size"])

    def _write(
        self, shell: Shell, wanted: Props, found: Found, plugs: Sequence[str], *, lost: bool
    ) -> None:
        vmdk = DISK if lost else _vmdk(found.vmx)
        new = settings(wanted, plugs, vmdk) | _more(wanted, found.vmx) | _secrets(wanted)
        if lost:
            new["checkpoint.vmState"] = ""
        text = merged(found.text, new).encode()
        # For root alone: it holds the password of its screen.
        shell.put(text, f"{folder(wanted)}/{VMX}", mode=0o600, timeout_s=COMMAND_S)

    def _start(self, shell: Shell, wanted: Props) -> None:
        vmx = f"{folder(wanted)}/{VMX}"
        argv = ["vmrun", "-T", "ws", "start", vmx, "nogui"]
        with _networks:
            done = shell.run(argv, timeout_s=START_S)
        # A start that was cut off and went on is a start.
        if _failed(done) and vmx not in _vmrun(shell, "list").splitlines():
            raise _refused(shell, argv, done)

    # Whether it starts with its host, for which Workstation on Linux has nothing.

    def _starts_with_host(self, wanted: Props, found: Found) -> bool:
        return f"{WANTS}/{UNIT.format(name=wanted['name'])}" in found.listed

    def _start_with_host(self, shell: Shell, wanted: Props, found: Found) -> None:
        on = wanted["autostart"]
        if self._starts_with_host(wanted, found) is on:
            return
        if on:
            text = UNIT_TEXT.format(store=wanted["store"], vmx=VMX)
            shell.put(text.encode(), UNIT_FILE, timeout_s=COMMAND_S)
            _must(shell, "systemctl", "daemon-reload")
        unit = UNIT.format(name=wanted["name"])
        _must(shell, "systemctl", "enable" if on else "disable", unit)


DRIVERS: dict[str, Driver] = {
    "network": NetworkDriver(),
    "medium": FileMediumDriver(_no_medium),
    "guest": GuestDriver(),
}
