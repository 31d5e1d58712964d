"""A machine of its own for one test session: real software, booted by QEMU without a hypervisor's help.

It runs from an overlay over an image of the cache and is reached by SSH on loopback, through QEMU's user
network, which is closed: nothing leaves it. Snapshots of the whole machine, memory included, make it as
it was in seconds. `Emulated` is a `tests.contract.case.Host`: it notes commands and can make them fail.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.reach.shell import COMMAND_S, Result, SshShell, Unreachable
from tests.support.commands import Call
from tests.support.sshd import free_port, key_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.commands import How

BOOT_S = 2400.0
"""Deadline until it answers, seconds; one or two minutes on two idle cores."""
MONITOR_S = 300.0
"""Deadline for one word to QEMU, seconds: a snapshot writes all memory that was touched."""


@dataclass
class Emulated:
    """A machine that runs; see `booted`."""

    name: str
    ssh: SshShell
    monitor: Monitor
    observe: Callable[[SshShell], dict[str, Any]]
    """Return what the machine holds, past any driver."""
    calls: list[Call] = field(default_factory=list)
    faults: dict[int, How] = field(default_factory=dict)
    """How the command of that number, counted from 1, is to fail."""
    snapshots: int = 0

    def shell(self) -> Noting:
        """See `tests.contract.case.Host`."""
        return Noting(self)

    def sound(self) -> None:
        """See `tests.contract.case.Host`: nothing of this runs elsewhere."""

    def fail(self, nth: int, how: How) -> None:
        """See `tests.support.commands.Machine.fail`."""
        self.faults[len(self.calls) + nth] = how

    @property
    def failures_left(self) -> int:
        """See `tests.support.commands.Machine.failures_left`."""
        return len(self.faults)

    def keep(self) -> Callable[[], Emulated]:
        """Take a snapshot of the whole machine; return what goes back to it."""
        self.snapshots += 1
        name = f"kept{self.snapshots}"
        self.ssh.run(["sync"])
        # A connection that is open now would hang in each machine that comes of the snapshot.
        self.ssh.close()
        self.monitor.human(f"savevm {name}")
        calls = list(self.calls)

        def restore() -> Emulated:
            self.ssh.close()
            self.monitor.human(f"loadvm {name}")
            self.calls, self.faults = list(calls), {}
            return self

        return restore

    def forget(self, count: int) -> None:
        """Delete all snapshots but the first ``count``: each holds all memory."""
        for number in range(count + 1, self.snapshots + 1):
            self.monitor.human(f"delvm kept{number}")
        self.snapshots = count

    def contents(self) -> dict[str, Any]:
        """See `tests.contract.case.Host`."""
        return self.observe(self.ssh)


class Noting:
    """A shell on an `Emulated`: real commands, noted, some of them made to fail."""

    def __init__(self, machine: Emulated) -> None:
        self.machine = machine
        self.name = machine.name

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `components.reach.shell.Shell.run`."""
        words = list(argv)
        # As in `tests.support.commands`: what only asks whether a file is there never fails.
        how = "" if words[0] == "test" else self._fault()
        if how == "exit":
            done = Result(1, "", "made to fail")
        else:
            done = self.machine.ssh.run(words, stdin=stdin, timeout_s=timeout_s)
        if words[0] != "test":
            self._note(words, done, how)
        if how == "cut":
            raise Unreachable(f"{self.name}: the connection was cut while {words[0]} ran")
        return Result(1, done.out, "made to fail") if how == "after" else done

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `components.reach.shell.Shell.put`."""
        how = self._fault()
        if how != "exit":
            self.machine.ssh.put(source, to, mode=mode, timeout_s=timeout_s)
        self._note(["put", to], Result(0, "", ""), how)
        if how:
            raise Unreachable(f"{self.name}: the connection was cut while it took {to}")

    def connects(self, host: str, port: int) -> bool:
        """See `components.reach.shell.Shell.connects`."""
        return self.machine.ssh.connects(host, port)

    def _fault(self) -> How | str:
        return self.machine.faults.pop(len(self.machine.calls) + 1, "")

    def _note(self, words: list[str], done: Result, how: str) -> None:
        call = Call(words[0], words[1:], "", done.code, done.out, done.err, how)
        self.machine.calls.append(call)


class Monitor:
    """QEMU's monitor (QMP), one word at a time."""

    def __init__(self, path: Path) -> None:
        until = time.monotonic() + MONITOR_S
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(MONITOR_S)
        while True:
            try:
                self._link.connect(str(path))
                break
            except OSError:
                assert time.monotonic() < until, f"QEMU has no monitor at {path}"
                time.sleep(0.05)
        self._lines = self._link.makefile("r")
        self._lines.readline()
        self._ask("qmp_capabilities")

    def human(self, line: str) -> None:
        """Carry out a line of the human monitor, which prints nothing when it has done it."""
        said = self._ask("human-monitor-command", **{"command-line": line})
        assert said.strip() == "", f"{line}: {said}"

    def close(self) -> None:
        self._link.close()

    def _ask(self, what: str, **arguments: str) -> str:
        asked = {"execute": what} | ({"arguments": arguments} if arguments else {})
        self._link.sendall(json.dumps(asked).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            assert "error" not in answer, answer
            if "return" in answer:
                return str(answer["return"] or "")
        raise AssertionError(f"QEMU ended while it was told to {what}")


def credential(private: str, login: str) -> str:
    """Return a systemd credential by which a machine has the host key ``private`` and takes the key ``login``.

    ``tmpfiles.extra`` of systemd.system-credentials(7): lines of tmpfiles.d(5), ``~`` decodes Base64.
    """

    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    lines = (
        f"f+~ /etc/ssh/ssh_host_ed25519_key 0600 root root - {coded(private)}",
        "d /root/.ssh 0700 root root -",
        f"f+~ /root/.ssh/authorized_keys 0600 root root - {coded(login)}",
    )
    text = "".join(f"{line}\n" for line in lines)
    return f"io.systemd.credential.binary:tmpfiles.extra={coded(text)}"


@contextlib.contextmanager
def booted(
    name: str,
    image: Path,
    folder: Path,
    *,
    arguments: Sequence[str],
    observe: Callable[[SshShell], dict[str, Any]],
) -> Iterator[Emulated]:
    """Boot ``image``, a qcow2 with systemd and an SSH server, and stop it in the end.

    ``arguments`` are QEMU's for its processor, memory and kernel; what it leaves lies in ``folder``.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host_key, host_public = key_pair()
    private, public = key_pair()
    # From a file: what is in a command line everybody may read.
    secret = folder / "credential"
    secret.touch(mode=0o600)
    secret.write_text(credential(host_key, public))
    disk, port = folder / "disk.qcow2", free_port()
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(disk)]
    subprocess.run(made, check=True, timeout=60)
    line = f"""setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg,thread=multi -nodefaults
        -display none -no-reboot -device virtio-rng-pci -rtc base=utc
        -qmp unix:{shlex.quote(str(folder / "qmp"))},server=on,wait=off
        -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22
        -device virtio-net-pci,netdev=net,romfile=
        -drive if=none,id=root,format=qcow2,cache=unsafe,file={shlex.quote(str(disk))}
        -device virtio-blk-pci,drive=root -serial file:{shlex.quote(str(folder / "console.log"))}
        -smbios type=11,path={shlex.quote(str(secret))}"""
    log = (folder / "qemu.log").open("wb")
    with log, subprocess.Popen([*shlex.split(line), *arguments], stderr=log) as qemu:
        try:
            monitor = Monitor(folder / "qmp")
            ssh = SshShell("127.0.0.1", port, "root", private, host_public, name)
            _answered(ssh, qemu, folder)
            yield Emulated(name, ssh, monitor, observe)
            ssh.close()
            monitor.close()
        finally:
            qemu.kill()


def _answered(ssh: SshShell, qemu: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + BOOT_S
    while True:
        try:
            ssh.run(["true"], timeout_s=60)
        except Unreachable as why:
            last = str(why)
        else:
            return
        said = (folder / "console.log").read_text(errors="replace")[-3000:]
        assert qemu.poll() is None, f"QEMU ended: {(folder / 'qemu.log').read_text()}\n{said}"
        assert time.monotonic() < until, f"{last}\n{said}"
        time.sleep(1)
