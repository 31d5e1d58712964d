"""Hyper-V under the laws, on a stub that carries out what PowerShell's one program is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from components.kinds.hyperv import guest, medium, network
from components.kinds.hyperv.install import PLACE
from components.reach.orders import DataDisk, Nic
from tests.contract import needs
from tests.contract.case import Case
from tests.support.commands import Machine
from tests.support.orders import MAC, NET, OWNER, guest_order, medium_order, network_order
from tests.support.stubs.hyperv import VHDX, Hyperv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
    from tests.support.commands import Call

STORE = PLACE.store
OTHER = "aaaaaaaa-1111-5222-8333-444455556666"
MIB = 1 << 20
ISOS = "C:\\nestlab\\media"
IMAGE = f"{ISOS}\\base.vhdx\\9.vhdx"
SERVER = "Windows' DHCP is a role of its own, which is not asked for"
OUTER = "it is of the network that the host itself is in"


ASKS = frozenset(
    {
        *("Get-VMSwitch", "Get-NetIPAddress", "Get-NetNat", "Get-NetAdapter", "Get-ChildItem"),
        *(
            f"Get-VM{what}"
            for what in ("", "ComPort", "Processor", "HardDiskDrive", "DvdDrive", "NetworkAdapter")
        ),
        *("Get-VMBios", "Get-VMFirmware", "Get-VHD", "Get-FileHash"),
    }
)


def said(call: Call) -> list[str]:
    """Return the cmdlets that one run of PowerShell carried out."""
    return [each["cmdlet"] for each in json.loads(call.stdin)["calls"]]


def host(folder: Path) -> Machine:
    """A host with somebody else's switch and guest."""
    machine = Machine(folder, Hyperv)
    shell = machine.shell()
    theirs = network_order(
        name="theirs", mode="isolated", subnet="10.99.0.0/24", gateway="10.99.0.1", owner=OTHER
    )
    network.DRIVER.ensure(shell, theirs)
    guest.DRIVER.ensure(shell, guest_order(name="theirs", store=STORE, owner=OTHER))
    return machine


