"""The gate of a libvirt: its pool is up, and nobody else has a name that the lab needs there.

It also keeps the list of what the lab made there: what the engine never heard of, because a step
failed or was killed, is removed by these names when the lab goes, and nothing beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from typing_extensions import override

from components.gates.base import BorderResource, Gate, Props, libvirt_of
from components.remote import ownership
from components.remote.census import census, changed
from components.remote.shell import Target
from components.remote.virsh import PoolFacts, Virsh, VirshError
from components.remote.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi


class Made(TypedDict):
    """All that a lab ever made at a libvirt: UUID by name, and names of volumes."""

    domains: dict[str, str]
    networks: dict[str, str]
    volumes: list[str]


class Pool(TypedDict):
    """Properties of a pool's gate; the lists are what the stack has now."""

    name: str
    target: Target
    uri: str
    pool: str
    uuid: str
    domains: dict[str, str]
    networks: dict[str, str]
    volumes: list[str]
    made: Made | None
    definition: str | None


class PoolGateProvider(Gate):
    """Looks at the pool, starts it, defines it again when it is gone; refuses names that are taken."""

    shape = Pool

    inputs = ("name", "target", "uri", "pool", "uuid", "domains", "networks", "volumes")

    @override
    def look(self, props: Props) -> Seen:
        active = census(libvirt_of(props)).pools.get(props["pool"])
        if active is None:
            return Seen(ok=False, text=f"pool {props['pool']} is not defined any more")
        return Seen(ok=active, text=f"pool {props['pool']} is {'up' if active else 'stopped'}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        virsh = libvirt_of(news)
        changed(virsh)
        known = olds.get("made") or {}
        for kind in ("domain", "network"):
            _refuse_taken(virsh, kind, news[f"{kind}s"], known.get(f"{kind}s") or {})
        definition = _mend_pool(virsh, olds, news)
        made: dict[str, Any] = {
            each: {**(known.get(each) or {}), **news[each]} for each in ("domains", "networks")
        }
        made["volumes"] = sorted({*(known.get("volumes") or ()), *news["volumes"]})
        return {**news, "made": made, "definition": definition}

    @override
    def retire(self, props: Props) -> None:
        virsh, made = libvirt_of(props), props["made"]
        for kind in ("domain", "network"):
            left = ownership.ours(virsh, kind, made[f"{kind}s"])
            for name in left:
                ownership.remove(virsh, kind, made[f"{kind}s"][name])
                say(f"removed {kind} {name}, left behind by a step that did not end")
        ownership.logs_away(virsh, made["domains"])
        # The provider's own removal would end at a file of somebody else's.
        if ownership.ours(virsh, "pool", {props["pool"]: props["uuid"]}):
            ownership.remove(virsh, "pool", props["uuid"], made["volumes"])


def _refuse_taken(
    virsh: Virsh, kind: str, wanted: Mapping[str, str], known: Mapping[str, str]
) -> None:
    """See to it that the names of ``wanted`` (UUID by name) are free, or the lab's already."""
    fresh = {name: uuid for name, uuid in wanted.items() if name not in known}
    if taken := ownership.strangers(virsh, kind, fresh):
        raise VirshError(ownership.taken(virsh, kind, taken))


def _mend_pool(virsh: Virsh, olds: Props, news: Props) -> str:
    """Have the pool defined and active; return its definition."""
    pool, facts = news["pool"], virsh.pool(news["pool"])
    if facts is None:
        if not olds.get("definition"):
            raise VirshError(f"pool {pool} is not defined at {virsh.shell.name}")
        virsh.define("pool", olds["definition"])
        virsh.must("pool-autostart", pool)
        facts = PoolFacts(active=False, definition=olds["definition"])
    elif ownership.strangers(virsh, "pool", {pool: news["uuid"]}):
        raise VirshError(ownership.taken(virsh, "pool", [pool]))
    if not facts.active:
        say(f"{news['name']}: starting pool {pool}")
        if not virsh.run("pool-start", pool).ok:
            # Its folder is gone: building would also set the mode of one that is there.
            virsh.run("pool-build", pool)
            virsh.must("pool-start", pool)
    return facts.definition


class PoolGate(BorderResource, module="nestlab", name="PoolGate"):
    """A pool that is up, in a libvirt whose names the lab can have."""

    made: pulumi.Output[dict[str, Any]]
    """All that the lab ever made there: UUID by name of domains and networks, names of volumes."""

    def __init__(
        self,
        name: str,
        *,
        target: pulumi.Input[Mapping[str, Any]],
        uri: pulumi.Input[str],
        pool: pulumi.Input[str],
        uuid: pulumi.Input[str],
        domains: Mapping[str, pulumi.Input[str]],
        networks: Mapping[str, pulumi.Input[str]],
        volumes: pulumi.Input[list[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "target": target,
            "uri": uri,
            "pool": pool,
            "uuid": uuid,
            "domains": dict(domains),
            "networks": dict(networks),
            "volumes": volumes,
            "made": None,
            "definition": None,
        }
        super().__init__(PoolGateProvider(), name, props, opts)
