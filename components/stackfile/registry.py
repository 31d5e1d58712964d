"""What the stack file knows of each kind, looked up by its name in `components.kinds` when it is first asked for.

Kinds are made of this package's models, and its checks ask for kinds: so neither is imported by the
other, and a kind is one folder and one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from typing_extensions import override

from components import kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.stackfile.host import HostKind
    from components.stackfile.places import Kind

T = TypeVar("T")
DEFAULT = "libvirt"
"""Kind of an outer host whose kind the stack does not say."""


class _Registry(Mapping[str, T], Generic[T]):
    """What each kind of ``names`` has as ``attribute`` in its module ``part``."""

    def __init__(self, names: tuple[str, ...], part: str, attribute: str) -> None:
        self._names, self._part, self._attribute = names, part, attribute
        self._found: dict[str, T] = {}

    @override
    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._found:
            found = getattr(kinds.part(name, self._part), self._attribute)
            if found.name != name:
                raise ValueError(f"kinds/{name}/{self._part}.py calls itself {found.name!r}")
            self._found[name] = found
        return self._found[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @override
    def __len__(self) -> int:
        return len(self._names)


KINDS: Mapping[str, Kind] = _Registry(kinds.NESTED, "model", "KIND")
"""Nested hypervisors, by kind."""
HOSTS: Mapping[str, HostKind] = _Registry(kinds.OUTER, "host", "HOST")
"""Outer hosts, by kind."""
