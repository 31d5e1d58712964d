"""A lab's identity: the random number in its state that its objects' UUIDs are made from.

``ownership`` of the outer host's kind says what that is good for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult
from typing_extensions import override

from components import kinds
from components.gates.base import BorderProvider, BorderResource, Made, Named
from components.gates.keys import keys_away
from components.gates.uuids import uuid_of
from components.reach.shell import Target
from components.reach.waiting import say
from components.refused import Refused

if TYPE_CHECKING:
    from components.gates.base import Props


OLDER = "libvirt"
"""The kind of the outer host of a lab whose state does not say it: before, only libvirt's was swept."""


@dataclass(frozen=True, kw_only=True)
class Whose(Named):
    """Properties of a lab's identity."""

    target: Target
    kind: str
    """Its outer host's."""
    uri: str
    """What that is swept by, libvirt's; empty: nothing is to sweep."""
    lab: str
    private: str
    pool: str = ""
    """What its pool is to be called there."""
    folders: str = ""
    """What the path of its folder is to begin with."""
    value: Made[str] = None
    group: Made[str] = None
    folder: Made[str] = None


class _Ownership(Protocol):
    """What the ``ownership`` of an outer host's kind has."""

    def unreached(self, props: Whose) -> str: ...

    def claim(self, props: Whose) -> str: ...

    def sweep(self, props: Whose) -> None: ...


def _ownership(kind: str) -> _Ownership:
    made: _Ownership = kinds.part(kind, "ownership")
    return made


class IdentityProvider(BorderProvider[Whose]):
    """Makes a lab's identity, and sweeps after it."""

    shape = Whose

    def problems(self, props: Whose) -> list[tuple[str, str]]:
        """Return why the outer host can't be asked, as property and reason: told in a preview, first of all."""
        why = _ownership(props.kind).unreached(props) if props.uri else ""
        return [("uri", why)] if why else []

    @override
    def check(self, _olds: Props, news: Props) -> CheckResult:
        found = self.problems(self.given(news))
        return CheckResult(news, [CheckFailure(key, why) for key, why in found])

    @override
    def create(self, props: Props) -> CreateResult:
        given, value = self.given(props), secrets.token_hex(8)
        group = _ownership(given.kind).claim(given) if given.uri else ""
        folder = f"{given.folders}-{value}" if given.folders else ""
        made = replace(given, value=value, group=group, folder=folder)
        return CreateResult(given.name, self.carried(made))

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return DiffResult(changes=False)

    @override
    def delete(self, _id: str, _props: Props) -> None:
        # Everything of the lab depends on its identity, so by now the engine has removed all it
        # knew of; what is left was half-made by a step that failed or was killed.
        props = self.stored(_props)
        try:
            if props.uri:
                _ownership(props.kind or OLDER).sweep(props)
        except Refused as beyond:
            say(f"could not look for left-overs: {beyond}")
            return
        keys_away(props.private)


class Identity(BorderResource, module="nestlab", name="Identity"):
    """The random number that a lab's UUIDs are made from."""

    value: pulumi.Output[str]
    """16 hexadecimal digits."""
    group: pulumi.Output[str | None]
    """Number of the group that QEMU runs in on the outer host; empty where that is not libvirt's, None
    for a lab that was made before its folders were closed."""
    folder: pulumi.Output[str | None]
    """The lab's own folder for disks on its outer host, which it keeps until it is taken down; empty
    where the host has no folders, None for a lab that was made before folders had a mark."""

    def __init__(self, name: str, props: Whose, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(IdentityProvider(), name, props, opts)

    def below(self, folder: str) -> pulumi.Output[str]:
        """Folder of the lab's own below ``folder``, on a host inside it; as `folder` for older labs."""
        return pulumi.Output.all(self.value, self.folder).apply(
            lambda known: folder if known[1] is None else f"{folder}/{known[0]}"
        )

    def uuid(self, kind: str, name: str) -> pulumi.Output[str]:
        """UUID of an object of the lab; see `uuid_of`."""
        return self.value.apply(lambda value: uuid_of(value, kind, name))
