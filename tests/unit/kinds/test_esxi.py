"""ESXi's own commands, on a host in memory whose connection can be cut at every command.

A failure here means a guest made twice, a disk that is lost or half-made and taken for whole, a
stranger's guest or switch that is touched, or a change by hand that nobody is told of.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates.probes import ssh
from components.gates.secrets import SshKeyProvider
from components.kinds.esxi import guest as guests
from components.kinds.esxi import probe, vimcmd
from components.kinds.esxi.guest import DRIVER as GUEST
from components.kinds.esxi.install import PLACE, recipe
from components.kinds.esxi.medium import DRIVER as MEDIUM
from components.kinds.esxi.model import EsxiSpec
from components.kinds.esxi.network import DRIVER as NETWORK
from components.reach import waiting
from components.reach.driver import DriverError
from components.reach.orders import DataDisk, GuestOrder, MediumOrder, NetworkOrder, Nic
from components.reach.vmx import parsed, rendered
from components.stackfile import SpecError, load
from tests.support.commands import Machine, every_failure
from tests.support.orders import order
from tests.support.stubs.esxi import Esxi
from tests.unit.components.labs import ROOT, private, up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.commands import Call
    from tests.support.engine import Recorder

STORE = PLACE.store
OWNER = "0f0e0d0c-1111-2222-3333-444455556666"
OTHER = "aaaaaaaa-1111-2222-3333-444455556666"
HOME = f"{STORE}/guests/web"
ISO = f"{STORE}/media/live.iso"
IMAGE = f"{STORE}/media/base.vmdk"
GIB = 1 << 30


def vmdk(gib: int) -> bytes:
    """A sparse disk as qemu-img writes it, as far as its header."""
    return b"KDMV" + (1).to_bytes(4, "little") + bytes(4) + (gib << 21).to_bytes(8, "little")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return new(Machine(tmp_path / "esxi", Esxi))


def new(machine: Machine) -> Machine:
    """An ESXi with the media and the networks of the lab."""
    machine.reset()
    Esxi.furnish(machine.path("/vmfs/volumes").parent / "volumes")
    media = machine.path(f"{STORE}/media")
    media.mkdir(parents=True)
    (media / "live.iso").write_bytes(b"an ISO")
    (media / "base.vmdk").write_bytes(vmdk(2))
    with machine.changing() as state:
        state["switches"]["nestlab-1"] = {"uplinks": []}
        for name in ("lan-1", "inner-1"):
            state["groups"][name] = {"switch": "vSwitch0", "vlan": "0"}
    return machine


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vimcmd, "STOP_POLL_S", 0)


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
            {
                "network": "lan-1",
                "mac": "52:54:00:00:00:09",
                "model": "vmxnet3",
                "address": "",
            }
        ],
        "iso": ISO,
        "image": "",
        "autostart": True,
        "console": {"type": "vnc", "listen": "127.0.0.1", "port": 0, "password": ""},
        "ready": {"probe": "none", "host": "", "port": 0},
        "store": STORE,
        "owner": OWNER,
    }
    return replace(order(GuestOrder, plain), **other)


def network(**other: Any) -> NetworkOrder:
    plain: dict[str, Any] = {
        "name": "inner",
        "mode": "isolated",
        "bridge": "nl0123456789",
        "subnet": "10.78.0.0/24",
        "prefix": 24,
        "gateway": "10.78.0.1",
        "dhcp": False,
        "dhcp_start": "",
        "dhcp_end": "",
        "domain": "",
        "reservations": [],
        "owner": OWNER,
    }
    return order(NetworkOrder, plain | other)


def bridged(bridge: str = "") -> NetworkOrder:
    return network(name="lan", mode="bridge", bridge=bridge, subnet="", gateway="")


def nic(**other: Any) -> Nic:
    return replace(guest().nics[0], **other)


def vmx(machine: Machine, name: str = "web") -> dict[str, str]:
    return parsed(machine.path(f"{STORE}/guests/{name}/{name}.vmx").read_text())


def rewrite(machine: Machine, change: Callable[[dict[str, str]], object]) -> None:
    """Change a .vmx by hand."""
    found = vmx(machine)
    change(found)
    machine.path(f"{HOME}/web.vmx").write_text(rendered(found))


def power(machine: Machine) -> dict[str, str]:
    return {vmid: vm["power"] for vmid, vm in machine.state["vms"].items()}


def right(machine: Machine, wanted: GuestOrder | None = None) -> None:
    """One guest, as it is wanted, and nothing half-made."""
    wanted = wanted or guest()
    seen = GUEST.look(machine.shell(), wanted)
    assert seen.ok, seen.text
    assert power(machine) == {next(iter(machine.state["vms"])): "Powered on"}
    files = {each.name for each in machine.path(HOME).iterdir()}
    disk = {"web.vmdk", "web-flat.vmdk"} if wanted.image or wanted.disk_gib else set()
    assert files == {"nestlab.owner", "web.vmx", "console.log"} | disk
    state = machine.state
    assert list(state["saved"]["vms"]) == list(state["vms"]), "a power cut would lose it"
    assert state["saved"]["autostart"] == state["autostart"]


def nothing_of_ours(machine: Machine) -> None:
    assert machine.state["vms"] == {}
    assert list(machine.path(f"{STORE}/guests").iterdir()) == []


# Guests -----------------------------------------------------------------------------------------


def test_a_guest_is_made_runs_and_is_left_alone_by_the_next_up(machine: Machine) -> None:
    shell = machine.shell()
    assert "is not there any more" in GUEST.glance(shell, guest()).text
    GUEST.ensure(shell, guest())
    right(machine)
    made = vmx(machine)
    assert made["displayName"] == "web"
    assert made["annotation"] == f"nestlab {OWNER}"
    assert made["sata0:0.fileName"] == "web.vmdk"
    assert made["ide1:0.fileName"].endswith("/nestlab/media/live.iso")
    assert made["ethernet0.address"] == "52:54:00:00:00:09"
    assert made["bios.bootOrder"] == "cdrom,hdd"
    assert machine.state["autostart"]["enabled"]
    before, state = len(machine.calls), machine.state
    GUEST.ensure(shell, guest())
    changing = {"put", "vmkfstools", "mkdir", "mv", "rm"}
    done = [call.words for call in machine.calls[before:]]
    assert [words for words in done if words[0] in changing] == []
    assert [words for words in done if words[1:2] == ["vmsvc/power.on"]] == []
    assert machine.state["vms"] == state["vms"]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"image": IMAGE, "disk_gib": 0, "iso": "", "boot": ["hd"]},
        {"image": IMAGE, "disk_gib": 3},
        {"disk_gib": 0, "boot": ["cdrom"], "autostart": False},
        {"disk_bus": "scsi", "firmware": "uefi", "cores": 1, "nics": []},
        {"disk_bus": "ide"},
        {"seed": ISO},
    ],
    ids=["iso", "image", "image-larger", "no-disk", "scsi-uefi-1-core", "ide", "seed"],
)
def test_what_is_made_of_it_is_what_was_wanted(machine: Machine, other: dict[str, Any]) -> None:
    GUEST.ensure(machine.shell(), guest(**other))
    right(machine, guest(**other))


@pytest.mark.parametrize(("name", "size"), [("image", 2), ("larger", 3)])
def test_a_disk_is_a_copy_of_its_image_as_large_as_wanted(
    machine: Machine, name: str, size: int
) -> None:
    wanted = guest(image=IMAGE, disk_gib=0 if name == "image" else 3)
    GUEST.ensure(machine.shell(), wanted)
    descriptor = machine.path(f"{HOME}/web.vmdk").read_text()
    assert f"RW {size << 21} " in descriptor
    assert machine.path(f"{HOME}/web-flat.vmdk").read_bytes() == vmdk(2)


EDITS: dict[str, dict[str, Any]] = {
    "memory": {"memory_mib": 1024},
    "cores": {"cores": 1},
    "disk": {"disk_gib": 8},
    "cd": {"iso": "", "boot": ["hd"]},
    "boot": {"boot": ["hd", "cdrom"]},
    "autostart": {"autostart": False},
    "model": {"nics": [nic(model="e1000e")]},
    "network": {"nics": [nic(network="inner-1")]},
    "second nic": {"nics": [nic(), nic(mac="52:54:00:00:00:0a")]},
    "no nic": {"nics": []},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_changes_the_guest_and_keeps_its_disk(
    machine: Machine, edit: dict[str, Any]
) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest())
    flat = machine.path(f"{HOME}/web-flat.vmdk")
    flat.write_bytes(b"what was installed")
    [vmid] = machine.state["vms"]
    assert not GUEST.glance(shell, guest(**edit)).ok
    GUEST.ensure(shell, guest(**edit))
    right(machine, guest(**edit))
    assert list(machine.state["vms"]) == [vmid], "the same guest"
    assert flat.read_bytes() == b"what was installed"


def test_a_retry_after_any_failure_of_an_edit_ends_as_edited(machine: Machine) -> None:
    wanted = guest(memory_mib=1024, disk_gib=8, autostart=False)

    def made() -> Machine:
        GUEST.ensure(new(machine).shell(), guest())
        return machine

    every_failure(made, lambda it: GUEST.ensure(it.shell(), wanted), lambda it: right(it, wanted))


def test_what_esxi_and_people_wrote_into_a_guest_survives_an_edit(machine: Machine) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest())

    def by_hand(found: dict[str, str]) -> None:
        found["guestOS"] = "debian12-64"
        found["annotation"] += "\na note"

    rewrite(machine, by_hand)
    assert GUEST.glance(shell, guest()).ok, "neither is the stack's"
    GUEST.ensure(shell, guest(memory_mib=1024))
    after = vmx(machine)
    assert after["guestOS"] == "debian12-64"
    assert after["annotation"] == f"nestlab {OWNER}\na note"
    assert after["uuid.bios"], "ESXi's own"


def test_a_snapshot_made_by_hand_is_not_thrown_away(machine: Machine) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest())
    rewrite(machine, lambda found: found.update({"sata0:0.fileName": "web-000001.vmdk"}))
    machine.path(f"{HOME}/web-000001.vmdk").write_text("a snapshot")
    assert GUEST.glance(shell, guest()).ok
    GUEST.ensure(shell, guest(memory_mib=1024))
    assert vmx(machine)["sata0:0.fileName"] == "web-000001.vmdk"


def snapshot_of(machine: Machine, slot: str, disk: str) -> None:
    """Take one as a person does: a disk before ours, its data, and what ESXi notes for backups."""
    snapshot = f"{disk}-000001"
    rewrite(machine, lambda found: found.update({f"{slot}.fileName": f"{snapshot}.vmdk"}))
    machine.path(f"{HOME}/{snapshot}.vmdk").write_text("a snapshot")
    for name in (f"{snapshot}-sesparse", f"{snapshot}-ctk", f"{disk}-ctk"):
        machine.path(f"{HOME}/{name}.vmdk").write_text("not a disk")


DATA = [DataDisk("data", 1)]


def test_what_esxi_puts_beside_a_further_disk_is_none_of_the_lab(machine: Machine) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest(disks=DATA))
    snapshot_of(machine, "sata0:6", "web-data-data")
    GUEST.ensure(shell, guest(disks=DATA, memory_mib=1024))
    for name in ("data-000001-sesparse", "data-000001-ctk", "data-ctk", "data-flat", "data-000001"):
        assert machine.path(f"{HOME}/web-data-{name}.vmdk").exists(), name


@pytest.mark.parametrize("grown", [{"disk_gib": 8}, {"disks": [DataDisk("data", 2)]}])
def test_a_disk_under_a_snapshot_does_not_grow(machine: Machine, grown: dict[str, Any]) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest(disks=DATA))
    snapshot_of(machine, "sata0:0", "web")
    snapshot_of(machine, "sata0:6", "web-data-data")
    before = power(machine)
    with pytest.raises(DriverError, match=r"guest web has a snapshot \(web.*-000001.vmdk\)"):
        GUEST.ensure(shell, guest(**{"disks": DATA} | grown))
    assert power(machine) == before, "it runs on"
    [vmid] = before
    assert shell.run(["vim-cmd", "vmsvc/power.off", vmid]).ok
    assert shell.run(["vim-cmd", "vmsvc/power.on", vmid]).ok


def test_a_disk_that_comes_back_under_its_name_has_nothing_of_the_old(machine: Machine) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest(disks=DATA))
    snapshot_of(machine, "sata0:6", "web-data-data")
    GUEST.ensure(shell, guest())
    GUEST.ensure(shell, guest(disks=DATA))
    assert vmx(machine)["sata0:6.fileName"] == "web-data-data.vmdk"
    assert ["vmkfstools", "-U", f"{HOME}/web-data-data-000001.vmdk"] in [
        call.words for call in machine.calls
    ]


@pytest.mark.parametrize("name", ["db-flat", "db-000001", "db-ctk", "db-sesparse", "db-s001"])
def test_a_further_disk_is_not_called_as_what_lies_beside_one(name: str) -> None:
    said = f"its disk {name} is called as a file of VMware's own: rename it"
    assert said in GUEST.problem(guest(disks=[DataDisk(name, 1)]))


def test_what_a_guest_said_is_kept_until_it_is_switched_on_again(machine: Machine) -> None:
    GUEST.ensure(machine.shell(), guest())
    log = machine.path(f"{HOME}/console.log")
    assert log.read_text() == "login: \n"
    [number] = machine.state["vms"]
    assert machine.shell().run(["vim-cmd", "vmsvc/power.off", number]).ok
    GUEST.ensure(machine.shell(), guest())
    assert log.read_text() == "login: \n"


@pytest.mark.parametrize("disk_gib", [2, 0])
def test_a_disk_is_never_made_smaller(machine: Machine, disk_gib: float) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest())
    with pytest.raises(DriverError, match="nothing is taken off a disk: put disk_gib back"):
        GUEST.ensure(shell, guest(disk_gib=disk_gib))
    right(machine)


def switched_off(machine: Machine) -> None:
    with machine.changing() as state:
        next(iter(state["vms"].values()))["power"] = "Powered off"


def suspended(machine: Machine) -> None:
    with machine.changing() as state:
        next(iter(state["vms"].values()))["power"] = "Suspended"


def unregistered(machine: Machine) -> None:
    with machine.changing() as state:
        state["vms"].clear()
        state["autostart"]["entries"].clear()


def vmx_removed(machine: Machine) -> None:
    switched_off(machine)
    machine.path(f"{HOME}/web.vmx").unlink()


def destroyed(machine: Machine) -> None:
    unregistered(machine)
    machine.shell().run(["rm", "-rf", HOME])


def files_removed(machine: Machine) -> None:
    switched_off(machine)
    machine.shell().run(["rm", "-rf", HOME])


def not_started_with_host(machine: Machine) -> None:
    with machine.changing() as state:
        state["autostart"]["enabled"] = False


HARMS: dict[str, tuple[Callable[[Machine], object], str]] = {
    "switched off": (switched_off, "guest web is off"),
    "suspended": (suspended, "guest web is suspended"),
    "unregistered": (unregistered, "is not registered any more"),
    ".vmx removed": (vmx_removed, "is not there any more"),
    "destroyed": (destroyed, "is not there any more"),
    "files removed": (files_removed, "is not there any more"),
    "autostart": (not_started_with_host, "does not start with its host"),
    "memory": (
        lambda machine: rewrite(machine, lambda it: it.update(memSize="256")),
        "not set up as the stack says (memSize)",
    ),
    "mac": (
        lambda machine: rewrite(machine, lambda it: it.update({"ethernet0.address": "x"})),
        "(ethernet0.address)",
    ),
    "a NIC more": (
        lambda machine: rewrite(
            machine,
            lambda it: it.update(
                {"ethernet3.present": "TRUE", "ethernet3.networkName": "VM Network"}
            ),
        ),
        "(ethernet3.present)",
    ),
    "CD ejected": (
        lambda machine: rewrite(machine, lambda it: it.update({"ide1:0.fileName": ""})),
        "(ide1:0.fileName)",
    ),
    "disk unplugged": (
        lambda machine: rewrite(machine, lambda it: it.pop("sata0:0.present")),
        "(sata0:0.present)",
    ),
    "mark": (
        lambda machine: rewrite(machine, lambda it: it.update(annotation="mine")),
        "(annotation)",
    ),
    "renamed": (
        lambda machine: rewrite(machine, lambda it: it.update(displayName="Web")),
        "(displayName)",
    ),
}


@pytest.mark.parametrize(("harm", "text"), HARMS.values(), ids=HARMS)
def test_what_was_done_by_hand_is_seen_and_mended(
    machine: Machine, harm: Callable[[Machine], object], text: str
) -> None:
    shell = machine.shell()
    GUEST.ensure(shell, guest())
    machine.path(f"{HOME}/web-flat.vmdk").write_bytes(b"what was installed")
    harm(machine)
    for look in (GUEST.glance, GUEST.look):
        seen = look(shell, guest())
        assert not seen.ok
        assert text in seen.text
    GUEST.ensure(shell, guest())
    right(machine)
    if harm not in {destroyed, files_removed}:
        assert machine.path(f"{HOME}/web-flat.vmdk").read_bytes() == b"what was installed"


@pytest.mark.parametrize(("harm", "text"), HARMS.values(), ids=HARMS)
def test_it_is_removed_in_any_state(
    machine: Machine, harm: Callable[[Machine], object], text: str
) -> None:
    del text
    GUEST.ensure(machine.shell(), guest())
    harm(machine)
    GUEST.remove(machine.shell(), guest())
    nothing_of_ours(machine) if harm is not destroyed else None
    assert machine.state["vms"] == {}
    assert not machine.path(HOME).exists()
    assert machine.path(ISO).exists(), "media are not a guest's"
    GUEST.remove(machine.shell(), guest())


def test_what_a_removal_that_was_cut_short_left_is_removed(machine: Machine) -> None:
    GUEST.ensure(machine.shell(), guest())
    left = machine.path(guests._gone(guest()))
    moved = [call.words for call in _removal(machine) if call.command in {"mv", "rm"}]
    assert moved[-2:] == [
        ["mv", HOME, guests._gone(guest())],
        ["rm", "-rf", guests._gone(guest())],
    ], "its mark goes with the folder's name, so that what is left is never a stranger's"
    left.mkdir()
    (left / "web-flat.vmdk").write_bytes(b"half of it")
    GUEST.remove(machine.shell(), guest())
    nothing_of_ours(machine)


def _removal(machine: Machine) -> list[Call]:
    before = len(machine.calls)
    GUEST.remove(machine.shell(), guest())
    return machine.calls[before:]


def stranger(machine: Machine, folder: str, name: str = "web") -> None:
    """Somebody's guest, made in the Host Client."""
    home = machine.path("/vmfs/volumes/datastore1") / folder
    home.mkdir(parents=True)
    (home / "web.vmx").write_text(
        f'config.version = "8"\nvirtualHW.version = "20"\ndisplayName = "{name}"\n'
    )
    with machine.changing() as state:
        state["next"] = 8
        state["vms"]["7"] = {
            "vmx": f"{Esxi.UUID}/{folder}/web.vmx",
            "power": "Powered on",
            "valid": True,
        }


