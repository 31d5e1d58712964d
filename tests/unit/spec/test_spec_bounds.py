"""Whatever a stack file asks too much of is refused in a few words, before it is looked at closer.

The work is counted in calls of functions, which no other load of the machine moves.
"""

from __future__ import annotations

import cProfile
import pstats
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.stackfile import SpecError, load
from components.stackfile.bounds import MOST_ENTRIES
from components.stackfile.problems import MOST_LINES, Problem, listed, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2] / "cases"
MOST_SAID = 6_200
"""Characters of a message."""


def refused(data: Any) -> str:
    with pytest.raises(SpecError) as wrong:
        load(data, root=ROOT, exists=lambda _: True)
    said = str(wrong.value)
    assert len(said) < MOST_SAID, f"{len(said)} characters: {said[:300]}"
    assert len(said.splitlines()) <= MOST_LINES + 1
    assert all(line.isprintable() for line in said.splitlines())
    return said


def calls(work: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    profile.runcall(work)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def lab(**more: Any) -> dict[str, Any]:
    return {"name": "lab", **more}


def guests(number: int, **fields: Any) -> dict[str, Any]:
    return {f"g{number}": {"iso": "ipxe", **fields} for number in range(number)}


MEDIA = {"ipxe": {"path": "x.iso"}}


def deep(levels: int) -> Any:
    value: Any = 1
    for number in range(levels):
        value = [value] if number % 2 else {"a": value}
    return value


def bomb(levels: int = 9) -> Any:
    """Aliases of aliases: ten times as many values on each level."""
    value: Any = ["lol"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def cycle() -> Any:
    value: dict[str, Any] = lab()
    value["guests"] = value
    return value


LINE = "a\nb"
ZERO, BELL, RIGHT_TO_LEFT = "a\0b", "a\x07b", "gpj.\u202eexe"


@pytest.mark.parametrize(
    "data",
    [
        deep(100_000),
        lab(guests=deep(60)),
        bomb(),
        cycle(),
        lab(media=MEDIA, guests=guests(10_000)),
        lab(networks={f"n{number}": {} for number in range(2048)}),
        lab(**{"a" * 5_000_000: 1}),
        lab(guests={"a" * 5_000_000: {}}),
        lab(guests={f"{'a' * 200}{number}": {} for number in range(400)}),
        lab(media={"a": {"path": "/" + "x" * 5000}}),
        lab(media={"a": {"path": "/" + "x" * 300}}),
        lab(media={"a": {"path": "x/" * 2047}}),
        lab(media={"a": {"path": "é" * 200}}),
        lab(host={"pool_path": "/" + "x" * 300}),
        lab(host={"pool_path": "/" + "x/" * 2048}),
        lab(boot={"ready_s": 10**5000}),
        lab(boot={"ready_s": -(10**400)}),
        lab(boot={"ready_s": 10**12}),
        lab(boot={"concurrency": 2**40}),
        lab(host={"cores": 2**31}),
        lab(host={"memory_mib": 2**53}),
        lab(guests={"a": {"iso": "ipxe", "disk_gib": 2**52}}, media=MEDIA),
        lab(guests={"a": {"iso": "ipxe", "memory_mib": 2**40}}, media=MEDIA),
        lab(guests={"a": {"iso": "ipxe", "memory_mib": float("nan")}}, media=MEDIA),
        lab(guests={"a": {"iso": "ipxe", "memory_mib": float("inf")}}, media=MEDIA),
        lab(guests={"a": {"iso": "ipxe", "memory_mib": 1e300}}, media=MEDIA),
        lab(guests={"a": {"iso": "i" * 4000}}),
        lab(guests={"a": date(2026, 1, 1)}),
        lab(guests={"a": {"iso": b"bytes"}}),
        lab(guests={"a": {1, 2}}),
        lab(guests={"a": {"iso": LINE}}),
        lab(media={"a": {"path": ZERO}}),
        lab(media={"a": {"path": BELL}}),
        lab(media={"a": {"path": RIGHT_TO_LEFT}}),
        lab(media={"a": {"path": "\ud800"}}),
        lab(**{RIGHT_TO_LEFT: 1}),
        lab(networks={"a": {"subnet": "1" * 4000}}),
        lab(networks={"a": {"subnet": "10.77.0.0/24", "domain": "a" * 64}}),
        lab(networks={"a": {"subnet": "10.77.0.0/24", "domain": ".".join(["a" * 60] * 5)}}),
        lab(guests={"a": {"network": ["x"] * 501}}),
        lab(guests={"a": {"network": [1] * 499, "iso": [{}] * 499}}),
        lab(guests={f"g{number}": {"iso": "nope", "network": "no"} for number in range(499)}),
    ],
    ids=lambda _: "",
)
def test_too_much_of_anything_is_refused_in_a_few_lines(data: Any) -> None:
    # As much work as a lab of a few hundred machines is: far more of it would be a way to stop a preview.
    assert calls(lambda: refused(data)) < 3_000_000


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - refused
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "240.0.0.1",
    ],
)
def test_an_address_that_no_machine_has_can_not_be_pinned(address: str) -> None:
    nic = {"network": "br", "address": address}
    data = lab(
        media=MEDIA,
        networks={"br": {"mode": "bridge", "bridge": "br0"}},
        guests={"a": {"iso": "ipxe", "network": [nic]}, "b": {"iso": "ipxe"} | nic},
    )
    said = refused(data)
    assert "lab.guests.a.network.0.address" in said
    assert "lab.guests.b.address" in said


