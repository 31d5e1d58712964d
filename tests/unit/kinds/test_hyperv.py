"""Hyper-V: its drivers on a stub host, the program that carries their cmdlets, and a lab with one.

A failure here means a guest made twice or on a lost disk, a switch that cuts its own host off for good, a
stranger's guest touched, or a name that PowerShell reads as something else. PowerShell itself is not to
be had here: of its program only the text is checked, and that the stub, which does what it says, works.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.gates import object as objects
from components.gates.object import RemoteObjectProvider
from components.kinds.hyperv import install as hyperv
from components.kinds.hyperv import powershell
from components.kinds.hyperv.guest import DRIVER as GUEST
from components.kinds.hyperv.medium import DRIVER as MEDIUM
from components.kinds.hyperv.model import HypervSpec
from components.kinds.hyperv.names import LONGEST_NAME
from components.kinds.hyperv.network import DRIVER as NETWORK
from components.reach.driver import DriverError, console_of, driver_of
from components.reach.orders import DataDisk, GuestOrder, MediumOrder, NetworkOrder, Nic
from components.reach.shell import Result, Unreachable
from components.stackfile import SpecError, load
from tests.support.commands import DirectShell, Machine, every_failure
from tests.support.orders import order
from tests.support.stubs.hyperv import ALLOWED, SETS, VHDX, Hyperv
from tests.unit.components.labs import private, up

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER = "0f0e0d0c-1111-5222-8333-444455556666"
OTHER = "aaaaaaaa-1111-5222-8333-444455556666"
STORE = "C:/nestlab"
HOME = f"/C:/nestlab/guests/{OWNER}"
GIB, MIB = 1 << 30, 1 << 20
ROOT = Path(__file__).parents[3]
ORDERS = {"network": NetworkOrder, "medium": MediumOrder, "guest": GuestOrder}
XSL = "{http://www.w3.org/1999/XSL/Transform}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "hyperv", Hyperv)


@pytest.fixture
def shell(machine: Machine) -> DirectShell:
    return machine.shell("hv1")


def network(**other: Any) -> NetworkOrder:
    plain: dict[str, Any] = {
        "name": "inner",
        "mode": "nat",
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


def uplink(**other: Any) -> NetworkOrder:
    none: dict[str, Any] = {
        "mode": "bridge",
        "bridge": "",
        "subnet": "",
        "prefix": 0,
        "gateway": "",
    }
    return network(**(none | other))


def nic(**other: Any) -> Nic:
    return replace(Nic("inner", "52:54:00:00:00:09", "synthetic", ""), **other)


def guest(**other: Any) -> GuestOrder:
    plain: dict[str, Any] = {
        "name": "web",
        "memory_mib": 512,
        "cores": 1,
        "disk_gib": 2,
        "disk_bus": "ide",
        "firmware": "bios",
        "machine": "pc",
        "video": "vga",
        "boot": ["cdrom", "hd"],
        "nics": [],
        "iso": "C:\\nestlab\\media\\one.iso\\600.iso",
        "image": "",
        "autostart": True,
        "console": {"type": "vnc", "listen": "127.0.0.1", "port": 0, "password": ""},
        "ready": {"probe": "none", "host": "", "port": 0},
        "store": STORE,
        "owner": OWNER,
    }
    return replace(order(GuestOrder, plain), **({"nics": [nic()]} | other))


def medium(path: Path, **other: Any) -> MediumOrder:
    plain = {
        "name": path.name,
        "path": str(path),
        "sha256": "",
        "size": path.stat().st_size if path.exists() else 0,
        "store": STORE,
        "owner": OWNER,
    }
    return order(MediumOrder, plain | other)


def ready_for_guests(machine: Machine) -> Machine:
    """Make it new, with a network and an ISO."""
    machine.reset()
    NETWORK.ensure(machine.shell(), network())
    file = machine.path("/C:/nestlab/media/one.iso/600.iso")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"an iso")
    image = machine.path("/C:/nestlab/media/base.vhdx/9.vhdx")
    image.parent.mkdir(parents=True)
    image.write_bytes(VHDX + b"\0base")
    return machine


IMAGE = "C:\\nestlab\\media\\base.vhdx\\9.vhdx"
GUESTS = {
    "generation 1 from an ISO": guest(),
    "generation 2 from an ISO": guest(firmware="uefi", boot=["cdrom", "hd"]),
    "generation 2 from an image": guest(
        firmware="uefi", image=IMAGE, iso="", disk_gib=4, boot=["hd"]
    ),
    "generation 1 from an image, two NICs, without autostart": guest(
        image=IMAGE,
        disk_gib=0,
        boot=["hd", "network", "cdrom"],
        nics=[nic(model="legacy"), nic(mac="52:54:00:00:00:0a")],
        autostart=False,
    ),
    "without disk or network": guest(disk_gib=0, nics=[], boot=["cdrom"]),
}


def only(machine: Machine) -> dict[str, Any]:
    vms = list(machine.state["vms"].values())
    assert [vm["Name"] for vm in vms] == ["web"], "one guest, and no second one"
    one: dict[str, Any] = vms[0]
    return one


# The program --------------------------------------------------------------------------------------


def test_the_command_line_fits_into_cmd() -> None:
    # cmd.exe's own words come before it.
    assert sum(len(word) + 1 for word in powershell.ARGV) < powershell.LONGEST - 1000
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", powershell.ARGV[-1]), "nothing that cmd.exe reads"


def test_the_program_never_makes_code_of_what_it_reads() -> None:
    text = powershell.PROGRAM
    assert not re.search(
        r"(?i)invoke-expression|\biex\b|scriptblock|add-type|\[type\]|-command", text
    )
    assert text.count("& ") == 1, "one call, of a name that was looked up"
    looked_up = text.index("if($allowed -notcontains $name){throw")
    assert looked_up < text.index("& $name @h")
    assert "#" not in text.replace("#< CLIXML", ""), "no comment is sent"
    assert text.isascii()


def test_the_program_is_balanced() -> None:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", powershell.PROGRAM)
    for opening, closing in ("()", "[]", "{}"):
        assert bare.count(opening) == bare.count(closing)
    for name in set(re.findall(r"\$([a-z]+)\b", powershell.PROGRAM)) - {"null", "input"}:
        set_here = rf"\${name}\s*\+?=|foreach\(\${name} in|function Plain\(\${name}\)"
        assert re.search(set_here, powershell.PROGRAM), f"${name} is read and never set"


def test_every_cmdlet_that_may_be_called_is_one_the_stub_knows_and_the_product_needs() -> None:
    source = "".join(file.read_text() for file in (ROOT / "components/kinds/hyperv").glob("*.py"))
    used = set(re.findall(r'"([A-Z][a-z]+-[A-Z][A-Za-z]+)"', source))
    assert set(ALLOWED) == used == set(SETS)
    assert list(ALLOWED) == sorted(ALLOWED)


def test_what_the_program_is_told_is_ascii_and_typed() -> None:
    script = powershell.Script()
    first = script.add("Get-VM", "Id", Name="ä😀'\"$(x)`")
    script.add("Set-VM", take={"VM": [first]}, Notes=None, Size=1 << 40, Force=True)
    text = script.document()
    assert text.isascii()
    assert json.loads(text)["calls"] == [
        {
            "cmdlet": "Get-VM",
            "parameters": {"Name": "ä😀'\"$(x)`"},
            "take": {},
            "select": ["Id"],
            "may_fail": "",
        },
        {
            "cmdlet": "Set-VM",
            "parameters": {"Notes": None, "Size": 1 << 40, "Force": True},
            "take": {"VM": [0]},
            "select": [],
            "may_fail": "",
        },
    ]
    assert powershell.shown(script.calls[1]) == "Set-VM -Notes $null -Size 1099511627776 -Force"


@pytest.mark.parametrize("out", ["", "hello\n", '{"results":[', "{}"])
def test_an_answer_that_is_none_is_told_in_powershells_words(out: str) -> None:
    class Broken:
        name = "hv1"

        def run(self, *_: Any, **__: Any) -> Result:
            error = '#< CLIXML\r\n<Objs><S S="Error">The term is not &lt;known&gt;_x000D__x000A_</S></Objs>'
            return Result(1, out, error)

    with pytest.raises(DriverError, match=r"`powershell` on hv1: The term is not <known>"):
        NETWORK.look(Broken(), network())  # type: ignore[arg-type]


def test_a_message_before_the_answer_does_not_hide_it() -> None:
    told = powershell.answer('Welcome!\r\n{"results":[],"error":null}\r\n')
    assert told == {"results": [], "error": None}


# Networks -----------------------------------------------------------------------------------------


def test_nat_is_an_internal_switch_with_the_hosts_address_and_windows_nat(
    machine: Machine, shell: DirectShell
) -> None:
    NETWORK.ensure(shell, network())
    state = machine.state
    (switch,) = state["switches"].values()
    assert (switch["Name"], switch["SwitchType"]) == ("inner", "Internal")
    assert switch["Notes"] == f"nestlab {OWNER}"
    assert state["addresses"][1:] == [
        {"InterfaceIndex": 102, "IPAddress": "10.78.0.1", "PrefixLength": 24}
    ]
    assert state["nats"] == {f"nestlab-{OWNER}": "10.78.0.0/24"}
    assert NETWORK.look(shell, network()).ok
    assert NETWORK.called(network()) == "inner"


def test_an_isolated_network_has_no_nat(machine: Machine, shell: DirectShell) -> None:
    NETWORK.ensure(shell, network(mode="isolated"))
    assert machine.state["nats"] == {}
    assert NETWORK.look(shell, network(mode="isolated")).ok


def test_a_bridge_takes_the_adapter_that_the_host_is_managed_by_and_its_address(
    machine: Machine, shell: DirectShell
) -> None:
    with machine.changing() as state:
        other = {**state["adapters"][0], "Name": "Ethernet 2", "ifIndex": 9, "DeviceID": "{9}"}
        state["adapters"].insert(0, other | {"InterfaceDescription": "another"})
    NETWORK.ensure(shell, uplink())
    (switch,) = machine.state["switches"].values()
    assert switch["SwitchType"] == "External"
    assert switch["NetAdapterInterfaceDescription"].startswith("Intel(R) 82574L")
    assert machine.state["addresses"][0]["InterfaceIndex"] > 100, "it moved onto the switch"
    NETWORK.remove(shell, uplink())
    assert machine.state["addresses"][0]["InterfaceIndex"] == 4, "and back"


def test_a_switch_of_the_users_is_joined_and_left_alone(
    machine: Machine, shell: DirectShell
) -> None:
    wanted = uplink(bridge="corp")
    with pytest.raises(DriverError, match="hv1 has no virtual switch corp"):
        NETWORK.ensure(shell, wanted)
    NETWORK.ensure(shell, network(name="corp", mode="isolated", owner=OTHER))
    before = machine.state
    NETWORK.ensure(shell, wanted)
    assert NETWORK.look(shell, wanted).ok
    NETWORK.remove(shell, wanted)
    assert machine.state == before
    assert NETWORK.called(wanted) == "corp"


def test_the_driver_waits_out_a_connection_that_its_own_switch_cut(
    machine: Machine, shell: DirectShell, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fail(3, "cut")
    NETWORK.ensure(shell, uplink())
    assert "making switch inner cut the connection" in capsys.readouterr().err
    assert len(machine.state["switches"]) == 1


HARMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "renamed": lambda state: switch_of(state).update(Name="other"),
    "made private": lambda state: (
        switch_of(state).update(SwitchType="Private", AllowManagementOS=False),
        state["plugs"].clear(),
        state["adapters"].pop(),
        state["addresses"].pop(),
    ),
    "without its address": lambda state: state["addresses"].pop(),
    "with another address": lambda state: state["addresses"][-1].update(IPAddress="10.9.9.9"),
    "without NAT": lambda state: state["nats"].clear(),
    "with another NAT": lambda state: state["nats"].update({f"nestlab-{OWNER}": "10.99.0.0/24"}),
    "removed": lambda state: (
        state["switches"].clear(),
        state["plugs"].clear(),
        state["adapters"].pop(),
        state["addresses"].pop(),
    ),
}


def switch_of(state: dict[str, Any]) -> dict[str, Any]:
    (one,) = state["switches"].values()
    found: dict[str, Any] = one
    return found


@pytest.mark.parametrize("harm", HARMS)
def test_a_network_that_was_changed_by_hand_is_seen_and_mended(
    machine: Machine, shell: DirectShell, harm: str
) -> None:
    NETWORK.ensure(shell, network())
    with machine.changing() as state:
        HARMS[harm](state)
        if harm == "renamed":
            state["plugs"][0]["SwitchName"] = "other"
    assert not NETWORK.glance(shell, network()).ok
    NETWORK.ensure(shell, network())
    seen = NETWORK.look(shell, network())
    assert seen.ok, seen.text
    assert len(machine.state["switches"]) == 1


def test_strangers_keep_their_networks(machine: Machine, shell: DirectShell) -> None:
    NETWORK.ensure(shell, network(owner=OTHER))
    before = machine.state
    with pytest.raises(DriverError, match="virtual switch inner on hv1 is not this lab's"):
        NETWORK.ensure(shell, network())
    NETWORK.remove(shell, network())
    assert machine.state == before
    with pytest.raises(DriverError, match=f"hv1 has the NAT nestlab-{OTHER} already"):
        NETWORK.ensure(shell, network(name="second", subnet="10.79.0.0/24", gateway="10.79.0.1"))
    machine.reset()
    NETWORK.ensure(shell, uplink(owner=OTHER, name="theirs"))
    with pytest.raises(DriverError, match="belongs to the virtual switch theirs already"):
        NETWORK.ensure(shell, uplink())


def test_a_network_goes_although_guests_are_plugged_in(machine: Machine) -> None:
    shell = ready_for_guests(machine).shell()
    GUEST.ensure(shell, guest())
    NETWORK.remove(shell, network())
    assert machine.state["switches"] == {}
    assert GUEST.glance(shell, guest()).text == "guest web has nic0 on no network, not inner"
    NETWORK.ensure(shell, network())
    GUEST.ensure(shell, guest())
    assert GUEST.look(shell, guest()).ok


# Media --------------------------------------------------------------------------------------------


def test_a_medium_is_sent_once_and_again_when_it_is_cut_short(
    machine: Machine, shell: DirectShell, tmp_path: Path
) -> None:
    file = tmp_path / "one.iso"
    file.write_bytes(b"a medium")
    wanted = medium(file, sha256=hashlib.sha256(b"a medium").hexdigest())
    called = MEDIUM.called(wanted)
    there = machine.path("/" + called.replace("\\", "/"))
    assert called == f"C:\\nestlab\\media\\one.iso\\{wanted.sha256[:12]}.iso"
    MEDIUM.ensure(shell, wanted)
    assert there.read_bytes() == b"a medium"
    MEDIUM.ensure(shell, wanted)
    assert [call.command for call in machine.calls].count("put") == 1
    there.write_bytes(b"a med")
    assert MEDIUM.glance(shell, wanted).text == "medium one.iso has 5 bytes there and 8 here"
    MEDIUM.ensure(shell, wanted)
    there.write_bytes(b"b medium")
    MEDIUM.ensure(shell, wanted)
    assert there.read_bytes() == b"a medium", "the same size is not enough where the sum is given"
    MEDIUM.remove(shell, wanted)
    MEDIUM.remove(shell, wanted)
    assert list(machine.path("/C:/nestlab/media").iterdir()) == []
    assert MEDIUM.look(shell, wanted).text == "medium one.iso is not there any more"


def test_another_content_is_another_file_and_an_image_outlives_it(
    machine: Machine, shell: DirectShell, tmp_path: Path
) -> None:
    kept = {}
    for name in ("one.iso", "base.vhdx"):
        file = tmp_path / name
        file.write_bytes(VHDX)
        old = medium(file)
        MEDIUM.ensure(shell, old)
        file.write_bytes(VHDX + b"more")
        MEDIUM.ensure(shell, medium(file))
        folder = machine.path(f"/C:/nestlab/media/{name}")
        kept[name] = sorted(each.name for each in folder.iterdir())
    assert kept == {"one.iso": ["12.iso"], "base.vhdx": ["12.vhdx", "8.vhdx"]}


def test_what_somebody_put_beside_a_medium_stays(
    machine: Machine, shell: DirectShell, tmp_path: Path
) -> None:
    file = tmp_path / "one.iso"
    file.write_bytes(b"a medium")
    MEDIUM.ensure(shell, medium(file))
    folder = machine.path("/C:/nestlab/media/one.iso")
    (folder / "mine").mkdir()
    for name in ("thesis.txt", "my one.iso", "mine/8.iso"):
        (folder / name).write_text("mine")
    file.write_bytes(b"another medium")
    MEDIUM.ensure(shell, medium(file))
    MEDIUM.remove(shell, medium(file))
    left = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert left == {"thesis.txt", "my one.iso", "mine/8.iso"}


def test_media_that_hyperv_does_not_read_are_refused_with_the_remedy(
    shell: DirectShell, tmp_path: Path
) -> None:
    for name, found in (("disk.qcow2", b"QFI\xfb"), ("disk.img", b""), ("fake.vhdx", b"QFI\xfb")):
        (tmp_path / name).write_bytes(found)
        said = MEDIUM.problem(medium(tmp_path / name))
        assert f"qemu-img convert -O vhdx FILE {Path(name).stem}.vhdx" in said
    (tmp_path / "real.vhdx").write_bytes(VHDX)
    assert not MEDIUM.problem(medium(tmp_path / "real.vhdx"))
    assert not MEDIUM.problem(medium(tmp_path / "nothing-yet.vhdx"))
    with pytest.raises(DriverError, match="is not there: put the file there"):
        MEDIUM.ensure(shell, medium(tmp_path / "none.iso"))
    with pytest.raises(DriverError, match="it is damaged or another file"):
        MEDIUM.ensure(shell, medium(tmp_path / "real.vhdx", sha256="0" * 64))


def test_a_medium_in_a_drive_is_not_removed_and_the_message_says_why(
    machine: Machine, tmp_path: Path
) -> None:
    shell = ready_for_guests(machine).shell()
    GUEST.ensure(shell, guest())
    with pytest.raises(DriverError, match="a guest with this medium in its drive"):
        MEDIUM.remove(shell, medium(tmp_path / "one.iso"))


# Guests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", GUESTS)
def test_a_guest_is_made_as_wanted_and_then_left_alone(machine: Machine, which: str) -> None:
    wanted = GUESTS[which]
    shell = ready_for_guests(machine).shell()
    assert GUEST.look(shell, wanted).text == "guest web is not there any more"
    GUEST.ensure(shell, wanted)
    vm = only(machine)
    assert (vm["State"], vm["MemoryStartup"], vm["ProcessorCount"]) == ("Running", 512 * MIB, 1)
    assert vm["Generation"] == (2 if wanted.firmware == "uefi" else 1)
    assert vm["Notes"] == f"nestlab {OWNER}"
    assert vm["CheckpointType"] == "Disabled"
    assert vm["AutomaticStartAction"] == ("Start" if wanted.autostart else "Nothing")
    assert [(each["Name"], each["MacAddress"], each["IsLegacy"]) for each in vm["nics"]] == [
        (f"nic{n}", each.mac.replace(":", "").upper(), each.model == "legacy")
        for n, each in enumerate(wanted.nics)
    ]
    assert [each["Path"] for each in vm["dvds"] if each["Path"]] == [wanted.iso] * bool(wanted.iso)
    assert len(vm["drives"]) == bool(wanted.disk_gib or wanted.image)
    assert GUEST.look(shell, wanted).ok
    before, count = machine.state, len(machine.calls)
    GUEST.ensure(shell, wanted)
    assert machine.state == before
    assert len(machine.calls) == count + 1, "one look, and nothing to do"


def test_where_a_guest_boots_from(machine: Machine) -> None:
    shell = ready_for_guests(machine).shell()
    GUEST.ensure(shell, guest(boot=["hd", "cdrom"]))
    vm = only(machine)
    assert vm["StartupOrder"] == ["IDE", "CD", "LegacyNetworkAdapter", "Floppy"]
    wanted = guest(firmware="uefi", boot=["cdrom", "network", "hd"])
    shell = ready_for_guests(machine).shell()
    GUEST.ensure(shell, wanted)
    vm = only(machine)
    assert vm["order"] == [vm[part][0]["Id"] for part in ("dvds", "nics", "drives")]
    assert vm["SecureBoot"] == "Off"
    with machine.changing() as state:
        (one,) = state["vms"].values()
        one["order"].insert(0, "file")
    assert GUEST.look(shell, wanted).ok, "an installed system's own entry is none of ours"


def test_an_image_is_cloned_and_not_copied(machine: Machine) -> None:
    shell = ready_for_guests(machine).shell()
    GUEST.ensure(shell, GUESTS["generation 2 from an image"])
    disk = json.loads(machine.path(f"{HOME}/disk.vhdx").read_bytes()[8:])
    assert (disk["parent"], disk["size"]) == (IMAGE, 4 * GIB)


def make_guest(machine: Machine, wanted: GuestOrder) -> Machine:
    ready_for_guests(machine)
    GUEST.ensure(machine.shell(), wanted)
    return machine


def as_wanted(wanted: GuestOrder) -> Callable[[Machine], None]:
    def check(machine: Machine) -> None:
        only(machine)
        seen = GUEST.look(machine.shell(), wanted)
        assert seen.ok, seen.text
        files = {each.name for each in machine.path(HOME).iterdir()}
        assert files == ({"disk.vhdx"} if wanted.disk_gib or wanted.image else set())

    return check


def no_guest(machine: Machine) -> None:
    assert machine.state["vms"] == {}
    assert not machine.path(HOME).exists()


@pytest.mark.parametrize(
    "which",
    ["generation 2 from an image", "generation 1 from an image, two NICs, without autostart"],
)
def test_every_failure_of_an_edit_leaves_one_guest_as_edited(machine: Machine, which: str) -> None:
    wanted = GUESTS[which]
    nics = [nic(model="legacy") if "network" in wanted.boot else nic(mac="52:54:00:00:00:77")]
    after = replace(wanted, memory_mib=768, cores=2, nics=nics)

    def edit(machine: Machine) -> None:
        GUEST.ensure(machine.shell(), after)

    assert every_failure(lambda: make_guest(machine, wanted), edit, as_wanted(after))


@pytest.mark.parametrize("how", ["stop_after", "refuse"])
@pytest.mark.parametrize(
    "which", ["generation 1 from an ISO", "generation 2 from an image", "the edit", "the removal"]
)
def test_a_command_that_ends_at_any_cmdlet_is_finished_by_the_next_one(
    machine: Machine, which: str, how: str
) -> None:
    wanted = GUESTS.get(which, guest())
    after = guest(memory_mib=768, disk_gib=3, nics=[], boot=["hd", "cdrom"])

    def act(machine: Machine) -> None:
        if which == "the removal":
            GUEST.remove(machine.shell(), wanted)
        else:
            GUEST.ensure(machine.shell(), after if which == "the edit" else wanted)

    tried = 0
    for number in range(40):
        if which.startswith("the "):
            make_guest(machine, guest())
        else:
            ready_for_guests(machine)
        with machine.changing() as state:
            state[how] = number + (how == "stop_after")
        try:
            act(machine)
        except DriverError:
            tried += 1
        if machine.state[how] is not None:
            break  # no command had that many cmdlets
        act(machine)
        if which == "the removal":
            no_guest(machine)
        else:
            as_wanted(after if which == "the edit" else wanted)(machine)
    assert tried > 5


def vm_of(state: dict[str, Any]) -> dict[str, Any]:
    (one,) = state["vms"].values()
    found: dict[str, Any] = one
    return found


GUEST_HARMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "is off": lambda vm: vm.update(State="Off"),
    "is saved": lambda vm: vm.update(State="Saved"),
    "is paused": lambda vm: vm.update(State="Paused"),
    "has 1024 MiB, not 512 MiB": lambda vm: vm.update(MemoryStartup=1024 * MIB),
    "has dynamic memory, not 512 MiB": lambda vm: vm.update(DynamicMemoryEnabled=True),
    "has 2 cores, not 1": lambda vm: vm.update(ProcessorCount=2),
    "sees virtualization": lambda vm: vm.update(ExposeVirtualizationExtensions=True),
    "is called mine now": lambda vm: vm.update(Name="mine"),
    "does not bear the lab's mark in its notes": lambda vm: vm.update(Notes="a note of mine"),
    "has AutomaticStartAction Nothing, not Start": lambda vm: vm.update(
        AutomaticStartAction="Nothing"
    ),
    "has CheckpointType Standard, not Disabled": lambda vm: vm.update(CheckpointType="Standard"),
    "is not connected to its disk": lambda vm: vm.update(drives=[]),
    "has another medium in its drive, or none": lambda vm: vm["dvds"][0].update(Path=None),
    "has no CD drive, or another one": lambda vm: vm.update(dvds=[]),
    "has other NICs": lambda vm: vm["nics"][0].update(MacAddress="00155D000001"),
    "has nic0 on no network, not inner": lambda vm: vm["nics"][0].update(SwitchName=None),
    "boots in another order": lambda vm: (vm["StartupOrder"].reverse(), vm["order"].reverse()),
}


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("said", GUEST_HARMS)
def test_a_guest_that_was_changed_by_hand_is_seen_and_mended(
    machine: Machine, said: str, firmware: str
) -> None:
    wanted = guest(firmware=firmware)
    shell = make_guest(machine, wanted).shell()
    with machine.changing() as state:
        GUEST_HARMS[said](vm_of(state))
    assert GUEST.glance(shell, wanted).text == f"guest web {said}"
    GUEST.ensure(shell, wanted)
    as_wanted(wanted)(machine)
    if "notes" in said:
        assert only(machine)["Notes"] == f"nestlab {OWNER}\na note of mine"


@pytest.mark.parametrize("state", ["Running", "Paused", "Saved", "Off"])
def test_new_settings_are_given_in_any_state(
    machine: Machine, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = make_guest(machine, guest()).shell()
    with machine.changing() as known:
        vm_of(known)["State"] = state
    number = only(machine)["Id"]
    after = guest(memory_mib=1024, disk_gib=3)
    GUEST.ensure(shell, after)
    as_wanted(after)(machine)
    assert only(machine)["Id"] == number, "it is the same guest"
    assert ("web: switched off for its new settings" in capsys.readouterr().err) is (state != "Off")
    disk = json.loads(machine.path(f"{HOME}/disk.vhdx").read_bytes()[8:])
    assert disk["size"] == 3 * GIB


def test_a_medium_and_a_network_are_changed_while_the_guest_runs(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    NETWORK.ensure(shell, network(name="other", mode="isolated", owner=OTHER, gateway="10.79.0.1"))
    machine.path("/C:/nestlab/media/two.iso").write_bytes(b"x")
    before = len(machine.calls)
    GUEST.ensure(shell, guest(iso="C:\\nestlab\\media\\two.iso", nics=[nic(network="other")]))
    asked = " ".join(call.stdin for call in machine.calls[before:])
    assert "Stop-VM" not in asked
    assert only(machine)["dvds"][0]["Path"] == "C:\\nestlab\\media\\two.iso"
    assert only(machine)["nics"][0]["SwitchName"] == "other"


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_disc_that_was_removed_and_sent_again_may_be_read_by_its_guest(
    machine: Machine, firmware: str
) -> None:
    ready_for_guests(machine)
    seed = "C:\\nestlab\\media\\seed.iso"
    wanted = guest(seed=seed, firmware=firmware)
    real = machine.path("/" + seed.replace("\\", "/"))
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_bytes(b"a seed")
    shell = machine.shell("hv1")
    GUEST.ensure(shell, wanted)
    with machine.changing() as state:
        only_vm = next(iter(state["vms"].values()))
        only_vm["State"] = "Off"
    real.unlink()
    real.write_bytes(b"a seed")
    GUEST.ensure(shell, wanted)
    assert GUEST.look(shell, wanted).ok


def test_a_disk_never_shrinks_and_is_never_taken_away(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    for less in (1, 0):
        wanted = guest(disk_gib=less, boot=["cdrom"])
        assert not GUEST.look(shell, wanted).ok
        with pytest.raises(DriverError, match="it can grow, not shrink; write 2, or remove"):
            GUEST.ensure(shell, wanted)
    as_wanted(guest())(machine)


def test_a_guest_that_was_removed_by_hand_comes_back_on_its_own_disk(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = make_guest(machine, guest()).shell()
    disk = machine.path(f"{HOME}/disk.vhdx").read_bytes()
    with machine.changing() as state:
        state["vms"].clear()
    GUEST.ensure(shell, guest())
    as_wanted(guest())(machine)
    assert machine.path(f"{HOME}/disk.vhdx").read_bytes() == disk
    assert "web: made again, on its own disk" in capsys.readouterr().err


def test_a_disk_that_was_removed_by_hand_is_made_anew(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    machine.path(f"{HOME}/disk.vhdx").unlink()
    assert GUEST.glance(shell, guest()).text == "guest web has no disk any more: a new one is made"
    GUEST.ensure(shell, guest())
    as_wanted(guest())(machine)


def test_a_checkpoint_made_by_hand_is_left_alone(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    machine.path(f"{HOME}/disk_1.avhdx").write_bytes(VHDX)
    with machine.changing() as state:
        vm_of(state)["drives"][0]["Path"] = f"{HOME[1:]}/disk_1.avhdx".replace("/", "\\")
    assert GUEST.look(shell, guest()).ok
    GUEST.remove(shell, guest())
    no_guest(machine)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize("grown", [{"disk_gib": 3}, {"disks": [DataDisk("db", 2)]}])
def test_a_disk_under_a_checkpoint_does_not_grow(
    machine: Machine, firmware: str, grown: dict[str, Any]
) -> None:
    disks = [DataDisk("db", 1)]
    before = guest(firmware=firmware, disks=disks)
    shell = make_guest(machine, before).shell()
    with machine.changing() as state:
        for drive in vm_of(state)["drives"]:
            drive["Path"] = drive["Path"].replace(".vhdx", "_0A1B.avhdx")
            machine.path("/" + drive["Path"].replace("\\", "/")).write_bytes(VHDX)
    with pytest.raises(
        DriverError, match=r"has a checkpoint \(.*_0A1B.avhdx\), which would not fit"
    ):
        GUEST.ensure(shell, guest(**{"firmware": firmware, "disks": disks} | grown))
    assert only(machine)["State"] == "Running", "it runs on"
    GUEST.ensure(shell, replace(before, memory_mib=1024))
    assert GUEST.look(shell, replace(before, memory_mib=1024)).ok


def test_a_disk_whose_name_begins_as_anothers_is_not_taken_for_it(machine: Machine) -> None:
    shell = make_guest(machine, guest(disks=[DataDisk("db2", 1)])).shell()
    # Cut off before: the disk is made and not plugged in.
    machine.path(f"{HOME}/data-db.vhdx").write_bytes(
        machine.path(f"{HOME}/data-db2.vhdx").read_bytes()
    )
    wanted = guest(disks=[DataDisk("db", 1), DataDisk("db2", 1)])
    GUEST.ensure(shell, wanted)
    assert GUEST.look(shell, wanted).ok
    plugged = {each["ControllerLocation"]: each["Path"] for each in only(machine)["drives"]}
    assert [plugged[place].rpartition("\\")[2] for place in (8, 9)] == [
        "data-db.vhdx",
        "data-db2.vhdx",
    ]


@pytest.mark.parametrize("state", ["Off", "Running", "Paused", "Saved"])
def test_a_guest_goes_in_any_state_with_its_disk(machine: Machine, state: str) -> None:
    shell = make_guest(machine, guest()).shell()
    with machine.changing() as known:
        vm_of(known).update(State=state, Name="renamed")
    GUEST.remove(shell, guest())
    no_guest(machine)
    GUEST.remove(shell, guest())


def test_two_guests_of_one_name_are_told_apart(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    GUEST.ensure(shell, guest(owner=OTHER, name="there"))
    with machine.changing() as state:
        theirs = next(vm for vm in state["vms"].values() if OTHER in vm["Path"])
        theirs.update(Name="web", State="Off")
    GUEST.ensure(shell, guest(memory_mib=768))
    assert GUEST.look(shell, guest(memory_mib=768)).ok
    GUEST.remove(shell, guest())
    (left,) = machine.state["vms"].values()
    assert OTHER in left["Path"]
    assert (left["State"], left["MemoryStartup"]) == ("Off", 512 * MIB)


def test_a_guest_in_the_middle_of_something_is_waited_for(machine: Machine) -> None:
    shell = make_guest(machine, guest()).shell()
    with machine.changing() as state:
        vm_of(state)["State"] = "Saving"
    run, looks = shell.run, 0

    def later(*words: Any, **more: Any) -> Result:
        nonlocal looks
        looks += 1
        if looks == 4:
            with machine.changing() as state:
                vm_of(state)["State"] = "Saved"
        return run(*words, **more)

    shell.run = later  # type: ignore[method-assign]
    GUEST.ensure(shell, guest())
    assert only(machine)["State"] == "Running"


@pytest.mark.parametrize(
    ("harm", "wanted", "said"),
    [
        ({"memory": 256 * MIB}, guest(), "the host has too little memory left"),
        ({"nested": False}, guest(), "the machine around it gives no virtualization"),
        ({}, guest(iso="C:\\nestlab\\none.iso"), r"`Set-VMDvdDrive .*none\.iso.*0x80070002"),
        ({}, guest(nics=[nic(network="nowhere")]), 'a virtual switch with name "nowhere"'),
    ],
)
def test_a_refusal_names_the_cmdlet_its_words_and_the_cause(
    machine: Machine, harm: dict[str, Any], wanted: GuestOrder, said: str
) -> None:
    shell = ready_for_guests(machine).shell("hv1")
    with machine.changing() as state:
        state.update(harm)
    with pytest.raises(DriverError, match=said) as refused:
        GUEST.ensure(shell, wanted)
    assert re.match(r"`(Start|Add|Set)-VM.*` on hv1: ", str(refused.value))


def test_an_image_that_was_changed_under_its_clones_is_told(machine: Machine) -> None:
    wanted = GUESTS["generation 2 from an image"]
    shell = make_guest(machine, wanted).shell()
    machine.path("/C:/nestlab/media/base.vhdx/9.vhdx").write_bytes(VHDX + b"\0other")
    with machine.changing() as state:
        vm_of(state)["State"] = "Off"
    with pytest.raises(DriverError, match="was changed after it was cloned"):
        GUEST.ensure(shell, wanted)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (guest(memory_mib=31), "31 MiB of memory: Hyper-V gives 32 or more, by twos"),
        (guest(memory_mib=513), "513 MiB of memory"),
        (guest(firmware="uefi", nics=[nic(model="legacy")]), "a legacy NIC with firmware uefi"),
        (guest(boot=["network"]), "boot from the network with firmware bios"),
        (guest(image="C:\\x.qcow2"), "Hyper-V takes .vhdx alone"),
        (guest(nics=[nic(model="legacy")] * 5), "5 NICs of model legacy"),
        (guest(owner="..\\.."), "is no UUID"),
        (guest(nics=[nic(network="a*")]), r"network 'a*' holds *"),
    ],
)
def test_what_hyperv_cannot_give_is_refused_before_anything_is_asked(
    wanted: GuestOrder, said: str
) -> None:
    assert said in GUEST.problem(wanted)


# Names --------------------------------------------------------------------------------------------

NASTY = [
    "", " ", "a b", "'", "a'b", '"', ";reboot", "$(id)", "`id`", "$HOME", "$env:PATH", "a\nb", "a\tb",
    "\\", "*", "a?", "[a]", "-Force", "--", "&|><", "ä", "日本", "😀", "\u202e", "..", "a.", "con",
    "COM1.txt", "{0}", "@{a=1}", "\ud800", "x" * 60, "x" * 61, "%PATH%", "^", "\0",
]  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("names") / "hyperv", Hyperv)


@given(st.text(max_size=LONGEST_NAME + 2))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example("web")
def test_a_name_arrives_as_it_is_or_is_refused(host: Machine, name: str) -> None:
    arrives(host, name)


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_nasty_name_arrives_as_it_is_or_is_refused(host: Machine, name: str) -> None:
    arrives(host, name)


def arrives(host: Machine, name: str) -> None:
    host.reset()
    wanted = network(name=name, mode="isolated")
    if NETWORK.problem(wanted):
        assert GUEST.problem(guest(name=name)), "one rule for all names"
        assert MEDIUM.problem(medium(Path("/none.iso"), name=f"{name}.iso")) or name.strip()
        return
    shell = host.shell()
    NETWORK.ensure(shell, wanted)
    inside = guest(name=name, nics=[nic(network=name)], iso="", boot=["hd"])
    assert not GUEST.problem(inside)
    GUEST.ensure(shell, inside)
    assert [each["Name"] for each in host.state["switches"].values()] == [name]
    (vm,) = host.state["vms"].values()
    assert (vm["Name"], vm["nics"][0]["SwitchName"]) == (name, name)
    assert GUEST.look(shell, inside).ok
    assert {tuple(call.words) for call in host.calls} == {powershell.ARGV}, "one command line"
    GUEST.remove(shell, inside)
    NETWORK.remove(shell, wanted)
    assert (host.state["vms"], host.state["switches"]) == ({}, {})


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_path_of_a_medium_arrives_as_it_is(path: str) -> None:
    document = powershell.Script()
    document.add("Set-VMDvdDrive", Path=path)
    assert json.loads(document.document())["calls"][0]["parameters"] == {"Path": path}


# The lab ------------------------------------------------------------------------------------------


def lab(**inside: Any) -> dict[str, Any]:
    return {
        "media": {"win": {"path": "win.iso"}, "ipxe": {"path": "ipxe.iso"}},
        "networks": {"outer": {"subnet": "10.77.0.0/24"}},
        "hypervisors": {"hv1": {"kind": "hyperv", "network": "outer", "iso": "win", **inside}},
    }


def test_the_machine_around_it_looks_as_windows_needs_it() -> None:
    engine = up(lab())
    inputs = engine.named("hv1-domain").inputs
    assert (inputs["memory"], inputs["vcpu"], inputs["machine"]) == (4096, 3, "q35")
    assert "OVMF_CODE" in inputs["firmware"]
    sheet = inputs["xml"]["xslt"]
    for each in (
        '<feature policy="disable" name="hle"/>',
        '<feature policy="disable" name="rtm"/>',
        '<stimer state="on"><direct state="on"/></stimer>',
        '<clock offset="localtime">',
        ">e1000e<",
    ):
        assert each in sheet
    root = ET.fromstring(sheet)  # noqa: S314 - our own
    targets = [each.get("bus") for each in root.iter("target")]
    assert targets == ["sata"] * 3, "the disk, the installer, the answers"


def test_its_gate_asks_the_hypervisor_itself_through_two_restarts() -> None:
    probe = up(lab()).named("hv1-gate").inputs["probe"]
    assert (probe["kind"], probe["steady"]) == ("ssh", 3)
    (command,) = probe["commands"]
    assert command["argv"] == list(powershell.ARGV)
    asked = [call["cmdlet"] for call in json.loads(command["stdin"])["calls"]]
    assert asked == ["Get-VMHost", "Get-CimInstance", "Get-Service"]


def test_the_stub_answers_the_gates_question_and_not_before_it_is_ready(machine: Machine) -> None:
    (command,) = hyperv.probe().commands
    done = machine.shell().run(command.argv, stdin=command.stdin.encode())
    assert done.ok
    assert command.holds in done.out
    with machine.changing() as state:
        state["refuse"] = 0
    assert not machine.shell().run(command.argv, stdin=command.stdin.encode()).ok


def test_its_guests_are_made_by_the_driver_inside_it() -> None:
    inside = {
        "networks": {
            "up": {"mode": "bridge"},
            "in": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {"web": {"iso": "ipxe", "network": "in", "disk_gib": 2}},
    }
    engine = up(lab(**inside))
    made = {one.name: one for one in engine.of_type("RemoteObject")}
    assert {name: one.inputs["driver"] for name, one in made.items()} == {
        "hv1-up-network": "hyperv.network",
        "hv1-in-network": "hyperv.network",
        "hv1-ipxe-medium": "hyperv.medium",
        "hv1-web-guest": "hyperv.guest",
    }
    web = made["hv1-web-guest"]
    assert web.inputs["wanted"]["store"] == "C:/nestlab"
    assert web.inputs["wanted"]["nics"][0]["model"] == "synthetic"
    assert "target" in web.secret_inputs
    assert web.deleted_with == engine.named("hv1-domain").urn
    for one in made.values():
        driver = one.inputs["driver"]
        wanted: Any = order(ORDERS[driver.rpartition(".")[2]], one.inputs["wanted"])
        assert not driver_of(driver).problem(wanted)
    (row,) = [row for row in engine.stack_outputs["sheet"] if row["name"] == "web"]
    assert row["console"] == "vmconnect.exe localhost web"
    assert row["enter"] == console_of("hyperv", "web", "C:/nestlab", web.inputs["wanted"]["owner"])


def test_its_console_is_opened_at_the_pipe_that_hyper_v_serves(machine: Machine) -> None:
    """By words that cmd.exe leaves alone, and that fit into its command line; PowerShell itself was not at hand."""
    GUEST.ensure(machine.shell(), guest(iso="", nics=[]))
    [vm] = [each for each in machine.state["vms"].values() if each["Name"] == "web"]
    words = console_of("hyperv", "web", "C:/nestlab", guest().owner)
    assert all(re.fullmatch(r"[A-Za-z0-9+/=-]+", word) for word in words)
    assert len(" ".join(words)) < powershell.LONGEST
    program = base64.b64decode(words[-1]).decode("utf-16-le")
    name = vm["ComPorts"][0].removeprefix("\\\\.\\pipe\\")
    assert f"NamedPipeClientStream('.','{name}'," in program
    assert program.count("{") == program.count("}")


def test_the_password_is_nowhere_in_clear() -> None:
    engine = up(lab())
    medium = engine.named("hv1-discs")
    assert "answers" in medium.secret_inputs | set(medium.additional_secret_outputs)
    secret = private(engine.named("hv1-login"))
    for one in engine.resources.values():
        clear = {key: value for key, value in one.inputs.items() if key not in one.secret_inputs}
        assert secret not in json.dumps(clear)


def test_what_the_installer_is_told_of_this_kind() -> None:
    told = {"edition": "Windows Server 2022 SERVERDATACENTER", "locale": "es-ES"}
    more = {"time_zone": "Romance Standard Time", "openssh": "ipxe"}
    spec = load({"name": "lab", **lab(**told, **more)}, root=Path("/p"), exists=lambda _: True)
    one = spec.hypervisors["hv1"]
    assert isinstance(one, HypervSpec)
    recipe = hyperv.recipe(one)
    assert recipe.options == {
        "image": told["edition"],
        "locale": "es-ES",
        "windows_timezone": "Romance Standard Time",
    }
    assert (recipe.media, recipe.discs) == ("hyperv", ["ipxe"])
    assert one.media() == {"iso": "win", "openssh": "ipxe"}


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ({"memory_mib": 4000}, "Hyper-V needs at least 4096 MiB (Microsoft's system requirements"),
        ({"firmware": "bios"}, "firmware"),
        ({"nic_model": "virtio"}, "nic_model"),
        (
            {"networks": {n: {"subnet": f"10.8{n[1]}.0.0/24"} for n in ("n1", "n2")}},
            "networks.n2.mode: 'nat' given, but Windows gives a host one NAT network",
        ),
        (
            {"networks": {n: {"mode": "bridge"} for n in ("n1", "n2")}},
            "networks.n2.bridge: nothing given, but one switch has the adapter",
        ),
        (
            {"guests": {"g": {"iso": "ipxe", "firmware": "uefi", "nic_model": "legacy",
                              "network": "n"}}},
            "guests.g.nic_model: 'legacy' given, but generation 2",
        ),
        (
            {"guests": {"g": {"iso": "ipxe", "network": "n", "boot": ["network"]}}},
            "guests.g.boot: network given, but generation 1",
        ),
        ({"guests": {"g": {"iso": "ipxe", "memory_mib": 257}}}, "write 258"),
        ({"guests": {"g": {"iso": "ipxe", "machine": "q35"}}}, "generation 1 or 2, as its firmware"),
        ({"containers": {"c": {"template": "busybox"}}}, "Hyper-V has no containers"),
        ({"networks": {"n1": {"subnet": "10.81.0.0/24", "dhcp": True}}}, "hands out no addresses"),
    ],
)  # fmt: skip
def test_a_lab_that_hyperv_cannot_hold_is_refused(inside: dict[str, Any], said: str) -> None:
    nets = {"networks": {"n": {"mode": "isolated", "subnet": "10.80.0.0/24"}}}
    with pytest.raises(SpecError) as refused:
        load({"name": "lab", **lab(**(nets | inside))}, root=Path("/p"), exists=lambda _: True)
    assert said in str(refused.value)


def test_the_stack_of_this_kind_is_accepted_and_deployed() -> None:
    stack = yaml.safe_load((ROOT / "stacks" / "Pulumi.hyperv.yaml").read_text())
    engine = up(stack["config"]["nestlab:lab"])
    assert engine.of_type("RemoteObject")
    assert (
        up(stack["config"]["nestlab:lab"], preview=True).resources.keys() == engine.resources.keys()
    )


# The resource -------------------------------------------------------------------------------------


def test_the_resource_says_what_was_done_by_hand_and_mends_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = ready_for_guests(machine).shell()
    monkeypatch.setattr(objects, "shell_of", lambda _: shell)
    props = {
        "name": "hv1-web-guest",
        "driver": "hyperv.guest",
        "target": {"kind": "ssh", "name": "hv1"},
        "wanted": asdict(guest()),
        "deadline_s": 5,
    }
    provider = RemoteObjectProvider()
    outs = provider.create(props).outs
    assert outs
    assert not provider.diff("", outs, props).changes
    with machine.changing() as state:
        vm_of(state)["State"] = "Off"
    assert provider.diff("", outs, props).changes
    assert "hv1-web-guest: guest web is off; `pulumi up` mends it" in capsys.readouterr().err
    provider.update("", outs, props)
    assert not provider.diff("", outs, props).changes
    other = provider.diff("", outs, props | {"wanted": asdict(guest(firmware="uefi"))})
    assert other.replaces == ["wanted"]
    provider.delete("", outs)
    no_guest(machine)


def test_a_host_that_does_not_answer_is_told_and_not_taken_for_an_empty_one(
    machine: Machine,
) -> None:
    shell = make_guest(machine, guest()).shell()
    machine.fail(1, "cut")
    with pytest.raises(Unreachable):
        GUEST.remove(shell, guest())
    only(machine)
