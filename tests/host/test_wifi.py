"""stacks/Pulumi.wifi.yaml on Wi-Fi: simulated radios (mac80211_hwsim) of an emulated Debian with its full kernel.

The machine is a laptop, its Wi-Fi card of the stack's name a station of an access point that is a network namespace
with a radio of its own, as another computer of that Wi-Fi is. hostapd, wpa_supplicant, libvirt, its DHCP server and
its guest are real: a Linux in memory, as a Debian inside an emulated machine takes too long.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.kinds.libvirt.gates import uplink as gates
from components.kinds.libvirt.gates.network import Network, NetworkGateProvider
from components.kinds.libvirt.gates.uplink import Uplink, UplinkGateProvider
from components.reach.orders import Reservation
from components.reach.shell import Target
from components.stackfile import load, plan
from tests.support import netns, wifi_image
from tests.support.emulated import booted
from toolchain.bootstrap import paths
from toolchain.machine.system import System
from toolchain.testing import SOAK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from components.reach.shell import SshShell
    from components.stackfile.plan import LabPlan, MachinePlan, NetworkPlan

pytestmark = [
    pytest.mark.host,
    pytest.mark.soak,
    pytest.mark.skipif(not os.environ.get(SOAK), reason=f"some minutes of emulation: set {SOAK}"),
]
COMMAND_S = 300
UNTIL_S = 300.0
"""Deadline of what the radios, or the kernel, come to by themselves, seconds."""
SETTLED_S = 60.0
"""The same of what was taken away."""
POINT, PEER = "192.168.1.1", "192.168.1.20"
"""The access point, which is the router too, and another computer."""
RADIOS = """
modprobe mac80211_hwsim radios=3
i=0
for where in here point peer; do
  phy=$(cat /sys/class/net/wlan$i/phy80211/name)
  [ $where = here ] || { ip netns add $where; iw phy $phy set netns name $where; ip -n $where link set lo up; }
  i=$((i + 1))
done
ip link set wlan0 name NIC
mkdir -p /run/radio
cd /run/radio
cat >point.conf <<END
interface=wlan1
ssid=home
hw_mode=g
channel=1
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase=not-a-secret
END
for who in here peer; do
  printf 'ctrl_interface=/run/radio/%s\nnetwork={\nssid="home"\npsk="not-a-secret"\n}\n' $who >$who.conf
done
ip netns exec point hostapd -B -P /run/radio/point.pid point.conf
ip -n point addr add POINT/24 dev wlan1
ip netns exec point dnsmasq --conf-file=/dev/null --interface=wlan1 --bind-interfaces --port=0 \
    --dhcp-range=192.168.1.100,192.168.1.150,1h --dhcp-leasefile=/run/radio/leases --pid-file=/run/radio/dnsmasq.pid
