"""Stacks and what the engine keeps of them: names, files of the file backend, what they hold, locks.

What can't be read is never taken for empty: whoever asks whether a lab stands gets "yes, as far as
is known". File names, formats and the way to lock are those of Pulumi's own backend (pkg/backend/diy:
``state.go``, ``lock.go``), so that neither works on a stack while the other does.
"""

from __future__ import annotations

import datetime as dt
import getpass
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import socket
import uuid
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from toolchain.bootstrap import paths, regular, ui
from toolchain.engine.child import ATTENDED
from toolchain.engine.environment import OPTION
from toolchain.machine import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROJECT = "nestlab"
"""Name in Pulumi.yaml: others may keep stacks in the same backend."""
ORGANIZATION = "organization"
"""What the engine calls the owner of every stack in a backend that knows no owners."""
RECOVERY = "toolchain.engine.recover"
"""On the command line of the one process of ours that holds stacks' locks."""
GZIP = b"\x1f\x8b"
FORMS = ("", ".gz", ".zst")
"""What may follow ``STACK.json``: plain, PULUMI_DIY_BACKEND_GZIP, PULUMI_DIY_BACKEND_ZSTD."""
BACKUP = ".bak"
"""What follows those in turn where the engine kept what it has replaced."""
RETAINED = re.compile(r"\.json(\.gz|\.zst)?\.\d{18,20}$")
"""How the names end of what PULUMI_DIY_BACKEND_RETAIN_CHECKPOINTS keeps: when it was, in nanoseconds."""
LARGEST = 64 << 20
"""Bytes of a state that are read. One of 300 guests has 4 MiB; ten times as much takes JSON some seconds."""
ATTRIBUTES = ".attrs"
"""Beside each file, written by the engine's store: no data."""
VALUED = frozenset("Ccmpstvx")
"""Letters of the engine's options that take a value (cmd/pulumi/operations)."""
VALUED_OF: Mapping[str, str] = {"import": "fo", "logs": "r"}
"""Those that do in one command alone."""
VALUED_WORDS = frozenset(
    f"--{word}"
    for word in (
        *(
            "color",
            "config",
            "config-file",
            "copy-config-from",
            "cwd",
            "event-log",
            "exclude",
            "file",
        ),
        *("import-file", "message", "out", "parallel", "plan", "policy-pack", "policy-pack-config"),
        *("profiling", "replace", "resource", "save-plan", "secrets-provider", "since", "stack"),
        *("target", "target-replace", "teams", "tracing", "verbose"),
    )
)
"""Their words, as far as a value may look like an option."""
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
"""A stack's name as the engine takes it, without those two that are no names but ways in a tree."""


DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(RecursionError, zlib.error),
)
"""What reading a cut or foreign file raises."""


class Locked(Exception):
    """Somebody else works on the stack."""


class Unreadable(Exception):
    """A stack's file can't be read, or holds no state; what is there is unknown."""


def named(stack: str) -> str:
    """Return ``stack``, which becomes part of paths, when it is one name.

    Raises:
        Problem: it is not.
    """
    if not NAME.fullmatch(stack):
        raise ui.Problem(
            f"{stack!r} is no stack's name: 1 to 100 letters, digits, - _ . and more than dots."
        )
    return stack


def project_file(words: Sequence[str] = ()) -> Path | None:
    """Return the Pulumi.yaml that `pulumi` with these ``words`` is about; None where it finds none."""
    here = Path.cwd()
    shell = os.environ.get("PWD", "")
    if shell and Path(shell).is_absolute() and os.path.realpath(shell) == str(here):
        # As the engine sees it: a link on the way is part of a project's identity.
        here = Path(shell)
    if given := _option(words, "-C", "--cwd"):
        here = Path(os.path.realpath(here / given))
    return next(
        (up / "Pulumi.yaml" for up in (here, *here.parents) if (up / "Pulumi.yaml").is_file()), None
    )


def is_this_project(project: Path | None) -> bool:
    """Whether ``project`` is the Pulumi.yaml of this checkout."""
    return project is not None and project.resolve() == (paths.ROOT / "Pulumi.yaml").resolve()


