"""The gate of a libvirt: its pool is up, and nobody else has a name that the lab needs there.

It also keeps the list of what the lab made there: what the engine never heard of, because a step
failed or was killed, is removed by these names when the lab goes, and nothing beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Named, Unasked
from components.kinds.libvirt import ownership, routes
from components.kinds.libvirt.census import census, changed
from components.kinds.libvirt.virsh import Virsh, VirshError, libvirt_of
from components.reach.client import host_shell
from components.reach.shell import Target, Unreachable
from components.reach.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pulumi


@dataclass(frozen=True)
class Ever:
    """All that a lab ever made at a libvirt: UUID by name, and names of volumes."""

    domains: dict[str, str]
    networks: dict[str, str]
    volumes: list[str]


NOTHING = Ever({}, {}, [])


@dataclass(frozen=True)
class Range:
    """What a network of this lab takes of the outer host's addresses."""

    network: str
    """Its name in libvirt."""
    bridge: str
    """Its own, which libvirt makes."""
    subnet: str


@dataclass(frozen=True, kw_only=True)
class Pool(Named):
    """Properties of a pool's gate; the lists are what the stack has now."""

    target: Target
    uri: str
    pool: str
    uuid: str
    domains: dict[str, str]
    networks: dict[str, str]
    volumes: list[str]
    ranges: Unasked[list[Range]] = field(default_factory=list)
    """Of networks that the outer host leads to; empty inside, and of labs that were made before."""
    made: Made[Ever] = None
    definition: Made[str] = None


class PoolGateProvider(Gate[Pool]):
    """Looks at the pool, starts it, defines it again when it is gone; refuses names that are taken."""

    shape = Pool

    @override
    def hindered(self, news: Pool) -> Iterable[tuple[str, str]]:
        yield from _occupied(news, NOTHING)

    @override
    def forbidden(self, olds: Pool, news: Pool) -> Iterable[tuple[str, str]]:
        yield from _occupied(news, olds.made or NOTHING)

    @override
    def look(self, props: Pool) -> Seen:
        active = census(libvirt_of(props)).pools.get(props.pool)
        if active is None:
            return Seen(ok=False, text=f"pool {props.pool} is not defined any more")
        return Seen(ok=active, text=f"pool {props.pool} is {'up' if active else 'stopped'}")

    @override
    def mend(self, olds: Pool | None, news: Pool) -> Pool:
        virsh = libvirt_of(news)
        changed(virsh)
        known = (olds and olds.made) or NOTHING
        _refuse_taken(virsh, "domain", news.domains, known.domains)
        _refuse_taken(virsh, "network", news.networks, known.networks)
        definition = _mend_pool(virsh, olds, news)
        made = Ever(
            domains=known.domains | news.domains,
            networks=known.networks | news.networks,
            volumes=sorted({*known.volumes, *news.volumes}),
        )
        return replace(news, made=made, definition=definition)

    @override
    def retire(self, props: Pool) -> None:
        virsh, made = libvirt_of(props), props.made or NOTHING
        for kind, known in (("domain", made.domains), ("network", made.networks)):
            for name in ownership.ours(virsh, kind, known):
                ownership.remove(virsh, kind, known[name])
                say(f"removed {kind} {name}, left behind by a step that did not end")
        ownership.logs_away(virsh, made.domains)
        # The provider's own removal would end at a file of somebody else's.
        if ownership.ours(virsh, "pool", {props.pool: props.uuid}):
            ownership.remove(virsh, "pool", props.uuid, made.volumes)


def _occupied(news: Pool, known: Ever) -> Iterable[tuple[str, str]]:
    """Yield the ranges of networks that are not made yet, and that the outer host has otherwise."""
    fresh = [each for each in news.ranges if each.network not in known.networks]
    if not fresh:
        return
    shell = host_shell(news.uri)
    try:
        held = routes.held(shell)
    except Unreachable:
        # libvirt, which is asked next, says so.
        return
    for each in fresh:
        if other := held.get(IPv4Network(each.subnet), set()) - {each.bridge}:
            devices = ", ".join(sorted(other))
            why = (
                f"{shell.name} has {each.subnet} already, on {devices} (`ip route` shows it), so libvirt would start "
                f"no network {each.network}. Give it another subnet, or end what has this one: a VPN, Docker, "
                "another network of libvirt's (`virsh net-list`)"
            )
            # Without a property: the engine would print all of it.
            yield "", why


def _refuse_taken(
    virsh: Virsh, kind: str, wanted: Mapping[str, str], known: Mapping[str, str]
) -> None:
    """See to it that the names of ``wanted`` (UUID by name) are free, or the lab's already."""
    fresh = {name: uuid for name, uuid in wanted.items() if name not in known}
    if taken := ownership.strangers(virsh, kind, fresh):
        raise VirshError(ownership.taken(virsh, kind, taken))


def _mend_pool(virsh: Virsh, olds: Pool | None, news: Pool) -> str:
    """Have the pool defined and active; return its definition."""
    pool, facts = news.pool, virsh.pool(news.pool)
    if facts and ownership.strangers(virsh, "pool", {pool: news.uuid}):
        raise VirshError(ownership.taken(virsh, "pool", [pool]))
    there = facts.definition if facts else None
    definition = ownership.defined(virsh, "pool", pool, there, (olds and olds.definition) or "")
    if not facts or not facts.active:
        say(f"{news.name}: starting pool {pool}")
        if not virsh.run("pool-start", pool).ok:
            # Its folder is gone: building would also set the mode of one that is there.
            virsh.run("pool-build", pool)
            virsh.must("pool-start", pool)
    return definition


class PoolGate(BorderResource, module="nestlab", name="PoolGate"):
    """A pool that is up, in a libvirt whose names the lab can have."""

    def __init__(self, name: str, props: Pool, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PoolGateProvider(), name, props, opts)