@pytest.mark.parametrize("folder", ["web", "nestlab/guests/web"])
def test_somebody_elses_guest_of_the_name_is_not_touched(machine: Machine, folder: str) -> None:
    stranger(machine, folder)
    before = machine.state["vms"]
    with pytest.raises(DriverError, match=r"rename (one of the two|the guest)|remove the folder"):
        GUEST.ensure(machine.shell(), guest())
    GUEST.remove(machine.shell(), guest())
    assert machine.state["vms"] == before
    assert (machine.path("/vmfs/volumes/datastore1") / folder / "web.vmx").exists()


def test_another_labs_guest_of_the_name_is_not_touched(machine: Machine) -> None:
    GUEST.ensure(machine.shell(), guest(owner=OTHER))
    with pytest.raises(
        DriverError,
        match=r"with another lab's files on stub1 is not this lab's and is left alone: remove",
    ):
        GUEST.ensure(machine.shell(), guest())
    GUEST.remove(machine.shell(), guest())
    right(machine, guest(owner=OTHER))


def test_notes_of_several_lines_do_not_hide_guests(machine: Machine) -> None:
    stranger(machine, "old", "old")
    found = machine.path("/vmfs/volumes/datastore1/old/web.vmx")
    found.write_text(found.read_text() + 'annotation = "one|0A13     two   [x] y.vmx"\n')
    GUEST.ensure(machine.shell(), guest())
    assert GUEST.glance(machine.shell(), guest()).ok


