"""Gates of Proxmox VE: bridges, guests, and the numbers that guests have.

The provider only knows what it did; these look at the API on every diff, as libvirt's gates do. A
guest that was removed by hand is made again by its gate, from what it was, since the provider would
neither notice nor delete it. A killed run may leave a guest that the state does not know: the `PveSlot`
of its number, which a guest is made after, clears that.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypedDict

import pulumi
from typing_extensions import override

from components.gates import probes
from components.gates.api import MARK, ApiGate, ask, cleared, glance, is_ours, slot_seen
from components.gates.base import BorderResource
from components.gates.keys import remove_keys, write_keys
from components.remote.pve import Api, Pve, PveError
from components.remote.shell import Target, Unreachable
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.gates.base import Props


OWN = {"digest", "meta", "vmgenid", "lock", "parent"}
"""What a node writes into a configuration by itself."""
DISK = re.compile(r"(scsi|virtio|sata|ide|efidisk)\d+|rootfs")
MAKING_S = 600.0
UNSET = {"kvm": 1}
"""What holds for an option that a guest's configuration does not name (qm.conf(5))."""


HOLDER = {"vmid": "vmid", "node": "node", "kind": "type", "name": "name"}
"""Our words for what the cluster lists of a guest."""
HALF_MADE = "half-made: "
"""Stands before the mark of a guest that is being made again, until it is as it was."""


class _PveGate(ApiGate):
    """A gate that looks at a node's API."""

    refusals = (PveError,)

    @override
    def asked(self, props: Props) -> Seen:
        return self.seen(Pve(props["api"]), props)

    def seen(self, pve: Pve, props: Props) -> Seen:
        """Look, through ``pve``."""
        raise NotImplementedError


class _Bridge(TypedDict):
    name: str
    api: Api
    node: str
    bridge: str
    cidr: str
    owner: str
    network: str | None


class PveNetworkProvider(_PveGate):
    """Makes a Linux bridge on a node, and keeps it up."""

    shape = _Bridge
    inputs = ("name", "api", "node", "bridge", "cidr", "owner")
    moves = ("node", "bridge")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        bridge = props["bridge"]
        found = pve.find(_interface(props))
        if found is None:
            return Seen(ok=False, text=f"bridge {bridge} is not there any more")
        if not props["owner"]:
            return Seen(ok=True, text=f"bridge {bridge} is there")
        if not is_ours(found.get("comments"), props):
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
        if found is not None and not is_ours(found.get("comments"), news):
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
        if props["owner"] and found and is_ours(found.get("comments"), props):
            pve.delete(_interface(props))
            pve.wait(props["node"], pve.put(f"nodes/{props['node']}/network"), 60)


def _interface(props: Props) -> str:
    return f"nodes/{props['node']}/network/{props['bridge']}"


class PveNetworkGate(BorderResource, module="nestlab", name="PveNetworkGate"):
    """A bridge of a node that is up: made here, or, without ``owner``, one that has to be there."""

    network: pulumi.Output[str]
    """Its name, known once it is up."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: pulumi.Input[str],
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


class _Storage(TypedDict):
    name: str
    api: Api
    node: str
    storage: str
    content: str
    ours: bool
    takes: str | None


class PveStorageProvider(_PveGate):
    """Sees to it that a storage takes a kind of content."""

    shape = _Storage
    inputs = ("name", "api", "node", "storage", "content", "ours")
    moves = ("node", "storage", "content")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        storage, content = props["storage"], props["content"]
        takes = content in _contents(pve, props)
        return Seen(ok=takes, text=f"storage {storage} takes {'' if takes else 'no '}{content}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve, storage, content = Pve(news["api"]), news["storage"], news["content"]
        has = _contents(pve, news)
        if content not in has:
            if not news["ours"]:
                raise PveError(
                    f"storage {storage} of node {news['node']} does not take content {content}: "
                    f"`pvesm set {storage} --content {','.join([*has, content])}` there"
                )
            pve.put(f"storage/{storage}", content=",".join([*has, content]))
        return {**news, "takes": content}


def _contents(pve: Pve, props: Props) -> list[str]:
    told = pve.get(f"nodes/{props['node']}/storage/{props['storage']}/status").get("content")
    return [each for each in str(told or "").split(",") if each]


class PveStorage(BorderResource, module="nestlab", name="PveStorage"):
    """A storage of a node that takes ``content``: made so where the node is ``ours``, else it has to.

    ``local`` takes no disk images (``import``) where it was made by an installer before 9.0.7.
    """

    takes: pulumi.Output[str]
    """The content, known once it is taken."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: pulumi.Input[str],
        storage: str,
        content: str,
        ours: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "node": node,
            "storage": storage,
            "content": content,
            "ours": ours,
            "takes": None,
        }
        super().__init__(PveStorageProvider(), name, props, opts)


