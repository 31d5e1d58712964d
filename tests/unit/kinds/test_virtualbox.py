"""VirtualBox by VBoxManage: guests, networks and media on a stub of it that refuses what it refuses.

A failure here is a guest that is made twice or not mended, a stranger's that is touched, a disk that
is lost on the way to another setting, or a name that a shell reads.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates.probes import Command, Probe, ssh
from components.kinds.virtualbox import console, media, vboxmanage
from components.kinds.virtualbox import guest as guests
from components.kinds.virtualbox.guest import GuestDriver
from components.kinds.virtualbox.hardware import disk, folder
from components.kinds.virtualbox.medium import MediumDriver
from components.kinds.virtualbox.network import NetworkDriver
from components.kinds.virtualbox.vboxmanage import RANGES, pairs
from components.media.answers import Answers
from components.reach.driver import DriverError, driver_of
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
from components.stackfile import load, plan
from components.stackfile.problems import SpecError
from tests.support import images
from tests.support.commands import HOWS, Machine, every_failure
from tests.support.orders import order
from tests.support.stubs.virtualbox import STORE, VDI, VirtualBox
from tests.unit.components.labs import ROOT, up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.engine import Recorder

GUEST, NETWORK, MEDIUM = GuestDriver(), NetworkDriver(), MediumDriver()
OWNER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c01"
NET = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c02"
OTHER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c03"
READER = f"nestlab-virtualbox-serial@{OWNER}.service"
UNIT = f"nestlab-virtualbox@{OWNER}.service"
MAC = "52:54:00:00:00:09"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing here is to survive a power cut.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(vboxmanage, "LOCK_S", 1.0)
    monkeypatch.setattr(guests, "STOP_S", 0.1)
    monkeypatch.setattr(guests, "SETTLE_S", 1.0)


@pytest.fixture(scope="module")
def machine_(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("virtualbox"), VirtualBox)


@pytest.fixture
def machine(machine_: Machine) -> Machine:
    return machine_.reset()


def network(**other: Any) -> NetworkOrder:
    plain: dict[str, Any] = {
        "name": "own",
        "mode": "nat",
        "bridge": "",
        "subnet": "10.78.0.0/24",
        "prefix": 24,
        "gateway": "10.78.0.1",
        "dhcp": True,
        "dhcp_start": "10.78.0.2",
        "dhcp_end": "10.78.0.254",
        "domain": "",
        "reservations": [{"mac": MAC, "address": "10.78.0.9", "name": "web"}],
        "owner": NET,
    }
    return order(NetworkOrder, plain | other)


def isolated(**other: Any) -> NetworkOrder:
    return network(mode="isolated", **other)


def guest(**other: Any) -> GuestOrder:
    plain: dict[str, Any] = {
        "name": "web",
        "memory_mib": 512,
        "cores": 2,
        "disk_gib": 4,
        "disk_bus": "sata",
        "firmware": "bios",
        "machine": "pc",
        "video": "vga",
        "boot": ["cdrom", "hd"],
        "nics": [
            {"network": "natnetwork own", "mac": MAC, "model": "e1000", "address": "10.78.0.9"}
        ],
        "iso": f"{STORE}/live.iso",
        "image": "",
        "autostart": True,
        "console": {"type": "vnc", "listen": "127.0.0.1", "port": 0, "password": ""},
        "ready": {"probe": "none", "host": "", "port": 0},
        "store": STORE,
        "owner": OWNER,
    }
    return order(GuestOrder, plain | other)


def ready(machine: Machine) -> Machine:
    """Make a host that has a network, an ISO and a disk image for guests."""
    machine.reset()
    NETWORK.ensure(machine.shell(), network())
    machine.path(STORE).mkdir(parents=True)
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    machine.path(f"{STORE}/base.vdi").write_text(f'{VDI}{{"mib": 2048, "parent": ""}}')
    return machine


def made(machine: Machine, **other: Any) -> Machine:
    GUEST.ensure(ready(machine).shell(), guest(**other))
    return machine


def vm(machine: Machine) -> dict[str, Any]:
    [(number, found)] = machine.state["vms"].items()
    assert number == OWNER
    return dict(found)


def changes(machine: Machine, since: int = 0) -> list[str]:
    """Commands that change something, by their first words."""
    quiet = {"showvminfo", "list", "getextradata"}
    return [
        " ".join(call.words[:2])
        for call in machine.calls[since:]
        if not (call.command == "VBoxManage" and call.argv[0] in quiet)
        and call.words[:2] != ["systemctl", "is-enabled"]
        and call.command not in {"stat", "cat", "ls", "ip", "sha256sum"}
    ]


def again(machine: Machine) -> Callable[[], Machine]:
    """Return what makes ``machine`` as it is now, without giving all the commands once more."""
    state, tree = machine.state, machine.folder / "kept"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(machine.folder / "root", tree)

    def restore() -> Machine:
        machine.reset()
        shutil.copytree(tree, machine.folder / "root", dirs_exist_ok=True)
        with machine.changing() as found:
            found.clear()
            found.update(state)
        return machine

    return restore


def test_the_three_drivers_are_known_by_their_names() -> None:
    found = {what: type(driver_of(f"virtualbox.{what}")) for what in ("guest", "network", "medium")}
    assert found == {"guest": GuestDriver, "network": NetworkDriver, "medium": MediumDriver}


# What VBoxManage prints -------------------------------------------------------------------------


def test_what_showvminfo_prints_is_read_by_its_rules() -> None:
    told = (
        'name="a \\"b\\" \\\\ c=d"\nmemory=512\n"SATA-0-0"="/x/\\"y\\".vdi"\n'
        'VideoMode="720,400,0"@0,0 1\nBandwidthGroup0="x",Disk,0\nvrdeproperty[TCP]=<not set>\n'
        'not a pair\ndescription="one\nVMState=\\"running\\"\ntwo"\nVMState="poweroff"\n'
    )
    assert pairs(told) == {
        "name": 'a "b" \\ c=d',
        "memory": "512",
        "SATA-0-0": '/x/"y".vdi',
        "VideoMode": "720,400,0",
        "BandwidthGroup0": "x",
        "vrdeproperty[TCP]": "<not set>",
        "description": 'one\nVMState="running"\ntwo',
        "VMState": "poweroff",
    }


def test_a_description_can_not_pass_for_a_state(machine: Machine) -> None:
    made(machine)
    with machine.changing() as state:
        state["vms"][OWNER]["description"] = 'x"\nVMState="paused"\n\\'
    assert "description" in GUEST.look(machine.shell(), guest()).text
    GUEST.ensure(machine.shell(), guest())
    assert vm(machine)["description"] == f"nestlab {OWNER}"


# Networks ----------------------------------------------------------------------------------------


def test_a_nat_network_hands_out_the_planned_addresses(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network(domain="lab.test"))
    state = machine.state
    assert state["natnets"] == {"own": {"network": "10.78.0.0/24", "dhcp": True, "enabled": True}}
    assert state["dhcp"]["own"] == {
        "server-ip": "10.78.0.254",
        "netmask": "255.255.255.0",
        "lower-ip": "10.78.0.2",
        "upper-ip": "10.78.0.253",
        "enabled": True,
        "options": {},
        "fixed": {MAC: "10.78.0.9"},
        "own": {MAC: {"15": "lab.test"}},
    }
    assert NETWORK.look(machine.shell(), network(domain="lab.test")).ok
    assert NETWORK.called(network()) == "natnetwork own"
    before = len(machine.calls)
    NETWORK.ensure(machine.shell(), network(domain="lab.test"))
    assert changes(machine, before) == []


@pytest.mark.parametrize("resolver", ["10.0.2.3", "127.0.0.53"])
@pytest.mark.parametrize("search", ["", "home.test"])
def test_what_virtualbox_tells_a_nat_networks_clients_is_left_to_it(
    machine: Machine, resolver: str, search: str
) -> None:
    with machine.changing() as state:
        state.update(resolver=resolver, search=search)
    wanted = network(domain="lab.test")
    NETWORK.ensure(machine.shell(), wanted)
    for words in (
        "createvm --name other --register --ostype Other_64",
        "modifyvm other --nic1 natnetwork --nat-network1 own",
        "startvm other --type headless",
    ):
        assert machine.shell().run(["VBoxManage", *words.split()]).ok
    told = machine.state["dhcp"]["own"]["options"]
    assert told["6"] == (resolver if resolver == "10.0.2.3" else "10.78.0.3")
    assert NETWORK.look(machine.shell(), wanted).ok
    assert NETWORK.glance(machine.shell(), wanted).ok
    before = len(machine.calls)
    NETWORK.ensure(machine.shell(), wanted)
    assert changes(machine, before) == []
    assert machine.state["dhcp"]["own"]["own"] == {MAC: {"15": "lab.test"}}


def test_a_domain_is_changed_and_taken_back(machine: Machine) -> None:
    for domain in ("lab.test", "other.test", "", "lab.test"):
        wanted = network(domain=domain)
        NETWORK.ensure(machine.shell(), wanted)
        own = machine.state["dhcp"]["own"]["own"].get(MAC, {})
        assert own == ({"15": domain} if domain else {})
        assert NETWORK.look(machine.shell(), wanted).ok
        for other in {"lab.test", "other.test", ""} - {domain}:
            assert not NETWORK.look(machine.shell(), network(domain=other)).ok


def test_an_isolated_network_is_a_host_only_interface_that_leads_nowhere(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), isolated())
    state = machine.state
    assert state["hostonly"] == {"vboxnet0": ["10.78.0.1", "255.255.255.0"]}
    server = state["dhcp"]["HostInterfaceNetworking-vboxnet0"]
    assert server["options"] == {}
    assert server["fixed"] == {MAC: "10.78.0.9"}
    assert machine.path(RANGES).read_text() == "* 192.168.56.0/21\n* 10.78.0.0/24\n"
    assert NETWORK.look(machine.shell(), isolated()).ok
    NETWORK.ensure(machine.shell(), isolated())
    assert machine.path(RANGES).read_text().count("10.78") == 1
    NETWORK.remove(machine.shell(), isolated())
    gone = machine.state
    assert (gone["hostonly"], gone["dhcp"], gone["extra"]) == ({}, {}, {})


def test_the_dhcp_server_takes_no_planned_address(machine: Machine) -> None:
    taken = [{"mac": MAC, "address": "10.78.0.254", "name": "web"}]
    NETWORK.ensure(machine.shell(), network(reservations=taken))
    assert machine.state["dhcp"]["own"]["server-ip"] == "10.78.0.253"
    full = network(subnet="10.78.0.0/29", dhcp_end="10.78.0.3", dhcp_start="10.78.0.3")
    assert "no address of 10.78.0.0/29 is left" in NETWORK.problem(full)


def test_a_network_without_dhcp_has_no_server(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network())
    assert not NETWORK.look(machine.shell(), network(dhcp=False, reservations=[])).ok
    NETWORK.ensure(machine.shell(), network(dhcp=False, reservations=[]))
    assert machine.state["dhcp"] == {}
    assert machine.state["natnets"]["own"]["dhcp"] is False
    assert NETWORK.look(machine.shell(), network(dhcp=False, reservations=[])).ok


def test_a_bridge_is_a_device_of_the_host_by_default_that_of_its_route(machine: Machine) -> None:
    own = network(mode="bridge", subnet="", dhcp=False, reservations=[])
    NETWORK.ensure(machine.shell(), own)
    assert NETWORK.look(machine.shell(), own).ok
    assert NETWORK.called(replace(own, bridge="enp2s0")) == "bridged enp2s0"
    with pytest.raises(DriverError, match="knows no device eth9 to join, it knows enp1s0, enp2s0"):
        NETWORK.ensure(machine.shell(), replace(own, bridge="eth9"))
    with machine.changing() as state:
        state["route"] = ""
    assert "no default route" in NETWORK.look(machine.shell(), own).text
    NETWORK.remove(machine.shell(), own)
    assert not [call for call in machine.calls if call.argv[:1] == ["setextradata"]]


def test_strangers_interfaces_are_left_alone(machine: Machine) -> None:
    with machine.changing() as state:
        state["hostonly"]["vboxnet0"] = ["192.168.56.1", "255.255.255.0"]
    NETWORK.ensure(machine.shell(), isolated())
    assert machine.state["hostonly"]["vboxnet1"] == ["10.78.0.1", "255.255.255.0"]
    NETWORK.remove(machine.shell(), isolated())
    assert machine.state["hostonly"] == {"vboxnet0": ["192.168.56.1", "255.255.255.0"]}


# Media -------------------------------------------------------------------------------------------

QCOW2 = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (2 << 30).to_bytes(8, "big") + bytes(99)


@pytest.fixture
def iso(tmp_path: Path) -> MediumOrder:
    return _medium(tmp_path, "live.iso", b"an ISO" * 100)


@pytest.fixture
def image(tmp_path: Path) -> MediumOrder:
    return _medium(tmp_path, "base.qcow2", QCOW2)


def _medium(at: Path, name: str, content: bytes) -> MediumOrder:
    (at / name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return MediumOrder(name, str(at / name), sha256, len(content), STORE, NET)


def test_an_iso_is_sent_once_and_checked(machine: Machine, iso: MediumOrder) -> None:
    MEDIUM.ensure(machine.shell(), iso)
    MEDIUM.ensure(machine.shell(), iso)
    assert [call.command for call in machine.calls].count("put") == 1
    assert MEDIUM.look(machine.shell(), iso).ok
    assert MEDIUM.called(iso) == f"{STORE}/live.iso"


@pytest.mark.parametrize("harm", [b"", b"an I", b"another" * 100])
def test_a_damaged_medium_is_sent_again(harm: bytes, machine: Machine, iso: MediumOrder) -> None:
    MEDIUM.ensure(machine.shell(), iso)
    machine.path(f"{STORE}/live.iso").write_bytes(harm)
    assert not MEDIUM.look(machine.shell(), iso).ok
    MEDIUM.ensure(machine.shell(), iso)
    assert machine.path(f"{STORE}/live.iso").read_bytes() == b"an ISO" * 100


def test_a_medium_that_is_not_what_the_stack_says_is_refused(
    machine: Machine, iso: MediumOrder
) -> None:
    with pytest.raises(DriverError, match=r"the stack says 0000.*is damaged or another file"):
        MEDIUM.ensure(machine.shell(), replace(iso, sha256="0" * 64))


def test_an_image_becomes_a_base_and_another_content_another_base(
    machine: Machine, image: MediumOrder, tmp_path: Path
) -> None:
    MEDIUM.ensure(machine.shell(), image)
    base = MEDIUM.called(image)
    assert re.fullmatch(rf"{STORE}/base\.qcow2\.[0-9a-f]{{8}}\.vdi", base)
    assert machine.path(base).read_text() == f'{VDI}{{"mib": 2048, "parent": ""}}'
    assert not machine.path(f"{STORE}/base.qcow2").exists(), "it is not kept twice"
    NETWORK.ensure(machine.shell(), network())
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    GUEST.ensure(machine.shell(), guest(image=base, disk_gib=0))
    newer = _medium(tmp_path, "base.qcow2", QCOW2 + b"more")
    MEDIUM.ensure(machine.shell(), newer)
    assert MEDIUM.called(newer) != base
    assert machine.path(base).exists(), "a guest's disk is linked to it"
    with pytest.raises(DriverError, match="has 1 child media"):
        MEDIUM.remove(machine.shell(), newer)
    GUEST.remove(machine.shell(), guest(image=base, disk_gib=0))
    MEDIUM.ensure(machine.shell(), newer)
    assert not machine.path(base).exists(), "nobody needs it any more"
    MEDIUM.remove(machine.shell(), newer)
    assert not list(machine.path(STORE).glob("base*"))


# Guests ------------------------------------------------------------------------------------------


def test_a_guest_is_made_as_the_stack_says_and_runs(machine: Machine) -> None:
    made(machine)
    found = vm(machine)
    said = {key: found[key] for key in ("name", "memory", "cpus", "chipset", "firmware", "VMState")}
    assert said == {
        "name": "web",
        "memory": 512,
        "cpus": 2,
        "chipset": "piix3",
        "firmware": "BIOS",
        "VMState": "running",
    }
    assert found["description"] == f"nestlab {OWNER}"
    assert found["boot"] == ["dvd", "disk", "none", "none"]
    assert found["controllers"] == {"SATA": ["sata", "IntelAhci"]}
    assert found["drives"] == {
        "SATA-0-0": {"kind": "hdd", "path": disk(guest())},
        "SATA-1-0": {"kind": "dvddrive", "path": f"{STORE}/live.iso"},
    }
    nic = found["nics"]["1"]
    assert (nic["nic"], nic["nat-network"]) == ("natnetwork", "own")
    assert (nic["nictype"], nic["macaddress"]) == ("82540EM", "525400000009")
    assert sorted(machine.state["enabled"]) == sorted([READER, UNIT])
    unit = machine.path(guests.UNIT.file).read_text()
    assert "ExecStart=/usr/bin/VBoxManage startvm %i --type headless" in unit
    assert machine.state["media"][disk(guest())]["mib"] == 4096


EDITS: dict[str, dict[str, Any]] = {
    "memory": {"memory_mib": 1024},
    "cores": {"cores": 4},
    "chipset and firmware": {"machine": "q35", "firmware": "uefi"},
    "video": {"video": "none"},
    "boot": {"boot": ["hd", "cdrom", "network"]},
    "bus ide": {"disk_bus": "ide"},
    "bus scsi": {"disk_bus": "scsi"},
    "bus virtio": {"disk_bus": "virtio"},
    "no CD": {"iso": "", "boot": ["hd"]},
    "no NIC": {"nics": []},
    "autostart": {"autostart": False},
    "screen": {
        "console": {"type": "vnc", "listen": "127.0.0.1", "port": 5901, "password": ""}
    },
    "NICs": {
        "nics": [
            {"network": "natnetwork own", "mac": MAC, "model": "virtio", "address": ""},
            {"network": "bridged enp2s0", "mac": "52:54:00:00:00:0a", "model": "pcnet", "address": ""},
            {"network": "bridged ", "mac": "52:54:00:00:00:0b", "model": "", "address": ""},
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_seen_and_made_and_keeps_the_disk(edit: str, machine: Machine) -> None:
    made(machine)
    content = machine.path(disk(guest())).stat().st_ino
    wanted = guest(**EDITS[edit])
    assert not GUEST.look(machine.shell(), wanted).ok
    GUEST.ensure(machine.shell(), wanted)
    assert GUEST.look(machine.shell(), wanted).ok
    assert vm(machine)["VMState"] == "running"
    assert machine.path(disk(guest())).stat().st_ino == content
    GUEST.ensure(machine.shell(), guest())
    assert GUEST.look(machine.shell(), guest()).ok, "and back again"
    assert machine.path(disk(guest())).stat().st_ino == content


def test_where_a_disk_and_a_cd_are_plugged_in(machine: Machine) -> None:
    made(machine, disk_bus="ide")
    assert set(vm(machine)["drives"]) == {"IDE-0-0", "IDE-1-0"}
    GUEST.ensure(machine.shell(), guest(disk_bus="virtio"))
    assert vm(machine)["controllers"] == {
        "SATA": ["sata", "IntelAhci"],
        "VirtIO": ["virtio", "VirtioSCSI"],
    }
    assert set(vm(machine)["drives"]) == {"VirtIO-0-0", "SATA-1-0"}


def test_before_a_change_a_guest_may_switch_itself_off(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    made(machine)
    before = len(machine.calls)
    GUEST.ensure(machine.shell(), guest(cores=4))
    assert "web: stopped for a change: cpus is '2' and not '4'" in capsys.readouterr().err
    stops = [call.argv[2] for call in machine.calls[before:] if call.argv[:1] == ["controlvm"]]
    assert stops == ["acpipowerbutton"]
    with machine.changing() as state:
        state["deaf"] = True
    GUEST.ensure(machine.shell(), guest())
    assert "did not switch itself off" in capsys.readouterr().err
    assert vm(machine)["cpus"] == 2
    assert vm(machine)["VMState"] == "running"


def test_a_guests_isolated_network_is_found_by_its_owner(machine: Machine) -> None:
    ready(machine)
    NETWORK.ensure(machine.shell(), isolated(owner=OTHER, subnet="10.79.0.0/24",
                                             gateway="10.79.0.1", dhcp=False))  # fmt: skip
    nic = {"network": f"hostonly {OTHER}", "mac": MAC, "model": "", "address": ""}
    wanted = guest(nics=[nic])
    GUEST.ensure(machine.shell(), wanted)
    assert vm(machine)["nics"]["1"]["hostonlyadapter"] == "vboxnet0"
    with machine.changing() as state:
        state["extra"].clear()
    assert "its hostonly network is not there" in GUEST.look(machine.shell(), wanted).text
    with pytest.raises(DriverError, match="its hostonly network is not there on stub1"):
        GUEST.ensure(machine.shell(), wanted)


def test_an_images_disk_is_linked_and_a_larger_one_is_a_copy(machine: Machine) -> None:
    base = f"{STORE}/base.vdi"
    made(machine, image=base, disk_gib=2, iso="", boot=["hd"])
    assert machine.state["media"][disk(guest())] == {"kind": "hdd", "mib": 2048, "parent": base}
    made(machine, image=base, disk_gib=8, iso="", boot=["hd"])
    assert machine.state["media"][disk(guest())] == {"kind": "hdd", "mib": 8192, "parent": ""}


# Every failure


def one_guest(machine: Machine, **other: Any) -> None:
    wanted = guest(**other)
    seen = GUEST.look(machine.shell(), wanted)
    assert seen.ok, seen.text
    assert vm(machine)["VMState"] == "running"
    bases = {path for path in machine.state["media"] if path.endswith("base.vdi")}
    assert set(machine.state["media"]) - bases == {
        held["path"] for held in vm(machine)["drives"].values()
    }


@pytest.mark.parametrize(
    "source",
    [{}, {"image": f"{STORE}/base.vdi"}],
    ids=["iso", "copied"],
)
def test_a_guest_is_made_once_whatever_fails(source: dict[str, Any], machine_: Machine) -> None:
    tried = every_failure(
        again(ready(machine_)),
        lambda it: GUEST.ensure(it.shell(), guest(**source)),
        lambda it: one_guest(it, **source),
        # The other goes the same way but for the disk.
        hows=HOWS if not source else ["cut"],
    )
    assert tried > (45 if not source else 15)


def test_a_guest_is_changed_whatever_fails(machine_: Machine) -> None:
    edit = EDITS["bus scsi"] | EDITS["cores"] | EDITS["NICs"] | EDITS["autostart"]

    def changed(machine: Machine) -> None:
        one_guest(machine, **edit)
        assert machine.path(f"{folder(guest())}/homework").exists()

    made(machine_)
    machine_.path(f"{folder(guest())}/homework").touch()
    every_failure(again(machine_), lambda it: GUEST.ensure(it.shell(), guest(**edit)), changed)


# By hand


def harmed(machine: Machine, **fields: Any) -> Machine:
    made(machine)
    with machine.changing() as state:
        state["vms"][OWNER].update(fields)
    return machine


STATES = {
    "poweroff": "startvm",
    "aborted": "startvm",
    "saved": "startvm",
    "aborted-saved": "startvm",
    "paused": "controlvm",
    "gurumeditation": "controlvm",
}


@pytest.mark.parametrize("state", STATES)
def test_a_guest_in_any_state_is_seen_and_runs_again(state: str, machine: Machine) -> None:
    harmed(machine, VMState=state)
    seen = GUEST.glance(machine.shell(), guest())
    assert (seen.ok, seen.text) == (False, f"guest web is {state}")
    before = len(machine.calls)
    GUEST.ensure(machine.shell(), guest())
    assert changes(machine, before)[0] == f"VBoxManage {STATES[state]}"
    assert GUEST.glance(machine.shell(), guest()).ok


@pytest.mark.parametrize("state", ["running", *STATES])
def test_a_guest_in_any_state_can_be_changed_and_removed(state: str, machine: Machine) -> None:
    harmed(machine, VMState=state)
    GUEST.ensure(machine.shell(), guest(cores=3))
    assert vm(machine)["cpus"] == 3
    assert vm(machine)["VMState"] == "running"
    with machine.changing() as found:
        found["vms"][OWNER]["VMState"] = state
    GUEST.remove(machine.shell(), guest())
    assert machine.state["vms"] == {}


def test_a_guest_between_two_states_is_waited_for(machine: Machine) -> None:
    harmed(machine, VMState="saving", busy="saved", session=4)
    GUEST.ensure(machine.shell(), guest())
    assert vm(machine)["VMState"] == "running"
    with machine.changing() as state:
        state["vms"][OWNER].update(VMState="saving", busy="saved", session=10**6)
    with pytest.raises(DriverError, match=r"last seen: guest is saving on stub1"):
        GUEST.ensure(machine.shell(), guest())


def test_a_guest_that_another_session_holds_is_waited_for_and_then_told(machine: Machine) -> None:
    harmed(machine, VMState="poweroff", session=4)
    GUEST.ensure(machine.shell(), guest(cores=3))
    with machine.changing() as state:
        state["vms"][OWNER].update(VMState="poweroff", session=10**6)
    told = r"is already locked for a session \(or being unlocked\)\n  .*emergencystop"
    with pytest.raises(DriverError, match=told) as failed:
        GUEST.ensure(machine.shell(), guest())
    assert "Details:" not in str(failed.value)
    assert "Context:" not in str(failed.value)


@pytest.mark.parametrize(
    "harm", [("nictype", "virtio"), ("macaddress", "080027123456"), ("nic", "none"),
             ("nat-network", "other"), ("cableconnected", "off")],
)  # fmt: skip
def test_a_nic_that_was_changed_by_hand_is_mended(harm: tuple[str, str], machine: Machine) -> None:
    made(machine)
    with machine.changing() as state:
        state["vms"][OWNER]["nics"]["1"][harm[0]] = harm[1]
    assert not GUEST.glance(machine.shell(), guest()).ok
    GUEST.ensure(machine.shell(), guest())
    assert GUEST.glance(machine.shell(), guest()).ok


def test_a_nic_that_was_added_by_hand_is_taken_out(machine: Machine) -> None:
    made(machine)
    with machine.changing() as state:
        state["vms"][OWNER]["nics"]["3"]["nic"] = "nat"
    assert "nic3 is 'nat'" in GUEST.glance(machine.shell(), guest()).text
    GUEST.ensure(machine.shell(), guest())
    assert vm(machine)["nics"]["3"]["nic"] == "none"


def test_a_unit_that_was_disabled_by_hand_is_enabled_again(machine: Machine) -> None:
    made(machine)
    with machine.changing() as state:
        state["enabled"].clear()
    assert "starts with its host" in GUEST.glance(machine.shell(), guest()).text
    before = len(machine.calls)
    GUEST.ensure(machine.shell(), guest())
    assert sorted(machine.state["enabled"]) == sorted([READER, UNIT])
    assert "VBoxManage controlvm" not in changes(machine, before), "the guest goes on"


def test_a_guest_that_was_unregistered_comes_back_with_its_disk(machine: Machine) -> None:
    made(machine)
    content = machine.path(disk(guest())).read_text()
    machine.path(disk(guest())).write_text(f"{content} ")
    size = machine.path(disk(guest())).stat().st_size
    with machine.changing() as state:
        state["vms"].clear()
        state["media"].clear()
    assert "is not there any more" in GUEST.glance(machine.shell(), guest()).text
    GUEST.ensure(machine.shell(), guest())
    one_guest(machine)
    assert machine.path(disk(guest())).stat().st_size == size


def test_a_guest_whose_settings_were_deleted_comes_back_with_its_disk(machine: Machine) -> None:
    made(machine)
    number = machine.path(disk(guest())).stat().st_ino
    with machine.changing() as state:
        state["vms"][OWNER]["VMState"] = "poweroff"
        machine.path(state["vms"][OWNER]["CfgFile"]).unlink()
    GUEST.ensure(machine.shell(), guest())
    one_guest(machine)
    assert machine.path(disk(guest())).stat().st_ino == number


def test_a_disk_that_was_deleted_by_hand_is_seen_and_made_anew(machine: Machine) -> None:
    made(machine)
    machine.path(disk(guest())).unlink()
    assert "its disk is not there any more" in GUEST.glance(machine.shell(), guest()).text
    GUEST.ensure(machine.shell(), guest())
    one_guest(machine)


def test_a_disk_in_use_is_not_made_anew_for_want_of_a_mark(machine: Machine) -> None:
    made(machine)
    number = machine.path(disk(guest())).stat().st_ino
    machine.path(f"{folder(guest())}/disk.complete").unlink()
    GUEST.ensure(machine.shell(), guest(cores=3))
    assert machine.path(disk(guest())).stat().st_ino == number


def test_a_snapshot_is_no_harm_and_its_disk_is_not_taken_out(machine: Machine) -> None:
    made(machine)
    own = f"{STORE}/guests/{OWNER}/settings/web/Snapshots/x.vdi"
    with machine.changing() as state:
        found = state["vms"][OWNER]
        found["snapshot"] = "before the exam"
        found["drives"]["SATA-0-0"]["path"] = own
    assert GUEST.glance(machine.shell(), guest()).ok


# Known failures


@pytest.mark.parametrize(
    ("start", "way_out"),
    [
        ("vmx", "VERR_VMX_IN_VMX_ROOT_MODE.*\n  KVM holds the CPU's extension.*modprobe -r kvm_intel"),
        ("svme", "SVME_NOT_ENABLED.*\n  since 7.2.10.*take kvm.enable_virt_at_load=0 away"),
    ],
)  # fmt: skip
def test_a_start_that_kvm_is_in_the_way_of_says_so(
    start: str, way_out: str, machine: Machine
) -> None:
    ready(machine)
    with machine.changing() as state:
        state["start"] = start
    with pytest.raises(DriverError, match=way_out):
        GUEST.ensure(machine.shell(), guest())
    with machine.changing() as state:
        state["start"] = ""
    GUEST.ensure(machine.shell(), guest())
    one_guest(machine)


# Any text ----------------------------------------------------------------------------------------

nasty = st.text(
    st.one_of(
        st.sampled_from(list(" '\"`$();&|<>*?~#!\\/-=%{}[]\n\t\r\0")),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(name=nasty)
@example(name="$(reboot)")
@example(name="a; `id` 'x' \"y\" \\ z")
@example(name="-n")
@example(name="-rf /")
@example(name='x" {' + OTHER + "}")
@example(name="日本 😀")
@example(name="two\nlines")
@example(name="\u202eevil")
def test_a_guests_name_arrives_unchanged_or_is_refused(name: str, machine: Machine) -> None:
    wanted = guest(name=name)
    ready(machine)
    before = len(machine.calls)
    if GUEST.problem(wanted):
        assert len(machine.calls) == before
        return
    GUEST.ensure(machine.shell(), wanted)
    assert vm(machine)["name"] == name
    assert GUEST.look(machine.shell(), wanted).ok
    GUEST.remove(machine.shell(), wanted)
    assert machine.state["vms"] == {}


@quick
@given(name=nasty, mode=st.sampled_from(["nat", "isolated"]))
@example(name="a; `id` $(x) '", mode="nat")
@example(name="Name: x", mode="nat")
@example(name="--netname", mode="nat")
def test_a_networks_name_arrives_unchanged_or_is_refused(
    name: str, mode: str, machine: Machine
) -> None:
    machine.reset()
    wanted = network(name=name, mode=mode)
    if NETWORK.problem(wanted):
        return
    NETWORK.ensure(machine.shell(), wanted)
    assert list(machine.state["natnets"]) == ([name] if mode == "nat" else [])
    assert NETWORK.look(machine.shell(), wanted).ok
    NETWORK.remove(machine.shell(), wanted)
    assert machine.state["extra"] == {}


@quick
@given(name=nasty, end=st.sampled_from([".iso", ".img"]))
@example(name="a b'\"$(x)", end=".iso")
@example(name="..", end=".img")
@example(name="-rf", end=".img")
def test_a_mediums_name_arrives_unchanged_or_is_refused(
    name: str, end: str, machine: Machine, tmp_path: Path
) -> None:
    machine.reset()
    source = tmp_path / "source"
    source.write_bytes(QCOW2)
    wanted = replace(_medium(tmp_path, "source", QCOW2), name=name + end)
    if MEDIUM.problem(wanted):
        return
    MEDIUM.ensure(machine.shell(), wanted)
    assert MEDIUM.look(machine.shell(), wanted).ok
    path = MEDIUM.called(wanted)
    assert machine.path(path).is_file()
    nets = network()
    NETWORK.ensure(machine.shell(), nets)
    using = guest(
        iso=path if end == ".iso" else "", image="" if end == ".iso" else path, disk_gib=0
    )
    GUEST.ensure(machine.shell(), using)
    assert GUEST.look(machine.shell(), using).ok
    GUEST.remove(machine.shell(), using)
    MEDIUM.remove(machine.shell(), wanted)
    assert not [file for file in machine.path(STORE).iterdir() if file.is_file()]


def test_nobody_but_root_gets_to_a_guests_serial_port(machine: Machine) -> None:
    ready(machine)
    GUEST.ensure(machine.shell(), guest())
    assert vm(machine)["uart"] == "0x03f8,4"
    how, _, path = vm(machine)["uartmode"].partition(",")
    assert how == "server"
    assert machine.path(path).parent.stat().st_mode & 0o777 == 0o700


def test_somebody_reads_a_serial_port_before_its_guest_says_anything(machine: Machine) -> None:
    ready(machine)
    GUEST.ensure(machine.shell(), guest())
    done = [call.words for call in machine.calls]
    reads = done.index(["systemctl", "enable", "--now", READER])
    starts = next(at for at, words in enumerate(done) if words[:2] == ["VBoxManage", "startvm"])
    assert reads < starts
    text = machine.path("/etc/systemd/system/nestlab-virtualbox-serial@.service").read_text()
    _, _, path = vm(machine)["uartmode"].partition(",")
    assert f"socat -u UNIX-CONNECT:{path} OPEN:/dev/null" in text.replace("%i", OWNER)
    with machine.changing() as state:
        state["enabled"].remove(READER)
    said = GUEST.look(machine.shell(), guest()).text
    assert said == "guest web: nobody reads its serial port, where it waits"
    GUEST.ensure(machine.shell(), guest())
    assert GUEST.look(machine.shell(), guest()).ok
    GUEST.remove(machine.shell(), guest())
    assert machine.state["enabled"] == []


def test_who_opens_a_console_takes_the_readers_place_and_gives_it_back(tmp_path: Path) -> None:
    """The words themselves, in a shell, with a port that lets one at a time in."""
    words = tmp_path / "words"
    for name in ("systemctl", "socat"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {words}\n')
        program.chmod(0o755)
    argv = console.command("web", "/store", OWNER)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(argv, env={"PATH": path}, check=True, timeout=20)
    assert words.read_text().splitlines() == [
        f"systemctl stop {READER}",
        f"socat -,rawer,escape=0x1d UNIX-CONNECT:/store/guests/{OWNER}/serial/port",
        f"systemctl start {READER}",
    ]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"owner": "me"}, "is no UUID"),
        ({"video": "qxl"}, "no such adapter; set vga or none"),
        ({"cores": 65}, "64 at most"),
        ({"disk_bus": "xen"}, "VirtualBox has sata, ide, scsi, virtio"),
        ({"store": "/" + "x" * 60}, "has 117 bytes, and a Unix socket's path has 107 at most"),
        ({"store": '/a"b'}, "VBoxManage would show it cut off"),
        ({"store": "/a%b"}, "systemd or socat reads as more than itself"),
        ({"nics": [{"network": "natnetwork own", "mac": MAC, "model": "vmxnet3", "address": ""}]},
         "VirtualBox has e1000, virtio, pcnet"),
        ({"nics": [{"network": "natnetwork own", "mac": MAC, "model": "", "address": ""}] * 9},
         "the chipset pc has 8 at most"),
        ({"iso": "/x\ny"}, "does not print"),
    ],
)  # fmt: skip
def test_what_virtualbox_has_not_is_refused_before_any_command(
    other: dict[str, Any], told: str
) -> None:
    assert told in GUEST.problem(guest(**other))


# The lab -----------------------------------------------------------------------------------------

LAB: dict[str, Any] = {
    "media": {
        "cloud": {"path": "media/cloud.qcow2"},
        "tools": {"path": "media/tools.iso"},
        "live": {"path": "media/live.iso"},
    },
    "networks": {"lab": {"subnet": "10.77.0.0/24"}},
    "hypervisors": {
        "vb1": {
            "kind": "virtualbox",
            "image": "cloud",
            "tools": "tools",
            "package": "virtualbox-7.1_7.1.4-165100~Debian~bookworm_amd64.deb",
            "extension_pack": "Oracle_VirtualBox_Extension_Pack-7.1.4.vbox-extpack",
            "licence": "ab" * 32,
            "network": "lab",
            "networks": {
                "out": {"mode": "bridge"},
                "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
            },
            "guests": {
                "live": {
                    "iso": "live",
                    "network": "own",
                    "console": {"port": 5900},
                    "memory_mib": 256,
                },
                "web": {"image": "cloud", "network": "out", "nic_model": "pcnet"},
            },
        }
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the lab's media, as small as they can be."""
    root = tmp_path_factory.mktemp("lab")
    (root / "media").mkdir()
    for medium in LAB["media"].values():
        content = images.qcow2(2 << 30) if "qcow2" in medium["path"] else images.iso()
        (root / medium["path"]).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def recorded(root: Path) -> Recorder:
    return up(LAB, root=root)


