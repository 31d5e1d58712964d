"""The appliance's own program: process 1 starts it again when it ends. Light modules only.

The first time it looks for the answers, as the product's installer does; every time it becomes the
machine that they plan, and serves the product's commands: a client (`CLIENT`) hands over its words and its
three files, and a copy of this process, which has the stub loaded, carries them out.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support import stubs
from tests.support.appliance import answers
from tests.support.appliance.kinds import KINDS

OWN = Path("/var/lib/appliance")
CONFIG = OWN / "config.json"
MACHINE = OWN / "machine"
BIN = OWN / "bin"
SOCKET = "/run/stub"
SSHD = """\
Port 22
HostKey {host_key}
AuthorizedKeysFile {authorized}
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
Subsystem sftp /usr/lib/openssh/sftp-server
SetEnv PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin
"""
CLIENT = """\
#!/usr/bin/python3 -ISE
import _socket, sys
end = _socket.socket(1, 1)
end.connect({socket!r})
words = "\\0".join([{name!r}, *sys.argv[1:]]).encode("utf-8", "surrogateescape")
fds = b"".join(n.to_bytes(4, "little") for n in (0, 1, 2))
end.sendmsg([len(words).to_bytes(4, "little")], [(1, 1, fds)])
end.sendall(words)
sys.exit((end.recv(1) or b"F")[0])
"""


def run(*words: str) -> None:
    """Run one of the system's programs, which has to succeed."""
    subprocess.run(words, check=True)


def become(config: dict[str, Any]) -> None:
    """Take the name, address and keys that were planned."""
    socket.sethostname(config["name"])
    for path, content, mode in config["files"]:
        file = Path(path)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
    [device] = [
        each.parent.name
        for each in Path("/sys/class/net").glob("*/address")
        if each.read_text().strip() == config["mac"]
    ]
    run("busybox", "ip", "addr", "add", config["cidr"], "dev", device)
    run("busybox", "ip", "link", "set", device, "up")
    run("busybox", "ip", "route", "add", "default", "via", config["gateway"])


def serve(config: dict[str, Any]) -> None:
    """Serve commands for ever."""
    kind = KINDS[config["kind"]]
    stub = getattr(import_module(f"tests.support.stubs.{kind.module}"), kind.stub)
    for root in stub.roots:
        real = Path(f"{MACHINE}/root{root}")
        real.mkdir(parents=True, exist_ok=True)
        Path(root).mkdir(parents=True, exist_ok=True)
        run("busybox", "mount", "-o", "bind", str(real), root)
    if not (MACHINE / "state.json").exists():
        stubs.write(MACHINE, "plan", {"count": 0, "faults": {}})
        stubs.write(MACHINE, "state", kind.first(dict(stub.initial), config))
    else:
        stubs.write(MACHINE, "state", kind.after_power_off(stubs.read(MACHINE, "state")))
    BIN.mkdir(exist_ok=True)
    for name in stubs.commands(stub):
        file = BIN / name
        file.write_text(CLIENT.format(socket=SOCKET, name=name))
        file.chmod(0o755)
    kind.start(config)
    with socket.socket(socket.AF_UNIX) as server:
        with contextlib.suppress(FileNotFoundError):
            Path(SOCKET).unlink()
        server.bind(SOCKET)
        server.listen(64)
        Path("/run/sshd").mkdir(exist_ok=True)
        settings = Path("/etc/ssh/sshd_config")
        settings.write_text(
            SSHD.format(host_key=config["host_key"], authorized=config["authorized"], bin=BIN)
        )
        run("/usr/sbin/sshd", "-f", str(settings))
        print(f"appliance: {config['kind']} {config['name']} serves", flush=True)
        while True:
            end, _ = server.accept()
            if os.fork() == 0:
                _carry_out(end, stub)
            end.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _carry_out(end: socket.socket, stub: type[stubs.Stub]) -> None:
    """Be one command, and end with this process."""
    code = stubs.BROKEN
    try:
        length, told, *_ = end.recvmsg(4, socket.CMSG_LEN(12))
        fds = array.array("i", told[0][2])
        size, words = int.from_bytes(length, "little"), b""
        while len(words) < size:
            words += end.recv(size - len(words))
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        argv = words.decode("utf-8", "surrogateescape").split("\0")
        stdin = b""
        if stubs.reads_stdin(stub, argv[0]):
            while chunk := os.read(0, 1 << 16):
                stdin += chunk
        done = stubs.carry_out(MACHINE, stub, argv, stdin)
        for fd, text in ((1, done.out), (2, done.err)):
            with open(fd, "wb", closefd=False) as out:
                out.write(text)
        code = done.code
    except BaseException:  # noqa: BLE001 - the console tells it
        with Path("/dev/console").open("w") as console:
            traceback.print_exc(file=console)
    finally:
        with contextlib.suppress(OSError):
            end.sendall(bytes([code & 255]))
        os._exit(0)


def main() -> None:
    """Take what was planned, and serve."""
    if not CONFIG.exists():
        found = answers.cloud()
        install(found)
    config = json.loads(CONFIG.read_text())
    become(config)
    serve(config)


def install(config: dict[str, Any]) -> None:
    """Keep what the answers say, for good."""
    MACHINE.mkdir(parents=True, exist_ok=True)
    half = CONFIG.with_suffix(".half")
    half.write_text(json.dumps(config))
    os.sync()
    half.rename(CONFIG)
    os.sync()


if __name__ == "__main__":
    if sys.argv[1:2] == ["install"]:
        install(answers.installed(shlex.split(os.environ["CDS"])))
    else:
        main()
