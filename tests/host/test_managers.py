"""Uplinks beside the real managers of a host's network: systemd-networkd, NetworkManager, ifupdown.

Each sets up the NIC of a host of its own by DHCP, or with a fixed address. A failure here means that such a host loses its
address when a lease is renewed, or its manager afterwards.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from components.kinds.libvirt.gates import uplink as gates
from components.kinds.libvirt.gates.uplink import UplinkGateProvider
from components.kinds.libvirt.uplink import trial
from components.kinds.libvirt.uplink.host import Host, NetError
from components.kinds.libvirt.uplink.steps import steps
from tests.support import managers
from tests.support.netns import BRIDGE, ON_A_NIC, lasting, reason
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.managers import Managed
    from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.host,
    pytest.mark.soak,
    pytest.mark.skipif(not os.environ.get(SOAK), reason=f"a minute and an image: set {SOAK}"),
    pytest.mark.skipif(bool(reason()), reason=reason() or "-"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
GATE = UplinkGateProvider()
WANTED = replace(ON_A_NIC, confirm_s=30)
LEASED = "ip -o addr show dev {} | grep -q 'inet 192.0.2.1[0-5]'"
LEFT = "for f in /run/nestlab/uplinks/*/*/plan; do sh $f undo; done; rm -rf /run/nestlab"
"""Takes back what a test that failed has left."""
NETWORKD = "/etc/systemd/network/20-wired.network"


@dataclass(frozen=True)
class Manager:
    """How one is told of the NIC, and what it is asked."""

    config: str
    start: str
    stop: str
    restart: str
    again: str
    """Its own command that sets the NIC up again."""
    in_charge: str


MANAGERS = {
    "systemd-networkd": Manager(
        f"printf '[Match]\\nName=nic*\\n\\n[Network]\\nDHCP=yes\\n# ours\\n' >{NETWORKD}",
        "systemctl start systemd-networkd",
        f"systemctl stop systemd-networkd.socket systemd-networkd; rm -f {NETWORKD}",
        "systemctl restart systemd-networkd",
        "networkctl reconfigure nic0",
        "networkctl --no-legend | grep -q 'nic0.*configured'",
    ),
    "NetworkManager": Manager(
        "true",
        "systemctl start NetworkManager",
        "nmcli connection delete mine || true; systemctl stop NetworkManager; rm -rf /run/NetworkManager /var/lib/NetworkManager/*",
        "systemctl restart NetworkManager",
        "nmcli -w 20 connection up 'Wired connection 1'",
        "nmcli -g GENERAL.CONNECTION device show nic0 | grep -qx 'Wired connection 1'",
    ),
}


@dataclass
class Site:
    """A host, its manager, and the network that it is on."""

    host: Managed
    outer: Namespace
    manager: Manager
    log: Path
    before: object = None
    beside: object = None

    def looks(self) -> dict[str, Any]:
        """What has to be there in the end as it was."""
        network = lasting(self.host.network())
        # A bridge was made and is gone: how often devices were made is all that is left.
        return {key: value for key, value in network.items() if not key.endswith("neigh")}

    def remember(self) -> None:
        """Take down what has to be there in the end."""
        self.before, self.beside = self.looks(), self.files()

    def files(self) -> str:
        """What its owner wrote, and what is beside it in the managers' folders; DNS."""
        return self.host.must(
            "find /etc/systemd/network /etc/NetworkManager /etc/network -type f -exec md5sum {} + | sort -k2",
            "ls -d /run/systemd/network/* /run/NetworkManager/system-connections/* /run/nestlab/uplinks/*/* 2>/dev/null || true",
            "resolvectl dns | grep nic0; resolvectl domain | grep nic0",
        )

    def leases(self) -> int:
        """How often the server gave one."""
        return self.log.read_text().count("DHCPACK")

    def renewed(self, device: str) -> None:
        """Wait for the next renewal; the address stays on ``device``."""
        given, until = self.leases(), time.monotonic() + 20
        while self.leases() == given:
            assert time.monotonic() < until, "nobody renews the lease"
            time.sleep(0.2)
        self.host.must(LEASED.format(device))

    def address(self, device: str) -> str:
        """The address of ``device``."""
        told = self.host.must(f"ip -o -4 addr show dev {device}").split()
        return told[3].partition("/")[0]

    def same(self) -> None:
        """All is as it was, and the manager in charge."""
        until = time.monotonic() + 20
        while (now := self.looks()) != self.before and time.monotonic() < until:
            time.sleep(0.3)
        assert now == self.before
        assert self.files() == self.beside
        self.host.comes(self.manager.in_charge)
        self.renewed("nic0")


