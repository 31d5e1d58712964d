"""The plan keeps its promises for any lab: no clash, nothing outside, and nobody moves.

A machine that gets another address or MAC is replaced at the next `up`: a failure here means that
adding one guest takes a student's other guests away.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.stackfile import LabPlan, LabSpec, MachinePlan, load, plan, totals
from components.stackfile.addresses import assign, capacity, choices, mac, natural

calmly = settings(deadline=None, max_examples=60, database=None)
"""No deadline: a machine that also builds something is no reason to fail."""

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
SUBNETS = st.builds(
    lambda prefix, number: IPv4Network((0x0A000000 + (number << (32 - prefix)), prefix)),
    st.integers(24, 28),
    st.integers(0, 1000),
)


def lab(**parts: Any) -> LabSpec:
    base = {"name": "lab", "media": {"ipxe": {"path": "ipxe.iso"}}}
    return load({**base, **parts}, root=Path("/srv"), exists=lambda _: True)


def flat(names: list[str], subnet: IPv4Network, **pins: str) -> LabPlan:
    """A lab of guests on one network, in the order of ``names``."""
    guests = {
        name: {"iso": "ipxe", "network": "net"} | ({"address": pins[name]} if name in pins else {})
        for name in names
    }
    return plan(lab(networks={"net": {"subnet": str(subnet)}}, guests=guests))


def known(machine: MachinePlan) -> str:
    """Return the address of a machine that has one."""
    assert machine.address is not None
    return machine.address


def first_choice(name: str, subnet: IPv4Network) -> str:
    return str(next(choices(name, subnet)))


def addresses(made: LabPlan) -> dict[str, str]:
    return {machine.name: known(machine) for machine in made.machines()}


@calmly
@given(names=st.lists(NAMES, unique=True, max_size=13), subnet=SUBNETS)
def test_no_two_machines_share_an_address_or_a_mac_and_all_are_inside(
    names: list[str], subnet: IPv4Network
) -> None:
    made = flat(names, subnet)
    found = addresses(made)
    assert len(set(found.values())) == len(names), "two machines of one address"
    macs = {nic.mac for machine in made.machines() for nic in machine.nics}
    assert len(macs) == len(names), "two NICs of one MAC"
    special = {subnet.network_address, subnet[1], subnet.broadcast_address}
    for address in map(IPv4Address, found.values()):
        assert address in subnet
        assert address not in special


@calmly
@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=13), subnet=SUBNETS)
def test_a_machine_that_comes_after_the_others_by_name_never_moves_one_of_a_first_choice(
    names: list[str], subnet: IPv4Network
) -> None:
    names = sorted(names, key=natural)
    for count in range(1, len(names)):
        before = addresses(flat(names[:count], subnet))
        after = addresses(flat(names[: count + 1], subnet))
        for name, address in before.items():
            if address == first_choice(name, subnet):
                assert after[name] == address, f"{names[count]} moved {name}"


@calmly
@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=40), data=st.data())
def test_a_machine_that_meets_nobody_moves_nobody_whether_it_comes_or_goes(
    names: list[str], data: st.DataObject
) -> None:
    subnet = IPv4Network("10.77.0.0/24")
    changing = data.draw(st.sampled_from(names))
    without = addresses(flat([name for name in names if name != changing], subnet))
    every = addresses(flat(names, subnet))
    if first_choice(changing, subnet) not in without.values():
        assert without.items() <= every.items(), f"{changing} meets nobody and moved somebody"


@calmly
@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=40), data=st.data())
def test_a_machine_of_its_first_choice_moves_only_for_one_of_the_same_choice(
    names: list[str], data: st.DataObject
) -> None:
    subnet = IPv4Network("10.77.0.0/26")
    changing = data.draw(st.sampled_from(names))
    without = addresses(flat([name for name in names if name != changing], subnet))
    every = addresses(flat(names, subnet))
    for name, address in without.items():
        settled = address == first_choice(name, subnet)
        if settled and address != first_choice(changing, subnet):
            assert every[name] == address, f"{changing} moved {name}, which it never met"


def test_where_two_numbered_machines_meet_the_higher_number_gives_way() -> None:
    subnet = IPv4Network("10.77.0.0/24")
    meeting = (
        (f"web{low}", f"web{high}")
        for low in range(2, 10)
        for high in range(10, 400)
        if first_choice(f"web{low}", subnet) == first_choice(f"web{high}", subnet)
    )
    low, high = next(pair for pair in meeting if pair[1] < pair[0])  # as text, the other way round
    assert addresses(flat([high, low], subnet))[low] == first_choice(low, subnet)


@calmly
@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=8), data=st.data())
def test_a_pin_is_kept_and_the_others_make_room(names: list[str], data: st.DataObject) -> None:
    subnet = IPv4Network("10.77.0.0/28")
    pinned = data.draw(st.sampled_from(names))
    address = str(subnet[data.draw(st.integers(2, 14))])
    found = addresses(flat(names, subnet, **{pinned: address}))
    assert found[pinned] == address
    assert len(set(found.values())) == len(names)


@calmly
@given(names=st.permutations([f"g{n}" for n in range(12)]))
def test_the_plan_does_not_depend_on_the_order_of_the_file(names: list[str]) -> None:
    subnet = IPv4Network("10.64.0.0/28")  # so narrow that many of the twelve meet
    assert {machine.name: machine.nics for machine in flat(names, subnet).machines()} == {
        machine.name: machine.nics for machine in flat(sorted(names), subnet).machines()
    }


def test_a_subnet_holds_as_many_machines_as_it_says() -> None:
    subnet = IPv4Network("10.77.0.0/28")
    found = addresses(flat([f"g{n}" for n in range(capacity(subnet))], subnet))
    assert {IPv4Address(address) for address in found.values()} == set(subnet.hosts()) - {subnet[1]}
    with pytest.raises(ValueError, match="full"):
        assign(["one-more"], subnet, set(subnet.hosts()))


def test_a_wide_subnet_keeps_both_ends_free_for_pins_until_it_is_full() -> None:
    subnet = IPv4Network("10.77.0.0/24")
    offsets = {int(next(choices(f"g{n}", subnet))) - int(subnet[0]) for n in range(2000)}
    assert (min(offsets), max(offsets)) == (10, 249)


def test_a_mac_that_is_taken_gives_way_to_another() -> None:
    first = mac(("lab", "a", "0"), set())
    second = mac(("lab", "a", "0"), {first})
    assert first != second
    assert second.startswith("52:54:00:")


def test_hypervisors_keep_their_addresses_whatever_guests_and_containers_are_added() -> None:
    networks = {"net": {"subnet": "10.77.0.0/28"}}
    hypervisors = {name: {"kind": "kvm", "network": "net"} for name in ("a", "b", "c")}
    before = addresses(plan(lab(networks=networks, hypervisors=hypervisors)))
    guests = {f"g{n}": {"iso": "ipxe", "network": "net"} for n in range(10)}
    after = addresses(plan(lab(networks=networks, hypervisors=hypervisors, guests=guests)))
    assert before.items() <= after.items()


def test_the_first_nic_of_a_machine_does_not_move_when_a_second_one_is_added() -> None:
    networks = {"net": {"subnet": "10.77.0.0/24"}}
    one = lab(networks=networks, guests={"a": {"iso": "ipxe", "network": "net"}})
    two = lab(
        networks=networks,
        guests={"a": {"iso": "ipxe", "network": [{"network": "net"}, {"network": "net"}]}},
    )
    first, second = plan(two).machine("a").nics
    assert plan(one).machine("a").nics == (first,)
    assert first.address != second.address


def test_names_on_the_outer_host_begin_with_the_lab_and_inner_ones_are_plain() -> None:
    made = plan(
        lab(
            networks={"net": {"subnet": "10.77.0.0/24"}},
            hypervisors={
                "kvm1": {
                    "kind": "kvm",
                    "network": "net",
                    "networks": {"net": {"subnet": "10.78.0.0/24"}},
                    "guests": {"web": {"iso": "ipxe", "network": "net"}},
                }
            },
        )
    )
    assert made.machine("kvm1").called == "lab-kvm1"
    assert made.machine("web").called == "web"
    outer, inner = made.place(), made.place("kvm1")
    assert (outer.networks["net"].called, inner.networks["net"].called) == (
        "lab-net",
        "net",
    )
    assert outer.networks["net"].bridge != inner.networks["net"].bridge
    assert all(len(p.networks["net"].bridge) <= 15 for p in made.places), "IFNAMSIZ"
    assert made.machine("web").layer == 2
    assert made.machine("web").path == ("kvm1", "web")


def test_two_labs_on_one_host_differ_in_every_name() -> None:
    parts: dict[str, Any] = {
        "networks": {"net": {"subnet": "10.77.0.0/24"}},
        "guests": {"web": {"iso": "ipxe", "network": "net"}},
    }
    one, two = plan(lab(**parts)), plan(lab(**parts).model_copy(update={"name": "other"}))
    for first, second in ((one.place(), two.place()),):
        assert first.networks["net"].bridge != second.networks["net"].bridge
        assert first.machines["web"].called != second.machines["web"].called
        assert first.machines["web"].nics[0].mac != second.machines["web"].nics[0].mac
    assert one.pool_path != two.pool_path


def test_who_is_unknown_is_not_in_the_plan() -> None:
    made = plan(lab())
    with pytest.raises(KeyError, match="nobody"):
        made.machine("nobody")
    with pytest.raises(KeyError, match="no/where"):
        made.place("no", "where")


def test_totals_count_the_first_layer_only() -> None:
    spec = lab(
        networks={"net": {"subnet": "10.77.0.0/24"}},
        guests={"a": {"iso": "ipxe", "memory_mib": 256, "disk_gib": 3}},
        hypervisors={
            "kvm1": {"kind": "kvm", "network": "net", "guests": {"b": {"iso": "ipxe"}}},
        },
    )
    assert (totals(spec).memory_mib, totals(spec).disk_gib, totals(spec).cores) == (4352, 11, 3)


def test_places_come_before_what_is_inside_them() -> None:
    made = plan(
        lab(
            networks={"net": {"subnet": "10.77.0.0/24"}},
            hypervisors={
                "a": {
                    "kind": "kvm",
                    "network": "net",
                    "memory_mib": 8192,
                    "disk_gib": 20,
                    "networks": {"net": {"subnet": "10.78.0.0/24"}},
                    "hypervisors": {"b": {"kind": "kvm", "network": "net"}},
                }
            },
        )
    )
    assert all(len(a.path) <= len(b.path) for a, b in pairwise(made.places))
    assert [place.path for place in made.places] == [(), ("a",), ("a", "b")]
