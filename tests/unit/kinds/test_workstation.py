"""VMware Workstation by vmrun: guests, networks and media on a stub that refuses what it refuses.

A failure here is a guest that is made twice or not mended, a stranger's that is touched, a disk that
is lost on the way to another setting, a network that hands out old addresses, or a name that a shell
or a .vmx reads as something else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates.medium import InstallMediumProvider
from components.gates.probes import Command, Probe, ssh
from components.kinds.workstation import guest as guests
from components.kinds.workstation import media, vmrun
from components.kinds.workstation.guest import GuestDriver, folder
from components.kinds.workstation.medium import DRIVER
from components.kinds.workstation.network import NetworkDriver
from components.kinds.workstation.vmx import merged, parsed
from components.media.answers import Answers
from components.media.iso import Iso, WrongMedium
from components.reach.driver import DriverError, driver_of
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder, Reservation
from components.stackfile import load
from components.stackfile.problems import SpecError
from tests.support import images
from tests.support.commands import Machine, every_failure
from tests.support.orders import order
from tests.support.stubs.workstation import DEFAULTS, SPARSE, STORE, Workstation, changed
from tests.unit.components.labs import up
from tests.unit.media.answers import answers

if TYPE_CHECKING:
    from tests.support.engine import Recorder

GUEST, NETWORK, MEDIUM = GuestDriver(), NetworkDriver(), DRIVER
OWNER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c01"
NET = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c02"
OTHER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c03"
MAC = "52:54:00:00:00:09"
HOME = f"{STORE}/guests/web"
VMX = f"{HOME}/guest.vmx"
LINK = "/etc/systemd/system/multi-user.target.wants/nestlab-workstation@web.service"
QCOW2 = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (2 << 30).to_bytes(8, "big") + bytes(40)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "OFF_S", 0.05)
    # Nothing here is to survive a power cut.
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def machine_(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("workstation"), Workstation)


@pytest.fixture
def machine(machine_: Machine) -> Machine:
    return fresh(machine_)


def fresh(machine: Machine) -> Machine:
    """A host as the installation leaves it, with a stranger's guest that runs."""
    machine.reset()
    for path, text in DEFAULTS.items():
        machine.path(path).parent.mkdir(parents=True, exist_ok=True)
        machine.path(path).write_text(text)
    machine.path(f"{STORE}/guests/alien").mkdir(parents=True)
    machine.path(f"{STORE}/guests/alien/alien.vmx").write_text('config.version = "8"\n')
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    machine.path(f"{STORE}/base.qcow2").write_bytes(QCOW2)
    assert machine.shell().run(["vmware-networks", "--start"]).ok
    return machine


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
        "domain": "lab.test",
        "reservations": [{"mac": MAC, "address": "10.78.0.9", "name": "web"}],
        "owner": NET,
    }
    return order(NetworkOrder, plain | other)


NIC = {"network": f"of {NET}", "mac": MAC, "model": "e1000e", "address": "10.78.0.9"}
CONSOLE = {"type": "vnc", "listen": "127.0.0.1", "port": 0, "password": ""}


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
        "nics": [NIC],
        "iso": f"{STORE}/live.iso",
        "image": "",
        "autostart": True,
        "console": CONSOLE,
        "ready": {"probe": "none", "host": "", "port": 0},
        "store": STORE,
        "owner": OWNER,
    }
    return order(GuestOrder, plain | other)


def medium(path: Path, **other: Any) -> MediumOrder:
    size = path.stat().st_size
    plain = {"name": "m.iso", "path": str(path), "sha256": "", "size": size}
    return order(MediumOrder, plain | {"store": STORE, "owner": OTHER} | other)


def ready(machine: Machine) -> Machine:
    """A host with the network of its guests; made once, and put back from then on."""
    kept = machine.folder / "ready"
    if kept.exists():
        machine.reset()
        shutil.copytree(kept / "root", machine.folder / "root", symlinks=True, dirs_exist_ok=True)
        with machine.changing() as state:
            state.update(json.loads((kept / "state").read_text()))
        return machine
    NETWORK.ensure(fresh(machine).shell(), network())
    shutil.copytree(machine.folder / "root", kept / "root", symlinks=True)
    (kept / "state").write_text(json.dumps(machine.state))
    return machine


def made(machine: Machine, **other: Any) -> Machine:
    GUEST.ensure(ready(machine).shell(), guest(**other))
    return machine


def vmx(machine: Machine) -> dict[str, str]:
    return parsed(machine.path(VMX).read_text())


def disk(machine: Machine) -> str:
    text = machine.path(f"{HOME}/disk.vmdk").read_text()
    assert text.startswith(SPARSE)
    return text


def look(machine: Machine, **other: Any) -> str:
    seen = GUEST.look(machine.shell(), guest(**other))
    return "" if seen.ok else seen.text


def changes(machine: Machine) -> list[list[str]]:
    """What was done to the machine, not only asked of it."""
    asks = {"tail", "find", "stat", "sha256sum"}
    told = (call.words for call in machine.calls)
    return [
        words
        for words in told
        if words[0] not in asks and words[-1] not in {"list", "--status"} and words[1] != "info"
    ]


def strangers_are_untouched(machine: Machine) -> None:
    state = machine.state
    assert {line for line in state["up"] if "vmnet8" in line or "vmnet0" in line} == {
        "Bridge networking on vmnet0 is running",
        "Hostonly virtual adapter on vmnet8 is enabled",
        "DHCP service on vmnet8 is running",
        "NAT service on vmnet8 is running",
    }
    assert machine.path(f"{STORE}/guests/alien/alien.vmx").read_text() == 'config.version = "8"\n'
    for line in DEFAULTS["/etc/vmware/networking"].splitlines():
        assert line in machine.path("/etc/vmware/networking").read_text().splitlines()


# Networks ----------------------------------------------------------------------------------------


def test_a_nat_network_hands_out_the_planned_addresses(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network())
    state = machine.state
    assert "NAT service on vmnet2 is running" in state["up"]
    assert "Hostonly virtual adapter on vmnet2 is enabled" in state["up"]
    served = " ".join(state["dhcp"]["vmnet2"].split())
    assert f"hardware ethernet {MAC}; fixed-address 10.78.0.9;" in served
    assert "hardware ethernet 00:50:56:C0:00:02; fixed-address 10.78.0.1;" in served
    assert "range 10.78.0.10 10.78.0.254;" in served
    assert "option routers 10.78.0.2;" in served, "Workstation's NAT device, not its host"
    nat = state["nat"]["vmnet2"]
    assert (nat["ip"], nat["hostIp"], nat["allowAnyOUI"]) == ("10.78.0.2", "10.78.0.1", "1")
    assert NETWORK.look(machine.shell(), network()).ok
    strangers_are_untouched(machine)


