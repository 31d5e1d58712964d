"""A closed network on a real kernel: what its machines reach of their host, and what is left when it is gone.

A host is a network namespace with two labs' bridges and a NIC, its machines are namespaces on these bridges. The rules
are iptables' own.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from components.kinds.libvirt.gates import closed as gates
from components.kinds.libvirt.gates.closed import Closed, ClosedGateProvider, opened
from components.kinds.libvirt.uplink.host import Host, NetError
from components.reach.shell import Result
from tests.support.netns import Namespace, cable, namespace, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.double,
    pytest.mark.spread,
    pytest.mark.skipif(bool(reason()), reason=reason() or "-"),
    pytest.mark.skipif(not shutil.which("iptables"), reason="needs iptables, as libvirt does"),
]
GATE = ClosedGateProvider()
IDENTITY = "0123456789abcdef"
LISTEN = """
import select, socket, sys
ports = [socket.create_server(("::", int(p)), family=socket.AF_INET6, dualstack_ipv6=True) for p in sys.argv[1:]]
asked = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
asked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
asked.bind(("::", 53))
print("up", flush=True)
while True:
    for each in select.select([*ports, asked], [], [])[0]:
        if each is asked: each.sendto(b"told", each.recvfrom(99)[1])
        else: each.accept()[0].close()
"""
CONNECT = """
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    try: socket.create_connection((address, int(port)), 1).close()
    except OSError: continue
    print(address, port)
"""
ASK = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); link.settimeout(1)
link.sendto(b"who", (sys.argv[1], int(sys.argv[2]))); link.recv(99)
"""
PORTS = (22, 53, 5900, 16509)
"""SSH's, DNS, a screen on all addresses, libvirt's."""
HOST = ("10.90.1.1", "10.90.2.1", "192.0.2.1")
"""The host in ana's network, in bob's, and on the network outside."""


@dataclass
class Site:
    """A host, ana's machine and bob's."""

    host: Namespace
    ana: Namespace
    bob: Namespace

    def wanted(self, number: int = 1, user: str = IDENTITY) -> Closed:
        """Properties of the gate of ana's network; 2: of bob's."""
        return Closed(
            name="lab-closed",
            uri="qemu:///system",
            bridge=f"nl000000000{number}",
            gateway=f"10.90.{number}.1",
            user=user,
        )

    def rules(self) -> str:
        """All that is in the host's tables."""
        return self.host.must("iptables -S", "ip6tables -S")


def reached(machine: Namespace) -> set[tuple[str, int]]:
    """Addresses and TCP ports of the host that ``machine`` can open."""
    ways = [(a, str(p)) for a in (*HOST, f"fe80::1%{machine.name}") for p in PORTS]
    told = machine.run([sys.executable, "-c", CONNECT, *(word for way in ways for word in way)]).out
    return {(line.split()[0], int(line.split()[1])) for line in told.splitlines()}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr(gates, "NOTED", str(tmp_path / "closed"))
    with contextlib.ExitStack() as stack:
        host, ana, bob = (stack.enter_context(namespace(name)) for name in ("host", "ana", "bob"))
        monkeypatch.setattr(gates, "host_shell", lambda _: host)
        host.must("sysctl -qw net.ipv4.ip_forward=1", "ip link add out type bridge")
        host.must("ip link set out up", "ip addr add 192.0.2.1/24 dev out")
        for number, machine in enumerate((ana, bob), 1):
            bridge = f"nl000000000{number}"
            # Else a link-local address is of no use in its first second.
            machine.must("sysctl -qw net.ipv6.conf.default.accept_dad=0")
            cable(host, machine, {f"tap{number}": machine.name})
            host.must(
                f"ip link add {bridge} type bridge",
                f"ip link set tap{number} master {bridge}",
                f"ip link set {bridge} up",
                f"ip addr add 10.90.{number}.1/24 dev {bridge}",
                f"ip -6 addr add fe80::1/64 dev {bridge} nodad",
            )
            machine.must(
                f"ip addr add 10.90.{number}.2/24 dev {machine.name}",
                f"ip route add default via 10.90.{number}.1",
            )
        words = [*host.inside, sys.executable, "-c", LISTEN, *map(str, PORTS)]
        listening = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        stack.callback(listening.kill)
        assert listening.stdout
        listening.stdout.readline()
        yield Site(host, ana, bob)


