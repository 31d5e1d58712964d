"""What the `pulumi` wrapper does before a deployment: puts right what a killed one left.

A killed engine leaves a lock that nobody holds, plugins that are about to end, and a note in the
state that it was about to create something. The next `pulumi up` would stop at the lock, or meet the
half-made thing by its name. One whose libvirt was restarted leaves no note, and things that its state
does not know (`toolchain.engine.strays`). Nothing is touched that is not this lab's by its UUID.

While it works it holds the stack's lock, so that no engine works on the same state. It leaves backends
that are not folders of this machine alone: their locks have owners elsewhere.
Runs in the Python environment, and only where the wrapper sees a lock or an operation left open.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from itertools import groupby
from typing import TYPE_CHECKING, Any

from components.kinds.libvirt.virsh import VirshError
from components.reach.shell import Unreachable
from toolchain.bootstrap import paths, ui
from toolchain.engine import state, strays
from toolchain.engine.child import ATTENDED
from toolchain.engine.found import Found
from toolchain.engine.strays import OWNED, VOLUMES
from toolchain.machine import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

LOOKING = {"preview", "pre", "logs"}
"""Commands that need nobody's end."""
ENDING_S = 5.0
"""How long plugins of a killed engine may take to notice it, seconds."""
SLOT = "pulumi-python:dynamic/nestlab:PveSlot"
"""Keeps the number of a guest of Proxmox VE (`components.kinds.proxmox.gates`)."""
NAME_SLOT = "pulumi-python:dynamic/nestlab:VsphereSlot"
"""Keeps the name of a guest of vSphere (`components.kinds.vsphere.gates`)."""

State = dict[str, Any]


def main(argv: list[str]) -> int:
    """Put the stack that ``argv`` (pulumi's own arguments) is about right; return 0."""
    words = argv[1:] if argv[:1] == ["--"] else argv
    stack, backend = state.stack_of(words), state.folder()
    if stack is None or backend is None:
        return 0
    # Not by any word: a message may be "down".
    command, acts = state.command_of(words), not state.has(words, "--preview-only")
    for_good = command in strays.ENDING and acts
    looks = command in strays.CHANGING and acts
    for lock in state.broken_locks(stack, backend):
        ui.warn(
            f"{lock} is damaged, so nobody knows who works on {stack}: if it is nobody, `pulumi cancel`"
            " removes it"
        )
    while True:
        if command not in LOOKING or ATTENDED in os.environ:
            wait_for_engine(stack, backend)
        wait_for_recovery(stack, backend)
        if state.drop_stale(stack, backend):
            wait_for_orphans()
        if _put_right(stack, backend, looks=looks, for_good=for_good):
            return 0


def _put_right(stack: str, backend: Path, *, looks: bool, for_good: bool) -> bool:
    """Put right what there is to put right; return whether there is nothing to wait for any more."""
    lost = looks and has_strays(stack, backend)
    if not lost and not has_pending(stack, backend):
        return True
    try:
        with state.held(stack, backend):
            finish_pending(stack, backend, for_good=for_good)
            if lost:
                clear_strays(stack, backend, for_good=for_good)
    except state.Locked:
        # Another recovery came at the same moment, or it is an engine: that one says so.
        return bool(state.locks(stack, backend)) and not state.recoveries(stack, backend)
    return True


def wait_for_engine(stack: str, backend: Path) -> None:
    """Wait until an engine that was started by `make` has ended: `make` may have been killed since.

    As one `make` waits for another. One that somebody runs by themselves is theirs to look after: the
    engine then says who it is.
    """
    for pid in state.attended(stack, backend):
        with ui.step(
            f"waiting for process {pid}, which works on {stack}; `kill -INT {pid}` ends it sooner"
        ):
            while pid in state.attended(stack, backend):
                time.sleep(0.1)


def wait_for_recovery(stack: str, backend: Path) -> None:
    """Wait until nobody else puts ``stack`` right: one whose shell was killed works on to its end.

    That end is near: all that it asks of hosts has a deadline.
    """
    for pid in state.recoveries(stack, backend):
        with ui.step(
            f"waiting for process {pid}, which puts right what a killed run left in {stack}"
        ):
            while pid in state.recoveries(stack, backend):
                time.sleep(0.1)


def wait_for_orphans() -> None:
    """Wait until plugins and hosts of a killed engine have ended; end those that do not."""
    until = time.monotonic() + ENDING_S
    while orphans := _orphans():
        if time.monotonic() > until:
            for orphan in orphans:
                orphan.stop(timeout_s=1)
            return
        time.sleep(0.1)


