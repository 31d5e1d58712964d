"""Network namespaces that stand for hosts: a veth is a NIC, its other end is in the namespace of the outer network.

They have no names: each lives as long as the process that holds it. The kernel, iproute2 and what runs in them are
real; a namespace needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.kinds.libvirt.gates.uplink import Uplink
from components.kinds.libvirt.uplink.host import RECORDS
from components.reach.shell import COMMAND_S, LocalShell, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from components.reach.shell import Shell

LOOKS = (
    ("addr",),
    ("-4", "route", "show", "table", "all"),
    ("-6", "route", "show", "table", "all"),
    ("-4", "rule"),
    ("-6", "rule"),
    ("neigh", "show", "nud", "permanent"),
    ("neigh", "show", "proxy"),
)
"""What is compared of a host's network; neighbours that were learned come and go."""
REFUSED = """
import socket, sys
try: socket.create_connection((sys.argv[1], 9), float(sys.argv[2]))
except ConnectionRefusedError: sys.exit(0)
sys.exit(1)
"""
ALONE = ("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=60")
"""Options of ssh's for whoever types nothing."""
KNOWN = "UserKnownHostsFile=known_hosts"
"""The one that holds a guest to its planned host key, in a folder of the lab's keys."""
BRIDGE = "nlb0123456789"
ON_A_NIC = Uplink(
    name="lan",
    uri="qemu:///system",
    mode="bridge",
    nic="nic0",
    vlan=0,
    bridge=BRIDGE,
    user="aa.lan",
    network="lab-lan",
    subnet="",
    addresses=[],
    confirm_s=20,
)
"""Properties of an uplink: a bridge that is made on a NIC."""
VOLATILE = {"tentative"}
"""Of an IPv6 address in its first second, while the kernel asks whether somebody else has it."""

CHANGING = {
    # Seconds left of a lease, which a DHCP client renews as it likes.
    "valid_life_time",
    "preferred_life_time",
    # The same of a route that a router advertised (QEMU's user network has one).
    "expires",
    # What nftables numbers and counts by itself.
    "handle",
    "counter",
    "metainfo",
}
"""What changes by itself where others are on the network."""


def reason() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if not shutil.which("ip") or not shutil.which("nsenter"):
        return "needs iproute2 and util-linux"
    return ""


@dataclass
class Namespace:
    """A host that is a network namespace; a `components.reach.shell.Shell`."""

    holder: subprocess.Popen[bytes]
    name: str
    path: str = ""
    """Folder whose programs go before those of the machine."""

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to run in it."""
        words = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        return [*words, "env", f"PATH={self.path}:{os.environ['PATH']}"] if self.path else words

    @property
    def number(self) -> int:
        """What the kernel knows it by."""
        return os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino  # noqa: PTH116

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `components.reach.shell.Shell.run`."""
        return LocalShell().run([*self.inside, *argv], stdin=stdin, timeout_s=timeout_s)

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `components.reach.shell.Shell.put`; files are the machine's."""
        LocalShell().put(source, to, mode=mode, timeout_s=timeout_s)

    def connects(self, host: str, port: int) -> bool:
        """See `components.reach.shell.Shell.connects`."""
        return self.run(["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"]).ok

    def reaches(self, address: str, within_s: float = 2) -> bool:
        """Whether ``address`` answers: it refuses a connection to a port that nobody has."""
        return self.run([sys.executable, "-c", REFUSED, address, str(within_s)]).ok

    def must(self, *lines: str) -> str:
        """Run lines of a shell script, all of which have to succeed; return what they print."""
        return must(self, *lines)

    def network(self) -> dict[str, Any]:
        """See `network`."""
        return network(self)


def must(shell: Shell, *lines: str, timeout_s: float = COMMAND_S) -> str:
    """Run lines of a shell script at ``shell``, all of which have to succeed; return what they print."""
    done = shell.run(["sh", "-ec", "\n".join(lines)], timeout_s=timeout_s)
    assert done.ok, f"{shell.name}: {lines}: {done.err or done.out}"
    return done.out


def entered(folder: Path, at: str, *options: str, inside: Sequence[str] = ()) -> str:
    """Ask a guest who it is by SSH, with the key in ``folder``; ``inside`` a command begins with that runs elsewhere.

    In that folder: no option of ssh's takes any path.
    """
    given = [*ALONE, *options]
    words = ["ssh", "-F", "none", "-i", "id_ed25519", *(f"-o{each}" for each in given), at]
    told = subprocess.run(
        [*inside, *words, "hostname; ip -4 -o addr"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def network(shell: Shell) -> dict[str, Any]:
    """Return everything about the network of a host that has to be as it was."""
    script = [f"ip -j {' '.join(words)}; echo; echo ====" for words in LOOKS]
    told = must(shell, *script).split("====\n")
    return {
        " ".join(words): [_settled(each) for each in json.loads(text.strip() or "[]")]
        for words, text in zip(LOOKS, told, strict=False)
    }


def _settled(told: Any) -> Any:
    if isinstance(told, dict):
        return {key: _settled(value) for key, value in told.items() if key not in VOLATILE}
    return [_settled(each) for each in told] if isinstance(told, list) else told


def lasting(told: Any) -> Any:
    """Return what was told of a network without order, and without what changes by itself.

    The order of routes of one metric is that in which NICs went up, and says nothing.
    """
    if isinstance(told, dict):
        return {key: lasting(value) for key, value in told.items() if key not in CHANGING}
    if isinstance(told, list):
        bare = [lasting(each) for each in told]
        return sorted((each for each in bare if each != {}), key=json.dumps)
    return told


@contextlib.contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A namespace with nothing in it but loopback; what it left on the machine goes with it."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    made = Namespace(holder, name)
    own = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116
    try:
        while made.number == own:
            pass
        made.must("ip link set lo up")
        yield made
    finally:
        shutil.rmtree(f"{RECORDS}/{made.number}", ignore_errors=True)
        holder.kill()
        holder.wait()


def cable(one: Namespace, other: Namespace, ends: Mapping[str, str]) -> None:
    """Plug a cable between two hosts: ``ends`` are the NICs, one's to the other's."""
    for mine, theirs in ends.items():
        one.must(
            f"ip link add {mine} type veth peer name {theirs} netns {other.holder.pid}",
            f"ip link set {mine} up",
        )
        other.must(f"ip link set {theirs} up")