def test_the_nat_device_leaves_an_address_that_is_planned(machine: Machine) -> None:
    planned = [
        {"mac": MAC, "address": "10.78.0.2", "name": "a"},
        {"mac": "52:54:00:00:00:0a", "address": "10.78.0.254", "name": "b"},
    ]
    NETWORK.ensure(machine.shell(), network(reservations=planned))
    assert machine.state["nat"]["vmnet2"]["ip"] == "10.78.0.253"
    served = machine.state["dhcp"]["vmnet2"]
    assert "range 10.78.0.3 10.78.0.252;" in served


def test_an_isolated_network_leads_nowhere(machine: Machine) -> None:
    wanted = network(mode="isolated", owner=OTHER, dhcp=False, reservations=[])
    NETWORK.ensure(machine.shell(), wanted)
    lines = machine.path("/etc/vmware/networking").read_text()
    assert "answer VNET_2_NAT no" in lines
    assert "answer VNET_2_DHCP no" in lines
    assert [line for line in machine.state["up"] if "vmnet2" in line] == [
        "Hostonly virtual adapter on vmnet2 is enabled"
    ]
    assert NETWORK.look(machine.shell(), wanted).ok
    served = network(mode="isolated", owner=OTHER)
    NETWORK.ensure(machine.shell(), served)
    assert "routers 10" not in machine.state["dhcp"]["vmnet2"]


def test_networks_take_numbers_that_are_nobodys(machine: Machine) -> None:
    taken = machine.path("/etc/vmware/networking")
    taken.write_text(
        taken.read_text() + "answer VNET_2_DHCP no\nadd_bridge_mapping eth1 3\nanswer VNET_4_X y\n"
    )
    NETWORK.ensure(machine.shell(), network())
    NETWORK.ensure(machine.shell(), network(owner=OTHER, subnet="10.79.0.0/24", gateway="10.79.0.1",
                                            reservations=[]))  # fmt: skip
    links = {p.name: str(p.readlink()) for p in machine.path("/etc/vmware/nestlab").iterdir()}
    assert links == {"vmnet5": NET, "vmnet6": OTHER}
    assert NETWORK.called(network()) == f"of {NET}"


def test_the_bridge_is_workstations_own_or_one_that_is_named(machine: Machine) -> None:
    wanted = network(mode="bridge", subnet="", gateway="", dhcp=False, reservations=[])
    assert NETWORK.called(wanted) == "vmnet0"
    NETWORK.ensure(machine.shell(), wanted)
    assert NETWORK.look(machine.shell(), wanted).ok
    assert changes(machine) == [["vmware-networks", "--start"]], "the fixture's"
    with pytest.raises(DriverError, match="vmnet3 bridges to nothing there: make it a bridge"):
        NETWORK.ensure(machine.shell(), replace(wanted, bridge="vmnet3"))
    assert (
        "bridges to nothing" in NETWORK.look(machine.shell(), replace(wanted, bridge="vmnet3")).text
    )
    NETWORK.remove(machine.shell(), wanted)
    strangers_are_untouched(machine)


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("/etc/vmware/networking", "VNET_2_HOSTONLY_SUBNET 10.78", "VNET_2_HOSTONLY_SUBNET 10.99",
         "HOSTONLY_SUBNET is 10.99.0.0"),
        ("/etc/vmware/networking", "VNET_2_NAT yes", "VNET_2_NAT no", "NAT is no and not yes"),
        ("/etc/vmware/vmnet2/dhcpd/dhcpd.conf", "10.78.0.9", "10.78.0.8", "hands out other addr"),
        ("/etc/vmware/vmnet2/dhcpd/dhcpd.conf", "routers 10.78.0.2", "routers 10.78.0.1", "hands out"),
        ("/etc/vmware/vmnet2/nat/nat.conf", "ip = 10.78.0.2", "ip = 10.78.0.7", "other settings"),
        ("/etc/vmware/vmnet2/nat/nat.conf", "allowAnyOUI = 1", "allowAnyOUI = 0", "other settings"),
    ],
)  # fmt: skip
def test_a_network_that_somebody_edited_is_seen_and_mended(
    machine: Machine, path: str, old: str, new: str, told: str
) -> None:
    NETWORK.ensure(machine.shell(), network())
    served = machine.state["dhcp"]["vmnet2"]
    file = machine.path(path)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    seen = NETWORK.look(machine.shell(), network())
    assert not seen.ok
    assert told in seen.text
    NETWORK.ensure(machine.shell(), network())
    assert NETWORK.look(machine.shell(), network()).ok
    assert machine.state["dhcp"]["vmnet2"] == served
    strangers_are_untouched(machine)


def test_networks_that_were_stopped_start_again(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network())
    assert machine.shell().run(["vmware-networks", "--stop"]).ok
    seen = NETWORK.look(machine.shell(), network())
    assert seen.text == "network own is down: Hostonly virtual adapter on vmnet2 does not run"
    before = len(machine.calls)
    NETWORK.ensure(machine.shell(), network())
    done = [call.words for call in machine.calls[before:]]
    assert ["vmware-networks", "--stop"] not in done
    strangers_are_untouched(machine)


def test_another_reservation_is_what_the_server_hands_out_at_once(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network())
    more = Reservation("52:54:00:0A:00:01", "10.78.0.50", "b")
    wanted = replace(network(), reservations=[*network().reservations, more])
    assert not NETWORK.look(machine.shell(), wanted).ok
    NETWORK.ensure(machine.shell(), wanted)
    assert "10.78.0.50" in machine.state["dhcp"]["vmnet2"]
    assert NETWORK.look(machine.shell(), wanted).ok


def test_what_vmware_and_people_add_stays(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network())
    networking, nat = (machine.path(p) for p in ("/etc/vmware/networking", "/etc/vmware/vmnet2/nat/nat.conf"))  # fmt: skip
    networking.write_text(networking.read_text() + "answer VNET_2_DISPLAY_NAME mine\n"
                          "answer VNET_2_DHCP_CFG_HASH 12AB\n")  # fmt: skip
    nat.write_text(
        nat.read_text().replace("[incomingtcp]\n", "[incomingtcp]\n8080 = 10.78.0.9:80\n")
    )
    dhcpd = machine.path("/etc/vmware/vmnet2/dhcpd/dhcpd.conf")
    dhcpd.write_text("# Written at: 09/28/2026\n" + dhcpd.read_text().replace("\t", "    "))
    assert NETWORK.look(machine.shell(), network()).ok
    NETWORK.ensure(machine.shell(), network(reservations=[]))
    assert "answer VNET_2_DISPLAY_NAME mine" in networking.read_text()
    assert "8080 = 10.78.0.9:80" in nat.read_text()