class _Slot(TypedDict):
    name: str
    api: Api
    node: str
    kind: str
    vmid: int
    owner: str
    left: bool | None


class PveSlotProvider(_PveGate):
    """Keeps the number of a guest from others, and clears what a killed run left there."""

    shape = _Slot
    inputs = ("name", "api", "node", "kind", "vmid", "owner")
    moves = ("node", "kind", "vmid")

    @override
    def look(self, props: Props) -> Seen:
        return slot_seen(props)

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        found = _holder(pve, news)
        if found is None:
            return {**news, "left": False}
        config = pve.find(_config(found)) or {}
        if not is_ours(config.get("description"), news):
            raise PveError(
                f"node {found['node']} has a guest {news['vmid']} that is not this lab's "
                f"({found.get('name')}): give it another number"
            )
        # One on another node is the lab's own, and goes once the one that is made here has its place.
        if found["node"] == news["node"] and (not olds or olds.get("left")):
            # Made by a run that did not come to write it into the state.
            _remove(pve, found)
            cleared(news)
        return {**news, "left": False}

    @override
    def retire(self, props: Props) -> None:
        # By now the provider has deleted the guest it knew of; what is there was half-made.
        pve = Pve(props["api"])
        config = pve.find(_config(props))
        if config is not None and is_ours(config.get("description"), props):
            _remove(pve, props)
            cleared(props)


def _holder(pve: Pve, props: Props) -> Props | None:
    """Return who has the number in the whole cluster, as properties of a gate; None for nobody."""
    for each in pve.get("cluster/resources", type="vm"):
        if each["vmid"] == props["vmid"]:
            return {key: each.get(word) for key, word in HOLDER.items()}
    return None


def _at(props: Props) -> str:
    return f"nodes/{props['node']}/{props['kind']}/{props['vmid']}"


def _config(props: Props) -> str:
    return f"{_at(props)}/config"


def _called(props: Props) -> str:
    return f"{'container' if props['kind'] == 'lxc' else 'guest'} {props['vmid']}"


def _remove(pve: Pve, props: Props) -> None:
    at = _at(props)
    if pve.get(f"{at}/status/current").get("status") == "running":
        pve.wait(props["node"], pve.post(f"{at}/status/stop"), 120)
    pve.wait(props["node"], pve.delete(at, purge=1), 120)


