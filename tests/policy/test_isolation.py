"""isolation, overlaps, shared-objects: a failure here lets one lab meet another, or the school."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.kinds.kvm.model import KIND
from components.stackfile import load, plan
from components.stackfile.places import UPLINK
from tests.policy.judging import (
    CONTAINER,
    DOMAIN,
    HYPERVISOR,
    NET,
    NETWORK,
    POOL,
    PORT_GROUP,
    PROVIDER,
    PROXMOX,
    UNKNOWN,
    VOLUME,
    VSPHERE,
    Res,
    attribute,
    judge,
    lab,
    machine,
    sheet,
    stack_config,
)

BRIDGE = "proxmoxve:network/linux/bridgeLegacy:BridgeLegacy"
SWITCH = "vsphere:index/hostVirtualSwitch:HostVirtualSwitch"
PROXMOX_CT = "proxmoxve:index/containerLegacy:ContainerLegacy"
PROXMOX_GATE = "pulumi-python:dynamic/nestlab:PveNetworkGate"
VSPHERE_GATE = "pulumi-python:dynamic/nestlab:VsphereNetworkGate"
DIRECT = (
    '<xsl:template match="/domain/devices/interface"><interface type="direct">'
    '<source dev="eno1" mode="bridge"/></interface></xsl:template>'
)
FORWARD = '<xsl:template match="/network/forward"><forward mode="bridge"/><bridge name="br0"/></xsl:template>'


VLAN = {"nic": "eno1", "vlan": 7}


def net(logical: str, provider: Res = PROVIDER, **props: Any) -> Res:
    return Res(NETWORK, logical, {"name": logical, "mode": "nat"} | props, provider=provider)


def driven(mode: str, bridge: str = "", kind: str = "esxi") -> Res:
    """A network that a nested host's own commands make."""
    wanted = {"name": "out", "mode": mode, "bridge": bridge}
    return Res(CONTAINER, "h-out-network", {"driver": f"{kind}.network", "wanted": wanted})


def on_proxmox(bridge: str = "vmbr0", owner: str = "", cidr: str = "") -> Res:
    props = {"bridge": bridge, "owner": owner, "cidr": cidr, "node": "pve1"}
    return Res(PROXMOX_GATE, "h-out-gate", props)


def on_vsphere(switch: str = "vSwitch0", *, own: bool = False) -> Res:
    return Res(VSPHERE_GATE, "h-out-gate", {"switch": switch, "own": own, "group": "out-12"})


def nic(**given: str) -> tuple[Res, ...]:
    return lab(machine(networkInterfaces=[given]))


@pytest.mark.parametrize(
    "stack",
    [
        (net("out", mode="bridge", bridge="br0"),),
        (net("out", xml=sheet(FORWARD)),),
        (net("out", xml=sheet(attribute("/network/forward/@mode", "mode", "passthrough"))),),
        nic(bridge="br0"),
        nic(macvtap="eno1"),
        nic(vepa="eno1"),
        nic(passthrough="eno1"),
        lab(machine(xml=sheet(DIRECT))),
        (Res(BRIDGE, "vmbr9", {"ports": ["eno2"]}),),
        (Res(SWITCH, "lab", {"activeNics": ["vmnic0"], "standbyNics": []}),),
        (driven("bridge"),),
        (driven("bridge", "vSwitch1"),),
        (on_proxmox(),),
        (on_proxmox("vmbr1", cidr="10.8.0.1/24"),),
        (on_vsphere(),),
    ],
)
def test_a_lab_on_the_hosts_own_network_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"isolation"}


