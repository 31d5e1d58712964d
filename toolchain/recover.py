"""What the `pulumi` wrapper does before a deployment: puts right what a killed one left.

A killed engine leaves a lock that nobody holds, plugins that are about to end, and a note in the
state that it was about to create something. The next `pulumi up` would stop at the lock, or meet the
half-made thing by its name. Nothing is touched that is not this lab's by its UUID.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from components.remote import ownership
from components.remote.shell import LocalShell, Shell, SshShell, Unreachable
from components.remote.virsh import Virsh, VirshError
from toolchain import paths, processes, state, ui

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENDING = {"destroy", "down", "dn"}
"""Commands that take a whole lab away."""
ENDING_S = 5.0
"""How long plugins of a killed engine may take to notice it, seconds."""
IDENTITY = "pulumi-python:dynamic/nestlab:Identity"
OWNED = {
    "libvirt:index/domain:Domain": "domain",
    "libvirt:index/network:Network": "network",
    "libvirt:index/pool:Pool": "pool",
}
SLOT = "pulumi-python:dynamic/nestlab:PveSlot"
"""Keeps the number of a guest of Proxmox VE (`components.gates.pve`)."""
NAME_SLOT = "pulumi-python:dynamic/nestlab:VsphereSlot"
"""Keeps the name of a guest of vSphere (`components.gates.vsphere`)."""
OURS = "$NESTLAB_KEYS/"
"""What the paths of a nested host's keys begin with in its URI (components/hypervisors/kvm.py)."""
VOLUMES = {"libvirt:index/volume:Volume", "libvirt:index/cloudInitDisk:CloudInitDisk"}

State = dict[str, Any]


def main(argv: list[str]) -> int:
    """Put the stack that ``argv`` (pulumi's own arguments) is about right; return 0."""
    words = argv[1:] if argv[:1] == ["--"] else argv
    stack, backend = state.stack_of(words), state.folder()
    if stack is None or backend is None:
        return 0
    # Not by any word: a message may be "down".
    for_good = state.command_of(words) in ENDING and not state.has(words, "--preview-only")
    for lock in state.broken_locks(stack, backend):
        ui.warn(
            f"{lock} is damaged, so nobody knows who works on {stack}: if it is nobody, `pulumi cancel`"
            " removes it"
        )
    while True:
        wait_for_recovery(stack, backend)
        if state.drop_stale(stack, backend):
            wait_for_orphans()
        if not has_pending(stack, backend):
            return 0
        try:
            with state.held(stack, backend):
                finish_pending(stack, backend, for_good=for_good)
        except state.Locked:
            # Another recovery came at the same moment, or it is an engine: that one says so.
            if state.locks(stack, backend) and not state.recoveries(stack, backend):
                return 0
        else:
            return 0


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
    try:
        return f"NESTLAB_ROOT={paths.ROOT}\0".encode() in (entry / "environ").read_bytes()
    except OSError:
        return False


def has_pending(stack: str, backend: Path) -> bool:
    """Whether the stack's state holds operations that never ended; one that is no state does not."""
    found = _read(stack, backend)
    return found is not None and bool(found[1].pending)


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
        one["urn"] == resource["urn"] and (one.get("inputs") or {}).get("name") == called
        for one in deployment["resources"]
    )


def _libvirts(kind: str, resource: State, deployment: State) -> None:
    """Remove what was being created, forget what was being deleted and is gone."""
    found = _Found.of(resource, deployment)
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


@dataclass(frozen=True)
class _Found:
    """A resource of libvirt, and the libvirt it is in."""

    virsh: Virsh
    kind: str
    """"domain", "network", "pool" or "volume"."""
    name: str
    pool: str
    uuid: str
    """The UUID that makes it this lab's; a volume's is that of its pool, empty without one."""

    @classmethod
    def of(cls, resource: State, deployment: State) -> _Found | None:
        """Return what ``resource`` of the state is about; None when not libvirt's."""
        kind = OWNED.get(resource["type"]) or ("volume" if resource["type"] in VOLUMES else "")
        inputs = resource.get("inputs") or {}
        identity = _identity(deployment)
        virsh, outer = _libvirt(resource, deployment)
        if not kind or not identity or virsh is None or not isinstance(inputs.get("name"), str):
            return None
        # As `LibvirtPlace` does: by its name on the outer host, inside by what the state calls it.
        key = inputs["name"] if outer else resource["urn"].rpartition("::")[2]
        pool = str(inputs.get("pool") or "")
        if kind == "volume":
            uuid = _pool_uuid(pool, resource.get("provider"), deployment)
        else:
            uuid = ownership.uuid_of(identity, kind, key)
        return cls(virsh, kind, inputs["name"], pool, uuid)

    def _is_ours(self) -> bool:
        command, name = {
            "domain": ("domuuid", self.name),
            "network": ("net-uuid", self.name),
            "pool": ("pool-uuid", self.name),
            "volume": ("pool-uuid", self.pool),
        }[self.kind]
        return bool(self.uuid) and self.virsh.run(command, name).out.strip() == self.uuid

    def remove(self) -> None:
        """Remove it if it is there and this lab's."""
        if not self._is_ours():
            return
        if self.kind == "volume":
            self.virsh.run("pool-refresh", self.pool)
            self.virsh.run("vol-delete", self.name, "--pool", self.pool)
        else:
            ownership.remove(self.virsh, self.kind, self.uuid)

    def gone(self) -> bool:
        """Whether it is not there; volumes and pools may be deleted twice."""
        return self.kind in {"domain", "network"} and not self._is_ours()


def _identity(deployment: State) -> str:
    for one in deployment["resources"]:
        if one["type"] == IDENTITY:
            return str((one.get("outputs") or {}).get("value") or "")
    return ""


def _pool_uuid(name: str, provider: str | None, deployment: State) -> str:
    """UUID of the pool of the state that is called ``name`` in the libvirt of ``provider``."""
    for one in deployment["resources"]:
        mine = one.get("provider") == provider and (one.get("inputs") or {}).get("name") == name
        if OWNED.get(one["type"]) == "pool" and mine:
            return str(one.get("id") or "")
    return ""


def _libvirt(resource: State, deployment: State) -> tuple[Virsh | None, bool]:
    """Return the libvirt that ``resource`` is in, and whether that is the outer host's."""
    urn = (resource.get("provider") or "").rpartition("::")[0]
    provider = next((one for one in deployment["resources"] if one["urn"] == urn), None)
    uri = str((provider or {}).get("inputs", {}).get("uri") or "")
    if not uri:
        return None, True
    link = urlsplit(uri)
    query = parse_qs(link.query)
    # A nested host's URI is our own; the outer host's may name a user's key and known hosts.
    if not query.get("keyfile", [""])[0].startswith((OURS, f"{paths.KEYS}/")):
        return Virsh(LocalShell(), uri), True
    return Virsh(_ssh(link.hostname or "", link.port or 22, query), "qemu:///system"), False


def _ssh(host: str, port: int, query: dict[str, list[str]]) -> Shell:
    try:
        private, known = (
            Path(query[name][0].replace(OURS, f"{paths.KEYS}/", 1)).read_text()
            for name in ("keyfile", "knownhosts")
        )
    except OSError:
        raise Unreachable(f"{host}: its keys are not there") from None
    return SshShell(host, port, "root", private, " ".join(known.split()[1:3]), host)


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
