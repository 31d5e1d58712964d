"""Gates of Proxmox VE: bridges, guests, and the numbers that guests have.

The provider only knows what it did; these look at the API on every diff, as libvirt's gates do. A
guest that was removed by hand can't be brought back by its gate, and a killed run may leave one that
the state does not know: for both there is the `PveSlot` of its number, which the guest is made after,
and made anew for when the slot says so (``replacement_trigger``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import Resource
from typing_extensions import override

from components.gates import probes
from components.gates.base import Gate, Props
from components.gates.keys import remove_keys, write_keys
from components.remote.pve import Pve, PveError
from components.remote.shell import Unreachable, shell_of
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.remote.pve import Api
    from components.remote.shell import Shell

MARK = "nestlab {owner}"
"""What stands in the description of what is a lab's own."""


class _PveGate(Gate):
    """A gate whose API may refuse, or be silent, while it looks."""

    @override
    def look(self, props: Props) -> Seen:
        try:
            return self.seen(Pve(props["api"]), props)
        except PveError as refused:
            return Seen(ok=False, text=str(refused))

    def seen(self, pve: Pve, props: Props) -> Seen:
        """Look, through ``pve``."""
        raise NotImplementedError

    @override
    def delete(self, _id: str, _props: Props) -> None:
        try:
            self.retire(_props)
        except (Unreachable, PveError) as beyond:
            say(f"{_props['name']}: {beyond}")