def test_a_network_goes_with_all_it_had(machine: Machine) -> None:
    before = machine.path("/etc/vmware/networking").read_text()
    NETWORK.ensure(machine.shell(), network())
    NETWORK.remove(machine.shell(), network())
    assert machine.path("/etc/vmware/networking").read_text() == before
    assert not machine.path("/etc/vmware/vmnet2").exists()
    assert not any("vmnet2" in line for line in machine.state["up"])
    assert list(machine.path("/etc/vmware/nestlab").iterdir()) == []
    strangers_are_untouched(machine)
    count = len(changes(machine))
    NETWORK.remove(machine.shell(), network())
    assert len(changes(machine)) == count, "nothing is done for what is not there"


def test_a_failure_of_the_networks_says_what_to_do(machine: Machine) -> None:
    with machine.changing() as state:
        state["modules"] = False
        state["up"] = []
    with pytest.raises(DriverError, match="vmware-modconfig --console --install-all"):
        NETWORK.ensure(machine.shell(), network())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"mode": "route"}, "no networks of mode route"),
        ({"owner": "me"}, "is no UUID"),
        ({"subnet": "nonsense"}, "network 'own': "),
        ({"gateway": "10.78.0.5"}, "has the first address of 10.78.0.0/24"),
        ({"domain": 'x"; evil "'}, "is no DNS domain"),
        ({"mode": "bridge", "bridge": "eth0"}, "Workstation's are called vmnet0 to vmnet254"),
        ({"mode": "bridge", "bridge": "vmnet255"}, "vmnet0 to vmnet254"),
        ({"reservations": [{"mac": "x", "address": "10.78.0.9", "name": "x"}]}, "'x' is no MAC"),
        ({"subnet": "10.78.0.0/30", "reservations": [{"mac": MAC, "address": "10.78.0.2", "name": "x"}]},
         "take a larger subnet"),
    ],
)  # fmt: skip
def test_networks_that_can_not_be_are_refused_before_any_command(
    other: dict[str, Any], told: str
) -> None:
    assert told in NETWORK.problem(network(**other))
    assert NETWORK.problem(network()) == ""


# Guests ------------------------------------------------------------------------------------------


def test_a_guest_from_an_iso_runs_as_the_stack_says(machine: Machine) -> None:
    made(machine)
    assert look(machine) == ""
    assert list(machine.state["running"]) == [VMX]
    assert machine.state["connected"][VMX] == [f"vmnet2 {MAC}"]
    told = vmx(machine)
    assert told["memsize"] == "512"
    assert told["numvcpus"] == "2"
    assert told["annotation"] == f"nestlab {OWNER}"
    assert told["sata0:1.filename"] == f"{STORE}/live.iso"
    assert told["bios.bootorder"] == "cdrom,hdd"
    assert told["ethernet0.virtualdev"] == "e1000e"
    assert '"capacity": 4294967296' in disk(machine)
    assert machine.path(VMX).stat().st_mode & 0o77 == 0
    assert machine.path(LINK).is_symlink()
    unit = machine.path(guests._unit(guest()).file).read_text()
    assert f"ExecStart=/usr/bin/vmrun -T ws start {STORE}/guests/%i/guest.vmx nogui" in unit
    count = len(changes(machine))
    GUEST.ensure(machine.shell(), guest())
    assert len(changes(machine)) == count, "nothing is done twice"
    strangers_are_untouched(machine)


def test_an_image_becomes_a_disk_of_its_own(machine: Machine) -> None:
    made(machine, image=f"{STORE}/base.qcow2", iso="", boot=["hd"], disk_gib=8, disk_bus="scsi")
    assert '"capacity": 8589934592' in disk(machine)
    assert f'"image": "{QCOW2.hex()[:64]}"' in disk(machine)
    told = vmx(machine)
    assert told["scsi0:0.filename"] == "disk.vmdk"
    assert told["scsi0.virtualdev"] == "lsilogic"
    assert told["sata0:0.present"] == "FALSE"
    made(machine, image=f"{STORE}/base.qcow2", iso="", boot=["hd"], disk_gib=0)
    assert '"capacity": 2147483648' in disk(machine), "as large as its image"


def test_a_guest_without_a_disk_and_with_uefi(machine: Machine) -> None:
    made(machine, disk_gib=0, firmware="uefi", boot=["cdrom"], nics=[], autostart=False)
    assert vmx(machine)["firmware"] == "efi"
    assert not machine.path(f"{HOME}/disk.vmdk").exists()
    assert not machine.path(LINK).is_symlink()
    assert (
        look(machine, disk_gib=0, firmware="uefi", boot=["cdrom"], nics=[], autostart=False) == ""
    )


def test_a_screen_has_its_port_and_a_password_that_nobody_is_shown(machine: Machine) -> None:
    console = {"type": "vnc", "listen": "10.77.0.9", "port": 5901, "password": 's|e"cret'}
    made(machine, console=console)
    told = vmx(machine)
    assert told["remotedisplay.vnc.port"] == "5901"
    assert told["remotedisplay.vnc.ip"] == "10.77.0.9"
    assert told["remotedisplay.vnc.password"] == 's|e"cret'
    # Some versions keep it in a form of their own.
    text = machine.path(VMX).read_text()
    text = changed(text, RemoteDisplay__vnc__password="", RemoteDisplay__vnc__key="Jj8iCRcg")
    machine.path(VMX).write_text(text)
    assert look(machine, console=console) == ""
    open_ = console | {"password": ""}
    assert look(machine, console=open_).endswith(
        "whether its screen asks for a password has changed"
    )
    GUEST.ensure(machine.shell(), guest(console=open_))
    assert not vmx(machine)["remotedisplay.vnc.key"]
    assert "cret" not in str([call.words for call in machine.calls])


