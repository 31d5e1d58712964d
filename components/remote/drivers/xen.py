"""Guests, networks and media of Xen 4.17 on Debian, by `xl` in dom0 as root.

xl remembers no guest that does not run: what a guest is stands in ``guest.cfg`` in a folder of the
lab's own, named by its owner, whose UUID is the domain's too. A network is a bridge that
systemd-networkd makes from two files, with a dnsmasq of its own; their first line names the owner.
All files are read back as they were written, so they are the definition and the mark at once.

PV guests alone, booted by PV GRUB. Facts: xl(1), xl.cfg(5), systemd.network(5); messages and states
were taken from Xen 4.17 itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from components.remote.driver import COMMAND_S, DriverError, cause_in, refusal
from components.remote.media import FileMediumDriver
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.remote.driver import Driver, Props
    from components.remote.shell import Result, Shell

CREATE_S = 600.0
"""Making a domain, seconds: 46 on a busy emulated machine, and each waits for the one before."""
COPY_S = 1800.0
UPLOAD_S = 900.0
STOP_S = 30.0
"""How long a guest may take to switch itself off before its settings change, seconds."""
GONE_S = 60.0
"""How long a domain may take to go once it was destroyed, seconds."""
GRUB = "/usr/lib/grub-xen/grub-x86_64-xen.bin"
"""PV GRUB: boots ``boot/grub/grub.cfg`` of the first disk or CD that has one."""
AUTO = "/etc/xen/auto"
"""What xendomains.service creates when the host starts."""
NETWORKD = "/etc/systemd/network"
DNSMASQ = "/etc/dnsmasq.d"
LEASES = "/var/lib/misc"
NICS = "/sys/class/net"
DOM0 = 0

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
"""A name that xl takes for no number of a domain, and that needs no quoting in any file."""
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")
PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._+-]*)+")
MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
DOMAIN = re.compile(r"[A-Za-z0-9.-]*")
CAUSES = {
    "Could not find bridge device": "the guest's network is down: `pulumi up` again brings it back, and "
    "`networkctl status` there says more",
    "Out of memory": "dom0 and the other guests have the rest: give the hypervisor more memory_mib, or "
    "its guests less",
    "failed to stat": "the file is not there: `pulumi up` again sends media once more",
    "neither hap nor shadow paging": "the processor does not virtualize for Xen: only PV guests run",
    "failed to open file": f"PV GRUB is not there: Debian's package grub-xen-host has {GRUB}",
}
"""What is behind a message of xl, and the way out."""


def _must(
    shell: Shell, *argv: str, timeout_s: float = COMMAND_S, causes: Mapping[str, str] = CAUSES
) -> str:
    done = shell.run(argv, timeout_s=timeout_s)
    if done.ok:
        return done.out
    raise refusal(shell, argv, said(done), cause_in(done.err, causes))


def said(done: Result) -> str:
    """Return what xl says was wrong: libxl's first error, as later ones only follow from it."""
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if " error: " in line]
    return errors[0] if errors else done.said


def _cat(shell: Shell, path: str) -> str:
    """Return the content of a file, empty for one that is not there."""
    done = shell.run(["cat", path])
    if done.ok or "No such file" in done.err:
        return done.out
    raise refusal(shell, ["cat", path], said(done))


def _exists(shell: Shell, path: str) -> bool:
    argv = ["test", "-e", path]
    done = shell.run(argv)
    if done.code > 1:
        # What is not known to be gone is not made anew.
        raise refusal(shell, argv, said(done))
    return done.ok


def _linked(shell: Shell, device: str) -> bool:
    """Whether the kernel has the network device."""
    argv = ["ip", "link", "show", "dev", device]
    done = shell.run(argv)
    if done.ok or "does not exist" in done.err:
        return done.ok
    raise refusal(shell, argv, said(done))


def _put(shell: Shell, path: str, text: str) -> None:
    shell.put(text.encode(), path, timeout_s=COMMAND_S)


def mark(wanted: Props) -> str:
    """Return the first line of all that is the owner's."""
    return f"# nestlab {wanted['owner']}\n"


def _strange(wanted: Props) -> str:
    if UUID.fullmatch(str(wanted["owner"])):
        return ""
    return f"its owner {wanted['owner']!r} is no UUID, by which it would be known again"