def _orphans() -> list[processes.Process]:
    found = []
    for entry in processes.PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        line = processes.command_line(pid)
        # Its program, not just a word: somebody may be reading a log in there.
        ours = line.startswith(f"{paths.HOME}/") or _runs_for_us(entry, line)
        engine = processes.name(processes.parent(pid)).startswith("pulumi")
        if ours and not engine and pid not in processes.ancestors(os.getpid()):
            process = processes.identify(pid)
            found += [process] if process else []
    return found


def _runs_for_us(entry: Path, line: str) -> bool:
    if "toolchain.dynhost" not in line and "toolchain.langhost" not in line:
        return False
    return f"NESTLAB_ROOT={paths.ROOT}".encode() in processes.variables(int(entry.name))


def has_pending(stack: str, backend: Path) -> bool:
    """Whether the stack's state holds operations that never ended; one that is no state does not."""
    found = _read(stack, backend)
    return found is not None and bool(found[1].pending)


def has_strays(stack: str, backend: Path) -> bool:
    """Whether there may be things that the state does not know, or that are gone and it still knows."""
    found = _read(stack, backend)
    return found is not None and strays.may_be(stack, backend, found[1].latest)


def _read(stack: str, backend: Path) -> tuple[Path, state.Checkpoint] | None:
    file = state.file_of(stack, backend)
    if file is None:
        return None
    try:
        if file.suffix == ".zst":  # which Python can't unpack
            told = json.loads(_pulumi("stack", "export", "--stack", stack))
            latest = {"stack": f"{state.ORGANIZATION}/{state.PROJECT}/{stack}"}
            latest |= {"latest": told.pop("deployment")}
            return file, state.Checkpoint({**told, "checkpoint": latest})
        return file, state.read(file)
    except (state.Unreadable, ui.Problem):
        return None  # the engine says what is wrong with it


def finish_pending(stack: str, backend: Path, *, for_good: bool = False) -> None:
    """Remove what was being created, forget what was being deleted and is gone, tidy the state.

    What can't be reached is left for a later command, unless the lab is going away ``for_good``: then
    it goes with the host that it is in. Hold the stack's lock: what counts is the state as it is now.
    """
    found = _read(stack, backend)
    if found is None or not found[1].pending:
        return
    with ui.step("putting right what a killed run left"):
        file, checkpoint = found
        deployment = checkpoint.latest
        deployment["resources"] = deployment.get("resources") or []
        pending = deployment.pop("pending_operations")
        left = [operation for operation in pending if not _finish(operation, deployment)]
        if left and not for_good:
            deployment["pending_operations"] = left
        # Not by `pulumi stack import`, which wants the lock for itself and drops what is left.
        state.write(file, checkpoint)


def _finish(operation: State, deployment: State) -> bool:
    """Put one operation right; return whether that could be done now."""
    resource = operation["resource"]
    put_right = PUT_RIGHT.get(resource["type"])
    if put_right is None or _was_made_since(operation, deployment):
        return True
    try:
        put_right(operation["type"], resource, deployment)
    except (Unreachable, VirshError) as beyond:
        # Inside a host that is off: the next command that meets it running puts it right.
        ui.warn(f"{resource['urn'].rpartition('::')[2]}: {beyond}")
        return False
    return True


def _was_made_since(operation: State, deployment: State) -> bool:
    """Whether what was being created is known by now: an earlier command left it, and made it later.

    The engine keeps such an operation, whatever became of it.
    """
    resource = operation["resource"]
    called = (resource.get("inputs") or {}).get("name")
    return operation["type"] == "creating" and any(
        one["urn"] == resource["urn"]
        and strays.stands(one)
        and (one.get("inputs") or {}).get("name") == called
        for one in deployment["resources"]
    )


def _libvirts(kind: str, resource: State, deployment: State) -> None:
    """Remove what was being created, forget what was being deleted and is gone."""
    found = Found.of(resource, deployment)
    if found is None:
        return
    if kind == "creating":
        found.remove()
    elif kind == "deleting" and found.gone():
        forget(resource["urn"], deployment)


def _kept(kind: str, resource: State, deployment: State) -> None:
    """Say to the keeper of its number or name what may be left there: the API's password is not known here.

    One that was being deleted is lost whether it is gone or not, and the provider would fail on it if it
    is, so it is forgotten; what is there is the keeper's to clear, by its mark.
    """
    if kind not in {"creating", "deleting"}:
        return
    inputs = resource.get("inputs") or {}
    for one in deployment["resources"]:
        keeps = KEEPERS.get(one["type"])
        if keeps and keeps(one.get("inputs") or {}, inputs):
            one.setdefault("outputs", {})["left"] = True
            if kind == "deleting":
                forget(resource["urn"], deployment)