wpa_supplicant -B -i NIC -c here.conf
ip netns exec peer wpa_supplicant -B -i wlan2 -c peer.conf
ip -n peer addr add PEER/24 dev wlan2
"""
LEASE = "busybox udhcpc -f -q -n -t 10 -T 5 -s /usr/share/guest/client -i"
KEYS = f"""
mkdir -p /run/keys/root/.ssh
ssh-keygen -q -t ed25519 -N '' -f /root/key
cp /root/key.pub /run/keys/root/.ssh/authorized_keys
cp {wifi_image.GUEST_INITRD} /run/guest.img
cd /run/keys
printf 'root/.ssh/authorized_keys\\n' | cpio --quiet -o -H newc | gzip >>/run/guest.img
"""
GUEST = """\
<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory><os><type arch='x86_64'>hvm</type>
<kernel>{kernel}</kernel><initrd>/run/guest.img</initrd>
<cmdline>console=ttyS0 quiet panic=1 no_timer_check</cmdline></os><features><acpi/></features><devices>
<serial type='file'><source path='/var/log/guest.log'/></serial>
<interface type='network'><mac address='{mac}'/><source network='{network}'/><model type='e1000'/></interface>
</devices></domain>
"""
NETWORK = """\
<network><name>{name}</name>{forward}<bridge name='{bridge}' stp='on'/><ip address='{gateway}' prefix='{prefix}'>
<dhcp><range start='{start}' end='{end}'/></dhcp></ip></network>
"""


@dataclass
class Laptop:
    """The machine, and what the stack wants of it."""

    ssh: SshShell
    air: NetworkPlan
    guest: MachinePlan
    nic: str

    def must(self, *lines: str) -> str:
        """Run lines of a shell script, all of which have to succeed; return what they print."""
        return netns.must(self.ssh, *lines, timeout_s=COMMAND_S)

    def comes(self, script: str, what: str) -> None:
        """Wait until ``script`` succeeds."""
        until = time.monotonic() + UNTIL_S
        while not (done := self.ssh.run(["sh", "-c", script], timeout_s=COMMAND_S)).ok:
            console = "tail -c 600 /var/log/guest.log 2>/dev/null || true"
            assert time.monotonic() < until, f"{what}: {done.said}\n{self.must(console)}"
            time.sleep(0.5)

    def associated(self) -> None:
        """Wait until both stations are the access point's."""
        for who, nic in (("here", self.nic), ("peer", "wlan2")):
            asked = f"wpa_cli -p /run/radio/{who} -i {nic} status"
            self.comes(f"{asked} | grep -q ^wpa_state=COMPLETED", f"{who} is not associated")

    def defined(self, name: str, forward: str, bridge: str) -> None:
        """Define a network as the provider does, without reservations."""
        text = NETWORK.format(
            name=name, forward=forward, bridge=bridge, gateway=self.air.gateway, prefix=self.air.prefix,
            start=self.air.dhcp_start, end=self.air.dhcp_end,
        )  # fmt: skip
        self.must(f"virsh -q net-define /dev/stdin <<'END'\n{text}END")

    def reached(self) -> None:
        """The guest answers ping and SSH from another computer of the Wi-Fi, and reaches the router."""
        address = self.guest.address
        self.comes(f"ip netns exec peer ping -c 1 -W 2 {address}", "the guest is not reached")
        login = "-i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        enter = f"ip netns exec peer ssh {login} -o ConnectTimeout=60 root@{address}"
        self.comes(f"{enter} true", "the guest lets nobody in")
        told = self.must(f"{enter} ip -4 -o addr show")
        assert f" eth0    inet {address}/" in told, "the guest itself answers by SSH"
        self.must(f"{enter} ping -c 1 -W 20 {POINT}")

    def looks(self) -> dict[str, Any]:
        """All that the product, or libvirt for it, may touch, without order and what changes by itself.

        Of neighbours those that somebody set, since the others come and go with what is sent; the order of routes
        of one metric is that in which NICs went up, and says nothing.
        """
        found = netns.network(self.ssh)
        found["nft"] = json.loads(self.must("nft -j list ruleset"))["nftables"]
        found["links"] = sorted(self.must("ls /sys/class/net").split())
        paths = f"/proc/sys/net/ipv[46]/conf/{self.nic}/* /proc/sys/net/ipv4/ip_forward"
        found["sysctl"] = self.must(f"grep -s . {paths} || true").splitlines()
        found["records"] = self.must(
            "find /run/nestlab -type f 2>/dev/null || true; virsh -q net-list --all --name"
        ).split()
        return {what: netns.lasting(told) for what, told in found.items()}


def _plan() -> LabPlan:
    text = (paths.ROOT / "stacks" / "Pulumi.wifi.yaml").read_text()
    told = yaml.safe_load(text)["config"]["nestlab:lab"]
    return plan(load(told, root=paths.ROOT, exists=lambda _: True))


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    lab = _plan()
    air = lab.place().networks["air"]
    assert air.uplink
    image = wifi_image.ensure(System())
    arguments = wifi_image.arguments(image)
    folder: Path = tmp_path_factory.mktemp("wifi")
    seen: Callable[[SshShell], dict[str, Any]] = lambda _: {}  # noqa: E731 - nobody asks
    with booted("laptop", image / "root.qcow2", folder, arguments=arguments, observe=seen) as made:
        one = Laptop(made.ssh, air, lab.machine("web"), air.uplink.nic)
        radios = RADIOS.replace("NIC", one.nic).replace("POINT", POINT).replace("PEER", PEER)
        one.must(radios)
        one.associated()
        one.must(f"{LEASE} {one.nic}")
        # libvirt's first network writes chains and switches forwarding on, which it leaves as they are.
        one.defined("first", "<forward mode='route'/>", "virbr9")
        one.must(
            "virsh -q net-start first", "virsh -q net-destroy first; virsh -q net-undefine first"
        )
        yield one


