"""Networks inside nested hosts that are a part of the network around: whose address is kept there, and moves nobody.

A failure here is an inner guest that is not where the sheet says, or an outer one that moves when one inside is added.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.bridged_network import _reservations
from components.stackfile import LabPlan, SpecError, load, plan
from components.stackfile.places import UPLINK
from toolchain.bootstrap import paths

SUBNET = "10.77.0.0/24"


def lab(
    inside: dict[str, Any] | None = None, guests: dict[str, Any] | None = None, **outer: Any
) -> LabPlan:
    """A lab whose nested host has a network of mode bridge; ``inside`` is on it, ``guests`` on the one around."""
    out = {"mode": "bridge"} | outer.pop("out", {})
    host = {
        "kind": outer.pop("kind", "kvm"),
        "memory_mib": 8192,
        "network": "lab",
        "networks": {"out": out},
        "guests": inside or {},
    }
    told = {
        "name": "lab",
        "media": {"ipxe": {"path": "ipxe.iso"}},
        "networks": {"lab": {"subnet": SUBNET} | outer},
        "guests": guests or {},
        "hypervisors": {"kvm1": host},
    }
    return plan(load(told, root=Path("/srv"), exists=lambda _: True))


def guest(network: str, **fields: Any) -> dict[str, Any]:
    return {"iso": "ipxe", "network": network, "memory_mib": 64} | fields


def addresses(made: LabPlan) -> dict[str, str | None]:
    return {machine.name: machine.address for machine in made.machines()}


@pytest.mark.parametrize("kind", ["kvm", "xen"])
def test_a_guest_inside_has_an_address_of_the_network_around_reserved_there(kind: str) -> None:
    made = lab({"deep": guest("out")}, {"web": guest("lab")}, kind=kind)
    told = addresses(made)
    assert len(set(told.values())) == 3
    assert all(IPv4Address(each or "") in IPv4Network(SUBNET) for each in told.values())
    network = made.place("kvm1").networks["out"]
    assert (network.bridge, network.subnet, network.dhcp) == (UPLINK, None, False)
    kept = {each.name: each.address for each in _reservations(made, (), "lab")}
    assert kept == told
    assert [each.name for each in _reservations(made, ("kvm1",), "out")] == ["deep"]


@pytest.mark.parametrize(
    "kind", ["esxi", "hyperv", "proxmox", "virtualbox", "workstation", "xenserver"]
)
def test_so_it_is_where_the_products_own_switch_is_the_bridge(kind: str) -> None:
    """An address that somebody pins there is what its SSH is waited for at: DHCP has to give it."""
    file = paths.ROOT / "stacks" / f"Pulumi.{kind}.yaml"
    told = yaml.safe_load(file.read_text())["config"]["nestlab:lab"]
    made = plan(load(told, root=paths.ROOT, exists=lambda _: True))
    subnet = IPv4Network(str(made.place().networks["lab"].subnet))
    [inner] = [each for each in made.places if each.path]
    bridged = {name for name, each in inner.networks.items() if each.mode == "bridge"}
    inside = {
        machine.name: nic.address
        for machine in inner.machines.values()
        for nic in machine.nics
        if nic.network in bridged
    }
    assert inside
    assert all(IPv4Address(each or "") in subnet for each in inside.values())
    kept = {each.name: each.address for each in _reservations(made, (), "lab")}
    assert inside.items() <= kept.items()


def test_those_inside_move_nobody_on_the_network_around() -> None:
    outer = {f"web{number}": guest("lab") for number in range(60)}
    alone = addresses(lab(guests=outer))
    inner = {f"deep{number}": guest("out") for number in range(60)}
    beside = addresses(lab(inner, outer))
    assert {name: beside[name] for name in alone} == alone
    assert len(set(beside.values())) == len(beside)


def test_a_pin_inside_is_nobody_elses() -> None:
    taken = addresses(lab(guests={"web": guest("lab")}))["web"]
    assert taken
    told = addresses(lab({"deep": guest("out", address=taken)}, {"web": guest("lab")}))
    assert told["deep"] == taken
    assert told["web"] != taken


@pytest.mark.parametrize(
    ("inside", "outer", "words"),
    [
        ({"deep": guest("out", address="10.78.0.5")}, {}, "lies outside the network's subnet"),
        ({"deep": guest("out", address="10.77.0.1")}, {}, "as the gateway of the network"),
        ({f"d{n}": guest("out") for n in range(13)}, {"subnet": "10.77.0.0/28"}, "14 NICs are on"),
    ],
)
def test_what_does_not_fit_into_the_network_around_is_refused(
    inside: dict[str, Any], outer: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        lab(inside, **outer)


def test_two_pins_of_one_address_are_refused_though_they_are_in_two_places() -> None:
    with pytest.raises(SpecError, match="has it already"):
        lab(
            {"deep": guest("out", address="10.77.0.7")},
            {"web": guest("lab", address="10.77.0.7")},
        )


def test_nobody_of_the_lab_keeps_addresses_on_a_bridge_of_another_name() -> None:
    made = lab({"deep": guest("out")}, out={"bridge": "br7"})
    assert addresses(made)["deep"] is None
    assert made.place("kvm1").networks["out"].bridge == "br7"
    assert [each.name for each in _reservations(made, (), "lab")] == ["kvm1"]
