"""Uplinks on a real kernel: a bridge made on a NIC, taken back, confirmed, killed at every step, destroyed.

A host is a network namespace, its NIC a veth whose other end is the outer network. A failure here means that a
host is lost to its owner, or is not as it was when a lab is gone.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from components.kinds.libvirt.gates import network as networks
from components.kinds.libvirt.gates import uplink as gates
from components.kinds.libvirt.gates.uplink import Uplink, UplinkGateProvider
from components.kinds.libvirt.uplink import trial
from components.kinds.libvirt.uplink.host import RECORDS, Host, NetError
from components.kinds.libvirt.uplink.report import report
from components.kinds.libvirt.uplink.steps import steps
from components.kinds.libvirt.uplink.trial import Trial, swept
from components.kinds.libvirt.virsh import Virsh
from components.reach.client import host_shell
from components.reach.shell import LOCAL, Unreachable
from tests.support.netns import BRIDGE, ON_A_NIC, Namespace, cable, namespace, reason
from tests.support.sshd import SSHD, USER, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.double,
    pytest.mark.spread,
    pytest.mark.skipif(bool(reason()), reason=reason() or "-"),
]
GATE = UplinkGateProvider()
ECHO = """
import socket, sys
server = socket.create_server(("192.0.2.5", 7))
print("up", flush=True)
link, _ = server.accept()
while data := link.recv(100): link.sendall(data)
"""
TALK = """
import socket, sys
link = socket.create_connection(("192.0.2.5", 7), 5)
link.settimeout(20)
for line in sys.stdin:
    link.sendall(line.encode()); print(link.recv(100).decode(), end="", flush=True)
"""


@dataclass
class Session:
    """A TCP connection from the outer network to the host, through its NIC."""

    server: subprocess.Popen[str]
    client: subprocess.Popen[str]
    said: int = 0

    def holds(self) -> None:
        """Say something on it, and hear it back."""
        self.said += 1
        assert self.client.stdin
        assert self.client.stdout
        self.client.stdin.write(f"{self.said}\n")
        self.client.stdin.flush()
        assert self.client.stdout.readline() == f"{self.said}\n", "the connection was lost"


@dataclass
class Site:
    """A host, and the network that it is on."""

    host: Namespace
    outer: Namespace
    before: object = field(default=None)

    def session(self, stack: contextlib.ExitStack) -> Session:
        """Open a connection that has to survive."""
        sides = []
        for where, program in ((self.host, ECHO), (self.outer, TALK)):
            side = subprocess.Popen(
                [*where.inside, sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(side)
            stack.callback(side.kill)
            sides.append(side)
            if program is ECHO:
                assert side.stdout
                side.stdout.readline()
        return Session(sides[0], sides[1])

    def reached(self) -> bool:
        """Whether somebody on the outer network reaches the host."""
        return self.outer.reaches("192.0.2.5")

    def wanted(self, **words: object) -> Uplink:
        """Properties of an uplink of it."""
        return replace(ON_A_NIC, **words)  # type: ignore[arg-type]

    def record(self) -> str:
        """State of the record on the host; empty for none."""
        done = self.host.run(["cat", f"{RECORDS}/{self.host.number}/{BRIDGE}/state"])
        return done.out.strip()

    def same(self) -> None:
        """The host's network is what it was, once the kernel has asked whether somebody has its addresses."""
        self.quiet()
        assert self.host.network() == self.before
        assert self.reached()

    def quiet(self) -> None:
        """Wait until no address of the host is asked about any more (RFC 4862, 5.4), and bridges know their ports."""
        until = time.monotonic() + 10
        before, now = None, self.host.network()
        while "tentative" in self.host.must("ip addr") or before != now:
            assert time.monotonic() < until
            time.sleep(0.2)
            before, now = now, self.host.network()

    def unplugged(self, tap: str) -> None:
        """Wait until the kernel has taken ``tap`` away, whose other end went with a namespace."""
        self.host.must(f"while ip link show {tap} 2>/dev/null; do sleep 0.1; done")

    def settled(self, state: str, within_s: float = 10) -> None:
        """Wait until the host itself has come to ``state``."""
        until = time.monotonic() + within_s
        while self.record() != state:
            assert time.monotonic() < until, f"the record is {self.record()!r}, not {state}"
            time.sleep(0.1)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with namespace("host") as host, namespace("outer") as outer:
        cable(host, outer, {"nic0": "port0"})
        outer.must("ip addr add 192.0.2.1/24 dev port0; ip addr add 2001:db8::1/64 nodad dev port0")
        host.must(
            "ip addr add 192.0.2.5/24 brd + dev nic0",
            "ip addr add 192.0.2.6/24 dev nic0",
            "ip addr add 198.51.100.1/32 dev nic0 label nic0:x",
            "ip addr add 10.1.1.1 peer 10.1.1.2/32 dev nic0",
            "ip addr add 2001:db8::5/64 nodad dev nic0",
            "ip addr add 2001:db8::6/64 nodad dev nic0",
            "ip addr add 192.0.2.8/24 preferred_lft 0 dev nic0",
            "ip addr add 2001:db8::8/64 nodad preferred_lft 0 dev nic0",
            "ip addr add 2001:db8::9/64 nodad mngtmpaddr dev nic0",
            "ip route add default via 192.0.2.1 proto static metric 100",
            "ip route add 203.0.113.0/24 via 192.0.2.1 dev nic0 onlink mtu 1400 table 77",
            "ip route add blackhole 10.9.0.0/16",
            "ip -6 route add 2001:db8:1::/48 via 2001:db8::1",
            "ip rule add from 192.0.2.6 table 77",
            "ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev nic0 nud permanent",
            "ip neigh add proxy 192.0.2.77 dev nic0",
        )
        monkeypatch.setattr(gates, "host_shell", lambda _: host)
        made = Site(host, outer)
        made.quiet()
        made.before = host.network()
        assert made.reached()
        yield made


