"""What each resource was given, for rules over the stack.

They are shown what a provider makes of the inputs. In preview a provider whose address is not known
yet makes nothing at all of them, and everything inside a nested host would be out of sight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_policy import PolicyResource, ReportViolation, ResourceValidationArgs

_SEEN: dict[str, Mapping[str, Any]] = {}
"""By URN; the pack lives for one run of the engine."""


def note(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Remember a resource's inputs; the first of a rule's validations."""
    del report
    _SEEN[args.urn] = args.props


def restore(resource: PolicyResource) -> None:
    """Show a resource of which the provider says nothing as it was given."""
    if not resource.props:
        resource.props = _SEEN.get(resource.urn, resource.props)