@pytest.mark.parametrize(
    "stack",
    [
        (net("in"),),
        (net("in", mode="none"),),
        (net("in", mode="route"),),
        (net("in", bridge="virbr9"),),
        (net("in", mode=UNKNOWN, bridge="br0"),),
        nic(networkName="lab"),
        nic(bridge=UNKNOWN),
        (Res(BRIDGE, "vmbr9", {"ports": []}),),
        (Res(BRIDGE, "vmbr9", {"ports": UNKNOWN}),),
        (Res(SWITCH, "lab", {"activeNics": []}),),
        (driven("isolated", "nl0123456789"),),
        (driven("nat"),),
        (on_proxmox("nl01", owner="a", cidr="10.8.0.1/24"),),
        (on_vsphere("nl01", own=True),),
    ],
)
def test_a_lab_that_stays_inside_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_a_bridge_that_the_stack_names_passes_and_no_other() -> None:
    stack = (net("out", mode="bridge", bridge="br0"), *nic(bridge="br0"))
    tree = {"hypervisors": {"h": {"networks": {"o": {"mode": "bridge", "bridge": "br0"}}}}}
    assert judge(*stack, config={"isolation": {"bridges": ["br0"]}}) == {}
    assert set(judge(*stack, config={"isolation": {"bridges": ["br1"]}})) == {"isolation"}
    with stack_config(bridges=["br0"]):
        assert judge(*stack) == {}
    with stack_config(lab=tree):
        assert judge(*stack) == {}
    with stack_config(lab={"networks": {"o": {"mode": "nat", "bridge": "br0"}}}):
        assert set(judge(*stack)) == {"isolation"}


def test_a_way_out_that_our_lab_states_passes_for_the_network_that_states_it() -> None:
    every = [driven("bridge"), driven("bridge", UPLINK, "xen"), on_proxmox(), on_vsphere()]
    others = [driven("bridge", "vSwitch1"), on_proxmox("vmbr7"), on_vsphere("vSwitch7")]
    # Nobody but nestlab's own hosts has such a bridge by itself, and they have no other.
    others += [driven("bridge", UPLINK), driven("bridge", "vmbr0", "xen")]

    def lab_with(name: str, **network: str) -> Any:
        tree = {"hypervisors": {"h": {"networks": {name: {"mode": "bridge"} | network}}}}
        return stack_config(lab=tree)

    with lab_with("out"):
        assert [judge(each) for each in every] == [{}] * 4
        assert [set(judge(each)) for each in others] == [{"isolation"}] * 5
    with lab_with("in"):
        assert [set(judge(each)) for each in every] == [{"isolation"}] * 4
    with lab_with("out", bridge="vSwitch7"):
        assert judge(on_vsphere("vSwitch7")) == {}
        assert set(judge(on_vsphere())) == {"isolation"}
    with stack_config(lab={"host": {"uplink": "vmbr7"}, "networks": {"o": {"mode": "bridge"}}}):
        assert judge(replace(on_proxmox("vmbr7"), name="o-gate")) == {}


def test_a_nested_hosts_own_bridge_passes_for_the_network_that_states_it() -> None:
    joined = net("h-out", mode="bridge", bridge=KIND.offers.uplink_device)
    tree: dict[str, Any] = {"hypervisors": {"h": {"networks": {"out": {"mode": "bridge"}}}}}
    with stack_config(lab=tree):
        assert judge(joined) == {}
        assert set(judge(net("h-in", mode="bridge", bridge=UPLINK))) == {"isolation"}
        assert set(judge(net("h-out", mode="bridge", bridge="vmbr0"))) == {"isolation"}
        inside, beside = (
            [
                replace(each, name=f"{place}-web-domain") if "Domain" in each.type else each
                for each in nic(bridge=UPLINK)
            ]
            for place in ("h", "i")
        )
        assert judge(*inside) == {}, "and for the guests on it"
        assert set(judge(*beside)) == {"isolation"}
    tree["hypervisors"]["h"]["networks"]["out"]["mode"] = "nat"
    with stack_config(lab=tree):
        assert set(judge(joined)) == {"isolation"}
        assert set(judge(*inside)) == {"isolation"}


def test_a_nic_that_our_lab_names_as_an_uplink_passes_and_no_other() -> None:
    made = plan(
        load(
            {"name": "a", "networks": {"o": {"mode": "bridge", "uplink": VLAN}}},
            root=Path("/"),
            exists=lambda _: True,
        )
    )
    on_it = net("out", mode="bridge", bridge=made.place().networks["o"].bridge)
    with stack_config(lab={"networks": {"o": {"mode": "bridge", "uplink": VLAN}}}):
        assert judge(on_it) == {}
        assert set(judge(*nic(macvtap="eno1"))) == {"isolation"}
    with stack_config(lab={"networks": {"o": {"mode": "bridge", "uplink": {"nic": "eno1"}}}}):
        assert set(judge(on_it)) == {"isolation"}
    with stack_config(lab={"networks": {"o": {"mode": "macvtap", "uplink": {"nic": "eno1"}}}}):
        assert judge(*nic(macvtap="eno1")) == {}