def test_a_bridge_is_made_on_a_nic_and_taken_back_and_a_connection_holds(site: Site) -> None:
    # Somebody's own, as routers have one.
    site.host.must("ip addr add fe80::1/64 nodad dev nic0")
    site.quiet()
    site.before = site.host.network()
    with contextlib.ExitStack() as stack:
        session = site.session(stack)
        session.holds()
        wanted = site.wanted()
        assert list(GATE.problems(wanted)) == []
        made = GATE.mend(None, wanted)
        session.holds()
        assert GATE.look(made).ok, GATE.look(made).text
        assert site.record() == "confirmed"
        told = site.host.must("ip -br addr show dev nic0; ip route show default")
        assert "192.0.2" not in told.splitlines()[0]
        assert BRIDGE in told.splitlines()[1]
        guest = "ip link add tap0 type veth peer name eth0 netns {}; ip link set tap0 up master {}"
        with namespace("guest") as inside:
            site.host.must(guest.format(inside.holder.pid, BRIDGE))
            inside.must("ip link set eth0 up; ip addr add 192.0.2.50/24 dev eth0")
            assert inside.reaches("192.0.2.1")
            assert inside.reaches("192.0.2.5")
            assert site.outer.reaches("192.0.2.50", 2)
            with pytest.raises(NetError, match="tap0 is still plugged into"):
                GATE.end(made)
        site.unplugged("tap0")
        session.holds()
        GATE.end(made)
        session.holds()
    site.same()
    assert site.record() == ""