@pytest.mark.parametrize(
    ("other", "key", "value"),
    [
        ({"memory_mib": 1024}, "memsize", "1024"),
        ({"cores": 4}, "numvcpus", "4"),
        ({"firmware": "uefi"}, "firmware", "efi"),
        ({"boot": ["hd", "cdrom"]}, "bios.bootorder", "hdd,cdrom"),
        ({"iso": ""}, "sata0:1.present", "FALSE"),
        ({"disk_bus": "scsi"}, "scsi0:0.filename", "disk.vmdk"),
        ({"nics": []}, "ethernet0.present", "FALSE"),
    ],
)
def test_an_edit_changes_just_that_and_keeps_the_disk(
    machine: Machine, other: dict[str, Any], key: str, value: str
) -> None:
    made(machine)
    machine.path(f"{HOME}/disk.vmdk").write_text(disk(machine).replace('""', '"precious"'))
    assert "is not set up as the stack says" in look(machine, **other)
    GUEST.ensure(machine.shell(), guest(**other))
    assert look(machine, **other) == ""
    assert vmx(machine)[key] == value
    assert vmx(machine)["uuid.bios"] == "56 4d 13", "what VMware added stays"
    assert "precious" in disk(machine)
    assert VMX in machine.state["running"]


def test_it_is_off_before_its_settings_change(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    made(machine)
    capsys.readouterr()
    GUEST.ensure(machine.shell(), guest(memory_mib=1024))
    stops = [words[-1] for words in changes(machine) if "stop" in words]
    assert stops == ["soft", "hard"], "VMware Tools are not in every guest"
    said = capsys.readouterr().err
    assert "web: stopped for a change: memsize is '512' and not '1024'" in said
    assert "did not shut down by itself, and is switched off" in said
    with machine.changing() as state:
        state["tools"] = [VMX]
    GUEST.ensure(machine.shell(), guest())
    assert [words[-1] for words in changes(machine) if "stop" in words] == [*stops, "soft"]


def harm_off(machine: Machine) -> None:
    assert machine.shell().run(["vmrun", "-T", "ws", "stop", VMX, "hard"]).ok


def harm_suspended(machine: Machine) -> None:
    assert machine.shell().run(["vmrun", "-T", "ws", "suspend", VMX]).ok


def harm_unlisted(machine: Machine) -> None:
    harm_off(machine)
    machine.path(VMX).unlink()


def edited(**values: str) -> Any:
    def harm(machine: Machine) -> None:
        harm_off(machine)
        machine.path(VMX).write_text(changed(machine.path(VMX).read_text(), **values))

    return harm


def harm_autostart(machine: Machine) -> None:
    assert machine.shell().run(["systemctl", "disable", Path(LINK).name]).ok


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (harm_off, "guest web is off"),
        (harm_suspended, "guest web is suspended"),
        (harm_unlisted, "guest web is not there any more"),
        (harm_autostart, "whether it starts with its host has changed"),
        (edited(memsize="256"), "memsize is '256'"),
        (edited(ethernet0__address="00:50:56:00:00:01"), "ethernet0.address"),
        (edited(ethernet0__vnet="/dev/vmnet8"), "ethernet0.vnet"),
        (edited(ethernet0__virtualDev="vmxnet3"), "ethernet0.virtualDev"),
        (edited(ethernet1__present="TRUE", ethernet1__virtualDev="e1000"), "ethernet1.present"),
        (edited(sata0__present="FALSE"), "sata0.present"),
        (edited(sata0__x="", firmware="efi"), "firmware is 'efi'"),
        (edited(annotation="mine"), "annotation is 'mine'"),
        (edited(RemoteDisplay__vnc__enabled="TRUE"), "RemoteDisplay.vnc.enabled"),
    ],
)
def test_a_harm_by_hand_is_seen_and_mended(machine: Machine, harm: Any, told: str) -> None:
    made(machine)
    before = disk(machine)
    harm(machine)
    assert told in look(machine)
    GUEST.ensure(machine.shell(), guest())
    assert look(machine) == ""
    assert disk(machine) == before
    assert machine.state["connected"][VMX] == [f"vmnet2 {MAC}"]
    if harm is harm_suspended:
        assert machine.state["resumed"] == [VMX]


def test_a_suspended_guest_goes_on_before_its_hardware_changes(machine: Machine) -> None:
    made(machine)
    harm_suspended(machine)
    GUEST.ensure(machine.shell(), guest(memory_mib=1024))
    assert machine.state["resumed"] == [VMX]
    assert look(machine, memory_mib=1024) == ""


def test_a_disk_that_was_removed_is_made_anew_with_nothing_left_of_the_old(
    machine: Machine,
) -> None:
    made(machine)
    harm_suspended(machine)
    for name in ("disk-000001.vmdk", "guest.vmsd", "guest-Snapshot1.vmsn"):
        machine.path(f"{HOME}/{name}").touch()
    machine.path(VMX).write_text(changed(machine.path(VMX).read_text(),
                                         **{"sata0:0__fileName": "disk-000001.vmdk"}))  # fmt: skip
    machine.path(f"{HOME}/disk.vmdk").unlink()
    assert "its disk is not there any more" in look(machine)
    GUEST.ensure(machine.shell(), guest())
    assert look(machine) == ""
    assert {p.name for p in machine.path(HOME).iterdir()} == {
        *("nestlab.owner", "guest.vmx", "guest.vmx.lck", "vmware.log", "disk.vmdk", "disk.complete")
    }
    assert vmx(machine)["sata0:0.filename"] == "disk.vmdk"


def test_a_snapshot_that_somebody_took_stays_in_use(machine: Machine) -> None:
    made(machine)
    harm_off(machine)
    machine.path(f"{HOME}/disk-000001.vmdk").write_text(disk(machine))
    text = changed(machine.path(VMX).read_text(), **{"sata0:0__fileName": "disk-000001.vmdk"})
    machine.path(VMX).write_text(text)
    assert look(machine) == "guest web is off"
    GUEST.ensure(machine.shell(), guest(memory_mib=1024))
    assert vmx(machine)["sata0:0.filename"] == "disk-000001.vmdk"
    GUEST.ensure(machine.shell(), guest(disk_bus="scsi"))
    assert vmx(machine)["scsi0:0.filename"] == "disk-000001.vmdk"


def snapshot_of_data(machine: Machine) -> None:
    """Take one as a person does, who had the disk split first."""
    harm_off(machine)
    machine.path(f"{HOME}/data-db-000001.vmdk").write_text(disk(machine))
    machine.path(f"{HOME}/data-db-000001-s001.vmdk").write_text("its data")
    text = changed(machine.path(VMX).read_text(), **{"sata0:7__fileName": "data-db-000001.vmdk"})
    machine.path(VMX).write_text(text)