def pool(logical: str, path: str, **props: Any) -> Res:
    given = {"name": logical, "type": "dir", "target": {"path": path}}
    return Res(POOL, logical, given | props, provider=PROVIDER)


def hosts() -> tuple[tuple[Res, ...], Res, Res]:
    """Two nested hosts on one network, and a provider for each."""
    machines = [machine("a", "kvm"), machine("b", "kvm")]
    ways = [
        Res(
            "pulumi:providers:libvirt",
            f"in-{each.name}",
            {"uri": UNKNOWN},
            under=HYPERVISOR,
            needs={"uri": [each]},
        )
        for each in machines
    ]
    return (*lab(*machines), *ways), ways[0], ways[1]


def with_hosts(*inner: tuple[Res, int]) -> tuple[Res, ...]:
    stack, *ways = hosts()
    return (*stack, *(replace(each, provider=ways[where]) for each, where in inner))


def guest_on(network: str) -> Res:
    wanted = {"name": "g", "nics": [{"network": network, "model": ""}]}
    return Res(CONTAINER, "g-guest", {"driver": "esxi.guest", "wanted": wanted})


SUBNET: dict[str, Any] = {"addresses": ["10.8.0.0/24"]}


@pytest.mark.parametrize(
    "stack",
    [
        (net("a", **SUBNET), net("b", addresses=["10.8.0.128/25"])),
        (net("a", **SUBNET), net("b", addresses=["10.0.0.0/8"])),
        (net("a"), net("b", name="a")),
        (net("a", bridge="virbr9"), net("b", bridge="virbr9")),
        (
            net("a", **SUBNET),
            net("b", Res("pulumi:providers:libvirt", "again", PROVIDER.props), **SUBNET),
        ),
        with_hosts((net("inner", addresses=["10.9.0.0/16"]), 0)),
        with_hosts((net("one", **SUBNET), 0), (net("two", **SUBNET), 0)),
        (pool("a", "/srv/x"), pool("b", "/srv/x")),
        (pool("a", "/srv/x"), pool("b", "/srv/y", name="a")),
    ],
)
def test_what_two_labs_would_share_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(PROVIDER, *stack)) == {"overlaps"}


def within(where: int, **wanted: Any) -> tuple[Res, ...]:
    """Two nested hosts, and in one of them a network of its own commands."""
    stack, *_ = hosts()
    host = next(each for each in stack if each.name == "ab"[where])
    given = {"name": "x", "mode": "isolated"} | wanted
    props = {"driver": "esxi.network", "wanted": given}
    more = Res(CONTAINER, f"{given['name']}-{where}", props, needs={"target": [host]})
    return (*stack, more)


def both(*stacks: tuple[Res, ...]) -> tuple[Res, ...]:
    """Stacks with the same hosts, as one."""
    first = {each.name: each for each in stacks[0]}
    last = [
        replace(stack[-1], needs={"target": [first[stack[-1].needs["target"][0].name]]})
        for stack in stacks[1:]
    ]
    return (*stacks[0], *last)


@pytest.mark.parametrize(
    "stack",
    [
        within(0, subnet="10.9.0.0/24"),
        both(within(0, subnet="10.8.0.0/24"), within(0, name="y", subnet="10.8.0.0/16")),
        both(within(1, bridge="nl1"), within(1, name="y", bridge="nl1")),
        (
            on_proxmox("nl1", owner="a", cidr="10.8.0.1/24"),
            replace(on_proxmox("nl2", owner="b", cidr="10.8.0.7/24"), name="two-gate"),
        ),
    ],
)
def test_networks_without_a_provider_are_seen_too(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"overlaps"}


