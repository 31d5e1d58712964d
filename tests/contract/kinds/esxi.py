"""ESXi under the laws, on a stub of vim-cmd, vmkfstools and esxcli."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from components.kinds.esxi import medium, network
from components.kinds.esxi.install import PLACE
from components.reach.orders import DataDisk, Nic
from components.reach.vmx import parsed, rendered
from tests.contract import needs
from tests.contract.case import Case
from tests.support.commands import Machine
from tests.support.orders import MAC, guest_order, medium_order, network_order
from tests.support.stubs.esxi import Esxi

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder

STORE = PLACE.store
HOME = f"{STORE}/guests/web"
PATIENCE = {"components.kinds.esxi.vimcmd.STOP_POLL_S": 0.0}
CALLED = network.DRIVER.called(network_order())
ASKS = frozenset(
    {
        *("cat", "stat", "sha256sum", "vim-cmd vmsvc/getallvms", "vim-cmd vmsvc/power.getstate"),
        *(f"vim-cmd hostsvc/autostartmanager/get_{what}" for what in ("autostartseq", "defaults")),
        "esxcli network vswitch standard list",
        "esxcli --formatter=csv network vswitch standard portgroup list",
        # Has ESXi write to disk what it changed; here that is nothing.
        "auto-backup.sh",
    }
)
FRAMES = "its switches carry frames, and know no addresses"


def vmdk(gib: int) -> bytes:
    """A sparse disk as qemu-img writes it, as far as its header."""
    return b"KDMV" + (1).to_bytes(4, "little") + bytes(4) + (gib << 21).to_bytes(8, "little")


def host(folder: Path) -> Machine:
    """An ESXi with somebody else's switch and guest."""
    machine = Machine(folder, Esxi)
    Esxi.furnish(machine.path("/vmfs/volumes"))
    registered(machine, "theirs")
    with machine.changing() as state:
        state["switches"]["vSwitch1"] = {"uplinks": ["vmnic1"]}
    return machine


def for_guests(folder: Path, fault_exit: int) -> Machine:
    """An ESXi with media and port groups; whether its vim-cmd tells a failure by its exit code, too."""
    machine = host(folder)
    media = machine.path(f"{STORE}/media")
    media.mkdir(parents=True)
    (media / "other.iso").write_bytes(b"an ISO")
    (media / "base.vmdk").write_bytes(vmdk(2))
    for number in (1, 2):
        (media / f"web-seed-{number}.iso").write_bytes(b"a seed")
        (media / f"drivers-{number}.iso").write_bytes(b"drivers")
    with machine.changing() as state:
        state["fault_exit"] = fault_exit
        for name in ("lan-1", "inner-1"):
            state["groups"][name] = {"switch": "vSwitch0", "vlan": "0"}
    return machine


