"""sizes and capacity: what is too small is refused, and so is what does not fit into its host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.stackfile.registry import KINDS
from tests.policy.judging import (
    CONTAINER,
    DISK,
    DOMAIN,
    HYPERVISOR,
    PROXMOX,
    UNKNOWN,
    VOLUME,
    VSPHERE,
    Res,
    judge,
    lab,
    machine,
    sheet,
    stack_config,
)

from limits import ANY, LIMITS  # isort: skip - the pack's folder comes with judging

MEMORY = '<xsl:template match="/domain/memory"><memory unit="GiB">{}</memory></xsl:template>'


def proxmox(**props: Any) -> Res:
    given = {
        "tags": ["lab", "nestlab-kind-xenserver"],
        "cpu": {"type": "host", "cores": 1, "sockets": 2},
        "memory": {"dedicated": 4096},
        "disks": [{"interface": "sata0", "size": 50}],
    }
    return Res(PROXMOX, "xcp", given | props)


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="kvm", memory=2047)),
        lab(machine(kind="kvm", memory=None)),
        lab(machine(kind="kvm", vcpu=1)),
        lab(machine(kind="kvm", vcpu=None)),
        lab(machine(kind="hyperv", memory=4095)),
        lab(machine(kind="kvm", xml=sheet(MEMORY.format(1)))),
        lab(machine(kind="anything", memory=512)),
        lab(replace(machine(memory=1024), under=HYPERVISOR)),
        lab(machine(memory=1024, disks=[{"file": "/iso/proxmox-ve_8.4-1.iso"}])),
        (proxmox(disks=[{"interface": "sata0", "size": 45}]),),
        (proxmox(cpu={"type": "host", "cores": 1}),),
        (proxmox(memory={}),),
        (
            Res(
                VSPHERE,
                "pve",
                {"annotation": "nestlab:kind=proxmox", "nestedHvEnabled": True, "numCpus": 1},
            ),
        ),
    ],
)
def test_a_hypervisor_below_its_minimum_is_refused(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"sizes"}


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="kvm", memory=2048, vcpu=2)),
        lab(machine(kind="kvm", memory=512, xml=sheet(MEMORY.format(4)))),
        lab(machine(memory=64, vcpu=1, cpu=None)),
        lab(machine(kind="guest", memory=64, disks=[{"file": "/iso/proxmox-ve_8.4-1.iso"}])),
        lab(machine(kind="kvm", memory=UNKNOWN, vcpu=UNKNOWN)),
        (proxmox(),),
        (proxmox(disks=[{"interface": "sata0", "size": UNKNOWN}], memory=UNKNOWN),),
    ],
)
def test_a_machine_that_is_large_enough_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_the_message_says_what_there_is_what_it_needs_and_who_says_so() -> None:
    (said,) = judge(*lab(machine(kind="kvm", memory=1024)))["sizes"]
    assert said == f"vm: memory is 1024 MiB; it needs 2048 ({LIMITS['kvm'].source['memory_mib']})"


def test_model_and_policy_refuse_the_same() -> None:
    for name, kind in KINDS.items():
        least = LIMITS[name]
        assert (kind.memory_mib.value, kind.cores.value, kind.disk_gib.value) == (
            least.memory_mib,
            least.cores,
            least.disk_gib,
        ), name
        for field in ("reserve_mib", "reserve_gib", "share_mib", "share_gib"):
            assert getattr(kind, field) == getattr(least, field), name


def test_an_unsaid_kind_is_held_to_the_least_of_all() -> None:
    for field in ("cores", "memory_mib", "disk_gib", "reserve_mib", "reserve_gib"):
        assert getattr(ANY, field) == min(getattr(each, field) for each in LIMITS.values())


HOST = machine("kvm1", "kvm", memory=4096, vcpu=2)
GATE = Res("pulumi-python:dynamic/nestlab:MachineGate", "kvm1-gate", {}, needs={"domain": [HOST]})
INNER = Res(
    "pulumi:providers:libvirt", "inner", {"uri": UNKNOWN}, needs={"uri": [GATE]}, under=HYPERVISOR
)


def inside(
    name: str, memory: int = 512, vcpu: int = 1, gib: int = 1, **more: Any
) -> tuple[Res, Res]:
    """A guest inside kvm1 as the first preview shows it: its provider says nothing of it."""
    pool = {"name": f"{name}-disk", "pool": UNKNOWN, "size": gib << 30}
    disk = Res(VOLUME, f"{name}-disk", pool, provider=INNER, outputs={})
    props = {"name": name, "memory": memory, "vcpu": vcpu, "disks": [{"volumeId": UNKNOWN}]}
    guest = Res(DOMAIN, name, props | more, provider=INNER, needs={"disks": [disk]}, outputs={})
    return disk, guest


def container(memory: int) -> Res:
    wanted = {"memory_mib": memory, "cores": 1}
    dynamic = Res("pulumi:providers:pulumi-python", "default", {})
    return Res(CONTAINER, "box", {"wanted": wanted}, provider=dynamic, needs={"target": [GATE]})


def nested(*inner: Res, host: Res = HOST, gib: int = 64) -> tuple[Res, ...]:
    disk = replace(DISK, props={**DISK.props, "size": gib << 30})
    host = replace(host, needs={"disks": [disk]})
    gate = replace(GATE, needs={"domain": [host]})
    way = replace(INNER, needs={"uri": [gate]})
    moved = [
        replace(
            each,
            provider=way if each.provider is INNER else each.provider,
            needs={
                key: [gate if one is GATE else one for one in found]
                for key, found in each.needs.items()
            },
        )
        for each in inner
    ]
    by_name = {each.name: each for each in moved}
    linked = [
        replace(
            each,
            needs={
                key: [by_name.get(one.name, one) for one in found]
                for key, found in each.needs.items()
            },
        )
        for each in moved
    ]
    stack = [each for each in lab(host) if each.name != "disk"]
    return (*stack, disk, gate, way, *linked)


@pytest.mark.parametrize(
    "stack",
    [
        nested(*inside("a", memory=3585)),
        nested(*inside("a", memory=1800), *inside("b", memory=1800)),
        nested(*inside("a", memory=3500), container(85)),
        nested(*inside("a", vcpu=3)),
        nested(*inside("a", gib=5), *inside("b", gib=2), gib=8),
        nested(gib=7),
    ],
)
def test_what_does_not_fit_is_refused_at_the_first_preview(stack: tuple[Res, ...]) -> None:
    assert set(judge(*stack)) == {"capacity"}


@pytest.mark.parametrize(
    "stack",
    [
        nested(*inside("a", memory=3584)),
        nested(*inside("a", memory=1792), *inside("b", memory=1792)),
        nested(*inside("a", memory=3500), container(84)),
        nested(*inside("a", vcpu=2), *inside("b", vcpu=2)),
        nested(*inside("a", gib=4), *inside("b", gib=2), gib=8),
        lab(HOST, machine("beside", memory=64000, vcpu=16)),
    ],
)
def test_what_fits_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_a_guest_counts_for_the_host_it_is_in_not_for_those_it_boots_after() -> None:
    second = machine("kvm2", "kvm", memory=2048, vcpu=2)
    second = replace(second, needs={**second.needs, "waits": [GATE]})
    gate = Res("pulumi-python:dynamic/nestlab:MachineGate", "g2", {}, needs={"domain": [second]})
    way = replace(INNER, name="inner2", needs={"uri": [gate]})
    guest = Res(DOMAIN, "a", {"name": "a", "memory": 1600}, provider=way, outputs={})
    said = judge(*lab(HOST, second), GATE, gate, way, guest)
    assert set(said) == {"capacity"}
    assert said["capacity"][0].startswith("kvm2: ")


BUDGET = {"memory_mib": 8192, "cores": 4, "disk_gib": 64}


@pytest.mark.parametrize(
    "config", [{"memory_mib": 8191}, {"cores": 3}, {"disk_gib": 63}, {**BUDGET, "cores": 3}]
)
def test_a_stack_beyond_its_budget_is_refused(config: dict[str, float]) -> None:
    stack = lab(machine())
    assert set(judge(*stack, config={"capacity": config})) == {"capacity"}
    with stack_config(lab={"host": config}):
        assert set(judge(*stack)) == {"capacity"}


def on_node(memory: int = 8192, **more: Any) -> tuple[Res, ...]:
    given = {"nodeName": "pve1", "memory": {"dedicated": memory}, "disks": [{"size": 16}]}
    return tuple(
        Res(PROXMOX, name, given | {"cpu": {"type": "host", "cores": 2}} | more) for name in "ab"
    )


NODES = {
    "kind": "proxmox",
    "nodes": {
        "pve1": {"memory_mib": 16384, "cores": 4, "disk_gib": 32},
        "pve2": {"memory_mib": 65536, "cores": 32, "disk_gib": 320},
    },
}


def test_on_a_cluster_the_budget_is_that_of_the_node() -> None:
    template = Res(PROXMOX, "t", {"nodeName": "pve1", "template": True, "disks": [{"size": 16}]})
    with stack_config(lab={"host": NODES}):
        assert judge(*on_node()) == {}
        assert judge(*on_node(), template) == {}, "it never runs, and clones share its disk"
        assert set(judge(*on_node(8193))) == {"capacity"}
        assert set(judge(*on_node(disks=[{"size": 17}]))) == {"capacity"}
        assert judge(*on_node(8193, nodeName="pve2")) == {}


def test_what_its_own_commands_put_into_a_hypervisor_counts() -> None:
    def driven(what: str, **wanted: int) -> Res:
        props = {"driver": f"esxi.{what}", "wanted": wanted}
        dynamic = Res("pulumi:providers:pulumi-python", "default", {})
        return Res(CONTAINER, f"x-{what}", props, provider=dynamic, needs={"target": [GATE]})

    assert set(judge(*nested(driven("guest", memory_mib=3585)))) == {"capacity"}
    assert set(judge(*nested(driven("guest", disk_gib=63)))) == {"capacity"}
    assert set(judge(*nested(driven("guest", cores=3)))) == {"capacity"}
    assert judge(*nested(driven("guest", memory_mib=3584, disk_gib=62, cores=2))) == {}
    assert judge(*nested(driven("medium", memory_mib=9999))) == {}


@pytest.mark.parametrize("config", [BUDGET, {}])
def test_a_stack_within_its_budget_passes(config: dict[str, float]) -> None:
    stack = nested(*inside("a", memory=1024), host=machine("kvm1", "kvm", vcpu=4))
    assert judge(*stack, config={"capacity": config}) == {}
    with stack_config(lab={"host": config}):
        assert judge(*stack) == {}