def test_a_guest_with_tools_ends_by_itself_before_its_settings_change(machine: Machine) -> None:
    GUEST.ensure(machine.shell(), guest())
    with machine.changing() as state:
        state["tools"] = True
    before = len(machine.calls)
    GUEST.ensure(machine.shell(), guest(memory_mib=1024))
    said = [call.argv[0] for call in machine.calls[before:] if call.command == "vim-cmd"]
    assert "vmsvc/power.shutdown" in said
    assert "vmsvc/power.off" not in said


def test_known_failures_say_their_cause_and_the_way_out(machine: Machine) -> None:
    with machine.changing() as state:
        state["virtualization"] = False
    with pytest.raises(DriverError) as refused:
        GUEST.ensure(machine.shell(), guest())
    assert "`vim-cmd vmsvc/power.on 1`" in str(refused.value)
    assert "This host does not support Intel VT-x." in str(refused.value)
    assert "real KVM with nested=1" in str(refused.value)
    machine.path(IMAGE).write_bytes(b"QFI\xfb a qcow2 called vmdk")
    with pytest.raises(DriverError, match=r"not a virtual disk.*qemu-img convert -O vmdk"):
        GUEST.ensure(machine.shell(), guest(name="two", image=IMAGE))


def test_a_mac_of_vmwares_own_range_is_taken(machine: Machine) -> None:
    own = nic(mac="00:0c:29:00:00:01")
    GUEST.ensure(machine.shell(), guest(nics=[own]))
    right(machine, guest(nics=[own]))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"cores": 9}, "9 cores, and ESXi's free licence allows 8 in one guest"),
        ({"memory_mib": 510}, "steps of 4"),
        ({"disk_bus": "virtio"}, "'virtio': ESXi has sata, scsi, ide"),
        ({"image": "/x/base.qcow2"}, "qemu-img convert"),
        ({"nics": [nic(model="virtio")]}, "NIC 0 is 'virtio'"),
        ({"nics": [nic(mac="x")]}, "no MAC"),
        ({"nics": [nic()] * 11}, "11 NICs"),
        ({"name": "a/b"}, "can't be a name on ESXi"),
        ({"iso": "/a\nb.iso"}, "rename the medium"),
    ],
)
def test_what_esxi_cant_make_is_refused_before_anything_is_done(
    other: dict[str, Any], text: str
) -> None:
    assert text in GUEST.problem(guest(**other))
    assert GUEST.problem(guest()) == ""


