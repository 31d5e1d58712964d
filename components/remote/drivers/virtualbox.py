"""Guests, networks and media of VirtualBox 7 on a Linux host, by `VBoxManage` as root.

Whose is what: a guest has the owner's UUID as its own, so that it is marked from its first moment; a
network, which has no description, is named by VirtualBox' extra data under the owner; media and disks
lie in the lab's own folder. Facts: VBoxManage(1) of 7.x and what its sources print. Port forwarding,
snapshots and shared folders are left out.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.remote import waiting
from components.remote.driver import COMMAND_S, DriverError, cause_in, refusal
from components.remote.interrupt import CANCELLED
from components.remote.media import send, wrong_sum
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.remote.driver import Driver, Props
    from components.remote.shell import Result, Shell

COPY_S = 1800.0
"""Converting or copying a disk under emulation, seconds."""
UPLOAD_S = 900.0
LOCK_S = 30.0
"""How long a guest's session may take to be given up, seconds: it is held a little after power-off."""
STOP_S = 60.0
"""How long a guest may take to switch itself off before its settings change, seconds."""
SETTLE_S = 120.0
"""How long a guest may be between two states, seconds: saving gigabytes takes its time."""
UNIT = "nestlab-virtualbox@{owner}.service"
UNIT_FILE = "/etc/systemd/system/nestlab-virtualbox@.service"
UNIT_TEXT = """\
[Unit]
Description=VirtualBox guest %i of nestlab
After=network-online.target vboxdrv.service virtualbox.service
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
# VirtualBox' settings of root; systemd sets no home for system services.
Environment=HOME=/root
# VirtualBox' own server is started by the first guest and serves all.
KillMode=process
ExecStart=/usr/bin/VBoxManage startvm %i --type headless

[Install]
WantedBy=multi-user.target
"""
RANGES = "/etc/vbox/networks.conf"
"""What addresses host-only interfaces may have, since 6.1.28; without the file only 192.168.56.0/21."""
DEFAULT_RANGE = "* 192.168.56.0/21\n"
KEY = "nestlab/{owner}"
"""Extra data of VirtualBox as a whole that says which network is the owner's."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOCKED = ("is already locked", "while it is locked")
GONE = "Could not find a registered machine"
INACCESSIBLE = "<inaccessible>"
"""How VirtualBox calls a guest whose settings it can't read."""
NO_FILE = ("VERR_FILE_NOT_FOUND", "VERR_PATH_NOT_FOUND", "VBOX_E_OBJECT_NOT_FOUND")
OFF = frozenset({"poweroff", "aborted", "teleported"})
SAVED = frozenset({"saved", "aborted-saved"})
ON = frozenset({"running", "paused", "gurumeditation"})
CAUSES = {
    **dict.fromkeys(
        ("VERR_VMX_IN_VMX_ROOT_MODE", "VERR_SVM_IN_USE"),
        "KVM holds the CPU's extension (Linux 6.12 and later: from the moment its module is loaded): "
        "`modprobe -r kvm_intel kvm_amd kvm` there, then `pulumi up`",
    ),
    "VERR_SVM_HOST_SVME_NOT_ENABLED": "since 7.2.10 VirtualBox wants KVM to switch the extension on, if "
    "KVM is loaded at all: take kvm.enable_virt_at_load=0 away there, or unload kvm and kvm_amd",
    **dict.fromkeys(
        ("VERR_VMX_NO_VMX", "VERR_SVM_NO_SVM", "VERR_SVM_DISABLED", "VERR_NEM_NOT_AVAILABLE"),
        "the machine has no virtualization of its own: the host it stands on has to nest",
    ),
    **dict.fromkeys(
        ("VERR_VM_DRIVER_NOT_INSTALLED", "VERR_VM_DRIVER_NOT_ACCESSIBLE"),
        "VirtualBox' kernel module is not loaded: `/sbin/vboxconfig` there says why",
    ),
    **dict.fromkeys(
        LOCKED,
        "somebody else has it open: close VirtualBox' windows, or free it with "
        "`VBoxManage startvm UUID --type emergencystop`",
    ),
    "EnableStaticIPConfig": f"VirtualBox allows host-only addresses of certain ranges: see {RANGES}",
}
"""What is behind a message of VirtualBox, and the way out."""

_creating = threading.Lock()
"""Only one host-only interface at a time: VirtualBox chooses its name."""


# What VBoxManage is told and says ----------------------------------------------------------------


