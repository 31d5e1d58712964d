"""Reading a resource's properties while some of them are not known yet.

Reading an unknown value ends a rule at once and turns its verdict into an advice (pulumi-policy
1.21), so rules read one property at a time and known facts first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi_policy.proxy import UnknownValueError

if TYPE_CHECKING:
    from collections.abc import Mapping


def text(props: Mapping[str, Any], *path: str) -> str | None:
    """Return the text at ``path``; empty when nothing is set, None when it is not known yet."""
    value: Any = props
    try:
        for key in path:
            value = (value or {}).get(key)
        return "" if value is None else str(value)
    except UnknownValueError:
        return None
