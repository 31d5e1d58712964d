"""Changes of a host's network that take themselves back: tried, watched by the host itself, kept once confirmed.

What makes an uplink and what takes it back is one program in the host's own memory. Two processes of the host run
it, which need neither us nor our connection: one waits for a confirmation and takes everything back without it,
the other, started later, makes it. So whoever dies at whatever moment, the host is as it was when the time
is over; where even the first one was killed, the next command finds the record and takes it back.

The record also says who uses the uplink: labs share a NIC's bridge, and the last one that goes takes it away.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.kinds.libvirt.uplink.host import RECORDS, NetError
from components.reach.interrupt import CANCELLED
from components.reach.shell import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from components.kinds.libvirt.uplink.host import Host
    from components.kinds.libvirt.uplink.steps import Steps, Words

TRYING, MOVED, CONFIRMED, UNDONE = "trying", "moved", "confirmed", "undone"
"""A record's states."""
POLL_S = 0.3
ADDRESS, ROUTE = "# address ", "# route "
"""Begin the lines of a program that say what it moves."""
GRACE_S = 15.0
"""How much longer than its time a trial is waited for that takes itself back, seconds."""
PROBE_S = 4.0
"""How long a gateway is asked, seconds: ARP gives up after three tries of one second (arp(7))."""

PROGRAM = """\
#!/bin/sh
# Made by nestlab: an uplink of a lab. `sh {name} undo` takes it back.
{told}
port={port}
cd "${{0%/*}}" || exit 1
PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
state() {{ cat state 2>/dev/null; }}
now() {{ echo "$1" >state.new && mv state.new state; }}
do_() {{
  if [ "$1" = sysctl ]; then echo "$3" >"/proc/sys/$2"; else "$@"; fi
}}
# What managers are told (`managed`): files of theirs, and to look at them.
write() {{
  mkdir -p "${{2%/*}}" && rm -f "$2.new" || return 1
  (umask 077; m=$1 f=$2; shift 2; printf '%s\n' "$@" >"$f.new" && chmod "$m" "$f.new" && mv "$f.new" "$f")
}}
reload() {{ networkctl reload || systemctl restart systemd-networkd; }}
plugged() {{
  h=0
  until ip -o link show master "$2" 2>/dev/null | grep -q ": $1[@:]"; do
    h=$((h + 1)); [ "$h" -lt "$(($3 * 5))" ] || {{ echo "$1 is no port of $2 after $3 s" >&2; return 1; }}
    # One whose bridge somebody took away is let alone, unless it is told.
    [ "$((h % 15))" != 10 ] || networkctl reconfigure "$1"
    sleep 0.2
  done
}}
has() {{
  h=0
  until ip -o addr show dev "$2" 2>/dev/null | grep -qF " $1 "; do
    h=$((h + 1)); [ "$h" -lt "$(($3 * 5))" ] || {{ echo "$2 did not get $1 within $3 s" >&2; return 1; }}
    sleep 0.2
  done
}}
try() {{ do_ "$@" 2>why.new && return; echo "$*: $(tail -n 1 why.new)" >why; return 1; }}
make() {{
{make}
}}
again() {{
{again}
}} 2>/dev/null
back() {{
{back}
}} 2>/dev/null
locked() {{ exec 9>>lock; flock 9; }}
case $1 in
make)
  locked
  [ "$(state)" = trying ] || exit 0
  if make; then now moved; else back; now undone; fi ;;
guard)
  exec 8>>alive; flock 8
  i=0
  while [ "$i" -lt {limit} ]; do
    case $(state) in confirmed | undone) exit 0 ;; esac
    sleep 1; i=$((i + 1))
  done
  locked
  case $(state) in confirmed | undone) exit 0 ;; esac
  back; echo "nobody confirmed it within {limit} s" >why; now undone ;;
confirm) locked; [ "$(state)" = moved ] && now confirmed ;;
repair) locked; again; now confirmed ;;
undo) locked; back; now undone ;;
esac
"""
# A service of systemd's outlives the session that starts it; it lives in the machine's own network, though.
# In a folder that no `*` finds until it is whole.
BEGIN = r"""
t=$d/.$1.$$; rm -rf "$t"; mkdir -p "$t/users" || exit 1
cat >"$t/plan" && echo trying >"$t/state" && : >"$t/users/$2" || exit 1
mv -T "$t" "$d/$1" 2>/dev/null || { rm -rf "$t"; exit 17; }
cd "$d/$1" || exit 1
launch() {
  if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null &&
    [ "$(readlink /proc/self/ns/net)" = "$(readlink /proc/1/ns/net)" ]; then
    systemd-run --quiet --collect --unit "nestlab-$1-${d##*/}-$$" sh "$PWD/plan" "$1" && return
  fi
  setsid sh "$PWD/plan" "$1" </dev/null >/dev/null 2>&1 &
}
launch guard
i=0
while flock -n alive true; do
  i=$((i + 1)); [ "$i" -lt 50 ] || { echo "nothing here can watch over the change" >&2; exit 1; }
  sleep 0.1
done
launch make
"""
TAKEN = 17
"""What `BEGIN` ends with where somebody else was first."""
PUT = r"""
t=$d/.$1.$$; rm -rf "$t"; mkdir -p "$t/users" || exit 1
cat >"$t/plan" && echo confirmed >"$t/state" && : >"$t/users/$2" || exit 1
mv -T "$t" "$d/$1" 2>/dev/null || { rm -rf "$t"; cd "$d/$1" && : >"users/$2"; }
"""
# Whoever makes it holds the lock for as long as that takes.
TOLD = r"""
cd "$d/$1" 2>/dev/null || exit 0
cat state; flock -n alive true && echo alone || echo watched; cat why 2>/dev/null; exit 0
"""
JOIN = r"""
cd "$d/$1" 2>/dev/null || exit 0
exec 7>>lock; flock 7
[ -e state ] && [ "$(cat state)" = confirmed ] && : >"users/$2" && cat plan
"""
# The setting is the program's own line, if it has one.
FREED = r"""
cd "$d/$1" 2>/dev/null || exit 0
sed -n 's|^  do_ sysctl \(net/ipv6/conf/[^ ]*/disable_ipv6\) 0$|\1|p' plan | while read -r x; do
  ! [ -e "/proc/sys/$x" ] || echo 0 >"/proc/sys/$x"
done
rm -rf "$d/$1"
"""
LEAVE = r"""
cd "$d/$1" 2>/dev/null || exit 0
exec 7>>lock; flock 7
rm -f "users/$2"
for u in users/*; do [ -e "$u" ] && exit 0; done
port=$(sed -n 's/^port=//p' plan)
for p in $(ip -o link show master "$1" 2>/dev/null | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
  [ "$p" = "$port" ] || { : >"users/$2"; echo "$p"; exit 1; }
done
flock -u 7; sh "$PWD/plan" undo && rm -rf "$d/$1"
"""
ASK = r"""
dev=$1; shift
for g in "$@"; do
  ip neigh change "$g" dev "$dev" nud probe 2>/dev/null || ip neigh replace "$g" dev "$dev" use
done
i=0
while :; do
  up=
  for g in "$@"; do
    ip neigh show to "$g" dev "$dev" | grep -Eq 'REACHABLE|PERMANENT|NOARP' && up="$up $g"
  done
  i=$((i + 1))
  [ "$(echo $up | wc -w)" = $# ] || [ "$i" -gt 20 ] && break
  sleep 0.2
done
echo $up
"""
# An entry that failed would stay in the table for a while.
FREE = f'{ASK}\nfor g in "$@"; do ip neigh del "$g" dev "$dev" 2>/dev/null; done; exit 0\n'


