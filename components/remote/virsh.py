"""libvirt's own command line at a place: what the gates ask and mend there.

pulumi-libvirt makes and removes objects; it neither notices that one was switched off nor starts it
again. This does, by libvirt's client, which every place with libvirt has.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.remote.shell import LocalShell, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from components.remote.shell import Result, Shell

GONE = re.compile(
    r"(failed to get (domain|network|pool)|not found: no|no (domain|network|storage pool) with)",
    re.IGNORECASE,
)
"""What virsh says when an object is not defined (libvirt 9: "failed to get domain 'x'")."""


class VirshError(Exception):
    """virsh refused something; the message is its own."""


@dataclass(frozen=True)
class Reservation:
    """A DHCP reservation: this MAC gets this address and this host name."""

    mac: str
    address: str
    name: str

    @property
    def xml(self) -> str:
        """The ``host`` element of libvirt's network format."""
        return f"<host mac='{self.mac}' name='{self.name}' ip='{self.address}'/>"


@dataclass(frozen=True)
class Virsh:
    """virsh on one libvirt. Names and UUIDs are both taken as ``name``."""

    shell: Shell
    uri: str

    def run(self, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        """Run one virsh command.

        Raises:
            Unreachable: the place or its libvirt does not answer.
        """
        done = self.shell.run(
            ["virsh", "-q", "-c", self.uri, *words], stdin=stdin, timeout_s=timeout_s
        )
        if not done.ok and "failed to connect to the hypervisor" in done.err:
            raise Unreachable(f"libvirt at {self.shell.name}: {done.said}")
        return done

    def must(self, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> str:
        """Run one virsh command that has to succeed; return its output.

        Raises:
            VirshError: it did not; the message names the command.
        """
        done = self.run(*words, stdin=stdin, timeout_s=timeout_s)
        if not done.ok:
            raise VirshError(f"virsh {words[0]} at {self.shell.name}: {done.said}")
        return done.out

    def _asked(self, *words: str) -> str | None:
        """Like `must`, but None when the object is not defined."""
        done = self.run(*words)
        if done.ok:
            return done.out
        if GONE.search(done.err):
            return None
        raise VirshError(f"virsh {words[0]} at {self.shell.name}: {done.said}")

    def domain_state(self, name: str) -> str | None:
        """State in libvirt's words ("running", "shut off", ...); None when not defined."""
        state = self._asked("domstate", name)
        return None if state is None else state.strip()

    def definition(self, kind: str, name: str) -> str | None:
        """Definition of a "domain" or "network" as it will be at its next start, with secrets."""
        command = {
            "domain": ("dumpxml", "--inactive", "--security-info"),
            "network": ("net-dumpxml", "--inactive"),
        }[kind]
        return self._asked(*command, name)

    def define(self, kind: str, xml: str) -> None:
        """Define a domain or network from ``xml``, which goes through standard input."""
        command = {"domain": "define", "network": "net-define"}[kind]
        self.must(command, "/dev/stdin", stdin=xml.encode())

    def network_active(self, name: str) -> bool | None:
        """Whether the network is up; None when it is not defined."""
        info = self._asked("net-info", name)
        return None if info is None else bool(re.search(r"^Active:\s+yes", info, re.MULTILINE))

    def lease(self, network: str, mac: str) -> str | None:
        """Address that ``mac`` has leased on ``network``, dotted IPv4; None without a lease."""
        for line in (self._asked("net-dhcp-leases", network, "--mac", mac) or "").splitlines():
            found = re.search(r"\bipv4\s+([\d.]+)/", line)
            if found:
                return found[1]
        return None

    def reservations(self, network: str) -> list[Reservation]:
        """DHCP reservations of the network, in its order."""
        xml = self.definition("network", network)
        root = ET.fromstring(xml or "<network/>")  # noqa: S314 - libvirt's own output
        return [
            Reservation(host.get("mac", ""), host.get("ip", ""), host.get("name", ""))
            for host in root.iterfind("ip/dhcp/host")
        ]

    def reserve(self, network: str, wanted: Iterable[Reservation]) -> None:
        """Make the network's reservations exactly ``wanted``, at once and for good."""
        wanted = list(wanted)
        present = self.reservations(network)
        active = self.network_active(network)
        scope = ("--live", "--config") if active else ("--config",)
        for command, hosts in (
            ("delete", [host for host in present if host not in wanted]),
            ("add", [host for host in wanted if host not in present]),
        ):
            for host in hosts:
                self.must("net-update", network, command, "ip-dhcp-host", host.xml, *scope)

    def start_network(self, name: str) -> None:
        """Start a defined network and plug running domains into its bridge again.

        libvirt removes the bridge with the network, and a domain that ran on keeps a loose tap.
        """
        self.must("net-start", name)
        bridge = self._bridge(name)
        for domain in self.must("list", "--name").split():
            for line in self.must("domiflist", domain).splitlines():
                words = line.split()
                if len(words) >= 3 and words[1:3] == ["network", name]:  # noqa: PLR2004
                    self.shell.run(["ip", "link", "set", words[0], "master", bridge, "up"])

    def _bridge(self, network: str) -> str:
        info = self.must("net-info", network)
        found = re.search(r"^Bridge:\s+(\S+)", info, re.MULTILINE)
        return found[1] if found else ""

    def vnc(self, domain: str) -> str:
        """Console of a running domain as a URI, empty when it has none."""
        done = self.run("domdisplay", domain)
        return done.out.strip() if done.ok else ""

    def tail(self, log: str, lines: int = 8) -> list[str]:
        """Last lines of a console log at this place; none where it can't be read."""
        if not log:
            return []
        done = self.shell.run(["tail", "-c", "4000", log])
        clean = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", done.out) if done.ok else ""
        return [line.rstrip() for line in clean.splitlines() if line.strip()][-lines:]

    @property
    def is_local(self) -> bool:
        """Whether files of this libvirt are files of the machine that runs the deployment."""
        return isinstance(self.shell, LocalShell) and not self.uri.startswith("qemu+")


def words_of(reservations: Sequence[dict[str, str]]) -> list[Reservation]:
    """Return reservations from the plain data that goes through the engine."""
    return [Reservation(one["mac"], one["address"], one["name"]) for one in reservations]
