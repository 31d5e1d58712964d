"""What is decided about a host's network, from facts alone: nothing here has a NIC.

A failure here means that an uplink is made that somebody else's program undoes, or that what is taken back is
not what was.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
import yaml

from components.kinds.libvirt.gates import uplink
from components.kinds.libvirt.uplink import checks, trial
from components.kinds.libvirt.uplink.host import Facts, Host, NetError, read
from components.kinds.libvirt.uplink.steps import Wanted, steps
from components.reach.client import ClientShell, host_shell
from components.reach.shell import LocalShell, Result
from components.stackfile import load, plan
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Shell

LAN = Wanted("bridge", "eno1", 0, "nlb0", "", [])
TAP = Wanted("macvtap", "wlan0", 0, "", "", [])
AIR = Wanted("proxy_arp", "wlan0", 0, "", "192.168.1.192/28", ["192.168.1.200"])
MAC = "02:00:00:00:00:05"


def address(local: str, prefix: int = 24, **more: Any) -> dict[str, Any]:
    family = "inet6" if ":" in local else "inet"
    return {"family": family, "local": local, "prefixlen": prefix, "scope": "global", **more}


def link(name: str, *addresses: dict[str, Any], index: int = 2, **more: Any) -> dict[str, Any]:
    usual = {"ifindex": index, "ifname": name, "flags": ["UP"], "mtu": 1500, "link_type": "ether"}
    return {**usual, "address": MAC, "addr_info": list(addresses), **more}


def host(**parts: Any) -> Facts:
    """What a host with a wired and a wireless NIC tells; ``parts`` are other sections of it."""
    told: dict[str, Any] = {
        "links": [
            link("eno1", address("192.0.2.5", label="eno1")),
            link("wlan0", address("192.168.1.23"), index=3),
        ],
        "routes": [
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eno1", "protocol": "static"},
            {"dst": "192.0.2.0/24", "dev": "eno1", "protocol": "kernel", "scope": "link"},
        ],
        "wireless": "wlan0",
        **parts,
    }
    names = (
        *("links", "routes", "routes6", "neighbours", "proxies", "rules", "rules6", "sysctl"),
        *(
            "wireless",
            "managers",
            "setups",
            "resolved",
            "bridged",
            "forward",
            "firewall",
            "records",
        ),
        *("answering", "users"),
    )
    text = ""
    for name in names:
        value = told.get(name, "")
        text += f"\n==== {name}\n{value if isinstance(value, str) else json.dumps(value)}\n"
    return read(text)


def said(facts: Facts, wanted: Wanted) -> str:
    return " ".join(checks.problems(facts, wanted))


def test_a_vlan_that_the_host_has_under_another_name_is_told_before_it_is_made() -> None:
    """The kernel has each once for a NIC (net/8021q/vlan.c, vlan_check_real_dev)."""
    data = {"protocol": "802.1Q", "id": 7, "flags": ["REORDER_HDR"]}
    guests = link("guests", index=9, link="eno1", linkinfo={"info_kind": "vlan", "info_data": data})
    there = host(links=[link("eno1", address("192.0.2.5")), guests])
    tagged = Wanted("bridge", "eno1", 7, "nlb0", "", [])
    assert "VLAN 7 of eno1 is there already, as guests: say uplink.nic: guests" in said(
        there, tagged
    )
    assert said(there, replace(tagged, vlan=8)) == ""
    own = {**guests, "ifname": "eno1.7", "ifalias": tagged.mark}
    assert said(host(links=[link("eno1"), own]), tagged) == ""


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("NetworkManager", ("nmcli con add type bridge ifname br0", MAC, "nmcli con up br0")),
        ("systemd-networkd", ("br0.netdev", f"MACAddress={MAC}", "networkctl reload")),
    ],
)
def test_a_nic_that_somebody_manages_is_left_with_the_commands_to_run(
    manager: str, words: tuple[str, ...]
) -> None:
    told = said(host(managers=f"{manager} eno1\nifupdown eno1"), LAN)
    assert f"{manager} manages eno1 and would set its addresses again" in told
    assert all(each in told for each in words)
    assert "then say mode: bridge and bridge: br0" in told
    # Nothing of what it was told could be read.
    vlan = Wanted("bridge", "eno1", 7, "nlb7", "", [])
    assert said(host(managers=f"{manager} eno1"), vlan) == "", "a VLAN of it is nobody's yet"
    assert said(host(managers=f"{manager} wlan0"), AIR) == "", "its addresses stay"


NETWORKD = """\
eno1 file /etc/systemd/network/20-wired.network
eno1 client ff0000000a00020000ab11
eno1 line [Match]
eno1 line Name=en*
eno1 line [Link]
eno1 line MTUBytes=1400
eno1 line [Network]
eno1 line DHCP=ipv4"""
PROFILE = """\
eno1 profile 0d5ec274-755d-31f5-8b6a-24e47485fd0c
eno1 file /etc/NetworkManager/system-connections/wired.nmconnection
eno1 line [connection]
eno1 line id=wired
eno1 line zone=home
eno1 line [ipv4]
eno1 line method=auto"""


def managed(manager: str, setup: str, **parts: Any) -> Facts:
    leased = address("192.0.2.5", dynamic=True, valid_life_time=900)
    way = {"dst": "default", "gateway": "192.0.2.1", "dev": "eno1", "protocol": "dhcp"}
    return host(
        managers=f"{manager} eno1",
        setups=setup,
        **{"links": [link("eno1", leased)], "routes": [way | {"metric": 100}], **parts},
    )


def test_networkd_is_told_of_the_bridge_by_files_of_ours_and_asks_for_the_same_address() -> None:
    found = managed("systemd-networkd", NETWORKD)
    assert said(found, LAN) == ""
    made = steps(found, LAN)
    files = {row[2]: row[3:] for row in made.make if row[0] == "write"}
    folder = "/run/systemd/network/00-nlb0"
    assert files[f"{folder}.network"] == (
        *("[Match]", "Name=nlb0", "[Network]", "DHCP=ipv4"),
        *("[DHCPv4]", "IAID=10", "[DHCPv6]", "IAID=10"),
    )
    port = files[f"{folder}-port.network"]
    assert port[:6] == (
        "[Match]",
        "Name=eno1",
        "[Link]",
        "MTUBytes=1400",
        "[Network]",
        "Bridge=nlb0",
    )
    assert ("has", "192.0.2.5/24", "nlb0", "15") in made.make
    assert ("rm", "-f", *files) in made.back
    assert made.back.index(("rm", "-f", *files)) < made.back.index(("reload",))
    assert made.back[-1] == ("has", "192.0.2.5/24", "eno1", "15")
    assert not any(row[:3] == ("ip", "addr", "del") for row in (*made.make, *made.back))
    mac = steps(managed("systemd-networkd", NETWORKD.replace("client ff", "client 01")), LAN)
    assert not any("IAID" in word for row in mac.make for word in row)


def test_network_manager_is_given_profiles_in_run_and_its_own_is_left() -> None:
    found = managed("NetworkManager", PROFILE)
    assert said(found, LAN) == ""
    made = steps(found, LAN)
    bridge, port = (row for row in made.make if row[0] == "write")
    assert bridge[1:3] == ("600", "/run/NetworkManager/system-connections/nlb0.nmconnection")
    assert {"zone=home", f"cloned-mac-address={MAC}", "stp=false"} <= set(bridge)
    assert bridge[bridge.index("[ipv4]") :][:3] == ("[ipv4]", "method=auto", "route-metric=100")
    assert {"interface-name=eno1", "master=nlb0", "autoconnect-priority=999"} <= set(port)
    up = ("nmcli", "-w", "15", "connection", "up", "uuid")
    assert (*up, "0d5ec274-755d-31f5-8b6a-24e47485fd0c", "ifname", "eno1") in made.back
    assert "wired" not in str((*made.make, *made.back)), "what its owner wrote is only read"


@pytest.mark.parametrize(
    ("manager", "setup", "words"),
    [
        ("systemd-networkd", f"{NETWORKD}\neno1 line VLAN=v20", "(VLAN)"),
        ("systemd-networkd", f"{NETWORKD}\neno1 line [SR-IOV]", "([SR-IOV])"),
        ("systemd-networkd", f"{NETWORKD}\neno1 beside /etc/x.conf", "(/etc/x.conf)"),
        ("systemd-networkd", "eno1 file /etc/x.network", "its /etc/x.network can't be read"),
        ("NetworkManager", f"{PROFILE}\neno1 line [802-1x]", "([802-1x])"),
        ("NetworkManager", PROFILE.replace("zone=home", "master=bond0"), "(master)"),
        ("NetworkManager", PROFILE.replace("=auto", "=shared"), "(ipv4.method=shared)"),
    ],
)
def test_what_a_manager_was_told_of_that_very_nic_is_refused_by_name(
    manager: str, setup: str, words: str
) -> None:
    told = said(managed(manager, setup), LAN)
    assert words in told
    assert "then say mode: bridge and bridge: br0" in told


def test_what_somebody_set_beside_the_manager_is_refused_as_it_would_be_lost() -> None:
    fixed = managed("NetworkManager", PROFILE, links=[link("eno1", address("192.0.2.5"))])
    assert "does not have 192.0.2.5, which somebody set on eno1" in said(fixed, LAN)
    longer = PROFILE + "\neno1 line address1=192.0.2.50/24"
    fixed = managed("NetworkManager", longer, links=[link("eno1", address("192.0.2.5"))])
    assert "does not have 192.0.2.5" in said(fixed, LAN)
    written = PROFILE + "\neno1 line address1=192.0.2.5/24"
    same = managed("NetworkManager", written, links=[link("eno1", address("192.0.2.5"))])
    assert said(same, LAN) == ""
    routed = managed("NetworkManager", PROFILE, routes=[{"dst": "10.0.0.0/8", "dev": "eno1"}])
    assert "does not have the route 10.0.0.0/8" in said(routed, LAN)


def test_a_bridge_that_its_manager_made_again_is_still_ours() -> None:
    again = link("nlb0", index=9, linkinfo={"info_kind": "bridge"})
    found = managed("NetworkManager", PROFILE, links=[link("eno1", master="nlb0"), again])
    assert "which nestlab did not make" in said(found, LAN)
    known = managed(
        "NetworkManager",
        PROFILE,
        links=[link("eno1", master="nlb0"), again],
        records="nlb0 confirmed",
    )
    assert said(known, LAN) == ""


def test_ifupdown_with_a_fixed_address_does_not_come_back() -> None:
    assert said(host(managers="ifupdown eno1"), LAN) == ""
    leased = address("192.0.2.5", dynamic=True, valid_life_time=900)
    found = host(managers="ifupdown eno1", links=[link("eno1", leased)])
    assert "iface eno1 inet manual" in said(found, LAN)


def test_ifupdowns_dhcp_is_told_whatever_its_client_says_of_the_time() -> None:
    """udhcpc and a lease for ever give an address that looks as if it were fixed."""
    assert "iface eno1 inet manual" in said(host(managers="ifupdown eno1\ndhcp eno1"), LAN)


def test_an_address_of_dhcpv6_is_somebodys_to_renew_and_an_advertised_one_the_kernels() -> None:
    leased = address("2001:db8::9", 128, dynamic=True, valid_life_time=900)
    assert "2001:db8::9 of eno1 ends in 900 s" in said(host(links=[link("eno1", leased)]), LAN)
    for flag in ("mngtmpaddr", "temporary"):
        assert said(host(links=[link("eno1", leased | {flag: True})]), LAN) == ""


def test_a_host_with_a_tunnel_that_is_on_nothing_is_looked_at() -> None:
    """`tunl0@NONE`: ipip and sit make one as they are loaded."""
    found = host(links=[link("eno1"), link("tunl0", link=None, link_type="ipip")])
    assert said(found, LAN) == ""
    odd = {"dst": "10.0.0.0/8", "dev": "eno1", "metrics": [{"ecn": None, "congestion": "reno"}]}
    assert "(congestion, ecn)" in said(host(routes=[odd]), LAN)
    assert said(host(routes=[odd | {"dev": "wlan0"}]), LAN) == ""


@pytest.mark.parametrize(
    ("rule", "about"),
    [
        ("-A INPUT -i eno1 -j DROP", True),
        ("-A POSTROUTING -s 10.0.0.0/8 -o eno1 -j MASQUERADE", True),
        ("-A INPUT ! -i eno1 -j ACCEPT", True),
        ("-A INPUT -i en+ -j DROP", True),
        ("-A INPUT -i + -j DROP", False),
        ("-A INPUT -i eno12 -j DROP", False),
        ("-A INPUT -i eno1.20 -j DROP", False),
        ('iifname "eno1" tcp dport 22 accept', True),
        ('oif "eno1" masquerade', True),
        ('iifname != "eno1" drop', True),
        ('iifname { "lo", "eno1" } accept', True),
        ('iifname "en*" accept', True),
        ('iifname { "lo", "wlan0" } accept', False),
        ('iifname "virbr0" oifname "virbr0" accept', False),
    ],
)
def test_a_firewall_that_names_the_nic_would_not_be_about_the_bridge(
    rule: str, about: bool
) -> None:
    assert ("rule of the firewall is about eno1" in said(host(firewall=rule), LAN)) is about
    for other in (AIR, Wanted("bridge", "eno1", 7, "nlb7", "", [])):
        assert said(host(firewall=rule), other) == "", "the NIC keeps its addresses"


def test_a_link_local_address_is_moved_unless_the_kernel_made_it() -> None:
    own, theirs = address("fe80::ff:fe00:5", 64, scope="link"), address("fe80::1", 64, scope="link")
    stable = address("fe80::77", 64, scope="link") | {"stable-privacy": True}
    links = [link("eno1", own, theirs, stable)]
    assert steps(host(links=links), LAN).addresses == ("fe80::1/64",)
    none = "net/ipv6/conf/eno1/addr_gen_mode 1"
    assert steps(host(links=links, sysctl=none), LAN).addresses == (
        "fe80::1/64",
        "fe80::ff:fe00:5/64",
    )


def test_a_wireless_nic_is_told_what_goes_instead() -> None:
    for wanted in (Wanted("bridge", "wlan0", 0, "nlb1", "", []), TAP):
        assert "set mode: route" in said(host(), wanted)
    assert said(host(), AIR) == ""


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        ("192.168.2.0/28", "no part of the network of wlan0, which has 192.168.1.0/24"),
        ("192.168.1.0/24", "no part of the network"),
        ("192.168.1.16/28", "192.168.1.23 is wlan0 itself"),
        ("192.168.1.240/28", "192.168.1.254 is the gateway"),
    ],
)
def test_a_part_of_the_wireless_network_has_to_be_free(subnet: str, words: str) -> None:
    found = host(routes=[{"dst": "default", "gateway": "192.168.1.254", "dev": "wlan0"}])
    assert words in said(found, Wanted("proxy_arp", "wlan0", 0, "", subnet, []))


def test_a_bridge_that_is_not_there_is_told_before_anything_is_made() -> None:
    bridge = link("br1", index=4, linkinfo={"info_kind": "bridge"})
    off = link("br2", index=5, linkinfo={"info_kind": "bridge"}, flags=[])
    found = host(
        links=[link("eno1"), bridge, off, link("ovs", linkinfo={"info_kind": "openvswitch"})]
    )
    assert checks.no_bridge(found, "br1") == ""
    assert "no bridge br0, but br1 and br2: make it" in checks.no_bridge(found, "br0")
    bare = host(links=[link("lo", link_type="loopback")])
    assert "no bridge br0 and no other: make it" in checks.no_bridge(bare, "br0")
    assert said(bare, LAN) == "there is no NIC eno1: there is none that a lab could be on"
    assert "eno1 is no bridge of the kernel's (a NIC)" in checks.no_bridge(found, "eno1")
    assert "(openvswitch)" in checks.no_bridge(found, "ovs")
    assert "`ip link set br2 up`" in checks.no_bridge(found, "br2")


def test_docker_and_br_netfilter_are_told_with_two_ways_out() -> None:
    drops = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER"
    assert list(checks.warnings(host(forward=drops), LAN)) == []
    told = list(checks.warnings(host(forward=drops, bridged="1"), LAN))
    assert "sysctl net.bridge.bridge-nf-call-iptables=0" in told[0]
    assert "iptables -I FORWARD -i nlb0 -o nlb0 -j ACCEPT" in told[0]
    air = host(forward=drops, routes=[])
    assert "-i wlan0 -d 192.168.1.192/28" in next(checks.warnings(air, AIR))
    assert list(checks.warnings(host(forward="-P FORWARD ACCEPT", bridged="1"), LAN)) == []
    assert list(checks.warnings(host(forward=drops, bridged="1"), TAP)) == []


def test_a_host_whose_way_out_is_another_nic_is_told_where_its_guests_send() -> None:
    def way(dev: str, metric: int = 0, **more: Any) -> dict[str, Any]:
        return {"dst": "default", "gateway": "192.0.2.1", "dev": dev, "metric": metric, **more}

    [told] = checks.warnings(host(routes=[way("wlan0", 600), way("eno1", 100)]), AIR)
    assert "reaches the Internet by eno1, so guests behind wlan0" in told
    for routes in (
        [way("wlan0", 100), way("eno1", 600)],
        [way("wlan0", 600), way("eno1", 100, table="77")],
        [],
    ):
        assert list(checks.warnings(host(routes=routes), AIR)) == []
    both = way("", nexthops=[{"dev": "eno1"}, {"dev": "wlan0"}])
    assert list(checks.warnings(host(routes=[both]), AIR)) == []
    assert list(checks.warnings(host(routes=[way("wlan0")]), LAN)) == [], "it takes all with it"


def test_a_bridge_of_nestlabs_is_no_nic_to_take() -> None:
    own = link("nlb9", ifalias="nestlab: nlb9 on eno1", linkinfo={"info_kind": "bridge"})
    assert said(host(links=[own]), LAN).endswith("there is none that a lab could be on")


def test_what_the_kernel_makes_by_itself_is_not_moved() -> None:
    six = [
        {"dst": "2001:db8::/64", "dev": "eno1", "protocol": "kernel", "pref": "medium"},
        {"dst": "default", "gateway": "fe80::1", "dev": "eno1", "protocol": "ra", "expires": 900},
    ]
    slaac = address("2001:db8::9", 64, dynamic=True, mngtmpaddr=True, valid_life_time=900)
    found = host(routes6=six, links=[link("eno1", address("192.0.2.5"), slaac)])
    made = steps(found, LAN)
    assert made.addresses == ("192.0.2.5/24",)
    assert made.routes == ("default via 192.0.2.1 table main",)
    assert made.gateways == ("192.0.2.1",)


def test_an_address_stands_on_the_bridge_before_it_leaves_the_nic_and_the_other_way_round() -> None:
    made = steps(host(), LAN)

    def at(rows: tuple[tuple[str, ...], ...], *words: str) -> int:
        return next(i for i, row in enumerate(rows) if set(words) <= set(row))

    there = ("addr", "192.0.2.5/24")
    assert at(made.make, *there, "replace", "nlb0") < at(made.make, *there, "del", "eno1")
    assert at(made.make, "master", "eno1") < at(made.make, "default", "nlb0")
    assert at(made.back, *there, "replace", "eno1") < at(made.back, "link", "del", "nlb0")
    assert "label" not in made.make[at(made.make, *there, "replace")], "eno1's is none of nlb0's"
    assert "label" in made.back[at(made.back, *there, "replace")]


def test_dns_of_systemd_resolved_moves_and_comes_back() -> None:
    made = steps(
        host(resolved="dns eno1 192.0.2.1 9.9.9.9\ndomain eno1 lab.test ~.\ndns wlan0 "), LAN
    )
    assert ("resolvectl", "dns", "nlb0", "192.0.2.1", "9.9.9.9") in made.make
    assert ("resolvectl", "revert", "eno1") in made.make
    assert made.back[-2:] == (
        ("resolvectl", "dns", "eno1", "192.0.2.1", "9.9.9.9"),
        ("resolvectl", "domain", "eno1", "lab.test", "~."),
    )


def test_a_vlan_has_a_name_that_the_kernel_takes_and_the_host_no_address_in_it() -> None:
    assert Wanted("bridge", "eno1", 7, "b", "", []).port == "eno1.7"
    long = Wanted("bridge", "enp129s0f1np1", 4000, "b", "", []).port
    assert len(long) <= 15
    assert long.startswith("nlv")
    six = "net/ipv6/conf/eno1/disable_ipv6 0"
    made = steps(host(sysctl=six), Wanted("bridge", "eno1", 7, "nlb7", "", []))
    for name in ("eno1.7", "nlb7"):
        assert ("sysctl", f"net/ipv6/conf/{name}/disable_ipv6", "1") in made.make
    assert made.addresses == made.gateways == ()


def test_a_bridge_that_another_lab_takes_away_meanwhile_is_made_of_what_is_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what was seen before, the NIC would be plugged into a bridge without an address: nobody reaches the host."""
    own = address("192.0.2.5", label="eno1")
    bridge = link("nlb0", own, index=9, ifalias=LAN.mark)
    facts = [host(links=[link("eno1", master="nlb0"), bridge]), host(links=[link("eno1", own)])]
    states, made = [trial.CONFIRMED, ""], list[str]()
    monkeypatch.setattr(Host, "look", lambda *_: facts.pop(0))
    monkeypatch.setattr(trial.Trial, "settle", lambda *_: states.pop(0))
    monkeypatch.setattr(trial.Trial, "join", lambda _: "")
    monkeypatch.setattr(trial.Trial, "make", lambda _, text, *__: made.append(text))
    props = uplink.Uplink(
        name="lan",
        uri="qemu:///system",
        mode="bridge",
        nic="eno1",
        vlan=0,
        bridge="nlb0",
        user="u.lan",
        network="lan",
        subnet="",
        addresses=[],
        confirm_s=10,
    )
    text = uplink._bridged(Host(LocalShell()), props, "")
    assert made == [text]
    assert trial.moved(text)[0] == ["192.0.2.5/24"]


