"""Another account of this machine: an ordinary user, in no group that matters, who tries every door.

What there is to try is found by root: what processes hold open and listen on, and what lies in folders.
The account itself then opens, lists and connects; whatever it gets is told in words.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.checkout import virsh
from toolchain.machine import processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.checkout import Checkout

TRY = r"""
import json, os, socket, sys

def rfb(link):
    # RFC 6143, 7.1: version, then the security types; 2 asks for a password, 1 is "none".
    link.settimeout(5)
    hello = link.recv(12)
    if not hello.startswith(b"RFB"):
        return False
    link.sendall(hello)
    types = link.recv(1 + link.recv(1)[0])
    return 1 not in types and 2 in types

def asks(link):
    # Whoever is there lets nobody in without more than an address: a screen's password, SSH's key.
    link.settimeout(5)
    try:
        said = link.recv(12, socket.MSG_PEEK)
    except OSError:
        return False
    return said.startswith(b"SSH-") or rfb(link)

got = []
asked = json.load(sys.stdin)
for path in asked["files"]:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        got.append("file " + path)
    except OSError:
        pass
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        got.append("writes file " + path)
    except OSError:
        pass
for path in asked["folders"]:
    try:
        os.listdir(path)
        got.append("folder " + path)
    except OSError:
        pass
    if os.access(path, os.W_OK):
        got.append("writes folder " + path)
for path in asked["sockets"]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as link:
            link.settimeout(5)
            try:
                link.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
                got.append("socket " + path)
            except OSError:
                pass
for at, port in asked["ports"]:
    with socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET) as link:
        link.settimeout(5)
        try:
            link.connect((at, port))
        except OSError:
            continue
        if not asks(link):
            got.append(f"port {at}:{port}")
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as handle:
                text = handle.read().decode(errors="replace")
        except OSError:
            continue
        got += [f"secret {number} in /proc/PID/{name}" for number, secret in enumerate(asked["secrets"]) if secret in text]
json.dump(got, sys.stdout)
"""
"""What the account runs."""
MEANT = (
    r"^file /(usr|lib|etc|dev)/",
    # Golden images are made of Debian's packages and hold no secret.
    r"^file /var/lib/libvirt/nestlab/images/",
    # Names and addresses, which libvirt shows.
    r"^file /(var/lib/libvirt/dnsmasq|run/libvirt/network|run/nestlab)/",
    r"^file .*[/.](pid|placeholder)$",
    r"^port .*:53$",
)
"""What everybody may see of a lab, or of the machine it is on."""
HERE = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104
"""How what listens everywhere is reached."""


@dataclass
class Doors:
    """What may be tried."""

    namespace: str = ""
    """Network namespace that libvirt lives in; empty: the machine's own."""
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    sockets: set[str] = field(default_factory=set)
    ports: set[tuple[str, int]] = field(default_factory=set)
    secrets: list[str] = field(default_factory=list)
    """What must stand on no command line."""

    def below(self, *folders: Path) -> None:
        """Add all that lies in ``folders``, and they themselves."""
        for top in folders:
            for at, _, names in os.walk(top):
                self.folders.add(at)
                for name in names:
                    self.path(Path(at, name))

    def path(self, path: Path) -> None:
        """Add a file or socket."""
        with contextlib.suppress(OSError):
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode):
                self.sockets.add(str(path))
            elif stat.S_ISREG(mode):
                self.files.add(str(path))

    def processes(self, *marks: str) -> None:
        """Add what the processes hold and listen on whose command line has one of ``marks``."""
        unix = _unix_sockets()
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) in _family():
                continue
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes().decode(errors="replace")
                if not any(mark in line for mark in marks):
                    continue
                for each in (process / "fd").iterdir():
                    to = str(each.readlink())
                    if found := re.fullmatch(r"socket:\[(\d+)\]", to):
                        self.sockets |= unix.get(found[1], set())
                    elif to.startswith("/"):
                        self.path(Path(to))

    def listening(self) -> None:
        """Add all TCP ports that something listens on in the namespace of libvirt, but for what other tests run.

        Engines of labs that come and go beside this one take what is said to them from anybody on this machine.
        """
        for line in _inside(self.namespace, ["ss", "-Hltnp"]).splitlines():
            # libvirt and what it runs are nobody's children.
            pids = map(int, re.findall(r"pid=(\d+)", line))
            if any(_family().intersection(processes.ancestors(pid)) for pid in pids):
                continue
            at, _, port = line.split()[3].rpartition(":")
            address = at.strip("[]").partition("%")[0]
            self.ports.add((HERE.get(address, address), int(port)))


def of_lab(checkout: Checkout) -> Doors:
    """Find every door of the lab of ``checkout``, which is up, and of the libvirt that it is in."""
    show = ("./nestlab", "show", "--json", "--secrets", "--no-look")
    shown = json.loads(checkout.run(*show).said)
    doors = Doors((checkout.root / ".nestlab" / "netns").read_text().strip())
    doors.secrets = [*shown["passwords"].values(), shown["key"].splitlines()[1]]
    pool = ET.fromstring(virsh("pool-dumpxml", f"nestlab-{checkout.lab}"))  # noqa: S314
    folder = Path(pool.findtext("target/path") or "")
    doors.below(folder, checkout.root / ".nestlab", Path("/var/lib/libvirt/qemu"))
    # Where libvirt is not ours, who may ask it is its owner's to say.
    ours = bool(doors.namespace)
    doors.processes(checkout.lab, *(["virtlogd", "libvirtd"] if ours else ()))
    logs = Path("/var/log/libvirt").rglob("*")
    for path in (*logs, *(Path("/run/libvirt").rglob("*") if ours else ())):
        doors.path(path)
    doors.listening()
    return doors


def _family() -> set[int]:
    return {os.getpid(), os.getppid()}


def _unix_sockets() -> dict[str, set[str]]:
    """Listening sockets of this machine with a path, by inode (proc(5), /proc/net/unix)."""
    found: dict[str, set[str]] = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[3] == "00010000":
            found.setdefault(words[6], set()).add(words[7])
    return found


def _inside(namespace: str, argv: list[str], stdin: str = "") -> str:
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run(
        [*inside, *argv], input=stdin, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


@contextmanager
def another() -> Iterator[str]:
    """Make an ordinary account and remove it afterwards; yield its name."""
    name = f"t{uuid.uuid4().hex[:8]}"
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", "/", "--shell", "/bin/sh", name],
        check=True,
        capture_output=True,
    )
    try:
        yield name
    finally:
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


def opened(account: str, doors: Doors, meant: Iterable[str] = MEANT) -> list[str]:
    """Return in words what ``account`` got into, but for what matches one of the patterns ``meant``."""
    asked = {
        "files": sorted(doors.files),
        "folders": sorted(doors.folders),
        "sockets": sorted(doors.sockets),
        "ports": sorted(doors.ports),
        "secrets": doors.secrets,
    }
    # The system's own Python: the environment's may lie where the account can't go.
    python = os.path.realpath(sys.executable)
    argv = ["runuser", "-u", account, "--", _python(account, python), "-I", "-c", TRY]
    got: list[str] = json.loads(_inside(doors.namespace, argv, json.dumps(asked)))
    return [each for each in got if not any(re.search(one, each) for one in meant)]


def _python(account: str, usual: str) -> str:
    """Return a Python that ``account`` may run."""
    for python in ("/usr/bin/python3", usual):
        asked = ["runuser", "-u", account, "--", python, "-I", "-c", ""]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return python
    raise AssertionError(f"{account} can run no Python")