def registered(machine: Machine, name: str, folder: str = "") -> None:
    """Somebody's guest, made in the Host Client."""
    place = folder or name
    home = machine.path(Esxi.LABEL) / place
    home.mkdir(parents=True)
    (home / "any.vmx").write_text(
        f'config.version = "8"\nvirtualHW.version = "20"\ndisplayName = "{name}"\n'
    )
    with machine.changing() as state:
        number = str(100 + len(state["vms"]))
        vmx = f"{Esxi.UUID}/{place}/any.vmx"
        state["vms"][number] = {"vmx": vmx, "power": "Powered on", "valid": True}


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that ESXi counts on, what it has for all guests, and devices that are not there."""
    state = contents["state"]
    entries = state["autostart"]["entries"]
    starts = {number: how for number, how in entries.items() if how["action"].lower() != "none"}
    vms = {vm["vmx"]: vm | {"starts": starts.get(number)} for number, vm in state["vms"].items()}
    rest = {key: state[key] for key in ("switches", "groups")}
    files = {
        path: settings(text) if path.endswith(".vmx") else text
        for path, text in contents["files"].items()
        if text
    }
    return {"vms": vms, **rest, "files": files}


def settings(text: str) -> dict[str, str]:
    found = parsed(text)
    real = {key.rpartition(".")[0] for key, value in found.items() if on(key, value)}
    device = re.compile(r"((?:ethernet|pciBridge)\d+|(?:ide|sata|scsi)\d+(?::\d+)?)\.")
    return {
        key: value for key, value in found.items() if not (it := device.match(key)) or it[1] in real
    }


def on(key: str, value: str) -> bool:
    return key.endswith(".present") and value == "TRUE"


def changing(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        with machine.changing() as state:
            change(state)

    return harm


# Networks


def isolated(_: Path) -> NetworkOrder:
    return network_order(mode="isolated", dhcp=False, reservations=[])


def bridged(_: Path) -> NetworkOrder:
    return network_order(mode="bridge", dhcp=False, reservations=[])


def group(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["groups"][CALLED]
    return found


def own_switch(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["switches"][group(state)["switch"]]
    return found


def network_case(
    name: str,
    order: Callable[[Path], NetworkOrder],
    edits: dict[str, Any],
    harms: dict[str, Callable[[Machine], object]],
) -> Case[Machine, NetworkOrder]:
    addresses = ("subnet", "prefix", "gateway", "dhcp", "dhcp_start", "dhcp_end", "domain")
    fixed = dict.fromkeys((*addresses, "reservations"), FRAMES)
    if name == "isolated":
        fixed["bridge"] = "its switch is its own"
    return Case(
        f"esxi.network {name}",
        host,
        order,
        no_stranger="its port group's and its switch's names hold what stands for the owner",
        edits=edits,
        fixed=fixed,
        harms=harms
        | {
            "it is in a VLAN": changing(lambda state: group(state).update(vlan="7")),
            "it is on another switch": changing(
                lambda state: group(state).update(switch="vSwitch1")
            ),
            "it is removed": changing(lambda state: state["groups"].pop(CALLED)),
        },
        texts={"name": lambda order, text: replace(order, name=text)},
        arrived={"name": network_name},
        plain=plain,
        asks=ASKS,
        patience=PATIENCE,
    )


def network_name(machine: Machine, order: NetworkOrder) -> str:
    called = network.DRIVER.called(order)
    assert called in machine.state["groups"]
    return called.rpartition("-")[0]


ISOLATED = network_case(
    "isolated",
    isolated,
    edits={"mode": {"mode": "bridge", "bridge": ""}},
    harms={
        "its switch leads out": changing(lambda state: own_switch(state).update(uplinks=["vmnic1"])),
        "all of it is removed": changing(
            lambda state: (state["switches"].pop(group(state)["switch"]), state["groups"].pop(CALLED))
        ),
    },
)  # fmt: skip


BRIDGED = network_case(
    "bridge",
    bridged,
    edits={"mode": {"mode": "isolated"}, "bridge": "vSwitch1"},
    harms={},
)

# Media


def iso(folder: Path) -> MediumOrder:
    (folder / "live.iso").write_bytes(b"an ISO" * 100)
    return medium_order(folder / "live.iso", store=STORE)


def put(machine: Machine, content: bytes | None) -> None:
    file = machine.path(f"{STORE}/media/live.iso")
    file.unlink()
    if content is not None:
        file.write_bytes(content)


MEDIUM = Case(
    "esxi.medium",
    host,
    iso,
    no_stranger="the store is the lab's own",
    fixed=dict.fromkeys(("path", "sha256", "size", "private"), "another content, not a setting")
    | {"owner": "the store is the lab's own"},
    harms={
        "it is removed": partial(put, content=None),
        "half of it is left": partial(put, content=b"an ISO" * 50),
        "another is in its place": partial(put, content=b"no ISO" * 100),
    },
    texts={"name": lambda order, text: replace(order, name=f"{text}.iso")},
    arrived={
        "name": lambda machine, order: (
            machine.path(medium.DRIVER.called(order)).resolve(strict=True).stem
        )
    },
    sends=lambda machine: [call.command for call in machine.calls].count("put"),
    asks=ASKS,
    plain=plain,
)

# Guests

NIC = Nic("lan-1", MAC, "vmxnet3", "")


def from_iso(_: Path) -> GuestOrder:
    iso, seed = f"{STORE}/media/other.iso", f"{STORE}/media/web-seed-1.iso"
    discs = [f"{STORE}/media/drivers-1.iso"]
    disks = [DataDisk("data", 2)]
    order = replace(guest_order(), iso=iso, seed=seed, discs=discs, disks=disks)
    return replace(order, nics=[NIC], store=STORE)


def from_image(_: Path) -> GuestOrder:
    image = f"{STORE}/media/base.vmdk"
    order = guest_order(disk_bus="scsi", firmware="uefi", boot=["hd"], autostart=False)
    return replace(order, nics=[NIC], image=image, disk_gib=3, store=STORE)


def rewritten(**values: str | None) -> Callable[[Machine], None]:
    """Change the .vmx by hand; a dot is written as two underscores, a colon as three."""

    def harm(machine: Machine) -> None:
        file = machine.path(f"{HOME}/web.vmx")
        found = parsed(file.read_text())
        for key, value in values.items():
            name = key.replace("___", ":").replace("__", ".")
            if value is None:
                del found[name]
            else:
                found[name] = value
        file.write_text(rendered(found))

    return harm


def ours(state: dict[str, Any]) -> str:
    vms: dict[str, dict[str, Any]] = state["vms"]
    return next(number for number, vm in vms.items() if vm["vmx"].endswith("/web.vmx"))


def power(state: str) -> Callable[[Machine], None]:
    return changing(lambda known: known["vms"][ours(known)].update(power=state))


def unregistered(machine: Machine) -> None:
    with machine.changing() as state:
        number = ours(state)
        del state["vms"][number]
        state["autostart"]["entries"].pop(number, None)


def destroyed(machine: Machine) -> None:
    unregistered(machine)
    assert machine.shell().run(["rm", "-rf", HOME]).ok


def files_removed(machine: Machine) -> None:
    power("Powered off")(machine)
    assert machine.shell().run(["rm", "-rf", HOME]).ok


def vmx_removed(machine: Machine) -> None:
    power("Powered off")(machine)
    machine.path(f"{HOME}/web.vmx").unlink()


def guest_case(
    name: str,
    order: Callable[[Path], GuestOrder],
    edits: dict[str, Any],
    harms: dict[str, Callable[[Machine], object]],
) -> Case[Machine, GuestOrder]:
    return Case(
        f"esxi.guest {name}",
        partial(for_guests, fault_exit=int(order is from_image)),
        order,
        stranger=lambda machine: registered(machine, "web"),
        edits={
            "memory_mib": 1024,
            "cores": 1,
            "nics": [replace(NIC, model="e1000e"), Nic("inner-1", "52:54:00:00:00:0a", "e1000", "")],
            "autostart": order is from_image,
            "nested": True,
        }
        | edits,
        one_way={"disk_gib": 8}
        | ({} if order is from_image else {"disks": [DataDisk("data", 3)]}),
        fixed={
            "machine": "its virtual hardware is VMware's",
            "video": "its adapter is VMware's",
            "console": "its screen is the Host Client's",
            "ready": "who waits for it asks, not ESXi",
        },
        harms={
            "it is off": power("Powered off"),
            "it is suspended": power("Suspended"),
            "it is unregistered": unregistered,
            "its .vmx is removed": vmx_removed,
            "it is destroyed": destroyed,
            "its files are removed": files_removed,
            "its memory is another": rewritten(memSize="256"),
            "it is shown virtualization": rewritten(vhv__enable="TRUE"),
            "its MAC is another": rewritten(ethernet0__address="00:50:56:00:00:01"),
            "it has one more NIC": rewritten(
                ethernet3__present="TRUE", ethernet3__networkName="VM Network"
            ),
            "its serial port is out": rewritten(serial0__present="FALSE"),
            "its serial port is not connected": rewritten(serial0__startConnected="FALSE"),
            "its serial port writes elsewhere": rewritten(serial0__fileName=f"{STORE}/log"),
            "its serial port is on the network": rewritten(serial0__fileType="network"),
            "its serial port's log grows": rewritten(answer__msg__serial__file__open=None),
            "its mark is gone": rewritten(annotation="mine"),
            "it is renamed": rewritten(displayName="Web"),
        }
        | harms,
        texts={"name": lambda order, text: replace(order, name=text)},
        arrived={"name": shown},
        needs={
            "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
            "image": needs.medium("image", ".vmdk", vmdk(2), medium.DRIVER, STORE),
            "nics": needs.network(network.DRIVER, mode="isolated", dhcp=False),
            "store": needs.store(STORE),
        },
        plain=plain,
        asks=ASKS,
        patience=PATIENCE,
    )  # fmt: skip


def shown(machine: Machine, order: GuestOrder) -> str:
    name = order.name
    return parsed(machine.path(f"{STORE}/guests/{name}/{name}.vmx").read_text())["displayName"]


FROM_ISO = guest_case(
    "from an ISO",
    from_iso,
    edits={
        "boot": ["hd", "cdrom"],
        "iso": "",
        "seed": f"{STORE}/media/web-seed-2.iso",
        "no seed": {"seed": ""},
        "discs": [f"{STORE}/media/drivers-2.iso", f"{STORE}/media/drivers-1.iso"],
        "no discs": {"discs": []},
        "disks": [DataDisk("data", 2), DataDisk("logs", 1)],
        "no disks": {"disks": []},
    },
    harms={
        "its CD is out": rewritten(ide1___0__fileName=""),
        "a further disk is out": rewritten(sata0___6__present=None),
        "a further disk is removed": lambda machine: machine.path(
            f"{HOME}/web-data-data.vmdk"
        ).unlink(),
        "a disc is out": rewritten(sata0___2__fileName=""),
        "a disc is not connected": rewritten(sata0___2__startConnected="FALSE"),
        "a disc's drive is removed": rewritten(sata0___2__present=None),
        "its seed is out": rewritten(sata0___1__fileName=""),
        "its seed is not connected": rewritten(sata0___1__startConnected="FALSE"),
        "its seed's drive is removed": rewritten(sata0___1__present=None),
        "its seed is another guest's": rewritten(
            sata0___1__fileName=f"{STORE}/media/web-seed-2.iso"
        ),
        "its disk is unplugged": rewritten(sata0___0__present=None),
        "guests do not start with their host": changing(
            lambda state: state["autostart"].update(enabled=False)
        ),
    },
)
FROM_IMAGE = guest_case(
    "from an image",
    from_image,
    edits={
        "boot": ["hd", "cdrom"],
        "iso": f"{STORE}/media/other.iso",
        "seed": f"{STORE}/media/web-seed-1.iso",
        "discs": [f"{STORE}/media/drivers-1.iso"],
        "disks": [DataDisk("data", 2)],
    },
    harms={"its disk is unplugged": rewritten(scsi0___0__present=None)},
)

CASES = [ISOLATED, BRIDGED, MEDIUM, FROM_ISO, FROM_IMAGE]
