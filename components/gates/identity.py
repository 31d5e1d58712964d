"""A lab's identity: the random number in its state that its objects' UUIDs are made from.

`components.remote.ownership` says what that is good for.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, TypedDict

from pulumi.dynamic import CreateResult, DiffResult
from typing_extensions import override

from components.gates.base import BorderProvider, BorderResource
from components.remote.ownership import keys_away, left_behind, remove, tidy, uuid_of
from components.remote.shell import Target, Unreachable, shell_of
from components.remote.virsh import Virsh, VirshError
from components.remote.waiting import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pulumi

    from components.gates.base import Props


class _Identity(TypedDict):
    name: str
    target: Target
    uri: str
    lab: str
    private: str
    value: str | None
    group: str | None


class IdentityProvider(BorderProvider):
    """Makes a lab's identity, and sweeps after it."""

    shape = _Identity

    @override
    def create(self, props: Props) -> CreateResult:
        virsh = Virsh(shell_of(props["target"]), props["uri"]) if props["uri"] else None
        group = virsh.qemu_group() if virsh else ""
        outs = {**props, "value": secrets.token_hex(8), "group": group}
        return CreateResult(str(props["name"]), outs)

    @override
    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return DiffResult(changes=False)

    @override
    def delete(self, _id: str, _props: Props) -> None:
        # Everything of the lab depends on its identity, so by now the engine has removed all it
        # knew of; what is left was half-made by a step that failed or was killed.
        props = self.stored(_props)
        if not props["uri"]:
            keys_away(props["private"])
            return
        virsh = Virsh(shell_of(props["target"]), props["uri"])
        try:
            for kind, name in list(left_behind(virsh, props["value"])):
                remove(virsh, kind, name)
                say(f"removed {kind} {name}, left behind by a step that did not end")
            tidy(virsh, props["lab"], props["private"])
        except (Unreachable, VirshError) as beyond:
            say(f"could not look for left-overs: {beyond}")


class Identity(BorderResource, module="nestlab", name="Identity"):
    """The random number that a lab's UUIDs are made from.

    ``uri`` is the libvirt of its outer host; empty: it has none to sweep.
    """

    value: pulumi.Output[str]
    """16 hexadecimal digits."""
    group: pulumi.Output[str | None]
    """Number of the group that QEMU runs in on the outer host; empty where that is not libvirt's, None
    for a lab that was made before its folders were closed."""

    def __init__(
        self,
        name: str,
        *,
        target: Mapping[str, Any],
        uri: str,
        lab: str,
        private: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "target": dict(target),
            "uri": uri,
            "lab": lab,
            "private": private,
            "value": None,
            "group": None,
        }
        super().__init__(IdentityProvider(), name, props, opts)

    def uuid(self, kind: str, name: str) -> pulumi.Output[str]:
        """UUID of an object of the lab; see `uuid_of`."""
        return self.value.apply(lambda value: uuid_of(value, kind, name))