def stack_of(words: Sequence[str]) -> str | None:
    """Return the stack of this checkout that `pulumi` with these ``words`` is about.

    That is the one named on the command line, in the environment (by the option's variable, then by
    PULUMI_STACK), or selected. None: there is none
    of these, or the command is about another project.

    Raises:
        Problem: what is named is no stack's name.
    """
    project = project_file(words)
    if project is None or not is_this_project(project):
        return None
    chosen = _option(words, "-s", "--stack")
    if chosen is None:
        chosen = os.environ.get("PULUMI_STACK") or _selected(
            project, os.environ.get("PULUMI_BACKEND_URL")
        )
    return named(chosen.rpartition("/")[2]) if chosen else None


def _option(words: Sequence[str], short: str, long: str) -> str | None:
    """Return what an option is given, on the command line or else by its variable; None without either.

    The engine takes each of its options from a variable too (cmd/pulumi/pulumi.go,
    ``declareFlagsAsEnvironmentVariables``).
    """
    given = _value_of(words, short, long)
    if given is None:
        given = os.environ.get(_variable(long))
    return given


def _variable(long: str) -> str:
    return OPTION + long.removeprefix("--").upper().replace("-", "_")


def _value_of(words: Sequence[str], short: str, long: str) -> str | None:
    """Return what an option is given; empty when its value is missing, None without the option."""
    # The last of several counts.
    return next((value for name, value in reversed(_read(words)) if name in {short, long}), None)


def command_of(words: Sequence[str]) -> str:
    """Return the command among ``words`` of `pulumi`, such as "up"; empty without one."""
    return next((value for name, value in _read(words) if not name), "")


def has(words: Sequence[str], long: str) -> bool:
    """Whether a switch is set, on the command line or by its variable."""
    given = _option(words, long, long)
    return given is not None and given.lower() not in {"false", "f", "0"}


def is_given(words: Sequence[str], *options: str) -> bool:
    """Whether one of ``options``, such as ``-C`` and ``--cwd``, is on the command line, or its variable is set."""
    variables = {_variable(each) for each in options if each.startswith("--")}
    return not variables.isdisjoint(os.environ) or any(name in options for name, _ in _read(words))


def _read(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return each option with what it is given, and what is none with an empty name.

    Words are read as the engine does (pflag): what belongs to another option is that one's, and letters
    may stand together, as in ``-yfs STACK``.
    """
    valued = VALUED | {letter for word in words for letter in VALUED_OF.get(word, "")}
    found, left = list[tuple[str, str]](), iter(words)
    for word in left:
        if word == "--":
            break
        if word.startswith("--"):
            name, given, value = word.partition("=")
            found.append((name, next(left, "") if not given and name in VALUED_WORDS else value))
        elif word.startswith("-"):
            for at, letter in enumerate(word[1:], 2):
                rest = word[at:]
                if letter in valued:
                    found.append((f"-{letter}", rest.removeprefix("=") or next(left, "")))
                    break
                found.append((f"-{letter}", ""))
                if rest.startswith("="):
                    break
        else:
            found.append(("", word))
    return found


def is_selected(stack: str, url: str) -> bool:
    """Whether plain `pulumi`, with its states at ``url``, is about ``stack`` of this checkout."""
    # Qualified: organization/project/stack.
    return _selected(paths.ROOT / "Pulumi.yaml", url).rpartition("/")[2] == stack


def _selected(project: Path, url: str | None) -> str:
    # Not a matter of security, but what the engine calls the file (pkg/workspace: settingsPath).
    digest = hashlib.sha1(str(project).encode(), usedforsecurity=False).hexdigest()
    try:
        told = json.loads(
            regular.text(paths.HOME / "workspaces" / f"{PROJECT}-{digest}-workspace.json")
        )
        # By backend; older engines wrote one for all backends.
        chosen = (told.get("stacks") or {}).get(url)
        return str(chosen or told.get("stack") or "")
    except DAMAGE:
        return ""  # so it is for the engine, which asks


def folder(url: str | None = None) -> Path | None:
    """Return where the file backend at ``url`` (else the one in force) keeps its files.

    None: another kind of backend, or none is named.
    """
    chosen = os.environ.get("PULUMI_BACKEND_URL", "") if url is None else url
    if not chosen.startswith("file://"):
        return None
    # As the engine reads it: no host, ~ for a home, what follows ? or # is not of the path.
    path = re.split("[?#]", chosen.removeprefix("file://"), maxsplit=1)[0]
    return Path(unquote(path)).expanduser().absolute() / ".pulumi"


def files(backend: Path, project: str = PROJECT) -> list[Path]:
    """Return every file in ``backend`` that is the state of a stack of ``project``.

    Raises:
        OSError: the folder is there and can't be read.
    """
    place = backend / "stacks" / project
    try:
        found = sorted(place.iterdir())
    except FileNotFoundError:
        return []
    return [file for file in found if not is_beside(file)]


def is_beside(file: Path) -> bool:
    """Whether ``file`` lies beside a stack's state and is none: data about it, or what it once was."""
    return file.name.endswith((ATTRIBUTES, BACKUP)) or bool(RETAINED.search(file.name))


def file_of(stack: str, backend: Path) -> Path | None:
    """Return the file that holds ``stack`` in ``backend``, the newest of its forms; None without one."""
    place = backend / "stacks" / PROJECT
    found = [file for form in FORMS if (file := place / f"{named(stack)}.json{form}").is_file()]
    return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)