def _keeps(slot: State, guest: State) -> bool:
    """Whether ``slot`` is the keeper of the number of ``guest``; inputs of both."""
    try:
        same_number = int(slot["vmid"]) == int(guest["vmId"])
    except (KeyError, TypeError, ValueError):
        return False
    return same_number and slot.get("node") == guest.get("nodeName")


def _is_called(slot: State, guest: State) -> bool:
    """Whether ``slot`` is the keeper of the name of ``guest``; inputs of both."""
    return bool(guest.get("name")) and slot.get("called") == guest["name"]


KEEPERS: Mapping[str, Callable[[State, State], bool]] = {SLOT: _keeps, NAME_SLOT: _is_called}


PUT_RIGHT: Mapping[str, Callable[[str, State, State], None]] = {
    **dict.fromkeys([*OWNED, *sorted(VOLUMES)], _libvirts),
    "proxmoxve:index/vmLegacy:VmLegacy": _kept,
    "proxmoxve:index/containerLegacy:ContainerLegacy": _kept,
    "vsphere:index/virtualMachine:VirtualMachine": _kept,
}
"""How an operation that never ended is put right, by the resource's type. Of all others nothing is left
that the next `up` would stumble over: files are written over, gates look before they make."""


def clear_strays(stack: str, backend: Path, *, for_good: bool = False) -> None:
    """Remove what a failed step made and the state does not know; forget what it knows and is gone.

    A lab that goes away ``for_good`` takes the first with it by its own lists. Hold the stack's lock.
    """
    found = _read(stack, backend)
    if found is None:
        return
    with ui.step("looking for what a failed run left"):
        file, checkpoint = found
        deployment = checkpoint.latest
        if not for_good:
            _remove(strays.unknown(deployment), deployment)
        gone = list(_gone(strays.fragile(deployment, for_good=for_good), deployment))
        for urn in gone:
            forget(urn, deployment)
        if gone:
            state.write(file, checkpoint)


def _remove(unknown: Iterable[strays.Stray], deployment: State) -> None:
    """Remove those of ``unknown`` that are there, the lab's, and nobody's work."""
    silent = set[str]()
    for (place, _), group in groupby(unknown, key=lambda each: (each.provider, each.kind)):
        if place in silent:
            continue
        try:
            found = filter(None, [Found.stray(each, deployment) for each in group])
            for each in Found.there(list(found)):
                if each.has_stood():
                    ui.warn(each.kept())
                else:
                    each.remove()
                    ui.say(f"removed {each.kind} {each.name}, left behind by a step that failed")
        except (Unreachable, VirshError) as beyond:
            # A host that is off, or not up yet: what is in it is met by the next command.
            silent.add(place)
            ui.warn(str(beyond))


def _gone(resources: Iterable[State], deployment: State) -> Iterator[str]:
    """Yield the URNs of those of ``resources`` that are not there."""
    silent = set[str]()
    for (place, _), group in groupby(resources, key=lambda one: (one.get("provider"), one["type"])):
        if place in silent:
            continue
        try:
            known = {one["urn"]: Found.of(one, deployment) for one in group}
            found = {urn: each for urn, each in known.items() if each is not None}
            there = Found.there(found.values())
        except (Unreachable, VirshError):
            silent.add(str(place))
            continue
        yield from (urn for urn, each in found.items() if each not in there)


def forget(urn: str, deployment: State) -> None:
    """Take a resource out of the state, and out of what others say they depend on."""
    deployment["resources"] = [one for one in deployment["resources"] if one["urn"] != urn]
    for one in deployment["resources"]:
        one["dependencies"] = [each for each in one.get("dependencies") or [] if each != urn]
        for key, urns in (one.get("propertyDependencies") or {}).items():
            one["propertyDependencies"][key] = [each for each in urns or [] if each != urn]
        for key in ("deletedWith", "parent"):
            if one.get(key) == urn:
                del one[key]
        if one.get("replaceWith"):
            one["replaceWith"] = [each for each in one["replaceWith"] if each != urn]


def _pulumi(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        [str(paths.BIN / "pulumi"), *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=paths.ROOT,
    )
    if done.returncode:
        raise ui.Problem(f"`pulumi {shlex.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (ui.Problem, OSError) as problem:
        ui.fail(ui.in_words(problem))
        sys.exit(1)