class PveNetworkProvider(_PveGate):
    """Makes a Linux bridge on a node, and keeps it up."""

    inputs = ("name", "api", "node", "bridge", "cidr", "owner")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        bridge = props["bridge"]
        found = pve.find(_interface(props))
        if found is None:
            return Seen(ok=False, text=f"bridge {bridge} is not there any more")
        if not props["owner"]:
            return Seen(ok=True, text=f"bridge {bridge} is there")
        if not _is_ours(found.get("comments"), props):
            return Seen(ok=False, text=f"bridge {bridge} is somebody else's")
        if (found.get("cidr") or "") != props["cidr"]:
            return Seen(ok=False, text=f"bridge {bridge} has the address {found.get('cidr')}")
        return self._active(pve, props)

    def _active(self, pve: Pve, props: Props) -> Seen:
        bridge = props["bridge"]
        listed = pve.get(f"nodes/{props['node']}/network", type="any_bridge")
        active = any(each["iface"] == bridge and each.get("active") for each in listed)
        return Seen(ok=active, text=f"bridge {bridge} is {'up' if active else 'down'}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve, bridge = Pve(news["api"]), news["bridge"]
        found = pve.find(_interface(news))
        if not news["owner"]:
            if found is None:
                raise PveError(f"node {news['node']} has no bridge {bridge}, which the stack names")
            return {**news, "network": bridge}
        if found is not None and not _is_ours(found.get("comments"), news):
            raise PveError(
                f"node {news['node']} has a bridge {bridge} that is not this lab's: rename one"
            )
        wanted = {
            "type": "bridge",
            "autostart": 1,
            "comments": MARK.format(owner=news["owner"]),
            **({"cidr": news["cidr"]} if news["cidr"] else {}),
        }
        where = f"nodes/{news['node']}/network"
        if found is None:
            pve.post(where, iface=bridge, **wanted)
        else:
            pve.put(_interface(news), **wanted)
        pve.wait(news["node"], pve.put(where), 60)
        return {**news, "network": bridge}

    @override
    def retire(self, props: Props) -> None:
        pve = Pve(props["api"])
        found = pve.find(_interface(props))
        if props["owner"] and found and _is_ours(found.get("comments"), props):
            pve.delete(_interface(props))
            pve.wait(props["node"], pve.put(f"nodes/{props['node']}/network"), 60)


def _interface(props: Props) -> str:
    return f"nodes/{props['node']}/network/{props['bridge']}"


def _is_ours(text: Any, props: Props) -> bool:
    return MARK.format(owner=props["owner"]) in str(text or "")


class PveNetworkGate(Resource, module="nestlab", name="PveNetworkGate"):
    """A bridge of a node that is up: made here, or, without ``owner``, one that has to be there."""

    network: pulumi.Output[str]
    """Its name, known once it is up."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: str,
        bridge: str,
        cidr: str,
        owner: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "node": node,
            "bridge": bridge,
            "cidr": cidr,
            "owner": owner,
            "network": None,
        }
        super().__init__(PveNetworkProvider(), name, props, opts)


class PveSlotProvider(_PveGate):
    """Keeps the number of a guest: notices that its guest is gone, clears what is nobody's."""

    inputs = ("name", "api", "node", "kind", "vmid", "owner")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        if props.get("left"):
            return Seen(ok=False, text="a run that was killed left it half-made")
        if pve.find(_config(props)) is None:
            return Seen(ok=False, text=f"{_called(props)} is not there any more: it is made anew")
        return Seen(ok=True, text="there")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        config = pve.find(_config(news))
        generation = int(olds.get("generation") or 0)
        if config is None:
            return {**news, "left": False, "generation": generation + 1}
        if not _is_ours(config.get("description"), news):
            raise PveError(
                f"node {news['node']} has a guest {int(news['vmid'])} that is not this lab's "
                f"({config.get('name') or config.get('hostname')}): give it another number"
            )
        if olds and not olds.get("left"):
            return {**news, "left": False, "generation": generation}
        # Made by a run that did not come to write it into the state.
        _remove(pve, news)
        say(f"{news['name']}: removed what a run that did not end left of it")
        return {**news, "left": False, "generation": generation + 1}


def _config(props: Props) -> str:
    return f"nodes/{props['node']}/{props['kind']}/{int(props['vmid'])}/config"


def _called(props: Props) -> str:
    return f"{'container' if props['kind'] == 'lxc' else 'guest'} {int(props['vmid'])}"


def _remove(pve: Pve, props: Props) -> None:
    at = f"nodes/{props['node']}/{props['kind']}/{int(props['vmid'])}"
    if pve.get(f"{at}/status/current").get("status") == "running":
        pve.wait(props["node"], pve.post(f"{at}/status/stop"), 120)
    pve.wait(props["node"], pve.delete(at, purge=1), 120)


class PveSlot(Resource, module="nestlab", name="PveSlot"):
    """The number of a guest on a node."""

    generation: pulumi.Output[int]
    """Another one when the guest has to be made anew."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: str,
        kind: str,
        vmid: int,
        owner: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "node": node,
            "kind": kind,
            "vmid": vmid,
            "owner": owner,
            "left": None,
            "generation": None,
        }
        super().__init__(PveSlotProvider(), name, props, opts)


class PveGuestProvider(_PveGate):
    """Sets what the provider can't, starts a guest, and waits until it is up."""

    inputs = (
        "name",
        "api",
        "node",
        "kind",
        "vmid",
        "instance",
        "config",
        "probe",
        "reach",
        "key_folder",
        "target",
        "deadline_s",
    )
    unasked = ("deadline_s",)

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        seen = self._runs(pve, props)
        if not seen.ok or props["probe"]["kind"] == "tcp":
            return seen  # a service that is being restarted is no reason to start anything
        return probes.glance(props, _Place(shell_of(props["target"])))

    def _runs(self, pve: Pve, props: Props) -> Seen:
        at = f"nodes/{props['node']}/{props['kind']}/{int(props['vmid'])}"
        config = pve.find(f"{at}/config")
        if config is None:
            return Seen(ok=False, text=f"{_called(props)} is not there any more")
        for key, value in props["config"].items():
            if not _same(config.get(key), value):
                return Seen(ok=False, text=f"{_called(props)} has {key}={config.get(key)}")
        state = pve.get(f"{at}/status/current").get("status")
        return Seen(ok=state == "running", text=f"{_called(props)} is {state}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        at = f"nodes/{news['node']}/{news['kind']}/{int(news['vmid'])}"
        config = pve.find(f"{at}/config")
        if config is None:
            raise PveError(f"{_called(news)} is not there: run `pulumi up` again")
        missing = {
            key: value for key, value in news["config"].items() if not _same(config.get(key), value)
        }
        running = pve.get(f"{at}/status/current").get("status") == "running"
        if missing:
            if running:
                # A running guest takes such a change at its next start only.
                pve.wait(news["node"], pve.post(f"{at}/status/stop"), 120)
                running = False
            pve.put(f"{at}/config", **missing)
        if not running:
            pve.wait(news["node"], pve.post(f"{at}/status/start"), float(news["deadline_s"]))
        write_keys(news)
        try:
            seen = wait_for(
                news["name"], lambda: self._up(pve, news), deadline_s=float(news["deadline_s"])
            )
        except NotReady as late:
            look = f"  look at it on {pve.name}: node {news['node']}, {_called(news)}, Console"
            raise NotReady(f"{late}\n{look}") from None
        return {**news, "answers": seen.text}

    def _up(self, pve: Pve, props: Props) -> Seen:
        try:
            seen = self._runs(pve, props)
            return probes.probe(props, _Place(shell_of(props["target"]))) if seen.ok else seen
        except (Unreachable, PveError) as silent:
            return Seen(ok=False, text=str(silent))

    @override
    def retire(self, props: Props) -> None:
        remove_keys(props)


@dataclass(frozen=True)
class _Place:
    """Where a guest is asked from."""

    shell: Shell


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float | int):
        return found is not None and float(found) == float(wanted)
    return bool(found == wanted)


class PveGuestGate(Resource, module="nestlab", name="PveGuestGate"):
    """A guest or container of a node that is up."""

    answers: pulumi.Output[str]
    """What it answered when it was last waited for."""
    reach: pulumi.Output[dict[str, Any]]
    """`Target` of its inside, secret; empty for a guest nobody enters."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: str,
        kind: str,
        vmid: pulumi.Input[int],
        instance: str,
        probe: Mapping[str, Any],
        target: pulumi.Input[Mapping[str, Any]],
        deadline_s: float,
        config: Mapping[str, pulumi.Input[str | int]] | None = None,
        reach: pulumi.Input[Mapping[str, Any]] | None = None,
        key_folder: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "node": node,
            "kind": kind,
            "vmid": vmid,
            "instance": instance,
            "config": dict(config or {}),
            "probe": dict(probe),
            "reach": reach if reach is not None else {},
            "key_folder": key_folder,
            "target": target,
            "deadline_s": deadline_s,
            "answers": None,
        }
        opts = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(additional_secret_outputs=["reach"])
        )
        super().__init__(PveGuestProvider(), name, props, opts)
