"""VirtualBox under the laws, on a stub of VBoxManage."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from components.kinds.virtualbox import console, medium, network
from components.kinds.virtualbox.guest import UNIT
from components.kinds.virtualbox.hardware import disk
from components.kinds.virtualbox.vboxmanage import RANGES
from components.reach.orders import Console, DataDisk, MediumOrder, Nic, Reservation
from tests.contract import needs
from tests.contract.case import Case
from tests.support import images
from tests.support.commands import Machine
from tests.support.orders import MAC, OWNER, guest_order, medium_order, network_order
from tests.support.stubs.virtualbox import STORE, VDI, VirtualBox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from components.reach.orders import GuestOrder, NetworkOrder

MODULES = "components.kinds.virtualbox"
PATIENCE = {
    f"{MODULES}.vboxmanage.LOCK_S": 1.0,
    f"{MODULES}.guest.STOP_S": 0.1,
    f"{MODULES}.guest.SETTLE_S": 1.0,
}
ASKS = frozenset(
    {
        *(
            f"VBoxManage {word}"
            for word in ("showvminfo", "list", "getextradata", "showmediuminfo")
        ),
        *("systemctl is-enabled", "stat", "cat", "ls", "ip", "sha256sum"),
    }
)
THEIRS = ["createvm", "--name", "theirs", "--ostype", "Linux_64", "--register"]


def host(folder: Path) -> Machine:
    """A host with somebody else's guest and interface."""
    machine = Machine(folder, VirtualBox)
    assert machine.shell().run(["VBoxManage", *THEIRS]).ok
    with machine.changing() as state:
        state["hostonly"]["vboxnet0"] = ["192.168.56.1", "255.255.255.0"]
    return machine