def stack_in(file: Path) -> str:
    """Return the name of the stack that ``file`` holds, as far as it tells."""
    for form in FORMS:
        if file.name.endswith(f".json{form}"):
            return file.name.removesuffix(f".json{form}")
    return file.name


@dataclass
class Checkpoint:
    """What a file of a stack holds, with its wrapping as it was."""

    wrapped: dict[str, Any]

    @property
    def latest(self) -> dict[str, Any]:
        """The deployment; empty for a stack in which nothing was made yet."""
        told: dict[str, Any] = self.wrapped["checkpoint"].get("latest") or {}
        return told

    @property
    def pending(self) -> list[dict[str, Any]]:
        """Operations that began and of which nothing else is known."""
        return self.latest.get("pending_operations") or []

    @property
    def real(self) -> list[dict[str, Any]]:
        """Resources that are something beyond the state, not mere groups or providers."""
        resources: list[dict[str, Any]] = self.latest.get("resources") or []
        return [
            one
            for one in resources
            if one.get("custom") and not str(one["type"]).startswith("pulumi:providers:")
        ]


def read(file: Path) -> Checkpoint:
    """Return what ``file`` of a stack holds.

    Raises:
        Unreadable: it is cut, damaged, in a form this Python can't read, or no state at all.
    """
    try:
        told = json.loads(unpacked(file))
        found = Checkpoint(told)
        if not isinstance(found.latest, dict):
            raise TypeError
        _ = found.real, found.pending
    except DAMAGE as wrong:
        told = isinstance(wrong, OSError | regular.Irregular)
        reason = str(wrong) if told else "not a state that can be read"
        raise Unreadable(f"{file}: {reason}") from None
    return found


def unpacked(file: Path) -> bytes:
    """Return what a ``file`` of the backend holds, out of gzip's wrapping.

    Raises:
        OSError, EOFError, zlib.error: it can't be read, or is cut.
        Irregular: it is no file, or holds more than `LARGEST`: a few bytes of gzip can stand for gigabytes.
    """
    raw = regular.read(file, LARGEST)
    if raw[:2] == GZIP:
        with gzip.open(io.BytesIO(raw)) as packed:
            raw = packed.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise regular.Irregular(f"has more than {LARGEST >> 20} MiB")
    return raw


def write(file: Path, checkpoint: Checkpoint) -> None:
    """Replace what ``file`` of a stack holds in one step, and keep what it held as the engine does.

    A compressed one stays gzip's; one in another form becomes plain. Hold the stack's lock.
    """
    raw = regular.read(file, LARGEST)
    text = json.dumps(checkpoint.wrapped, separators=(",", ":"), ensure_ascii=False).encode()
    final = file.with_name(f"{stack_in(file)}.json") if file.suffix == ".zst" else file
    fresh = _fresh(file.parents[2])
    with fresh.open("wb") as handle:
        handle.write(gzip.compress(text) if raw[:2] == GZIP else text)
        handle.flush()
        os.fsync(handle.fileno())
    shutil.copy2(file, f"{file}{BACKUP}")
    fresh.replace(final)
    if final != file:
        file.unlink()
    for stale in {file, final}:
        # A checksum of what was there before.
        Path(f"{stale}{ATTRIBUTES}").unlink(missing_ok=True)
    sync(final.parent)


