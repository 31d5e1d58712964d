"""What a stack says about itself: settings that allow what a rule would refuse otherwise.

They are read from the policy's own configuration (``--policy-pack-config``) and from the stack's,
where plain programs say ``nestlab:bridges`` and our labs say it in the tree ``nestlab:lab``. The
engine (3.259) does not hand a stack's configuration to Python packs, so its file is read; one given
by ``--config-file`` is not found, and what it states counts as not stated.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from known import items

NESTED = frozenset({"nluplink"})
"""What nestlab calls the bridge on a nested KVM or Xen host's own NIC (`components.stackfile.places`)."""


def names(config: Mapping[str, Any], key: str, urn: str) -> set[str]:
    """Return the names listed under ``key`` for the policy, or for the stack of ``urn``."""
    own = _said(urn).get(f"nestlab:{key}")
    return {
        str(name) for name in (*(items(config, key) or ()), *(own if isinstance(own, list) else ()))
    }


def lab(urn: str) -> Mapping[str, Any]:
    """Return the tree that a stack file of ours holds, empty for other programs."""
    return _mapping(_said(urn), "nestlab:lab")


def lab_bridges(urn: str) -> set[str]:
    """Return the host's bridges and NICs that the networks of our lab say they use."""
    found, waiting = set[str](), [lab(urn)]
    while waiting:
        place = waiting.pop()
        for network in _mapping(place, "networks").values():
            if isinstance(network, Mapping) and network.get("mode") in {"bridge", "macvtap"}:
                found |= {str(network["bridge"])} if network.get("bridge") else set()
                found |= _uplink(network)
        inner = _mapping(place, "hypervisors").values()
        waiting += [each for each in inner if isinstance(each, Mapping)]
    return found


def _uplink(network: Mapping[str, Any]) -> set[str]:
    """Return the NIC that a network names as its uplink, or the bridge that is made on it."""
    uplink = _mapping(network, "uplink")
    nic = str(uplink.get("nic") or "")
    if not nic:
        return set()
    if network.get("mode") == "macvtap":
        return {nic}
    # Its name in the plan of our labs (`components.stackfile.plan`).
    port = f"{nic}/{uplink.get('vlan') or ''}"
    return {f"nlb{hashlib.sha256(port.encode()).hexdigest()[:10]}"}


def lab_uplinks(urn: str) -> dict[str, str]:
    """Return the networks of our lab that say they are on whatever their place is managed by.

    By the names of their components, each with what the names of all in that place begin with; they are of mode
    bridge and name none.
    """
    found, waiting = dict[str, str](), [("", lab(urn))]
    while waiting:
        prefix, place = waiting.pop()
        for name, network in _mapping(place, "networks").items():
            if isinstance(network, Mapping) and network.get("mode") == "bridge":
                found |= {} if network.get("bridge") else {f"{prefix}{name}": prefix}
        inner = _mapping(place, "hypervisors").items()
        waiting += [(f"{prefix}{name}-", each) for name, each in inner if isinstance(each, Mapping)]
    return found


def unnested(urn: str) -> set[str]:
    """Return the hypervisors of our lab that it shows no hardware virtualization, as their components are called."""
    found, waiting = set[str](), [("", lab(urn))]
    while waiting:
        prefix, place = waiting.pop()
        for name, each in _mapping(place, "hypervisors").items():
            if isinstance(each, Mapping):
                found |= {f"{prefix}{name}"} if each.get("nested") is False else set()
                waiting.append((f"{prefix}{name}-", each))
    return found


def uplinks(urn: str) -> set[str]:
    """Return what the way out of a place is called, where our lab says nothing else."""
    host = _mapping(lab(urn), "host")
    told = {str(host[key]) for key in ("uplink", "switch") if host.get(key)}
    return told | {"", "vmbr0", "vSwitch0"}


def _mapping(place: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = place.get(key)
    return found if isinstance(found, Mapping) else {}


def _said(urn: str) -> Mapping[str, Any]:
    return _settings(Path.cwd(), urn.split("::", 1)[0].rpartition(":")[2])


@functools.lru_cache(maxsize=8)
def _settings(folder: Path, stack: str) -> Mapping[str, Any]:
    """Return the configuration in a stack's file; the engine starts packs in the project's folder."""
    import yaml  # noqa: PLC0415 - only where something would be refused

    for root in (folder, *folder.parents):
        project = root / "Pulumi.yaml"
        if not project.is_file():
            continue
        told = yaml.safe_load(project.read_text())
        place = told.get("stackConfigDir") if isinstance(told, Mapping) else None
        file = root / str(place or ".") / f"Pulumi.{stack}.yaml"
        said = yaml.safe_load(file.read_text()) if file.is_file() else None
        return _mapping(said, "config") if isinstance(said, Mapping) else {}
    return {}