NASTY = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("'\";$`|\\ \n(){}&-.[]/#%"),
    min_size=1,
    max_size=24,
)


@contextmanager
def fresh(factory: pytest.TempPathFactory) -> Iterator[Machine]:
    yield new(Machine(factory.mktemp("esxi"), Esxi))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(NASTY)
@example("a b")
@example("it's; reboot")
@example("$(reboot) `id`")
@example("#1 ünï 日本")
@example("-rf")
def test_any_name_arrives_unchanged_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    wanted, net = guest(name=name), network(name=name)
    if GUEST.problem(wanted):
        assert "can't be a name on ESXi" in NETWORK.problem(net)
        return
    with fresh(tmp_path_factory) as machine:
        shell = machine.shell()
        NETWORK.ensure(shell, net)
        wanted = replace(wanted, nics=[nic(network=NETWORK.called(net))])
        GUEST.ensure(shell, wanted)
        GUEST.ensure(shell, wanted)
        assert vmx(machine, name)["displayName"] == name
        assert vmx(machine, name)["ethernet0.networkName"].startswith(f"{name}-")
        assert GUEST.look(shell, wanted).ok
        assert NETWORK.look(shell, net).ok
        assert len(machine.state["vms"]) == 1
        GUEST.remove(shell, wanted)
        NETWORK.remove(shell, net)
        nothing_of_ours(machine)


