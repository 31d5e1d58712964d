"""A bridge on a VLAN of a NIC, on Debian's full kernel in an emulated machine: many a kernel of a CI has no 802.1Q.

The NIC is a veth, its other end a switch's trunk port: a network namespace with an address outside of any VLAN and one
in VLAN 20. A namespace in the bridge is the guest.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from components.kinds.libvirt.gates import uplink as gates
from components.kinds.libvirt.gates.uplink import UplinkGateProvider
from components.kinds.libvirt.uplink import trial
from components.kinds.libvirt.uplink.host import Host
from components.kinds.libvirt.uplink.steps import steps
from tests.support import netns, wifi_image
from tests.support.emulated import booted
from tests.support.netns import BRIDGE
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from components.reach.shell import SshShell

pytestmark = [
    pytest.mark.host,
    pytest.mark.soak,
    pytest.mark.skipif(not os.environ.get(SOAK), reason=f"some minutes of emulation: set {SOAK}"),
]
GATE = UplinkGateProvider()
SWITCH = """
ip netns add switch
ip link add port0 address 02:00:00:00:00:05 type veth peer name trunk netns switch
ip link set port0 up
ip addr add 192.0.2.5/24 dev port0
ip -n switch link set trunk up
ip -n switch addr add 192.0.2.1/24 dev trunk
ip -n switch link add link trunk name tagged type vlan id 20
ip -n switch link set tagged up
ip -n switch addr add 203.0.113.1/24 dev tagged
"""
GUEST = f"""
ip netns add guest
ip link add tap0 type veth peer name eth0 netns guest
ip link set tap0 up master {BRIDGE}
ip -n guest link set eth0 up
ip -n guest addr add 203.0.113.9/24 dev eth0
"""
WANTED = replace(netns.ON_A_NIC, nic="port0", vlan=20, confirm_s=30)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshShell]:
    image = wifi_image.ensure(System())
    arguments, folder = wifi_image.arguments(image), tmp_path_factory.mktemp("vlan")
    with booted(
        "host", image / "root.qcow2", folder, arguments=arguments, observe=lambda _: {}
    ) as made:
        netns.must(made.ssh, SWITCH)
        assert reaches(made.ssh, "switch", "192.0.2.5")
        yield made.ssh


@pytest.fixture(autouse=True)
def _there(ssh: SshShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "host_shell", lambda _: ssh)


def reaches(ssh: SshShell, place: str, address: str) -> bool:
    """Whether ``address`` answers somebody in a namespace."""
    return ssh.run(["ip", "netns", "exec", place, "ping", "-c", "3", "-W", "2", address]).ok


def comes(ssh: SshShell, script: str) -> None:
    """Wait until ``script`` succeeds, by what the host does by itself."""
    until = time.monotonic() + 60
    while not ssh.run(["sh", "-c", script]).ok:
        assert time.monotonic() < until, script
        time.sleep(0.2)


def looks(ssh: SshShell) -> object:
    """What has to be there in the end as it was."""
    return netns.lasting(netns.network(ssh))


def settled(ssh: SshShell, before: object) -> None:
    """Wait until the network of the host is what it was."""
    until = time.monotonic() + 60
    while (now := looks(ssh)) != before and time.monotonic() < until:
        time.sleep(1)
    assert now == before


def test_a_guest_is_in_the_vlan_and_nowhere_else_and_the_host_stays_where_it_is(
    ssh: SshShell,
) -> None:
    before = looks(ssh)
    assert list(GATE.problems(WANTED)) == []
    made = GATE.mend(None, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    netns.must(ssh, GUEST)
    assert reaches(ssh, "guest", "203.0.113.1")
    assert reaches(ssh, "switch", "203.0.113.9")
    # The same address outside of the VLAN is somebody else's, or nobody's.
    netns.must(ssh, "ip -n switch addr del 203.0.113.1/24 dev tagged")
    netns.must(ssh, "ip -n switch addr add 203.0.113.1/24 dev trunk")
    assert not reaches(ssh, "guest", "203.0.113.1")
    netns.must(ssh, "ip -n switch addr del 203.0.113.1/24 dev trunk")
    netns.must(ssh, "ip -n switch addr add 203.0.113.1/24 dev tagged")
    assert reaches(ssh, "switch", "192.0.2.5"), "the host is on the NIC itself"

    netns.must(ssh, f"ip link del {_vlan(ssh)}")
    assert not GATE.look(made).ok
    assert not reaches(ssh, "guest", "203.0.113.1")
    made = GATE.mend(made, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    assert reaches(ssh, "guest", "203.0.113.1")

    netns.must(ssh, "ip link del tap0; ip netns del guest")
    GATE.end(made)
    settled(ssh, before)


def test_one_that_nobody_confirms_takes_itself_back(ssh: SshShell) -> None:
    before = looks(ssh)
    host = Host(ssh)
    text = trial.program(BRIDGE, "port0", steps(host.look("port0"), WANTED.wanted), 15)
    host.must(trial.BEGIN, BRIDGE, WANTED.user, stdin=text.encode())
    comes(ssh, f"test -e /sys/class/net/{BRIDGE}")
    assert reaches(ssh, "switch", "192.0.2.5")
    comes(ssh, f"test ! -e /sys/class/net/{BRIDGE}")
    settled(ssh, before)
    assert reaches(ssh, "switch", "192.0.2.5")


def _vlan(ssh: SshShell) -> str:
    """Return the VLAN's device, a port of the bridge."""
    told = netns.must(ssh, f"ls /sys/class/net/{BRIDGE}/brif").split()
    [device] = [each for each in told if each != "tap0"]
    return device
