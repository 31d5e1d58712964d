"""XCP-ng's networks, media and guests by `xe`, on a stub host whose every command can fail.

A failure here means a guest made twice, one that is half made and taken for whole, a disk that is
lost, or something of somebody else's that is changed.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.gates import object as objects
from components.gates.codec import write
from components.gates.object import RemoteObjectProvider
from components.kinds.xenserver import facts
from components.kinds.xenserver.guest import DRIVER as GUEST
from components.kinds.xenserver.guest import GIB, MIB
from components.kinds.xenserver.install import PLACE, recipe
from components.kinds.xenserver.medium import DRIVER as MEDIUM
from components.kinds.xenserver.network import DRIVER as NETWORK
from components.kinds.xenserver.xe import entry, rows, xe
from components.reach.driver import DriverError, console_of
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
from components.stackfile import load
from components.stackfile.registry import KINDS
from tests.support import images
from tests.support.commands import Machine
from tests.support.orders import order
from tests.support.stubs.xenserver import (
    POOL,
    SECOND,
    STORAGE,
    THEIRS,
    UPLINK,
    XenServer,
    machine,
)
from tests.unit.components.labs import up

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.reach.shell import Shell

STORE = PLACE.store
OWNER = "11111111-2222-4333-8444-555555555555"
ISO = b"an installer" * 50
IMAGE = b"\x00" * MIB * 3


def network(**other: Any) -> NetworkOrder:
    plain: dict[str, Any] = {
        "name": "inner", "mode": "isolated", "bridge": "nl0123456789", "subnet": "10.78.0.0/24",
        "prefix": 24, "gateway": "10.78.0.1", "dhcp": False, "dhcp_start": "", "dhcp_end": "",
        "domain": "", "reservations": [], "owner": f"{OWNER}-n",
    }  # fmt: skip
    return order(NetworkOrder, plain | other)


def out(**other: Any) -> NetworkOrder:
    plain = {"name": "out", "mode": "bridge", "bridge": "", "subnet": "", "prefix": 0}
    return network(**plain | other)


def guest(**other: Any) -> GuestOrder:
    plain: dict[str, Any] = {
        "name": "web", "memory_mib": 512, "cores": 2, "disk_gib": 4, "disk_bus": "xen",
        "firmware": "bios", "machine": "pc", "video": "vga", "boot": ["cdrom", "hd"],
        "nics": [nic("inner", 1), nic("bridge:", 2)], "iso": f"{STORE}/debian.iso", "image": "",
        "autostart": True, "console": {"type": "vnc", "listen": "127.0.0.1", "port": 0,
        "password": ""}, "ready": {"probe": "none", "host": "", "port": 0}, "store": STORE,
        "owner": OWNER,
    }  # fmt: skip
    return order(GuestOrder, plain | other)


def nic(name: str, number: int, **other: Any) -> dict[str, Any]:
    mac = f"52:54:00:00:00:{number:02x}"
    return {"network": name, "mac": mac, "model": "rtl8139", "address": "", **other}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "debian.iso").write_bytes(ISO)
    (tmp_path / "disk.img").write_bytes(IMAGE)
    return tmp_path


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "xcp", XenServer)


@pytest.fixture(autouse=True)
def _afresh() -> None:
    facts._shared.clear()


def medium(files: Path, name: str = "debian.iso", **other: Any) -> MediumOrder:
    path = files / ("debian.iso" if name.endswith(".iso") else "disk.img")
    plain: dict[str, Any] = {
        "name": name, "path": str(path), "sha256": "", "size": path.stat().st_size,
        "store": STORE, "owner": f"{OWNER}-{name.partition('.')[0]}",
    }  # fmt: skip
    return order(MediumOrder, plain | other)


def place(host: Machine, files: Path) -> Shell:
    """A host with the network, the medium and the image that guests here need."""
    shell = host.shell()
    NETWORK.ensure(shell, network())
    MEDIUM.ensure(shell, medium(files))
    MEDIUM.ensure(shell, medium(files, "disk.img"))
    return shell


def made(host: Machine, what: str, label: str) -> list[dict[str, Any]]:
    return [each for each in host.state[what].values() if each.get("name-label") == label]


def one(host: Machine, name: str = "web") -> dict[str, Any]:
    [found] = made(host, "vm", name)
    return found


def plugs(host: Machine, what: str, vm: str) -> list[dict[str, Any]]:
    return [each for each in host.state[what].values() if each["vm-uuid"] == vm]


def glance(driver: Any, shell: Shell, wanted: Any) -> str:
    """What a preview says, empty when there is nothing to do."""
    facts._shared.clear()
    seen = driver.glance(shell, wanted)
    assert seen == driver.look(shell, wanted)
    return "" if seen.ok else seen.text


def theirs(host: Machine) -> list[Any]:
    """What was on the host before any lab."""
    first = XenServer.initial
    kinds = ("vm", "vdi", "vbd", "vif", "network", "sr", "pbd")
    return [{key: host.state[kind].get(key) for key in first[kind]} for kind in kinds]


def untouched(host: Machine) -> None:
    kinds = ("vm", "vdi", "vbd", "vif", "network", "sr", "pbd")
    assert theirs(host) == [XenServer.initial[kind] for kind in kinds]


def empty(host: Machine) -> None:
    untouched(host)
    for kind in ("vm", "vdi", "vbd", "vif", "network", "sr", "pbd"):
        assert host.state[kind].keys() == XenServer.initial[kind].keys(), kind
    assert not list(host.path("/var/opt/xen").iterdir())


def whole(host: Machine) -> None:
    """The guest of `guest()` and nothing twice."""
    vm = one(host)
    assert (vm["power-state"], vm["memory-static-max"], vm["VCPUs-max"]) == (
        "running",
        str(512 * MIB),
        "2",
    )
    vifs = sorted(plugs(host, "vif", vm["uuid"]), key=lambda each: each["device"])
    inner = made(host, "network", "inner")[0]["uuid"]
    assert [(each["MAC"], each["network-uuid"]) for each in vifs] == [
        ("52:54:00:00:00:01", inner),
        ("52:54:00:00:00:02", UPLINK),
    ]
    drives = sorted(plugs(host, "vbd", vm["uuid"]), key=lambda each: each["userdevice"])
    assert [(each["userdevice"], each["type"]) for each in drives] == [("0", "Disk"), ("3", "CD")]
    disk = host.state["vdi"][drives[0]["vdi-uuid"]]
    assert (disk["virtual-size"], disk["sr-uuid"]) == (str(4 * GIB), STORAGE)
    assert host.state["vdi"][drives[1]["vdi-uuid"]]["location"] == "debian.iso"
    mine = [each for each in host.state["vm"].values() if OWNER in str(each)]
    assert len(mine) == 1
    assert len([each for each in host.state["vdi"].values() if "web" in each["name-label"]]) == 1
    untouched(host)


def calls(host: Machine, since: int = 0) -> list[str]:
    """The commands that change something."""
    asking = {"stat", "test", "ls", "sha256sum"}
    return [
        call.argv[0] if call.command == "xe" else call.command
        for call in host.calls[since:]
        if call.command not in asking and not (call.argv and call.argv[0].endswith("-list"))
    ]


# What `xe` prints --------------------------------------------------------------------------------


def test_lists_are_read_whatever_a_label_holds(host: Machine) -> None:
    label = "x\u2028y\n\npower-state ( RO): running"
    with host.changing() as state:
        state["vm"]["odd"] = machine("odd", label)
    told = host.shell().run(["xe", "vm-list", "params=uuid,name-label,power-state"]).out
    found = {row["uuid"]: row for row in rows(told)}
    assert found[THEIRS]["name-label"] == "theirs,\\and more"
    assert found["odd"]["name-label"].startswith("x\u2028y")
    assert len(found) == 3, "the control domain, theirs and the odd one"


def test_a_field_of_a_map_is_read_by_its_key() -> None:
    told = "nestlab-self: b; nestlab: a; location: /x"
    assert (entry(told, "nestlab"), entry(told, "location")) == ("a", "/x")
    assert (entry(told, "lab"), entry("", "nestlab")) == ("", "")


def test_a_refusal_is_told_in_its_own_words_with_the_way_out(host: Machine, files: Path) -> None:
    shell = place(host, files)
    with host.changing() as state:
        state["free"] = 100 * MIB
    with pytest.raises(DriverError) as no:
        GUEST.ensure(shell, guest())
    assert str(no.value).startswith("`xe vm-start uuid=")
    assert " on stub1: There are no suitable hosts" in str(no.value)
    assert "Not enough free memory" in str(no.value)
    assert str(no.value).endswith(
        "; raise memory_mib of the hypervisor, or make its guests smaller"
    )


@pytest.mark.parametrize(
    ("state", "words", "remedy"),
    [
        ({"hvm": False}, "HVM is required", "switch nesting on there"),
        ({"space": 2 * GIB}, "The SR is full", "raise disk_gib of the hypervisor"),
        ({"up": False}, "Connection refused", "xe-toolstack-restart"),
    ],
)
def test_known_failures_say_their_cause(
    state: dict[str, Any], words: str, remedy: str, host: Machine, files: Path
) -> None:
    shell = place(host, files)
    with host.changing() as known:
        known.update(state)
    with pytest.raises(DriverError, match=rf"{words}.*{remedy}"):
        GUEST.ensure(shell, guest())
    if not host.state["up"]:
        assert "Connection refused" in glance(GUEST, shell, guest())


# Networks ----------------------------------------------------------------------------------------


def test_an_isolated_network_is_made_once_and_removed(host: Machine) -> None:
    shell = host.shell()
    assert "not there any more" in glance(NETWORK, shell, network())
    NETWORK.ensure(shell, network())
    NETWORK.ensure(shell, network())
    [found] = made(host, "network", "inner")
    assert found["other-config"] == {"nestlab": f"{OWNER}-n"}
    assert glance(NETWORK, shell, network()) == ""
    untouched(host)
    NETWORK.remove(shell, network())
    NETWORK.remove(shell, network())
    empty(host)


def test_a_bridge_is_one_that_was_there_and_stays(host: Machine) -> None:
    shell = host.shell()
    assert NETWORK.called(out()) == "bridge:"
    for wanted in (out(), out(bridge="xenbr1")):
        NETWORK.ensure(shell, wanted)
        assert glance(NETWORK, shell, wanted) == ""
        NETWORK.remove(shell, wanted)
    with pytest.raises(DriverError, match="no bridge 'br9': it has xapi7, xenbr0, xenbr1"):
        NETWORK.ensure(shell, out(bridge="br9"))
    assert "no bridge 'br9'" in glance(NETWORK, shell, out(bridge="br9"))
    assert calls(host) == []
    empty(host)


def test_a_strangers_network_of_the_name_is_left_alone(host: Machine) -> None:
    shell = host.shell()
    with pytest.raises(
        DriverError, match=r"the network 'class', .* is not this lab's and is left alone"
    ) as no:
        NETWORK.ensure(shell, network(name="class"))
    assert "xe network-param-set uuid=" in str(no.value)
    NETWORK.remove(shell, network(name="class"))
    empty(host)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mode": "nat"}, "no network of mode 'nat': take bridge or isolated"),
        ({"name": "a\nb"}, "which XAPI can't take"),
        ({"name": "bridge:x"}, "rename it"),
        ({"name": " "}, "is empty"),
        ({"owner": "x y"}, "comes from the lab"),
    ],
)
def test_a_network_that_cant_be_is_refused_beforehand(wrong: dict[str, Any], words: str) -> None:
    assert words in NETWORK.problem(network(**wrong))


# Media -------------------------------------------------------------------------------------------


def test_an_iso_is_uploaded_once_into_a_repository_of_its_own(host: Machine, files: Path) -> None:
    shell = host.shell()
    wanted = medium(files, sha256=hashlib.sha256(ISO).hexdigest().upper())
    assert MEDIUM.called(wanted) == f"{STORE}/debian.iso"
    MEDIUM.ensure(shell, wanted)
    assert host.path(f"{STORE}/debian.iso").read_bytes() == ISO
    [sr] = made(host, "sr", "nestlab ISO")
    [pbd] = [each for each in host.state["pbd"].values() if each["sr-uuid"] == sr["uuid"]]
    assert (sr["type"], sr["content-type"]) == ("iso", "iso")
    assert pbd["device-config"] == {"location": STORE, "legacy_mode": "true"}
    before = len(host.calls)
    MEDIUM.ensure(shell, wanted)
    assert calls(host, before) == []
    assert glance(MEDIUM, shell, wanted) == ""
    untouched(host)


def test_the_repository_goes_with_the_last_of_its_media(host: Machine, files: Path) -> None:
    shell = host.shell()
    both = [medium(files), medium(files, "more.iso")]
    for each in both:
        MEDIUM.ensure(shell, each)
    MEDIUM.remove(shell, both[0])
    assert [each["name-label"] for each in made(host, "vdi", "more.iso")] == ["more.iso"]
    assert not made(host, "vdi", "debian.iso")
    MEDIUM.remove(shell, both[1])
    MEDIUM.remove(shell, both[1])
    empty(host)


def harmed(host: Machine, how: str) -> None:
    iso = host.path(f"{STORE}/debian.iso")
    if how == "removed":
        iso.unlink()
    elif how == "truncated":
        iso.write_bytes(ISO[:100])
    with host.changing() as state:
        for pbd in state["pbd"].values():
            if how == "unplugged" and "location" in pbd["device-config"]:
                pbd["currently-attached"] = "false"
        if how == "forgotten":
            [sr] = [each for each in state["sr"].values() if each["type"] == "iso"]
            del state["sr"][sr["uuid"]]
            for kind in ("pbd", "vdi"):
                kept = state[kind].items()
                state[kind] = {k: v for k, v in kept if v["sr-uuid"] != sr["uuid"]}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("removed", "not there any more, or not whole"),
        ("truncated", "not there any more, or not whole"),
        ("unplugged", "is not attached"),
        ("forgotten", "is not attached"),
    ],
)
def test_a_medium_that_was_harmed_is_seen_and_mended(
    how: str, said: str, host: Machine, files: Path
) -> None:
    shell = host.shell()
    MEDIUM.ensure(shell, medium(files))
    harmed(host, how)
    assert said in glance(MEDIUM, shell, medium(files))
    MEDIUM.ensure(shell, medium(files))
    assert glance(MEDIUM, shell, medium(files)) == ""
    assert host.path(f"{STORE}/debian.iso").read_bytes() == ISO
    assert len(made(host, "vdi", "debian.iso")) == len(made(host, "sr", "nestlab ISO")) == 1


def test_a_medium_that_is_not_what_the_stack_says_is_not_kept(host: Machine, files: Path) -> None:
    with pytest.raises(DriverError, match=r"has SHA-256 .*, and the stack says 0{64}: .*get it"):
        MEDIUM.ensure(host.shell(), medium(files, sha256="0" * 64))
    assert not host.path(f"{STORE}/debian.iso").exists()


def test_an_image_becomes_a_disk_and_its_file_is_not_kept(host: Machine, files: Path) -> None:
    shell = host.shell()
    wanted = medium(files, "disk.img")
    MEDIUM.ensure(shell, wanted)
    [vdi] = made(host, "vdi", f"disk.img (nestlab {OWNER}-disk)")
    assert vdi["content"] == f"raw {hashlib.sha256(IMAGE).hexdigest()}"
    assert vdi["virtual-size"] == str(4 * MIB), "whole blocks of VHD"
    assert not list(host.path("/var/opt/xen").rglob("disk.img*"))
    before = len(host.calls)
    MEDIUM.ensure(shell, wanted)
    assert calls(host, before) == [], "of what a cut connection might have left"
    assert glance(MEDIUM, shell, wanted) == ""
    MEDIUM.remove(shell, wanted)
    empty(host)


def test_another_image_of_the_name_takes_the_place_of_the_old_one(
    host: Machine, files: Path
) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, from_image())
    (files / "disk.img").write_bytes(b"\x01" * MIB)
    wanted = medium(files, "disk.img")
    assert "another one" in glance(MEDIUM, shell, wanted)
    MEDIUM.ensure(shell, wanted)
    [vdi] = made(host, "vdi", f"disk.img (nestlab {OWNER}-disk)")
    assert vdi["content"] == f"raw {hashlib.sha256(bytes([1]) * MIB).hexdigest()}"
    [clone] = made(host, "vdi", f"web (nestlab {OWNER})")
    assert clone["content"] == f"raw {hashlib.sha256(IMAGE).hexdigest()}", "its guests keep theirs"


def vhd(kind: int = 3, size: int = 5 * GIB) -> bytes:
    """The head of a VHD: cookie, sizes at 40 and 48, type at 60."""
    head = bytearray(512)
    head[:8] = b"conectix"
    struct.pack_into(">QQ", head, 40, 1, size)
    struct.pack_into(">I", head, 60, kind)
    return bytes(head)


def test_a_dynamic_vhd_is_imported_as_one_with_the_size_it_says(host: Machine, files: Path) -> None:
    (files / "disk.img").write_bytes(vhd())
    MEDIUM.ensure(host.shell(), medium(files, "disk.vhd"))
    [vdi] = made(host, "vdi", f"disk.vhd (nestlab {OWNER}-disk)")
    assert vdi["content"].startswith("vhd ")
    assert vdi["virtual-size"] == str(5 * GIB)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"QFI\xfb", "is qcow2, and XCP-ng imports raw images and dynamic VHD: convert it with"),
        (b"KDMV", "is a VMware disk"),
        (b"vhdxfile", "is VHDX"),
        (vhd(kind=4), "merge it with its parent"),
    ],
)
def test_what_cant_be_imported_is_refused_beforehand(
    head: bytes, words: str, host: Machine, files: Path
) -> None:
    (files / "disk.img").write_bytes(head)
    wanted = medium(files, "disk.qcow2")
    assert words in MEDIUM.problem(wanted)
    with pytest.raises(DriverError, match=words):
        MEDIUM.ensure(host.shell(), wanted)
    empty(host)
    assert MEDIUM.problem(medium(files)) == ""
    (files / "disk.img").unlink()
    assert MEDIUM.problem(replace(wanted, size=0)) == "", "in a preview it need not be there"


@pytest.mark.parametrize("name", ["a/b.iso", "..", "", "a\nb.iso"])
def test_a_medium_whose_name_is_no_files_is_refused(name: str, files: Path) -> None:
    assert MEDIUM.problem(replace(medium(files, "debian.iso"), name=name))


# Guests ------------------------------------------------------------------------------------------


def from_image(**other: Any) -> GuestOrder:
    mine: dict[str, Any] = {
        "iso": "", "image": f"{STORE}/disk.img", "disk_gib": 0, "boot": ["hd"]
    }  # fmt: skip
    return guest(**mine | other)


def test_a_guest_is_made_as_the_stack_says_and_started(host: Machine, files: Path) -> None:
    shell = place(host, files)
    assert "not there any more" in glance(GUEST, shell, guest())
    GUEST.ensure(shell, guest(firmware="uefi", video="cirrus", boot=["network", "hd", "cdrom"]))
    vm = one(host)
    assert vm["HVM-boot-params"] == {"order": "ncd", "firmware": "uefi"}
    assert (vm["platform"]["vga"], vm["platform"].get("nic_type")) == ("cirrus", None)
    assert vm["other-config"]["auto_poweron"] == "true"
    assert host.state["pool"][POOL]["other-config"] == {"auto_poweron": "true"}
    whole(host)


def test_all_of_a_place_is_looked_at_with_one_list_of_each_class(
    host: Machine, files: Path
) -> None:
    shell = place(host, files)
    names = [f"g{number}" for number in range(5)]
    wanted = [guest(name=name, owner=f"{OWNER}-{name}", memory_mib=64) for name in names]
    for each in wanted:
        GUEST.ensure(shell, each)
    facts._shared.clear()
    before = len(host.calls)
    assert all(GUEST.glance(shell, each).ok for each in wanted)
    assert NETWORK.glance(shell, network()).ok
    asked = [call.argv[0] for call in host.calls[before:]]
    assert len(asked) == len(set(asked)) <= 9


def test_a_guest_from_an_image_is_a_clone_of_it(host: Machine, files: Path) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, from_image(disk_gib=2))
    [image] = made(host, "vdi", f"disk.img (nestlab {OWNER}-disk)")
    [disk] = made(host, "vdi", f"web (nestlab {OWNER})")
    assert (disk["parent"], disk["content"]) == (image["uuid"], image["content"])
    assert disk["virtual-size"] == str(2 * GIB)
    assert glance(GUEST, shell, from_image(disk_gib=2)) == ""
    GUEST.remove(shell, from_image())
    assert made(host, "vdi", f"disk.img (nestlab {OWNER}-disk)") == [image]


def test_a_guest_without_disk_or_nic_has_none(host: Machine, files: Path) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest(disk_gib=0, nics=[], autostart=False, boot=["cdrom"]))
    vm = one(host)
    assert [each["type"] for each in plugs(host, "vbd", vm["uuid"])] == ["CD"]
    assert not plugs(host, "vif", vm["uuid"])
    assert host.state["pool"][POOL]["other-config"] == {}, "nobody asked for it"


@pytest.mark.parametrize(
    ("edit", "stops"),
    [
        ({"memory_mib": 1024}, True),
        ({"cores": 1}, True),
        ({"cores": 4}, True),
        ({"disk_gib": 8}, True),
        ({"firmware": "uefi"}, True),
        ({"video": "cirrus"}, True),
        ({"nics": [nic("bridge:xenbr1", 1)]}, True),
        ({"nics": [nic("inner", 9, model="e1000")]}, True),
        ({"boot": ["hd", "cdrom"]}, False),
        ({"iso": "", "boot": ["hd"]}, False),
        ({"iso": f"{STORE}/more.iso"}, False),
        ({"autostart": False}, False),
    ],
)
def test_an_edit_is_made_in_place_and_keeps_the_disk(
    edit: dict[str, Any], stops: bool, host: Machine, files: Path, capsys: Any
) -> None:
    shell = place(host, files)
    MEDIUM.ensure(shell, medium(files, "more.iso"))
    GUEST.ensure(shell, guest())
    vm, [disk] = one(host), made(host, "vdi", f"web (nestlab {OWNER})")
    capsys.readouterr()
    before = len(host.calls)
    wanted = guest(**edit)
    assert "guest web is not as the stack says: " in glance(GUEST, shell, wanted)
    GUEST.ensure(shell, wanted)
    assert ("vm-start" in calls(host, before)) is stops
    assert ("guest web is stopped for a moment: " in capsys.readouterr().err) is stops
    assert one(host)["uuid"] == vm["uuid"]
    assert [each["uuid"] for each in made(host, "vdi", disk["name-label"])] == [disk["uuid"]]
    assert glance(GUEST, shell, wanted) == ""
    untouched(host)


def test_a_guest_that_ends_by_itself_is_not_switched_off(host: Machine, files: Path) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest())
    uuid = one(host)["uuid"]
    with host.changing() as state:
        state["reacts"].append(uuid)
    before = len(host.calls)
    GUEST.ensure(shell, guest(memory_mib=1024))
    assert [each for each in calls(host, before) if each == "vm-shutdown"] == ["vm-shutdown"]
    assert not any("--force" in call.argv for call in host.calls[before:])


def by_hand(*words: str) -> Callable[[Machine], None]:
    """Somebody's command, with {vm}, {vif}, {cd} and {disk} for what is the guest's."""

    def harm(host: Machine) -> None:
        vm = one(host)["uuid"]
        drives = {each["type"]: each["uuid"] for each in plugs(host, "vbd", vm)}
        vif = plugs(host, "vif", vm)[0]["uuid"]
        known = {"vm": vm, "vif": vif, "cd": drives["CD"], "disk": drives["Disk"]}
        for line in words:
            done = host.shell().run(["xe", *(word.format(**known) for word in line.split())])
            assert done.ok, done.err

    return harm


OFF = "vm-shutdown uuid={vm} --force"
HARMS = {
    "switched off": (by_hand(OFF), "is halted"),
    "paused": (by_hand("vm-pause uuid={vm}"), "is paused"),
    "suspended": (by_hand("vm-suspend uuid={vm}"), "is suspended"),
    "memory": (
        by_hand(OFF, "vm-memory-limits-set uuid={vm} static-min=1GiB dynamic-min=1GiB "
                     "dynamic-max=1GiB static-max=1GiB"), "memory",
    ),
    "cores": (by_hand(OFF, "vm-param-set uuid={vm} VCPUs-at-startup=1"), "cores"),
    "a NIC gone": (by_hand(OFF, "vif-destroy uuid={vif}"), "NIC 0"),
    "a NIC more": (
        by_hand(OFF, f"vif-create vm-uuid={{vm}} device=4 network-uuid={SECOND} mac=random"),
        "NIC 4",
    ),
    "medium ejected": (by_hand("vbd-eject uuid={cd}"), "medium in its CD drive"),
    "drive gone": (by_hand(OFF, "vbd-destroy uuid={cd}"), "CD drive"),
    "disk detached": (by_hand(OFF, "vbd-destroy uuid={disk}"), "disk"),
    "renamed": (by_hand("vm-param-set uuid={vm} name-label=mine"), "its name"),
    "firmware": (by_hand("vm-param-set uuid={vm} HVM-boot-params:firmware=uefi"), "firmware"),
    "boot order": (by_hand("vm-param-set uuid={vm} HVM-boot-params:order=n"), "boot order"),
    "adapter": (by_hand("vm-param-set uuid={vm} platform:vga=cirrus"), "graphics adapter"),
    "NIC model": (by_hand("vm-param-set uuid={vm} platform:nic_type=e1000"), "NIC model"),
    "autostart": (by_hand("vm-param-set uuid={vm} other-config:auto_poweron=false"), "autostart"),
    "host's autostart": (
        by_hand(f"pool-param-set uuid={POOL} other-config:auto_poweron=false"),
        "autostart of its host",
    ),
    "removed": (by_hand(OFF, "vm-destroy uuid={vm}"), "is not there any more"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_what_somebody_did_by_hand_is_told_and_mended(
    harm: str, host: Machine, files: Path
) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest())
    disk = made(host, "vdi", f"web (nestlab {OWNER})")[0]["uuid"]
    do, said = HARMS[harm]
    do(host)
    assert said in glance(GUEST, shell, guest())
    GUEST.ensure(shell, guest())
    assert glance(GUEST, shell, guest()) == ""
    whole(host)
    assert made(host, "vdi", f"web (nestlab {OWNER})")[0]["uuid"] == disk, "and its disk is kept"


def test_a_disk_never_shrinks_and_is_never_taken_away(host: Machine, files: Path) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest())
    before = host.state
    for edit, words in (
        ({"disk_gib": 2}, "disks don't shrink; write disk_gib: 4 or more"),
        ({"disk_gib": 0}, "what is on it would be lost; give disk_gib again"),
    ):
        with pytest.raises(DriverError, match=words):
            GUEST.ensure(shell, guest(**edit))
        assert words in glance(GUEST, shell, guest(**edit))
    assert host.state == before
    (files / "disk.img").write_bytes(b"\0" * MIB)
    big = guest(name="big", owner=f"{OWNER}-b", image=f"{STORE}/disk.img", disk_gib=1, nics=[])
    with host.changing() as state:
        for vdi in state["vdi"].values():
            if vdi["name-label"].startswith("disk.img"):
                vdi["virtual-size"] = str(3 * GIB)
    with pytest.raises(DriverError, match=r"its image has 3 GiB .* write disk_gib: 3 or more"):
        GUEST.ensure(shell, big)


def test_a_strangers_disk_in_the_place_of_its_own_is_not_thrown_out(
    host: Machine, files: Path
) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest())
    by_hand(OFF, "vbd-destroy uuid={disk}")(host)
    sr = f"sr-uuid={STORAGE}"
    theirs_ = shell.run(
        ["xe", "vdi-create", sr, "name-label=mine", "virtual-size=1GiB"]
    ).out.strip()
    vm = one(host)["uuid"]
    shell.run(["xe", "vbd-create", f"vm-uuid={vm}", "device=0", f"vdi-uuid={theirs_}"])
    with pytest.raises(DriverError, match="has a disk in the place of its own"):
        GUEST.ensure(shell, guest())
    GUEST.remove(shell, guest())
    assert theirs_ in host.state["vdi"]


def test_a_strangers_guest_of_the_name_is_left_alone(host: Machine, files: Path) -> None:
    shell = place(host, files)
    with host.changing() as state:
        state["vm"]["mine"] = machine("mine", "web")
    with pytest.raises(
        DriverError,
        match="the guest 'web', mine, on stub1 is not this lab's and is left alone: call it",
    ):
        GUEST.ensure(shell, guest())
    GUEST.remove(shell, guest())
    assert made(host, "vm", "web") == [machine("mine", "web")]


def test_a_clone_or_snapshot_that_somebody_made_is_not_the_guest(
    host: Machine, files: Path
) -> None:
    shell = place(host, files)
    GUEST.ensure(shell, guest())
    by_hand(OFF, "vm-clone uuid={vm} new-name-label=mine", "vm-snapshot uuid={vm} "
            "new-name-label=before")(host)  # fmt: skip
    GUEST.ensure(shell, guest())
    assert glance(GUEST, shell, guest()) == ""
    [clone] = made(host, "vm", "mine")
    GUEST.remove(shell, guest())
    assert made(host, "vm", "mine") == [clone], "though it has the lab's marks, copied"
    assert not made(host, "vm", "before"), "a snapshot is nothing without its guest"
    [disk] = [each for each in plugs(host, "vbd", clone["uuid"]) if each["type"] == "Disk"]
    left = [each["uuid"] for each in made(host, "vdi", f"web (nestlab {OWNER})")]
    assert left == [disk["vdi-uuid"]]


@pytest.mark.parametrize("state", ["running", "halted", "paused", "suspended", "half made"])
def test_a_guest_is_removed_in_any_state_and_only_once(
    state: str, host: Machine, files: Path
) -> None:
    shell = place(host, files)
    if state == "half made":
        shell.run(["xe", "vm-install", "template=Other install media",
                   f"new-name-label=web (nestlab {OWNER})"])  # fmt: skip
    else:
        GUEST.ensure(shell, guest())
        do = {"halted": OFF, "paused": "vm-pause uuid={vm}", "suspended": "vm-suspend uuid={vm}"}
        if state in do:
            by_hand(do[state])(host)
    for _ in range(2):
        GUEST.remove(shell, guest())
    for each in (medium(files), medium(files, "disk.img")):
        MEDIUM.remove(shell, each)
    NETWORK.remove(shell, network())
    empty(host)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"nics": [nic("inner", 1, model="virtio")]}, "no NIC 'virtio': take rtl8139 or e1000"),
        ({"nics": [nic("a", 1), nic("a", 2, model="e1000")]}, "all NICs of a guest are of one"),
        ({"nics": [nic("a", n) for n in range(8)]}, "8 NICs given"),
        ({"nics": [nic("a", 1, mac="x")]}, "is no MAC"),
        ({"video": "qxl"}, "no adapter 'qxl': take vga or cirrus"),
        ({"disk_gib": 4096}, "its storage ends at 2040"),
        ({"name": "a\nb"}, "which XAPI can't take"),
        ({"owner": "a b"}, "comes from the lab"),
    ],
)
def test_a_guest_that_cant_be_is_refused_beforehand(wrong: dict[str, Any], words: str) -> None:
    assert words in GUEST.problem(guest(**wrong))


def test_a_guest_is_not_waited_for_where_its_host_is_not() -> None:
    ready = {"probe": "tcp", "host": "10.78.0.9", "port": 22}
    inner, bridged = nic("inner", 1, address="10.78.0.9"), nic("bridge:", 2)
    assert "only guests are on" in GUEST.problem(guest(nics=[inner, bridged], ready=ready))
    seen = nic("bridge:", 1, address="10.78.0.9")
    assert GUEST.problem(guest(nics=[seen], ready=ready)) == ""


# Quoting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["a\nb", "a\r"])
def test_a_word_that_xe_would_cut_in_two_is_never_sent(word: str, host: Machine) -> None:
    with pytest.raises(DriverError, match="holds a line break, which xe can't take"):
        xe(host.shell(), "network-create", f"name-label={word}")
    assert not host.calls


# As a resource -----------------------------------------------------------------------------------


def test_a_preview_says_what_is_wrong_and_an_up_mends_it(
    host: Machine, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = place(host, files)
    monkeypatch.setattr(objects, "shell_of", lambda _: shell)
    provider = RemoteObjectProvider()

    def props(**other: Any) -> dict[str, Any]:
        return {
            "name": "x-web-guest", "driver": "xenserver.guest", "target": {"kind": "ssh"},
            "wanted": write(GuestOrder, guest(**other)), "deadline_s": 0.2,
        }  # fmt: skip

    outs = provider.create(props()).outs
    assert outs
    assert outs["answers"] == "guest web is running"
    facts._shared.clear()
    assert not provider.diff("", outs, props()).changes
    HARMS["paused"][0](host)
    facts._shared.clear()
    capsys.readouterr()
    assert provider.diff("", outs, props()).changes
    assert capsys.readouterr().err == "x-web-guest: guest web is paused; `pulumi up` mends it\n"
    provider.update("", outs, props())
    whole(host)
    for key, value in (("name", "other"), ("image", f"{STORE}/disk.img")):
        assert provider.diff("", outs, props(**{key: value})).replaces == ["wanted"]
    assert not provider.diff("", outs, props(memory_mib=64)).replaces
    provider.delete("", outs)
    assert not made(host, "vm", "web")


# The lab -----------------------------------------------------------------------------------------

LAB: dict[str, Any] = {
    "media": {
        "xcp-ng": {"path": "media/xcp-ng.iso"},
        "debian": {"path": "media/debian.iso"},
        "disk": {"path": "media/disk.img"},
    },
    "networks": {"lab": {"subnet": "10.77.0.0/24"}},
    "hypervisors": {
        "xcp1": {
            "kind": "xenserver",
            "iso": "xcp-ng",
            "network": "lab",
            "networks": {
                "out": {"mode": "bridge"},
                "inner": {"mode": "isolated", "subnet": "10.78.0.0/24"},
            },
            "guests": {
                "web": {"iso": "debian", "disk_gib": 4, "network": "out"},
                "db": {
                    "image": "disk",
                    "network": [{"network": "inner", "model": "e1000"}],
                },
            },
        }
    },
}


def test_a_lab_has_the_host_its_discs_and_what_is_inside() -> None:
    engine = up(LAB)
    domain = engine.named("xcp1-domain").inputs
    assert (domain["machine"], domain["vcpu"], domain["memory"]) == ("pc", 4, 8192)
    sheet = domain["xml"]["xslt"]
    assert 'name="model"><xsl:text>lsilogic' in sheet
    assert 'dev="sda" bus="scsi"' in sheet
    assert sheet.count('bus="ide"') == 2, "the installer, and its answers"
    assert 'name="type"><xsl:text>e1000' in sheet
    discs = engine.named("xcp1-discs").inputs
    assert (discs["recipe"], discs["kind"]) == ("xenserver", "xenserver")
    answers = discs["answers"]
    assert answers["disk"] == "sda"
    assert answers["options"] == {"sr_type": "ext"}
    assert "answers" in engine.named("xcp1-discs").secret_inputs
    gate = engine.named("xcp1-gate")
    assert gate.inputs["probe"]["kind"] == "ssh"
    assert "reach" in gate.secret_inputs
    web = engine.named("xcp1-web-guest").inputs
    assert web["driver"] == "xenserver.guest"
    assert web["wanted"]["nics"][0]["model"] == "rtl8139"
    assert web["wanted"]["store"] == STORE
    assert engine.named("xcp1-db-guest").inputs["wanted"]["image"] == "disk.img"
    media = {one.name: one.inputs["wanted"] for one in engine.of_type("RemoteObject")
             if one.inputs["driver"] == "xenserver.medium"}  # fmt: skip
    assert {each["name"] for each in media.values()} == {"debian.iso", "disk.img"}
    for each in engine.of_type("RemoteObject"):
        assert each.deleted_with == engine.named("xcp1-domain").urn
        assert "target" in each.secret_inputs
    sheet_ = engine.stack_outputs["sheet"]
    [row] = [row for row in sheet_ if row["name"] == "web"]
    assert row["enter"] == console_of("xenserver", "web", STORE, web["wanted"]["owner"])
    assert "https://10.77.0." in str(sheet_)


@pytest.mark.parametrize("state", ["running", "off", "cloned"])
def test_its_console_is_that_of_the_domain_that_it_is_now(
    state: str, host: Machine, files: Path, tmp_path: Path
) -> None:
    """The command is run by a real shell; what it asks `xe` the stub answers, and `xl` is looked at."""
    GUEST.ensure(place(host, files), guest())
    web = one(host)
    if state == "cloned":
        with host.changing() as known:
            other = {**web, "uuid": "0000aaaa-0000-4000-8000-0000000000c1", "name-label": "copy"}
            known["vm"][other["uuid"]] = other
    if state == "off":
        assert host.shell().run(["xe", "vm-shutdown", f"uuid={web['uuid']}", "--force"]).ok
    asked = tmp_path / "asked"
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "xe").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {asked}\ncat {tmp_path}/told\n')
    (tools / "xl").write_text('#!/bin/sh\necho "xl $*"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    words = [*console_of("xenserver", web["name-label"], STORE, guest().owner)]
    (tmp_path / "told").write_text("")
    subprocess.run(words, env=env, capture_output=True, check=False)
    told = host.shell().run(["xe", *asked.read_text().splitlines()])
    assert told.ok, told.err
    (tmp_path / "told").write_text(told.out)
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    if state == "off":
        assert (done.returncode, done.stderr) == (1, "web does not run\n")
    else:
        domain = [*host.state["vm"]].index(web["uuid"])
        assert done.stdout == f"xl console -t serial {domain}\n"


def test_a_preview_of_a_lab_needs_no_host() -> None:
    assert up(LAB, preview=True).names() == up(LAB).names()


def test_the_probe_asks_for_host_storage_and_network(host: Machine) -> None:
    spec = load({"name": "lab", **LAB}, root=Path("/project"), exists=lambda _: True)
    made_of = recipe(spec.hypervisors["xcp1"])  # type: ignore[arg-type]
    first, *asked = made_of.probe.commands
    assert first.argv == ["test", "-e", "/var/run/xapi_init_complete.cookie"]
    assert made_of.probe.steady >= 2, "the port opens, closes and opens again"
    for each in asked:
        done = host.shell().run(each.argv)
        assert done.ok, done.err
        assert each.holds in done.out
    with host.changing() as state:
        state["sr"][STORAGE]["type"] = "udev"
        state["host"][next(iter(state["host"]))]["enabled"] = "false"
        next(iter(state["pif"].values()))["currently-attached"] = "false"
    assert [each.holds in host.shell().run(each.argv).out for each in asked if each.holds] == [
        False
    ] * 3


def refused(**hypervisor: Any) -> str:
    data = {**LAB, "hypervisors": {"xcp1": LAB["hypervisors"]["xcp1"] | hypervisor}}
    with pytest.raises(Exception, match=r"lab\.") as no:
        load({"name": "lab", **data}, root=Path("/project"), exists=lambda _: True)
    return str(no.value)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"disk_gib": 46}, "at least 50 GiB (XCP-ng's guide"),
        ({"memory_mib": 2048}, "at least 4096 MiB"),
        ({"cores": 1}, "at least 2 cores"),
        ({"machine": "q35"}, "machine"),
        ({"firmware": "uefi"}, "firmware"),
        ({"disk_bus": "virtio"}, "disk_bus"),
        ({"nic_model": "virtio"}, "nic_model"),
        ({"network": [{"network": "lab", "model": "virtio"}]}, "none for virtio"),
        ({"networks": {"n": {"subnet": "10.79.0.0/24"}}, "guests": {}}, "bridge and isolated"),
        ({"containers": {"c": {"template": "busybox"}}}, "has no containers"),
        ({"guests": {"w": {"iso": "debian", "machine": "q35"}}}, "chipset pc"),
        ({"guests": {"w": {"iso": "debian", "console": {"type": "spice"}}}}, "XO Lite"),
        ({"guests": {"w": {"iso": "debian", "disk_gib": 40}}}, "42 of them for itself"),
    ],
)
def test_a_host_that_would_not_install_or_guests_that_cant_be_are_refused(
    given_: dict[str, Any], words: str
) -> None:
    assert words in refused(**given_)


def test_an_image_that_xapi_cant_import_is_refused_by_the_spec(tmp_path: Path) -> None:
    media = {}
    for name, head in (
        ("xcp-ng", bytes(0x8001) + b"CD001"),
        ("disk", b"QFI\xfb"),
        ("old", images.vhd()),
    ):
        (tmp_path / name).write_bytes(head)
        media[name] = {"path": name}
    guests = {"a": {"image": "disk", "network": "out"}, "b": {"image": "old", "network": "out"}}
    host = LAB["hypervisors"]["xcp1"] | {"guests": guests}
    with pytest.raises(Exception, match="which is raw or vhd there, and is a qcow2 image") as no:
        load({**LAB, "name": "lab", "media": media, "hypervisors": {"x": host}}, root=tmp_path)
    assert "media.old" not in str(no.value)


def test_policies_and_spec_agree_on_what_it_needs() -> None:
    kind = KINDS["xenserver"]
    assert (kind.cores.value, kind.memory_mib.value, kind.disk_gib.value) == (2, 4096, 50)
    assert (kind.reserve_mib, kind.share_mib, kind.reserve_gib) == (1168, 58, 42)
