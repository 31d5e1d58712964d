"""A stub machine: a hypervisor that is driven by its own commands over SSH, without the hypervisor.

What the machine knows is one JSON state. A *stub* (`tests.support.stubs`) says what each command does
to it and what it refuses, in the real command's words. The same machine is reached in two ways:

- ``machine.shell()``: in this process, in less than a millisecond a command, for units and hypothesis;
- ``with machine.serve() as server``: by a real sshd, for doubles. Its clients see the machine's files
  at their absolute paths (a mount namespace, so it needs root; skipped otherwise).

Files: the stub names its ``roots``, such as ``/vmfs``; what is below them is ``machine.path("/vmfs/x")``
for the test, ``self.path(...)`` for the stub, and plain ``/vmfs/x`` for the driver: by ``shell.put``, by
the programs in `FILE_COMMANDS` (``mkdir -p``, ``rm``, ``mv``, ``sha256sum``, ...), ``test``, and ``sh -c``
with all of these and the stub's commands in it. A path outside of the roots fails the test.

Every command is noted in ``machine.calls``, at the moment it ends, and can be made to fail. Not noted,
and never failing: ``test``, ``sh`` itself (what it runs is) and, behind sshd, ``put``.

    # tests/support/stubs/xen.py: imports light modules only, see there
    class Xen(Stub):
        roots = ("/var/opt/xen",)
        initial = {"vms": {}}

        @command("xe")                                  # @command("powershell", stdin=True)
        def xe(self, argv: list[str], stdin: bytes) -> str:
            if argv[0] == "vm-destroy" and argv[1] not in self.state["vms"]:
                raise Refused("The uuid you supplied was invalid.", code=1)
            ...
            return "standard output\\n"

    # tests/unit/components/test_xen.py
    def test_a_retry_after_any_failure_makes_one_vm(tmp_path: Path) -> None:
        machine = Machine(tmp_path / "xen", Xen)

        def one_vm(machine: Machine) -> None:
            assert len(machine.state["vms"]) == 1

        every_failure(machine.reset, lambda it: DRIVER.ensure(it.shell(), WANTED), one_vm)

    # tests/double/test_xen.py: through sshd, shell_of(target) reaches the stub
    def test_a_vm_is_made(tmp_path: Path, sshd: Serve) -> None:
        target = sshd(Machine(tmp_path / "xen", Xen)).target("xen1")
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

from components.reach import upload
from components.reach.driver import DriverError
from components.reach.shell import COMMAND_S, LocalShell, Result, Unreachable
from components.reach.waiting import NotReady
from tests.support import stubs
from tests.support.sshd import SYSTEM_PATH, Server, serving
from tests.support.stubs import FILE_COMMANDS, SERVED, Outcome, Stub
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

How = Literal["exit", "after", "cut"]
"""How a command fails: before it did anything; with exit code 1 although it did it; or so that it did
it and the client sees the connection cut."""
HOWS: tuple[How, ...] = get_args(How)
START = "import sys; sys.path.insert(0, {root!r}); from tests.support.stubs import main; main()"


@dataclass(frozen=True)
class Call:
    """One command that a machine was given. Long texts are their length and SHA-256."""

    command: str
    argv: list[str]
    stdin: str
    exit: int
    out: str
    err: str
    fault: str
    """How it was made to fail, or empty."""

    @property
    def words(self) -> list[str]:
        return [self.command, *self.argv]


class Machine:
    """A machine with the commands of ``stub``; all it has and knows is below ``folder``."""

    def __init__(
        self, folder: Path, stub: type[Stub], *, state: Mapping[str, Any] | None = None
    ) -> None:
        assert stub.__module__.startswith("tests.support.stubs."), "commands load stubs from there"
        self.folder = folder
        self.stub = stub
        self.bin = folder / "bin"
        self._first = stub.initial if state is None else state
        self.bin.mkdir(parents=True, exist_ok=True)
        self._write_commands()
        self.reset()

    def reset(self) -> Machine:
        """Make the machine as it was when it was new, and return it; clients stay connected."""
        for root in self.mounts.values():
            # Not the folder itself: it may be mounted.
            root.mkdir(parents=True, exist_ok=True)
            for each in root.iterdir():
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        with stubs.locked(self.folder):
            stubs.write(self.folder, "state", deepcopy(dict(self._first)))
            stubs.write(self.folder, "plan", {"count": 0, "faults": {}})
            (self.folder / "calls.jsonl").write_text("")
            (self.folder / "broken").unlink(missing_ok=True)
        return self

    @property
    def mounts(self) -> dict[str, Path]:
        """Where the stub's roots really are."""
        return {root: self.path(root) for root in self.stub.roots}

    def path(self, absolute: str) -> Path:
        """Return where the machine's file ``absolute`` really is."""
        return stubs.place(self.folder, self.stub.roots, absolute)

    @property
    def state(self) -> dict[str, Any]:
        """A copy of what the machine knows."""
        with stubs.locked(self.folder):
            return stubs.read(self.folder, "state")

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Change what the machine knows, as somebody else would by hand."""
        with stubs.locked(self.folder):
            state = stubs.read(self.folder, "state")
            yield state
            stubs.write(self.folder, "state", state)

    def keep(self) -> Callable[[], Machine]:
        """Return what makes the machine as it is now, and returns it, without its commands once more."""
        state, tree = self.state, Path(tempfile.mkdtemp(dir=self.folder, prefix="kept-"))
        root = self.folder / "root"
        shutil.copytree(root, tree, symlinks=True, dirs_exist_ok=True, copy_function=_copied)

        def restore() -> Machine:
            self.reset()
            shutil.copytree(tree, root, symlinks=True, dirs_exist_ok=True, copy_function=_copied)
            with self.changing() as found:
                found.clear()
                found.update(deepcopy(state))
            return self

        return restore

    def contents(self) -> dict[str, Any]:
        """Return what the machine knows and has: ``state``, and ``files`` by their absolute paths.

        Of a file the text, of a large one its size and sum, of a link ``-> `` and where it leads, of a folder nothing.
        """
        root = self.folder / "root"
        files = {f"/{each.relative_to(root)}": _content(each) for each in sorted(root.rglob("*"))}
        return {"state": self.state, "files": files}

    @property
    def calls(self) -> list[Call]:
        """Every command so far, in the order in which they ended."""
        self.sound()
        with stubs.locked(self.folder):
            lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [Call(**json.loads(line)) for line in lines]

    def sound(self) -> None:
        """Fail the test if a stub that ran in another process was wrong itself."""
        broken = self.folder / "broken"
        assert not broken.exists(), f"the stub is broken: {broken.read_text()}"

    def fail(self, nth: int, how: How) -> None:
        """Make the ``nth`` command from now on fail, once; 1 is the next one."""
        assert nth > 0
        with stubs.locked(self.folder):
            plan = stubs.read(self.folder, "plan")
            plan["faults"][str(plan["count"] + nth)] = how
            stubs.write(self.folder, "plan", plan)

    @property
    def failures_left(self) -> int:
        """How many of the failures that were ordered have not happened yet."""
        with stubs.locked(self.folder):
            return len(stubs.read(self.folder, "plan")["faults"])

    def shell(self, name: str = "stub1") -> DirectShell:
        """Return a `components.reach.shell.Shell` that carries commands out in this process."""
        return DirectShell(self, name)

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """Run an sshd whose clients are on this machine."""
        hidden = [root for root in self.mounts if str(self.folder).startswith(f"{root}/")]
        assert not hidden, f"{hidden} would hide the machine's own folder {self.folder}"
        with serving(self.folder / "sshd", path=self.bin, mounts=self.mounts) as server:
            yield server
        self.sound()

    def _write_commands(self) -> None:
        start = [sys.executable, "-I", "-S", "-X", "utf8", "-c", START.format(root=str(paths.ROOT))]
        known = [str(self.folder), self.stub.__module__, self.stub.__qualname__]
        for name in (*FILE_COMMANDS, *stubs.commands(self.stub)):
            words = shlex.join([*start, *known, name])
            self._write(name, f'exec {words} "$@"')
        # The real one takes its time on a busy machine, and there is nothing to save here.
        self._write("sync", "exit 0")

    def _write(self, name: str, line: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)


def _content(file: Path) -> str:
    if file.is_symlink():
        return f"-> {file.readlink()}"
    if file.is_dir():
        return ""
    if file.stat().st_size > stubs.SHORT:
        return _sum(file)
    return file.read_bytes().decode(errors="backslashreplace")


def _sum(file: Path) -> str:
    """Return what tells a large file from another: its size, and what is written in it, not the holes."""
    told = hashlib.sha256()
    for at, data in _written(file):
        told.update(b"%d\0%s" % (at, data))
    return f"{file.stat().st_size} bytes, sha256 {told.hexdigest()}"


def _written(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of a file that are no holes, each with its place."""
    size, end = file.stat().st_size, 0
    with file.open("rb") as handle:
        while end < size:
            try:
                at = os.lseek(handle.fileno(), end, os.SEEK_DATA)
            except OSError:  # a hole to the end
                return
            end = os.lseek(handle.fileno(), at, os.SEEK_HOLE)
            handle.seek(at)
            yield at, handle.read(end - at)


