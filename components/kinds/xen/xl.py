"""xl in dom0 as root: what is asked of it and of files there, and what it says in typed facts.

Facts: xl(1), xl.cfg(5), Xen 4.17 on Debian; messages and states were taken from Xen 4.17 itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from components.reach.driver import COMMAND_S, UUID, cause_in, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.reach.orders import GuestOrder, NetworkOrder
    from components.reach.shell import Result, Shell

GRUB = "/usr/lib/grub-xen/grub-x86_64-xen.bin"
"""PV GRUB: boots ``boot/grub/grub.cfg`` of the first disk or CD that has one."""
DOM0 = 0
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


def must(
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


@dataclass(frozen=True)
class Rule:
    """A routing policy rule of the kernel, whatever its number (ip-rule(8))."""

    to: str
    """Subnet; empty for all."""
    iif: str
    """Device that a packet came by; empty for any."""
    does: str
    """"prohibit", or "lookup main"."""

    @override
    def __str__(self) -> str:
        to, iif = f" to {self.to}" if self.to else "", f" iif {self.iif}" if self.iif else ""
        return f"from all{to}{iif} {self.does}"


def policy(shell: Shell) -> set[Rule]:
    """Return the kernel's routing policy rules for IPv4."""
    found = set()
    for row in json.loads(must(shell, "ip", "-j", "-4", "rule", "show")):
        to = f"{row['dst']}/{row.get('dstlen', 32)}" if "dst" in row else ""
        # systemd-networkd gives each a table, also those that forbid.
        does = row.get("action") or f"lookup {row.get('table', '')}"
        found.add(Rule(to, row.get("iif", ""), does))
    return found


def cat(shell: Shell, path: str) -> str:
    """Return the content of a file, empty for one that is not there."""
    done = shell.run(["cat", path])
    if done.ok or "No such file" in done.err:
        return done.out
    raise refusal(shell, ["cat", path], said(done))


def exists(shell: Shell, path: str) -> bool:
    argv = ["test", "-e", path]
    done = shell.run(argv)
    if done.code > 1:
        # What is not known to be gone is not made anew.
        raise refusal(shell, argv, said(done))
    return done.ok


def linked(shell: Shell, device: str) -> bool:
    """Whether the kernel has the network device."""
    argv = ["ip", "link", "show", "dev", device]
    done = shell.run(argv)
    if done.ok or "does not exist" in done.err:
        return done.ok
    raise refusal(shell, argv, said(done))


def put(shell: Shell, path: str, text: str) -> None:
    shell.put(text.encode(), path, timeout_s=COMMAND_S)


def mark(wanted: GuestOrder | NetworkOrder) -> str:
    """Return the first line of all that is the owner's."""
    return f"# nestlab {wanted.owner}\n"


def unfit(form: re.Pattern[str], value: object, what: str) -> str:
    if form.fullmatch(str(value)):
        return ""
    return f"{what} {value!r} can't be written in Xen's settings: letters, digits, - _ . only, a letter first"


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