def test_a_preview_shows_the_whole_tree_before_any_of_it_is_there(
    root: Path, recorded: Recorder
) -> None:
    assert up(LAB, root=root, preview=True).names() == recorded.names()


def test_the_recorded_lab_has_everything_where_it_belongs(recorded: Recorder) -> None:
    lab = recorded
    domain = lab.named("vb1-domain", "Domain")
    xslt = str(domain.inputs["xml"])
    assert "virtio" in xslt
    gate = lab.named("vb1-gate", "MachineGate")
    commands = [command["argv"] for command in gate.inputs["probe"]["commands"]]
    assert commands[0] == ["VBoxManage", "--version"]
    assert ["test", "-c", "/dev/vboxdrv"] in commands
    assert ["VBoxManage", "list", "hostinfo"] in commands
    discs = lab.named("vb1-discs", "InstallMedium")
    assert discs.inputs["recipe"] == "virtualbox"
    assert "answers" in discs.secret_inputs
    names = lab.names()
    assert "host-disc-medium-tools" in names or any("medium-tools" in name for name in names)
    live = lab.named("vb1-live-guest", "RemoteObject")
    assert live.inputs["driver"] == "virtualbox.guest"
    assert live.inputs["wanted"]["nics"][0]["model"] == "e1000"
    assert live.inputs["wanted"]["disk_bus"] in {"", "sata"}
    assert live.inputs["wanted"]["console"]["port"] == 5900
    assert live.inputs["wanted"]["store"] == STORE
    assert live.deleted_with == domain.urn
    web = lab.named("vb1-web-guest", "RemoteObject")
    assert web.inputs["wanted"]["nics"][0]["model"] == "pcnet"
    own = lab.named("vb1-own-network", "RemoteObject").inputs["wanted"]
    assert own["reservations"][0]["mac"] == live.inputs["wanted"]["nics"][0]["mac"]
    assert {"vb1-live-medium", "vb1-cloud-medium"} <= set(names)
    told = str(lab.stack_outputs)
    assert "rdp://127.0.0.1:5900" in told
    rows = {row["name"]: row for row in lab.stack_outputs["sheet"]}
    socket = f"{STORE}/guests/{live.inputs['wanted']['owner']}/serial/port"
    assert f"UNIX-CONNECT:{socket}" in rows["live"]["enter"][-3]
    for resource in lab.of_type("RemoteObject"):
        assert "target" in resource.secret_inputs


