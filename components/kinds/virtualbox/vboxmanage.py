"""VBoxManage of VirtualBox 7: what it is told, what it says, and why it refuses; it decides nothing.

Facts: VBoxManage(1) of 7.x and what its sources print.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.reach import driver, waiting
from components.reach.driver import COMMAND_S, DriverError, cause_in, refusal
from components.reach.interrupt import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.reach.shell import Result, Shell

COPY_S = 1800.0
"""Converting or copying a disk under emulation, seconds."""
LOCK_S = 30.0
"""How long a guest's session may take to be given up, seconds: it is held a little after power-off."""
RANGES = "/etc/vbox/networks.conf"
"""What addresses host-only interfaces may have, since 6.1.28; without the file only 192.168.56.0/21."""
KEY = "nestlab/{owner}"
"""Extra data of VirtualBox as a whole that says which network is the owner's."""
LOCKED = ("is already locked", "while it is locked")
GONE = "Could not find a registered machine"
NO_FILE = ("VERR_FILE_NOT_FOUND", "VERR_PATH_NOT_FOUND", "VBOX_E_OBJECT_NOT_FOUND")
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


def run(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> Result:
    """Run VBoxManage; wait while another session, which may be our last command's, has the guest."""
    began = time.monotonic()
    while True:
        done = shell.run(["VBoxManage", *words], timeout_s=timeout_s)
        if done.ok or not any(each in done.err for each in LOCKED):
            return done
        if time.monotonic() - began > LOCK_S or CANCELLED.wait(waiting.POLL_S):
            return done


def must(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    done = run(shell, *words, timeout_s=timeout_s)
    if not done.ok:
        raise refused(shell, ["VBoxManage", *words], done)
    return done.out


def plain(shell: Shell, *argv: str, timeout_s: float = COMMAND_S) -> str:
    """Run another program of the host that has to succeed, and return what it printed."""
    return driver.must(shell, argv, timeout_s=timeout_s, causes=CAUSES)


def foreign(shell: Shell, what: str, command: str) -> DriverError:
    """Return what to raise where something of the same name is not the lab's; ``command`` removes it."""
    return driver.foreign(
        shell, what, f"rename it in the stack, or remove it there with `VBoxManage {command}`"
    )


def refused(shell: Shell, argv: Sequence[str], done: Result) -> DriverError:
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


def remembered(shell: Shell, owner: str) -> str:
    """Return what is remembered of the owner's network, empty for nothing."""
    told = must(shell, "getextradata", "global", KEY.format(owner=owner))
    return told.removeprefix("Value: ").rstrip("\n") if told.startswith("Value: ") else ""


def remember(shell: Shell, owner: str, *value: str) -> None:
    must(shell, "setextradata", "global", KEY.format(owner=owner), *value)


def unfit(text: str, what: str) -> str:
    if not text or len(text.encode("utf-8", "surrogatepass")) > 120:  # noqa: PLR2004 - a file's name, with an ending
        return f"{what} has to have 1 to 120 bytes: rename it"
    if any(not letter.isprintable() and letter != " " for letter in text):
        return f"{what} holds a line break or another letter that does not print: rename it"
    return ""


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


def dhcp_server(shell: Shell, network: str) -> Dhcp | None:
    """Return the DHCP server of ``network``; None for none."""
    return dhcp_found(must(shell, "list", "dhcpservers"), network)


def nat_network(shell: Shell, name: str) -> dict[str, str] | None:
    """Return the NAT network called ``name`` by the fields that VBoxManage prints; None for none."""
    listed = blocks(must(shell, "list", "--long", "natnets"), "Name")
    return next((one for one in listed if one["Name"] == name), None)


@dataclass(frozen=True)
class Interface:
    """A host-only interface: what the host itself has there."""

    name: str
    address: str
    mask: str


def interfaces(shell: Shell) -> dict[str, Interface]:
    """Return the host-only interfaces by name."""
    listed = blocks(must(shell, "list", "hostonlyifs"), "Name")
    return {
        one["Name"]: Interface(one["Name"], one.get("IPAddress", ""), one.get("NetworkMask", ""))
        for one in listed
    }


def devices(shell: Shell) -> list[str]:
    """Return the host's devices that a guest can be bridged to."""
    return [one["Name"] for one in blocks(must(shell, "list", "bridgedifs"), "Name")]


def uplink(shell: Shell) -> str:
    """Return the device of the host's default route, empty for none."""
    found = re.search(r"\bdev (\S+)", plain(shell, "ip", "-o", "route", "show", "default"))
    return found[1] if found else ""


# Media and guests --------------------------------------------------------------------------------


def closed(shell: Shell, what: str, path: str) -> bool:
    """Whether VirtualBox has forgotten the medium at ``path``; it refuses one that is in use."""
    if what == "disk" and not path.endswith(".vdi"):
        return True
    done = run(shell, "closemedium", what, path)
    return done.ok or any(mark in done.err for mark in NO_FILE)


def close(shell: Shell, what: str, path: str) -> None:
    if what == "disk" and not path.endswith(".vdi"):
        return
    done = run(shell, "closemedium", what, path)
    if not done.ok and not any(mark in done.err for mark in NO_FILE):
        raise refused(shell, ["VBoxManage", "closemedium", what, path], done)


def info(shell: Shell, uuid: str) -> dict[str, str] | None:
    """Return what ``showvminfo`` says of a guest; None where there is none."""
    words = ["showvminfo", uuid, "--machinereadable"]
    done = run(shell, *words)
    if done.ok:
        return pairs(done.out)
    if GONE in done.err:
        return None
    raise refused(shell, ["VBoxManage", *words], done)


def named(shell: Shell, name: str) -> bool:
    """Whether some guest is called ``name``."""
    listed = must(shell, "list", "vms").splitlines()
    return any(line.rpartition(" {")[0] == f'"{name}"' for line in listed)


def capacity(shell: Shell, path: str) -> int:
    """Return how large the disk at ``path`` is for a guest, MiB."""
    found = re.search(r"(?m)^Capacity:\s+(\d+) MBytes", must(shell, "showmediuminfo", "disk", path))
    if not found:
        raise DriverError(f"VirtualBox on {shell.name} does not say how large {path} is")
    return int(found[1])


def unplug(shell: Shell, owner: str, key: str) -> None:
    """Take what is in a place of a guest out of it; ``key`` is what showvminfo calls the place."""
    name, port, device = key.rsplit("-", 2)
    where = ["--storagectl", name, "--port", port, "--device", device]
    must(shell, "storageattach", owner, *where, "--medium", "none")


def controllers(info: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the disk controllers: name, model."""
    for key, name in info.items():
        if number := re.fullmatch(r"storagecontrollername(\d+)", key):
            yield name, info.get(f"storagecontrollertype{number[1]}", "")


def plugged(info: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what is plugged into them: controller, port and device with hyphens, path."""
    for name, _ in controllers(info):
        for key, path in info.items():
            if re.fullmatch(rf"{re.escape(name)}-\d+-\d+", key) and path != "none":
                yield key, path