def program(name: str, port: str, steps: Steps, confirm_s: int) -> str:
    """Return the program that makes ``name`` by ``steps``, and takes it back after ``confirm_s`` seconds.

    ``port`` is what is plugged into it by the steps; empty for what is no bridge.
    """
    return PROGRAM.format(
        name=name,
        port=port,
        told="\n".join(
            [f"{ADDRESS}{each}" for each in steps.addresses]
            + [f"{ROUTE}{each}" for each in steps.routes]
        ),
        limit=confirm_s,
        make=" &&\n".join(f"  try {_line(words)}" for words in steps.make) or "  :",
        again=_lines(steps.make),
        back=_lines(steps.back),
    )


def moved(text: str) -> tuple[list[str], list[str]]:
    """Return which addresses and which routes the program ``text`` moves, as `Steps` has them."""
    rows = text.split("\n")
    return (
        [row.removeprefix(ADDRESS) for row in rows if row.startswith(ADDRESS)],
        [row.removeprefix(ROUTE) for row in rows if row.startswith(ROUTE)],
    )


def _lines(steps: Iterable[Words]) -> str:
    return "\n".join([*(f"  do_ {_line(words)}" for words in steps), "  true"])


def _line(words: Sequence[str]) -> str:
    return shlex.join(words)


@dataclass(frozen=True)
class Trial:
    """The record of one uplink on a host."""

    host: Host
    name: str
    """Of the bridge, or what else the record is about."""
    user: str
    """Who uses it: the lab's identity, a dot, the network."""

    def make(
        self, text: str, device: str, back: str, gateways: Sequence[str], confirm_s: int
    ) -> None:
        """Have the program ``text`` make it, see whether the host is reached and reaches, and confirm.

        ``gateways`` are asked before on ``back``, the NIC, and afterwards on ``device``: those that answered
        have to.

        Raises:
            NetError: it could not be made, or a gateway was lost; everything is as it was.
            Unreachable: the host does not answer any more; it takes everything back by itself.
        """
        answered = self._answering(back, gateways)
        done = self.host.run(BEGIN, self.name, self.user, stdin=text.encode())
        if done.code == TAKEN:
            raise Taken(f"{self.name} is being made by another lab")
        if not done.ok:
            raise NetError(f"{self.host.shell.name}: {done.said}")
        try:
            self._settled(confirm_s)
            self._confirmed(device, back, answered)
        except Unreachable as silent:
            raise Unreachable(
                f"{silent}. Its network was being changed, and it takes that back by itself within {confirm_s} s"
            ) from None

    def _confirmed(self, device: str, back: str, answered: Sequence[str]) -> None:
        lost = set(answered) - set(self._answering(device, answered))
        # Behind what was taken back meanwhile nobody answers either: that is told by confirming.
        if lost and self.told()[0] == MOVED:
            self.undo()
            raise NetError(
                f"{self.host.shell.name}: {', '.join(sorted(lost))} answered behind {back} and did not behind "
                f"{device}, so everything is as it was. Is {back}'s switch port one for a single MAC address?"
            )
        if not self.host.run(f'sh "$d/{self.name}/plan" confirm').ok:
            raise NetError(
                f"{self.host.shell.name}: {self.name} {self._why()}; everything is as it was"
            )

    def _answering(self, device: str, gateways: Sequence[str]) -> list[str]:
        if not gateways:
            return []
        return self.host.run(ASK, device, *gateways).out.split()

    def _settled(self, confirm_s: int) -> None:
        """Wait until it is made.

        Raises:
            NetError: it was taken back.
            Unreachable: the host did not answer in all that time.
        """
        until = time.monotonic() + confirm_s + GRACE_S
        while True:
            try:
                state, _ = self.told()
            except Unreachable:
                if time.monotonic() > until:
                    raise
                state = TRYING
            if state == MOVED:
                return
            if state in {UNDONE, ""} or time.monotonic() > until:
                why = self._why()
                self.forget()
                raise NetError(f"{self.host.shell.name}: {why}; everything is as it was")
            CANCELLED.wait(POLL_S)

    def _why(self) -> str:
        told = self.host.run(f'cat "$d/{self.name}/why"')
        return told.out.strip() or "the change was taken back"

    def told(self) -> tuple[str, bool]:
        """Return the record's state, empty for none, and whether something there watches over it."""
        lines = self.host.must(TOLD, self.name).split("\n")
        return lines[0].strip(), "watched" in lines[1:2]

    def settle(self, confirm_s: int) -> str:
        """Wait for the end of a trial that somebody else began, or take back one that nobody watches; return the state."""
        until = time.monotonic() + confirm_s + GRACE_S
        while True:
            state, watched = self.told()
            if state in {TRYING, MOVED} and watched and time.monotonic() < until:
                CANCELLED.wait(POLL_S)
                continue
            if state in {TRYING, MOVED}:
                self.undo()
            if state == UNDONE:
                self.forget()
            return CONFIRMED if state == CONFIRMED else ""

    def join(self) -> str:
        """Note that this lab uses it too; return its program, empty where it is not there."""
        return self.host.run(JOIN, self.name, self.user).out

    def put(self, text: str) -> None:
        """Leave the record of something that is there, or that needs no trial."""
        self.host.must(PUT, self.name, self.user, stdin=text.encode())

    def repair(self) -> None:
        """Do again what makes it, whatever of it is there."""
        self.host.must(f'sh "$d/{self.name}/plan" repair')

    def undo(self) -> None:
        """Take it back, whoever uses it."""
        self.host.must(f'sh "$d/{self.name}/plan" undo')
        self.forget()

    def forget(self) -> None:
        """Remove the record of what was taken back."""
        self.host.must('rm -rf "$d/$1"', self.name)

    def freed(self) -> None:
        """Remove the record of a bridge that somebody else took away; its NIC may have IPv6 again."""
        self.host.must(FREED, self.name)

    def leave(self) -> None:
        """Note that this lab does not use it any more; the last one takes it back.

        Raises:
            NetError: something else is plugged into the bridge.
        """
        done = self.host.run(LEAVE, self.name, self.user)
        if not done.ok:
            other = done.out.strip()
            raise NetError(
                f"{self.host.shell.name}: {other or done.said} is still plugged into {self.name}, and is not the "
                f"lab's: take it out (`ip link set {other or 'PORT'} nomaster`) and repeat"
            )


class Taken(NetError):
    """Another lab makes the same uplink at this moment."""


def answering(host: Host, device: str, addresses: Sequence[str]) -> list[str]:
    """Return which of ``addresses`` somebody behind ``device`` has already; takes `PROBE_S` where nobody does."""
    return host.run(FREE, device, *addresses).out.split() if addresses else []


def swept(host: Host, identity: str) -> list[str]:
    """Take back what the lab ``identity`` is still noted as a user of; return the names."""
    if not host.shell.run(["test", "-d", RECORDS]).ok:
        return []
    listed = host.run(
        f'cd "$d" 2>/dev/null || exit 0; for f in */users/{shlex.quote(identity)}.*; do '
        '[ -e "$f" ] && echo "$f"; done; exit 0'
    )
    found = [line.split("/") for line in listed.out.split("\n") if line]
    for name, _, user in found:
        trial = Trial(host, name, user)
        trial.settle(0)
        trial.leave()
    return [name for name, _, _ in found]