@given(st.dictionaries(st.from_regex(r"[a-z][\w:.]{0,9}", fullmatch=True), NASTY))
def test_a_vmx_holds_any_value(values: dict[str, str]) -> None:
    text = rendered(values)
    assert parsed(text) == {".encoding": "UTF-8"} | values
    assert len(text.split("\n")) == len(values) + 2, "no value begins another line"


# Media ------------------------------------------------------------------------------------------


def medium(tmp_path: Path, data: bytes = b"a medium", **other: Any) -> MediumOrder:
    source = tmp_path / "source.iso"
    source.write_bytes(data)
    plain = {
        "name": "live.iso",
        "path": str(source),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "store": STORE,
        "owner": OWNER,
    }
    return order(MediumOrder, plain | other)


def test_a_medium_is_sent_once_and_again_when_it_is_not_whole(
    machine: Machine, tmp_path: Path
) -> None:
    shell, wanted = machine.shell(), medium(tmp_path)

    def puts() -> int:
        return sum(call.command == "put" for call in machine.calls)

    assert MEDIUM.called(wanted) == ISO
    MEDIUM.ensure(shell, wanted)
    MEDIUM.ensure(shell, wanted)
    assert puts() == 1
    machine.path(ISO).write_bytes(b"a med")
    assert "has 5 of 8 bytes" in MEDIUM.glance(shell, wanted).text
    MEDIUM.ensure(shell, wanted)
    machine.path(ISO).write_bytes(b"another!")
    assert not MEDIUM.look(shell, wanted).ok
    MEDIUM.ensure(shell, wanted)
    assert puts() == 3
    MEDIUM.remove(shell, wanted)
    MEDIUM.remove(shell, wanted)
    assert not machine.path(ISO).exists()
    with pytest.raises(DriverError, match="the stack says otherwise"):
        MEDIUM.ensure(shell, medium(tmp_path, sha256="0" * 64))