def test_what_nobody_confirms_takes_itself_back(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        session = site.session(stack)
        host = Host(site.host)
        wanted = site.wanted().wanted
        made = steps(host.look("nic0"), wanted)
        text = trial.program(BRIDGE, "nic0", made, 2)
        host.must(trial.BEGIN, BRIDGE, "aa.lan", stdin=text.encode())
        site.settled("moved")
        assert BRIDGE in site.host.must("ip route show default")
        session.holds()
        site.settled("undone")
        session.holds()
    site.same()
    made_again = GATE.mend(None, site.wanted())
    assert site.record() == "confirmed"
    GATE.end(made_again)
    site.same()


def test_a_gateway_that_is_lost_takes_it_back_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Trial._answering

    def behind(self: Trial, device: str, gateways: list[str]) -> list[str]:
        if device == BRIDGE:
            site.outer.must("ip link set port0 down")
        return asked(self, device, gateways)

    monkeypatch.setattr(Trial, "_answering", behind)
    with pytest.raises(NetError, match=r"192\.0\.2\.1.* answered behind nic0 and did not behind"):
        GATE.mend(None, site.wanted())
    site.outer.must("ip link set port0 up")
    assert site.host.must("ip -o link show type bridge") == ""
    until = time.monotonic() + 10
    while not site.reached():
        assert time.monotonic() < until
    site.same()


def test_a_remote_host_is_never_lost_though_our_ssh_runs_through_that_nic(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """qemu+ssh: each command is a connection of its own, through the NIC that is being bridged."""
    if SSHD is None:
        pytest.skip("sshd of openssh-server is not installed")
    server = Server(tmp_path / "sshd")
    settings = server.folder / "config"
    settings.write_text(settings.read_text().replace("127.0.0.1", "192.0.2.5"))
    known, key, ssh = (tmp_path / name for name in ("known", "key", "ssh"))
    known.write_text(f"[192.0.2.5]:{server.port} {server.host_key}\n")
    key.touch(0o600)
    key.write_text(server.private)
    # As a computer on the outer network calls it.
    ssh.write_text(f'#!/bin/sh\nexec {shlex.join(site.outer.inside)} /usr/bin/ssh "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(gates, "host_shell", host_shell)
    files = f"keyfile={key}&knownhosts={known}"
    wanted = site.wanted(
        uri=f"qemu+ssh://{USER}@192.0.2.5:{server.port}/system?{files}", confirm_s=8
    )
    with subprocess.Popen([*site.host.inside, SSHD, "-D", "-e", "-f", str(settings)]) as running:
        try:
            until = time.monotonic() + 10
            while not site.outer.connects("192.0.2.5", server.port):
                assert time.monotonic() < until
            assert list(GATE.problems(wanted)) == []
            made = GATE.mend(None, wanted)
            assert GATE.look(made).ok
            GATE.end(made)
            site.same()
            asked = Trial._answering

            def cut(self: Trial, device: str, gateways: list[str]) -> list[str]:
                if device == BRIDGE:
                    site.outer.must("ip link set port0 down")
                return asked(self, device, gateways)

            monkeypatch.setattr(Trial, "_answering", cut)
            with pytest.raises(Unreachable, match="it takes that back by itself within 8 s"):
                GATE.mend(None, wanted)
            site.settled("undone", 30)
            site.outer.must("ip link set port0 up")
            until = time.monotonic() + 10
            while not site.reached():
                assert time.monotonic() < until
            site.same()
        finally:
            running.kill()


SHIM = """#!/bin/sh
# Kills whoever calls it for the Nth time, before or after it does its work.
n=$(($(cat {count} 2>/dev/null || echo 0) + 1)); echo $n >{count}
[ $n = {nth} ] && [ {when} = before ] && kill -9 $PPID
{ip} "$@"; code=$?
[ $n = {nth} ] && [ {when} = after ] && kill -9 $PPID
exit $code
"""


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_step_the_host_is_reached_and_the_next_command_mends(
    site: Site, tmp_path: Path, seed: int
) -> None:
    """The one who makes it is killed; in every second run, the one who watches too."""
    chance = random.Random(seed)  # noqa: S311 - which step, not a secret
    ip = subprocess.run(["which", "ip"], capture_output=True, text=True, check=True).stdout.strip()
    shim, count = tmp_path / "ip", tmp_path / "count"
    count.write_text("-1000")  # not yet
    host = Host(site.host)
    wanted = site.wanted()
    made = steps(host.look("nic0"), wanted.wanted)
    commands = sum(words[0] == "ip" for words in made.make)
    nth, when = chance.randint(1, commands), chance.choice(["before", "after"])
    shim.write_text(SHIM.format(count=count, nth=nth, when=when, ip=ip))
    shim.chmod(0o755)
    site.host.path = str(tmp_path)
    text = trial.program(BRIDGE, "nic0", made, 2)
    count.write_text("0")
    host.must(trial.BEGIN, BRIDGE, "aa.lan", stdin=text.encode())
    until = time.monotonic() + 10
    while int(count.read_text() or 0) < nth:
        assert time.monotonic() < until
        time.sleep(0.02)
    site.host.path = ""
    if seed % 2:
        place = f"{RECORDS}/{site.host.number}/{BRIDGE}"
        watcher = site.host.must(f"fuser {place}/alive 2>/dev/null || true").split()
        for pid in watcher:
            site.host.run(["kill", "-9", pid])
        assert watcher, "somebody watches over it"
    else:
        site.settled("undone")
        site.same()
    done = GATE.mend(None, wanted)
    assert GATE.look(done).ok
    assert site.reached()
    GATE.end(done)
    site.same()


HARMS = {
    "the member is gone": ("ip link set nic0 nomaster", "no port of"),
    "an address moved": (
        f"ip addr del 192.0.2.5/24 dev {BRIDGE}; ip addr add 192.0.2.5/24 dev nic0",
        "192.0.2.5/24 is not on",
    ),
    "the route is gone": ("ip route del default", "the route default via 192.0.2.1"),
    "the bridge is off": (f"ip link set {BRIDGE} down", "switched off"),
    "the bridge is gone": (f"ip link del {BRIDGE}", "not there any more"),
    "the record is gone": (f"rm -rf {RECORDS}/$(stat -Lc %i /proc/self/ns/net)", "no record"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_drift_is_seen_and_mended_and_taken_back(
    site: Site, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = HARMS[harm]
    plugged: list[str] = []
    monkeypatch.setattr(Virsh, "plug", lambda _, network: plugged.append(network))
    made = GATE.mend(None, site.wanted())
    site.host.must(command)
    seen = GATE.look(made)
    assert not seen.ok
    assert words in seen.text
    mended = GATE.mend(made, site.wanted())
    assert plugged == ["lab-lan"], "guests that ran on keep loose taps"
    assert GATE.look(mended).ok
    assert site.reached()
    GATE.end(mended)
    site.same()


@pytest.mark.parametrize(
    ("set_there", "words"),
    [
        (f"ip addr add 192.0.2.44/24 dev {BRIDGE}", "192.0.2.44/24 was set on"),
        (f"ip route add 10.88.0.0/16 via 192.0.2.1 dev {BRIDGE}", "route 10.88.0.0/16 via"),
    ],
)
def test_what_somebody_set_on_the_bridge_meanwhile_is_not_lost(
    site: Site, set_there: str, words: str
) -> None:
    made = GATE.mend(None, site.wanted())
    other = GATE.mend(None, site.wanted(user="bb.lan"))
    site.host.must(set_there)
    GATE.end(other)  # it takes nothing away
    with pytest.raises(NetError, match=re.escape(words)):
        GATE.end(made)
    assert GATE.look(made).ok
    assert site.reached()
    site.host.must(set_there.replace(" add ", " del "))
    GATE.end(made)
    site.same()


def test_who_sets_the_nic_up_again_by_hand_has_ipv6_again(site: Site) -> None:
    made = GATE.mend(None, site.wanted())
    site.host.must(
        f"ip link del {BRIDGE}",
        "ip addr add 192.0.2.5/24 brd + dev nic0; ip route add default via 192.0.2.1",
    )
    mended = GATE.mend(made, site.wanted())
    assert GATE.look(mended).ok
    GATE.end(mended)
    site.quiet()
    assert site.host.must("cat /proc/sys/net/ipv6/conf/nic0/disable_ipv6") == "0\n"
    assert "192.0.2.5/24" in site.host.must("ip -br addr show dev nic0")
    assert site.reached()


def test_a_record_that_was_not_whole_is_none(site: Site) -> None:
    """Killed while it was written: what another lab made since is not taken back by it."""
    host = Host(site.host)
    cut = trial.BEGIN.partition("mv -T")[0]
    text = trial.program(BRIDGE, "nic0", steps(host.look("nic0"), site.wanted().wanted), 2)
    host.must(cut, BRIDGE, "aa.lan", stdin=text.encode())
    made = GATE.mend(None, site.wanted(user="bb.lan"))
    assert swept(host, "aa") == []
    assert GATE.look(made).ok
    GATE.end(made)
    site.same()


def test_labs_share_the_bridge_of_a_nic_and_the_last_one_takes_it_away(site: Site) -> None:
    first = GATE.mend(None, site.wanted())
    second = GATE.mend(None, site.wanted(user="bb.lan"))
    assert first.program == second.program
    GATE.end(first)
    assert GATE.look(second).ok
    assert not GATE.look(first).ok, "the first lab has left"
    assert swept(Host(site.host), "aa") == []
    assert swept(Host(site.host), "bb") == [BRIDGE]
    site.same()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("ip link add br0 type bridge; ip link set nic0 master br0", "a port of br0 already"),
        ("ip link add mt0 link nic0 type macvtap mode bridge", "mt0 on nic0 takes its frames"),
        ("ip addr add 192.0.2.9/24 dev nic0 valid_lft 900 preferred_lft 900", "ends in"),
        ("ip rule add iif nic0 table 77", "is about nic0"),
        ("ip route add 10.66.0.0/16 nexthop via 192.0.2.1 nexthop via 192.0.2.2", "several ways"),
        ("ip link set nic0 down", "is switched off: `ip link set nic0 up`"),
        ("ip addr add 2001:db8::99/128 nodad valid_lft 900 preferred_lft 900 dev nic0", "ends in"),
        ("ip route add 10.66.0.0/16 via 192.0.2.1 rtt 100ms", "does not know to move (rtt)"),
        ("ip route add 10.66.0.0/16 via 192.0.2.1 congctl reno", "does not know to move"),
        (
            """ip link add nic1 type veth peer name p1; ip link set nic1 up
            ip addr add 198.18.0.2/24 dev nic1
            ip route prepend default via 198.18.0.1 dev nic1 metric 100""",
            "is there through nic1 too",
        ),
        (
            "ip link add vx0 type vxlan id 5 remote 192.0.2.1 dev nic0 dstport 4789",
            "vx0 (vxlan) sends by nic0 itself",
        ),
        ("iptables -A INPUT -i nic0 -p tcp --dport 23 -j DROP", "is about nic0 (`-A INPUT -i nic0"),
        ("ip6tables -A FORWARD -o ni+ -j DROP", "is about nic0 (`-A FORWARD -o ni+"),
        (f"ip link add {BRIDGE} type bridge", "which nestlab did not make"),
    ],
)
def test_what_cannot_be_taken_back_exactly_is_refused_in_preview(
    site: Site, harm: str, words: str
) -> None:
    site.host.must(harm)
    said = " ".join(why for _, why in GATE.problems(site.wanted()))
    assert words in said
    assert "no NIC eth9" in " ".join(why for _, why in GATE.problems(site.wanted(nic="eth9")))
    with pytest.raises(NetError, match="host: "):
        GATE.mend(None, site.wanted())


def test_a_bridge_of_somebody_elses_has_to_be_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "host_shell", lambda _: site.host)
    joins = networks.Network(
        name="lan",
        target=LOCAL,
        uri="qemu:///system",
        network="lab-lan",
        instance="a",
        reservations=[],
        bridge="br0",
    )
    gate = networks.NetworkGateProvider()
    assert "no bridge br0 and no other: make it" in next(iter(gate.problems(joins)))[1]
    site.host.must("ip link add br0 type bridge; ip link set br0 up")
    assert list(gate.problems(joins)) == []


def test_the_doctor_tells_nics_from_what_programs_made(site: Site) -> None:
    wanted = {"o": site.wanted().wanted, "x": site.wanted(nic="eth9").wanted}
    told = report(Host(site.host), wanted)
    assert told.nics == [], "a veth is no NIC"
    assert len(told.problems) == 1
    assert told.problems[0].startswith("network x: there is no NIC eth9: take one of nic0")


def test_macvtap_reaches_the_outer_network_and_leaves_nothing(site: Site) -> None:
    made = GATE.mend(None, site.wanted(mode="macvtap", bridge=""))
    assert GATE.look(made).ok
    with namespace("guest") as guest:
        # What libvirt does for an interface of type direct (virnetdevmacvlan.c); the tap is QEMU's.
        site.host.must(
            f"ip link add mv0 link nic0 type macvlan mode bridge; ip link set mv0 netns {guest.holder.pid}"
        )
        guest.must("ip link set mv0 up; ip addr add 192.0.2.50/24 dev mv0")
        assert guest.reaches("192.0.2.1")
        assert site.outer.reaches("192.0.2.50", 2)
        assert not guest.reaches("192.0.2.5", 1), "that is what macvtap is"
    GATE.end(made)
    site.same()
    site.host.must("ip link set nic0 down")
    assert "switched off" in GATE.look(made).text


def test_a_vlan_is_refused_by_a_kernel_without_and_nothing_is_left(site: Site) -> None:
    vlan = site.wanted(vlan=20)
    if site.host.run(["sh", "-c", "ip link add link nic0 name v type vlan id 9"]).ok:
        site.host.must("ip link del v")
        made = GATE.mend(None, vlan)
        site.outer.must(
            "ip link add link port0 name port0.20 type vlan id 20; ip link set port0.20 up",
            "ip addr add 203.0.113.1/24 dev port0.20",
        )
        with namespace("guest") as guest:
            site.host.must(
                f"ip link add tap0 type veth peer name eth0 netns {guest.holder.pid}",
                f"ip link set tap0 up master {BRIDGE}",
            )
            guest.must("ip link set eth0 up; ip addr add 203.0.113.9/24 dev eth0")
            assert guest.reaches("203.0.113.1")
        site.unplugged("tap0")
        GATE.end(made)
    else:
        with pytest.raises(NetError, match="everything is as it was"):
            GATE.mend(None, vlan)
    site.same()


def test_proxy_arp_brings_planned_addresses_to_the_outer_network(site: Site) -> None:
    with namespace("guest") as guest:
        # What libvirt makes of a routed network: a bridge with the subnet's first address.
        site.host.must(
            f"ip link add virbr9 type bridge; ip link add tap0 type veth peer name eth0 netns {guest.holder.pid}",
            "ip link set tap0 up master virbr9; ip link set virbr9 up",
            "ip addr add 192.0.2.97/28 dev virbr9; echo 1 >/proc/sys/net/ipv4/ip_forward",
        )
        guest.must("ip link set eth0 up; ip addr add 192.0.2.98/28 dev eth0")
        guest.must("ip route add default via 192.0.2.97")
        site.host.must("until ip link show virbr9 | grep -q 'state UP'; do sleep 0.1; done")
        site.quiet()
        site.before = site.host.network()
        wanted = site.wanted(
            mode="proxy_arp", bridge="", subnet="192.0.2.96/28", addresses=["192.0.2.98"]
        )
        assert list(GATE.problems(wanted)) == []
        assert not site.outer.reaches("192.0.2.98", 1)
        made = GATE.mend(None, wanted)
        assert GATE.look(made).ok
        [(_, why)] = GATE.problems(site.wanted())
        assert "a routed network of nestlab's is on nic0" in why
        assert site.outer.reaches("192.0.2.98", 2)
        assert guest.reaches("192.0.2.1")
        site.host.must("ip neigh del proxy 192.0.2.98 dev nic0")
        assert "192.0.2.98" in GATE.look(made).text
        more = replace(wanted, addresses=["192.0.2.98", "192.0.2.99"])
        mended = GATE.mend(made, more)
        assert GATE.look(mended).ok
        site.outer.must("ip addr add 192.0.2.100/32 dev port0")
        with pytest.raises(NetError, match=r"has 192\.0\.2\.100 already"):
            GATE.mend(mended, replace(more, addresses=[*more.addresses, "192.0.2.100"]))
        assert GATE.look(mended).ok, "what was refused took nothing away"
        assert site.outer.reaches("192.0.2.98", 2)
        site.outer.must("ip addr del 192.0.2.100/32 dev port0")
        GATE.end(mended)
        site.same()
        said = [why for _, why in GATE.problems(replace(wanted, subnet="10.9.9.0/28"))]
        assert "no part of the network of nic0" in said[0]
        said = [why for _, why in GATE.problems(replace(wanted, subnet="192.0.2.0/28"))]
        assert "192.0.2.5 is nic0 itself" in said[0]
        site.outer.must("ip addr add 192.0.2.98/32 dev port0")
        with pytest.raises(NetError, match=r"has 192\.0\.2\.98 already"):
            GATE.mend(None, wanted)
        site.outer.must("ip addr del 192.0.2.98/32 dev port0")
    site.host.must("until ip link show virbr9 | grep -q 'state DOWN'; do sleep 0.1; done")
    site.quiet()
    site.before = site.host.network()
    site.same()