def _unfit(form: re.Pattern[str], value: object, what: str) -> str:
    if form.fullmatch(str(value)):
        return ""
    return f"{what} {value!r} can't be written in Xen's settings: letters, digits, - _ . only, a letter first"


# Networks ----------------------------------------------------------------------------------------


def files(wanted: Props) -> dict[str, str]:
    """Return the files that a network is, by path; the first comes first and goes last."""
    device, nat = wanted["bridge"], wanted["mode"] == "nat"
    netdev = f"[NetDev]\nName={device}\nKind=bridge\n"
    lines = [
        f"[Match]\nName={device}\n\n[Network]",
        f"Address={wanted['gateway']}/{wanted['prefix']}",
        "ConfigureWithoutCarrier=yes\nLinkLocalAddressing=no\nIPv6AcceptRA=no",
    ]
    if nat:
        lines.append("IPMasquerade=ipv4")
    else:
        # dom0 routes for the others. What comes from here, or from elsewhere to here, it does not.
        rules = (
            (f"IncomingInterface={device}", "Type=prohibit"),
            (f"IncomingInterface=lo\nTo={wanted['subnet']}", "Table=main"),
            (f"To={wanted['subnet']}", "Type=prohibit"),
        )
        for number, (which, what) in enumerate(rules, 100):
            lines.append(f"\n[RoutingPolicyRule]\nPriority={number}\n{which}\n{what}")
    found = {
        f"{NETWORKD}/20-{device}.netdev": netdev,
        f"{NETWORKD}/20-{device}.network": "\n".join(lines) + "\n",
    }
    if wanted["dhcp"]:
        found[f"{DNSMASQ}/{device}.conf"] = _dnsmasq(wanted)
    return {path: mark(wanted) + text for path, text in found.items()}


def _dnsmasq(wanted: Props) -> str:
    device, subnet = wanted["bridge"], IPv4Network(wanted["subnet"])
    lines = [
        f"interface={device}\nbind-dynamic\nexcept-interface=lo",
        f"dhcp-leasefile={LEASES}/{device}.leases\ndhcp-authoritative",
        f"dhcp-range={wanted['dhcp_start']},{wanted['dhcp_end']},{subnet.netmask}",
    ]
    if wanted["mode"] != "nat":
        # Without a value the option is not sent: there is no way out, and no names of others.
        lines.append("dhcp-option=option:router\nno-resolv")
    if wanted["domain"]:
        lines.append(f"domain={wanted['domain']}")
    lines += [
        f"dhcp-host={one['mac']},{one['address']},{one['name']}" for one in wanted["reservations"]
    ]
    return "\n".join(lines) + "\n"