def test_what_answered_already_is_not_taken_back() -> None:
    proxies = [{"dst": "192.168.1.200", "dev": "wlan0", "proxy": None}]
    off = "net/ipv4/conf/wlan0/forwarding 0"
    assert steps(host(proxies=proxies), AIR).back == ()
    made = steps(host(sysctl=off), AIR)
    assert made.make[-1] == ("sysctl", "net/ipv4/conf/wlan0/forwarding", "1")
    assert made.back[-1] == ("sysctl", "net/ipv4/conf/wlan0/forwarding", "0")


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"via": {"family": "inet6", "host": "fe80::1"}}, "(via)"),
        ({"encap": "mpls", "nhid": 5}, "(encap, nhid)"),
        ({"nexthops": [{"dev": "eno1"}, {"dev": "eno2"}], "dev": ""}, "(several ways)"),
    ],
)
def test_a_route_that_is_not_understood_is_not_moved(odd: dict[str, Any], words: str) -> None:
    route = {"dst": "10.0.0.0/8", "dev": "eno1", "protocol": "static", **odd}
    assert words in said(host(routes=[route]), LAN)


def test_a_host_that_answers_something_else_is_told() -> None:
    class Old:
        name = "old"

        def run(self, argv: list[str], **_: Any) -> Result:
            return Result(0, "0" if argv[0] == "id" else 'Option "-j" is unknown', "")

    shell: Any = Old()
    with pytest.raises(NetError, match=r"old can't tell its network.*4\.18"):
        Host(shell).look()