def test_what_its_own_commands_answer_opens_the_gate(machine: Machine, recorded: Recorder) -> None:
    [gate] = recorded.of_type("MachineGate")
    asked = [one for one in gate.inputs["probe"]["commands"] if one["argv"][0] == "VBoxManage"]
    assert ssh._asked(machine.shell(), Probe("ssh", commands=[Command(**one) for one in asked])).ok
    assert len(asked) == 2


def test_its_discs_set_virtualbox_up() -> None:
    told = Answers(
        name="vb1",
        fqdn="vb1.lab.test",
        mac=MAC,
        password="secret",
        authorized_key="ssh-ed25519 AAAA",
        host_private="-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        host_public="ssh-ed25519 AAAA",
        options={
            "package": "virtualbox-7.1_7.1.4-165100~Debian~bookworm_amd64.deb",
            "extension_pack": "Pack.vbox-extpack",
            "licence": "ab" * 32,
        },
    )
    data = media.files(told)["/user-data"].decode()
    assert "qemu-utils" in data
    assert "socat" in data
    assert "virtualbox-7.1_7.1.4-165100~Debian~bookworm_amd64.deb" in data
    assert f"--accept-license={'ab' * 32}" in data
    assert "secret" not in data.replace("secrets", "")
    with pytest.raises(ValueError, match="nosuch: no such option"):
        media.files(
            Answers(**{**{f: getattr(told, f) for f in told.__dataclass_fields__},
                       "options": {"nosuch": "x"}})
        )  # fmt: skip


