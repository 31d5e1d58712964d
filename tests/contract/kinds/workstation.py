"""Workstation under the laws, on a stub of vmrun and vmware-networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.kinds.workstation import guest as guests
from components.kinds.workstation import medium, network
from components.reach.linux_host import UNITS, WANTS
from components.reach.orders import Console, DataDisk, Nic, Reservation
from tests.contract import needs
from tests.contract.case import Case
from tests.support.commands import Machine
from tests.support.orders import MAC, NET, guest_order, medium_order, network_order
from tests.support.stubs.workstation import DEFAULTS, STORE, Workstation, changed, keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder

PATIENCE = {"components.kinds.workstation.guest.OFF_S": 0.05}
ASKS = frozenset(
    {
        *("tail", "find", "stat", "sha256sum"),
        *("vmrun -T ws list", "vmware-networks --status", "qemu-img info"),
    }
)
QCOW2 = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (2 << 30).to_bytes(8, "big") + bytes(40)
HOME = f"{STORE}/guests/web"
VMX = f"{HOME}/guest.vmx"
NETWORKING = "/etc/vmware/networking"


def host(folder: Path) -> Machine:
    """A host as the installation leaves it, with somebody else's guest."""
    machine = Machine(folder, Workstation)
    for path, text in DEFAULTS.items():
        machine.path(path).parent.mkdir(parents=True, exist_ok=True)
        machine.path(path).write_text(text)
    machine.path(f"{STORE}/guests/alien").mkdir(parents=True)
    machine.path(f"{STORE}/guests/alien/alien.vmx").write_text('config.version = "8"\n')
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    for number in (1, 2):
        machine.path(f"{STORE}/web-seed-{number}.iso").write_bytes(b"a seed")
        machine.path(f"{STORE}/drivers-{number}.iso").write_bytes(b"drivers")
    machine.path(f"{STORE}/base.qcow2").write_bytes(QCOW2)
    assert machine.shell().run(["vmware-networks", "--start"]).ok
    return machine