def test_what_vmware_puts_beside_a_further_disk_is_none_of_the_lab(machine: Machine) -> None:
    made(machine, disks=[{"name": "db", "gib": 1}])
    snapshot_of_data(machine)
    GUEST.ensure(machine.shell(), guest(disks=[{"name": "db", "gib": 1}], memory_mib=1024))
    assert look(machine, disks=[{"name": "db", "gib": 1}], memory_mib=1024) == ""
    assert machine.path(f"{HOME}/data-db-000001-s001.vmdk").read_text() == "its data"


def test_a_disk_under_a_snapshot_does_not_grow(machine: Machine) -> None:
    made(machine, disks=[{"name": "db", "gib": 1}])
    snapshot_of_data(machine)
    assert machine.shell().run(["vmrun", "-T", "ws", "start", VMX, "nogui"]).ok
    with pytest.raises(DriverError, match=r"guest web has a snapshot \(data-db-000001.vmdk\)"):
        GUEST.ensure(machine.shell(), guest(disks=[{"name": "db", "gib": 2}]))
    assert VMX in machine.state["running"], "it runs on"
    assert look(machine, disks=[{"name": "db", "gib": 1}]) == ""


def test_a_disk_that_comes_back_under_its_name_has_nothing_of_the_old(machine: Machine) -> None:
    db = [{"name": "db", "gib": 1}]
    made(machine, disks=db)
    snapshot_of_data(machine)
    GUEST.ensure(machine.shell(), guest())
    assert not [each for each in machine.path(HOME).iterdir() if each.name.startswith("data-")]
    GUEST.ensure(machine.shell(), guest(disks=db))
    assert vmx(machine)["sata0:7.filename"] == "data-db.vmdk"
    assert look(machine, disks=db) == ""


@pytest.mark.parametrize("name", ["db-000001", "db-s001", "db-flat"])
def test_a_further_disk_is_not_called_as_what_lies_beside_one(name: str) -> None:
    said = f"its disk {name} is called as a file of VMware's own: rename it"
    assert GUEST.problem(guest(disks=[{"name": name, "gib": 1}])) == said


def test_a_strangers_folder_of_the_same_name_is_left_alone(machine: Machine) -> None:
    ready(machine)
    wanted = guest(name="alien")
    with pytest.raises(
        DriverError, match="guests/alien on stub1 is not this lab's and is left alone"
    ):
        GUEST.ensure(machine.shell(), wanted)
    GUEST.remove(machine.shell(), wanted)
    strangers_are_untouched(machine)
    other = guest(owner=OTHER)
    GUEST.ensure(machine.shell(), guest())
    with pytest.raises(DriverError, match="rename the guest in the stack"):
        GUEST.ensure(machine.shell(), other)
    GUEST.remove(machine.shell(), other)
    assert look(machine) == ""


@pytest.mark.parametrize("state", ["running", "off", "suspended", "without settings", "half made"])
def test_a_guest_goes_in_any_state_with_all_it_had(machine: Machine, state: str) -> None:
    made(machine)
    if state == "off":
        harm_off(machine)
    elif state == "suspended":
        harm_suspended(machine)
    elif state == "without settings":
        machine.path(VMX).unlink()
    elif state == "half made":
        harm_unlisted(machine)
        machine.path(f"{HOME}/disk.complete").unlink()
    GUEST.remove(machine.shell(), guest())
    assert [p.name for p in machine.path(f"{STORE}/guests").iterdir()] == ["alien"]
    assert machine.state["running"] == {}
    assert not machine.path(LINK).is_symlink()
    strangers_are_untouched(machine)


def test_a_guest_survives_every_failure(machine: Machine) -> None:
    def one(machine: Machine) -> None:
        assert look(machine) == ""
        assert '"capacity": 4294967296' in disk(machine)
        assert [p.name for p in sorted(machine.path(f"{STORE}/guests").iterdir())] == [
            "alien",
            "web",
        ]

    assert (
        every_failure(lambda: ready(machine), lambda it: GUEST.ensure(it.shell(), guest()), one)
        > 30
    )

    def precious() -> Machine:
        made(machine)
        machine.path(f"{HOME}/disk.vmdk").write_text(disk(machine).replace('""', '"precious"'))
        return machine

    def larger(machine: Machine) -> None:
        GUEST.ensure(machine.shell(), guest(memory_mib=1024, autostart=False))

    def kept(machine: Machine) -> None:
        assert look(machine, memory_mib=1024, autostart=False) == ""
        assert "precious" in disk(machine)

    every_failure(precious, larger, kept)

    def gone(machine: Machine) -> None:
        assert [p.name for p in machine.path(f"{STORE}/guests").iterdir()] == ["alien"]
        assert machine.state["running"] == {}
        assert not machine.path(LINK).is_symlink()

    every_failure(precious, lambda it: GUEST.remove(it.shell(), guest()), gone)


def test_a_clone_survives_every_failure(machine: Machine) -> None:
    clone = guest(image=f"{STORE}/base.qcow2", iso="", boot=["hd"], disk_gib=8)

    def one(machine: Machine) -> None:
        assert GUEST.look(machine.shell(), clone).ok
        assert '"capacity": 8589934592' in disk(machine)

    every_failure(lambda: ready(machine), lambda it: GUEST.ensure(it.shell(), clone), one)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Unknown error", "vmware.log in the guest's folder has it"),
        ("You are running VMware Workstation via an incompatible hypervisor.", "vmx.allowNested"),
        ("Could not open /dev/vmmon: No such file or directory.", "vmware-modconfig"),
        ("The file is already in use", "close Workstation's window"),
        ("Intel VT-x is not available.", "the host it stands on has to nest"),
    ],
)
def test_a_known_failure_says_its_cause_and_the_way_out(text: str, cause: str) -> None:
    from components.reach.shell import Result  # noqa: PLC0415 - of this test alone

    class Refusing:
        name = "ws1"

        def run(self, argv: list[str], **_: Any) -> Result:
            del argv
            return Result(255, f"Error: {text}\n", "")

    shell: Any = Refusing()
    with pytest.raises(DriverError) as refused:
        vmrun.run(shell, "list")
    assert str(refused.value).startswith(f"`vmrun -T ws list` on ws1: Error: {text}")
    assert cause in str(refused.value)