@pytest.mark.parametrize("subnet", ["10.79.0.0/24", "10.79.0.0/28"])
def test_addresses_that_virtualbox_has_in_a_nat_network_are_nobodys(subnet: str) -> None:
    guests = {f"g{n}": {"iso": "live", "memory_mib": 64, "network": "own"} for n in range(3)}
    inside = {"networks": {"own": {"subnet": subnet}}, "guests": guests}
    data = {"name": "lab", **LAB, "hypervisors": {"vb1": LAB["hypervisors"]["vb1"] | inside}}
    place = plan(load(data, root=ROOT, exists=lambda _: True)).place("vb1")
    assert place.networks["own"].dhcp_start == "10.79.0.4"
    for each in place.machines.values():
        [nic] = each.nics
        assert int(str(nic.address).split(".")[3]) >= 4


def test_a_subnet_with_too_few_addresses_beside_virtualboxs_is_refused() -> None:
    asked = {f"g{n}": {"iso": "live", "memory_mib": 64, "network": "own"} for n in range(12)}
    told = refusals(networks={"own": {"subnet": "10.79.0.0/28"}}, guests=asked)
    assert "it has room for 11 machines, and 12 NICs are on it: widen it, at least to /27" in told


@pytest.mark.parametrize("mode", ["nat", "isolated"])
def test_only_a_nat_network_of_virtualbox_has_addresses_of_its_own(mode: str) -> None:
    for number in (2, 3, 4):
        nic = [{"network": "own", "address": f"10.79.0.{number}"}]
        told = refusals(
            networks={"own": {"subnet": "10.79.0.0/24", "mode": mode}},
            guests={"g": {"iso": "live", "memory_mib": 64, "network": nic}},
        )
        refused = mode == "nat" and number < 4
        assert ("g.network.0.address: '10.79.0." in told) is refused, told
        assert ("take one from 10.79.0.4 to 10.79.0.254" in told) is refused


