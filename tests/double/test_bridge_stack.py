"""stacks/Pulumi.bridge.yaml on a real kernel: its bridge on a NIC of its name, and who is reached behind it.

Its page says what a DHCP server has to know: that is what is planned. A host is a network namespace.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml

from components.kinds.libvirt.gates import uplink as gates
from components.kinds.libvirt.gates.uplink import Uplink, UplinkGateProvider
from components.stackfile import load, plan
from tests.support.netns import cable, namespace, reason
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from components.stackfile.plan import LabPlan

pytestmark = [pytest.mark.double, pytest.mark.spread]
HOST, ROUTER = "192.168.1.5", "192.168.1.1"


@pytest.fixture
def lab() -> LabPlan:
    text = (paths.ROOT / "stacks" / "Pulumi.bridge.yaml").read_text()
    told = yaml.safe_load(text)["config"]["nestlab:lab"]
    return plan(load(told, root=paths.ROOT, exists=lambda _: True))


def test_the_page_says_what_a_dhcp_server_has_to_keep(lab: LabPlan) -> None:
    page = (paths.ROOT / "docs" / "bridge.md").read_text()
    told = re.findall(r"\| `(\w+)` \| `([0-9a-f:]+)` \| (\S+) \|", page)
    planned = [(each, lab.machine(each).nics[0]) for each in ("web", "kvm1")]
    assert told == [(each, nic.mac, nic.address) for each, nic in planned]


@pytest.mark.skipif(bool(reason()), reason=reason() or "-")
def test_its_guest_is_reached_from_the_network_outside_and_all_is_as_before_in_the_end(
    lab: LabPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    lan, web = lab.place().networks["lan"], lab.machine("web")
    assert lan.uplink
    wanted = Uplink(
        name="lan-uplink",
        uri="qemu:///system",
        mode="bridge",
        nic=lan.uplink.nic,
        vlan=lan.uplink.vlan,
        bridge=lan.bridge or "",
        user="0123456789abcdef.lan",
        network=lan.called,
        subnet="",
        addresses=[],
        confirm_s=lan.uplink.confirm_s,
    )
    gate = UplinkGateProvider()
    with namespace("host") as host, namespace("outer") as outer, namespace("web") as guest:
        cable(host, outer, {wanted.nic: "port0"})
        outer.must(f"ip addr add {ROUTER}/24 dev port0")
        host.must(
            f"ip addr add {HOST}/24 brd + dev {wanted.nic}", f"ip route add default via {ROUTER}"
        )
        monkeypatch.setattr(gates, "host_shell", lambda _: host)
        assert list(gate.problems(wanted)) == []
        before = host.must("ip -br -4 addr", "ip route")
        made = gate.mend(None, wanted)
        assert gate.look(made).ok, gate.look(made).text
        # As libvirt plugs a machine in: its NIC's other end is a port of the bridge.
        end = f"ip link add tap0 type veth peer name eth0 netns {guest.holder.pid}"
        host.must(end, f"ip link set tap0 up master {wanted.bridge}")
        mac = f"ip link set eth0 address {web.nics[0].mac} up"
        guest.must(mac, f"ip addr add {web.address}/24 dev eth0")
        assert outer.reaches(str(web.address), 10)
        assert web.nics[0].mac in outer.must(f"ip neigh show {web.address}"), "as a machine there"
        assert guest.reaches(HOST, 10)
        host.must("ip link del tap0")
        gate.end(made)
        assert host.must("ip -br -4 addr", "ip route") == before
        assert not outer.reaches(str(web.address), 1)
