"""Gates of vSphere: the node a lab stands on, its switches and port groups, guests and their names.

The provider only knows what it did, and of power nothing at all; these look on every diff. Switches
and port groups are made here and not by the provider, which fails on `refresh` and `destroy` once one
was removed by hand. A guest that was removed is made again with the UUID by which the provider knows it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypedDict

import pulumi
from typing_extensions import override

from components.gates import probes
from components.gates.api import ApiGate, ask, cleared, glance, is_ours, slot_seen
from components.gates.base import BorderResource
from components.gates.keys import remove_keys, write_keys
from components.remote import vsphere_hardware as hardware
from components.remote.shell import Target, Unreachable
from components.remote.vsphere import Api, Vsphere, VsphereError, sdk
from components.remote.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.gates.base import Props

PORTS = 128
"""Of a standard switch, which ESXi widens by itself."""


class _VsphereGate(ApiGate):
    """A gate that looks at a vCenter."""

    refusals = (VsphereError,)

    @override
    def asked(self, props: Props) -> Seen:
        with Vsphere(props["api"]) as vcenter:
            return self.seen(vcenter, props)

    def seen(self, vcenter: Vsphere, props: Props) -> Seen:
        """Look, through ``vcenter``."""
        raise NotImplementedError


class _Node(TypedDict):
    name: str
    api: Api
    server: str
    datacenter: str
    node: str
    datastore: str
    host: str | None
    pool: str | None
    store: str | None
    endpoint: str | None


class VsphereNodeProvider(_VsphereGate):
    """Looks up the ids of a host and its datastore, by which the provider takes them."""

    shape = _Node
    inputs = ("name", "api", "server", "datacenter", "node", "datastore")
    moves = ("server", "datacenter", "node", "datastore")

    @override
    def seen(self, vcenter: Vsphere, props: Props) -> Seen:
        same = _ids(vcenter, props) == {key: props.get(key) for key in ("host", "pool", "store")}
        text = f"host {props['node']} is {'there' if same else 'another one than it was'}"
        return Seen(ok=same, text=text)

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        with Vsphere(news["api"]) as vcenter:
            return {**news, **_ids(vcenter, news), "endpoint": news["server"]}


def _ids(vcenter: Vsphere, props: Props) -> dict[str, str]:
    found = vcenter.node(props["datacenter"], props["node"], props["datastore"])
    return {"host": found.host, "pool": found.pool, "store": found.store}


class VsphereNode(BorderResource, module="nestlab", name="VsphereNode"):
    """One host that is there. Who is replaced with it is made anew when the lab moves to another."""

    host: pulumi.Output[str]
    pool: pulumi.Output[str]
    store: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    """The vCenter, known once it has answered: a provider with a known one connects in preview too."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        server: str,
        datacenter: str,
        node: pulumi.Input[str],
        datastore: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "server": server,
            "datacenter": datacenter,
            "node": node,
            "datastore": datastore,
            "host": None,
            "pool": None,
            "store": None,
            "endpoint": None,
        }
        super().__init__(VsphereNodeProvider(), name, props, opts)


POLICY = {
    "allowPromiscuous": "allowPromiscuous",
    "allowForgedTransmits": "forgedTransmits",
    "allowMacChanges": "macChanges",
}
"""What machines on a port group may do, in the provider's words, which policies read, and the API's."""


class _Network(TypedDict):
    name: str
    api: Api
    datacenter: str
    host: str
    group: str
    switch: str
    own: bool
    allowPromiscuous: bool
    allowForgedTransmits: bool
    allowMacChanges: bool
    network: str | None
    network_id: str | None