def refusals(**other: Any) -> str:
    inside = LAB["hypervisors"]["vb1"] | other
    data = {"name": "lab", **LAB, "hypervisors": {"vb1": inside}}
    try:
        load(data, root=ROOT, exists=lambda _: True)
    except SpecError as wrong:
        return str(wrong)
    return ""


GUESTS = LAB["hypervisors"]["vb1"]["guests"]


def screen(**console: Any) -> dict[str, Any]:
    return {"guests": {**GUESTS, "live": GUESTS["live"] | {"console": console}}}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"memory_mib": 2048}, "4096"),
        ({"disk_gib": 20}, "30"),
        ({"tools": None}, "it lies on a CD, and none is named"),
        ({"licence": None}, "installed by who accepts its licence"),
        ({"package": None, "extension_pack": None, "licence": None}, "nothing is taken from that CD"),
        ({"package": "a b.deb"}, "package"),
        ({"extension_pack": None, "licence": None}, "by its extension pack alone"),
        (screen(port=5900, listen="10.0.0.5"), "stay on loopback"),
        (screen(port=5900, password=True), "have none here"),
        (screen(listen="127.0.0.1"), "on the port that is named"),
        (screen(port=5900, type="spice"), "its screens are RDP"),
        ({"networks": {"own": {"mode": "route", "subnet": "10.78.0.0/24"}}, "guests": {}},
         "VirtualBox offers nat, isolated"),
        ({"guests": {"x": {"iso": "live", "nic_model": "vmxnet3"}}}, "VirtualBox offers e1000"),
    ],
)  # fmt: skip
def test_what_does_not_go_is_refused_by_the_spec(other: dict[str, Any], told: str) -> None:
    assert told in refusals(**other)


def test_the_lab_itself_is_accepted() -> None:
    assert refusals() == ""