@pytest.mark.parametrize("mac", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
def test_a_mac_that_no_nic_has_can_not_be_pinned(mac: str) -> None:
    nic = {"network": "br", "mac": mac}
    nets = {"br": {"mode": "bridge", "bridge": "br0"}}
    said = refused(lab(media=MEDIA, networks=nets, guests={"a": {"iso": "ipxe", "network": [nic]}}))
    assert said.startswith("lab.guests.a.network.0.mac: ")


@pytest.mark.parametrize("listen", ["224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1%x'/>"])
def test_a_console_listens_on_an_address_that_a_host_can_have(listen: str) -> None:
    guest = {"iso": "ipxe", "console": {"listen": listen}}
    assert ".console.listen: " in refused(lab(media=MEDIA, guests={"a": guest}))


def test_a_containers_command_may_be_a_script_of_several_lines() -> None:
    box = {"template": "busybox", "command": ["/bin/sh", "-c", "a\n\tb"]}
    kvm = {"kind": "kvm", "network": "n", "containers": {"box": box}}
    nets = {"n": {"subnet": "10.77.0.0/24"}}
    assert load(lab(networks=nets, hypervisors={"k": kvm}), root=ROOT, exists=lambda _: True)


def overlapping(number: int) -> dict[str, Any]:
    return lab(networks={f"n{number}": {"subnet": "10.0.0.0/16"} for number in range(number)})


def unknown(number: int) -> dict[str, Any]:
    kvm = {"kind": "kvm", "network": "nope"}
    return lab(hypervisors={f"k{number}": kvm for number in range(number)})


def different(number: int) -> dict[str, Any]:
    nets = {f"net-number-{i}": {"subnet": f"10.{i // 256}.{i % 256}.0/28"} for i in range(number)}
    return lab(
        media=MEDIA,
        networks=nets,
        guests={f"g{i}": {"iso": "ipxe", "network": f"net-nummer-{i}"} for i in range(number)},
    )


def layered(number: int) -> dict[str, Any]:
    nets = {f"n{i}": {"subnet": f"10.{i // 256}.{i % 256}.0/28"} for i in range(number)}
    kvm = {"kind": "kvm", "network": "n0", "networks": nets}
    return lab(networks=nets, hypervisors={"k": kvm})


@pytest.mark.parametrize("made", [overlapping, unknown, different, layered])
def test_a_check_takes_as_long_as_the_lab_is_large(made: Callable[[int], dict[str, Any]]) -> None:
    few, more, many = (calls(lambda n=n: refused(made(n))) for n in (110, 220, 440))  # type: ignore[misc]
    assert many - more < 2.6 * (more - few), (few, more, many)


def test_what_is_wrong_in_many_places_alike_is_told_once_with_their_number() -> None:
    said = refused(unknown(400))
    assert said.count("\n") == 0
    assert "(and so in 399 other places)" in said


def test_more_problems_than_can_be_read_are_counted() -> None:
    said = refused(lab(**{f"field{number}x": 1 for number in range(60)}, name="lab"))
    assert said.splitlines()[-1].startswith("and ") or "other places" in said


def test_where_every_subnet_is_taken_none_is_suggested() -> None:
    nets = {f"n{number}": {"subnet": f"10.{64 + number}.0.0/16"} for number in range(64)}
    nets |= {"twice": {"subnet": "10.64.0.0/16"}}
    assert "take a free one, or make others smaller" in refused(lab(networks=nets))


def test_each_of_many_overlaps_is_found() -> None:
    nets = {"a": "10.0.0.0/16", "b": "10.0.1.0/24", "c": "10.0.2.0/24", "d": "10.1.0.0/24"}
    data = lab(
        networks={name: {"subnet": subnet} for name, subnet in nets.items()},
        hypervisors={
            "k": {"kind": "kvm", "network": "d", "networks": {"e": {"subnet": "10.0.1.16/28"}}}
        },
    )
    said = refused(data)
    places = {line.partition(":")[0] for line in said.splitlines()}
    assert places == {
        "lab.networks.b.subnet",
        "lab.networks.c.subnet",
        "lab.hypervisors.k.networks.e.subnet",
    }


def test_a_problem_shows_neither_more_than_a_line_nor_what_can_not_be_seen() -> None:
    problem = Problem("lab." + "p" * 10**6, "\u202e" * 10**6, "r" * 10**6, "m" * 10**6)
    assert len(str(problem)) < 5_000
    assert str(problem).isprintable()
    assert len(listed(str(number) for number in range(10**4))) < 200


def test_the_word_that_was_meant_is_not_looked_for_in_everything() -> None:
    known = [f"network-{number}" for number in range(MOST_ENTRIES)]
    assert calls(lambda: nearest("n" * 4000, known)) < 20_000


def test_a_nested_host_that_nothing_leads_to_is_refused() -> None:
    far = {"uri": "qemu+ssh://me@server/system"}
    inside = {"kind": "kvm", "network": "n"}
    for mode in ("nat", "isolated"):
        nets = {"n": {"mode": mode, "subnet": "10.77.0.0/24"}}
        guest = {"iso": "ipxe", "network": "n", "ready": {"probe": "tcp", "port": 22}}
        data = lab(
            media=MEDIA, networks=nets, hypervisors={"k": inside}, guests={"g": guest}, host=far
        )
        places = {line.partition(":")[0] for line in refused(data).splitlines()}
        assert places == {"lab.hypervisors.k.network", "lab.guests.g.ready.probe"}, mode
        load(data | {"host": {}}, root=ROOT, exists=lambda _: True)
    bridged = {"mode": "bridge", "bridge": "br0"}
    pinned = inside | {"address": "192.168.1.5"}
    data = lab(networks={"n": bridged}, hypervisors={"k": pinned}, host=far)
    assert load(data, root=ROOT, exists=lambda _: True)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, "kvm or xen"),
        ({"iso": "x"}, "esxi, hyperv, proxmox or xenserver"),
        ({"image": "x"}, "virtualbox or workstation"),
        ({"iso": "x", "filesystem": "xfs"}, "proxmox"),
    ],
)
def test_who_leaves_out_the_kind_is_told_of_those_that_have_what_is_there(
    fields: dict[str, Any], kinds: str
) -> None:
    said = refused(lab(hypervisors={"k": {"network": "n"} | fields}))
    assert said.splitlines()[0].endswith(kinds)


def test_a_machine_has_no_more_nics_than_its_host_gives() -> None:
    nics = [{"network": "n"}] * 30
    guest = {"iso": "ipxe", "network": nics, "memory_mib": 64}
    nets = {"n": {"subnet": "10.77.0.0/24"}}
    assert "lab.guests.g.network: 30 NICs given" in refused(
        lab(media=MEDIA, networks=nets, guests={"g": guest})
    )


def test_machines_are_counted_in_all_places() -> None:
    box = {f"b{number}": {"template": "busybox", "memory_mib": 16} for number in range(300)}
    kvm = {"kind": "kvm", "network": "n", "memory_mib": 8192, "containers": box}
    other = kvm | {"containers": {f"c{name}": each for name, each in box.items()}}
    data = lab(networks={"n": {"subnet": "10.77.0.0/24"}}, hypervisors={"k": kvm, "l": other})
    assert refused(data).startswith("lab: 602 machines given, but a lab has at most 500")
