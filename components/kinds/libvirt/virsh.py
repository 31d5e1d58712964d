"""libvirt's own command line at a place: what the gates ask and mend there.

pulumi-libvirt makes and removes objects; it neither notices that one was switched off nor starts it
again. This does, by libvirt's client, which every place with libvirt has.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from components.reach import client
from components.reach.orders import Reservation
from components.reach.shell import LocalShell, Unreachable, shell_of
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from components.reach.shell import Result, Shell, Target

GONE = re.compile(
    r"(failed to get (domain|network|pool)|not found: no|no (domain|network|storage pool) with)",
    re.IGNORECASE,
)
"""What virsh says when an object is not defined (libvirt 9: "failed to get domain 'x'")."""
COMMANDS = {"domain": "", "network": "net-", "pool": "pool-"}
"""What virsh's commands about each kind of object begin with."""
STOOD = "urn:nestlab:stood"
"""XML namespace of the mark, in a domain's own metadata, that it was up once."""


class VirshError(Refused):
    """virsh refused something; the message is its own."""


def host_xml(kept: Reservation) -> str:
    """Return the ``host`` element of libvirt's network format for a reservation."""
    return f"<host mac='{kept.mac}' name='{kept.name}' ip='{kept.address}'/>"


@dataclass(frozen=True)
class NetworkFacts:
    """A network that is defined."""

    active: bool
    definition: str
    """Its XML, as it will be at its next start."""

    @property
    def reservations(self) -> list[Reservation]:
        """Its DHCP reservations, in its order."""
        root = ET.fromstring(self.definition)  # noqa: S314 - libvirt's own output
        return [
            Reservation(host.get("mac", ""), host.get("ip", ""), host.get("name", ""))
            for host in root.iterfind("ip/dhcp/host")
        ]


@dataclass(frozen=True)
class DomainFacts:
    """A domain that is defined."""

    state: str
    """In libvirt's words ("running", "shut off", ...)."""
    definition: str
    """Its XML, as it will be at its next start, with secrets."""
    console: str
    """Its screen as a URI, such as vnc://127.0.0.1:0; empty without one, or while it is off."""

    @property
    def has_stood(self) -> bool:
        """Whether it bears the mark of `Virsh.note_stood`."""
        root = ET.fromstring(self.definition)  # noqa: S314 - libvirt's own output
        return root.find(f"metadata/{{{STOOD}}}stood") is not None


@dataclass(frozen=True)
class PoolFacts:
    """A pool that is defined."""

    active: bool
    definition: str
    """Its XML."""

    @property
    def path(self) -> str:
        """Its folder."""
        root = ET.fromstring(self.definition)  # noqa: S314 - libvirt's own output
        return root.findtext("target/path") or ""


