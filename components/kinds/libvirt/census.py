"""What a place has, seen all at once and shared by the gates that look at it in the same moment.

Looking costs: on an emulated machine each run of virsh takes a third of a second. So the gates of one
place share one census, and a nested host is asked by one small script that reads the files in which
libvirt and LXC themselves note what they run. Mending never relies on it: it asks libvirt.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.kinds.libvirt.virsh import VirshError, lines
from components.reach.shell import LocalShell, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from components.kinds.libvirt.virsh import Virsh

FRESH_S = 2.0
"""How long a census may be used: the gates of one place look within a second of one another."""

DOMAIN, STATE = "Domain: '", "  state.state="
OFF = "shut off"
SUSPENDED = "suspended, its memory is saved"
"""Of one that is off, and goes on from there at its next start."""
SAVED = ("list", "--all", "--with-managed-save", "--name")
"""virsh's command that names those."""
WORDS = {
    "nostate": "no state",
    "running": "running",
    "blocked": "idle",
    "paused": "paused",
    "shutdown": "in shutdown",
    "shutoff": OFF,
    "crashed": "crashed",
    "pmsuspended": "pmsuspended",
}
"""virDomainState in virsh's words, by its words in libvirt's own files (domain_conf.c) and in their order."""
STATES = dict(enumerate(WORDS.values()))

# Shell built-ins but for one grep: each program started costs an emulated machine 50 ms. The state of
# a running domain stands in its status file (libvirt, src/conf/virdomainobjlist.c), and a running
# container's monitor listens on an abstract socket named after it (LXC, commands.c).
# A pool that libvirt started by itself at a boot has no file there that says so (libvirt 9), so it is asked.
SCRIPT = r"""
for f in /etc/libvirt/qemu/*.xml; do [ -e "$f" ] && f=${f##*/} && echo "domain ${f%.xml}"; done
for f in /run/libvirt/qemu/*.xml; do
  [ -e "$f" ] || continue
  state=running
  while read -r line; do
    case $line in "<domstatus "*) state=${line#*state=\'}; state=${state%%\'*}; break ;; esac
  done <"$f"
  f=${f##*/}; echo "runs $state ${f%.xml}"
done
for f in /etc/libvirt/qemu/networks/*.xml; do
  [ -e "$f" ] && f=${f##*/} && echo "network ${f%.xml}"
done
for f in /run/libvirt/network/*.xml; do [ -e "$f" ] && f=${f##*/} && echo "up ${f%.xml}"; done
ask=
for f in /etc/libvirt/storage/*.xml; do
  [ -e "$f" ] || continue
  f=${f##*/}; echo "pool ${f%.xml}"
  if [ -e /run/libvirt/storage/"$f" ]; then echo "stored ${f%.xml}"; else ask=yes; fi
done
[ -z "$ask" ] || virsh -q -c qemu:///system pool-list --name | while read -r p; do
  [ -n "$p" ] && echo "stored $p"
done
for f in /var/lib/lxc/*/nestlab.conf; do
  [ -e "$f" ] || continue
  name=${f%/*}; echo "container ${name##*/}"
  while read -r line; do printf 'set %s\n' "$line"; done <"$f"
done
for f in /var/lib/libvirt/dnsmasq/*.status; do
  [ -e "$f" ] || continue
  while read -r line; do
    case $line in *-address\":*) echo "lease $line" ;; esac
  done <"$f"
done
for f in /sys/class/net/*/brif/*; do
  [ -e "$f" ] && echo "port ${f##*/}"
done
grep -o '@/var/lib/lxc/[^/ ]*/command' /proc/net/unix
exit 0
"""


@dataclass(frozen=True)
class Container:
    """An LXC container that a lab made."""

    settings: str
    """What the lab decided of it, as it stands in its configuration."""
    runs: bool


