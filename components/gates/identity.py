"""A lab's identity: the random number in its state that its objects' UUIDs are made from.

`components.remote.ownership` says what that is good for.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, TypedDict

import pulumi
from pulumi.dynamic import CreateResult, DiffResult
from typing_extensions import override

from components.gates.base import BorderProvider, BorderResource, libvirt_of
from components.remote import ownership
from components.remote.ownership import uuid_of
from components.remote.shell import Target, Unreachable
from components.remote.virsh import VirshError
from components.remote.waiting import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.gates.base import Props


class _Identity(TypedDict):
    name: str
    target: Target
    uri: str
    lab: str
    private: str
    pool: str
    folders: str
    value: str | None
    group: str | None
    folder: str | None


class IdentityProvider(BorderProvider):
    """Makes a lab's identity, and sweeps after it."""

    shape = _Identity

    @override
    def create(self, props: Props) -> CreateResult:
        value, group = secrets.token_hex(8), ""
        if props["uri"]:
            virsh = libvirt_of(props)
            # Two labs of one name on one host: told before anything is made.
            if props.get("pool") and virsh.uuids("pool", props["pool"]):
                raise VirshError(ownership.taken(virsh, "pool", [props["pool"]]))
            group = virsh.qemu_group()
        begins = props.get("folders")
        outs = {
            **props,
            "value": value,
            "group": group,
            "folder": f"{begins}-{value}" if begins else "",
        }
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
            ownership.keys_away(props["private"])
            return
        virsh = libvirt_of(props)
        try:
            for kind, uuid, name in list(ownership.left_behind(virsh, props["value"])):
                ownership.remove(virsh, kind, uuid)
                say(f"removed {kind} {name}, left behind by a step that did not end")
                ownership.logs_away(virsh, [name] if kind == "domain" else [])
            ownership.keys_away(props["private"])
        except (Unreachable, VirshError) as beyond:
            say(f"could not look for left-overs: {beyond}")


class Identity(BorderResource, module="nestlab", name="Identity"):
    """The random number that a lab's UUIDs are made from.

    ``uri`` is the libvirt of its outer host; empty: it has none to sweep. ``pool`` is what its pool
    is to be called there, ``folders`` what the path of its folder is to begin with.
    """

    value: pulumi.Output[str]
    """16 hexadecimal digits."""
    group: pulumi.Output[str | None]
    """Number of the group that QEMU runs in on the outer host; empty where that is not libvirt's, None
    for a lab that was made before its folders were closed."""
    folder: pulumi.Output[str | None]
    """The lab's own folder for disks on its outer host, which it keeps until it is taken down; empty
    where the host has no folders, None for a lab that was made before folders had a mark."""

    def __init__(
        self,
        name: str,
        *,
        target: Mapping[str, Any],
        uri: str,
        lab: str,
        private: str,
        pool: str = "",
        folders: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "target": dict(target),
            "uri": uri,
            "lab": lab,
            "private": private,
            "pool": pool,
            "folders": folders,
            "value": None,
            "group": None,
            "folder": None,
        }
        super().__init__(IdentityProvider(), name, props, opts)

    def below(self, folder: str) -> pulumi.Output[str]:
        """Folder of the lab's own below ``folder``, on a host inside it; as `folder` for older labs."""
        return pulumi.Output.all(self.value, self.folder).apply(
            lambda known: folder if known[1] is None else f"{folder}/{known[0]}"
        )

    def uuid(self, kind: str, name: str) -> pulumi.Output[str]:
        """UUID of an object of the lab; see `uuid_of`."""
        return self.value.apply(lambda value: uuid_of(value, kind, name))