@pytest.mark.parametrize(
    "stack",
    [
        within(0, subnet="10.8.0.0/24"),
        both(within(0, subnet="10.8.0.0/24"), within(1, subnet="10.8.0.0/24")),
        (
            on_proxmox("nl1", owner="a", cidr="10.8.0.1/24"),
            replace(on_proxmox("nl2", owner="b", cidr="10.8.1.1/24"), name="two-gate"),
        ),
    ],
)
def test_and_pass_where_they_do_not_meet(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


@pytest.mark.parametrize(
    "stack",
    [
        (net("a", **SUBNET), net("b", addresses=["10.8.1.0/24"])),
        (net("a", **SUBNET), net("b", addresses=[UNKNOWN])),
        (net("a", name=UNKNOWN), net("b", name=UNKNOWN)),
        (net("a", mode="none"), net("b", mode="none")),
        with_hosts((net("inner", **SUBNET), 0), (net("other", name="inner", **SUBNET), 1)),
        with_hosts((pool("p", "/srv/lab"), 0), (pool("q", "/srv/lab", name="p"), 1)),
        (
            net("a", **SUBNET),
            net(
                "b",
                Res("pulumi:providers:libvirt", "far", {"uri": "qemu+ssh://far/system"}),
                **SUBNET,
            ),
        ),
        (pool("a", "/srv/x"), pool("b", "/srv/y")),
    ],
)
def test_what_only_looks_alike_passes(stack: tuple[Res, ...]) -> None:
    assert judge(PROVIDER, *stack) == {}


@pytest.mark.parametrize(
    ("stack", "what"),
    [
        (nic(networkName="default"), "network 'default'"),
        (lab(machine(xml=sheet(attribute("//source/@network", "network", "theirs")))), "'theirs'"),
        ((Res(VOLUME, "v", {"name": "v"}, provider=PROVIDER),), "pool 'default'"),
        ((Res(VOLUME, "v", {"name": "v", "pool": "theirs"}, provider=PROVIDER),), "pool 'theirs'"),
        ((Res(PROXMOX, "vm", {"networkDevices": [{"bridge": "vmbr9"}]}),), "network 'vmbr9'"),
        ((Res(PROXMOX, "vm", {"networkDevices": [{}]}),), "network 'vmbr0'"),
        ((Res(PROXMOX_CT, "ct", {"networkInterfaces": [{"bridge": "vmbr1"}]}),), "'vmbr1'"),
        ((Res(VSPHERE, "vm", {"networkInterfaces": [{"networkId": "network-7"}]}),), "'network-7'"),
        ((guest_on("theirs"),), "network 'theirs'"),
    ],
)
def test_what_a_stack_did_not_make_is_pointed_out(stack: tuple[Res, ...], what: str) -> None:
    said = judge(*stack)
    assert set(said) == {"shared-objects"}
    assert what in said["shared-objects"][0]


def test_what_a_stack_made_on_other_hosts_is_not() -> None:
    bridge = Res(BRIDGE, "br", {"name": "vmbr9", "ports": []})
    vm = Res(PROXMOX, "vm", {"networkDevices": [{"bridge": "vmbr9"}]})
    group = Res(PORT_GROUP, "pg", {"name": "Lab"})
    on_group = Res(
        VSPHERE,
        "vm",
        {"networkInterfaces": [{"networkId": "network-7"}]},
        needs={"networkInterfaces": [group]},
    )
    assert judge(bridge, vm) == {}
    assert judge(group, on_group) == {}
    assert judge(driven("isolated"), guest_on("out")) == {}
    assert set(judge(driven("isolated"), guest_on("in"))) == {"shared-objects"}


def test_what_a_stack_says_it_shares_is_not() -> None:
    stack = nic(networkName="default")
    assert judge(*stack, config={"shared-objects": {"networks": ["default"]}}) == {}
    with stack_config(networks=["default"]):
        assert judge(*stack) == {}


def test_a_network_may_be_named_by_its_id() -> None:
    made = replace(NET, outputs={**NET.props, "id": "1234-5678"})
    on_it = machine(networkInterfaces=[{"networkId": "1234-5678"}])
    stack = [made if each is NET else each for each in lab(on_it)]
    assert judge(*stack) == {}


def test_a_network_that_is_not_known_yet_is_not_judged() -> None:
    guest = Res(DOMAIN, "g", {"networkInterfaces": [{"networkName": UNKNOWN}]}, provider=PROVIDER)
    assert judge(*lab(guest)) == {}
