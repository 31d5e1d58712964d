"""The gate of a libvirt: its pool is up, and nobody else has a name that the lab needs there.

It also keeps the list of what the lab made there: what the engine never heard of, because a step
failed or was killed, is removed by these names when the lab goes, and nothing beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.sax.saxutils import escape

from pulumi.dynamic import CheckResult
from typing_extensions import override

from components.gates.base import BorderResource, Gate, Made, Named, Unasked
from components.gates.codec import has_unknown
from components.kinds.libvirt import ownership
from components.kinds.libvirt.census import census, changed, volumes
from components.kinds.libvirt.virsh import Virsh, VirshError, libvirt_of
from components.reach.shell import LocalShell, Target
from components.reach.waiting import Seen, say
from components.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi
    from pulumi.dynamic import DiffResult

    from components.gates.base import Props

SEND_S = 3600.0
"""How long an image may take to this machine's libvirt; to a nested host, how long nothing of it may arrive."""
IMAGE = """\
<volume><name>{name}</name><capacity unit='bytes'>{size}</capacity><target><format type='{form}'/>\
<permissions><mode>0600</mode></permissions></target></volume>"""


@dataclass(frozen=True)
class Volume:
    """What the lab has a volume for."""

    role: Literal["disk", "copy", "image"]
    """A machine's own disk, a copy of a file of this machine, or such a copy that disks are made from."""
    machines: list[str]
    """Who has it in a drive, or a disk made from it."""
    source: str = ""
    """An image's file on this machine."""
    form: str = "qcow2"
    """An image's format."""

    def lost(self, name: str, pool: str) -> str:
        """Say that it is not there any more, and what `pulumi up` does about it."""
        whose = ", ".join(self.machines)
        gone = f"{name} of {whose} is not in pool {pool} any more"
        if self.role == "disk":
            return f"{gone}, and what was on it is lost: `pulumi up` makes it anew, and {whose} with it"
        if self.role == "copy":
            return f"{gone}: `pulumi up` makes it again, and {whose} anew with it, on the disks there are"
        return f"{gone}: `pulumi up` sends it again; disks that were made from it stay"


@dataclass(frozen=True)
class Ever:
    """All that a lab ever made at a libvirt: UUID by name, and names of volumes."""

    domains: dict[str, str]
    networks: dict[str, str]
    volumes: list[str]


NOTHING = Ever({}, {}, [])


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
    kept: Unasked[dict[str, Volume]] = field(default_factory=dict)
    """What each of them is."""
    anew: dict[str, int] = field(default_factory=dict)
    """How often each was found missing, by name; told by `PoolGateProvider.check`, whatever is given."""
    made: Made[Ever] = None
    definition: Made[str] = None


class PoolGateProvider(Gate[Pool]):
    """Looks at the pool, starts it, defines it again when it is gone; refuses names that are taken.

    It looks at the volumes too, as their own provider does at a refresh alone. That has to make them anew: each volume's
    trigger is how often it was missing. An image is sent again by the gate, or the disks made from it would go with it.
    """

    shape = Pool

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        checked = super().check(_olds, news)
        if not _olds:
            return checked
        # An input, so that a preview knows it: of what is made, it knows nothing.
        anew = _anew(self.stored(_olds), self.given(news))
        return CheckResult({**checked.inputs, "anew": anew}, checked.failures)

    @override
    def compare(self, olds: Pool, news: Pool) -> DiffResult:
        for name in _lost(olds, news):
            if volume := news.kept.get(name):
                say(f"{olds.name}: {volume.lost(name, news.pool)}")
        return super().compare(olds, news)

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
        for name in _lost(olds, news) if olds else ():
            volume = news.kept.get(name)
            if volume and volume.role == "image":
                _send(virsh, news.pool, name, volume)
                say(f"{news.name}: sent {name} again")
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


def _anew(olds: Pool, news: Pool) -> dict[str, int]:
    """Return how often each volume was found missing, now counted in."""
    if has_unknown([news.target, news.pool, news.volumes]):
        return olds.anew
    found = {name: count for name, count in olds.anew.items() if name in news.volumes}
    try:
        there = volumes(libvirt_of(news), news.pool)
    except Refused:
        return found  # who looks at the pool itself says it
    if there is not None:
        for name in set(olds.volumes) & set(news.volumes) - there:
            found[name] = found.get(name, 0) + 1
    return found


def _lost(olds: Pool, news: Pool) -> list[str]:
    """Return the volumes that are missing since ``olds``."""
    return sorted(name for name, count in news.anew.items() if count > olds.anew.get(name, 0))


def _send(virsh: Virsh, pool: str, name: str, image: Volume) -> None:
    """Have the volume ``name`` be a copy of ``image``."""
    source, facts = Path(image.source), virsh.pool(pool)
    if facts is None or name in (volumes(virsh, pool) or ()):
        return
    if not image.source or not source.is_file():
        raise VirshError(f"{name} can't be sent again: {image.source or 'its file'} is not there")
    if not isinstance(virsh.shell, LocalShell):
        virsh.shell.put(source, f"{facts.path}/{name}", mode=0o600, timeout_s=SEND_S)
        virsh.must("pool-refresh", pool)
        return
    size = source.stat().st_size
    xml = IMAGE.format(name=escape(name), size=size, form=image.form)
    virsh.must("vol-create", pool, "/dev/stdin", stdin=xml.encode())
    try:
        virsh.must("vol-upload", name, image.source, "--pool", pool, timeout_s=SEND_S)
    except BaseException:
        # Half of one would count as there.
        virsh.run("vol-delete", name, "--pool", pool)
        raise
    virsh.must("pool-refresh", pool)


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

    anew: pulumi.Output[dict[str, int]]
    """How often each of its volumes was found missing, by name; without those that never were."""

    def __init__(self, name: str, props: Pool, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(PoolGateProvider(), name, props, opts)
