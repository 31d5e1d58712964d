"""A closed network on this machine's own libvirt, seen from a shell in a nested KVM host on it.

Its neighbour is a second network of libvirt's, with a namespace for a guest. What has to be closed is open first.
The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.test_lab import changes
from tests.support.checkout import URI, virsh
from tests.support.netns import namespace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.checkout import Checkout

pytestmark = [
    pytest.mark.host,
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="a neighbour in a namespace needs root"),
]
PORTS = (2222, 5999, 16509)
"""SSH's, a screen's and libvirt's, as somebody's host has them on all addresses."""
LISTEN = """
import select, socket, sys
ports = [socket.create_server(("::", int(p)), family=socket.AF_INET6, dualstack_ipv6=True) for p in sys.argv[1:]]
print("up", flush=True)
while True:
    for each in select.select(ports, [], [])[0]: each.accept()[0].close()
"""
ASK = r"""
for a; do
  for p in 53 @PORTS@; do
    timeout 3 bash -c ': <"/dev/tcp/$0/$1"' "$a" "$p" 2>/dev/null && echo "$a $p"
  done
  busybox ping -c 1 -W 2 "$a" >/dev/null 2>&1 && echo "$a ping"
done
exit 0
""".replace("@PORTS@", " ".join(map(str, PORTS)))
OWN_LOCAL = 'ip -6 addr replace "fe80::$1/64" dev eth0 nodad'
"""The image's NIC has no address of IPv6; whoever is root there gives it one."""
LEASED = "busybox udhcpc -f -n -q -t 3 -s /bin/true -i eth0 2>&1"
NETWORK = """<network><name>{name}</name><forward mode='nat'/><bridge name='{bridge}'/>
<ip address='{gateway}' netmask='255.255.255.0'/></network>"""


@dataclass
class Site:
    """The lab's nested host, and what is beside it; addresses are the outer host's but for the last."""

    lab: Checkout
    own: str
    """On the lab's network."""
    local: str
    """There too, of IPv6 and its link alone."""
    gateway: str
    """On the neighbour's network."""
    guest: str
    """The neighbour's."""
    bridge: str
    """Of the lab's network."""

    def asked(self, script: str, *words: str) -> str:
        """Run a script of the shell in the nested host, as somebody does who is logged in there."""
        done = self.lab.inside("sh", "-c", script, "sh", *words)
        assert done.code == 0, done.said
        return done.said

    def reached(self) -> set[tuple[str, str]]:
        """Addresses, and what of them answers: a port, or ping."""
        self.asked(OWN_LOCAL, "77")
        said = self.asked(ASK, self.own, f"{self.local}%eth0", self.gateway, self.guest)
        return {(row.split()[0], row.split()[1]) for row in said.splitlines()}

    def neighbours(self, *addresses: str) -> set[str]:
        """Which of ``addresses`` somebody answers ARP for on the nested host's own link."""
        script = 'for a; do busybox arping -q -c 2 -w 3 -I eth0 "$a" && echo "$a"; done; exit 0'
        return set(self.asked(script, *addresses).split())


@contextlib.contextmanager
def serving(where: Sequence[str] = ()) -> Iterator[None]:
    """Have `PORTS` open on all addresses, ``where`` a command begins with that is to run elsewhere."""
    words = [*where, sys.executable, "-c", LISTEN, *map(str, PORTS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "up\n"
            yield
        finally:
            server.kill()


@pytest.fixture(scope="module")
def site(checkout: Checkout) -> Iterator[Site]:
    def bare(lab: dict[str, Any]) -> None:
        lab["hypervisors"]["kvm1"] |= {"guests": {}, "containers": {}, "networks": {}}
        lab["media"] = {}

    checkout.edit(bare)
    for target in ("toolchain", "host", "image", "doctor", "up"):
        done = checkout.make_target(target)
        assert done.code == 0, done.said
    name, bridge = f"{checkout.lab}-beside", f"nlt{uuid.uuid4().hex[:9]}"
    gateway, guest = (checkout.subnets[1].replace("0/24", end) for end in ("1", "2"))
    with contextlib.ExitStack() as stack:
        xml = NETWORK.format(name=name, bridge=bridge, gateway=gateway)
        made = ["virsh", "-q", "-c", URI, "net-create", "/dev/stdin"]
        subprocess.run(made, input=xml, text=True, check=True, timeout=60)
        stack.callback(virsh, "net-destroy", name)
        inside = stack.enter_context(namespace("beside"))
        tap = f"t{bridge[3:]}"
        end = f"ip link add {tap} type veth peer name eth0 netns {inside.holder.pid}"
        subprocess.run(["sh", "-ec", f"{end}; ip link set {tap} master {bridge} up"], check=True)
        inside.must("ip link set eth0 up", f"ip addr add {guest}/24 dev eth0")
        inside.must(f"ip route add default via {gateway}")
        for where in ([], inside.inside):
            stack.enter_context(serving(where))
        told = ET.fromstring(virsh("net-dumpxml", f"{checkout.lab}-lab"))  # noqa: S314 - libvirt's
        mac = [int(byte, 16) for byte in told.findall("mac")[0].attrib["address"].split(":")]
        mac = [mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]]  # RFC 4291, appendix A
        local = "fe80::" + bytes(mac).hex(":", 2)
        own, on = checkout.subnets[0].replace("0/24", "1"), told.findall("bridge")[0]
        yield Site(checkout, own, local, gateway, guest, on.attrib["name"])


def test_what_has_to_be_closed_is_open_without(site: Site) -> None:
    ports = {str(port) for port in PORTS}
    seen = site.reached()
    assert {(site.own, port) for port in ports} <= seen
    assert {(site.gateway, port) for port in ports} <= seen, "the neighbour's gateway is the host's"
    assert (site.own, "53") in seen


def test_a_closed_lab_reaches_dhcp_dns_and_ping_and_nothing_of_its_neighbour(site: Site) -> None:
    def close(lab: dict[str, Any]) -> None:
        lab["networks"]["lab"]["closed"] = True

    site.lab.edit(close)
    said = site.lab.up()
    assert set(changes(said)) <= {"created", "updated", "unchanged"}, said
    assert site.reached() == {(site.own, "53"), (site.own, "ping")}
    assert "obtained" in site.asked(LEASED), "its own address is leased as before"
    assert site.neighbours(site.own, site.guest) == {site.own}, "layer 2 ends at the bridge"
    assert set(changes(site.lab.up())) == {"unchanged"}


def test_nothing_of_it_is_left(site: Site) -> None:
    site.lab.down()
    rules = subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout
    assert site.bridge not in rules
    left = [each for each in site.lab.left() if "beside" not in each]
    assert left == []