def for_guests(folder: Path) -> Machine:
    """A host with a network, an ISO and a disk image."""
    machine = host(folder)
    network.DRIVER.ensure(machine.shell(), network_order())
    machine.path(STORE).mkdir(parents=True, exist_ok=True)
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    for number in (1, 2):
        machine.path(f"{STORE}/web-seed-{number}.iso").write_bytes(b"a seed")
        machine.path(f"{STORE}/drivers-{number}.iso").write_bytes(b"drivers")
    machine.path(f"{STORE}/base.vdi").write_text(f'{VDI}{{"mib": 2048, "parent": ""}}')
    return machine


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without what VirtualBox keeps of a setting that is off, and how long a session is still held."""
    for vm in contents["state"]["vms"].values():
        del vm["session"], vm["busy"]
        vm["nics"] = {number: nic for number, nic in vm["nics"].items() if nic["nic"] != "none"}
        if vm["vrde"] == "off":
            vm["vrdeports"] = vm["vrdeaddress"] = vm["vrdeauthtype"] = ""
    for dhcp in contents["state"]["dhcp"].values():
        dhcp["own"] = {mac: options for mac, options in dhcp["own"].items() if options}
        # It sets them itself when a guest on the network starts.
        dhcp["options"] = {}
    # It remembers each ISO that was ever in a drive, and an image for as long as that is there.
    media = contents["state"]["media"].items()
    contents["state"]["media"] = {path: medium for path, medium in media if "/guests/" in path}
    # What all labs there share stays, and so do folders.
    stay = {RANGES, UNIT.file, console.reader(STORE).file}
    files = {path: text for path, text in contents["files"].items() if text and path not in stay}
    return {"state": contents["state"], "files": files}


# Networks


def of(mode: str, **other: Any) -> Callable[[Path], NetworkOrder]:
    return lambda _: network_order(mode=mode, **other)


def their_nat(machine: Machine) -> None:
    with machine.changing() as state:
        state["natnets"]["own"] = {"network": "10.1.0.0/24", "dhcp": True, "enabled": True}


def changing(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        with machine.changing() as state:
            change(state)

    return harm


def server(state: dict[str, Any], mode: str) -> dict[str, Any]:
    found: dict[str, Any] = state["dhcp"][
        "own" if mode == "nat" else "HostInterfaceNetworking-vboxnet1"
    ]
    return found


def network_case(mode: str, **other: Any) -> Case[Machine, NetworkOrder]:
    elsewhere = {
        "subnet": "10.79.0.0/24",
        "gateway": "10.79.0.1",
        "dhcp_start": "10.79.0.2",
        "dhcp_end": "10.79.0.254",
        "reservations": [Reservation(MAC, "10.79.0.9", "web")],
    }
    harms = {
        "its server is removed": changing(lambda state: state["dhcp"].clear()),
        "a lease is another": changing(
            lambda state: server(state, mode)["fixed"].update({MAC: "10.78.0.77"})
        ),
        "its server is disabled": changing(lambda state: server(state, mode).update(enabled=False)),
    }
    return Case(
        f"virtualbox.network {mode}",
        host,
        of(mode),
        asks=ASKS,
        edits={
            "subnet": elsewhere,
            "dhcp": {"dhcp": False, "reservations": []},
            "dhcp_start": "10.78.0.5",
            "dhcp_end": "10.78.0.200",
            "domain": "lab.test",
            "reservations": [Reservation("52:54:00:00:00:0a", "10.78.0.10", "x")],
        },
        fixed={
            "prefix": "the subnet says it",
            "gateway": "the subnet's first address, with the subnet",
        },
        harms=harms | other.pop("harms"),
        texts={
            "name": lambda order, text: replace(order, name=text),
            "domain": lambda order, text: replace(order, domain=text),
        },
        plain=plain,
        patience=PATIENCE,
        **other,
    )


NAT = network_case(
    "nat",
    stranger=their_nat,
    harms={
        "its subnet is another": changing(
            lambda state: state["natnets"]["own"].update(network="10.99.0.0/24")
        ),
        "it is removed": changing(lambda state: state["natnets"].clear()),
    },
    arrived={"name": lambda machine, _: next(iter(machine.state["natnets"]))},
)
ISOLATED = network_case(
    "isolated",
    no_stranger="VirtualBox names interfaces itself",
    harms={
        "its address is lost": changing(
            lambda state: state["hostonly"].update(vboxnet1=["192.168.57.1", "255.255.255.0"])
        ),
        "it is removed": changing(lambda state: state["hostonly"].pop("vboxnet1")),
    },
)

# Media


def iso(folder: Path) -> MediumOrder:
    (folder / "live.iso").write_bytes(b"an ISO" * 100)
    return medium_order(folder / "live.iso", store=STORE)


def image(folder: Path) -> MediumOrder:
    (folder / "base.qcow2").write_bytes(images.qcow2(2 << 30))
    return medium_order(folder / "base.qcow2", store=STORE)


def medium_case(name: str, order: Callable[[Path], MediumOrder]) -> Case[Machine, MediumOrder]:
    ending = ".iso" if order is iso else ".img"

    def damaged(machine: Machine, content: bytes | None) -> None:
        [file] = (each for each in machine.path(STORE).iterdir() if each.is_file())
        file.unlink()
        if content is not None:
            file.write_bytes(content)

    harms = {"it is removed": partial(damaged, content=None)}
    if order is iso:
        harms["half of it is left"] = partial(damaged, content=b"an ISO" * 50)
        harms["another is in its place"] = partial(damaged, content=b"no ISO" * 100)
    return Case(
        f"virtualbox.medium {name}",
        host,
        order,
        asks=ASKS,
        no_stranger="the store is the lab's own",
        fixed=dict.fromkeys(
            ("path", "sha256", "size", "private"), "another content, not a setting"
        ),
        harms=harms,
        texts={"name": lambda order, text: replace(order, name=text + ending)},
        arrived={
            "name": lambda machine, order: machine.path(medium.DRIVER.called(order)).name.partition(
                ending
            )[0]
        },
        sends=lambda machine: [call.command for call in machine.calls].count("put"),
        plain=plain,
        patience=PATIENCE,
    )


# Guests

NIC = Nic("natnetwork own", MAC, "e1000", "10.78.0.9")


def guest(_: Path) -> GuestOrder:
    iso, seed = f"{STORE}/live.iso", f"{STORE}/web-seed-1.iso"
    discs = [f"{STORE}/drivers-1.iso"]
    disks = [DataDisk("data", 2)]
    order = replace(guest_order(), iso=iso, seed=seed, discs=discs, disks=disks)
    return replace(order, nics=[NIC], store=STORE)


def their_guest(machine: Machine) -> None:
    words = ["createvm", "--name", "web", "--ostype", "Linux_64", "--register"]
    assert machine.shell().run(["VBoxManage", *words]).ok


def with_guest(**values: Any) -> Callable[[Machine], None]:
    return changing(lambda state: state["vms"][OWNER].update(values))


def own(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["vms"][OWNER]
    return found


def disk_case(**drives: str) -> dict[str, Any]:
    return {
        "drives": {
            key: {"kind": "dvddrive" if key == "SATA-1-0" else "hdd", "path": path}
            for key, path in drives.items()
        }
    }


def portless(machine: Machine) -> None:
    """Off, and without the folder of its serial port's socket."""
    machine.path(f"{STORE}/guests/{OWNER}/serial").rmdir()
    with_guest(VMState="poweroff")(machine)