class VsphereNetworkProvider(_VsphereGate):
    """Makes a port group, and a switch without network cards where it is to have its own."""

    shape = _Network
    inputs = ("name", "api", "datacenter", "host", "group", "switch", "own", *POLICY)
    moves = ("host", "group")

    @override
    def seen(self, vcenter: Vsphere, props: Props) -> Seen:
        info = _network_info(vcenter, props)
        switch, group = _found(info, props)
        if switch is None:
            return Seen(ok=False, text=f"switch {props['switch']} is not there any more")
        if props["own"] and switch.pnic:
            return Seen(ok=False, text=f"switch {props['switch']} has got an uplink")
        if group is None:
            return Seen(ok=False, text=f"port group {props['group']} is not there any more")
        return self._is_as_wanted(group.spec, props)

    def _is_as_wanted(self, spec: Any, props: Props) -> Seen:
        called = f"port group {props['group']}"
        if spec.vswitchName != props["switch"]:
            return Seen(ok=False, text=f"{called} is on {spec.vswitchName}")
        if spec.vlanId:
            return Seen(ok=False, text=f"{called} is in VLAN {spec.vlanId}")
        security = spec.policy.security if spec.policy else None
        for word, theirs in POLICY.items():
            if bool(getattr(security, theirs, None)) != props[word]:
                now = "may not" if props[word] else "may"
                return Seen(ok=False, text=f"{called}: its machines {now} ({word})")
        return Seen(ok=True, text=f"{called} is there")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        vim = sdk().vim

        with Vsphere(news["api"]) as vcenter:
            system, info = vcenter.networks(news["host"]), _network_info(vcenter, news)
            switch, group = _found(info, news)
            with vcenter.told():
                if switch is None or (news["own"] and switch.pnic):
                    self._switch(system, info, news, there=switch is not None)
                spec = vim.host.PortGroup.Specification(
                    name=news["group"],
                    vlanId=0,
                    vswitchName=news["switch"],
                    policy=vim.host.NetworkPolicy(
                        security=vim.host.NetworkPolicy.SecurityPolicy(
                            **{theirs: news[word] for word, theirs in POLICY.items()}
                        )
                    ),
                )
                if group is None:
                    system.AddPortGroup(spec)
                elif not self._is_as_wanted(group.spec, news).ok:
                    system.UpdatePortGroup(news["group"], spec)
            return {
                **news,
                "network": news["group"],
                "network_id": vcenter.network_id(news["datacenter"], news["group"]),
            }

    def _switch(self, system: Any, info: Any, props: Props, *, there: bool) -> None:
        vim = sdk().vim

        if not props["own"]:
            known = ", ".join(each.name for each in info.vswitch) or "none"
            raise VsphereError(
                f"the host has no switch {props['switch']}, which the stack names; there is {known}"
            )
        spec = vim.host.VirtualSwitch.Specification(numPorts=PORTS)
        if there:
            # Without its bridge a switch has no network cards.
            system.UpdateVirtualSwitch(props["switch"], spec)
        else:
            system.AddVirtualSwitch(props["switch"], spec)

    @override
    def retire(self, props: Props) -> None:
        with Vsphere(props["api"]) as vcenter:
            system, info = vcenter.networks(props["host"]), _network_info(vcenter, props)
            switch, group = _found(info, props)
            with vcenter.told():
                if group is not None:
                    system.RemovePortGroup(props["group"])
                if switch is not None and props["own"]:
                    system.RemoveVirtualSwitch(props["switch"])


def _network_info(vcenter: Vsphere, props: Props) -> Any:
    system = vcenter.networks(props["host"])
    with vcenter.told():
        return system.networkInfo


def _found(info: Any, props: Props) -> tuple[Any, Any]:
    """Return the switch and the port group of a gate; None for what is not there."""
    switch = next((each for each in info.vswitch if each.name == props["switch"]), None)
    group = next((each for each in info.portgroup if each.spec.name == props["group"]), None)
    return switch, group


