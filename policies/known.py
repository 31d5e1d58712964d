"""Reading a resource's properties while some of them are not known yet.

Reading an unknown value ends a rule at once and turns its verdict into an advice (pulumi-policy
1.21), so rules read one property at a time and known facts first. Numbers arrive as floats, nested
mappings and lists as proxies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pulumi_policy.proxy import UnknownValueError


class Unknown:
    """The type of `UNKNOWN`."""


UNKNOWN: Final = Unknown()
"""What `value` answers while a value is not known."""
REDACTED = "[secret]"
"""What ``pulumi policy analyze --file`` shows instead of a secret it can't decrypt."""


def value(props: Any, *path: str | int) -> Any:
    """Return what is at ``path``: None when nothing is set, `UNKNOWN` when it is not known yet."""
    found = props
    try:
        for key in path:
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, Sequence) and not isinstance(found, str):
                found = found[key] if isinstance(key, int) and key < len(found) else None
            else:
                return None
    except UnknownValueError:
        return UNKNOWN
    return UNKNOWN if found == REDACTED else found


def text(props: Any, *path: str | int) -> str | None:
    """Return the text at ``path``; empty when nothing is set, None when it is not known yet."""
    found = value(props, *path)
    if found is UNKNOWN:
        return None
    return "" if found is None else str(found)


def number(props: Any, *path: str | int, default: float | None = None) -> float | None:
    """Return the number at ``path``, ``default`` when none is set, None when it is not known yet."""
    found = value(props, *path)
    if found is UNKNOWN:
        return None
    try:
        return default if found is None else float(found)
    except (TypeError, ValueError):
        return None


def items(props: Any, *path: str | int) -> list[Any] | None:
    """Return the list at ``path``, `UNKNOWN` for elements that are; None when it is not known."""
    found = value(props, *path)
    if found is UNKNOWN:
        return None
    if found is None:
        return []
    if isinstance(found, str) or not isinstance(found, Sequence):
        return [found]
    return [value(found, number) for number in range(len(found))]
