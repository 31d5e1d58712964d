"""What a machine is told after it went back to a snapshot, over its own way in: the time, and new randomness.

One login for each machine does all of it: on an emulated one that is what takes the time. The same login asks
who inside answers a ping, before a snapshot and after each reset.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from toolchain import lab
from toolchain.bootstrap import ui

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Answers = Mapping[str, Sequence[str]]
    """Addresses inside each machine, by its name."""

LOGIN_S = 60.0
"""For a login and all that is done in it, on an emulated machine, seconds."""
TRIES = 2
"""Logins that are tried: the first may meet a network that has just been moved back in time."""
SEED_BYTES = 64
PINGS = 10
"""Times that each address is asked until one answers, two seconds each. One is enough: an installer or a boot menu
answers for a while only, and what proves both layers is a packet through them."""
READY = "ready"
"""What a machine says when it listens: the time is told to it then, not before a login of seconds."""
PING = 'ping=$(command -v ping || echo "busybox ping")'
RANDOM = (
    # RNDADDENTROPY, then RNDRESEEDCRNG (random(4); linux/random.h, x86): credited, and used from then on.
    'open(R,"+<","/dev/random") or die; $s=pack("H*",$ENV{SEED}); '
    'ioctl(R,0x40085203,pack("ii",8*length $s,length $s).$s) or die "$!"; ioctl(R,0x5207,0) or die "$!"'
)
STOPPED, PAUSED = "/run/nestlab-stopped", "/run/nestlab-paused"
"""Files of a machine's own memory, which is what goes back: who in it stands still, by process and by Xen's number."""
STILL = (
    # Who has a virtual processor of KVM (linux/virt/kvm/kvm_main.c names its file so), whoever started it.
    'for $d (glob "/proc/[0-9]*") { ($p)=$d=~/(\\d+)/; next if stat_of($p) eq "T"; '
    'push @p,$p if grep { (readlink||"")=~/kvm-vcpu/ } glob "$d/fd/*" } '
    'sub stat_of { open(F,"<","/proc/$_[0]/stat") or return ""; local $_=<F>; /.*\\) (\\w)/s ? $1 : "" } '
    'open(O,">>",$ARGV[0]) or die "$!"; print O "$_\\n" for @p; close O; kill "STOP",@p; '
    "for (1..100) { last unless grep { stat_of($_)!~/^[TZ]?$/ } @p; select undef,undef,undef,0.05 }"
)
HALT = f"""\
perl -e '{STILL}' {STOPPED} || exit 1
if command -v xl >/dev/null; then
  xl list | awk 'NR > 1 && $(NF-4) != 0 && $(NF-1) !~ /p/ {{ print $(NF-4) }}' >>{PAUSED}
  while read -r one; do xl pause "$one"; done <{PAUSED}
fi
echo still
"""
"""QEMU without KVM can't restore a processor that was in a guest of its own ("vCPU set in guest-mode inconsistent
with migrated kernel nested state", target/i386/machine.c): so the inner guests stand still while memory is saved."""
GO = f"""\
[ ! -e {STOPPED} ] || {{ xargs -r kill -CONT <{STOPPED}; rm -f {STOPPED}; }}
[ ! -e {PAUSED} ] || {{ while read -r one; do xl unpause "$one"; done <{PAUSED}; rm -f {PAUSED}; }}
"""
RENEW = f"""\
echo {READY}
read -r now seed || exit 1
date -u -s "@$now" >/dev/null || exit 1
SEED=$seed perl -e '{RANDOM}' || exit 1
{GO}{PING}
[ $# -gt 0 ] || {{ echo renewed; exit; }}
n=0
while [ $n -lt {PINGS} ]; do
  # Whoever is first: nobody waits for the others, and their pings end by themselves.
  # (They hold nothing of the session's, which would last as long as they do.)
  first=$(
    (
      exec </dev/null 2>/dev/null
      for one do {{ $ping -c1 -W2 "$one" >/dev/null && echo "$one"; }} & done
    ) | head -n 1
  )
  [ -z "$first" ] || {{ echo renewed; exit; }}
  n=$((n+1))
done
echo "nobody inside answers: $*"
"""
"""Takes addresses as its words, and a line of standard input: seconds since 1970, and a seed."""
ASK = f"""\
echo {READY}
sync
{PING}
for one do
  {{ if $ping -c1 -W2 "$one" >/dev/null 2>&1; then echo "answers $one"; fi; }} &
done
wait
{HALT}"""


