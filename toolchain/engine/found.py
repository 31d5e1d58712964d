"""What a resource of libvirt's in a state is in the real libvirt: where it is, and whether it is this lab's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from components.gates.uuids import uuid_of
from components.kinds.libvirt import ownership
from components.kinds.libvirt.virsh import Virsh
from components.reach.shell import LocalShell, Shell, SshShell, Unreachable
from toolchain.bootstrap import paths, regular
from toolchain.engine.strays import IDENTITY, OWNED, VOLUMES

if TYPE_CHECKING:
    from collections.abc import Collection

    from toolchain.engine.strays import Stray

OURS = "$NESTLAB_KEYS/"
"""What the paths of a nested host's keys begin with in its URI (components/kinds/kvm/install.py)."""

State = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A resource of libvirt, and the libvirt it is in."""

    virsh: Virsh
    kind: str
    """"domain", "network", "pool" or "volume"."""
    name: str
    pool: str
    uuid: str
    """The UUID that makes it this lab's; a volume's is that of its pool, empty without one."""

    @classmethod
    def of(cls, resource: State, deployment: State) -> Found | None:
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
            uuid = uuid_of(identity, kind, key)
        return cls(virsh, kind, inputs["name"], pool, uuid)

    @classmethod
    def stray(cls, stray: Stray, deployment: State) -> Found | None:
        """Return what ``stray`` is about; None where a list is not as nestlab writes it."""
        identity = _identity(deployment)
        virsh, outer = _libvirt({"provider": f"{stray.provider}::"}, deployment)
        if not identity or virsh is None:
            return None
        uuid = stray.uuid
        if stray.kind == "pool" or (outer and stray.kind != "volume"):
            # Inside a nested host all is the lab's; out here a list of somebody else's may name anything.
            uuid = uuid_of(identity, stray.kind, stray.name)
        return cls(virsh, stray.kind, stray.name, stray.pool, uuid)

    @staticmethod
    def there(found: Collection[Found]) -> list[Found]:
        """Return those of ``found``, all of one kind at one libvirt, that are there and the lab's.

        Raises:
            Unreachable, VirshError: nobody can tell.
        """
        if not found:
            return []
        one = next(iter(found))
        listed = one.virsh.listed("pool" if one.kind == "volume" else one.kind)
        ours = [each for each in found if each.uuid in listed]
        if one.kind != "volume" or not ours:
            return ours
        pools = [("pool-refresh", pool) for pool in {each.pool for each in ours}]
        paths = [("vol-path", each.name, "--pool", each.pool) for each in ours]
        told = one.virsh.together(*pools, *paths)[len(pools) :]
        return [each for each, path in zip(ours, told, strict=True) if path.strip()]

    def remove(self) -> None:
        """Remove it if it is there and this lab's."""
        if not self.there([self]):
            return
        if self.kind == "volume":
            self.virsh.run("vol-delete", self.name, "--pool", self.pool)
        else:
            ownership.remove(self.virsh, self.kind, self.uuid)

    def gone(self) -> bool:
        """Whether it is not there; volumes and pools may be deleted twice."""
        return self.kind in {"domain", "network"} and not self.there([self])

    def has_stood(self) -> bool:
        """Whether it is a domain that was up once: what runs in it may be somebody's work."""
        facts = self.virsh.domain(self.uuid) if self.kind == "domain" else None
        return facts is not None and facts.has_stood

    def kept(self) -> str:
        """Say why it stays although the state does not know it, and what to do."""
        return (
            f"the domain {self.name} at {self.virsh.host.name} is this lab's and was up once, but its state"
            " does not know it: it stays as it is.\nGive the state back what it held (`pulumi stack import`),"
            f" or shut the domain down and run: virsh -c {self.virsh.uri} undefine --nvram {self.uuid}"
        )


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
            regular.text(Path(query[name][0].replace(OURS, f"{paths.KEYS}/", 1)))
            for name in ("keyfile", "knownhosts")
        )
    except (OSError, ValueError):
        raise Unreachable(f"{host}: its keys are not there") from None
    return SshShell(host, port, "root", private, " ".join(known.split()[1:3]), host)
