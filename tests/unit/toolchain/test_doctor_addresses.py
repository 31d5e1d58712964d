"""Two networks of one range: the second is refused in the middle of `up`, or swallows routes."""

from __future__ import annotations

import json

import pytest

from tests.unit.toolchain.doctor_fakes import FakeSystem
from toolchain.doctor import addresses, checks
from toolchain.doctor.report import Check, State
from toolchain.doctor.stack_needs import Needs
from toolchain.machine.system import Result

VIRSH = "virsh -q -c qemu:///system"
INSIDE = "ip netns exec nestlab ip -j"
LOOPBACK = {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]}


def xml(name: str, bridge: str, *entries: str) -> Result:
    listed = "".join(f"<ip {entry}/>" for entry in entries)
    return Result(0, f"<network><name>{name}</name><bridge name='{bridge}'/>{listed}</network>")


def machine(**answers: Result) -> FakeSystem:
    system = FakeSystem(
        {
            f"{VIRSH} net-list --uuid": Result(0, ""),
            f"{VIRSH} net-list --all --uuid": Result(0, ""),
            f"{INSIDE} addr": Result(0, json.dumps([LOOPBACK])),
            f"{INSIDE} route": Result(0, json.dumps([{"dst": "default", "dev": "eth0"}])),
        }
    )
    for key, answer in answers.items():
        system.answers[
            {
                "active": f"{VIRSH} net-list --uuid",
                "all_": f"{VIRSH} net-list --all --uuid",
                "addr": f"{INSIDE} addr",
                "route": f"{INSIDE} route",
            }[key]
        ] = answer
    return system


def row(system: FakeSystem, subnet: str = "10.77.0.0/24") -> Check:
    needs = Needs(lab="local", uri="qemu:///system", subnets={"lab": subnet})
    return checks.address_ranges(system, needs, "nestlab")


def test_a_free_range_is_fine_and_the_default_route_is_no_range() -> None:
    found = row(machine())
    assert (found.state, found.found) == (State.OK, "10.77.0.0/24: free")


def test_a_tunnel_that_takes_everything_is_no_collision() -> None:
    found = row(machine(route=Result(0, '[{"dst": "0.0.0.0/1", "dev": "tun0"}]')))
    assert found.state is State.OK


def test_a_route_of_the_namespace_blocks_the_same_range() -> None:
    found = row(machine(route=Result(0, '[{"dst": "10.77.0.0/24", "dev": "vpn0"}]')))
    assert found.state is State.FAIL
    assert "lab 10.77.0.0/24 overlaps 10.77.0.0/24 of vpn0 of namespace nestlab" in found.found


def test_a_wider_range_around_it_is_a_warning() -> None:
    assert (
        row(machine(route=Result(0, '[{"dst": "10.0.0.0/8", "dev": "vpn0"}]'))).state is State.WARN
    )


def test_an_address_inside_is_a_warning() -> None:
    device = {"ifname": "eth0", "addr_info": [{"local": "10.77.0.9", "prefixlen": 16}]}
    found = row(machine(addr=Result(0, json.dumps([device]))))
    assert "10.77.0.0/16 of eth0" in found.found


def test_another_network_of_libvirts_is_named_once_not_by_its_bridge_too() -> None:
    system = machine(
        active=Result(0, "other\n"),
        all_=Result(0, "other\n"),
        route=Result(0, '[{"dst": "10.77.0.0/24", "dev": "virbr5"}]'),
    )
    answer = xml("other", "virbr5", "address='10.77.0.1' netmask='255.255.255.0'")
    system.answers[f"{VIRSH} net-dumpxml other"] = answer
    found = row(system)
    expected = "lab 10.77.0.0/24 overlaps 10.77.0.0/24 of libvirt's network other"
    assert (found.state, found.found) == (State.FAIL, expected)


@pytest.mark.parametrize("name", ["my lab", "--all", "a'b", "lab\u2028x"])
def test_a_network_with_an_odd_name_counts_as_any_other(name: str) -> None:
    uuid = "0f5a0d3c-6f5e-4a54-9d3f-2f0a5d3f9b11"
    system = machine(active=Result(0, f"{uuid}\n"), all_=Result(0, f"{uuid}\n"))
    system.answers[f"{VIRSH} net-dumpxml {uuid}"] = xml(
        name, "virbr5", "address='10.77.0.1' prefix='24'"
    )
    assert row(system).found.endswith(f"of libvirt's network {name}")


def test_a_network_that_is_not_active_only_warns() -> None:
    system = machine(all_=Result(0, "default\n"))
    answer = xml("default", "virbr0", "address='192.168.122.1' prefix='24'", "family='ipv6'")
    system.answers[f"{VIRSH} net-dumpxml default"] = answer
    found = row(system, "192.168.122.0/24")
    assert found.state is State.WARN
    assert found.found.endswith("libvirt's network default (not active)")


@pytest.mark.parametrize(("name", "state"), [("local-lab", State.OK), ("local-2-lab", State.FAIL)])
def test_the_labs_own_network_is_no_collision_and_another_labs_is(name: str, state: State) -> None:
    system = machine(active=Result(0, name), all_=Result(0, name))
    answer = xml(name, "virbr5", "address='10.77.0.1' prefix='24'")
    system.answers[f"{VIRSH} net-dumpxml {name}"] = answer
    assert row(system).state is state


def test_routes_that_only_root_can_read_are_admitted() -> None:
    found = row(machine(addr=Result(1, err="Operation not permitted")))
    assert found.state is State.OK
    assert "the routes of namespace nestlab can't be read by this user" in found.found


def test_outside_a_namespace_the_machines_own_routes_count() -> None:
    system = FakeSystem({"ip -j addr": Result(0, "[]"), "ip -j route": Result(0, "[]")})
    assert addresses.in_use(system, "") == []
    assert system.asked == ["ip -j addr", "ip -j route"]
