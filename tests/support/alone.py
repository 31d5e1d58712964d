"""Runs a command where there is nobody, and tells what it took and whom it tried to reach.

``alone(COMMAND, ...)`` needs root: the command gets a network namespace of its own, in which every way out
leads to a device whose other end is here, and reads what is sent. On loopback somebody listens where stack
files have pointed, and notes who calls. Sockets in the file system, libvirt's, are there as everywhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AWAY = "away0"
DOORS = (9, 22, 443, 8006, 16509, 16514)
"""Ports of loopback that a libvirt, an SSH server or an API would have, or that a test names."""
TUN, SET_DEVICE = Path("/dev/net/tun"), 0x400454CA
"""The kernel's file for devices of programs, and TUNSETIFF (linux/if_tun.h)."""
BARE_PACKETS = 0x0001 | 0x1000
"""IFF_TUN | IFF_NO_PI: IP packets, without anything around them."""
SETUP = (
    "ip link set lo up",
    # Or the kernel itself would look for routers there.
    f"ip link set {AWAY} addrgenmode none",
    f"ip link set {AWAY} up",
    f"ip address add 192.0.2.254/32 dev {AWAY}",
    f"ip route add default dev {AWAY}",
)
IPV4 = 4
LONGEST = 1 << 16
"""Of a packet, bytes."""


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    said: str
    """Both outputs, in the order they came."""
    s: float
    cpu_s: float
    """Of the command and all that it waited for."""
    mib: int
    """Most memory of one of them."""
    reached: tuple[str, ...]
    """Whom it tried to reach; not known to anybody but root."""


def possible() -> bool:
    """Whether a command can be put where there is nobody."""
    return os.geteuid() == 0 and shutil.which("unshare") is not None and TUN.exists()


def alone(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], deadline_s: float = 60
) -> Ran:
    """Run ``command`` to its end; after ``deadline_s`` seconds it is killed with all that it started."""
    with tempfile.TemporaryDirectory() as folder:
        output, told = Path(folder, "output"), Path(folder, "told")
        inside = [sys.executable, __file__, str(told), *command]
        with output.open("wb") as handle:
            start = time.monotonic()
            process = subprocess.Popen(
                ["unshare", "--net", "--", *inside] if possible() else list(command),
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
            late = threading.Timer(deadline_s, _kill, [process.pid])
            late.start()
            # Not resource.getrusage, which tells the most of all children that there ever were.
            _, status, used = os.wait4(process.pid, 0)
            late.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
        return Ran(
            code=process.returncode,
            said=output.read_text(errors="replace"),
            s=round(time.monotonic() - start, 2),
            cpu_s=round(used.ru_utime + used.ru_stime, 2),
            mib=used.ru_maxrss // 1024,
            reached=tuple(json.loads(told.read_text())) if told.exists() else (),
        )


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _inside(told: Path, command: list[str]) -> int:
    """Make the namespace that this process is in one with nobody, run ``command``, write whom it called."""
    with TUN.open("r+b", buffering=0) as away:
        fcntl.ioctl(away, SET_DEVICE, struct.pack("16sH22x", AWAY.encode(), BARE_PACKETS))
        for line in SETUP:
            subprocess.run(line.split(), check=True, timeout=10)
        doors = [socket.create_server(("127.0.0.1", port)) for port in DOORS]
        code = subprocess.run(command, check=False).returncode
        reached = list(_sent(away))
    for door in doors:
        door.setblocking(False)
        with suppress(BlockingIOError):
            door.accept()
            reached.append(f"loopback, port {door.getsockname()[1]}")
    told.write_text(json.dumps(sorted(set(reached))))
    return code


def _sent(away: BinaryIO) -> Iterator[str]:
    """Yield to whom the packets are that somebody sent."""
    os.set_blocking(away.fileno(), False)
    while packet := away.read(LONGEST):
        version = packet[0] >> 4
        yield str(ip_address(packet[16:20] if version == IPV4 else packet[24:40]))


if __name__ == "__main__":
    sys.exit(_inside(Path(sys.argv[1]), sys.argv[2:]))