def for_guests(folder: Path) -> Machine:
    """A host with two networks of the lab's, two ISOs and an image."""
    machine = host(folder)
    for name, subnet in (("inner", "10.78.0"), ("second", "10.79.0")):
        made = network_order(
            name=name,
            mode="isolated",
            subnet=f"{subnet}.0/24",
            gateway=f"{subnet}.1",
            owner=NET.replace("3f", "4f", 1) if name == "second" else NET,
        )
        network.DRIVER.ensure(machine.shell(), made)
    for name, content in (
        ("one.iso/6.iso", b"an ISO"),
        ("two.iso/6.iso", b"2nd ISO"),
        ("web-seed-1.iso/6.iso", b"a seed"),
        ("web-seed-2.iso/6.iso", b"a seed"),
        ("drivers.iso/7.iso", b"drivers"),
        ("base.vhdx/9.vhdx", VHDX + b"\0base"),
    ):
        file = machine.path(f"/C:/nestlab/media/{name}")
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    return machine


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without the numbers that Windows counts on, and folders."""
    state = {key: value for key, value in contents["state"].items() if key != "made"}
    for vm in state["vms"].values():
        # Nothing here boots from the network or a further disk: where firmware lists one after what is booted
        # from is its own.
        others = {nic["Id"] for nic in vm["nics"]}
        others |= {each["Id"] for each in vm["drives"] if "\\data-" in str(each["Path"])}
        vm["order"] = [each for each in vm["order"] if each not in others]
        vm["drives"].sort(key=lambda one: (one["ControllerType"], one["ControllerLocation"]))
    state["vms"] = sorted(state["vms"].values(), key=lambda vm: str(vm["Name"]))
    state["switches"] = sorted(state["switches"].values(), key=lambda one: str(one["Name"]))
    for key in ("plugs", "adapters", "addresses"):
        state[key] = sorted(state[key], key=lambda one: json.dumps(one, sort_keys=True))
    files = {path: text for path, text in contents["files"].items() if text}
    text = json.dumps({"state": state, "files": files})
    text = re.sub(r"(?i)[0-9a-f]{8}-7e57-4000-8000-0{12}", "ID", text)
    # Which file a drive's right is for is a number and a time of this run's.
    text = re.sub(r'"Granted": \[[0-9, ]*\]', '"Granted": []', text)
    text = re.sub(r"(Virtual Ethernet Adapter #)\d+", r"\1N", text)
    text = re.sub(r'("(?:ifIndex|InterfaceIndex)": )\d{3,}', r'\1"INSIDE"', text)
    text = re.sub(r"ADA97E12-0000-0000-0000-0{9}[0-9A-F]*[1-9A-F][0-9A-F]\b", "DEVICE", text)
    found: dict[str, Any] = json.loads(text)
    return found


def changing(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        with machine.changing() as state:
            change(state)

    return harm


# Networks


def of(mode: str) -> Callable[[Path], NetworkOrder]:
    return lambda _: network_order(mode=mode, dhcp=False, reservations=[])


def named(state: dict[str, Any], name: str = "own") -> dict[str, Any]:
    return next(one for one in state["switches"].values() if one["Name"] == name)


def renamed(state: dict[str, Any]) -> None:
    named(state)["Name"] = "other"
    for plug in state["plugs"]:
        if plug["SwitchName"] == "own":
            plug["SwitchName"] = "other"


def unplugged(state: dict[str, Any]) -> None:
    """Take the host off the switch, as Windows does when it is made private or removed."""
    plug = next(one for one in state["plugs"] if one["SwitchName"] == "own")
    adapter = next(one for one in state["adapters"] if one["DeviceID"] == plug["DeviceId"])
    state["plugs"].remove(plug)
    state["adapters"].remove(adapter)
    state["addresses"] = [
        one for one in state["addresses"] if one["InterfaceIndex"] != adapter["ifIndex"]
    ]


def private(state: dict[str, Any]) -> None:
    unplugged(state)
    named(state).update(SwitchType="Private", AllowManagementOS=False)


def removed(state: dict[str, Any]) -> None:
    unplugged(state)
    number = named(state)["Id"]
    del state["switches"][number]


def their_switch(machine: Machine) -> None:
    order = network_order(
        mode="isolated",
        subnet="10.98.0.0/24",
        gateway="10.98.0.1",
        owner=OTHER.replace("aaaa", "bbbb"),
    )
    network.DRIVER.ensure(machine.shell(), order)


INSIDE_HARMS: dict[str, Callable[[Machine], object]] = {
    "it is renamed": changing(renamed),
    "it is made private": changing(private),
    "it is removed": changing(removed),
    "its host has no address": changing(lambda state: state["addresses"].pop()),
    "its host has another address": changing(
        lambda state: state["addresses"][-1].update(IPAddress="10.9.9.9")
    ),
}
NAT_HARMS: dict[str, Callable[[Machine], object]] = {
    "its NAT is removed": changing(lambda state: state["nats"].clear()),
    "its NAT is another": changing(lambda state: state["nats"].update({f"nestlab-{NET}": "10.9.0.0/24"})),
}  # fmt: skip
SUBNET = {"subnet": "10.79.0.0/24", "gateway": "10.79.0.1"}
DHCP = ("dhcp", "dhcp_start", "dhcp_end", "domain", "reservations")


def network_case(
    mode: str, harms: dict[str, Callable[[Machine], object]]
) -> Case[Machine, NetworkOrder]:
    inside = mode != "bridge"
    edits: dict[str, Any] = {
        "subnet": SUBNET,
        "prefix": {"prefix": 25, "subnet": "10.78.0.0/25"},
        "gateway": "10.78.0.254",
    }
    fixed = dict.fromkeys(DHCP, SERVER if inside else OUTER)
    return Case(
        f"hyperv.network {mode}",
        host,
        of(mode),
        stranger=their_switch,
        edits=edits if inside else {},
        fixed=fixed if inside else fixed | dict.fromkeys(edits, OUTER),
        harms=harms,
        texts={"name": lambda order, text: replace(order, name=text)},
        arrived={"name": marked},
        asks=ASKS,
        said=said,
        plain=plain,
    )


def marked(machine: Machine, order: NetworkOrder) -> str:
    found = machine.state["switches"].values()
    return next(str(one["Name"]) for one in found if order.owner in one["Notes"])


NETWORKS = [
    network_case("nat", INSIDE_HARMS | NAT_HARMS),
    network_case("isolated", INSIDE_HARMS),
    network_case("bridge", {"it is renamed": changing(renamed)}),
]

# Media


def iso(folder: Path) -> MediumOrder:
    (folder / "live.iso").write_bytes(b"an ISO" * 100)
    return medium_order(folder / "live.iso", store=STORE)


def image(folder: Path) -> MediumOrder:
    (folder / "base.vhdx").write_bytes(VHDX + b"\0base" * 100)
    return medium_order(folder / "base.vhdx", store=STORE)


def medium_case(order: Callable[[Path], MediumOrder], ending: str) -> Case[Machine, MediumOrder]:
    def put(machine: Machine, change: Callable[[bytes], bytes] | None) -> None:
        found = machine.path("/C:/nestlab/media").rglob(f"*{ending}")
        [file] = (each for each in found if each.is_file())
        content = file.read_bytes()
        file.unlink()
        if change:
            file.write_bytes(change(content))

    return Case(
        f"hyperv.medium {ending[1:]}",
        host,
        order,
        no_stranger="the store is the lab's own",
        fixed=dict.fromkeys(("path", "sha256", "size", "private"), "another content, not a setting")
        | {"owner": "the store is the lab's own"},
        harms={
            "it is removed": partial(put, change=None),
            "half of it is left": partial(put, change=lambda it: it[: len(it) // 2]),
        },
        texts={"name": lambda order, text: replace(order, name=f"{text}{ending}")},
        arrived={"name": lambda machine, order: sent(machine, order, ending)},
        sends=lambda machine: [call.command for call in machine.calls].count("put"),
        asks=ASKS,
        said=said,
        plain=plain,
    )


def sent(machine: Machine, order: MediumOrder, ending: str) -> str:
    file = machine.path("/" + medium.DRIVER.called(order).replace("\\", "/"))
    assert file.is_file()
    return file.parent.name.removesuffix(ending)


MEDIA = [medium_case(iso, ".iso"), medium_case(image, ".vhdx")]

# Guests

NIC = Nic("inner", MAC, "synthetic", "")
SEED = f"{ISOS}\\web-seed-1.iso\\6.iso"
DRIVERS = f"{ISOS}\\drivers.iso\\7.iso"
DISKS = [DataDisk("data", 2)]
OTHER_SEED = f"{ISOS}\\web-seed-2.iso\\6.iso"


def from_iso(_: Path) -> GuestOrder:
    order = guest_order(cores=1, disk_bus="", store=STORE)
    iso = f"{ISOS}\\one.iso\\6.iso"
    return replace(order, nics=[NIC], iso=iso, seed=SEED, discs=[DRIVERS], disks=DISKS)


def from_image(_: Path) -> GuestOrder:
    order = guest_order(cores=1, disk_bus="", firmware="uefi", boot=["hd", "cdrom"], store=STORE)
    iso = f"{ISOS}\\one.iso\\6.iso"
    order = replace(order, nics=[NIC], iso=iso, image=IMAGE, autostart=False)
    return replace(order, seed=SEED, discs=[DRIVERS], disks=DISKS)


def ours(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(vm for vm in state["vms"].values() if OWNER in vm["Path"])
    return found


def with_guest(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    return changing(lambda state: change(ours(state)))


def dvd(vm: dict[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in vm["dvds"] if each["Path"] == path)
    return found


def is_(**values: Any) -> Callable[[Machine], None]:
    return with_guest(lambda vm: vm.update(values))


def disk_removed(machine: Machine) -> None:
    machine.path(f"/C:/nestlab/guests/{OWNER}/disk.vhdx").unlink()


def unplugged_data(vm: dict[str, Any]) -> None:
    gone = vm["drives"].pop()
    vm["order"] = [each for each in vm["order"] if each != gone["Id"]]


def reversed_boot(vm: dict[str, Any]) -> None:
    vm["order" if vm["Generation"] == 2 else "StartupOrder"].reverse()


GUEST_HARMS: dict[str, Callable[[Machine], object]] = {
    "it is off": is_(State="Off"),
    "it is saved": is_(State="Saved"),
    "it is paused": is_(State="Paused"),
    "its memory is another": is_(MemoryStartup=1024 * MIB),
    "its memory is dynamic": is_(DynamicMemoryEnabled=True),
    "its cores are others": is_(ProcessorCount=2),
    "it sees virtualization": is_(ExposeVirtualizationExtensions=True),
    "its serial port is served nowhere": is_(ComPorts=["", ""]),
    "its serial port is served elsewhere": is_(ComPorts=["\\\\.\\pipe\\mine", ""]),
    "it is renamed": is_(Name="mine"),
    "its mark is gone": is_(Notes=""),
    "its host does otherwise when it starts": is_(AutomaticStartAction="StartIfRunning"),
    "it makes checkpoints": is_(CheckpointType="Standard"),
    "its disk is unplugged": is_(drives=[]),
    "its disk is removed": disk_removed,
    "a further disk is unplugged": with_guest(unplugged_data),
    "a further disk is removed": lambda machine: machine.path(
        f"/C:/nestlab/guests/{OWNER}/data-data.vhdx"
    ).unlink(),
    "its CD is out": with_guest(lambda vm: vm["dvds"][0].update(Path=None)),
    "its CD drive is removed": is_(dvds=[]),
    "its seed is out": with_guest(lambda vm: dvd(vm, SEED).update(Path=None)),
    "its seed is another guest's": with_guest(lambda vm: dvd(vm, SEED).update(Path=OTHER_SEED)),
    "a disc is out": with_guest(lambda vm: dvd(vm, DRIVERS).update(Path=None)),
    "its seed's drive is removed": with_guest(lambda vm: vm["dvds"].pop()),
    "its NIC is another": with_guest(lambda vm: vm["nics"][0].update(MacAddress="00155D000001")),
    "its NIC is unplugged": with_guest(lambda vm: vm["nics"][0].update(SwitchName=None)),
    "its boot order is another": with_guest(reversed_boot),
    "it is removed": changing(lambda state: state["vms"].pop(ours(state)["Id"])),
}


def guest_case(name: str, order: Callable[[Path], GuestOrder]) -> Case[Machine, GuestOrder]:
    return Case(
        f"hyperv.guest {name}",
        for_guests,
        order,
        stranger=their_guest,
        edits={
            "memory_mib": 1024,
            "cores": 2,
            "nested": True,
            "boot": ["cdrom", "hd"] if order is from_image else ["hd", "cdrom"],
            "nics": [replace(NIC, network="second"), Nic("inner", "52:54:00:00:00:0a", "", "")],
            "iso": f"{ISOS}\\two.iso\\6.iso",
            "seed": OTHER_SEED,
            "no seed": {"seed": ""},
            "discs": [f"{ISOS}\\two.iso\\6.iso"],
            "no discs": {"discs": []},
            "disks": [DataDisk("data", 2), DataDisk("logs", 1)],
            "no disks": {"disks": []},
            "autostart": order is from_image,
        },
        one_way={"disk_gib": 8, "disks": [DataDisk("data", 3)]},
        fixed={
            "disk_bus": "nothing else than the generation's first is booted from",
            "machine": "a guest is of generation 1 or 2, as its firmware says",
            "video": "its adapter is Hyper-V's",
            "console": "its screen is vmconnect's",
            "ready": "who waits for it asks, not Hyper-V",
        },
        harms=GUEST_HARMS,
        texts={"name": lambda order, text: replace(order, name=text)},
        arrived={"name": lambda machine, _: str(ours(machine.state)["Name"])},
        needs={
            "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
            "image": needs.medium("image", ".vhdx", VHDX + b"\0base", medium.DRIVER, STORE),
            "nics": needs.network(network.DRIVER, mode="isolated"),
            "store": needs.store(STORE),
        },
        asks=ASKS,
        said=said,
        plain=plain,
    )


def their_guest(machine: Machine) -> None:
    order = guest_order(store=STORE, owner=OTHER.replace("aaaa", "bbbb"))
    guest.DRIVER.ensure(machine.shell(), order)


GUESTS = [guest_case("of generation 1", from_iso), guest_case("of generation 2", from_image)]

CASES = [*NETWORKS, *MEDIA, *GUESTS]
