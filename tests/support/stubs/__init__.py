"""Stub commands of hypervisors: what a stub is made of, and how one call of a command is carried out.

`tests.support.commands` is the machine they belong to, and says how to use them. This package is
loaded anew for every command that runs behind sshd: it and the stubs import light modules only
(no dataclasses, no xml, nothing installed), so that a call takes some 30 ms.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Method = Callable[[Any, list[str], bytes], str]

FILE_COMMANDS = (
    *("cat", "chmod", "cp", "df", "du", "find", "head", "ln", "ls", "mkdir", "mv", "readlink"),
    *("rm", "rmdir", "sha256sum", "stat", "tail", "tee", "touch", "truncate", "wc"),
)
"""The machine's own programs that a stub machine has too, for files below its roots."""
SHORT = 4000
"""Longest text that the journal holds as it is, characters."""
ORDERS = 60_000
"""Likewise of standard input: what a command is told, where it is no file."""
SERVED = "NESTLAB_SERVED"
"""Variable that says by what a command was started, which it may cut off: "sshd" or "script"."""
BROKEN = 70
"""Exit code of a stub that itself is wrong (EX_SOFTWARE of sysexits.h)."""
INJECTED = "injected failure\n"


class Refused(Exception):
    """What the real command would refuse, in its words on error output.

    The call leaves no trace in the state, unless the real one would have gone ``half_way``.
    """

    def __init__(self, text: str, code: int = 1, *, out: str = "", half_way: bool = False) -> None:
        super().__init__(text)
        self.text = text if not text or text.endswith("\n") else f"{text}\n"
        self.code = code
        self.out = out
        self.half_way = half_way


def command(name: str, *, stdin: bool = False) -> Callable[[Method], Method]:
    """Make a method the command ``name``; it is given standard input only if it reads it."""

    def mark(method: Method) -> Method:
        method.__dict__["stub"] = (name, stdin)
        return method

    return mark


class Stub:
    """One kind of hypervisor: its commands are the methods marked with `command`.

    A method is given the words after the command and returns standard output. ``state`` is what
    JSON can hold; it is kept when the method returns, and not when it raises `Refused`.
    """

    roots: ClassVar[tuple[str, ...]] = ()
    """Absolute paths where the machine has files: ``/var/opt/xen``, ``/vmfs``, ``/C:``."""
    initial: ClassVar[dict[str, Any]] = {}
    """The state of a machine that is new."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder = folder
        self.state = state
        self.warned = ""

    def warn(self, text: str) -> None:
        """Add a line to error output; the command succeeds all the same."""
        self.warned += f"{text}\n"

    def path(self, absolute: str) -> Path:
        """Return where the machine's file ``absolute`` (with forward slashes) really is."""
        return place(self.folder, self.roots, absolute)


class Outcome(NamedTuple):
    """What a call leaves behind; ``cut`` says that its client is to see no end of it."""

    code: int
    out: bytes
    err: bytes
    cut: bool = False


def commands(stub: type[Stub]) -> dict[str, tuple[Method, bool]]:
    """Return the commands of ``stub``: their methods, and whether they read standard input."""
    found = {}
    for name in dir(stub):
        method = getattr(stub, name)
        if marked := getattr(method, "stub", None):
            found[marked[0]] = (method, marked[1])
    return found


def place(folder: Path, roots: tuple[str, ...], absolute: str) -> Path:
    """Return where the file ``absolute`` of a stub machine really is."""
    if not any(absolute == root or absolute.startswith(f"{root}/") for root in roots):
        raise AssertionError(f"{absolute} is outside of the stub machine's roots: {roots}")
    assert ".." not in absolute.split("/"), absolute
    return Path(f"{folder}/root{absolute}")