def test_the_kernel_bridges_no_station_and_a_preview_says_what_goes(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop.must("ip link add br0 type bridge")
    done = laptop.ssh.run(["ip", "link", "set", laptop.nic, "master", "br0"])
    laptop.must("ip link del br0")
    assert not done.ok
    assert "Device does not allow enslaving to a bridge" in done.said
    monkeypatch.setattr(gates, "host_shell", lambda _: laptop.ssh)
    bridged = _uplink(laptop, mode="bridge", bridge=netns.BRIDGE, subnet="", addresses=[])
    said = " ".join(why for _, why in UplinkGateProvider().problems(bridged))
    assert f"{laptop.nic} is wireless" in said
    assert "proxy_arp: true" in said


def test_a_guest_behind_a_station_is_a_machine_of_the_access_points_network(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "host_shell", lambda _: laptop.ssh)
    air, guest, uplinks = laptop.air, laptop.guest, UplinkGateProvider()
    before = laptop.looks()
    laptop.defined(air.called, "<forward mode='route'/>", air.bridge)
    networks, wanted = NetworkGateProvider(), _network(laptop)
    network = networks.mend(None, wanted)
    uplink = _uplink(laptop)
    assert list(uplinks.problems(uplink)) == []
    made = uplinks.mend(None, uplink)
    assert uplinks.look(made).ok, uplinks.look(made).text

    mac = guest.nics[0].mac
    text = GUEST.format(
        name=guest.name, kernel=wifi_image.GUEST_KERNEL, mac=mac, network=air.called
    )
    laptop.must(f"{KEYS}\nvirsh -q create /dev/stdin <<'END'\n{text}END")
    laptop.reached()
    leased = laptop.must(f"virsh -q net-dhcp-leases {air.called} --mac {mac}")
    assert f" {guest.address}/{air.prefix} " in leased, "the planned address, by libvirt's DHCP"
    station = laptop.must(f"cat /sys/class/net/{laptop.nic}/address").strip()
    known = laptop.must(f"ip -n peer neigh show {guest.address}")
    assert station in known, "the access point sees frames of its station's MAC alone"
    assert mac not in known

    asked = f"wpa_cli -p /run/radio/here -i {laptop.nic}"
    laptop.must(f"{asked} disconnect")
    laptop.comes(f"{asked} status | grep -q ^wpa_state=DISCONNECTED", "it stays associated")
    lost = laptop.ssh.run(
        ["ip", "netns", "exec", "peer", "ping", "-c", "1", "-W", "2", str(guest.address)]
    )
    assert not lost.ok, "nobody else carries it"
    laptop.must(f"{asked} reconnect")
    laptop.associated()
    laptop.reached()
    assert uplinks.look(made).ok, uplinks.look(made).text

    made = _suspended(laptop, made)

    uplinks.end(made)
    # What the access point learned is asked for again in a minute or so.
    laptop.must("ip -n point neigh flush all")
    lost = laptop.ssh.run(
        ["ip", "netns", "exec", "point", "ping", "-c", "1", "-W", "2", str(guest.address)]
    )
    assert not lost.ok, "nobody answers for it any more"
    laptop.must(f"virsh -q destroy {guest.name}")
    networks.retire(network)
    laptop.must(f"virsh -q net-destroy {air.called}; virsh -q net-undefine {air.called}")
    until = time.monotonic() + SETTLED_S
    # A guest's devices go, and IPv6 addresses settle, a moment later.
    while (after := laptop.looks()) != before and time.monotonic() < until:
        time.sleep(1)
    other = {what: (told, after[what]) for what, told in before.items() if after[what] != told}
    assert other == {}, "before and after"


def _suspended(laptop: Laptop, made: Uplink) -> Uplink:
    gate = UplinkGateProvider()
    # Suspended: the kernel forgets, and the DHCP client of the NIC does its work again.
    laptop.must(f"ip link set {laptop.nic} down")
    assert not gate.look(made).ok
    laptop.must(f"ip link set {laptop.nic} up")
    laptop.associated()
    laptop.must(f"{LEASE} {laptop.nic}")
    seen = gate.look(made)
    assert f"{laptop.nic} does not answer ARP for {laptop.guest.address}" in seen.text
    made = gate.mend(made, _uplink(laptop))
    assert gate.look(made).ok, gate.look(made).text
    laptop.reached()
    return made


def _network(laptop: Laptop) -> Network:
    shell, guest = laptop.ssh, laptop.guest
    return Network(
        name="air",
        target=Target(
            kind="ssh",
            name=shell.name,
            host=shell.host,
            port=shell.port,
            user=shell.user,
            private_key=shell.private_key,
            host_key=shell.host_key,
        ),
        uri="qemu:///system",
        network=laptop.air.called,
        instance="wifi",
        reservations=[Reservation(guest.nics[0].mac, str(guest.address), "web")],
    )


def _uplink(laptop: Laptop, **words: Any) -> Uplink:
    usual: dict[str, Any] = {
        "name": "air-uplink",
        "uri": "qemu:///system",
        "mode": "proxy_arp",
        "nic": laptop.nic,
        "vlan": 0,
        "bridge": "",
        "user": "0123456789abcdef.air",
        "network": laptop.air.called,
        "subnet": laptop.air.subnet,
        "addresses": [str(laptop.guest.address)],
        "confirm_s": 30,
    }
    return Uplink(**(usual | words))
