"""How the resources of a stack hang together: which machine a resource is inside of.

A provider for a nested hypervisor gets its address from what waits for that hypervisor, so the
nearest hypervisor among what it depends on is the one it leads into. Addresses themselves say
nothing: in preview they are not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import inputs
import machines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulumi_policy import PolicyResource

DYNAMIC = "pulumi:providers:pulumi-python"


class Relations:
    """The resources of one stack."""

    def __init__(self, resources: Iterable[PolicyResource]) -> None:
        self.all = list(resources)
        for resource in self.all:
            inputs.restore(resource)
        self.by_urn = {resource.urn: resource for resource in self.all}
        self.kinds = {
            resource.urn: kind
            for resource in self.all
            if (kind := machines.kind(resource.resource_type, resource.urn, resource.props))
            is not None
        }
        """Kind of each hypervisor, by URN."""
        self._hosts: dict[str, PolicyResource | None] = {}

    def named(self, *types: str) -> list[PolicyResource]:
        """Return the resources of these types, in an order that is the same in every run."""
        found = [resource for resource in self.all if resource.resource_type in types]
        return sorted(found, key=lambda resource: resource.urn)

    def place(self, resource: PolicyResource) -> str:
        """Return what two resources share that are on one host: the URN of their provider."""
        return resource.provider.urn if resource.provider else ""

    def host(self, resource: PolicyResource) -> PolicyResource | None:
        """Return the hypervisor of this stack that a resource is inside of."""
        provider = self.by_urn.get(self.place(resource))
        # Dynamic resources share one provider, which leads nowhere; they say themselves where to.
        dynamic = provider is None or provider.resource_type == DYNAMIC
        start = resource if dynamic or provider is None else provider
        if start.urn not in self._hosts:
            self._hosts[start.urn] = self._nearest(start)
        return self._hosts[start.urn]

    def layers(self, resource: PolicyResource) -> Iterator[PolicyResource]:
        """Yield the hypervisors around a resource, from the inside out."""
        seen, host = {resource.urn}, self.host(resource)
        while host is not None and host.urn not in seen:
            yield host
            seen.add(host.urn)
            host = self.host(host)

    def takes(self, resource: PolicyResource, *inputs: str) -> set[str]:
        """Return the URNs of all that a resource's ``inputs``, or all of them, are made of."""
        given = resource.property_dependencies
        first = [each for key in inputs or given for each in given.get(key, ())]
        found, waiting = {each.urn for each in first}, first
        while waiting:
            for each in _before(waiting.pop(), only_values=True):
                if each.urn not in found:
                    found.add(each.urn)
                    waiting.append(each)
        return found

    def _nearest(self, start: PolicyResource) -> PolicyResource | None:
        # What a value is taken from says more than what is merely waited for: machines also wait
        # for one another, so that they don't all boot at once.
        for only_values in (True, False):
            seen, ring = {start.urn}, [start]
            while ring:
                ring = [
                    each
                    for resource in ring
                    for each in _before(resource, only_values=only_values)
                    if each.urn not in seen
                ]
                seen |= {each.urn for each in ring}
                found = {each.urn for each in ring if each.urn in self.kinds}
                if len(found) == 1:
                    return self.by_urn[found.pop()]
                if found:
                    return None
        return None


def _before(resource: PolicyResource, *, only_values: bool) -> list[PolicyResource]:
    if not only_values:
        return resource.dependencies
    return [each for needed in resource.property_dependencies.values() for each in needed]