@dataclass(frozen=True)
class Census:
    """What a place had at one moment."""

    domains: dict[str, str] = field(default_factory=dict)
    """State by name, in libvirt's words ("running", "shut off", ...)."""
    networks: dict[str, bool] = field(default_factory=dict)
    """Whether it is up, by name."""
    pools: dict[str, bool] = field(default_factory=dict)
    """Whether it is active, by name."""
    containers: dict[str, Container] = field(default_factory=dict)
    """By name; only nested hosts are asked for them."""
    leases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Leased IPv4 addresses by MAC; only nested hosts are asked for them."""
    ports: set[str] = field(default_factory=set)
    """Network devices that are plugged into a bridge; only nested hosts are asked for them."""


def take(virsh: Virsh) -> Census:
    """Look, now.

    Raises:
        Unreachable, VirshError: the place or its libvirt can't be asked.
    """
    if isinstance(virsh.shell, LocalShell):
        return _by_virsh(virsh)
    done = virsh.shell.run(["sh", "-c", SCRIPT])
    if not done.ok:
        raise VirshError(f"looking at {virsh.shell.name}: {done.said}")
    return read(done.out)


def _by_virsh(virsh: Virsh) -> Census:
    every, active = ("--all", "--name"), ("--name",)
    asked = [(f"{kind}-list", *which) for kind in ("net", "pool") for which in (every, active)]
    domains, *told = virsh.each(("domstats", "--state"), SAVED, *asked)
    saved, networks, up = map(lines, told[:3])
    # pool-list pads names, of which the lab's have no blanks.
    pools, started = ([name.rstrip(" ") for name in lines(each)] for each in told[3:])
    return Census(
        {
            name: SUSPENDED if state == OFF and name in saved else state
            for name, state in _states(domains).items()
        },
        {name: name in up for name in networks},
        {name: name in started for name in pools},
    )


def _states(told: str) -> dict[str, str]:
    """Read what ``virsh domstats --state`` prints: names are anybody's, and alone on their lines."""
    found: dict[str, str] = {}
    name = ""
    for line in lines(told):
        if line.startswith(DOMAIN):
            name = line.removeprefix(DOMAIN).removesuffix("'")
        elif line.startswith(STATE):
            found[name] = STATES.get(int(line.removeprefix(STATE)), "in an unknown state")
    return found


def read(told: str) -> Census:
    """Return what `SCRIPT` printed."""
    rows: dict[str, list[str]] = {}
    settings: dict[str, list[str]] = {}
    for line in lines(told):
        word, _, rest = line.partition(" ")
        if word == "container":
            name = rest
            settings[name] = []
        elif word == "set":
            settings[name].append(rest)
        elif word.startswith("@"):
            rows.setdefault("monitor", []).append(word.split("/")[-2])
        else:
            rows.setdefault(word, []).append(rest)
    # The state first: it is one word, and a name is anybody's.
    runs = (row.partition(" ") for row in rows.get("runs", ()))
    states = {name: WORDS.get(state, state) for state, _, name in runs}
    up = set(rows.get("up", ()))
    running = set(rows.get("monitor", ()))
    return Census(
        dict.fromkeys(rows.get("domain", ()), "shut off") | states,
        dict.fromkeys(rows.get("network", ()), False) | dict.fromkeys(up, True),
        dict.fromkeys(rows.get("pool", ()), False) | dict.fromkeys(rows.get("stored", ()), True),
        {name: Container("\n".join(told), name in running) for name, told in settings.items()},
        _leases(rows.get("lease", ())),
        set(rows.get("port", ())),
    )


def _leases(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read what libvirt's leaseshelper writes: an address, and in the next line its MAC."""
    found: dict[str, tuple[str, ...]] = {}
    address = ""
    for line in lines:
        key, _, value = line.replace('"', "").rstrip(",").partition(": ")
        if key == "ip-address":
            address = value
        elif key == "mac-address":
            found[value] = (*found.get(value, ()), address)
    return found


class _Shared:
    """The census of one place: taken by whoever comes first, used by all who come soon after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: tuple[float, Census] | None = None

    def get(self, virsh: Virsh) -> Census:
        with self._lock:
            if self._taken is None or time.monotonic() - self._taken[0] > FRESH_S:
                self._taken = (time.monotonic(), take(virsh))
            return self._taken[1]

    def drop(self) -> None:
        with self._lock:
            self._taken = None


_shared: dict[tuple[str, str], _Shared] = {}


def _of(virsh: Virsh) -> _Shared:
    return _shared.setdefault((virsh.shell.name, virsh.uri), _Shared())


def census(virsh: Virsh) -> Census:
    """Return what the place has, seen within the last `FRESH_S` seconds.

    Raises:
        Unreachable, VirshError: it can't be asked.
    """
    return _of(virsh).get(virsh)


def changed(virsh: Virsh) -> None:
    """Say that something is being changed at the place, so that its next census is a new one."""
    _of(virsh).drop()


def foresee(virsh: Virsh) -> None:
    """Take the census in the background, because it will soon be asked for."""

    def quietly() -> None:
        with contextlib.suppress(Unreachable, VirshError):
            census(virsh)

    threading.Thread(target=quietly, daemon=True).start()
