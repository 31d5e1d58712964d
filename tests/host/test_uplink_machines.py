"""Machines of libvirt's own on NICs of this machine's: on a bridge that nestlab makes, and by macvtap.

The NICs are veths, whose other ends are ports of a switch with a DHCP server and a computer on it: a network namespace.
A failure here is a guest that the network outside does not reach, or a host that is not as it was. The tests share one
lab and run in the order of the file.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.reach.shell import LocalShell
from components.stackfile import load, plan
from tests.host.test_lab import changes
from tests.support import cloud_image
from tests.support.netns import KNOWN, entered, lasting, must, namespace, network
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.checkout import Checkout
    from tests.support.netns import Namespace

pytestmark = [pytest.mark.host, pytest.mark.soak]
BOOT_S = 540
HERE, ROUTER, WEB, SIDE = "192.0.2.5", "192.0.2.1", "192.0.2.51", "192.0.2.52"
NICS = {"nlwire0": "port0", "nlwire1": "port1"}


@pytest.fixture(scope="module")
def outer() -> Iterator[Namespace]:
    """The network outside, to which this machine has two cables; its own address is on the first."""
    here = LocalShell()
    with namespace("outer") as outer:
        try:
            outer.must("ip link add switch type bridge", f"ip addr add {ROUTER}/24 dev switch")
            for nic, port in NICS.items():
                must(here, f"ip link add {nic} type veth peer name {port} netns {outer.holder.pid}")
                outer.must(f"ip link set {port} up master switch")
                # An address that is being asked for is no more the network as it was than one that is there.
                must(here, f"sysctl -qw net.ipv6.conf.{nic}.accept_dad=0", f"ip link set {nic} up")
            outer.must("ip link set switch up")
            must(here, f"ip addr add {HERE}/24 dev nlwire0")
            yield outer
        finally:
            for nic in NICS:
                here.run(["ip", "link", "del", nic])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the key of a user of their own."""
    folder = tmp_path_factory.mktemp("own")
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id_ed25519")]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture(scope="module")
def lab(checkout: Checkout, outer: Namespace, own: Path) -> Iterator[Checkout]:
    """The checkout, whose lab has a guest on either NIC; a DHCP server outside that keeps their addresses."""
    image = checkout.root / "cloud.qcow2"  # in the project, whose files a stack may name
    shutil.copy2(cloud_image.ensure(System()) / "root.qcow2", image)

    key = (own / "id_ed25519.pub").read_text().strip()

    def wired(lab: dict[str, Any]) -> None:
        lab["media"] = {"cloud": {"path": str(image)}}
        lab["boot"] = {"ready_s": BOOT_S}
        lab["networks"] = {
            "lan": {"mode": "bridge", "uplink": {"nic": "nlwire0"}},
            "tap": {"mode": "macvtap", "uplink": {"nic": "nlwire1"}},
        }
        plain = {"image": "cloud", "memory_mib": 512, "cloud_init": {}}
        lab["guests"] = {
            "web": {**plain, "network": "lan", "address": WEB},
            "side": {**plain, "network": "tap", "address": SIDE, "cloud_init": {"keys": [key]}},
        }
        lab["hypervisors"] = {}

    checkout.edit(wired)
    checkout.prepare("toolchain", "host", "image")
    told = yaml.safe_load(checkout.settings.read_text())["config"]["nestlab:lab"]
    planned = plan(load(told, root=checkout.root))
    kept = [
        f"--dhcp-host={nic.mac},{nic.address}"
        for nic in (planned.machine(each).nics[0] for each in ("web", "side"))
    ]
    with serving(outer, own, kept):
        yield checkout


@contextlib.contextmanager
def serving(outer: Namespace, folder: Path, kept: list[str]) -> Iterator[None]:
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"]
    words += ["--interface=switch", "--bind-interfaces", f"--dhcp-leasefile={folder}/leases"]
    words += [f"--pid-file={folder}/pid", f"--dhcp-range={ROUTER},static", *kept]
    server = subprocess.Popen(
        [*outer.inside, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
        assert server.poll() is None, "the DHCP server was there to the end"
    finally:
        server.terminate()
        server.wait()


BEFORE: dict[str, Any] = {}


def test_both_are_entered_from_the_network_outside_at_the_addresses_of_the_sheet(
    lab: Checkout, outer: Namespace, own: Path
) -> None:
    BEFORE["network"] = lasting(network(LocalShell()))
    done = lab.make_target("up", timeout_s=2 * BOOT_S)
    assert done.code == 0, done.said
    assert {each: row["address"] for each, row in lab.sheet().items()} == {"web": WEB, "side": SIDE}
    ours = next((lab.root / ".nestlab" / "keys").rglob("web"))
    told = entered(ours, f"student@{WEB}", KNOWN, inside=outer.inside)
    assert told.splitlines()[0] == "web"
    assert f" {WEB}/24 " in told
    # Nobody here reaches that one, so there is no file of its host key's: its user's own key, as on any machine.
    new = ("UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no")
    told = entered(own, f"student@{SIDE}", *new, inside=outer.inside)
    assert told.splitlines()[0] == "side"
    assert f" {SIDE}/24 " in told
    refused = lab.inside("true", host="side")
    assert refused.code != 0
    assert f"network that it is on: ssh student@{SIDE}" in refused.said


def test_this_machine_reaches_the_one_on_the_bridge_and_keeps_its_own_address(
    lab: Checkout, outer: Namespace
) -> None:
    assert lab.inside("hostname", host="web").said.strip() == "web"
    assert outer.reaches(HERE, 10), "this machine, through the bridge"
    assert '"lladdr"' in outer.must(f"ip -j neigh show {WEB}"), "as a machine of that network"


def test_a_second_up_has_nothing_to_do_and_in_the_end_all_is_as_before(lab: Checkout) -> None:
    assert set(changes(lab.up())) == {"unchanged"}
    lab.down()
    assert lab.left() == []
    assert lasting(network(LocalShell())) == BEFORE["network"]