def test_only_isos_and_vmdks_are_media(tmp_path: Path) -> None:
    assert MEDIUM.problem(medium(tmp_path)) == ""
    assert MEDIUM.problem(medium(tmp_path, name="base.vmdk")) == ""
    assert "qemu-img convert" in MEDIUM.problem(medium(tmp_path, name="base.qcow2"))
    assert "can't be a name" in MEDIUM.problem(medium(tmp_path, name="../base.iso"))


# Networks ---------------------------------------------------------------------------------------


def apart(machine: Machine) -> tuple[dict[str, Any], dict[str, Any]]:
    """Switches and port groups that are not those of a new machine."""
    state = machine.state
    old = {"VM Network", "Management Network", "lan-1", "inner-1"}
    return (
        {k: v for k, v in state["switches"].items() if k not in {"vSwitch0", "nestlab-1"}},
        {k: v for k, v in state["groups"].items() if k not in old},
    )


def test_an_isolated_network_has_a_switch_without_uplink(machine: Machine) -> None:
    shell = machine.shell()
    NETWORK.ensure(shell, network())
    [switch], [group] = apart(machine)
    assert apart(machine)[0] == {switch: {"uplinks": []}}
    assert group == NETWORK.called(network())
    assert NETWORK.look(shell, network()).ok
    before = len(machine.calls)
    NETWORK.ensure(shell, network())
    assert [call.argv for call in machine.calls[before:] if "list" not in call.argv] == []
    NETWORK.remove(shell, network())
    assert apart(machine) == ({}, {})


def test_a_bridged_network_is_a_port_group_of_the_uplinks_switch(machine: Machine) -> None:
    shell = machine.shell()
    NETWORK.ensure(shell, bridged())
    assert [each["switch"] for each in apart(machine)[1].values()] == ["vSwitch0"]
    assert apart(machine)[0] == {}
    NETWORK.remove(shell, bridged())
    assert apart(machine) == ({}, {})
    assert machine.state["switches"]["vSwitch0"] == {"uplinks": ["vmnic0"]}
    with pytest.raises(DriverError, match="has no switch vSwitch9: name one of"):
        NETWORK.ensure(shell, bridged("vSwitch9"))


def test_changes_by_hand_to_a_network_are_seen_and_mended(machine: Machine) -> None:
    shell, wanted = machine.shell(), network()
    NETWORK.ensure(shell, wanted)
    switch = next(iter(apart(machine)[0]))
    group = NETWORK.called(wanted)

    def uplinked(state: dict[str, Any]) -> None:
        state["switches"][switch]["uplinks"] = ["vmnic1"]

    def tagged(state: dict[str, Any]) -> None:
        state["groups"][group]["vlan"] = "7"

    def moved(state: dict[str, Any]) -> None:
        state["groups"][group]["switch"] = "vSwitch0"

    def group_gone(state: dict[str, Any]) -> None:
        del state["groups"][group]

    def all_gone(state: dict[str, Any]) -> None:
        del state["groups"][group], state["switches"][switch]

    for harm, text in (
        (uplinked, "leads to vmnic1"),
        (tagged, "VLAN 7"),
        (moved, "on vSwitch0"),
        (group_gone, "is not there any more"),
        (all_gone, "is not there any more"),
    ):
        with machine.changing() as state:
            harm(state)
        assert text in NETWORK.glance(shell, wanted).text
        NETWORK.ensure(shell, wanted)
        assert NETWORK.look(shell, wanted).ok