def _copied(source: str, to: str) -> str:
    """Copy a file; a guest's disk is gigabytes of holes, and is one again."""
    with Path(to).open("wb") as handle:
        for at, data in _written(Path(source)):
            handle.seek(at)
            handle.write(data)
        handle.truncate(Path(source).stat().st_size)
    shutil.copystat(source, to)
    return to


class Tried(Protocol):
    """What `every_failure` asks of a machine."""

    @property
    def calls(self) -> Sequence[Call]:
        """See `Machine.calls`."""

    @property
    def failures_left(self) -> int:
        """See `Machine.failures_left`."""

    def fail(self, nth: int, how: How) -> None:
        """See `Machine.fail`."""

    def sound(self) -> None:
        """See `Machine.sound`."""


MachineT = TypeVar("MachineT", bound=Tried)


class DirectShell:
    """See `Machine.shell`."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = COMMAND_S
    ) -> Result:
        """See `components.reach.shell.Shell.run`."""
        machine, words = self.machine, list(argv)
        folder, stub = machine.folder, machine.stub
        assert words, "no command"
        assert not any("\0" in word for word in words), f"no word can hold a NUL: {words}"
        name = words[0]
        if name == "sync":
            done = Outcome(0, b"", b"")
        elif name == "test":
            done = stubs.file_command(folder, stub, words, stdin)
        elif name == "sh":
            done = self._script(words, stdin, timeout_s)
        elif name in stubs.commands(stub) or name in FILE_COMMANDS:
            done = stubs.carry_out(folder, stub, words, stdin)
        else:
            return Result(127, "", f"{name}: command not found\n")
        self._cut(name, cut=done.cut)
        return Result(
            done.code, done.out.decode(errors="replace"), done.err.decode(errors="replace")
        )

    def put(self, source: Path | bytes, to: str, *, mode: int = 0o644, timeout_s: float) -> None:
        """See `components.reach.shell.Shell.put`."""
        assert timeout_s > 0
        machine = self.machine
        real = machine.path(to)

        def save() -> Outcome:
            try:
                upload.save(source, str(real), mode, self.name)
            except upload.PutError as why:
                return Outcome(1, b"", str(why).replace(str(real), to).encode())
            return Outcome(0, b"", b"")

        stdin = source if isinstance(source, bytes) else b""
        done = stubs.perform(machine.folder, ["put", to], stdin, save)
        self._cut("put", cut=done.cut)
        if done.code:
            raise upload.PutError(done.err.decode())

    def connects(self, host: str, port: int) -> bool:
        """See `components.reach.shell.Shell.connects`."""
        return LocalShell().connects(host, port)

    def _script(self, words: list[str], stdin: bytes, timeout_s: float) -> Outcome:
        """Run a shell script whose commands are the machine's, as processes, on its files."""
        folder = self.machine.folder
        (folder / "cut").unlink(missing_ok=True)
        roots = "|".join(re.escape(root) for root in self.machine.stub.roots)
        real = [
            re.sub(rf"(?<![\w./-])({roots})(?![\w.-])", rf"{folder}/root\1", each)
            if roots
            else each
            for each in words
        ]
        done = subprocess.run(
            real,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            cwd=folder,
            env={"PATH": f"{self.machine.bin}:{SYSTEM_PATH}", "LC_ALL": "C", SERVED: "script"},
            start_new_session=True,
        )
        self.machine.sound()
        inner = f"{folder}/root".encode()
        return Outcome(
            done.returncode,
            done.stdout.replace(inner, b""),
            done.stderr.replace(inner, b""),
            cut=(folder / "cut").exists(),
        )

    def _cut(self, what: str, *, cut: bool) -> None:
        if cut:
            raise Unreachable(f"{self.name}: the connection was cut while {what} ran")