class NetworkDriver:
    """Bridges of dom0, with addresses by dnsmasq; see `Driver`."""

    replaced_by: tuple[str, ...] = ("name", "bridge", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wanted["mode"] not in {"nat", "isolated"}:
            return f"nestlab's Xen hosts have no networks of mode {wanted['mode']}: nat, isolated"
        wrong = (
            _strange(wanted)
            or _unfit(DEVICE, wanted["bridge"], "bridge")
            or _unfit(DOMAIN, wanted["domain"], "domain")
        )
        for one in wanted["reservations"]:
            wrong = wrong or _unfit(NAME, one["name"], "machine")
            wrong = wrong or _unfit(MAC, one["mac"], "MAC address")
        try:
            IPv4Network(wanted["subnet"])
            planned = [one["address"] for one in wanted["reservations"]]
            ends = [wanted["dhcp_start"], wanted["dhcp_end"]] if wanted["dhcp"] else []
            for address in (wanted["gateway"], *planned, *ends):
                IPv4Address(address)
        except ValueError as no_address:
            return wrong or f"network {wanted['name']!r}: {no_address}"
        return wrong

    def called(self, wanted: Props) -> str:
        """Return its bridge, by which guests are plugged into it."""
        return str(wanted["bridge"])

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        name = wanted["name"]
        wrong = self._written(shell, wanted) or self._down(shell, wanted)
        return Seen(ok=not wrong, text=f"network {name} {wrong or 'is there'}")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        device = wanted["bridge"]
        stale = []
        for path, text in files(wanted).items():
            has = _cat(shell, path)
            if has and not has.startswith(mark(wanted)):
                raise self._foreign(shell, wanted)
            if has != text:
                stale.append(path)
        first = next(iter(files(wanted)))
        if first in stale and _linked(shell, device):
            # A bridge of ours has had its file for as long as it is there, unless that was deleted.
            marks = [_cat(shell, path).startswith(mark(wanted)) for path in files(wanted)]
            if not any(marks):
                raise self._foreign(shell, wanted)
        for path in stale:
            _put(shell, path, files(wanted)[path])
        # Makes what is missing, and sets anew what has a changed file.
        _must(shell, "networkctl", "reload")
        shown = shell.run(["ip", "-o", "-4", "addr", "show", "dev", device])
        kept = f"{NETWORKD}/20-{device}.network" not in stale
        if shown.ok and kept and f"{wanted['gateway']}/" not in shown.out:
            _must(shell, "networkctl", "reconfigure", device)
        self._serve(shell, wanted, anew=f"{DNSMASQ}/{device}.conf" in stale)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        device = wanted["bridge"]
        paths = list(files({**wanted, "dhcp": True, "dhcp_start": "", "dhcp_end": ""}))
        ours = [path for path in paths if _cat(shell, path).startswith(mark(wanted))]
        if not ours:
            return
        if paths[2] in ours:
            self._unserve(shell, device)
        # What makes the bridge goes first: another network's reload would bring it back.
        _must(shell, "rm", "-f", paths[0])
        if _linked(shell, device):
            _must(shell, "ip", "link", "delete", "dev", device)
        _must(shell, "rm", "-f", *(path for path in paths[1:] if path in ours))
        _must(shell, "networkctl", "reload")

    def _written(self, shell: Shell, wanted: Props) -> str:
        """Say what is wrong with its files, empty for nothing."""
        there = {path: _cat(shell, path) for path in files(wanted)}
        if not any(there.values()):
            return "is not there any more"
        wrong = [path for path, text in files(wanted).items() if there[path] != text]
        return f"is not set up as the stack says: {wrong[0]}" if wrong else ""

    def _down(self, shell: Shell, wanted: Props) -> str:
        """Say what of it does not run, empty for nothing."""
        device = wanted["bridge"]
        address = f"{wanted['gateway']}/{wanted['prefix']}"
        shown = shell.run(["ip", "-o", "-4", "addr", "show", "dev", device])
        if not shown.ok:
            return f"is down: its bridge {device} is gone"
        if address not in shown.out.split():
            return f"is down: its host does not have {address} there"
        if self._serves(shell, device) is not wanted["dhcp"]:
            return f"has {'no ' if wanted['dhcp'] else ''}dnsmasq@{device} running"
        return ""

    def _serves(self, shell: Shell, device: str) -> bool:
        return shell.run(["systemctl", "is-active", f"dnsmasq@{device}"]).out.strip() == "active"

    def _serve(self, shell: Shell, wanted: Props, *, anew: bool) -> None:
        device = wanted["bridge"]
        if wanted["dhcp"]:
            _must(shell, "systemctl", "enable", f"dnsmasq@{device}")
            # It reads its settings when it starts; what it has leased it finds in its file.
            _must(shell, "systemctl", "restart" if anew else "start", f"dnsmasq@{device}")
        elif _cat(shell, f"{DNSMASQ}/{device}.conf").startswith(mark(wanted)):
            self._unserve(shell, device)

    def _unserve(self, shell: Shell, device: str) -> None:
        _must(shell, "systemctl", "disable", "--now", f"dnsmasq@{device}")
        _must(shell, "rm", "-f", f"{DNSMASQ}/{device}.conf", f"{LEASES}/{device}.leases")

    def _foreign(self, shell: Shell, wanted: Props) -> DriverError:
        device = wanted["bridge"]
        return DriverError(
            f"the bridge {device} on {shell.name} is not this lab's and is left alone: rename network "
            f"{wanted['name']} in the stack, or remove {NETWORKD}/20-{device}.* there and the bridge"
        )


# Media -------------------------------------------------------------------------------------------


def _no_medium(wanted: Props) -> str:
    """Return why ``wanted`` is no medium: an ISO or a raw disk image."""
    name = str(wanted["name"])
    if name.endswith((".qcow2", ".vmdk", ".vdi", ".vhd", ".vhdx")):
        return f"medium {name!r}: without QEMU in dom0 Xen has raw disks only: convert it with qemu-img"
    return _unfit(FILE, name, "medium") or _unfit(PATH, wanted["store"], "folder")


# Guests ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A line of ``xl list -v``."""

    name: str
    number: int
    state: str
    uuid: str

    @property
    def word(self) -> str:
        """Its state in a word; one that waits for something to do has no letter."""
        letters = {"d": "dying", "c": "crashed", "s": "shut off", "p": "paused"}
        return next((word for letter, word in letters.items() if letter in self.state), "running")


_LINE = re.compile(
    rf"(?P<name>.*?)\s+(?P<number>\d+)\s+\d+\s+\d+\s+(?P<state>[a-z-]{{6}})\s+[\d.]+\s+(?P<uuid>{UUID.pattern})\s"
)


def domains(text: str) -> list[Domain]:
    """Return what ``xl list -v`` printed, without dom0."""
    found = [_LINE.match(f"{line} ") for line in text.splitlines()]
    listed = [
        Domain(one["name"], int(one["number"]), one["state"], one["uuid"]) for one in found if one
    ]
    return [one for one in listed if one.number != DOM0]


def folder(wanted: Props) -> str:
    """Return where all of a guest lies."""
    return f"{wanted['store']}/guests/{wanted['owner']}"


def disks(wanted: Props) -> list[tuple[str, str, bool]]:
    """Return its disks: device, file, whether it is a CD; PV GRUB looks at them in this order."""
    found = []
    if wanted["image"] or wanted["disk_gib"]:
        found.append(("xvda", f"{folder(wanted)}/disk.img", False))
    if wanted["iso"]:
        found.append(("xvdb", wanted["iso"], True))
    return found


def configuration(wanted: Props) -> str:
    """Return what a guest is, as xl reads it (xl.cfg(5)): no value in it needs quoting."""
    drives = [
        f"file:{path},{device}:cdrom,r" if cd else f"file:{path},{device},w"
        for device, path, cd in disks(wanted)
    ]
    nics = [f"mac={nic['mac']},bridge={nic['network']}" for nic in wanted["nics"]]
    pairs: dict[str, Any] = {
        "name": wanted["name"],
        "uuid": wanted["owner"],
        "type": "pv",
        "memory": wanted["memory_mib"],
        "vcpus": wanted["cores"],
        "kernel": GRUB,
        "disk": drives,
        # On one line: xendomains.service looks there for the bridges to wait for.
        **({"vif": nics} if nics else {}),
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_crash": "destroy",
    }
    return mark(wanted) + "".join(f"{key} = {json.dumps(value)}\n" for key, value in pairs.items())


class GuestDriver:
    """PV guests; see `Driver`."""

    replaced_by: tuple[str, ...] = ("name", "image", "disk_gib", "store", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        wrong = (
            _strange(wanted)
            or _unfit(NAME, wanted["name"], "guest")
            or _unfit(PATH, wanted["store"], "folder")
        )
        for key in ("iso", "image"):
            if wanted[key]:
                wrong = wrong or _unfit(PATH, wanted[key], key)
        for nic in wanted["nics"]:
            wrong = wrong or _unfit(DEVICE, nic["network"], "bridge")
            wrong = wrong or _unfit(MAC, nic["mac"], "MAC address")
            if nic["model"] not in {"", "netfront"}:
                wrong = wrong or f"NIC model {nic['model']}: Xen's PV guests have netfront"
        if wanted["disk_bus"] not in {"", "xen"}:
            wrong = wrong or f"disk_bus {wanted['disk_bus']}: Xen's PV guests have xen"
        if not disks(wanted):
            wrong = (
                wrong or f"guest {wanted['name']}: nothing to boot from: give it an iso or an image"
            )
        return wrong

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        domain = self._domain(shell, wanted)
        wrong = self._written(shell, wanted, domain) or self._off(shell, wanted, domain)
        return Seen(ok=not wrong, text=wrong or f"guest {wanted['name']} is running")

    glance = look

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        domain = self._domain(shell, wanted)
        if domain is None:
            self._free(shell, wanted)
        settings, new = self._settings(wanted), configuration(wanted)
        has = _cat(shell, settings)
        lost = self._lost(shell, wanted)
        if domain and domain.word in {"dying", "crashed", "shut off"}:
            self._destroy(shell, wanted, domain)
            domain = None
        if domain:
            why = "its disk is gone" if lost else self._other(shell, wanted, domain)
            why = why or ("" if has in {"", new} else "its settings")
            if why:
                say(f"{wanted['name']}: stopped for a change: {why}")
                self._stop(shell, wanted, domain)
                domain = None
        if lost:
            self._make_disk(shell, wanted)
        if has != new:
            _must(shell, "mkdir", "-p", folder(wanted))
            _put(shell, settings, new)
        self._start_with_host(shell, wanted)
        if domain is None:
            self._create(shell, wanted)
            return
        if domain.word == "paused":
            _must(shell, "xl", "unpause", str(domain.number))
        for device, bridge in self._unplugged(shell, wanted, domain):
            _must(shell, "ip", "link", "set", "dev", device, "master", bridge)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        _must(shell, "rm", "-f", self._link(wanted))
        domain = self._domain(shell, wanted)
        if domain:
            self._destroy(shell, wanted, domain)
        _must(shell, "rm", "-rf", "--one-file-system", folder(wanted))

    # What it is

    def _settings(self, wanted: Props) -> str:
        return f"{folder(wanted)}/guest.cfg"

    def _link(self, wanted: Props) -> str:
        return f"{AUTO}/{wanted['owner']}.cfg"

    def _list(self, shell: Shell) -> list[Domain]:
        return domains(_must(shell, "xl", "list", "-v"))

    def _domain(self, shell: Shell, wanted: Props) -> Domain | None:
        return next((one for one in self._list(shell) if one.uuid == wanted["owner"]), None)

    def _written(self, shell: Shell, wanted: Props, domain: Domain | None) -> str:
        """Say what is wrong with its files, empty for nothing."""
        name, settings = wanted["name"], _cat(shell, self._settings(wanted))
        if not settings and domain is None:
            return f"guest {name} is not there any more"
        if settings != configuration(wanted):
            return f"guest {name} is not set up as the stack says: its settings were changed"
        if self._lost(shell, wanted):
            return f"guest {name} has lost its disk"
        if self._starts_with_host(shell, wanted) is not wanted["autostart"]:
            return f"whether guest {name} starts with its host has changed"
        return ""

    def _off(self, shell: Shell, wanted: Props, domain: Domain | None) -> str:
        """Say what of the domain is not as wanted, empty for nothing."""
        name = wanted["name"]
        state = domain.word if domain else "shut off"
        if domain is None or state != "running":
            return f"guest {name} is {state}"
        if other := self._other(shell, wanted, domain):
            return f"guest {name} is not set up as the stack says: {other}"
        if unplugged := self._unplugged(shell, wanted, domain):
            return f"guest {name} is not plugged into its network ({unplugged[0][0]})"
        return ""

    def _other(self, shell: Shell, wanted: Props, domain: Domain) -> str:
        """Say what of the domain is not as wanted, empty for nothing."""
        told = shell.run(["xl", "list", "-l", str(domain.number)])
        if not told.ok:
            return f"xl does not say what it is ({said(told)})"
        config = json.loads(told.out)[0]["config"]
        kib = wanted["memory_mib"] * 1024
        wants: dict[str, Any] = {
            "name": wanted["name"],
            "cores": wanted["cores"],
            "memory (KiB)": kib,
            "most memory (KiB)": kib,
            "disks": [(device, path, not cd) for device, path, cd in disks(wanted)],
            "NICs": [(nic["mac"].lower(), nic["network"]) for nic in wanted["nics"]],
        }
        about, built = config["c_info"], config["b_info"]
        found: dict[str, Any] = {
            "name": about.get("name"),
            "cores": built.get("max_vcpus"),
            "memory (KiB)": built.get("target_memkb"),
            "most memory (KiB)": built.get("max_memkb"),
            "disks": [
                (one.get("vdev"), one.get("pdev_path"), bool(one.get("readwrite")))
                for one in config.get("disks", [])
            ],
            "NICs": [
                (str(one.get("mac")).lower(), one.get("bridge")) for one in config.get("nics", [])
            ],
        }
        return next(
            (
                f"{key}: {found[key]} and not {value}"
                for key, value in wants.items()
                if found[key] != value
            ),
            "",
        )

    def _unplugged(self, shell: Shell, wanted: Props, domain: Domain) -> list[tuple[str, str]]:
        """Return the NICs that are on no bridge, or another's: one that was made anew has lost them."""
        found = []
        for number, nic in enumerate(wanted["nics"]):
            device = f"vif{domain.number}.{number}"
            master = shell.run(["readlink", f"{NICS}/{device}/master"]).out.strip()
            if master.rpartition("/")[2] != nic["network"]:
                found.append((device, nic["network"]))
        return found

    def _starts_with_host(self, shell: Shell, wanted: Props) -> bool:
        return shell.run(["readlink", self._link(wanted)]).out.strip() == self._settings(wanted)

    # What is done to it

    def _free(self, shell: Shell, wanted: Props) -> None:
        """Raise if a domain of somebody else has its name."""
        name = wanted["name"]
        if any(one.name == name for one in self._list(shell)):
            raise DriverError(
                f"a guest {name} on {shell.name} is not this lab's and is left alone: rename it in the "
                f"stack, or remove it there with `xl destroy {name}`"
            )

    def _complete(self, wanted: Props) -> str:
        return f"{folder(wanted)}/disk.complete"

    def _lost(self, shell: Shell, wanted: Props) -> bool:
        """Whether its disk is not there, or was not made to its end."""
        own = [path for _, path, cd in disks(wanted) if not cd]
        return not all(_exists(shell, path) for path in [*own, *self._marks(wanted, own)])

    def _marks(self, wanted: Props, own: Sequence[str]) -> list[str]:
        return [self._complete(wanted)] if own else []

    def _make_disk(self, shell: Shell, wanted: Props) -> None:
        path, size = f"{folder(wanted)}/disk.img", wanted["disk_gib"] << 30
        _must(shell, "mkdir", "-p", folder(wanted))
        # Sparse: a file takes what a guest has written.
        _must(shell, "rm", "-f", self._complete(wanted), path)
        if wanted["image"]:
            copy = ["cp", "--sparse=always", "--reflink=auto", wanted["image"], path]
            _must(shell, *copy, timeout_s=COPY_S)
            has = int(_must(shell, "stat", "-c", "%s", path).strip())
            if size and has > size:
                raise DriverError(
                    f"guest {wanted['name']}: its image has {has} bytes, and disk_gib says "
                    f"{wanted['disk_gib']} GiB: make it larger, or leave it out"
                )
        if size:
            _must(shell, "truncate", "-s", str(size), path)
        _must(shell, "touch", self._complete(wanted))

    def _create(self, shell: Shell, wanted: Props) -> None:
        try:
            _must(shell, "xl", "create", self._settings(wanted), timeout_s=CREATE_S)
        except DriverError:
            # A start that was cut off and went on is a start.
            domain = self._domain(shell, wanted)
            if domain is None or domain.word != "running":
                raise

    def _stop(self, shell: Shell, wanted: Props, domain: Domain) -> None:
        """Let it switch itself off, and do it where it does not."""
        if domain.word == "running":
            # A guest that pays no heed is none of xl's failures.
            shell.run(["xl", "shutdown", str(domain.number)], timeout_s=COMMAND_S)
            if self._went(shell, wanted, STOP_S):
                return
            say(f"{wanted['name']}: it did not switch itself off within {STOP_S:g} s")
        self._destroy(shell, wanted, domain)

    def _destroy(self, shell: Shell, wanted: Props, domain: Domain) -> None:
        argv = ["xl", "destroy", str(domain.number)]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if not self._went(shell, wanted, GONE_S):
            raise refusal(shell, argv, said(done))

    def _went(self, shell: Shell, wanted: Props, deadline_s: float) -> bool:
        def gone() -> Seen:
            found = self._domain(shell, wanted)
            return Seen(ok=found is None, text=f"guest is {found.word if found else 'gone'}")

        try:
            wait_for(wanted["name"], gone, deadline_s=deadline_s)
        except NotReady:
            return False
        return True

    def _start_with_host(self, shell: Shell, wanted: Props) -> None:
        if not wanted["autostart"]:
            _must(shell, "rm", "-f", self._link(wanted))
        elif not self._starts_with_host(shell, wanted):
            _must(shell, "mkdir", "-p", AUTO)
            _must(shell, "ln", "-sfn", self._settings(wanted), self._link(wanted))


DRIVERS: dict[str, Driver] = {
    "network": NetworkDriver(),
    "medium": FileMediumDriver(_no_medium),
    "guest": GuestDriver(),
}
