"""Strays: what may be of a lab without its state knowing it, because an answer of libvirt's was lost.

libvirtd that restarts, or a connection that breaks, between the deed and the answer: the engine is told
of a failure and forgets the object, which is there all the same. The next ``up`` would meet "domain is
already running" or "pool already exists", and after the other way round, a removal, "not found" for
ever. Nothing is noted as pending then, so what is told apart here is what the lab's own list has (the
gate of the pool keeps it) and the state has not. `toolchain.engine.recover` looks at the real thing.

Disks and media are none: the provider takes over a volume that is there and leaves a disk as it is.
Read by `toolchain.engine.before` too, without the packages of the environment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.engine import state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

State = dict[str, Any]

IDENTITY = "pulumi-python:dynamic/nestlab:Identity"
POOL_GATE = "pulumi-python:dynamic/nestlab:PoolGate"
PROVIDER = "pulumi:providers:libvirt"
OWNED = {
    "libvirt:index/domain:Domain": "domain",
    "libvirt:index/network:Network": "network",
    "libvirt:index/pool:Pool": "pool",
}
VOLUMES = {"libvirt:index/volume:Volume", "libvirt:index/cloudInitDisk:CloudInitDisk"}
SEED = "-seed.iso"
"""How the volumes end that the provider does not take over (cloudinit_def.go, ``UploadIso``): copies of what
the lab is told, which no machine writes to."""
LIBVIRT = "-libvirt"
"""How the state calls the provider of a place, after the place's own name (`components.kinds`)."""
ENDING = {"destroy", "down", "dn"}
"""Commands that take a whole lab away."""
CHANGING = ENDING | {"up", "update", "watch"}
"""Commands that make or remove something."""


@dataclass(frozen=True)
class Stray:
    """Something that the lab may have at a libvirt, and its state does not know."""

    kind: str
    """"domain", "network", "pool" or "volume"."""
    name: str
    """What it is called there; a pool's is what the state would call it, inside a nested host."""
    uuid: str
    """As the list has it, a volume's is its pool's; empty for a pool, of which there is no list."""
    pool: str
    """The name of a volume's pool."""
    provider: str
    """URN of the libvirt it would be in."""


def unknown(deployment: State) -> Iterator[Stray]:
    """Yield what the lists of the lab have and its state has not."""
    resources = deployment.get("resources") or []
    known = {
        (OWNED.get(one["type"], "volume"), _provider(one), _input(one, "name"))
        for one in resources
        if stands(one) and (one["type"] in OWNED or one["type"] in VOLUMES)
    }
    pools = {
        str(one.get("id")): _provider(one)
        for one in resources
        if stands(one) and OWNED.get(one["type"]) == "pool"
    }
    yield from _pools(resources, set(pools.values()))
    for gate in resources:
        provider = pools.get(str(_input(gate, "uuid")), "")
        if gate["type"] != POOL_GATE or not provider:
            continue
        for stray in _listed(gate, provider):
            if (stray.kind, provider, stray.name) not in known:
                yield stray


def _pools(resources: list[State], having: set[str]) -> Iterator[Stray]:
    """Yield the pools of those libvirts that the lab has none in."""
    own = next((_input(one, "pool") for one in resources if one["type"] == IDENTITY), None)
    for one in resources:
        place = one["urn"].rpartition("::")[2].removesuffix(LIBVIRT)
        if one["type"] == PROVIDER and own is not None and one["urn"] not in having:
            yield Stray(
                "pool", str(own) if place == "host" else f"{place}-pool", "", "", one["urn"]
            )


def _listed(gate: State, provider: str) -> Iterator[Stray]:
    """Yield all that a pool's gate was told to expect when it was last mended."""
    pool, uuid = str(_input(gate, "pool")), str(_input(gate, "uuid"))
    for kind in ("domain", "network"):
        listed = _input(gate, f"{kind}s")
        for name, its in (listed if isinstance(listed, dict) else {}).items():
            yield Stray(kind, name, str(its), "", provider)
    volumes = _input(gate, "volumes")
    for name in volumes if isinstance(volumes, list) else ():
        if isinstance(name, str) and name.endswith(SEED):
            yield Stray("volume", name, uuid, pool, provider)


def stands(resource: State) -> bool:
    """Whether the state says that a resource is there: one that is being replaced is not, any more."""
    return not resource.get("pendingReplacement")


def _input(resource: State, name: str) -> object:
    return (resource.get("inputs") or {}).get(name)


def _provider(resource: State) -> str:
    return str(resource.get("provider") or "").rpartition("::")[0]


def fragile(deployment: State, *, for_good: bool) -> list[State]:
    """Return the resources whose removal fails for ever once they are gone, by their libvirt.

    ``for_good``: what goes with the host that it is in is not asked for then.
    """
    found = [
        one
        for one in deployment.get("resources") or []
        if OWNED.get(one["type"]) in {"domain", "network"}
        and stands(one)
        and not (for_good and one.get("deletedWith"))
    ]
    return sorted(found, key=lambda one: (str(one.get("provider")), one["type"]))


def has_failed(stack: str, backend: Path) -> bool:
    """Whether the last deployment of ``stack`` failed, or nobody can tell; not whether one was killed.

    The engine keeps a file of each (pkg/backend/diy/state.go, ``addToHistory``), with the time in
    nanoseconds in its name.
    """
    place = backend / "history" / state.PROJECT / state.named(stack)
    try:
        files = [
            file
            for file in place.iterdir()
            if ".history.json" in file.name and not state.is_beside(file)
        ]
        last = max(files, key=_when, default=None)
        if last is None or not last.is_file():
            return False
        told: Mapping[str, Any] = json.loads(state.unpacked(last))
        return told.get("result") != "succeeded"
    except FileNotFoundError:
        return False
    except state.DAMAGE:
        return True


def _when(file: Path) -> int:
    when = file.name.partition(".history.json")[0].rpartition("-")[2]
    return int(when) if when.isascii() and when.isdigit() else 0


def may_be(stack: str, backend: Path, deployment: State) -> bool:
    """Whether there is anything to look for; a cheap look, which errs to yes."""
    return any(unknown(deployment)) or has_failed(stack, backend)