OWN_DISK = {"SATA-0-0": f"{STORE}/guests/{OWNER}/disk.vdi"}
GUEST: Case[Machine, GuestOrder] = Case(
    "virtualbox.guest",
    for_guests,
    guest,
    asks=ASKS,
    stranger=their_guest,
    edits={
        "memory_mib": 1024,
        "cores": 4,
        "disk_bus": "scsi",
        "firmware": "uefi",
        "machine": "q35",
        "video": "none",
        "boot": ["hd", "cdrom", "network"],
        "nics": [replace(NIC, model="virtio"), Nic("bridged ", "52:54:00:00:00:0b", "", "")],
        "iso": "",
        "seed": f"{STORE}/web-seed-2.iso",
        "no seed": {"seed": ""},
        "discs": [f"{STORE}/drivers-2.iso", f"{STORE}/drivers-1.iso"],
        "no discs": {"discs": []},
        "disks": [DataDisk("data", 2), DataDisk("logs", 1)],
        "no disks": {"disks": []},
        "autostart": False,
        "nested": True,
        "console": Console("vnc", "127.0.0.1", 5901, ""),
    },
    one_way={"disks": [DataDisk("data", 3)]},
    fixed={
        "ready": "who waits for it asks, not VirtualBox",
    },
    harms={
        "it is off": with_guest(VMState="poweroff"),
        "it is saved": with_guest(VMState="saved"),
        "it is paused": with_guest(VMState="paused"),
        "it has crashed": with_guest(VMState="gurumeditation"),
        "its memory is another": with_guest(memory=4096),
        "its cores are others": with_guest(cpus=1),
        "it is shown virtualization": with_guest(**{"nested-hw-virt": "on"}),
        "its name is another": with_guest(name="renamed"),
        "its firmware is another": with_guest(firmware="EFI"),
        "its boot order is another": with_guest(boot=["net", "none", "none", "none"]),
        "its drives are empty": with_guest(drives={}),
        "its controllers are gone": with_guest(controllers={}, drives={}),
        "its disk is another": with_guest(**disk_case(**{"SATA-0-0": f"{STORE}/base.vdi"})),
        "it has one more disk": with_guest(
            **disk_case(
                **OWN_DISK, **{"SATA-1-0": f"{STORE}/live.iso", "SATA-2-0": f"{STORE}/base.vdi"}
            )
        ),
        "its CD is out": changing(
            lambda state: own(state)["drives"]["SATA-1-0"].update(path="emptydrive")
        ),
        "its seed is out": changing(
            lambda state: own(state)["drives"]["SATA-2-0"].update(path="emptydrive")
        ),
        "another disc is in": changing(
            lambda state: own(state)["drives"]["SATA-3-0"].update(path=f"{STORE}/drivers-2.iso")
        ),
        "another guest's seed is in": changing(
            lambda state: own(state)["drives"]["SATA-2-0"].update(path=f"{STORE}/web-seed-2.iso")
        ),
        "its NIC is another": changing(lambda state: own(state)["nics"]["1"].update(nictype="virtio")),
        "its NIC is out": changing(
            lambda state: own(state)["nics"]["1"].update(cableconnected="off")
        ),
        "it has one more NIC": changing(lambda state: own(state)["nics"]["3"].update(nic="nat")),
        "it does not start with its host": changing(
            lambda state: state["enabled"].remove(f"nestlab-virtualbox@{OWNER}.service")
        ),
        "its disk is removed": lambda machine: machine.path(disk(guest(machine.folder))).unlink(),
        "a further disk is out": changing(lambda state: own(state)["drives"].pop("SATA-11-0")),
        "a further disk is removed": lambda machine: machine.path(
            f"{STORE}/guests/{OWNER}/data-data.vdi"
        ).unlink(),
        "nobody reads its serial port": changing(
            lambda state: state["enabled"].remove(f"nestlab-virtualbox-serial@{OWNER}.service")
        ),
        "its serial port is off": with_guest(uart="off"),
        "its serial port is another": with_guest(uart="0x02f8,3"),
        "its serial port is open to all": with_guest(uartmode="tcpserver,4000"),
        "its serial port leads nowhere": with_guest(uartmode="disconnected"),
        "its serial port's folder is removed": portless,
        "it is unregistered": changing(
            lambda state: (state["vms"].pop(OWNER), state["media"].clear())
        ),
    },
    texts={"name": lambda order, text: replace(order, name=text)},
    arrived={"name": lambda machine, _: str(machine.state["vms"][OWNER]["name"])},
    needs={
        "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
        "image": needs.medium("image", ".qcow2", images.qcow2(2 << 30), medium.DRIVER, STORE),
        "nics": needs.network(network.DRIVER),
        "store": needs.store(STORE),
    },
    plain=plain,
    patience=PATIENCE,
)  # fmt: skip

CASES = [NAT, ISOLATED, medium_case("iso", iso), medium_case("image", image), GUEST]