# State ------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other call on the machine waiting, those of other processes too."""
    with (folder / "lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON file ``name`` of the machine; its lock is held."""
    held: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    return held


def write(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Write the JSON file ``name`` of the machine; its lock is held."""
    (folder / f"{name}.json").write_text(json.dumps(value))


# One call ---------------------------------------------------------------------------------------


def carry_out(folder: Path, stub: type[Stub], words: list[str], stdin: bytes | None) -> Outcome:
    """Carry out a command of the machine, be it a stub's or a program for files."""
    do = call if words[0] in commands(stub) else file_command
    noted = stdin or b"" if reads_stdin(stub, words[0]) else b""
    return perform(folder, words, noted, lambda: do(folder, stub, words, stdin))


def reads_stdin(stub: type[Stub], name: str) -> bool:
    """Whether a command takes standard input; all others leave it to the script that they are in."""
    return name == "tee" or (name in commands(stub) and commands(stub)[name][1])


def perform(folder: Path, words: list[str], stdin: bytes, do: Callable[[], Outcome]) -> Outcome:
    """Carry out one call under the lock: count it, make it fail if its turn has come, note it."""
    with locked(folder):
        plan = read(folder, "plan")
        plan["count"] += 1
        how = plan["faults"].pop(str(plan["count"]), "")
        write(folder, "plan", plan)
        done = Outcome(1, b"", INJECTED.encode())
        if how != "exit":
            really = do()
            done = done._replace(cut=how == "cut") if how else really
        inner = [outside(folder, word) for word in words]
        note = {
            "command": inner[0],
            "argv": inner[1:],
            "stdin": _short(stdin, ORDERS),
            "exit": done.code,
            "out": _short(done.out),
            "err": _short(done.err),
            "fault": how,
        }
        with (folder / "calls.jsonl").open("a") as handle:
            handle.write(json.dumps(note) + "\n")
    return done


def call(folder: Path, stub: type[Stub], words: list[str], stdin: bytes | None) -> Outcome:
    """Do what a command of the stub does; the lock is held."""
    method, reads = commands(stub)[words[0]]
    made = stub(folder, read(folder, "state"))
    argv = [outside(folder, word) for word in words[1:]]
    try:
        out = method(made, argv, stdin or b"" if reads else b"")
    except Refused as no:
        if no.half_way:
            write(folder, "state", made.state)
        return Outcome(no.code, no.out.encode(), (made.warned + no.text).encode())
    write(folder, "state", made.state)
    return Outcome(0, out.encode(), made.warned.encode())


def file_command(folder: Path, stub: type[Stub], words: list[str], stdin: bytes | None) -> Outcome:
    """Run one of the machine's own programs on the stub's files; without ``stdin``, on this one's."""
    real = [inside(folder, stub.roots, word) for word in words]
    if (known := _at_once(folder, words, real)) is not None:
        return known
    import subprocess  # noqa: PLC0415 - with what it loads, a quarter of a stub's start

    path = os.environ.get("PATH", "").replace(f"{folder}/bin:", "")
    environment = {**os.environ, "PATH": path, "LC_ALL": "C"}
    done = subprocess.run(real, input=stdin, capture_output=True, check=False, env=environment)
    inner = f"{folder}/root".encode()
    return Outcome(
        done.returncode, done.stdout.replace(inner, b""), done.stderr.replace(inner, b"")
    )


def _at_once(  # noqa: C901, PLR0911, PLR0912 - a case for each program
    folder: Path, words: list[str], real: list[str]
) -> Outcome | None:
    """Return what the most frequent programs do, without starting them; None for all else.

    A program takes its turn among all that a busy machine runs, and a law gives thousands of commands.
    """
    inner = f"{folder}/root/"
    paths = [Path(word) for word in real if word.startswith(inner)]
    out = b""
    try:
        match real:
            case ["test", "-e", _] if paths:
                return Outcome(0 if paths[0].exists() else 1, b"", b"")
            case ["test", "-d", _] if paths:
                return Outcome(0 if paths[0].is_dir() else 1, b"", b"")
            case ["readlink", _] if paths:
                if not paths[0].is_symlink():
                    return Outcome(1, b"", b"")
                out = f"{paths[0].readlink()}\n".encode()
            case ["cat", _] if paths:
                if not paths[0].exists():
                    said = f"cat: {words[1]}: No such file or directory\n"
                    return Outcome(1, b"", said.encode())
                out = paths[0].read_bytes()
            case ["stat", "-c", "%s", _] if paths:
                out = b"%d\n" % paths[0].stat(follow_symlinks=False).st_size
            case ["mkdir", "-p", _] if paths:
                paths[0].mkdir(parents=True, exist_ok=True)
            case ["touch", _] if paths:
                paths[0].touch()
            case ["rm", "-f", *rest] if len(rest) == len(paths):
                for path in paths:
                    path.unlink(missing_ok=True)
            case _:
                return None
    except OSError:
        return None  # it says why in its own words
    return Outcome(0, out.replace(inner[:-1].encode(), b""), b"")


def inside(folder: Path, roots: tuple[str, ...], word: str) -> str:
    """Turn a word that is a path of the stub machine (``/vmfs/x``, ``of=/vmfs/x``) into a real one."""
    if word.startswith((f"{folder}/root/", "/dev/")):
        return word
    option, path = re.fullmatch(r"([-\w]*=)?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    if not path.startswith("/"):
        return word
    return f"{option or ''}{place(folder, roots, path)}"


def outside(folder: Path, word: str) -> str:
    """Turn real paths in a word back into those of the stub machine."""
    return word.replace(f"{folder}/root", "")


def _short(text: bytes, longest: int = SHORT) -> str:
    if len(text) <= longest:
        return text.decode(errors="backslashreplace")
    import hashlib  # noqa: PLC0415 - OpenSSL takes 5 ms to load

    return f"{len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}"


# A command as a process -------------------------------------------------------------------------


def main() -> None:
    """Be one command of a machine: FOLDER MODULE CLASS COMMAND WORD..."""
    folder, stub = Path(sys.argv[1]), getattr(import_module(sys.argv[2]), sys.argv[3])
    words = sys.argv[4:]
    try:
        stdin = sys.stdin.buffer.read() if reads_stdin(stub, words[0]) else None
        done = carry_out(folder, stub, words, stdin)
    except Exception as wrong:  # noqa: BLE001 - whatever it is, the test must learn of it
        (folder / "broken").write_text(f"{words}: {type(wrong).__name__}: {wrong}")
        sys.stderr.write(f"the stub is broken: {wrong!r}\n")
        sys.exit(BROKEN)
    if done.cut:
        _cut(folder)
    sys.stdout.buffer.write(done.out)
    sys.stdout.flush()
    sys.stderr.buffer.write(done.err)
    sys.stderr.flush()
    sys.exit(done.code)


def _cut(folder: Path) -> None:
    """End the connection that this command came by, and everything that it runs."""
    by = os.environ[SERVED]
    (folder / "cut").touch()
    if by == "sshd":
        os.kill(_session(), signal.SIGKILL)
    # The shell whose script goes on, and this one.
    os.killpg(0, signal.SIGKILL)


def _session() -> int:
    """Return the pid of the sshd that holds the connection: the nearest ancestor of that name."""
    pid = os.getppid()
    while True:
        name, after = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
        if name.startswith("sshd"):
            return pid
        pid = int(after.split()[1])
        assert pid > 1, "this command was not started by sshd"