def test_machines_of_a_closed_network_reach_dns_and_ping_and_no_more_of_their_host(
    site: Site,
) -> None:
    everything = {(address, port) for address in (*HOST, "fe80::1%ana") for port in PORTS}
    assert reached(site.ana) == everything, "what has to be closed is open"
    made = GATE.mend(None, site.wanted())
    assert reached(site.ana) == {("10.90.1.1", 53)}
    assert site.ana.run([sys.executable, "-c", ASK, "10.90.1.1", "53"]).ok
    assert not site.ana.run([sys.executable, "-c", ASK, "10.90.2.1", "53"]).ok
    assert site.ana.run(["ping", "-c1", "-W1", "10.90.1.1"]).ok == bool(shutil.which("ping"))
    assert not site.ana.run(["ping", "-c1", "-W1", "10.90.2.1"]).ok
    assert len(reached(site.bob)) == len(everything), "bob's network was not closed"
    assert GATE.look(made).ok
    # What the host itself begins is answered.
    server = subprocess.Popen(
        [*site.ana.inside, sys.executable, "-c", LISTEN, "22"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        server.stdout.readline()
        assert site.host.run([sys.executable, "-c", CONNECT, "10.90.1.2", "22"]).out
    finally:
        server.kill()
        server.communicate()


def test_layer_2_ends_at_the_bridge(site: Site) -> None:
    GATE.mend(None, site.wanted())
    frame = b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5" + b"from ana".ljust(60, b".")
    program = (
        "import socket,sys; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(0x88b5));"
        "s.bind((sys.argv[1],0));"
    )
    hears = subprocess.Popen(
        [*site.bob.inside, sys.executable, "-c", program
         + "s.settimeout(2); print('up',flush=True); print(s.recv(99))", "bob"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert hears.stdout
    hears.stdout.readline()
    sent = [*site.ana.inside, sys.executable, "-c", program + f"s.send({frame!r})", "ana"]
    subprocess.run(sent, check=True)
    told, _ = hears.communicate()
    assert told == "", "a frame of ana's came to bob"


def test_the_host_answers_arp_for_its_address_there_alone(site: Site) -> None:
    def answered() -> list[str]:
        """Which of the host's addresses ana gets a MAC for, on her own link."""
        found = []
        for address in HOST:
            site.ana.must(f"ip neigh flush dev ana; ip route replace {address} dev ana")
            site.ana.run([sys.executable, "-c", CONNECT, address, "22"])
            told = site.ana.must(f"ip neigh show {address} dev ana")
            if "lladdr" in told:
                found.append(address)
        return found

    assert answered() == list(HOST), "what has to be closed is open"
    made = GATE.mend(None, site.wanted())
    assert answered() == ["10.90.1.1"]
    site.host.must("echo 0 >/proc/sys/net/ipv4/conf/nl0000000001/arp_ignore")
    assert not GATE.look(made).ok
    GATE.retire(GATE.mend(made, site.wanted()))
    assert site.host.must("cat /proc/sys/net/ipv4/conf/nl0000000001/arp_ignore").strip() == "0"


def test_what_somebody_lets_in_before_is_seen_and_put_behind(site: Site) -> None:
    made = GATE.mend(None, site.wanted())
    # Of IPv6 all, as asking for a neighbour is a packet too.
    for table, let_in in (("iptables", "-p tcp --dport 22"), ("ip6tables", "")):
        site.host.must(f"{table} -I INPUT -i lo -j ACCEPT")
        assert GATE.look(made).ok, "that is no machine's"
        site.host.must(f"{table} -I INPUT {let_in} -j ACCEPT")
        assert any(port == 22 for _, port in reached(site.ana)), "what has to be closed is open"
        assert not GATE.look(made).ok
        made = GATE.mend(made, site.wanted())
        assert GATE.look(made).ok
        assert reached(site.ana) == {("10.90.1.1", 53)}
    GATE.retire(made)
    assert "nestlab" not in site.rules()


def test_rules_that_a_firewall_flushed_are_seen_and_written_again(site: Site) -> None:
    made = GATE.mend(None, site.wanted())
    for harm in ("iptables -F INPUT", f"iptables -F nestlab-{made.bridge}", "ip6tables -F INPUT"):
        site.host.must(harm)
        seen = GATE.look(made)
        assert not seen.ok, harm
        assert "not closed any more" in seen.text
        made = GATE.mend(made, site.wanted())
        assert GATE.look(made).ok
        assert reached(site.ana) == {("10.90.1.1", 53)}
    before = site.rules()
    GATE.mend(made, site.wanted())
    assert site.rules() == before, "a second time changes nothing"


def test_of_a_network_that_goes_no_rule_is_left_and_others_stay(site: Site) -> None:
    site.host.must(
        'iptables -A INPUT -p tcp --dport 9 -j DROP -m comment --comment "it\'s nestlab-"'
    )
    before = site.rules()
    other = GATE.mend(None, site.wanted(2, "fedcba9876543210"))
    made = GATE.mend(None, site.wanted())
    GATE.retire(made)
    assert GATE.look(other).ok
    GATE.retire(made)
    moved = GATE.mend(GATE.mend(None, site.wanted()), replace(site.wanted(), bridge="nl0000000003"))
    assert "nl0000000001" not in site.rules(), (
        "a network that has another bridge leaves none behind"
    )
    GATE.retire(moved)
    # A kill between making and noting: the lab's last step finds what no state knows.
    GATE.mend(None, site.wanted())
    assert opened(Host(site.host), IDENTITY) == [made.bridge]
    assert opened(Host(site.host), IDENTITY) == []
    assert GATE.look(other).ok
    GATE.retire(other)
    assert site.rules() == before


def test_without_root_it_is_told_what_to_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class User:
        name = "there"

        def run(self, argv: list[str], **_: object) -> Result:
            if argv[0] == "id":
                return Result(0, "1000\n", "")
            assert argv[:2] == ["sudo", "-n"]
            return Result(1, "", "sudo: a password is required")

    monkeypatch.setattr(gates, "host_shell", lambda _: User())
    with pytest.raises(NetError, match=r"(?s)sudo -v.*closed: false does without"):
        GATE.mend(None, replace(site.wanted(), rules=None))
    assert socket.has_ipv6