def test_sudo_that_asks_is_told_and_nothing_is_done() -> None:
    asked: list[list[str]] = []

    class User:
        name = "far"

        def run(self, argv: list[str], **_: Any) -> Result:
            asked.append(argv)
            if argv[0] == "id":
                return Result(0, "1000", "")
            return Result(1, "", "sudo: a password is required")

    shell: Any = User()
    with pytest.raises(NetError, match=r"far: .*`sudo -v` there first"):
        Host(shell).must("ip link")
    assert asked[-1][:3] == ["sudo", "-n", "sh"]


def test_a_program_is_one_that_sh_takes_whatever_is_in_it() -> None:
    made = steps(host(resolved="dns eno1 $(reboot) `x` 'y'"), LAN)
    text = trial.program("nlb0", "eno1", made, 30)
    checked = LocalShell().run(["sh", "-n"], stdin=text.encode())
    assert checked.ok, checked.err
    assert shlex.quote("$(reboot)") in text
    assert trial.moved(text) == (["192.0.2.5/24"], ["default via 192.0.2.1 table main"])


def test_the_way_to_another_host_is_what_libvirts_uri_says() -> None:
    assert isinstance(host_shell("qemu:///system"), LocalShell)
    found = host_shell("qemu+ssh://me@far:2222/system?keyfile=/k&knownhosts=/h&no_tty=1")
    assert found == ClientShell(
        "far", "far", "me", 2222, {"IdentityFile": "/k", "UserKnownHostsFile": "/h"}
    )