def _run(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> Result:
    """Run VBoxManage; wait while another session, which may be our last command's, has the guest."""
    began = time.monotonic()
    while True:
        done = shell.run(["VBoxManage", *words], timeout_s=timeout_s)
        if done.ok or not any(each in done.err for each in LOCKED):
            return done
        if time.monotonic() - began > LOCK_S or CANCELLED.wait(waiting.POLL_S):
            return done


def _must(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    done = _run(shell, *words, timeout_s=timeout_s)
    if not done.ok:
        raise _refused(shell, ["VBoxManage", *words], done)
    return done.out


def _plain(shell: Shell, *argv: str, timeout_s: float = COMMAND_S) -> str:
    done = shell.run(argv, timeout_s=timeout_s)
    if not done.ok:
        raise _refused(shell, argv, done)
    return done.out


def _refused(shell: Shell, argv: Sequence[str], done: Result) -> DriverError:
    return refusal(shell, argv, said(done), cause_in(done.err, CAUSES))


def said(done: Result) -> str:
    """Return VBoxManage's message; its last lines only name the place in its source."""
    start = "VBoxManage: error: "
    lines = [line.removeprefix(start) for line in done.err.splitlines() if line.startswith(start)]
    told = [line for line in lines if not line.startswith(("Details: ", "Context: "))]
    return " ".join(told) or done.said


_TEXT = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"({_TEXT}|[^\"=\n]+)=({_TEXT}|[^\n]*)[^\n]*", re.DOTALL)


def pairs(text: str) -> dict[str, str]:
    r"""Return what ``showvminfo --machinereadable`` printed.

    A key is quoted or not, a text is quoted with ``\"`` and ``\\`` in it and may hold line breaks (a
    description does), a number is bare, and some lines go on behind the closing quote.
    """
    found = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            end = text.find("\n", at)
        else:
            found[_unquoted(pair[1])] = _unquoted(pair[2])
            end = pair.end()
        at = len(text) if end < 0 else end + 1
    return found


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def blocks(text: str, first: str) -> list[dict[str, str]]:
    """Return the objects of a list of VBoxManage's; each begins with the field ``first``."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if key == first:
            found.append({})
        if colon and found:
            found[-1].setdefault(key, value.strip())
    return found


def _extra(shell: Shell, owner: str) -> str:
    """Return what is remembered of the owner's network, empty for nothing."""
    told = _must(shell, "getextradata", "global", KEY.format(owner=owner))
    return told.removeprefix("Value: ").rstrip("\n") if told.startswith("Value: ") else ""


def _remember(shell: Shell, owner: str, *value: str) -> None:
    _must(shell, "setextradata", "global", KEY.format(owner=owner), *value)


def _unfit(text: str, what: str) -> str:
    if not text or len(text.encode("utf-8", "surrogatepass")) > 120:  # noqa: PLR2004 - a file's name, with an ending
        return f"{what} has to have 1 to 120 bytes: rename it"
    if any(not letter.isprintable() and letter != " " for letter in text):
        return f"{what} holds a line break or another letter that does not print: rename it"
    return ""


def _strange(wanted: Props) -> str:
    if UUID.fullmatch(str(wanted["owner"])):
        return ""
    return f"its owner {wanted['owner']!r} is no UUID, by which it would be known again"


# Networks ----------------------------------------------------------------------------------------


DOMAIN = 15
"""DHCP option of a domain's name (RFC 2132)."""


@dataclass(frozen=True)
class Dhcp:
    """A DHCP server of VirtualBox, as it is or as it should be."""

    address: str
    lower: str
    upper: str
    mask: str
    domains: Mapping[str, str]
    """What each machine is told its domain is, by its MAC."""
    fixed: Mapping[str, str]
    """Addresses by MAC, lower case with colons."""
    enabled: bool = True

    def covers(self, wanted: Dhcp) -> bool:
        """Whether it does what ``wanted`` says."""
        return self == wanted


def dhcp_wanted(wanted: Props) -> Dhcp | None:
    """Return the DHCP server that hands out the planned addresses; None for none.

    It has an address of its own, beside the host's: the subnet's last one that is not planned.
    """
    if not wanted["dhcp"]:
        return None
    fixed = {str(one["mac"]).lower(): str(one["address"]) for one in wanted["reservations"]}
    subnet = IPv4Network(wanted["subnet"])
    own = IPv4Address(wanted["dhcp_end"])
    while str(own) in {*fixed.values(), wanted["gateway"]}:
        own -= 1
    if own <= IPv4Address(wanted["dhcp_start"]):
        raise DriverError(
            f"network {wanted['name']}: no address of {subnet} is left for VirtualBox' DHCP server, "
            "which needs one of its own: take a larger subnet"
        )
    # Router, name server and domain of all are VirtualBox' own on a NAT network: it sets them whenever
    # the network starts (NATNetworkImpl.cpp, i_updateDnsOptions). What one machine is told it leaves.
    domain = str(wanted["domain"])
    domains = dict.fromkeys(fixed, domain) if domain else {}
    return Dhcp(str(own), wanted["dhcp_start"], str(own - 1), str(subnet.netmask), domains, fixed)


def dhcp_found(text: str, network: str) -> Dhcp | None:
    """Return the server of ``network`` in what ``list dhcpservers`` printed."""
    own = [part for part in re.split(r"(?m)^(?=NetworkName:)", text) if part.strip()]
    for part in own:
        fields = blocks(part, "NetworkName")[0]
        if fields["NetworkName"] != network:
            continue
        hosts = re.split(r"(?m)^(?=Individual Config:)", part)[1:]
        fixed, domains = {}, {}
        for host in hosts:
            mac = re.search(r"MAC ([0-9A-Fa-f:]{17})", host)
            address = re.search(r"Fixed Address:\s+([\d.]+)", host)
            if mac:
                fixed[mac[1].lower()] = address[1] if address else ""
                if domain := re.search(rf"(?m)^\s+{DOMAIN}/legacy: (.*)$", host):
                    domains[mac[1].lower()] = domain[1]
        return Dhcp(
            fields.get("Dhcpd IP", ""),
            fields.get("LowerIPAddress", ""),
            fields.get("UpperIPAddress", ""),
            fields.get("NetworkMask", ""),
            domains,
            fixed,
            fields.get("Enabled") == "Yes",
        )
    return None


def uplink(shell: Shell) -> str:
    """Return the device of the host's default route, empty for none."""
    found = re.search(r"\bdev (\S+)", _plain(shell, "ip", "-o", "route", "show", "default"))
    return found[1] if found else ""


class NetworkDriver:
    """NAT networks, host-only interfaces and devices to bridge to; see `Driver`."""

    replaced_by: tuple[str, ...] = ("name", "mode", "bridge", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = str(wanted["name"])
        if wrong := _unfit(name, f"network {name!r}") or _strange(wanted):
            return wrong
        if '"' in name or "\\" in name or name != name.strip():
            return f"network {name!r} holds a quote, a backslash or an outer blank: rename it"
        if wanted["mode"] not in {"nat", "isolated", "bridge"}:
            return f"VirtualBox has no networks of mode {wanted['mode']}: nat, isolated, bridge"
        try:
            dhcp_wanted(wanted)
        except (DriverError, ValueError) as wrong_plan:
            return str(wrong_plan)
        return ""

    def called(self, wanted: Props) -> str:
        """Return how a guest is told of it: what it is plugged into, and which of those."""
        if wanted["mode"] == "bridge":
            return f"bridged {wanted['bridge']}"
        if wanted["mode"] == "nat":
            return f"natnetwork {wanted['name']}"
        return f"hostonly {wanted['owner']}"

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name, mode = wanted["name"], wanted["mode"]
        if mode == "bridge":
            missing = self._missing(shell, wanted["bridge"])
            return Seen(ok=not missing, text=missing or f"network {name} is its host's own")
        mark = _extra(shell, wanted["owner"])
        found, wrong = (
            (self._nat(shell, name), self._nat_wrong)
            if mode == "nat"
            else (self._interface(shell, mark), self._interface_wrong)
        )
        if found is None or not mark:
            return Seen(ok=False, text=f"network {name} is not there any more")
        server = dhcp_found(_must(shell, "list", "dhcpservers"), self._of(wanted, mark))
        other = wrong(wanted, found) or self._dhcp_wrong(dhcp_wanted(wanted), server)
        if other:
            return Seen(ok=False, text=f"network {name} is not set up as the stack says: {other}")
        return Seen(ok=True, text=f"network {name} is there")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        if wanted["mode"] == "bridge":
            if missing := self._missing(shell, wanted["bridge"]):
                raise DriverError(f"network {wanted['name']} on {shell.name}: {missing}")
        elif wanted["mode"] == "nat":
            self._make_nat(shell, wanted)
        else:
            self._make_interface(shell, wanted)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        mark = "" if wanted["mode"] == "bridge" else _extra(shell, wanted["owner"])
        if not mark:
            return
        network = self._of(wanted, mark)
        if dhcp_found(_must(shell, "list", "dhcpservers"), network):
            _must(shell, "dhcpserver", "remove", f"--network={network}")
        if wanted["mode"] == "nat":
            if self._nat(shell, wanted["name"]):
                _must(shell, "natnetwork", "remove", "--netname", wanted["name"])
        elif self._interface(shell, mark):
            _must(shell, "hostonlyif", "remove", mark)
        _remember(shell, wanted["owner"])

    def _of(self, wanted: Props, mark: str) -> str:
        """Return what VirtualBox' DHCP servers call the network."""
        return wanted["name"] if wanted["mode"] == "nat" else f"HostInterfaceNetworking-{mark}"

    def _missing(self, shell: Shell, device: str) -> str:
        device = device or uplink(shell)
        if not device:
            return (
                "its host has no default route, whose device it would join: name one with bridge:"
            )
        names = [one["Name"] for one in blocks(_must(shell, "list", "bridgedifs"), "Name")]
        if device in names:
            return ""
        return f"VirtualBox knows no device {device} to join, it knows {', '.join(names) or 'none'}"

    def _nat(self, shell: Shell, name: str) -> dict[str, str] | None:
        listed = blocks(_must(shell, "list", "--long", "natnets"), "Name")
        return next((one for one in listed if one["Name"] == name), None)

    def _nat_wrong(self, wanted: Props, found: Mapping[str, str]) -> str:
        told = {"Network": wanted["subnet"], "Enabled": "Yes", "DHCP Server": _yes(wanted["dhcp"])}
        for key, value in told.items():
            if found.get(key) != value:
                return f"{key} is {found.get(key)} and not {value}"
        return ""

    def _interface(self, shell: Shell, device: str) -> dict[str, str] | None:
        listed = blocks(_must(shell, "list", "hostonlyifs"), "Name")
        return next((one for one in listed if one["Name"] == device), None)

    def _interface_wrong(self, wanted: Props, found: Mapping[str, str]) -> str:
        has = (found.get("IPAddress"), found.get("NetworkMask"))
        if has == (wanted["gateway"], str(IPv4Network(wanted["subnet"]).netmask)):
            return ""
        return f"its host's address is {has[0]} ({has[1]})"

    def _dhcp_wrong(self, wanted: Dhcp | None, found: Dhcp | None) -> str:
        if wanted is None:
            return "a DHCP server answers" if found and found.enabled else ""
        if found is None:
            return "its DHCP server is gone"
        return "" if found.covers(wanted) else "its DHCP server hands out other addresses"

    def _make_nat(self, shell: Shell, wanted: Props) -> None:
        name, owner = wanted["name"], wanted["owner"]
        found = self._nat(shell, name)
        if not _extra(shell, owner):
            if found or dhcp_found(_must(shell, "list", "dhcpservers"), name):
                raise _foreign(shell, f"NAT network {name}", f"natnetwork remove --netname {name}")
            # Before it is made: a network has no room for a mark.
            _remember(shell, owner, name)
        how = ["--network", wanted["subnet"], "--enable", "--dhcp", _on(wanted["dhcp"])]
        if found is None:
            _must(shell, "natnetwork", "add", "--netname", name, *how)
        elif self._nat_wrong(wanted, found):
            _must(shell, "natnetwork", "modify", "--netname", name, *how)
        self._serve(shell, wanted, name)

    def _make_interface(self, shell: Shell, wanted: Props) -> None:
        with _creating:
            device = self._created(shell, wanted["owner"])
        self._allow(shell, wanted["subnet"])
        found = self._interface(shell, device) or {}
        if self._interface_wrong(wanted, found):
            mask = str(IPv4Network(wanted["subnet"]).netmask)
            address = ["--ip", wanted["gateway"], "--netmask", mask]
            _must(shell, "hostonlyif", "ipconfig", device, *address)
        self._serve(shell, wanted, self._of(wanted, device))

    def _created(self, shell: Shell, owner: str) -> str:
        """Return the owner's interface, made if need be.

        VirtualBox names it, by the first number that is free. That name is remembered before, so that
        one whose making was cut off is found again.
        """
        mark = _extra(shell, owner)
        names = [one["Name"] for one in blocks(_must(shell, "list", "hostonlyifs"), "Name")]
        if mark in names:
            return mark
        number = next(n for n in range(len(names) + 1) if f"vboxnet{n}" not in names)
        expected = f"vboxnet{number}"
        _remember(shell, owner, expected)
        made = re.search(r"Interface '(.+)' was", _must(shell, "hostonlyif", "create"))
        device = made[1] if made else expected
        if device != expected:
            _remember(shell, owner, device)
        return device

    def _allow(self, shell: Shell, subnet: str) -> None:
        """Have VirtualBox allow addresses of ``subnet`` on host-only interfaces."""
        line = f"* {subnet}\n"
        has = shell.run(["cat", RANGES])
        if line in has.out.splitlines(keepends=True):
            return
        _plain(shell, "mkdir", "-p", str(Path(RANGES).parent))
        # The file replaces the default. Appended, as other networks do at the same time.
        text = line if has.out.strip() else DEFAULT_RANGE + line
        done = shell.run(["tee", "-a", RANGES], stdin=text.encode())
        if not done.ok:
            raise _refused(shell, ["tee", "-a", RANGES], done)

    def _serve(self, shell: Shell, wanted: Props, network: str) -> None:
        """Have the network's DHCP server hand out the planned addresses."""
        server = dhcp_wanted(wanted)
        found = dhcp_found(_must(shell, "list", "dhcpservers"), network)
        which = f"--network={network}"
        if server is None:
            if found:
                _must(shell, "dhcpserver", "remove", which)
            return
        if found and found.covers(server):
            return
        words = [
            f"--server-ip={server.address}",
            f"--netmask={server.mask}",
            f"--lower-ip={server.lower}",
            f"--upper-ip={server.upper}",
            "--enable",
        ]
        for mac, address in server.fixed.items():
            words += [f"--mac-address={mac}", f"--fixed-address={address}"]
            if domain := server.domains.get(mac):
                words += [f"--set-opt={DOMAIN}", domain]
            elif found and mac in found.domains:
                words.append(f"--del-opt={DOMAIN}")
        for mac in found.fixed if found else ():
            if mac not in server.fixed:
                words += [f"--mac-address={mac}", "--remove-config"]
        _must(shell, "dhcpserver", "modify" if found else "add", which, *words)
        if found:
            # It reads its settings when it starts; one that does not run has nothing to forget.
            _run(shell, "dhcpserver", "restart", which)


def _foreign(shell: Shell, what: str, command: str) -> DriverError:
    return DriverError(
        f"{what} on {shell.name} is not this lab's and is left alone: rename it in the stack, or "
        f"remove it there with `VBoxManage {command}`"
    )


def _on(flag: object) -> str:
    return "on" if flag else "off"


def _yes(flag: object) -> str:
    return "Yes" if flag else "No"


# Media -------------------------------------------------------------------------------------------


class MediumDriver:
    """ISOs as they are, and disk images as a VDI that guests' disks are linked to; see `Driver`.

    VirtualBox reads some of qcow2 and writes none of it, so qemu-img converts. A base has the
    medium's size and sum in its name: another content is another base, beside the one in use.
    """

    replaced_by: tuple[str, ...] = ("name", "store", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = str(wanted["name"])
        if wrong := _unfit(name, f"medium {name!r}"):
            return wrong
        if "/" in name or name in {".", ".."}:
            return f"medium {name!r} is no name of a file: rename it"
        return ""

    def called(self, wanted: Props) -> str:
        """Return its path there, or that of the base that is made of it."""
        path = f"{wanted['store']}/{wanted['name']}"
        return path if _is_iso(wanted) else f"{path}.{_tag(wanted)}.vdi"

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`: by its size, which a base made of it does not share."""
        name, path = wanted["name"], self.called(wanted)
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        expected = str(wanted["size"])
        if not size:
            return Seen(ok=False, text=f"{path} is not there any more")
        if _is_iso(wanted) and size != expected:
            return Seen(ok=False, text=f"{path} has {size} bytes, and {name} has {expected}")
        return Seen(ok=True, text=f"{path} is there")

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        seen = self.glance(shell, wanted)
        if not (seen.ok and _is_iso(wanted)):
            return seen
        wrong = wrong_sum(shell, wanted, self.called(wanted), timeout_s=UPLOAD_S)
        return Seen(ok=False, text=wrong) if wrong else seen

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        path = f"{wanted['store']}/{wanted['name']}"
        if not self.look(shell, wanted).ok:
            _plain(shell, "mkdir", "-p", wanted["store"])
            self._upload(shell, wanted, path)
            if not _is_iso(wanted):
                self._convert(shell, wanted, path)
        for base in self._bases(shell, wanted):
            if base != self.called(wanted) and _closed(shell, "disk", base):
                _plain(shell, "rm", "-f", base)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        path = f"{wanted['store']}/{wanted['name']}"
        for base in self._bases(shell, wanted):
            _close(shell, "disk", base)
            _plain(shell, "rm", "-f", base)
        if _is_iso(wanted):
            _close(shell, "dvd", path)
        _plain(shell, "rm", "-f", path)

    def _upload(self, shell: Shell, wanted: Props, path: str) -> None:
        size = shell.run(["stat", "-c", "%s", path]).out.strip()
        if size != str(wanted["size"]) or wrong_sum(shell, wanted, path, timeout_s=UPLOAD_S):
            send(shell, wanted, path, timeout_s=UPLOAD_S)

    def _convert(self, shell: Shell, wanted: Props, path: str) -> None:
        base = self.called(wanted)
        part = f"{base}.part"
        _plain(shell, "qemu-img", "convert", "-O", "vdi", path, part, timeout_s=COPY_S)
        _plain(shell, "mv", "-f", part, base)

    def _bases(self, shell: Shell, wanted: Props) -> list[str]:
        """Return what was made of the medium, as it was at any time, and what it was made from."""
        if _is_iso(wanted):
            return []
        store = wanted["store"]
        form = re.compile(rf"{re.escape(wanted['name'])}(\.[0-9a-f]{{8}}\.vdi(\.part)?)?")
        listed = shell.run(["ls", "-1A", store]).out.splitlines()
        return [f"{store}/{name}" for name in listed if form.fullmatch(name)]


def _is_iso(wanted: Props) -> bool:
    return str(wanted["name"]).endswith(".iso")


def _tag(wanted: Props) -> str:
    of = f"{wanted['size']} {str(wanted['sha256']).lower()}"
    return hashlib.sha256(of.encode()).hexdigest()[:8]


def _closed(shell: Shell, what: str, path: str) -> bool:
    """Whether VirtualBox has forgotten the medium at ``path``; it refuses one that is in use."""
    if what == "disk" and not path.endswith(".vdi"):
        return True
    done = _run(shell, "closemedium", what, path)
    return done.ok or any(mark in done.err for mark in NO_FILE)


def _close(shell: Shell, what: str, path: str) -> None:
    if what == "disk" and not path.endswith(".vdi"):
        return
    done = _run(shell, "closemedium", what, path)
    if not done.ok and not any(mark in done.err for mark in NO_FILE):
        raise _refused(shell, ["VBoxManage", "closemedium", what, path], done)


# Guests ------------------------------------------------------------------------------------------

NICS = {"e1000": "82540EM", "virtio": "virtio", "pcnet": "Am79C973"}
BOOT = {"cdrom": "dvd", "hd": "disk", "network": "net"}
POSITIONS = 4
"""Places in VirtualBox' boot order."""
CHIPSETS = {"pc": "piix3", "q35": "ich9"}
MOST_NICS = {"pc": 8, "q35": 36}
MOST_CORES = 64
VIDEO = {"vga": ("vboxvga", "vboxvga"), "none": ("none", "null")}
"""Graphics controllers, as they are given and as they are shown."""
PLUGS = {"natnetwork": "nat-network", "hostonly": "hostonlyadapter", "bridged": "bridgeadapter"}
"""What says which network, for each way to be plugged in: the option and what showvminfo calls it."""


@dataclass(frozen=True)
class Controller:
    """A disk controller of a guest."""

    name: str
    bus: str
    model: str
    shown: str


CONTROLLERS = {
    "sata": Controller("SATA", "sata", "IntelAhci", "IntelAhci"),
    "ide": Controller("IDE", "ide", "PIIX4", "PIIX4"),
    "scsi": Controller("SCSI", "scsi", "LsiLogic", "LsiLogic"),
    "virtio": Controller("VirtIO", "virtio", "VirtIO", "VirtioSCSI"),
}
OWN = frozenset(one.name for one in CONTROLLERS.values())


@dataclass(frozen=True)
class Drive:
    """A disk or a CD of a guest, where it is plugged in."""

    controller: Controller
    port: int
    kind: Literal["hdd", "dvddrive"]
    path: str

    @property
    def key(self) -> str:
        """What showvminfo calls its place."""
        return f"{self.controller.name}-{self.port}-0"


def folder(wanted: Props) -> str:
    """Return where everything of a guest lies."""
    return f"{wanted['store']}/guests/{wanted['owner']}"


def disk(wanted: Props) -> str:
    """Return the path of a guest's disk, empty for none."""
    return f"{folder(wanted)}/disk.vdi" if wanted["image"] or wanted["disk_gib"] else ""


def drives(wanted: Props) -> list[Drive]:
    """Return what a guest has in its drives.

    CDs stay off SCSI and virtio: few installers start from there.
    """
    bus = CONTROLLERS[wanted["disk_bus"] or "sata"]
    found = [Drive(bus, 0, "hdd", disk(wanted))] if disk(wanted) else []
    if wanted["iso"]:
        cd = bus if bus.name == "IDE" else CONTROLLERS["sata"]
        found.append(Drive(cd, 1, "dvddrive", wanted["iso"]))
    return found


def settings(wanted: Props, plugs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield what a guest is to be: showvminfo's key, modifyvm's value, and how that is shown.

    The option is the key with two hyphens before it.
    """
    efi = wanted["firmware"] == "uefi"
    yield "name", wanted["name"], wanted["name"]
    mark = f"nestlab {wanted['owner']}"
    yield "description", mark, mark
    for key, number in (("memory", wanted["memory_mib"]), ("cpus", wanted["cores"]), ("vram", 16)):
        yield key, str(number), str(number)
    chipset = CHIPSETS[wanted["machine"]]
    yield "chipset", chipset, chipset
    yield "firmware", "efi" if efi else "bios", "EFI" if efi else "BIOS"
    yield "ioapic", "on", "on"
    yield "rtcuseutc", "on", "on"
    yield "graphicscontroller", *VIDEO[wanted["video"]]
    order = [BOOT[device] for device in wanted["boot"]]
    for position in range(1, POSITIONS + 1):
        device = order[position - 1] if position <= len(order) else "none"
        yield f"boot{position}", device, device
    yield from _screen(wanted["console"])
    for number, (nic, (how, which)) in enumerate(zip(wanted["nics"], plugs, strict=True), 1):
        model = NICS[nic["model"] or "e1000"]
        yield f"nic{number}", how, how
        yield f"nictype{number}", model, model
        mac = str(nic["mac"]).replace(":", "").upper()
        yield f"macaddress{number}", mac, mac
        yield f"{PLUGS[how]}{number}", which, which
        yield f"cableconnected{number}", "on", "on"


def _screen(console: Props) -> Iterator[tuple[str, str, str]]:
    """Yield its RDP screen: on loopback only, where nobody but root of the host gets at it."""
    port = str(console["port"])
    if port == "0" or console["type"] == "none":
        yield "vrde", "off", "off"
        return
    yield "vrde", "on", "on"
    yield "vrdeports", port, port
    yield "vrdeaddress", console["listen"], console["listen"]
    yield "vrdeauthtype", "null", "null"


OPTIONS = {"vrdeports": "vrdeport"}
"""Options that are not called as what showvminfo shows."""


class GuestDriver:
    """See `Driver`. Its answer to a glance is that to a look: two or three commands that are quick."""

    replaced_by: tuple[str, ...] = ("name", "image", "disk_gib", "store", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = str(wanted["name"])
        if wrong := _unfit(name, f"guest {name!r}") or _strange(wanted):
            return wrong
        if wrong := _impossible(wanted):
            return wrong
        for path in (wanted["iso"], wanted["image"], wanted["store"]):
            if not str(path).isprintable():
                return f"the path {path!r} holds a letter that does not print: rename the medium"
        return ""

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name = wanted["name"]
        info = self._info(shell, wanted)
        if info is None:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if disk(wanted) and not shell.run(["test", "-e", disk(wanted)]).ok:
            return Seen(ok=False, text=f"guest {name}: its disk is not there any more")
        try:
            plugs = [self._plug(shell, nic["network"]) for nic in wanted["nics"]]
        except DriverError as unplugged:
            return Seen(ok=False, text=f"guest {name}: {unplugged}")
        if other := self._other(wanted, info, plugs):
            return Seen(ok=False, text=f"guest {name} is not set up as the stack says: {other}")
        if self._starts_with_host(shell, wanted) is not wanted["autostart"]:
            return Seen(ok=False, text=f"guest {name}: whether it starts with its host has changed")
        state = info.get("VMState", "in an unknown state")
        return Seen(ok=state == "running", text=f"guest {name} is {state}")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        plugs = [self._plug(shell, nic["network"]) for nic in wanted["nics"]]
        info = self._settled(shell, wanted)
        if info and info["name"] == INACCESSIBLE:
            _must(shell, "unregistervm", wanted["owner"])
            info = None
        info = info or self._created(shell, wanted)
        lost = self._lost(shell, wanted, info)
        other = self._other(wanted, info, plugs)
        if other or lost:
            if info["VMState"] not in OFF:
                say(f"{wanted['name']}: stopped for a change: {other or 'its disk is gone'}")
                self._stop(shell, wanted, gently=True)
            if lost:
                self._make_disk(shell, wanted, info)
                info = self._info(shell, wanted) or info
            self._set(shell, wanted, info, plugs)
        self._start(shell, wanted)
        self._start_with_host(shell, wanted, on=wanted["autostart"])

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        self._start_with_host(shell, wanted, on=False)
        if self._settled(shell, wanted) is not None:
            self._stop(shell, wanted, gently=False)
            # Not --delete, which takes along whatever somebody has plugged in by hand.
            _must(shell, "unregistervm", wanted["owner"])
        elif not shell.run(["test", "-e", folder(wanted)]).ok:
            return
        _close(shell, "disk", f"{folder(wanted)}/disk.vdi")
        _plain(shell, "rm", "-rf", "--one-file-system", folder(wanted))

    # What it is

    def _info(self, shell: Shell, wanted: Props) -> dict[str, str] | None:
        words = ["showvminfo", wanted["owner"], "--machinereadable"]
        done = _run(shell, *words)
        if done.ok:
            return pairs(done.out)
        if GONE in done.err:
            return None
        raise _refused(shell, ["VBoxManage", *words], done)

    def _settled(self, shell: Shell, wanted: Props) -> dict[str, str] | None:
        """Return what it is once it is in a state that lasts."""
        info: dict[str, str] | None = None

        def lasts() -> Seen:
            nonlocal info
            info = self._info(shell, wanted)
            # One that VirtualBox can't read the settings of has none.
            state = info.get("VMState", "poweroff") if info else "poweroff"
            return Seen(ok=state in OFF | SAVED | ON, text=f"guest is {state}")

        try:
            wait_for(wanted["name"], lasts, deadline_s=SETTLE_S)
        except NotReady as late:
            raise DriverError(f"{late} on {shell.name}") from None
        return info

    def _plug(self, shell: Shell, network: str) -> tuple[str, str]:
        """Return how a NIC is plugged into ``network``, and into which."""
        how, _, which = network.partition(" ")
        if how == "hostonly":
            which = _extra(shell, which)
        elif how == "bridged":
            which = which or uplink(shell)
        if not which:
            raise DriverError(f"its {how} network is not there on {shell.name}")
        return how, which

    def _other(
        self, wanted: Props, info: Mapping[str, str], plugs: Sequence[tuple[str, str]]
    ) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        for key, _, shown in settings(wanted, plugs):
            if info.get(key) != shown:
                return f"{key} is {info.get(key, 'not set')!r} and not {shown!r}"
        for key in self._more_nics(wanted, info):
            return f"{key} is {info[key]!r} and not 'none'"
        return self._other_drives(wanted, info)

    def _more_nics(self, wanted: Props, info: Mapping[str, str]) -> list[str]:
        count = len(wanted["nics"])
        found = (re.fullmatch(r"nic(\d+)", key) for key in info)
        return [
            number[0]
            for number in found
            if number and int(number[1]) > count and info[number[0]] != "none"
        ]

    def _other_drives(self, wanted: Props, info: Mapping[str, str]) -> str:
        has = dict(_controllers(info))
        plugged = dict(_plugged(info))
        for drive in drives(wanted):
            controller = drive.controller
            if has.get(controller.name) != controller.shown:
                return f"it has no {controller.shown} controller {controller.name}"
            found = plugged.pop(drive.key, "none")
            if not _fits(drive, found, info):
                return f"{drive.key} holds {found} and not {drive.path}"
        return next((f"{key} holds {path}" for key, path in plugged.items()), "")

    # What is done to it

    def _created(self, shell: Shell, wanted: Props) -> dict[str, str]:
        name, owner = wanted["name"], wanted["owner"]
        listed = _must(shell, "list", "vms").splitlines()
        if any(line.rpartition(" {")[0] == f'"{name}"' for line in listed):
            raise _foreign(shell, f"a guest {name}", f"unregistervm {shlex.quote(name)} --delete")
        base = f"{folder(wanted)}/settings"
        # What was cut off before it was registered is in the way; the disk lies beside it.
        _plain(shell, "rm", "-rf", "--one-file-system", base)
        _plain(shell, "mkdir", "-p", base)
        how = ["--ostype", "Other_64", "--uuid", owner, "--basefolder", base, "--register"]
        _must(shell, "createvm", "--name", name, *how)
        info = self._info(shell, wanted)
        if info is None:
            raise DriverError(f"guest {name} on {shell.name} is not there after it was made")
        return info

    def _lost(self, shell: Shell, wanted: Props, info: Mapping[str, str]) -> bool:
        """Whether its disk is not there, or was not made to its end."""
        path = disk(wanted)
        if not path:
            return False
        if not shell.run(["test", "-e", path]).ok:
            return True
        # One that is plugged in was whole.
        plugged = path in dict(_plugged(info)).values()
        return not plugged and not shell.run(["test", "-e", self._complete(wanted)]).ok

    def _complete(self, wanted: Props) -> str:
        """Return the file that says that the disk was made to its end."""
        return f"{folder(wanted)}/disk.complete"

    def _make_disk(self, shell: Shell, wanted: Props, info: Mapping[str, str]) -> None:
        path, size = disk(wanted), wanted["disk_gib"] * 1024
        for key, held in _plugged(info):
            if held == path:
                self._unplug(shell, wanted, key)
        _plain(shell, "rm", "-f", self._complete(wanted))
        _close(shell, "disk", path)
        _plain(shell, "rm", "-f", path)
        base = wanted["image"]
        if not base:
            _must(shell, "createmedium", "disk", "--filename", path, "--size", str(size))
        elif size <= self._capacity(shell, base):
            _must(shell, "createmedium", "disk", "--filename", path, "--diffparent", base)
        else:
            # What is linked has its base's size for ever: a larger one is a copy.
            copy = ["clonemedium", "disk", base, path, "--format", "VDI"]
            _must(shell, *copy, timeout_s=COPY_S)
            _must(shell, "modifymedium", "disk", path, "--resize", str(size), timeout_s=COPY_S)
        _plain(shell, "touch", self._complete(wanted))

    def _capacity(self, shell: Shell, base: str) -> int:
        told = _must(shell, "showmediuminfo", "disk", base)
        found = re.search(r"(?m)^Capacity:\s+(\d+) MBytes", told)
        if not found:
            raise DriverError(f"VirtualBox on {shell.name} does not say how large {base} is")
        return int(found[1])

    def _set(
        self,
        shell: Shell,
        wanted: Props,
        info: Mapping[str, str],
        plugs: Sequence[tuple[str, str]],
    ) -> None:
        words = []
        for key, value, shown in settings(wanted, plugs):
            if info.get(key) != shown:
                name, number = re.fullmatch(r"(.*?)(\d*)", key).groups()  # type: ignore[union-attr]
                words += [f"--{OPTIONS.get(name, name)}{number}", value]
        for key in self._more_nics(wanted, info):
            words += [f"--{key}", "none"]
        if words:
            _must(shell, "modifyvm", wanted["owner"], *words)
        if self._other_drives(wanted, info):
            self._set_drives(shell, wanted, info)

    def _set_drives(self, shell: Shell, wanted: Props, info: Mapping[str, str]) -> None:
        owner, plan = wanted["owner"], drives(wanted)
        keep = {drive.key: drive for drive in plan}
        has = dict(_controllers(info))
        needed = {drive.controller.name: drive.controller for drive in plan}
        wrong = {
            name
            for name, shown in has.items()
            if name in OWN and (name not in needed or needed[name].shown != shown)
        }
        held = dict(_plugged(info))
        for key, path in list(held.items()):
            fits = key in keep and _fits(keep[key], path, info)
            if not fits or key.rsplit("-", 2)[0] in wrong:
                self._unplug(shell, wanted, key)
                del held[key]
        for name in wrong:
            _must(shell, "storagectl", owner, "--name", name, "--remove")
        for name, controller in needed.items():
            if name not in has or name in wrong:
                kind = ["--add", controller.bus, "--controller", controller.model]
                _must(shell, "storagectl", owner, "--name", name, *kind)
        for drive in plan:
            if drive.key not in held:
                where = ["--storagectl", drive.controller.name, "--port", str(drive.port)]
                what = ["--device", "0", "--type", drive.kind, "--medium", drive.path]
                _must(shell, "storageattach", owner, *where, *what)

    def _unplug(self, shell: Shell, wanted: Props, key: str) -> None:
        name, port, device = key.rsplit("-", 2)
        where = ["--storagectl", name, "--port", port, "--device", device]
        _must(shell, "storageattach", wanted["owner"], *where, "--medium", "none")

    def _start(self, shell: Shell, wanted: Props) -> None:
        owner = wanted["owner"]
        state = (self._settled(shell, wanted) or {}).get("VMState")
        if state == "gurumeditation":
            self._stop(shell, wanted, gently=False)
        elif state == "paused":
            _must(shell, "controlvm", owner, "resume")
        if state not in {"running", "paused"}:
            done = _run(shell, "startvm", owner, "--type", "headless")
            now = self._settled(shell, wanted) or {}
            # A start that was cut off and went on is a start.
            if not done.ok and now.get("VMState") != "running":
                words = ["VBoxManage", "startvm", owner, "--type", "headless"]
                raise _refused(shell, words, done)

    def _stop(self, shell: Shell, wanted: Props, *, gently: bool) -> None:
        owner, name = wanted["owner"], wanted["name"]
        state = (self._settled(shell, wanted) or {}).get("VMState", "poweroff")
        if state in SAVED:
            if gently:
                say(f"{name}: what it had in memory when it was saved is given up")
            _must(shell, "discardstate", owner)
        if state not in ON:
            return
        if gently and state == "running":
            _run(shell, "controlvm", owner, "acpipowerbutton")
            try:
                wait_for(name, lambda: self._is_off(shell, wanted), deadline_s=STOP_S)
            except NotReady:
                say(f"{name}: it did not switch itself off within {STOP_S:g} s")
            else:
                return
        done = _run(shell, "controlvm", owner, "poweroff")
        try:
            wait_for(name, lambda: self._is_off(shell, wanted), deadline_s=STOP_S)
        except NotReady:
            raise _refused(shell, ["VBoxManage", "controlvm", owner, "poweroff"], done) from None

    def _is_off(self, shell: Shell, wanted: Props) -> Seen:
        state = (self._info(shell, wanted) or {}).get("VMState", "poweroff")
        return Seen(ok=state in OFF, text=f"guest is {state}")

    # Whether it starts with its host: VirtualBox' own service needs a database and a user for that.

    def _starts_with_host(self, shell: Shell, wanted: Props) -> bool:
        unit = UNIT.format(owner=wanted["owner"])
        return shell.run(["systemctl", "is-enabled", unit]).out.strip() == "enabled"

    def _start_with_host(self, shell: Shell, wanted: Props, *, on: bool) -> None:
        unit = UNIT.format(owner=wanted["owner"])
        if self._starts_with_host(shell, wanted) is on:
            return
        if on:
            shell.put(UNIT_TEXT.encode(), UNIT_FILE, timeout_s=COMMAND_S)
            _plain(shell, "systemctl", "daemon-reload")
        _plain(shell, "systemctl", "enable" if on else "disable", unit)


def _impossible(wanted: Props) -> str:
    """Say what of its hardware VirtualBox has not."""
    if wanted["video"] not in VIDEO:
        return f"video {wanted['video']}: VirtualBox has no such adapter; set vga or none"
    if (bus := wanted["disk_bus"] or "sata") not in CONTROLLERS:
        return f"disk_bus {bus}: VirtualBox has {', '.join(CONTROLLERS)}"
    for nic in wanted["nics"]:
        if nic["model"] and nic["model"] not in NICS:
            return f"NIC model {nic['model']}: VirtualBox has {', '.join(NICS)}"
    if wanted["cores"] > MOST_CORES:
        return f"{wanted['cores']} cores: VirtualBox gives a guest {MOST_CORES} at most"
    most = MOST_NICS[wanted["machine"]]
    if len(wanted["nics"]) > most:
        return f"{len(wanted['nics'])} NICs: the chipset {wanted['machine']} has {most} at most"
    return ""


def _fits(drive: Drive, held: str, info: Mapping[str, str]) -> bool:
    """Whether what is in a drive's place is what belongs there."""
    # A snapshot that somebody took has put a disk of its own before ours.
    return held == drive.path or (
        drive.kind == "hdd" and "SnapshotUUID" in info and held not in {"none", "emptydrive"}
    )


def _controllers(info: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the disk controllers: name, model."""
    for key, name in info.items():
        if number := re.fullmatch(r"storagecontrollername(\d+)", key):
            yield name, info.get(f"storagecontrollertype{number[1]}", "")


def _plugged(info: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what is plugged into them: controller, port and device with hyphens, path."""
    for name, _ in _controllers(info):
        for key, path in info.items():
            if re.fullmatch(rf"{re.escape(name)}-\d+-\d+", key) and path != "none":
                yield key, path


DRIVERS: dict[str, Driver] = {
    "network": NetworkDriver(),
    "medium": MediumDriver(),
    "guest": GuestDriver(),
}