def test_a_network_changes_its_mode_below_guests_that_run(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = machine.shell()
    NETWORK.ensure(shell, network())
    own = nic(network=NETWORK.called(network()))
    GUEST.ensure(shell, guest(nics=[own]))
    changed = network(mode="bridge", bridge="")
    NETWORK.ensure(shell, changed)
    assert NETWORK.look(shell, changed).ok
    assert apart(machine)[0] == {}, "its own switch is gone"
    assert "web is stopped, its network changes" in capsys.readouterr().err
    assert GUEST.glance(shell, guest(nics=[own])).text == "guest web is off"
    GUEST.ensure(shell, guest(nics=[own]))
    right(machine, guest(nics=[own]))


def test_a_strangers_guest_in_a_network_is_not_stopped(machine: Machine) -> None:
    shell = machine.shell()
    NETWORK.ensure(shell, network())
    group = NETWORK.called(network())
    stranger(machine, "old", "old")
    found = machine.path("/vmfs/volumes/datastore1/old/web.vmx")
    found.write_text(found.read_text() + f'ethernet0.networkName = "{group}"\n')
    with pytest.raises(DriverError, match="Busy"):
        NETWORK.remove(shell, network())
    assert power(machine) == {"7": "Powered on"}


def test_a_switch_that_somebody_uses_stays(machine: Machine) -> None:
    shell = machine.shell()
    NETWORK.ensure(shell, network())
    switch = next(iter(apart(machine)[0]))
    with machine.changing() as state:
        state["groups"]["mine"] = {"switch": switch, "vlan": "0"}
    NETWORK.remove(shell, network())
    assert apart(machine) == ({switch: {"uplinks": []}}, {"mine": {"switch": switch, "vlan": "0"}})


def test_modes_that_esxi_has_not_are_refused() -> None:
    assert "take bridge or isolated" in NETWORK.problem(network(mode="nat"))
    assert NETWORK.problem(network()) == NETWORK.problem(bridged()) == ""
    assert "can't be a name" in NETWORK.problem(bridged("a\nb"))


# The kind ---------------------------------------------------------------------------------------

LAB: dict[str, Any] = {
    "media": {
        "esxi": {"path": "media/esxi.iso"},
        "live": {"path": "media/live.iso"},
        "base": {"path": "media/base.vmdk"},
    },
    "networks": {"lab": {"subnet": "10.77.0.0/24"}},
    "hypervisors": {
        "esxi1": {
            "kind": "esxi",
            "iso": "esxi",
            "network": "lab",
            "licence": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE",
            "networks": {
                "lan": {"mode": "bridge"},
                "inner": {"mode": "isolated", "subnet": "10.78.0.0/24"},
            },
            "guests": {
                "live1": {"iso": "live", "network": [{"network": "lan"}, {"network": "inner"}]},
                "copy1": {"image": "base", "disk_gib": 8, "network": "inner", "nic_model": "e1000"},
            },
        }
    },
}


@pytest.fixture(scope="module")
def deployed() -> Recorder:
    return up(LAB)


def test_the_whole_lab_is_a_tree(deployed: Recorder) -> None:
    made = {one.name: one for one in deployed.of_type("RemoteObject")}
    assert {name: one.inputs["driver"] for name, one in made.items()} == {
        "esxi1-live-medium": "esxi.medium",
        "esxi1-base-medium": "esxi.medium",
        "esxi1-lan-network": "esxi.network",
        "esxi1-inner-network": "esxi.network",
        "esxi1-live1-guest": "esxi.guest",
        "esxi1-copy1-guest": "esxi.guest",
    }
    domain = deployed.named("esxi1-domain")
    for one in made.values():
        assert one.deleted_with == domain.urn, "destroy does not ask a host that goes anyway"
        assert deployed.named("esxi1-disk").urn in one.replace_with
        assert "target" in one.secret_inputs
    live = made["esxi1-live1-guest"].inputs["wanted"]
    assert [nic["model"] for nic in live["nics"]] == ["vmxnet3", "vmxnet3"]
    assert (live["disk_bus"], live["store"]) == ("sata", STORE)
    copy = made["esxi1-copy1-guest"].inputs["wanted"]
    assert (copy["image"], copy["iso"]) == ("base.vmdk", "")
    assert copy["nics"][0]["model"] == "e1000"
    lan = made["esxi1-lan-network"].inputs["wanted"]
    assert (lan["mode"], lan["bridge"], lan["dhcp"]) == ("bridge", "", False)
    assert made["esxi1-inner-network"].inputs["wanted"]["dhcp"] is False


def test_the_guest_that_becomes_an_esxi_has_hardware_it_has_drivers_for(
    deployed: Recorder,
) -> None:
    domain = deployed.named("esxi1-domain").inputs
    xslt = domain["xml"]["xslt"]
    assert domain["machine"] == "q35"
    assert domain["bootDevices"] == [{"devs": ["hd", "cdrom"]}], "its disk, once it is installed"
    assert (domain["memory"], domain["vcpu"]) == (12288, 4)
    assert domain["cpu"]["mode"] == "host-passthrough"
    assert "vmxnet3" in xslt
    assert "virtio" not in xslt.replace("virtio-scsi", "")
    assert "sata" in xslt
    discs = deployed.named("esxi1-discs").inputs
    assert (discs["kind"], discs["recipe"]) == ("esxi-usb", "esxi")
    assert discs["iso"].endswith("/media/esxi.iso")
    assert "answers" in deployed.named("esxi1-discs").secret_inputs
    assert discs["answers"]["options"] == {"licence": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"}
    assert discs["answers"]["password"] == private(deployed.named("esxi1-login"))


def test_its_answers_are_on_a_usb_stick_where_libvirt_plugs_it_in(deployed: Recorder) -> None:
    stick = deployed.named("host-disc-esxi1-answers").inputs
    assert (stick["format"], stick["name"]) == ("raw", "disc-esxi1-answers.img")
    domain = deployed.named("esxi1-domain").inputs
    assert ["file" in disk for disk in domain["disks"]] == [False, True, False]
    assert 'dev="sdc" bus="usb"' in domain["xml"]["xslt"]
    assert "ich9-ehci1" in domain["xml"]["xslt"]


def test_its_keys_are_ones_that_its_ssh_takes_in_fips_mode(deployed: Recorder) -> None:
    answers = deployed.named("esxi1-discs").inputs["answers"]
    for field, name in (("host_public", "esxi1-hostkey"), ("authorized_key", "esxi1-key")):
        made = deployed.named(name)
        assert made.inputs["algorithm"] == "ecdsa"
        assert f" AAAA-{name} " in answers[field]
        public = str((SshKeyProvider().create(dict(made.inputs)).outs or {})["public"])
        assert public.startswith("ecdsa-sha2-nistp256 ")
    reach = deployed.named("esxi1-gate").inputs["reach"]
    assert reach["host_key"] == answers["host_public"]
    made = deployed.named("esxi1-key")
    assert reach["private_key"] == private(made)
    assert SshKeyProvider().diff("", {"comment": "esxi1-hostkey"}, made.inputs).replaces
    assert not SshKeyProvider().diff("", {"comment": "key"}, deployed.named("key").inputs).changes


def test_its_gate_asks_its_commands_and_its_sdk(deployed: Recorder) -> None:
    gate = deployed.named("esxi1-gate")
    asked = gate.inputs["probe"]
    assert (asked["kind"], asked["steady"]) == ("esxi", 2)
    assert asked["url"].startswith("https://10.77.0.")
    assert asked["url"].endswith(":443")
    assert [each["argv"][0] for each in asked["commands"]] == ["test", "vim-cmd", "esxcli"]
    assert "reach" in gate.secret_inputs
    assert gate.inputs["reach"]["user"] == "root"
    sheet = deployed.stack_outputs
    assert "/ui" in str(sheet)
    assert private(deployed.named("esxi1-login")) not in str(
        {k: v for k, v in sheet.items() if k not in deployed.secret_published[deployed.stack_urn]}
    )


def test_the_answers_are_ones_that_its_installer_takes(deployed: Recorder) -> None:
    from components.kinds.esxi import media  # noqa: PLC0415 - beside what it proves

    assert set(deployed.named("esxi1-discs").inputs["answers"]["options"]) <= set(media.OPTIONS)
    plain = recipe(EsxiSpec(kind="esxi", iso="esxi", network="lab"))
    assert plain.options == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"memory_mib": 4096}, "VMware ESXi needs at least 8192 MiB (VMware's"),
        ({"cores": 1}, "needs at least 2 cores (VMware:"),
        ({"disk_gib": 36}, "needs at least 37 GiB (VMware:"),
        ({"disk_bus": "virtio"}, "disk_bus"),
        ({"nic_model": "e1000"}, "nic_model"),
        ({"network": [{"network": "lab", "model": "e1000"}]}, "ESXi has drivers for vmxnet3"),
        ({"licence": "x"}, "licence"),
        ({"guests": {"g": {"iso": "live", "cores": 9}}}, "8 are the most that ESXi's free licence"),
        ({"guests": {"g": {"iso": "live", "memory_mib": 510}}}, "in steps of 4 MiB: write 512"),
        ({"guests": {"g": {"iso": "live", "video": "qxl"}}}, "VMware's own adapter"),
        ({"guests": {"g": {"iso": "live", "disk_bus": "virtio"}}}, "offers sata, scsi and ide"),
        ({"guests": {"g": {"iso": "live", "ready": {"probe": "tcp", "port": 22}}}}, "waited for"),
        ({"networks": {"n": {"subnet": "10.79.0.0/24"}}}, "offers bridge and isolated"),
        ({"containers": {"c": {"template": "busybox"}}}, "VMware ESXi has no containers"),
        (
            {"hypervisors": {"k": {"kind": "kvm", "network": "lan"}}},
            "VMware ESXi holds no hypervisors",
        ),
    ],
)
def test_the_spec_refuses_what_esxi_cant(change: dict[str, Any], told: str) -> None:
    inner = {k: v for k, v in LAB["hypervisors"]["esxi1"].items() if k != "guests"}
    data = {"name": "lab", **LAB, "hypervisors": {"esxi1": inner | change}}
    with pytest.raises(SpecError) as refused:
        load(data, root=ROOT, exists=lambda _: True)
    assert told in str(refused.value)


def test_the_probe_asks_the_sdk_only_after_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def over_ssh(*_: Any) -> waiting.Seen:
        said.append("ssh")
        return waiting.Seen(ok=len(said) > 1, text="no SSH yet")

    def over_https(*_: Any) -> waiting.Seen:
        said.append("sdk")
        return waiting.Seen(ok=True, text="VMware ESXi 8.0.3")

    monkeypatch.setattr(ssh, "probe", over_ssh)
    monkeypatch.setattr(probe, "_asked", over_https)
    assert probe.probe({}, None).text == "no SSH yet"  # type: ignore[arg-type]
    assert probe.probe({}, None).ok  # type: ignore[arg-type]
    assert said == ["ssh", "ssh", "sdk"]
