"""isolation, overlaps, shared-objects: a failure here lets one lab meet another, or the school."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.policy.judging import (
    DOMAIN,
    HYPERVISOR,
    NET,
    NETWORK,
    POOL,
    PROVIDER,
    UNKNOWN,
    VOLUME,
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
DIRECT = (
    '<xsl:template match="/domain/devices/interface"><interface type="direct">'
    '<source dev="eno1" mode="bridge"/></interface></xsl:template>'
)
FORWARD = '<xsl:template match="/network/forward"><forward mode="bridge"/><bridge name="br0"/></xsl:template>'


def net(logical: str, provider: Res = PROVIDER, **props: Any) -> Res:
    return Res(NETWORK, logical, {"name": logical, "mode": "nat"} | props, provider=provider)


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
    ],
)
def test_what_a_stack_did_not_make_is_pointed_out(stack: tuple[Res, ...], what: str) -> None:
    said = judge(*stack)
    assert set(said) == {"shared-objects"}
    assert what in said["shared-objects"][0]


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