def every_failure(
    make: Callable[[], MachineT],
    act: Callable[[MachineT], object],
    check: Callable[[MachineT], object],
    *,
    hows: Sequence[How] = HOWS,
) -> int:
    """Make every single command of ``act`` fail once, in every way, and ``act`` again succeed.

    ``make`` returns a machine on which ``act`` has yet to be done (`Machine.reset`, or more: the
    commands that prepare it don't count). The first ``act`` may raise what a driver raises, nothing
    else; then ``act`` has to succeed, and ``check`` asserts what is there in the end. Returns how many
    failures were tried.
    """

    machine = make()
    before = len(machine.calls)
    act(machine)
    check(machine)
    total = len(machine.calls) - before
    assert total, "no command was given"
    tried = 0
    for nth in range(1, total + 1):
        for how in hows:
            machine = make()
            machine.fail(nth, how)
            try:
                with suppress(DriverError, NotReady, Unreachable, upload.PutError):
                    act(machine)
                machine.sound()
                if machine.failures_left:
                    continue  # a wait that asked less often this time
                act(machine)
                check(machine)
            except Exception as wrong:
                failed = [shlex.join(call.words) for call in machine.calls if call.fault]
                wrong.add_note(f"when command {nth} fails ({how}): {failed}")
                raise
            tried += 1
    return tried
