"""What a killed `pulumi up` made and its state does not know, removed before the same is made again.

The engine forgets what it was making when it was killed, or what it never got an answer about; the next
`up` would meet "network is already active", or take half a medium for a whole one. In a stack file's lab
the wrapper of `pulumi` looks for that before the engine starts (`toolchain.engine.recover`), by what the
state has. A program that is none of nestlab's has a state that only its engine reads: there a hook of the
engine's does it, which runs where something is about to be made, and nowhere else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi
from pulumi.runtime import settings
from pulumi.runtime.proto import resource_pb2

from components.gates.uuids import uuid_of
from components.kinds.libvirt import ownership
from components.kinds.libvirt.virsh import Virsh, VirshError
from components.reach.shell import Unreachable, shell_of
from components.reach.waiting import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.kinds.libvirt.place import LibvirtPlace

KIND_OF = {
    "libvirt:index/domain:Domain": "domain",
    "libvirt:index/network:Network": "network",
    "libvirt:index/pool:Pool": "pool",
}
VOLUME = "libvirt:index/volume:Volume"


class StoodBefore(VirshError):
    """What is about to be made is there, and was up once: what runs in it may be somebody's work."""


@dataclass(frozen=True)
class Place:
    """Where something is about to be made, and whose it will be."""

    virsh: Virsh
    identity: str
    """The lab's number."""
    pool: str
    """UUID of the lab's pool there."""
    nested: bool
    """Whether UUIDs are by what the state calls things, and not by their own names."""

    def clear(self, kind: str, name: str, inputs: Mapping[str, object]) -> None:
        """Remove what is there of the lab's and is about to be made.

        ``kind`` is the resource's type, ``name`` what the state calls it, ``inputs`` what it is made from.
        A volume goes if it is a copy, which can be cut short; a disk that is there is left to the provider,
        who takes it over.

        Raises:
            StoodBefore: it is a domain that was up once.
            VirshError: libvirt does not let go of it.
            Unreachable: there is nobody to ask.
        """
        called = str(inputs.get("name") or "")
        if kind == VOLUME:
            if inputs.get("source"):
                self._clear_copy(called)
            return
        what = KIND_OF[kind]
        uuid = uuid_of(self.identity, what, name if self.nested else called)
        if uuid not in self.virsh.listed(what):
            return
        facts = self.virsh.domain(uuid) if what == "domain" else None
        if facts is not None and facts.has_stood:
            raise StoodBefore(
                f"the domain {called} at {self.virsh.host.name} is this lab's and was up once, but the state of"
                " this stack does not know it, and making it anew would lose what is in it. Give the state back"
                " what it held (`pulumi stack import`), or shut the domain down and run: "
                f"virsh -c {self.virsh.uri} undefine --nvram {uuid}"
            )
        ownership.remove(self.virsh, what, uuid)
        say(f"removed {what} {called}, left behind by a step that did not end")

    def _clear_copy(self, volume: str) -> None:
        if self.pool not in self.virsh.listed("pool"):
            return
        at = (volume, "--pool", self.pool)
        _, found = self.virsh.together(("pool-refresh", self.pool), ("vol-path", *at))
        if found.strip():
            self.virsh.must("vol-delete", *at)
            say(f"removed volume {volume}, left behind by a step that did not end")


def hooks(at: LibvirtPlace, pool: pulumi.Output[str]) -> pulumi.ResourceHookBinding | None:
    """Return what runs before anything is made ``at`` a place; None where the engine knows no hooks.

    ``pool`` is the UUID of its pool. All is known by then: what is made at a place waits for it.
    """
    if not settings.monitor_supports_feature(resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS):
        return None
    known = pulumi.Output.all(at.target, at.lab.identity.value, pool)
    uri, nested = at.uri, bool(at.plan.path)

    async def clear(about: pulumi.ResourceHookArgs) -> None:
        where = await known.future()
        if where is None:
            return
        place = Place(Virsh(shell_of(where[0]), uri), where[1], where[2], nested)
        try:
            await asyncio.to_thread(place.clear, about.type, about.name, about.new_inputs or {})
        except Unreachable:
            return  # the provider, who can't make it then, says so itself

    return pulumi.ResourceHookBinding(
        before_create=[pulumi.ResourceHook(f"{at.name}-leftovers", clear)]
    )