def test_a_start_without_the_modules_says_where_to_look(machine: Machine) -> None:
    ready(machine)
    with machine.changing() as state:
        state["modules"] = False
    with pytest.raises(
        DriverError, match=r"start .*web/guest.vmx nogui` on stub1: Error: Unknown er"
    ):
        GUEST.ensure(machine.shell(), guest())


def test_a_guest_whose_network_is_gone_says_so(machine: Machine) -> None:
    made(machine)
    NETWORK.remove(machine.shell(), network())
    assert "its network is not there" in look(machine)
    with pytest.raises(DriverError, match="guest web: its network is not there on stub1"):
        GUEST.ensure(machine.shell(), guest())


TEXTS = st.text(max_size=24) | st.sampled_from([
    "web; reboot", "$(id)", "`id`", "a b", "a'b", 'a"b', "a\nb", "Ä", "-x", "..", ".", "", "a|22b",
    "a/b", "x" * 300, "web\n", "%n", "$HOME", "web#1", "\u202e",
])  # fmt: skip
PROPERTY = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(name=TEXTS)
@example(name="web2")
@example(name="a.b.")
def test_any_name_of_a_guest_arrives_unchanged_or_is_refused(machine: Machine, name: str) -> None:
    wanted = guest(name=name, nics=[], iso="", disk_gib=1)
    if problem := GUEST.problem(wanted):
        assert repr(name) in problem
        return
    fresh(machine)
    GUEST.ensure(machine.shell(), wanted)
    assert list(machine.state["running"]) == [f"{STORE}/guests/{name}/guest.vmx"]
    GUEST.remove(machine.shell(), wanted)


@PROPERTY
@given(name=TEXTS)
@example(name='a"b|c; $(id) `x` \\ #%.iso')
def test_any_name_of_a_medium_arrives_unchanged_or_is_refused(
    machine: Machine, name: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    wanted = medium(source, name=name, sha256=hashlib.sha256(b"content").hexdigest())
    if problem := MEDIUM.problem(wanted):
        assert repr(name) in problem
        return
    fresh(machine)
    shell = machine.shell()
    MEDIUM.ensure(shell, wanted)
    assert MEDIUM.look(shell, wanted).ok
    assert machine.path(f"{STORE}/{name}").read_bytes() == b"content"
    path = MEDIUM.called(wanted)
    held = guest(iso=path, nics=[])
    assert GUEST.problem(held) == ""
    GUEST.ensure(shell, held)
    assert vmx(machine)["sata0:1.filename"] == path
    assert GUEST.look(shell, held).ok
    MEDIUM.remove(shell, wanted)
    assert not machine.path(f"{STORE}/{name}").exists()


@settings(max_examples=60, deadline=None)
@given(value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_a_value_of_a_vmx_is_read_as_it_was_written(value: str) -> None:
    text = merged('keep = "1"\nKey = "old"\n', {"key": value, ".encoding": "UTF-8"})
    assert parsed(text) == {".encoding": "UTF-8", "keep": "1", "key": value}
    assert re.fullmatch(r'(\.?\w+ = "[^"]*"\n)+', text), "no value ends early"
    assert text.startswith(".encoding")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"owner": "me"}, "is no UUID"),
        ({"store": "/x y"}, "no plain absolute path"),
        ({"store": "/" + "x" * 90}, "has 109 bytes, and a Unix socket's path has 107 at most"),
        ({"iso": "/x\ny"}, "beyond ASCII's printable ones"),
        ({"image": "/ä"}, "beyond ASCII's printable ones"),
        ({"disk_bus": "virtio"}, "Workstation has sata, scsi here"),
        ({"cores": 33}, "32 at most"),
        ({"memory_mib": 510}, "in steps of 4 MiB"),
        ({"nics": [NIC] * 11}, "10 at most"),
        ({"nics": [NIC | {"model": "virtio"}]}, "Workstation has e1000, e1000e"),
        ({"nics": [NIC | {"mac": 'x"'}]}, "is no MAC"),
        ({"nics": [NIC | {"network": 'vmnet8"'}]}, "is no network of Workstation's"),
        (
            {"console": CONSOLE | {"password": "a\nb"}},
            "console's password holds a letter",
        ),
    ],
)
def test_what_workstation_has_not_is_refused_before_any_command(
    other: dict[str, Any], told: str
) -> None:
    problem = GUEST.problem(guest(**other))
    assert told in problem
    assert "a\nb" not in problem
    assert GUEST.problem(guest()) == ""


def test_a_guests_serial_port_is_served_where_its_console_is_opened(machine: Machine) -> None:
    made(machine)
    assert [*machine.state["ports"].values()] == [f"{STORE}/guests/web/serial"]
    assert machine.path(f"{STORE}/guests/web").stat().st_mode & 0o777 == 0o700


# Media -------------------------------------------------------------------------------------------