@dataclass(frozen=True)
class Virsh:
    """virsh on one libvirt. Names and UUIDs are both taken as ``name``."""

    shell: Shell
    uri: str

    @property
    def is_away(self) -> bool:
        """Whether the URI leads to another machine than the one that ``shell`` is on."""
        return isinstance(self.shell, LocalShell) and self.uri.startswith(client.AWAY)

    @property
    def host(self) -> Shell:
        """A shell on the machine that this libvirt runs on: another than ``shell`` where the URI leads away."""
        return client.host_shell(self.uri) if self.is_away else self.shell

    def run(self, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> Result:
        """Run one virsh command.

        Raises:
            Unreachable: the place or its libvirt does not answer.
        """
        done = self.shell.run([*client.virsh(self.uri), *words], stdin=stdin, timeout_s=timeout_s)
        if not done.ok and "failed to connect to the hypervisor" in done.err:
            raise Unreachable(f"libvirt at {self.host.name}: {done.said}")
        return done

    def must(self, *words: str, stdin: bytes = b"", timeout_s: float = 60) -> str:
        """Run one virsh command that has to succeed; return its output.

        Raises:
            VirshError: it did not; the message names the command.
        """
        done = self.run(*words, stdin=stdin, timeout_s=timeout_s)
        if not done.ok:
            raise VirshError(f"virsh {words[0]} at {self.host.name}: {done.said}")
        return done.out

    def _asked(self, *words: str) -> str | None:
        """Like `must`, but None when the object is not defined."""
        done = self.run(*words)
        if done.ok:
            return done.out
        if GONE.search(done.err):
            return None
        raise VirshError(f"virsh {words[0]} at {self.host.name}: {done.said}")

    def _batch(self, *commands: Sequence[str]) -> tuple[list[str], str]:
        """Run several commands by one virsh; return what each printed, and what all complained of.

        On an emulated machine starting virsh takes a third of a second, a command of it a tenth.
        """
        # New each time: what is printed may hold words that somebody chose.
        mark = f"nestlab-{secrets.token_hex(8)}"
        line = f"; echo {mark}; ".join(" ".join(map(_quoted, words)) for words in commands)
        done = self.run(line)
        # Quiet, virsh ends what `echo` says with no line break.
        return done.out.split(mark), done.err.strip()

    def together(self, *commands: Sequence[str]) -> list[str]:
        """Run several commands by one virsh; return what each printed, nothing where one failed.

        Raises:
            Unreachable: the place or its libvirt does not answer.
        """
        told, _ = self._batch(*commands)
        return [*told, *[""] * (len(commands) - len(told))]

    def each(self, *commands: Sequence[str]) -> list[str]:
        """Like `together`, but every command has to succeed.

        Raises:
            VirshError: one did not.
        """
        told, wrong = self._batch(*commands)
        if wrong or len(told) != len(commands):
            raise VirshError(f"virsh {commands[0][0]} at {self.host.name}: {_last(wrong)}")
        return told

    def uuids(self, kind: str, *names: str) -> dict[str, str]:
        """UUID by name of those of ``names`` that are a ``kind`` ("domain", ...) here.

        Raises:
            VirshError: libvirt says anything else of one than that it is not there.
        """
        if not names:
            return {}
        command = "domuuid" if kind == "domain" else f"{COMMANDS[kind]}uuid"
        told, wrong = self._batch(*((command, name) for name in names))
        if any(not GONE.search(line) for line in lines(wrong)) or len(told) != len(names):
            raise VirshError(f"virsh {command} at {self.host.name}: {_last(wrong)}")
        return {name: uuid.strip() for name, uuid in zip(names, told, strict=True) if uuid.strip()}

    def pairs(self, kind: str) -> list[tuple[str, str]]:
        """UUID and name of every ``kind`` here.

        Names are anybody's, with blanks and quotes: only a line break can't be in one.
        """
        every = (f"{COMMANDS[kind]}list", "--all", "--uuid")
        if kind != "network":
            rows = [line.partition(" ") for line in lines(self.must(*every, "--name"))]
            return [(uuid, name.strip(" ")) for uuid, _, name in rows]
        # net-list can't print both (libvirt 9).
        found = lines(self.must(*every))
        told = self.together(*(("net-name", uuid) for uuid in found)) if found else []
        return [(uuid, name.strip("\n")) for uuid, name in zip(found, told, strict=True) if name]

    def listed(self, kind: str) -> set[str]:
        """UUIDs of every ``kind`` ("domain", ...) here: what is not among them is certainly not there.

        Raises:
            Unreachable, VirshError: they can't be listed.
        """
        told = self.must(f"{COMMANDS[kind]}list", "--all", "--uuid")
        return {line.strip() for line in lines(told)}

    def note_stood(self, domain: str) -> None:
        """Note in the definition of ``domain`` that it was up once (virsh(1), "metadata").

        It is the proof that a domain which no state knows was not made by a step that failed.
        """
        mark = ("--key", "nestlab", "--set", "<stood/>", "--config")
        self.must("metadata", domain, "--uri", STOOD, *mark)

    def qemu_group(self) -> str:
        """Number of the group that QEMU runs in here; empty where libvirt does not say.

        libvirt's "dac" security model names the user and group that it gives files to ("+UID:+GID",
        its capabilities' format).
        """
        host = ET.fromstring(self.must("capabilities"))  # noqa: S314 - libvirt's own output
        labels = host.iterfind("host/secmodel[model='dac']/baselabel")
        found = (re.fullmatch(r"\+\d+:\+(\d+)", label.text or "") for label in labels)
        return next((label[1] for label in found if label), "")

    def domain_state(self, name: str) -> str | None:
        """State in libvirt's words ("running", "shut off", ...); None when not defined."""
        state = self._asked("domstate", name)
        return None if state is None else state.strip()

    def domain(self, name: str) -> DomainFacts | None:
        """What there is to know of a domain; None when it is not defined."""
        told, wrong = self._batch(
            ("domstate", name),
            ("dumpxml", name, "--inactive", "--security-info"),
            ("domdisplay", name),
        )
        if GONE.search(wrong):
            return None
        state, definition, console = (each.strip() for each in (*told, "", "", "")[:3])
        if not state or not definition:
            raise VirshError(f"virsh domstate at {self.host.name}: {_last(wrong)}")
        return DomainFacts(state, definition, console)

    def network(self, name: str) -> NetworkFacts | None:
        """What there is to know of a network; None when it is not defined."""
        told, wrong = self._batch(("net-info", name), ("net-dumpxml", name, "--inactive"))
        if GONE.search(wrong):
            return None
        if wrong or len(told) != 2:  # noqa: PLR2004
            raise VirshError(f"virsh net-info at {self.host.name}: {_last(wrong)}")
        active = bool(re.search(r"^Active:\s+yes", told[0], re.MULTILINE))
        return NetworkFacts(active, told[1].strip())

    def pool(self, name: str) -> PoolFacts | None:
        """What there is to know of a pool; None when it is not defined."""
        told, wrong = self._batch(("pool-info", name), ("pool-dumpxml", name))
        if GONE.search(wrong):
            return None
        if wrong or len(told) != 2:  # noqa: PLR2004
            raise VirshError(f"virsh pool-info at {self.host.name}: {_last(wrong)}")
        active = bool(re.search(r"^State:\s+running", told[0], re.MULTILINE))
        return PoolFacts(active, told[1].strip())

    def define(self, kind: str, xml: str) -> None:
        """Define a domain, network or pool from ``xml``, which goes through standard input."""
        self.must(f"{COMMANDS[kind]}define", "/dev/stdin", stdin=xml.encode())

    def leases(self, network: str, mac: str) -> tuple[str, ...]:
        """Addresses that ``mac`` has leased on ``network``, dotted IPv4: one of an earlier plan may last."""
        told = self._asked("net-dhcp-leases", network, "--mac", mac) or ""
        return tuple(re.findall(r"\bipv4\s+([\d.]+)/", told))

    def reserve(self, network: str, facts: NetworkFacts, wanted: Iterable[Reservation]) -> str:
        """Make the network's reservations exactly ``wanted``, at once and for good.

        Returns the definition of the network after it.
        """
        wanted, present = list(wanted), facts.reservations
        scope = ("--live", "--config") if facts.active else ("--config",)
        changes = [("delete", host) for host in present if host not in wanted]
        changes += [("add", host) for host in wanted if host not in present]
        if not changes:
            return facts.definition
        told, wrong = self._batch(
            *(
                ("net-update", network, command, "ip-dhcp-host", host_xml(host), *scope)
                for command, host in changes
            ),
            ("net-dumpxml", network, "--inactive"),
        )
        if wrong:
            raise VirshError(f"virsh net-update at {self.host.name}: {_last(wrong)}")
        return told[-1].strip()

    def plug(self, name: str) -> None:
        """Plug running domains into the bridge of a network that is up again.

        libvirt removes the bridge with the network, and a domain that ran on keeps a loose tap.
        """
        bridge = _attribute(self.must("net-dumpxml", name), "bridge", "name")
        for domain in lines(self.must("list", "--uuid")):
            told = self.run("dumpxml", domain)
            for tap in _taps(told.out, name) if told.ok else []:  # it may be gone by now
                words = ["ip", "link", "set", tap, "master", bridge, "up"]
                done = self.host.run(words)
                if not done.ok and self.is_away:
                    # Who is let in there need not be root.
                    self.host.run(["sudo", "-n", *words])

    def tail(self, log: str, lines: int = 8) -> list[str]:
        """Last lines of a console log at this place; none where it can't be read."""
        if not log:
            return []
        try:
            done = self.host.run(["tail", "-c", "4000", log])
        except Unreachable:
            return []  # one whose ssh leads to libvirt alone
        clean = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\n]", "", done.out) if done.ok else ""
        return [line.rstrip() for line in clean.splitlines() if line.strip()][-lines:]

    def log_away(self, log: str) -> None:
        """Remove a console log of the outer host as far as it lets us; one inside a nested host goes with that."""
        if not isinstance(self.shell, LocalShell):
            return
        if not self.is_away:
            with contextlib.suppress(OSError):
                Path(log).unlink(missing_ok=True)
            return
        # It is root's, and who is let in there need not be root.
        script = 'rm -f -- "$1" 2>/dev/null || sudo -n rm -f -- "$1"'
        with contextlib.suppress(Unreachable):
            self.host.run(["sh", "-c", script, "sh", log])