class VsphereNetworkGate(BorderResource, module="nestlab", name="VsphereNetworkGate"):
    """A port group of a host that is there: on a switch of its ``own``, or on one that has to be there.

    Its name has digits that only this lab knows, so what is called so is the lab's own.
    """

    network: pulumi.Output[str]
    """Its name, known once it is there."""
    network_id: pulumi.Output[str]
    """The id by which the provider takes it."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        datacenter: str,
        host: pulumi.Input[str],
        group: pulumi.Input[str],
        switch: pulumi.Input[str],
        own: bool,
        spoofing: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "datacenter": datacenter,
            "host": host,
            "group": group,
            "switch": switch,
            "own": own,
            **dict.fromkeys(POLICY, spoofing),
            "network": None,
            "network_id": None,
        }
        super().__init__(VsphereNetworkProvider(), name, props, opts)


class _Slot(TypedDict):
    name: str
    api: Api
    server: str
    datacenter: str
    called: str
    owner: str
    left: bool | None


class VsphereSlotProvider(_VsphereGate):
    """Keeps the name of a guest from others, and clears what a killed run left there."""

    shape = _Slot
    inputs = ("name", "api", "server", "datacenter", "called", "owner")
    moves = ("server", "datacenter", "called")

    @override
    def look(self, props: Props) -> Seen:
        return slot_seen(props)

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        with Vsphere(news["api"]) as vcenter:
            found = vcenter.by_name(news["datacenter"], news["called"])
            if found is not None:
                if not _is_ours(vcenter, found, news):
                    raise VsphereError(
                        f"{news['datacenter']} has a guest {news['called']} that is not this lab's: "
                        "rename one"
                    )
                if not olds or olds.get("left"):
                    # Made by a run that did not come to write it into the state.
                    vcenter.remove(found)
                    cleared(news)
        return {**news, "left": False}

    @override
    def retire(self, props: Props) -> None:
        # By now the provider has deleted the guest it knew of; what is there was half-made.
        with Vsphere(props["api"]) as vcenter:
            found = vcenter.by_name(props["datacenter"], props["called"])
            if found is not None and _is_ours(vcenter, found, props):
                vcenter.remove(found)
                cleared(props)


def _is_ours(vcenter: Vsphere, machine: Any, props: Props) -> bool:
    # A machine that is just being made by somebody has none.
    note = vcenter.read(machine, "config.annotation").get("config.annotation")
    return is_ours(note, props)


class VsphereSlot(BorderResource, module="nestlab", name="VsphereSlot"):
    """The name of a guest in a datacenter's folder of machines."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        server: str,
        datacenter: str,
        called: str,
        owner: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "server": server,
            "datacenter": datacenter,
            "called": called,
            "owner": owner,
            "left": None,
        }
        super().__init__(VsphereSlotProvider(), name, props, opts)


class _Guest(TypedDict):
    name: str
    api: Api
    datacenter: str
    host: str
    pool: str
    store: str
    uuid: str
    called: str
    layer: int
    instance: str
    wanted: hardware.Wanted
    probe: probes.Probe
    reach: Target
    key_folder: str
    target: Target
    deadline_s: float
    answers: str | None
    definition: str | None