def test_a_medium_is_sent_once_and_again_when_it_is_damaged(
    machine: Machine, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    wanted = medium(source, sha256=hashlib.sha256(b"content").hexdigest())
    shell = machine.shell()
    MEDIUM.ensure(shell, wanted)
    MEDIUM.ensure(shell, wanted)
    assert [call.command for call in machine.calls].count("put") == 1
    there = machine.path(f"{STORE}/m.iso")
    there.write_bytes(b"cont")
    assert "has 4 bytes" in MEDIUM.glance(shell, wanted).text
    MEDIUM.ensure(shell, wanted)
    there.write_bytes(b"CONTENT")
    assert "has SHA-256" in MEDIUM.look(shell, wanted).text
    MEDIUM.ensure(shell, wanted)
    assert there.read_bytes() == b"content"
    there.unlink()
    assert "not there any more" in MEDIUM.glance(shell, wanted).text
    with pytest.raises(DriverError, match="is damaged or another file"):
        MEDIUM.ensure(shell, replace(wanted, sha256="ab" * 32))


# How it comes to be ------------------------------------------------------------------------------


def bundle(*products: str, whole: bool = True) -> bytes:
    """A bundle as VMware's are: a script, parts, the list of them, and where it is."""
    script = b"#!/usr/bin/env bash\n# VMware Installer Launcher\n" + bytes(600)
    parts = "".join(f'<component name="{name}" offset="0" size="9"/>' for name in products)
    told = f"<?xml version='1.0'?><bundle><components>{parts}</components></bundle>".encode()
    footer = struct.pack("<QIII", 100, 50, len(told), len(script)) + bytes(32)
    made_ = script + told + footer
    return made_ if whole else made_[:-20]


def test_the_bundle_is_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(bundle("vmware-installer", "vmware-workstation"))
    media.check_tool(path)
    assert capsys.readouterr().err == ""
    for content, told in (
        (bundle("vmware-player"), "is the bundle of another product"),
        (b"PK\x03\x04" + bytes(900), "is an archive, but VMware Workstation is installed by its"),
        (b"\x7fELF" + bytes(900), "is no program"),
    ):
        path.write_bytes(content)
        with pytest.raises(WrongMedium, match=told):
            media.check_tool(path)
    with pytest.raises(WrongMedium, match="can't be read"):
        media.check_tool(tmp_path / "none")
    path.write_bytes(bundle("vmware-workstation", whole=False))
    media.check_tool(path)
    assert "it may be cut short; its sha256: in the stack would tell" in capsys.readouterr().err


def test_its_answers_install_the_bundle_from_the_cd() -> None:
    data = media.files(answers())["/user-data"].decode()
    assert f"/run/nestlab-tools/{media.BUNDLE} --console --eulas-agreed --required" in data
    assert "vmx.allowNested" in data
    assert "qemu-utils" in data
    assert "socat" in data
    assert "vmware-networks --postinstall vmware-workstation,0,1" in data
    script = yaml.safe_load(data)["runcmd"][0][2]
    assert script.index("--eulas-agreed") < script.index("vmrun -T ws start")
    with pytest.raises(ValueError, match="nosuch: no such option"):
        media.files(answers(options={"nosuch": "x"}))


@pytest.mark.parametrize("sound", ["libasound2t64", "libasound2"])
@pytest.mark.parametrize("missing", ["", "libxcursor1"])
def test_a_host_whose_virtual_machines_do_not_start_is_not_up(
    sound: str, missing: str, tmp_path: Path
) -> None:
    """What a plain cloud image lacks is installed, and a machine is started before the gate opens."""
    told_ = yaml.safe_load(media.files(answers())["/user-data"])
    script = told_["runcmd"][0][2]
    tools = tmp_path / "tools"
    tools.mkdir()
    # The set-up's own way, without what needs a real system: apt knows one name of ALSA's library.
    keep = [line for line in script.splitlines() if "libasound2" in line]
    trial = script[script.index("trial=$(mktemp -d)") :]
    log = tmp_path / "installed"
    log.write_text("".join(f"{name}\n" for name in told_["packages"] if name != missing))
    (tools / "apt-get").write_text(
        f'#!/bin/sh\n[ "$3" = {sound} ] || exit 100\necho "$3" >> {log}\n'
    )
    needed = " ".join(sorted({*media.PACKAGES, sound} - {"qemu-utils", "socat"}))
    (tools / "vmrun").write_text(
        f'#!/bin/sh\n[ -s "$4" ] || exit 255\nfor each in {needed}; do\n'
        f'    grep -qx "$each" {log} || {{ echo "Error: Unknown error"; exit 255; }}\ndone\n'
        f'echo "$*" >> {tmp_path}/calls\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", "\n".join([*keep, trial])],
        env={"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        timeout=30,
        check=False,
        capture_output=True,
    )
    assert (done.returncode == 0) is (not missing), done.stderr
    if not missing:
        calls = (tmp_path / "calls").read_text().splitlines()
        assert [call.split()[2] for call in calls] == ["start", "stop"]
        assert not list(tmp_path.glob("tmp.*")), "nothing of it is left"


@pytest.mark.parametrize("libraries", [True, False])
def test_the_machine_that_is_tried_is_one_that_workstation_starts(
    libraries: bool, machine: Machine
) -> None:
    script = yaml.safe_load(media.files(answers())["/user-data"])["runcmd"][0][2]
    vmx = f"{STORE}/trial.vmx"
    machine.path(vmx).parent.mkdir(parents=True, exist_ok=True)
    machine.path(vmx).write_text(re.findall(r"(?s)<< 'NESTLAB'\n(.*)\nNESTLAB", script)[0])
    with machine.changing() as state:
        state["libraries"] = libraries
    assert machine.shell().run(["vmrun", "-T", "ws", "list"]).ok
    assert machine.shell().run(["vmrun", "-T", "ws", "start", vmx, "nogui"]).ok is libraries
    assert machine.shell().run(["vmrun", "-T", "ws", "stop", vmx, "hard"]).ok is libraries


def told(tmp_path: Path, **other: Any) -> dict[str, Any]:
    held = answers()
    plain = {name: getattr(held, name) for name in Answers.__dataclass_fields__}
    (tmp_path / "my VMware.bundle").write_bytes(bundle("vmware-workstation"))
    known: dict[str, Any] = {
        "name": "ws1-discs",
        "kind": "workstation",
        "recipe": "workstation",
        "iso": "",
        "answers": plain,
        "tools": {media.BUNDLE: str(tmp_path / "my VMware.bundle")},
        "media": str(tmp_path / "cache"),
        "private": str(tmp_path / "keys"),
    }
    return known | other


def test_the_tools_disc_is_made_once_and_holds_the_bundle(tmp_path: Path) -> None:
    provider = InstallMediumProvider()
    props = told(tmp_path)
    assert not provider.check({}, props).failures
    outs = provider.create(props).outs or {}
    disc = Path(outs["tools_disc"])
    iso = Iso(disc)
    assert iso.volume_id == media.TOOLS_LABEL
    assert iso.files() == {f"/{media.BUNDLE}"}
    assert iso.read(f"/{media.BUNDLE}") == bundle("vmware-workstation")
    assert Iso(Path(outs["disc"])).volume_id == media.LABEL
    assert outs["installer"] == ""
    stamp = disc.stat().st_mtime_ns
    assert provider.update("", outs, props).outs == outs
    assert disc.stat().st_mtime_ns == stamp, "made once"
    assert not provider.diff("", outs, props).changes
    disc.unlink()
    assert provider.diff("", outs, props).changes
    assert (provider.update("", outs, props).outs or {})["tools_disc"] == str(disc)
    changed_ = tmp_path / "my VMware.bundle"
    changed_.write_bytes(bundle("vmware-workstation", "more"))
    assert (provider.update("", outs, props).outs or {})["tools_disc"] != str(disc)
    changed_.write_bytes(b"PK\x03\x04" + bytes(900))
    [failure] = provider.check({}, props).failures or []
    assert "is an archive" in failure.reason
    changed_.unlink()
    assert not provider.check({}, props).failures, "in a preview it need not be there"


def test_a_kind_without_tools_has_no_such_disc(tmp_path: Path) -> None:
    provider = InstallMediumProvider()
    outs = provider.create(told(tmp_path, tools={})).outs or {}
    assert outs["tools_disc"] == ""
    assert not list((tmp_path / "keys").glob("tools*"))
    old = {key: value for key, value in outs.items() if key not in {"tools", "tools_disc"}}
    assert provider.look(provider.stored(old)).ok, "of a stack from before there was any"


# The lab -----------------------------------------------------------------------------------------

LAB: dict[str, Any] = {
    "media": {
        "cloud": {"path": "media/cloud.qcow2"},
        "vmware": {"path": "media/VMware-Workstation-Full-17.6.3-24583834.x86_64.bundle"},
        "live": {"path": "media/live.iso"},
    },
    "networks": {"lab": {"subnet": "10.77.0.0/24"}},
    "hypervisors": {
        "ws1": {
            "kind": "workstation",
            "image": "cloud",
            "bundle": "vmware",
            "network": "lab",
            "networks": {
                "out": {"mode": "bridge"},
                "own": {"mode": "nat", "subnet": "10.78.0.0/24"},
            },
            "guests": {
                "live": {
                    "iso": "live",
                    "network": "own",
                    "memory_mib": 256,
                    "console": {"port": 5901},
                },
                "web": {
                    "image": "cloud",
                    "network": "out",
                    "nic_model": "vmxnet3",
                    "memory_mib": 512,
                },
            },
        }
    },
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    root = tmp_path_factory.mktemp("lab")
    (root / "media").mkdir()
    for each in LAB["media"].values():
        content = {".bundle": bundle("vmware-workstation"), ".iso": bytes(0x8001) + b"CD001"}
        path = root / each["path"]
        path.write_bytes(content.get(path.suffix, images.qcow2(2 << 30)))
    return up(LAB, root=root)


def test_the_recorded_lab_has_everything_where_it_belongs(recorded: Recorder) -> None:
    lab = recorded
    domain = lab.named("ws1-domain", "Domain")
    xslt = str(domain.inputs["xml"])
    assert "virtio" in xslt
    discs = lab.named("ws1-discs", "InstallMedium")
    assert discs.inputs["recipe"] == "workstation"
    assert list(discs.inputs["tools"]) == [media.BUNDLE]
    assert discs.inputs["tools"][media.BUNDLE].endswith(".x86_64.bundle")
    assert "answers" in discs.secret_inputs
    [tools] = [each for each in lab.of_type("Volume") if "tools-workstation-vmware" in each.name]
    assert tools.inputs["source"] == "/media/tools.iso"
    assert tools.inputs["format"] == "iso"
    live = lab.named("ws1-live-guest", "RemoteObject").inputs["wanted"]
    assert lab.named("ws1-live-guest", "RemoteObject").inputs["driver"] == "workstation.guest"
    assert (live["nics"][0]["model"], live["disk_bus"], live["store"]) == ("e1000", "sata", STORE)
    assert live["console"]["port"] == 5901
    rows = {row["name"]: row for row in lab.stack_outputs["sheet"]}
    assert rows["live"]["enter"][-1] == f"UNIX-CONNECT:{STORE}/guests/live/serial"
    assert lab.named("ws1-live-guest", "RemoteObject").deleted_with == domain.urn
    web = lab.named("ws1-web-guest", "RemoteObject").inputs["wanted"]
    assert web["nics"][0]["model"] == "vmxnet3"
    own = lab.named("ws1-own-network", "RemoteObject").inputs["wanted"]
    assert own["reservations"][0]["mac"] == live["nics"][0]["mac"]
    assert own["dhcp"] is True
    for name in ("ws1-out-network", "ws1-own-network"):
        fields = lab.named(name, "RemoteObject").inputs["wanted"] | {"owner": NET}
        assert NETWORK.problem(order(NetworkOrder, fields)) == ""
    assert {"ws1-live-medium", "ws1-cloud-medium"} <= set(lab.names())
    outputs = str(lab.stack_outputs)
    assert "vnc://127.0.0.1:5901" in outputs
    for resource in lab.of_type("RemoteObject"):
        assert "target" in resource.secret_inputs


def test_what_its_own_commands_answer_opens_the_gate(machine: Machine, recorded: Recorder) -> None:
    [gate] = recorded.of_type("MachineGate")
    commands = gate.inputs["probe"]["commands"]
    asked = [one for one in commands if one["argv"][0] == "vmrun"]
    assert ssh._asked(machine.shell(), Probe("ssh", commands=[Command(**one) for one in asked])).ok
    assert len(asked) == 1
    assert ["test", "-c", "/dev/vmmon"] in [one["argv"] for one in commands]
    assert gate.inputs["probe"]["steady"] == 2


@pytest.mark.parametrize(
    ("inside", "told_"),
    [
        ({"memory_mib": 4096}, "8192"),
        ({"cores": 2}, "4"),
        ({"disk_gib": 30}, "40"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 255}}}, "write 256"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256, "cores": 33}}}, "write 32 or less"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256, "nic_model": "virtio"}}}, "e1000"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256, "video": "qxl"}}}, "VMware's own adapter"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256, "machine": "q35"}}}, "own chipset"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256, "console": {"listen": "127.0.0.1"}}}},
         "add one, such as port: 5901"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 256,
                           "console": {"port": 5901, "type": "spice"}}}}, "shows screens by VNC"),
        ({"guests": {n: {"iso": "live", "memory_mib": 256, "console": {"port": 5901}} for n in "gh"}},
         "guest g has its screen there"),
        ({"bundle": "nosuch"}, "the lab's media are"),
        ({"containers": {"c": {"template": "busybox"}}}, "has no containers"),
    ],
)  # fmt: skip
def test_what_a_stack_can_not_have_is_refused_in_words(inside: dict[str, Any], told_: str) -> None:
    hypervisor = LAB["hypervisors"]["ws1"] | inside
    lab = LAB | {"name": "lab", "hypervisors": {"ws1": hypervisor}}
    with pytest.raises(SpecError) as refused:
        load(lab, root=Path("/project"), exists=lambda _: True)
    assert told_ in str(refused.value)


def test_folder_names_are_what_people_see(machine: Machine) -> None:
    made(machine)
    assert folder(guest()) in machine.shell().run(["vmrun", "-T", "ws", "list"]).out


def test_the_engine_finds_its_drivers() -> None:
    kinds = ("guest", "network", "medium")
    found = [type(driver_of(f"workstation.{what}")).__name__ for what in kinds]
    assert found == ["GuestDriver", "NetworkDriver", "FileMediumDriver"]