@pytest.fixture(scope="module")
def host() -> Iterator[Managed]:
    image = managers.ensure(System())
    with managers.booted(image) as made:
        yield made


@pytest.fixture(params=MANAGERS)
def site(
    host: Managed, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setattr(gates, "host_shell", lambda _: host)
    manager = MANAGERS[request.param]
    log = tmp_path / "dnsmasq"
    with managers.network(host, log) as outer:
        host.must(manager.config, manager.start)
        try:
            host.comes(LEASED.format("nic0"))
            host.comes(manager.in_charge)
            host.comes("! ip addr show dev nic0 | grep -q tentative")
            time.sleep(1)
            made = Site(host, outer, manager, log)
            made.remember()
            yield made
        finally:
            host.run(["sh", "-c", LEFT])
            host.must(manager.stop)


def test_a_leased_address_is_the_bridges_and_the_nics_again(site: Site) -> None:
    address = site.address("nic0")
    assert list(GATE.problems(WANTED)) == []
    made = GATE.mend(None, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    assert site.address(BRIDGE) == address
    assert site.outer.reaches(address)
    assert "192.0.2.53" in site.host.must(f"resolvectl dns {BRIDGE}")
    site.renewed(BRIDGE)
    assert site.address(BRIDGE) == address

    site.host.must(site.manager.restart)
    site.renewed(BRIDGE)
    assert GATE.look(made).ok, GATE.look(made).text
    assert site.outer.reaches(address)

    site.host.must("ip link set nic0 down; sleep 1; ip link set nic0 up")
    site.host.comes(LEASED.format(BRIDGE))
    assert site.outer.reaches(address, 5)
    site.outer.must("ip link set port0 down; sleep 3; ip link set port0 up")
    site.host.comes(LEASED.format(BRIDGE))
    assert site.outer.reaches(address, 5)
    assert GATE.look(made).ok, GATE.look(made).text

    GATE.end(made)
    assert site.address("nic0") == address
    site.same()


def test_what_nobody_confirms_takes_itself_back(site: Site) -> None:
    host = Host(site.host)
    text = trial.program(BRIDGE, "nic0", steps(host.look("nic0"), WANTED.wanted), 5)
    host.must(trial.BEGIN, BRIDGE, WANTED.user, stdin=text.encode())
    site.host.comes(LEASED.format(BRIDGE))
    site.host.comes(f"! ip link show {BRIDGE}")
    site.host.comes(LEASED.format("nic0"))
    site.host.must("rm -rf /run/nestlab/uplinks/*/*")
    site.same()


def test_the_managers_own_command_meanwhile_is_seen_and_mended(site: Site) -> None:
    address = site.address("nic0")
    made = GATE.mend(None, WANTED)
    site.host.must(site.manager.again)
    time.sleep(3)
    seen = GATE.look(made)
    if not seen.ok:
        assert "nic0 is no port of" in seen.text or "not there any more" in seen.text
        made = GATE.mend(made, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    assert site.address(BRIDGE) == address
    site.host.must(f"ip link del {BRIDGE}")
    time.sleep(3)
    assert list(GATE.problems(WANTED)) == []
    # NetworkManager makes it again by itself.
    if not GATE.look(made).ok:
        made = GATE.mend(made, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    assert site.outer.reaches(address, 5)
    GATE.end(made)
    site.same()


def test_an_address_that_nobody_gives_again_takes_it_back(site: Site) -> None:
    """As at a server that has forgotten, or has none left: the host is reached again at its old one."""
    site.host.must("ip addr add 192.0.2.9/24 dev nic0 valid_lft 600 preferred_lft 600")
    with pytest.raises(NetError, match=r"did not get 192\.0\.2\.9/24"):
        GATE.mend(None, WANTED)
    site.host.run(["ip", "addr", "del", "192.0.2.9/24", "dev", "nic0"])
    site.same()


def test_macvtap_and_what_is_answered_for_leave_the_manager_alone(site: Site) -> None:
    # networkd forgets the metric of an address when it is started again (252), with or without us.
    site.host.must(site.manager.restart)
    site.renewed("nic0")
    site.remember()
    for wanted in (
        replace(WANTED, mode="macvtap", bridge=""),
        replace(
            WANTED, mode="proxy_arp", bridge="", subnet="192.0.2.96/30", addresses=["192.0.2.98"]
        ),
    ):
        assert list(GATE.problems(wanted)) == []
        made = GATE.mend(None, wanted)
        if wanted.mode == "macvtap":
            site.host.must("ip link add mv0 link nic0 type macvlan mode bridge; ip link set mv0 up")
        site.host.must(site.manager.restart)
        site.renewed("nic0")
        assert GATE.look(made).ok, GATE.look(made).text
        if wanted.mode == "macvtap":
            site.host.must("ip link del mv0")
        GATE.end(made)
        site.same()


FIXED = {
    "systemd-networkd": f"""printf '[Match]\nName=nic0\n[Link]\nMTUBytes=1400\n[Network]\nAddress=192.0.2.7/24
Gateway=192.0.2.1\nDNS=192.0.2.54\n[Route]\nDestination=203.0.113.0/24\nGateway=192.0.2.1\nMetric=50
' >{NETWORKD}; networkctl reload""",
    "NetworkManager": """nmcli connection add type ethernet ifname nic0 con-name mine mtu 1400 \
ipv4.method manual ipv4.addresses 192.0.2.7/24 ipv4.gateway 192.0.2.1 ipv4.dns 192.0.2.54 \
ipv4.routes '203.0.113.0/24 192.0.2.1 50' ipv6.method link-local; nmcli -w 20 connection up mine""",
}


def test_a_fixed_address_its_routes_and_mtu_are_the_managers_to_move_too(
    site: Site, request: pytest.FixtureRequest
) -> None:
    site.host.must(FIXED[request.node.callspec.params["site"]])
    site.host.comes("ip -o addr show dev nic0 | grep -q 'inet 192.0.2.7/24'; ip route | grep 203.0")
    site.host.comes("! ip addr show dev nic0 | grep -q tentative")
    time.sleep(2)
    site.remember()
    assert list(GATE.problems(WANTED)) == []
    made = GATE.mend(None, WANTED)
    assert GATE.look(made).ok, GATE.look(made).text
    told = site.host.must(f"ip addr show dev {BRIDGE}; ip route; resolvectl dns {BRIDGE}")
    for each in ("192.0.2.7/24", "mtu 1400", f"dev {BRIDGE} proto static metric 50", "192.0.2.54"):
        assert each in told
    site.host.must(site.manager.restart)
    time.sleep(2)
    assert GATE.look(made).ok, GATE.look(made).text
    assert site.outer.reaches("192.0.2.7", 5)
    GATE.end(made)
    until = time.monotonic() + 20
    while site.looks() != site.before and time.monotonic() < until:
        time.sleep(0.3)
    assert site.looks() == site.before
    assert site.files() == site.beside


def test_what_a_bridge_would_not_have_is_refused_before_anything_is_made(site: Site) -> None:
    site.host.must("ip addr add 192.0.2.9/24 dev nic0")
    [(_, told)] = GATE.problems(WANTED)
    assert "does not have 192.0.2.9, which somebody set on nic0" in told
    assert "then say mode: bridge and bridge: br0" in told
    site.host.must("ip addr del 192.0.2.9/24 dev nic0; ip route add 203.0.113.0/24 via 192.0.2.1")
    [(_, told)] = GATE.problems(WANTED)
    assert "does not have the route 203.0.113.0/24" in told
    site.host.must("ip route del 203.0.113.0/24")
    site.same()