class VsphereGuestProvider(_VsphereGate):
    """Sets what the provider can't, starts a guest, and waits until it is up."""

    shape = _Guest
    inputs = (
        "name",
        "api",
        "datacenter",
        "host",
        "pool",
        "store",
        "uuid",
        "called",
        "layer",
        "instance",
        "wanted",
        "probe",
        "reach",
        "key_folder",
        "target",
        "deadline_s",
    )
    unasked = ("deadline_s",)

    @override
    def seen(self, vcenter: Vsphere, props: Props) -> Seen:
        seen = self._runs(vcenter, props)
        return glance(props, seen)

    def _runs(self, vcenter: Vsphere, props: Props) -> Seen:
        called = f"guest {props['called']}"
        machine = vcenter.by_uuid(props["uuid"])
        if machine is None:
            text = f"{called} is not there any more, and what was on its disk is lost"
            return Seen(ok=False, text=text)
        config, state = _told(vcenter, machine)
        if state != "poweredOn":
            return Seen(ok=False, text=f"{called} is {STATES.get(state, state)}")
        wrong = hardware.differences(config, props["wanted"])
        return Seen(ok=not wrong, text=f"{called} {', '.join(wrong) or 'runs'}")

    @override
    def mend(self, olds: Props, news: Props) -> Props:
        with Vsphere(news["api"]) as vcenter:
            machine = vcenter.by_uuid(news["uuid"])
            if machine is None:
                if not olds.get("definition") or olds["uuid"] != news["uuid"]:
                    raise VsphereError(
                        f"guest {news['called']} was removed while it was being made"
                    )
                again = hardware.again(olds["definition"])
                machine = vcenter.create(news["datacenter"], again, news["pool"], news["host"])
                say(f"{news['name']}: made again, with an empty disk")
            config, state = _told(vcenter, machine)
            if hardware.differences(config, news["wanted"]):
                hot = hardware.while_it_runs(config, news["wanted"])
                if state != "poweredOff" and not (hot and state == "poweredOn"):
                    vcenter.power_off(machine)
                    state = "poweredOff"
                store = vcenter.store(news["store"])
                vcenter.reconfigure(machine, hardware.correction(config, news["wanted"], store))
                config, _ = _told(vcenter, machine)
            if state != "poweredOn":
                vcenter.power_on(machine, news["deadline_s"])
            definition = hardware.definition(config)
        write_keys(news)
        return {**news, "answers": self._wait(news).text, "definition": definition}

    def _wait(self, props: Props) -> Seen:
        with ExitStack() as sessions:
            open_: list[Vsphere] = []

            def up() -> Seen:
                try:
                    if not open_:
                        open_.append(sessions.enter_context(Vsphere(props["api"])))
                    seen = self._runs(open_[0], props)
                    return ask(props) if seen.ok else seen
                except (Unreachable, VsphereError) as silent:
                    # The next look logs in anew: a vCenter that was restarted knows no session.
                    open_.clear()
                    return Seen(ok=False, text=str(silent))

            try:
                return wait_for(props["name"], up, deadline_s=props["deadline_s"])
            except NotReady as late:
                where = f"layer {props['layer']}, guest {props['called']}"
                look = f"https://{props['api']['server']}/ui, Launch Web Console"
                raise NotReady(f"{late}\n  look at it ({where}): {look}") from None

    @override
    def retire(self, props: Props) -> None:
        # First: they must not stay when the place does not answer.
        remove_keys(props)
        with Vsphere(props["api"]) as vcenter:
            if props.get("definition") and vcenter.by_uuid(props["uuid"]) is None:
                # The provider refuses to delete what is not there.
                shell = hardware.shell(props["definition"])
                vcenter.create(props["datacenter"], shell, props["pool"], props["host"])


STATES = {"poweredOff": "off", "suspended": "suspended"}


def _told(vcenter: Vsphere, machine: Any) -> tuple[Any, str]:
    """Return a machine's configuration and power state.

    Raises:
        VsphereError: it is there, but its host can't say.
    """
    told = vcenter.read(machine, "name", "config", "runtime.powerState", "runtime.connectionState")
    if "config" not in told:
        raise VsphereError(f"{told['name']} is {told['runtime.connectionState']}")
    return told["config"], str(told["runtime.powerState"])


class VsphereGuestGate(BorderResource, module="nestlab", name="VsphereGuestGate"):
    """A guest that is up; ``uuid`` is how the provider knows it, ``wanted`` see `vsphere_hardware`."""

    answers: pulumi.Output[str]
    """What it answered when it was last waited for."""
    reach: pulumi.Output[dict[str, Any]]
    """`Target` of its inside, secret; empty for a guest nobody enters."""

    def __init__(
        self,
        name: str,
        *,
        api: pulumi.Input[Api],
        datacenter: str,
        node: VsphereNode,
        uuid: pulumi.Input[str],
        called: str,
        layer: int,
        instance: str,
        memory_mib: int,
        cores: int,
        nics: Sequence[Mapping[str, pulumi.Input[str]]],
        cds: Sequence[pulumi.Input[str]],
        boot: Sequence[str],
        probe: Mapping[str, Any],
        target: pulumi.Input[Mapping[str, Any]],
        deadline_s: float,
        reach: pulumi.Input[Mapping[str, Any]] | None = None,
        key_folder: str = "",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "name": name,
            "api": api,
            "datacenter": datacenter,
            "host": node.host,
            "pool": node.pool,
            "store": node.store,
            "uuid": uuid,
            "called": called,
            "layer": layer,
            "instance": instance,
            "wanted": {
                "memory_mib": memory_mib,
                "cores": cores,
                "nics": [dict(each) for each in nics],
                "cds": list(cds),
                "boot": list(boot),
            },
            "probe": dict(probe),
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
        super().__init__(VsphereGuestProvider(), name, props, opts)