@pytest.mark.parametrize("folder", ["/a b", "/100%h", "/é'\"\\ x", "/plain"])
def test_a_key_in_a_folder_of_any_name_is_the_one_that_ssh_takes(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("ssh"):
        pytest.skip("needs OpenSSH's client")
    asked: list[str] = []

    def run(_: LocalShell, argv: Sequence[str], **__: object) -> Result:
        asked.extend(argv)
        return Result(0, "", "")

    with monkeypatch.context() as patched:
        patched.setattr(LocalShell, "run", run)
        key = quote(f"{folder}/key", safe="")
        known = quote(f"{folder}/known", safe="")
        host_shell(f"qemu+ssh://far/system?keyfile={key}&knownhosts={known}").run(["true"])
    told = LocalShell().run([asked[0], "-G", "-F", "none", *asked[1:]])
    assert told.ok, told.err
    rows = dict(line.partition(" ")[::2] for line in told.out.split("\n"))
    assert rows["identityfile"].replace("%%", "%") == f"{folder}/key"
    assert rows["userknownhostsfile"].replace("%%", "%") == f"{folder}/known"


def test_what_the_page_shows_is_what_the_stack_file_takes() -> None:
    page = (paths.ROOT / "docs" / "networks.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(shown) >= 2
    for text in shown:
        lab = load({"name": "lab", **yaml.safe_load(text)}, root=Path("/"), exists=lambda _: True)
        # But those of the part on closed networks, which reach outside by their host's address, and those that are
        # the way out of a host inside.
        assert lab.hypervisors or all(
            each.uplink or each.closed for each in plan(lab).place().networks.values()
        )


@pytest.mark.parametrize(
    ("state", "says", "undone"),
    [
        ("moved\nwatched", "switch port", True),
        ("undone\nalone", "nobody confirmed it within 8 s", False),
    ],
)
def test_a_gateway_that_is_lost_is_told_apart_from_a_time_that_ran_out(
    state: str, says: str, undone: bool
) -> None:
    commands: list[str] = []

    class Told:
        name = "this machine"

        def run(self, argv: Sequence[str], **_: object) -> Result:
            script = argv[2] if len(argv) > 2 else "id"
            commands.append(script)
            if script == "id":
                return Result(0, "0", "")
            if trial.TOLD in script:
                return Result(0, state, "")
            if "/why" in script:
                return Result(0, "nobody confirmed it within 8 s", "")
            return Result(1 if "confirm" in script else 0, "", "")

    uplink = trial.Trial(Host(cast("Shell", Told())), "nlb1", "lab.lan")
    with pytest.raises(NetError, match=says):
        uplink._confirmed("nlb1", "eth0", ["192.0.2.1"])
    assert any(" undo" in command for command in commands) is undone
