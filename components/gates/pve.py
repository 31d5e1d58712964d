"""Gates of Proxmox VE: bridges, guests, and the numbers that guests have.

The provider only knows what it did; these look at the API on every diff, as libvirt's gates do. A
guest that was removed by hand is made again by its gate, from what it was, since the provider would
neither notice nor delete it. A killed run may leave a guest that the state does not know: the `PveSlot`
of its number, which a guest is made after, clears that.
"""

from __future__ import annotations

import math
import re
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


OWN = {"digest", "meta", "vmgenid", "lock", "parent"}
"""What a node writes into a configuration by itself."""
DISK = re.compile(r"(scsi|virtio|sata|ide|efidisk)\d+|rootfs")
MAKING_S = 600.0
UNSET = {"kvm": 1}
"""What holds for an option that a guest's configuration does not name (qm.conf(5))."""


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
    """Keeps the number of a guest from others, and clears what a killed run left there."""

    inputs = ("name", "api", "node", "kind", "vmid", "owner")

    @override
    def look(self, props: Props) -> Seen:
        # Set by whoever puts the state right after a killed run (toolchain.recover).
        return Seen(ok=not props.get("left"), text="a run that was killed left it half-made")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        config = pve.find(_config(news))
        if config is not None and not _is_ours(config.get("description"), news):
            raise PveError(
                f"node {news['node']} has a guest {int(news['vmid'])} that is not this lab's "
                f"({config.get('name') or config.get('hostname')}): give it another number"
            )
        if config is not None and (not olds or olds.get("left")):
            # Made by a run that did not come to write it into the state.
            _remove(pve, news)
            say(f"{news['name']}: removed what a run that did not end left of it")
        return {**news, "left": False}


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
        "again",
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
            text = f"{_called(props)} is not there any more, and what was on its disk is lost"
            return Seen(ok=False, text=text)
        for key, value in _lacking(config, props).items():
            return Seen(ok=False, text=f"{_called(props)} does not have {key}={value}")
        state = pve.get(f"{at}/status/current").get("status")
        return Seen(ok=state == "running", text=f"{_called(props)} is {state}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        at = f"nodes/{news['node']}/{news['kind']}/{int(news['vmid'])}"
        config = pve.find(f"{at}/config")
        if config is None:
            if not olds.get("definition"):
                raise PveError(f"{_called(news)} was removed while it was being made")
            _again(pve, olds)
            say(f"{news['name']}: made again, with an empty disk or that of its image")
            config = pve.get(f"{at}/config")
        missing = _lacking(config, news)
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
        return {**news, "answers": seen.text, "definition": _definition(pve.get(f"{at}/config"))}

    def _up(self, pve: Pve, props: Props) -> Seen:
        try:
            seen = self._runs(pve, props)
            return probes.probe(props, _Place(shell_of(props["target"]))) if seen.ok else seen
        except (Unreachable, PveError) as silent:
            return Seen(ok=False, text=str(silent))

    @override
    def retire(self, props: Props) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props)
        pve = Pve(props["api"])
        if pve.find(_config(props)) is None and props.get("definition"):
            # The provider refuses to delete what is not there.
            _again(pve, props)


def _definition(config: Props) -> dict[str, str]:
    """Return what makes a guest again, of its configuration: what is its node's own is left out.

    As texts: the engine would hand whole numbers over as floats, which the API takes for neither
    integers nor booleans.
    """
    # Descriptions come back with a line break more than they were given.
    return {key: str(value).rstrip("\n") for key, value in config.items() if key not in OWN}


def _again(pve: Pve, props: Props) -> None:
    """Make a guest as it was: its disks are allocated anew, of the size they had."""
    again, definition = props["again"], props["definition"]
    made = dict(definition)
    grown = {}
    for key, value in definition.items():
        if not DISK.fullmatch(key) or "media=cdrom" in value:
            continue
        storage, _, rest = value.partition(":")
        options = dict(each.partition("=")[::2] for each in rest.split(",")[1:])
        size = options.pop("size", "1G")
        first = str(_gib(size))
        if again.get("image"):
            # A disk made of an image is as large as the image, and grown then.
            first, options["import-from"] = "0", again["image"]
            grown[key] = size
        made[key] = ",".join(
            [f"{storage}:{first}", *(f"{name}={option}" for name, option in options.items())]
        )
    if again.get("template"):
        made["ostemplate"] = again["template"]
    node, vmid = props["node"], int(props["vmid"])
    at = f"nodes/{node}/{props['kind']}"
    pve.wait(node, pve.post(at, vmid=vmid, **made), MAKING_S)
    for disk, size in grown.items():
        pve.wait(node, pve.put(f"{at}/{vmid}/resize", disk=disk, size=size), MAKING_S)


def _gib(size: str) -> int:
    number, unit = float(size[:-1]), size[-1]
    return max(1, math.ceil(number * {"M": 1 / 1024, "G": 1, "T": 1024}.get(unit, 1)))


@dataclass(frozen=True)
class _Place:
    """Where a guest is asked from."""

    shell: Shell


def _lacking(config: Props, props: Props) -> Props:
    """Return what the guest is to be set to and is not, in the API's words."""
    # The engine hands over whole numbers as floats.
    wanted = {
        key: int(value) if isinstance(value, float) else value
        for key, value in props["config"].items()
    }
    return {
        key: value
        for key, value in wanted.items()
        if str(config.get(key, UNSET.get(key))) != str(value)
    }


class PveGuestGate(Resource, module="nestlab", name="PveGuestGate"):
    """A guest or container of a node that is up.

    ``config`` is what the provider can't set; ``again`` the image or template that it would be made from
    again.
    """

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
        again: Mapping[str, pulumi.Input[str]] | None = None,
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
            "again": dict(again or {}),
            "reach": reach if reach is not None else {},
            "key_folder": key_folder,
            "target": target,
            "deadline_s": deadline_s,
            "answers": None,
            "definition": None,
        }
        opts = pulumi.ResourceOptions.merge(
            opts, pulumi.ResourceOptions(additional_secret_outputs=["reach"])
        )
        super().__init__(PveGuestProvider(), name, props, opts)