def for_guests(folder: Path) -> Machine:
    """A host that has a network of the lab's, too."""
    machine = host(folder)
    network.DRIVER.ensure(machine.shell(), network_order())
    return machine


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without what VMware keeps of a device that is out, and the order of lines in its files."""
    state, files = contents["state"], contents["files"]
    for name in ("resumed", "saved"):
        del state[name]
    state["running"] = {path: decided(text) for path, text in state["running"].items()}
    state["up"] = sorted(state["up"])
    gone = {vmx for vmx in state["connected"] if vmx not in state["running"]}
    for vmx in gone:
        del state["connected"][vmx]
    # What all guests there share stays, and so do folders.
    stay = f"{UNITS}/{guests.UNIT}@.service"
    kept = {path: text for path, text in files.items() if text and path != stay}
    for number in re.findall(r"answer VNET_(\d+)_DHCP no", files[NETWORKING]):
        kept.pop(f"/etc/vmware/vmnet{number}/dhcpd/dhcpd.conf", None)
    for path, text in kept.items():
        if path.endswith(".vmx"):
            kept[path] = decided(text)
        if path == NETWORKING:
            kept[path] = sorted(text.splitlines())
    return {"state": state, "files": kept}


def decided(text: str) -> dict[str, str]:
    """Return the settings of a .vmx, but for those of what is not present."""
    told = keys(text)
    out = {
        key.removesuffix(".present")
        for key, value in told.items()
        if key.endswith(".present") and value.upper() == "FALSE"
    }
    if told.get("remotedisplay.vnc.enabled", "").upper() != "TRUE":
        out.add("remotedisplay.vnc")
    return {
        key: value
        for key, value in told.items()
        if value and key.rpartition(".")[0] not in out and not key.endswith(".pcislotnumber")
    }


# Networks


def edited(path: str, old: str, new: str) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        file = machine.path(path)
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return harm


def stopped(machine: Machine) -> None:
    assert machine.shell().run(["vmware-networks", "--stop"]).ok


def network_case(mode: str, *, harms: dict[str, Any]) -> Case[Machine, NetworkOrder]:
    elsewhere = {
        "subnet": "10.79.0.0/24",
        "gateway": "10.79.0.1",
        "reservations": [Reservation(MAC, "10.79.0.9", "web")],
    }
    return Case(
        f"workstation.network {mode}",
        host,
        lambda _: network_order(mode=mode),
        asks=ASKS,
        no_stranger="its number is one that is nobody's",
        edits={
            "subnet": elsewhere,
            "dhcp": {"dhcp": False, "reservations": []},
            "domain": "lab.test",
            "reservations": [Reservation("52:54:00:00:00:0a", "10.78.0.10", "x")],
        },
        fixed={
            "prefix": "the subnet says it",
            "gateway": "the subnet's first address, with the subnet",
            "dhcp_start": "what is not reserved is for guests of somebody else",
            "dhcp_end": "likewise",
        },
        harms={
            "all networks are stopped": stopped,
            "its subnet is another": edited(NETWORKING, "VNET_2_HOSTONLY_SUBNET 10.78", "VNET_2_HOSTONLY_SUBNET 10.99"),
            "a lease is another": edited(
                "/etc/vmware/vmnet2/dhcpd/dhcpd.conf", "10.78.0.9", "10.78.0.8"
            ),
            **harms,
        },
        texts={
            "name": lambda order, text: replace(order, name=text),
            "domain": lambda order, text: replace(order, domain=text),
        },
        plain=plain,
        patience=PATIENCE,
    )  # fmt: skip


NAT = network_case(
    "nat",
    harms={
        "its gateway is another": edited(
            "/etc/vmware/vmnet2/nat/nat.conf", "ip = 10.78.0.2", "ip = 10.78.0.7"
        ),
        "it is cut off": edited(NETWORKING, "VNET_2_NAT yes", "VNET_2_NAT no"),
    },
)
ISOLATED = network_case("isolated", harms={})

# Media


def iso(folder: Path) -> MediumOrder:
    (folder / "m.iso").write_bytes(b"content")
    return medium_order(folder / "m.iso", store=STORE)


def content(data: bytes) -> Callable[[Machine], object]:
    return lambda machine: machine.path(f"{STORE}/m.iso").write_bytes(data)


MEDIUM: Case[Machine, MediumOrder] = Case(
    "workstation.medium",
    host,
    iso,
    asks=ASKS,
    no_stranger="the store is the lab's own",
    fixed=dict.fromkeys(("path", "sha256", "size", "private"), "another content, not a setting"),
    harms={
        "it is removed": lambda machine: machine.path(f"{STORE}/m.iso").unlink(),
        "half of it is left": content(b"cont"),
        "another is in its place": content(b"CONTENT"),
    },
    texts={"name": lambda order, text: replace(order, name=text)},
    arrived={"name": lambda machine, order: machine.path(medium.DRIVER.called(order)).name},
    sends=lambda machine: [call.command for call in machine.calls].count("put"),
    plain=plain,
    patience=PATIENCE,
)

# Guests

NIC = Nic(f"of {NET}", MAC, "e1000e", "10.78.0.9")


def guest(_: Path) -> GuestOrder:
    iso, seed = f"{STORE}/live.iso", f"{STORE}/web-seed-1.iso"
    discs = [f"{STORE}/drivers-1.iso"]
    disks = [DataDisk("data", 2)]
    order = replace(guest_order(), iso=iso, seed=seed, discs=discs, disks=disks)
    return replace(order, nics=[NIC], store=STORE)


def their_guest(machine: Machine) -> None:
    machine.path(HOME).mkdir()
    machine.path(VMX).write_text('config.version = "8"\n')


def vmrun(*words: str) -> Callable[[Machine], None]:
    def do(machine: Machine) -> None:
        assert machine.shell().run(["vmrun", "-T", "ws", *words]).ok

    return do


def settings(**values: str) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        vmrun("stop", VMX, "hard")(machine)
        machine.path(VMX).write_text(changed(machine.path(VMX).read_text(), **values))

    return harm


def unlisted(machine: Machine) -> None:
    vmrun("stop", VMX, "hard")(machine)
    machine.path(VMX).unlink()


def not_started(machine: Machine) -> None:
    assert machine.shell().run(["systemctl", "disable", f"{guests.UNIT}@web.service"]).ok
    assert not machine.path(f"{WANTS}/{guests.UNIT}@web.service").is_symlink()


GUEST: Case[Machine, GuestOrder] = Case(
    "workstation.guest",
    for_guests,
    guest,
    asks=ASKS,
    stranger=their_guest,
    edits={
        "memory_mib": 1024,
        "cores": 4,
        "disk_bus": "scsi",
        "firmware": "uefi",
        "boot": ["hd", "cdrom"],
        "nics": [replace(NIC, model="vmxnet3"), Nic("vmnet8", "52:54:00:00:00:0b", "", "")],
        "iso": "",
        "seed": f"{STORE}/web-seed-2.iso",
        "no seed": {"seed": ""},
        "discs": [f"{STORE}/drivers-2.iso", f"{STORE}/drivers-1.iso"],
        "no discs": {"discs": []},
        "disks": [DataDisk("data", 2), DataDisk("logs", 1)],
        "no disks": {"disks": []},
        "autostart": False,
        "nested": True,
        "console": Console("vnc", "10.77.0.9", 5901, 's|e"cret'),
    },
    one_way={"disks": [DataDisk("data", 3)]},
    fixed={
        "machine": "Workstation has its own chipset",
        "video": "and its own adapter",
        "ready": "who waits for it asks, not Workstation",
    },
    harms={
        "it is off": vmrun("stop", VMX, "hard"),
        "it is suspended": vmrun("suspend", VMX),
        "its settings are gone": unlisted,
        "it does not start with its host": not_started,
        "its memory is another": settings(memsize="256"),
        "its firmware is another": settings(sata0__x="", firmware="efi"),
        "it is shown virtualization": settings(vhv__enable="TRUE"),
        "its MAC is another": settings(ethernet0__address="00:50:56:00:00:01"),
        "its network is another": settings(ethernet0__vnet="/dev/vmnet8"),
        "its NIC is another": settings(ethernet0__virtualDev="vmxnet3"),
        "it has one more NIC": settings(ethernet1__present="TRUE", ethernet1__virtualDev="e1000"),
        "a disc is out": settings(**{"sata0:3__fileName": ""}),
        "a disc is not connected": settings(**{"sata0:3__startConnected": "FALSE"}),
        "a disc's drive is removed": settings(**{"sata0:3__present": "FALSE"}),
        "its seed is out": settings(**{"sata0:2__fileName": ""}),
        "its seed is not connected": settings(**{"sata0:2__startConnected": "FALSE"}),
        "its seed's drive is removed": settings(**{"sata0:2__present": "FALSE"}),
        "its controller is out": settings(sata0__present="FALSE"),
        "its notes are others": settings(annotation="mine"),
        "its screen is open": settings(RemoteDisplay__vnc__enabled="TRUE"),
        "its serial port is removed": settings(serial0__present="FALSE"),
        "its serial port is another": settings(serial0__fileName="/run/serial"),
        "its serial port writes to a file": settings(serial0__fileType="file"),
        "its serial port is not connected": settings(serial0__startConnected="FALSE"),
        "a further disk is out": settings(**{"sata0:7__present": "FALSE"}),
        "a further disk is removed": lambda machine: machine.path(
            f"{HOME}/data-data.vmdk"
        ).unlink(),
        "its disk is removed": lambda machine: machine.path(f"{HOME}/disk.vmdk").unlink(),
    },
    texts={
        "name": lambda order, text: replace(order, name=text),
        "console.password": lambda order, text: replace(
            order, console=Console("vnc", "127.0.0.1", 5901, text)
        ),
    },
    arrived={
        "name": lambda machine, _: Path(next(iter(machine.state["running"]))).parent.name,
        "console.password": lambda machine, _: keys(machine.path(VMX).read_text()).get(
            "remotedisplay.vnc.password", ""
        ),
    },
    needs={
        "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
        "image": needs.medium("image", ".qcow2", QCOW2, medium.DRIVER, STORE),
        "nics": needs.network(network.DRIVER),
        "store": needs.store(STORE),
    },
    plain=plain,
    patience=PATIENCE,
)

CASES = [NAT, ISOLATED, MEDIUM, GUEST]
