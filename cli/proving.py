"""Trying each cell of the table of proofs on a kind's real product, in a lab of its own.

The lab is a copy of the kind's stack with another name, so that nobody's lab is touched. What is tried
is looked at by the lab's own gates; what is done by hand is done with the product's own commands.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from cli import machines
from cli.proof import Cell, Proof
from components.refused import Refused
from components.stackfile.proofs import FAILED, REAL, UNTRIED
from toolchain import lab, stack_check
from toolchain.bootstrap import paths, ui
from toolchain.engine import changes, stack_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

HEAD = "# Made by `nestlab prove`, which removes it.\n"
STACKS = {"kvm": "local"}
"""Stack of a kind where it is not called as the kind."""
BY_HAND: Mapping[str, tuple[str, ...]] = {
    "kvm": ("virsh", "-q", "destroy"),
    "xen": ("xl", "destroy"),
}
"""What switches a guest off in a kind, its name to follow; where there is none, its host is switched off alone."""
SCREEN = re.compile(r"vnc://127\.0\.0\.1:(\d+)")
FIRST_SCREEN = 5900
"""TCP port of display 0 (RFC 6143 leaves it to custom; libvirt's URIs count displays)."""
RFB = "RFB 003."
"""What a VNC server says first (RFC 6143, 7.1.1)."""
LOCAL = "qemu:///system"
COMMAND_S = 120.0
CUT = "it was stopped (Ctrl-C) before it came out"
MORE_MIB = 64


class Untried(Exception):
    """There is nothing to try here, and why."""


class Wrong(Exception):
    """It was tried, and did not come out."""


class Cut(KeyboardInterrupt):
    """Somebody pressed Ctrl-C while a cell was tried, which so was not."""

    def __init__(self, left: Cell) -> None:
        super().__init__()
        self.left = left


@dataclass
class Trial:
    """One kind, in the lab that it is tried in."""

    kind: str
    source: str
    """The stack that the lab is a copy of."""
    proof: Proof
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stack(self) -> str:
        """The lab's own stack."""
        return f"prove-{self.kind}"

    @property
    def file(self) -> Path:
        """Its file."""
        return stack_file.of(self.stack)

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The nested hypervisors of the kind."""
        return [row for row in self.rows if row["kind"] == self.kind]

    def inside(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the machines that are directly in one of them."""
        names = {host["name"] for host in self.hosts}
        return [row for row in self.rows if row["inside"][-1:] and row["inside"][-1] in names
                and (not kinds or row["kind"] in kinds)]  # fmt: skip

    # The lab ------------------------------------------------------------------------------------

    def write(self, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Write the lab's stack file, as the kind's has it but for the name, with ``change`` made to it."""
        file = self.file if change else stack_file.of(self.source)
        told = stack_check.document(stack_file.content(file), f"stacks/{file.name}")
        config = told["config"][stack_check.LAB]
        config["name"] = self.stack
        if change:
            change(config)
        self.file.write_text(HEAD + yaml.safe_dump(told, sort_keys=False), encoding="utf-8")

    def config(self) -> dict[str, Any]:
        """Return the lab as its file has it."""
        told = stack_check.document(self.file.read_bytes(), f"stacks/{self.file.name}")
        found: dict[str, Any] = told["config"][stack_check.LAB]
        return found

    def definition(self, row: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return what finds a machine's entry in the lab's definition."""

        def entry(config: dict[str, Any]) -> dict[str, Any]:
            for outer in row["inside"]:
                config = config["hypervisors"][outer]
            for group in ("guests", "containers", "hypervisors"):
                if row["name"] in (config.get(group) or {}):
                    found: dict[str, Any] = config[group][row["name"]]
                    return found
            raise Wrong(f"{row['name']} is not in the stack file")

        return entry

    def up(self) -> None:
        """Bring the lab to what its file says, whatever is lost: it is this run's own."""
        if not lab.up(self.stack, lose=True, aside=True).ok:
            raise Wrong("`pulumi up` failed; what it said is above")
        self.rows = lab.outputs(self.stack)["sheet"]

    def look(self) -> dict[str, machines.State]:
        """Return what is of each machine now."""
        return machines.look(self.stack, self.rows)

    def are_up(self, rows: list[dict[str, Any]]) -> str:
        """Return what was seen of ``rows``, all of which have to be up."""
        seen = self.look()
        bad = [
            f"{row['name']} is {seen[row['name']]['state']}: {seen[row['name']]['said']}"
            for row in rows
            if seen[row["name"]]["state"] != "up"
        ]
        if bad:
            raise Wrong("; ".join(bad))
        return "; ".join(f"{row['name']}: {seen[row['name']]['said']}" for row in rows)

    def on(self, host: Mapping[str, Any], *words: str) -> str:
        """Run a command on a nested hypervisor; return what it printed."""
        argv, folder = lab.way_in(self.stack, str(host["name"]), words)
        return _ran(argv, folder)

    def preview(self) -> changes.Preview:
        """Return what the engine would do now."""
        return lab.previewed(self.stack)


def _ran(argv: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Wrong(f"`{argv[-1]}` did not end within {COMMAND_S:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise Wrong(f"`{argv[-1]}` ended with {done.returncode}: {said}")
    return done.stdout


# Cells --------------------------------------------------------------------------------------------


def installed(trial: Trial) -> str:
    """The lab came up from nothing, and its hypervisors with it."""
    if not trial.hosts:
        raise Untried(f"the stack {trial.source} has no {trial.kind}")
    config = trial.config()
    said = []
    for host in trial.hosts:
        medium = trial.definition(host)(config).get("iso")
        made = f"from the medium {medium}" if medium else "from an image"
        said.append(f"{host['name']} {made}")
    return "; ".join(said)


def ready(trial: Trial) -> str:
    """The product itself answers."""
    return trial.are_up(trial.hosts)


def networks(trial: Trial) -> str:
    """Every network inside is up, as its own gate sees it."""
    seen = machines.look_at_networks(trial.stack, trial.hosts)
    if not seen:
        raise Untried("the stack has no network inside")
    bad = [f"{name}: {one['said']}" for name, one in seen.items() if one["state"] != "up"]
    if bad:
        raise Wrong("; ".join(bad))
    return "; ".join(f"{name}: {one['said'] or 'up'}" for name, one in seen.items())


def guests(trial: Trial, medium: str) -> str:
    """Guests made from a ``medium``, "iso" or "image", are up."""
    found = _with(trial, medium)
    if not found:
        raise Untried(f"the stack has no guest from an {medium} inside")
    return trial.are_up(found)


def _with(trial: Trial, *fields: str) -> list[dict[str, Any]]:
    """Return the guests inside whose definition has something in one of ``fields``."""
    config = trial.config()
    return [
        row for row in trial.inside("guest") if any(map(trial.definition(row)(config).get, fields))
    ]


def configured(trial: Trial) -> str:
    """Guests that are told who they are let their own user in."""
    found = [row for row in trial.inside("guest") if row["user"] and not row["enter"]]
    if not found:
        raise Untried("the stack has no guest inside with cloud_init")
    told = []
    for row in found:
        said = trial.on(row, "id", "-un").strip()
        if said != row["user"]:
            raise Wrong(f"{row['name']} let {said!r} in and not {row['user']!r}")
        told.append(f"{row['name']} let {said} in at {row['address']}")
    return "; ".join(told)


def further(trial: Trial) -> str:
    """Guests with more in their drives than one ISO and one disk are up."""
    found = _with(trial, "discs", "disks")
    if not found:
        raise Untried("the stack has no guest inside with discs or disks")
    return trial.are_up(found)


def containers(trial: Trial) -> str:
    """Containers are up."""
    found = trial.inside("container")
    if not found:
        raise Untried("the stack has no container inside")
    return trial.are_up(found)


def console(trial: Trial) -> str:
    """A guest's screen says hello, on its hypervisor, where it listens."""
    hosts = {host["name"]: host for host in trial.hosts}
    for row in trial.inside("guest"):
        screen = SCREEN.fullmatch(row["console"])
        if screen:
            number = int(screen[1])
            port = number if number >= FIRST_SCREEN else FIRST_SCREEN + number
            script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; head -c 12 <&3"
            said = trial.on(hosts[row["inside"][-1]], "timeout", "10", "bash", "-c", script)
            if not said.startswith(RFB):
                raise Wrong(f"{row['name']}'s screen said {said!r}")
            return f"{row['name']}'s screen at {row['console']} said {said.strip()!r}"
    raise Untried("no guest inside has a screen that is tried by this command: VNC on its host")


def edited(trial: Trial) -> str:
    """More memory for a machine, where that loses nothing: done, and nothing is left to do."""
    kept = trial.file.read_text(encoding="utf-8")
    rows = [*trial.inside("container"), *trial.inside("guest")]
    for row in rows:
        entry = trial.definition(row)

        def more(config: dict[str, Any], entry: Any = entry) -> None:
            entry(config)["memory_mib"] = int(entry(config).get("memory_mib", MORE_MIB)) + MORE_MIB

        trial.write(more)
        seen = trial.preview()
        if seen.losses or seen.clean:
            trial.file.write_text(kept, encoding="utf-8")
            continue
        trial.up()
        said = trial.are_up([row])
        if not trial.preview().clean:
            raise Wrong(f"{row['name']} has {MORE_MIB} MiB more, and something is left to do")
        return f"{MORE_MIB} MiB more for {row['name']}, nothing made anew; {said}"
    raise Untried("more memory makes each machine inside anew, and no other edit is tried")


def harmed(trial: Trial) -> str:
    """A guest and then its hypervisor are switched off the hard way: seen, and mended by `up`."""
    told = []
    hosts = {host["name"]: host for host in trial.hosts}
    row = next(iter(trial.inside("guest")), None)
    if row is not None and trial.kind in BY_HAND:
        trial.on(hosts[row["inside"][-1]], *BY_HAND[trial.kind], row["domain"])
        told.append(_mended(trial, row))
    outer = next((host for host in trial.hosts if not host["inside"]), None)
    if outer is not None and _is_here(trial):
        _ran([*lab.in_namespace(), "virsh", "-q", "-c", LOCAL, "destroy", outer["domain"]])
        told.append(_mended(trial, outer))
    if not told:
        raise Untried("this command knows no way to switch off what is in this lab")
    trial.are_up(trial.rows)
    return "; ".join(told)


def _is_here(trial: Trial) -> bool:
    """Whether the lab's outer host is this machine's libvirt, which is where a hypervisor can be switched off."""
    host = trial.config().get("host") or {}
    return bool(host.get("kind", "libvirt") == "libvirt" and host.get("uri", LOCAL) == LOCAL)


def _mended(trial: Trial, row: Mapping[str, Any]) -> str:
    name = str(row["name"])
    seen = trial.look()[name]
    if seen["state"] == "up":
        raise Wrong(f"{name} was switched off, and was not seen to be")
    if trial.preview().clean:
        raise Wrong(f"{name} was switched off, and a preview does not see it")
    trial.up()
    after = trial.look()[name]
    if after["state"] != "up":
        raise Wrong(f"{name} was switched off, and `up` left it {after['state']}: {after['said']}")
    return f"{name} was switched off, seen ({seen['said']}), and is up again"


def nested(trial: Trial) -> str:
    """Hypervisors inside the kind are up."""
    found = [row for row in trial.inside() if row["kind"] not in {"guest", "container"}]
    if not found:
        raise Untried("the stack has no hypervisor inside")
    return trial.are_up(found)


CELLS: Mapping[str, Callable[[Trial], str]] = {
    "unattended install": installed,
    "readiness of the product itself": ready,
    "networks": networks,
    "guest from an ISO": lambda trial: guests(trial, "iso"),
    "guest from an image": lambda trial: guests(trial, "image"),
    "guest with a configuration": configured,
    "further CDs and disks of a guest": further,
    "container from a template": containers,
    "console": console,
    "nested hypervisors inside": nested,
    "edit in place": edited,
    "switched off or removed by hand": harmed,
}
"""By row, in the order in which they are tried: what changes the lab comes last."""


def cell(trial: Trial, tried: Callable[[Trial], str]) -> Cell:
    """Try one; whatever is in the way is its result."""
    began = time.monotonic()
    try:
        result, said = REAL, tried(trial)
    except Untried as why:
        result, said = UNTRIED, str(why)
    except (Wrong, Refused, ui.Problem, OSError, ValueError, LookupError) as wrong:
        result, said = FAILED, f"{wrong}"
    except KeyboardInterrupt:
        raise Cut(Cell(UNTRIED, CUT, time.monotonic() - began)) from None
    return Cell(result, said, time.monotonic() - began)


def prove(trial: Trial) -> None:
    """Bring the lab up, try each cell, take it down; the proof of ``trial`` is filled.

    Raises:
        Problem: there is no such stack, it is refused, or the lab could not be taken down again.
    """
    with _own_file(trial):
        stack_check.checked(trial.stack)
        with lab.alone(trial.stack):
            try:
                _try_all(trial)
            finally:
                down = lab.down(trial.stack, aside=True)
        if not down:
            raise ui.Problem(
                f"the lab {trial.stack} is not down; {ui.make('down', trial.stack)} takes it away."
            )


def _try_all(trial: Trial) -> None:
    cells = trial.proof.cells
    began = time.monotonic()
    try:
        trial.up()
    except (Wrong, ui.Problem, OSError) as wrong:
        cells["unattended install"] = Cell(FAILED, f"{wrong}", time.monotonic() - began)
        why = Cell(UNTRIED, "the lab did not come up")
        cells.update({row: why for row in CELLS if row not in cells})
        return
    except KeyboardInterrupt:
        cells["unattended install"] = Cell(UNTRIED, CUT, time.monotonic() - began)
        raise
    took = time.monotonic() - began
    for row, tried in CELLS.items():
        try:
            with ui.step(row):
                found = cell(trial, tried)
        except Cut as cut:
            cells[row] = cut.left
            raise
        if row == "unattended install":
            found = Cell(found.result, found.said, took)
        cells[row] = found
        ui.say(f"{row}: {found.result} ({found.said})")


@contextmanager
def _own_file(trial: Trial) -> Iterator[None]:
    """Have the lab's own stack file while the block runs.

    Raises:
        Problem: somebody else's file has its name, or there is none to copy.
    """
    source = stack_file.of(trial.source)
    if not source.is_file():
        known = ", ".join(stack_file.stacks())
        raise ui.Problem(f"there is no stacks/{source.name}. Known stacks: {known}.")
    if trial.file.exists() and not trial.file.read_text(errors="replace").startswith(HEAD):
        raise ui.Problem(
            f"{trial.file} is yours, and this command keeps a file of that name: rename it."
        )
    try:
        trial.write()
    except (yaml.YAMLError, LookupError, TypeError) as broken:
        trial.file.unlink(missing_ok=True)
        raise ui.Problem(f"stacks/{source.name} can't be read: {broken}") from None
    left = True
    try:
        yield
        left = lab.exists(trial.stack)
    finally:
        # Without it what stands could not be taken down.
        if not left or not lab.exists(trial.stack):
            trial.file.unlink(missing_ok=True)


def about(trial: Trial, revision: str) -> dict[str, str]:
    """Return when, with what and on what it is tried; nothing that names this machine."""
    found = {"date": time.strftime("%Y-%m-%d"), "stack": trial.source, "nestlab": revision}
    try:
        host = json.loads(paths.HOST_JSON.read_text())
        found["outer host"] = {"kvm": "KVM", "tcg": "emulated"}[host["accelerator"]]
    except (OSError, ValueError, LookupError, TypeError):
        found["outer host"] = "not known"
    return found