def stand_still(stack: str, asked: Answers) -> dict[str, list[str]]:
    """Have the guests in the machines of ``asked`` stand still; return who of them answered a ping until then.

    All that the machines hold goes to their disks. The guests go on by `go_on` or `renew`.

    Raises:
        Problem: a machine does not let us in, or what is in it does not stand still; all goes on.
    """
    try:
        found = _each(stack, {name: (ASK, inside) for name, inside in asked.items()})
        _expect(found, "still")
    except BaseException:
        with contextlib.suppress(ui.Problem):
            go_on(stack, asked)
        raise
    return {
        name: [line.split()[1] for line in told if line.startswith("answers ")]
        for name, told in found.items()
    }


def go_on(stack: str, asked: Iterable[str]) -> None:
    """Let go on what stands still in the machines ``asked``, which stood still themselves, and tell them the time.

    Raises:
        Problem: a machine does not let us in.
    """
    renew(stack, dict.fromkeys(asked, ()))


def renew(stack: str, expected: Answers) -> None:
    """Give the machines of ``expected`` the time and new randomness; one of who answered inside has to answer again.

    Raises:
        Problem: one does not let us in, does not take it, or nobody inside answers who did.
    """
    told = _each(stack, {name: (RENEW, inside) for name, inside in expected.items()})
    _expect(told, "renewed")


def _expect(told: Mapping[str, Sequence[str]], last: str) -> None:
    for name, lines in told.items():
        if lines[-1:] != [last]:
            raise ui.Problem(f"{name}: {' '.join(lines[-1:]) or 'it ended without a word'}")


def _each(stack: str, scripts: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Run a script with its words on each machine, side by side; return the lines that each printed."""
    if not scripts:
        return {}
    with ThreadPoolExecutor(len(scripts)) as crew:
        asked = {
            name: crew.submit(_told, stack, name, script, words)
            for name, (script, words) in scripts.items()
        }
        return {name: one.result() for name, one in asked.items()}


def _told(stack: str, name: str, script: str, words: Sequence[str]) -> list[str]:
    argv, folder = lab.way_in(stack, name, ["sh", "-c", script, "sh", *words])
    argv = [word for word in argv if word != "-t"]  # what is read is no terminal
    said: list[str] = []
    for _ in range(TRIES):
        process = subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        guard = threading.Timer(LOGIN_S, process.kill)
        guard.start()
        try:
            said = _talk(process)
        finally:
            guard.cancel()
            process.kill()
            with contextlib.suppress(OSError), process:
                pass  # its pipes are closed; what it was not told any more is lost
        if READY in said:
            return said[said.index(READY) + 1 :]
    raise ui.Problem(f"{name} does not let us in: {' '.join(said[-1:]) or 'no answer'}")


def _talk(process: subprocess.Popen[str]) -> list[str]:
    """Tell the time to one that is ready; return the lines that it printed."""
    if process.stdin is None or process.stdout is None:
        return []
    said: list[str] = []
    for line in process.stdout:
        if READY not in said and line.strip() == READY:
            seed = secrets.token_hex(SEED_BYTES)
            try:
                process.stdin.write(f"{time.time():.3f} {seed}\n")
                process.stdin.close()
            except OSError:
                pass  # it has ended, and says why
        said.append(line.strip())
    return said