def sync(folder: Path) -> None:
    """Have the names in ``folder`` on the disk, so that a power cut does not take them back."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh(backend: Path) -> Path:
    """Return where a file of ``backend`` is written first: where the engine looks for none."""
    fresh = backend / f".nestlab.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    return fresh


# Locks ------------------------------------------------------------------------------------------


def locks(stack: str, backend: Path) -> list[Path]:
    """Return the files by which engines hold ``stack`` in ``backend``."""
    return sorted(backend.glob(f"locks/*/{PROJECT}/{named(stack)}/*.json"))


@contextmanager
def held(stack: str, backend: Path) -> Iterator[None]:
    """Hold the lock of ``stack`` while the block runs, as the engine would.

    Raises:
        Locked: somebody else holds it.
    """
    if locks(stack, backend):
        raise Locked(stack)
    lock = backend / "locks" / ORGANIZATION / PROJECT / named(stack) / f"{uuid.uuid4()}.json"
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {
        "pid": os.getpid(),
        "username": _user(),
        "hostname": socket.gethostname(),
        "timestamp": dt.datetime.now(dt.UTC).isoformat(),
    }
    fresh = _fresh(backend)
    fresh.write_text(json.dumps(content))
    fresh.rename(lock)
    try:
        # Both of two that come at the same moment see the other's, and both step back.
        if locks(stack, backend) != [lock]:
            raise Locked(stack)
        yield
    finally:
        lock.unlink(missing_ok=True)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # as in containers, where not everybody has a name


def recoveries(stack: str, backend: Path) -> list[int]:
    """Return the pids, on this machine, of who puts ``stack`` right and so holds its lock."""
    return [pid for _, pid in _holders(stack, backend) if _recovers(pid) and pid != os.getpid()]


def attended(stack: str, backend: Path) -> list[int]:
    """Return the pids, on this machine, of engines that work on ``stack`` and were started by `make` or the like."""
    mark = f"{ATTENDED}=yes".encode()
    return [
        pid
        for _, pid in _holders(stack, backend)
        if processes.name(pid).startswith("pulumi") and mark in processes.variables(pid)
    ]


def broken_locks(stack: str, backend: Path) -> list[Path]:
    """Return the locks of ``stack`` that tell of nobody, as a power cut leaves them: no engine goes on there."""
    broken = []
    for lock in locks(stack, backend):
        try:
            _ = json.loads(regular.text(lock))["hostname"]
        except FileNotFoundError:
            continue  # its holder has ended since
        except DAMAGE:
            broken.append(lock)
    return broken


def drop_stale(stack: str, backend: Path) -> int:
    """Remove the locks of ``stack`` whose holder ran on this machine and is gone; return how many."""
    stale = [lock for lock, pid in _holders(stack, backend) if not _works(pid)]
    for lock in stale:
        lock.unlink(missing_ok=True)
        Path(f"{lock}{ATTRIBUTES}").unlink(missing_ok=True)
    return len(stale)


def _holders(stack: str, backend: Path) -> Iterator[tuple[Path, int]]:
    """Yield each lock of ``stack`` that tells of a holder on this machine, and that one's pid."""
    for lock in locks(stack, backend):
        try:
            holder = json.loads(regular.text(lock))
            here, pid = holder["hostname"] == socket.gethostname(), int(holder["pid"])
            processes.hidden(pid)
        except DAMAGE:
            continue
        if here:
            yield lock, pid


def _works(pid: int) -> bool:
    """Whether ``pid`` is one who may hold a lock: an engine, ours, or somebody we can't look at."""
    if processes.hidden(pid):
        return True
    if processes.identify(pid) is None:
        return False
    return processes.name(pid).startswith("pulumi") or _recovers(pid)


def _recovers(pid: int) -> bool:
    return processes.identify(pid) is not None and RECOVERY in processes.command_line(pid).split(
        " "
    )