class PveSlot(BorderResource, module="nestlab", name="PveSlot"):
    """The number of a guest on a node."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: pulumi.Input[str],
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


class _Again(TypedDict, total=False):
    image: str
    template: str
    clone: int
    linked: bool


class _Guest(TypedDict):
    name: str
    api: Api
    node: str
    kind: str
    vmid: int
    instance: str
    config: dict[str, str | int]
    probe: probes.Probe
    again: _Again
    reach: Target
    key_folder: str
    target: Target
    deadline_s: float
    answers: str | None
    definition: dict[str, str] | None


class PveGuestProvider(_PveGate):
    """Sets what the provider can't, starts a guest, and waits until it is up."""

    shape = _Guest
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
    moves = ("node", "kind", "vmid")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        seen = self._runs(pve, props)
        return glance(props, seen)

    def _runs(self, pve: Pve, props: Props) -> Seen:
        at = _at(props)
        config = pve.find(f"{at}/config")
        if config is None:
            if elsewhere := _moved(pve, props):
                return Seen(ok=False, text=elsewhere)
            text = f"{_called(props)} is not there any more, and what was on its disk is lost"
            return Seen(ok=False, text=text)
        if _is_half_made(config):
            return Seen(ok=False, text=f"{_called(props)} is half-made")
        for key, value in _lacking(config, props).items():
            return Seen(ok=False, text=f"{_called(props)} does not have {key}={value}")
        state = pve.get(f"{at}/status/current").get("status")
        return Seen(ok=state == "running", text=f"{_called(props)} is {state}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        at = _at(news)
        config = pve.find(f"{at}/config")
        if config is not None and _is_half_made(config) and olds.get("definition"):
            _remove(pve, news)
            config = None
        if config is None:
            if elsewhere := _moved(pve, news):
                raise PveError(elsewhere)
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
            pve.wait(news["node"], pve.post(f"{at}/status/start"), news["deadline_s"])
        write_keys(news)
        try:
            seen = wait_for(
                news["name"], lambda: self._up(pve, news), deadline_s=news["deadline_s"]
            )
        except NotReady as late:
            look = f"  look at it on {pve.name}: node {news['node']}, {_called(news)}, Console"
            raise NotReady(f"{late}\n{look}") from None
        return {**news, "answers": seen.text, "definition": _definition(pve.get(f"{at}/config"))}

    def _up(self, pve: Pve, props: Props) -> Seen:
        try:
            seen = self._runs(pve, props)
            return ask(props) if seen.ok else seen
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


def _moved(pve: Pve, props: Props) -> str:
    """Return what to say of a guest that somebody migrated; empty for one that is nowhere."""
    found = _holder(pve, props)
    if found is None or found["node"] == props["node"]:
        return ""
    tool = "pct" if props["kind"] == "lxc" else "qm"
    back = f"`{tool} migrate {props['vmid']} {props['node']}` on {found['node']} brings it back"
    return f"{_called(props)} is on node {found['node']} by now; {back}"


def _is_half_made(config: Props) -> bool:
    return str(config.get("description") or "").startswith(HALF_MADE)


def _definition(config: Props) -> dict[str, str]:
    """Return what makes a guest again, of its configuration: what is its node's own is left out.

    As texts: the engine would hand whole numbers over as floats, which the API takes for neither
    integers nor booleans.
    """
    # Descriptions come back with a line break more than they were given.
    return {key: str(value).rstrip("\n") for key, value in config.items() if key not in OWN}


def _is_template(config: Props) -> bool:
    return str(config.get("template", 0)) == "1"


def _again(pve: Pve, props: Props) -> None:
    """Make a guest as it was: its disks are allocated anew, of the size they had.

    Until it is complete its description says that it is not, and who looks at it makes it anew.
    """
    definition = dict(props["definition"])
    whole = definition.pop("description", "")
    template = _is_template(definition)
    if template:
        del definition["template"]
    make = _cloned if props["again"].get("clone") else _created
    grown = make(pve, props, definition, f"{HALF_MADE}{whole}")
    node = props["node"]
    at = _at(props)
    for disk, size in grown.items():
        pve.wait(node, pve.put(f"{at}/resize", disk=disk, size=size), MAKING_S)
    if template:
        pve.wait(node, pve.post(f"{at}/template"), MAKING_S)
    pve.put(f"{at}/config", **({"description": whole} if whole else {"delete": "description"}))


def _created(pve: Pve, props: Props, definition: Mapping[str, str], half: str) -> dict[str, str]:
    """Make a guest with new disks; return to what which of them are to be grown."""
    told: dict[str, str] = {}
    grown: dict[str, str] = {}
    for key, value in definition.items():
        told[key] = value
        if _is_disk(key, value):
            told[key], size = _allocated(value, props["again"].get("image", ""))
            grown |= {key: size} if size else {}
    if props["again"].get("template"):
        told["ostemplate"] = props["again"]["template"]
    node, vmid = props["node"], props["vmid"]
    task = pve.post(f"nodes/{node}/{props['kind']}", vmid=vmid, description=half, **told)
    pve.wait(node, task, MAKING_S)
    return grown


def _cloned(pve: Pve, props: Props, definition: Mapping[str, str], half: str) -> dict[str, str]:
    """Clone a guest and set it as it was; return to what which disks are to be grown."""
    node, vmid, again = props["node"], props["vmid"], props["again"]
    at = f"nodes/{node}/qemu"
    named = {"name": definition["name"]} if "name" in definition else {}
    full = 0 if again.get("linked") else 1
    source = again["clone"]
    task = pve.post(f"{at}/{source}/clone", newid=vmid, full=full, description=half, **named)
    pve.wait(node, task, MAKING_S)
    there = pve.get(f"{at}/{vmid}/config")
    told: dict[str, str] = {}
    grown: dict[str, str] = {}
    for key, value in definition.items():
        if _is_disk(key, value) and key in there:
            grown[key] = _option(value, "size")
        else:
            told[key] = _allocated(value, "")[0] if _is_disk(key, value) else value
    if rest := ",".join(sorted(set(there) - OWN - set(definition) - {"description"})):
        told["delete"] = rest
    pve.wait(node, pve.post(f"{at}/{vmid}/config", **told), MAKING_S)
    return grown


def _is_disk(key: str, value: str) -> bool:
    return bool(DISK.fullmatch(key)) and "media=cdrom" not in value


def _allocated(value: str, image: str) -> tuple[str, str]:
    """Return a drive in the words that allocate it anew, and to what it is to be grown then."""
    storage, _, rest = value.partition(":")
    options = dict(each.partition("=")[::2] for each in rest.split(",")[1:])
    size = options.pop("size", "1G")
    first = str(_gib(size))
    if image:
        # A disk made of an image is as large as the image, and grown then.
        first, options["import-from"] = "0", image
    fresh = [f"{storage}:{first}", *(f"{name}={option}" for name, option in options.items())]
    return ",".join(fresh), size if image else ""


def _option(value: str, name: str) -> str:
    return dict(each.partition("=")[::2] for each in value.split(",")[1:])[name]


def _gib(size: str) -> int:
    number, unit = float(size[:-1]), size[-1]
    return max(1, math.ceil(number * {"M": 1 / 1024, "G": 1, "T": 1024}.get(unit, 1)))


def _lacking(config: Props, props: Props) -> Props:
    """Return what the guest is to be set to and is not, in the API's words."""
    return {
        key: value
        for key, value in props["config"].items()
        if not _holds(str(config.get(key, UNSET.get(key))), str(value))
    }


def _holds(found: str, wanted: str) -> bool:
    """Whether an option is as wanted: a node adds what it knows of a drive, such as its size."""
    return found == wanted or ("," in wanted and set(wanted.split(",")) <= set(found.split(",")))


class _Template(TypedDict):
    name: str
    api: Api
    node: str
    kind: str
    vmid: int
    again: _Again
    instance: str
    definition: dict[str, str] | None


class PveTemplateProvider(_PveGate):
    """Keeps a template that guests are cloned from."""

    shape = _Template
    inputs = ("name", "api", "node", "kind", "vmid", "again", "instance")
    moves = ("node", "vmid")

    @override
    def seen(self, pve: Pve, props: Props) -> Seen:
        config = pve.find(_config(props))
        if config is None:
            return Seen(ok=False, text=f"template {props['vmid']} is not there any more")
        whole = _is_template(config) and not _is_half_made(config)
        text = f"template {props['vmid']} is {'there' if whole else 'half-made'}"
        return Seen(ok=whole, text=text)

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        pve = Pve(news["api"])
        if not self.seen(pve, news).ok:
            if not olds.get("definition"):
                raise PveError(f"template {news['vmid']} was removed while it was being made")
            if pve.find(_config(news)) is not None:
                _remove(pve, news)
            _again(pve, olds)
            say(f"{news['name']}: made again")
        return {**news, "definition": _definition(pve.get(_config(news)))}

    @override
    def retire(self, props: Props) -> None:
        pve = Pve(props["api"])
        if pve.find(_config(props)) is None and props.get("definition"):
            # The provider refuses to delete what is not there.
            _again(pve, props)


class PveTemplate(BorderResource, module="nestlab", name="PveTemplate"):
    """A template of a node that is there; ``image`` is the volume that its disk was made from."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        node: pulumi.Input[str],
        vmid: pulumi.Input[int],
        image: pulumi.Input[str],
        instance: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "node": node,
            "kind": "qemu",
            "vmid": vmid,
            "again": {"image": image},
            "instance": instance,
            "definition": None,
        }
        super().__init__(PveTemplateProvider(), name, props, opts)


class PveGuestGate(BorderResource, module="nestlab", name="PveGuestGate"):
    """A guest or container of a node that is up.

    ``config`` is what the provider can't set; ``again`` what it would be made from again: ``image``, a
    disk image; ``template``, of a container; or ``clone``, the number of a template, ``linked`` or not.
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
        node: pulumi.Input[str],
        kind: str,
        vmid: pulumi.Input[int],
        instance: str,
        probe: Mapping[str, Any],
        target: pulumi.Input[Mapping[str, Any]],
        deadline_s: float,
        config: Mapping[str, pulumi.Input[str | int]] | None = None,
        again: Mapping[str, pulumi.Input[str | int | bool]] | None = None,
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
