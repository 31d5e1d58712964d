"""A lab with nested Xen on this machine's own libvirt: a real guest of a real Xen, from nothing to nothing.

A failure here is a Xen host that does not come up, a guest that has not the planned address, or harm
that `pulumi up` does not mend. The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.test_lab import changes
from tests.support.checkout import virsh
from tests.support.xen_iso import stand_in
from toolchain.image import golden

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkout import Checkout

pytestmark = pytest.mark.host

MARKER = "STAND-IN"
LEASED_S = 240
"""The guest boots in 15 s; beside another emulated machine it takes minutes."""
LOG = "/var/log/xen/console/guest-live.log"


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = golden.facts_of("xen")
    if not facts.is_file():
        pytest.skip("needs the image of Xen: run `python3 -m toolchain image xen`")
    disk = json.loads(facts.read_text())["files"]["disk"]
    return stand_in(disk, tmp_path_factory.mktemp("iso"), MARKER)


@pytest.fixture(scope="module")
def lab(checkout: Checkout, iso: Path) -> Checkout:
    """The checkout, whose lab is a Xen host with a guest from the stand-in ISO."""

    inner, alone = IPv4Network(checkout.subnets[1]).subnets()

    def xen(lab: dict[str, Any]) -> None:
        del lab["hypervisors"]["kvm1"]
        lab["media"] = {"live": {"path": str(iso)}}
        lab["hypervisors"]["xen1"] = {
            "kind": "xen",
            "network": "lab",
            "networks": {
                "inner": {"mode": "nat", "subnet": str(inner)},
                "alone": {"mode": "isolated", "subnet": str(alone)},
            },
            "guests": {
                "live": {"iso": "live", "memory_mib": 256, "disk_gib": 1, "network": "inner"}
            },
        }

    checkout.edit(xen)
    checkout.prepare("toolchain", "host", "image")
    done = checkout.run("python3", "-m", "toolchain", "image", "xen")
    assert done.code == 0, done.said
    assert checkout.pulumi("stack", "init", "local").code == 0
    return checkout


def xl(lab: Checkout, *words: str) -> str:
    return lab.inside("xl", *words, host="xen1").said


def running(lab: Checkout) -> list[str]:
    """Names of the domains that Xen lists, without dom0."""
    return [line.split()[0] for line in xl(lab, "list").splitlines()[2:]]


def bridges(lab: Checkout) -> list[str]:
    """Bridges of the networks inner and alone, known by their addresses."""
    shown = lab.inside("ip", "-o", "-4", "addr", host="xen1").said.splitlines()
    return [
        next(line.split()[1] for line in shown if f" {net[1]}/" in line)
        for net in IPv4Network(lab.subnets[1]).subnets()
    ]


def test_a_guest_boots_from_an_iso_in_a_xen_and_gets_its_planned_address(lab: Checkout) -> None:
    lab.up()
    assert running(lab) == ["live"]
    assert "Domain-0" in xl(lab, "list")
    address = lab.sheet()["live"]["address"]
    until = time.monotonic() + LEASED_S
    said = ""
    while f"inet {address}/" not in said and time.monotonic() < until:
        time.sleep(1)
        said = lab.inside("cat", LOG, host="xen1").said
    assert f"{MARKER}: Linux boots" in said, "its console is kept, and it came by PV GRUB"
    assert f"inet {address}/" in said, "the planned address was really leased"
    ping = lab.inside("busybox", "ping", "-c1", "-W5", address, host="xen1")
    assert ping.code == 0, ping.said


def test_an_isolated_network_is_routed_nowhere_and_its_host_reaches_it(lab: Checkout) -> None:
    inner, alone = (net[9] for net in IPv4Network(lab.subnets[1]).subnets())
    device = bridges(lab)

    def route(*words: object) -> int:
        return lab.inside("ip", "route", "get", *map(str, words), host="xen1").code

    assert route("192.0.2.1", "from", inner, "iif", device[0]) == 0, "nat leads out"
    assert route("192.0.2.1", "from", alone, "iif", device[1]) != 0
    assert route(alone, "from", inner, "iif", device[0]) != 0
    assert route(alone) == 0, "its host reaches it"


def test_a_second_up_changes_nothing(lab: Checkout) -> None:
    assert set(changes(lab.up())) == {"unchanged"}


def test_a_guest_that_was_destroyed_is_seen_and_mended(lab: Checkout) -> None:
    xl(lab, "destroy", "live")
    seen = lab.preview()
    assert "guest live is shut off; `pulumi up` mends it" in seen, seen
    assert running(lab) == []
    lab.up()
    assert running(lab) == ["live"]


def test_a_bridge_that_was_deleted_is_seen_and_mended_with_the_guest_that_was_on_it(
    lab: Checkout,
) -> None:
    bridge = bridges(lab)[0]
    ports = ("ls", f"/sys/class/net/{bridge}/brif")
    plugged = lab.inside(*ports, host="xen1").said
    assert plugged.startswith("vif")
    lab.inside("ip", "link", "delete", bridge, host="xen1")
    seen = lab.preview()
    assert f"its bridge {bridge} is gone; `pulumi up` mends it" in seen, seen
    lab.up()
    assert lab.inside(*ports, host="xen1").said == plugged, "the same guest, not started anew"
    assert set(changes(lab.up())) == {"unchanged"}


def test_down_leaves_nothing(lab: Checkout) -> None:
    lab.down()
    assert lab.left() == []
    assert lab.lab not in virsh("list", "--all", "--name")
