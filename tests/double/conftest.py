"""The real engine on scratch projects: each has its own folder, state and passphrase."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.reach import interrupt
from tests.support.pve import Pve
from tests.support.vcsim import Vcsim
from toolchain.bootstrap import paths, pins
from toolchain.engine import environment, golang, wrapper
from toolchain.machine import host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.commands import Machine
    from tests.support.sshd import Server

    Serve = Callable[[Machine], Server]

DEADLINE_S = 120


@pytest.fixture(autouse=True)
def _not_stopped() -> None:
    """What one test stopped goes on in the next: the event is the process's."""
    interrupt.CANCELLED.clear()


@dataclass
class Project:
    """A scratch Pulumi project with one stack, run by the engine of this checkout."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def write(self, program: str, providers: str = "") -> None:
        """Write the program, and beside it ``providers.py``: none that a program defines itself is run."""
        (self.folder / "__main__.py").write_text(program)
        if providers:
            (self.folder / "providers.py").write_text(f"from pulumi import dynamic\n{providers}")

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run ``pulumi`` in a process group of its own, as a terminal would; kill what is left."""
        with subprocess.Popen(
            ["pulumi", *words, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as engine:
            try:
                yield engine
            finally:
                if engine.poll() is None:
                    os.killpg(engine.pid, signal.SIGKILL)

    def pulumi(self, *words: str, fails: bool = False) -> str:
        """Run ``pulumi`` to its end and return all that it printed."""
        with self.running(*words) as engine:
            said, _ = engine.communicate(timeout=DEADLINE_S)
        assert (engine.returncode != 0) is fails, said
        return said

    def up(self, program: str, *words: str, fails: bool = False) -> str:
        self.write(program)
        return self.pulumi("up", "--yes", "--skip-preview", *words, fails=fails)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project named ``scratch`` with a stack ``dev`` and nothing in it."""
    return scratch(tmp_path, "scratch")


def scratch(place: Path, passphrase: str) -> Project:
    """Return a project named ``scratch`` with an empty stack ``dev``; it and its state are below ``place``."""
    if not (paths.BIN / "pulumi").is_file():
        pytest.skip("needs the engine: run `make toolchain`")
    folder, state = place / "project", place / "state"
    folder.mkdir()
    state.mkdir()
    (folder / "Pulumi.yaml").write_text("name: scratch\nruntime: python\n")
    own = {"PULUMI_BACKEND_URL": f"file://{state}", "PULUMI_CONFIG_PASSPHRASE": passphrase}
    made = Project(folder, environment.environment(os.environ | own))
    made.write("")
    made.pulumi("stack", "init", "dev")
    return made


def shares_loopback() -> None:
    """Skip where the engine runs in another network namespace, in which loopback is another."""
    name = host.namespace()
    here, there = Path("/proc/self/ns/net"), wrapper.NAMESPACES / name
    if name and there.exists() and not here.samefile(there):
        pytest.skip(f"the engine runs in {name}: run `python3 -m toolchain test double`")


@pytest.fixture
def pve() -> Iterator[Pve]:
    """A Proxmox VE of one node, ``pve1``, with nothing on it."""
    shares_loopback()
    with Pve() as running:
        running.takes("import")
        yield running


@pytest.fixture
def vcsim() -> Iterator[Vcsim]:
    """A vCenter with one host outside any cluster, ``DC0_H0``, with nothing on it."""
    if not golang.built([pins.VCSIM]):
        pytest.skip("needs vcsim: run `make toolchain`")
    shares_loopback()
    with Vcsim() as running:
        yield running


def children(pid: int) -> set[int]:
    """Return the pids of everything that ``pid`` started, at any depth."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(text[text.rindex(")") + 2 :].split()[1])
    found, fresh = set[int](), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def eventually(holds: Callable[[], object], seconds: float) -> bool:
    """Return whether ``holds()`` becomes true within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return bool(holds())


@pytest.fixture
def sshd() -> Iterator[Serve]:
    """Serve stub machines until the test ends: ``sshd(machine).target("xen1")``."""
    shares_loopback()
    with ExitStack() as running:
        yield lambda machine: running.enter_context(machine.serve())


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine's loopback device where nobody listens; 127.0.0.0/8 is no machine's."""
    address = "10.254.254.2"
    command = ["ip", "address", "add", f"{address}/32", "dev", "lo"]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to give the loopback device an address")
    try:
        yield address
    finally:
        command[2] = "del"
        subprocess.run(command, check=True)