def _quoted(word: str) -> str:
    """Return ``word`` as one word of virsh's command line, which knows double quotes (virsh(1))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def lines(told: str) -> list[str]:
    """Return the lines of what virsh printed, and nothing else that Unicode calls a line."""
    return [line for line in told.split("\n") if line]


def _attribute(xml: str, path: str, name: str) -> str:
    found = ET.fromstring(xml).find(path)  # noqa: S314 - libvirt's own output
    return "" if found is None else found.get(name, "")


def _taps(domain: str, network: str) -> list[str]:
    """Devices by which the running ``domain`` (its XML) is plugged into ``network``."""
    taps = []
    root = ET.fromstring(domain)  # noqa: S314 - libvirt's own output
    for nic in root.iterfind("devices/interface"):
        source, target = nic.find("source"), nic.find("target")
        if source is not None and target is not None and source.get("network") == network:
            taps.append(target.get("dev", ""))
    return taps


def _last(complaint: str) -> str:
    lines = [line for line in complaint.splitlines() if line.strip()]
    return lines[-1] if lines else "no answer"


class AtLibvirt(Protocol):
    """Properties of what is at a libvirt."""

    @property
    def target(self) -> Target: ...

    @property
    def uri(self) -> str: ...


def libvirt_of(props: AtLibvirt) -> Virsh:
    """Return the libvirt that a gate with ``target`` and ``uri`` is about."""
    return Virsh(shell_of(props.target), props.uri)
