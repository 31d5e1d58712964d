"""A guest two layers down on the network of its host's NIC, on this machine's own libvirt.

A failure here is an address of the sheet at which nobody answers, or a nested host that is lost behind its own bridge.
The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.test_lab import changes
from tests.support import cloud_image
from tests.support.checkout import virsh
from tests.support.netns import KNOWN, REFUSED, entered
from toolchain.machine.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.checkout import Checkout

pytestmark = [pytest.mark.host, pytest.mark.soak]
BOOT_S = 540
"""cloud-init is Python, and KVM in an emulated machine is slow. Xen gets the whole image over SSH before that."""


@pytest.fixture(scope="module", params=["kvm", "xen"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(checkout: Checkout, kind: str) -> Checkout:
    """The checkout, whose nested host has one network, of mode bridge, and a guest on it; KVM's a container too."""
    # In the project, whose files a stack may name.
    image = checkout.root / {"kvm": "cloud.qcow2", "xen": "cloud.raw"}[kind]
    made = cloud_image.ensure(System()) / "root.qcow2"
    words: list[str | Path] = ["qemu-img", "convert", "-O", image.suffix[1:], made, image]
    subprocess.run(words, check=True, timeout=300)

    def joined(lab: dict[str, Any]) -> None:
        lab["media"] = {"cloud": {"path": str(image)}}
        lab["boot"] = {"ready_s": BOOT_S}
        deep = {"image": "cloud", "memory_mib": 512, "network": "out", "cloud_init": {}}
        box = {"template": "busybox", "memory_mib": 64, "network": "out"}
        host = {
            "kind": kind,
            "network": "lab",
            "networks": {"out": {"mode": "bridge"}},
            "guests": {"deep": deep},
        }
        if kind == "kvm":
            host["containers"] = {"box": box}
        lab["hypervisors"] = {"host1": host}

    checkout.edit(joined)
    checkout.prepare("toolchain", "host", "image")
    if kind != "kvm":
        done = checkout.run("python3", "-m", "toolchain", "image", kind)
        assert done.code == 0, done.said
    return checkout


def test_it_is_reached_by_ssh_from_the_network_outside_at_the_address_of_the_sheet(
    lab: Checkout, kind: str
) -> None:
    done = lab.make_target("up", timeout_s=(2 if kind == "kvm" else 4) * BOOT_S)
    assert done.code == 0, done.said
    sheet = lab.sheet()
    outer = lab.subnets[0].rpartition(".")[0]
    addresses = {row["address"] for row in sheet.values()}
    assert len(addresses) == len(sheet) == (3 if kind == "kvm" else 2)
    assert all(each.startswith(f"{outer}.") for each in addresses), "all of the outer network"
    leases = virsh("net-dhcp-leases", f"{lab.lab}-lab")
    assert sheet["deep"]["address"] in leases, "by the outer network's DHCP server"
    # Straight from here, not through its host.
    folder = next((lab.root / ".nestlab" / "keys").rglob("deep"))
    told = entered(folder, f"student@{sheet['deep']['address']}", KNOWN)
    assert told.splitlines()[0] == "deep"
    assert f" {sheet['deep']['address']}/24 " in told
    if kind != "kvm":
        return
    answered = subprocess.run(
        [sys.executable, "-c", REFUSED, str(sheet["box"]["address"]), "60"],
        check=False,
        timeout=120,
    )
    assert answered.returncode == 0, "the container too"


def test_its_host_is_on_the_bridge_with_its_own_address(lab: Checkout) -> None:
    told = lab.inside("ip", "-4", "-o", "addr", "show", "dev", "nluplink", host="host1").said
    assert f" {lab.sheet()['host1']['address']}/24 " in told
    assert lab.inside("id", "-un", host="deep").said.strip() == "student"


def test_a_second_up_has_nothing_to_do_and_in_the_end_nothing_is_left(lab: Checkout) -> None:
    assert set(changes(lab.up())) == {"unchanged"}
    lab.down()
    assert lab.left() == []
