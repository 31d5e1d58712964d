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
    from collections.abc import Mapping, Sequence

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
RENEW = f"""\
echo {READY}
read -r now seed || exit 1
date -u -s "@$now" >/dev/null || exit 1
SEED=$seed perl -e '{RANDOM}' || exit 1
{PING}
[ $# -gt 0 ] || {{ echo renewed; exit; }}
n=0
while [ $n -lt {PINGS} ]; do
  for one do
    if $ping -c1 -W2 "$one" >/dev/null 2>&1; then echo renewed; exit; fi
  done
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
"""


def answering(stack: str, asked: Answers) -> dict[str, list[str]]:
    """Return who of ``asked`` answers a ping from the machine around it; all that it holds goes to its disk.

    Raises:
        Problem: a machine does not let us in.
    """
    found = _each(stack, {name: (ASK, inside) for name, inside in asked.items()})
    return {
        name: [line.split()[1] for line in told if line.startswith("answers ")]
        for name, told in found.items()
    }


def renew(stack: str, expected: Answers) -> None:
    """Give the machines of ``expected`` the time and new randomness; one of who answered inside has to answer again.

    Raises:
        Problem: one does not let us in, does not take it, or nobody inside answers who did.
    """
    told = _each(stack, {name: (RENEW, inside) for name, inside in expected.items()})
    for name, lines in told.items():
        if lines[-1:] != ["renewed"]:
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
