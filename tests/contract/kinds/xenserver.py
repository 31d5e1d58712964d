"""XCP-ng and XenServer under the laws, on a stub of xe."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.kinds.xenserver import medium, network
from components.kinds.xenserver.install import PLACE
from components.kinds.xenserver.names import label
from components.reach.orders import DataDisk, Nic
from tests.contract import needs
from tests.contract.case import Case
from tests.support.commands import Machine
from tests.support.orders import MAC, OWNER, guest_order, medium_order, network_order
from tests.support.stubs.xenserver import FIELDS, MIB, XenServer, by_uuid, machine
from tests.support.stubs.xenserver import network as net

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder

STORE = PLACE.store
PATIENCE = {
    # What one look saw the next one may not use: hosts change here from one moment to the other.
    "components.kinds.xenserver.facts.FRESH_S": -1.0,
}
ASKS = frozenset(
    {
        *(f"xe {what}-list" for what in (*FIELDS, "snapshot")),
        *("xe vm-param-get", "stat", "sha256sum", "ls"),
    }
)
STRANGER = "0000bbbb-0000-4000-8000-000000000001"
OURS = "-1111-4000-8000-000000000000"
"""How UUIDs end that the host has given since it was new."""


def host(folder: Path) -> Machine:
    """A host as it was installed, with somebody else's guest."""
    return Machine(folder, XenServer)


def for_guests(folder: Path) -> Machine:
    """A host with two networks, two ISOs and a disk image."""
    made = host(folder)
    files = folder / "sent"
    files.mkdir()
    for name, content in (
        ("live.iso", b"an ISO"),
        ("other.iso", b"2nd"),
        ("web-seed-1.iso", b"a seed"),
        ("x-seed-2.iso", b"a seed"),
        ("drivers.iso", b"drivers"),
        ("base.img", bytes(MIB)),
    ):
        (files / name).write_bytes(content)
        wanted = medium_order(
            files / name, store=STORE, owner=OWNER.replace("3f", name[0].encode().hex(), 1)
        )
        medium.DRIVER.ensure(made.shell(), wanted)
    for name, owner in (("own", "4f"), ("second", "5f")):
        wanted_net = network_order(
            name=name, mode="isolated", dhcp=False, owner=OWNER.replace("3f", owner, 1)
        )
        network.DRIVER.ensure(made.shell(), wanted_net)
    return made


def _without_empty_drives(state: dict[str, Any]) -> None:
    """One that held a disc once stays, as it can't be removed while its guest runs."""
    state["vbd"] = {
        uuid: each
        for uuid, each in state["vbd"].items()
        if not (each["userdevice"] == "3" and each["type"] == "CD" and each["empty"] == "true")
    }


def _without_defaults(state: dict[str, Any]) -> None:
    defaults = (
        ("HVM-boot-params", "firmware", "bios"),
        ("platform", "nic_type", "rtl8139"),
        ("other-config", "auto_poweron", "false"),
    )
    for vm in state["vm"].values():
        vm["other-config"].pop("mac_seed", None)
        for field, key, default in defaults:
            if vm[field].get(key) == default:
                del vm[field][key]
    for pool in state["pool"].values():
        # That guests start with their host at all stays, for those of others.
        pool["other-config"].pop("auto_poweron", None)


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """With names for the UUIDs that XAPI gave, without what it counts and what it has by default; folders stay."""
    state = contents["state"]
    del state["serial"]
    _without_defaults(state)
    _without_empty_drives(state)
    names: dict[str, str] = {}
    for what in ("sr", "network", "vm", "vdi"):
        for uuid, each in state[what].items():
            names[uuid] = f"{what} {each['name-label']} {each.get('location', '') != uuid}"
    for what, parts in (
        ("vbd", ("vm-uuid", "userdevice")),
        ("vif", ("vm-uuid", "device")),
        ("pbd", ("sr-uuid",)),
    ):
        for uuid, each in state[what].items():
            names[uuid] = " ".join([what, *(names.get(each[part], each[part]) for part in parts)])
    text = json.dumps(state)
    for uuid, name in names.items():
        if uuid.endswith(OURS):
            text = text.replace(json.dumps(uuid)[1:-1], json.dumps(name)[1:-1])
    files = {path: data for path, data in contents["files"].items() if data}
    return {"state": json.loads(text), "files": files}


def changing(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        with machine.changing() as state:
            change(state)

    return harm


def xe(*words: str) -> Callable[[Machine], None]:
    def do(machine: Machine) -> None:
        done = machine.shell().run(["xe", *words])
        assert done.ok, done.said

    return do


# Networks


def own_network(state: dict[str, Any]) -> dict[str, Any]:
    found = [each for uuid, each in state["network"].items() if uuid.endswith(OURS)]
    return dict(found[0]) if found else {}


def network_param(word: str) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        xe("network-param-set", f"uuid={own_network(machine.state)['uuid']}", word)(machine)

    return harm


def their_network(machine: Machine) -> None:
    with machine.changing() as state:
        state["network"] |= by_uuid(net(STRANGER, "own", "xapi8", "mine"))


NOTHING = "XAPI's own networks carry frames, and know no addresses"
ISOLATED: Case[Machine, NetworkOrder] = Case(
    "xenserver.network isolated",
    host,
    lambda _: network_order(mode="isolated", dhcp=False),
    asks=ASKS,
    stranger=their_network,
    fixed=dict.fromkeys(
        (
            *("bridge", "subnet", "prefix", "gateway", "dhcp", "dhcp_start", "dhcp_end"),
            *("domain", "reservations"),
        ),
        NOTHING,
    ),
    harms={
        "it is renamed": network_param("name-label=other"),
        "its mark is removed": network_param("other-config:nestlab="),
        "its description is another": network_param("name-description=mine"),
        "it is removed": lambda machine: xe(
            "network-destroy", f"uuid={own_network(machine.state)['uuid']}"
        )(machine),
    },
    texts={"name": lambda order, text: replace(order, name=text)},
    arrived={"name": lambda machine, _: str(own_network(machine.state)["name-label"])},
    plain=plain,
    patience=PATIENCE,
)

# Media


def iso(folder: Path) -> MediumOrder:
    (folder / "m.iso").write_bytes(b"content" * 100)
    return medium_order(folder / "m.iso", store=STORE)


def image(folder: Path) -> MediumOrder:
    (folder / "disk.img").write_bytes(bytes(510) + b"\x55\xaa" + bytes(MIB))
    return medium_order(folder / "disk.img", store=STORE)


def content(data: bytes) -> Callable[[Machine], object]:
    return lambda machine: machine.path(f"{STORE}/m.iso").write_bytes(data)


def repository(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in state["pbd"].values() if each["uuid"].endswith(OURS)
    )
    return found


def imported(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in machine.state["vdi"].values() if each["uuid"].endswith(OURS)
    )
    return found


def vanishes(machine: Machine) -> None:
    # Looked up first: whoever changes the machine keeps everybody else waiting.
    uuid = imported(machine)["uuid"]
    changing(lambda state: state["vdi"].pop(uuid))(machine)


FIXED = dict.fromkeys(("path", "sha256", "size", "private"), "another content, not a setting")
ISO: Case[Machine, MediumOrder] = Case(
    "xenserver.medium iso",
    host,
    iso,
    asks=ASKS,
    no_stranger="the store is the lab's own",
    fixed=FIXED,
    harms={
        "it is removed": lambda machine: machine.path(f"{STORE}/m.iso").unlink(),
        "half of it is left": content(b"content" * 50),
        "another is in its place": content(b"CONTENT" * 100),
        "its repository is unplugged": changing(
            lambda state: repository(state).update({"currently-attached": "false"})
        ),
        "its repository is removed": lambda machine: (
            xe("pbd-unplug", f"uuid={repository(machine.state)['uuid']}")(machine),
            xe("sr-forget", f"uuid={repository(machine.state)['sr-uuid']}")(machine),
        ),
    },
    texts={"name": lambda order, text: replace(order, name=f"{text}.iso")},
    arrived={"name": lambda machine, _: str(imported(machine)["location"]).removesuffix(".iso")},
    sends=lambda machine: [call.command for call in machine.calls].count("put"),
    plain=plain,
    patience=PATIENCE,
)
IMAGE: Case[Machine, MediumOrder] = Case(
    "xenserver.medium image",
    host,
    image,
    asks=ASKS,
    no_stranger="its label holds its owner",
    fixed=FIXED,
    harms={
        "it is removed": lambda machine: xe("vdi-destroy", f"uuid={imported(machine)['uuid']}")(
            machine
        ),
        "its mark is removed": lambda machine: xe(
            "vdi-param-set", f"uuid={imported(machine)['uuid']}", "other-config:nestlab="
        )(machine),
        "it is gone without a word": vanishes,
    },
    texts={"name": lambda order, text: replace(order, name=f"{text}.img")},
    arrived={
        "name": lambda machine, order: (
            str(imported(machine)["name-label"])
            .removesuffix(label(order).removeprefix(order.name))
            .removesuffix(".img")
        )
    },
    sends=lambda machine: [call.command for call in machine.calls].count("put"),
    plain=plain,
    patience=PATIENCE,
)

# Guests

NIC = Nic("own", MAC, "rtl8139", "10.78.0.9")


def guest(_: Path) -> GuestOrder:
    iso, seed = f"{STORE}/live.iso", f"{STORE}/web-seed-1.iso"
    discs, disks = [f"{STORE}/drivers.iso"], [DataDisk("data", 2)]
    order = replace(guest_order(), iso=iso, seed=seed, discs=discs, disks=disks)
    return replace(order, nics=[NIC], store=STORE, disk_bus="xen")


def from_image(_: Path) -> GuestOrder:
    return replace(
        guest_order(),
        nics=[NIC],
        image=f"{STORE}/base.img",
        store=STORE,
        disk_bus="xen",
        disk_gib=0,
    )


def own(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each
        for each in state["vm"].values()
        if each["other-config"].get("nestlab") == OWNER and each["is-a-snapshot"] == "false"
    )
    return found


def of(command: str, *words: str, first: str = "") -> Callable[[Machine], None]:
    """Give a command about the guest, after one of the kind ``first``."""

    def harm(machine: Machine) -> None:
        uuid = f"uuid={own(machine.state)['uuid']}"
        if first:
            xe(first, uuid, "--force")(machine)
        xe(command, uuid, *words)(machine)

    return harm


def device(what: str, key: str, number: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def find(state: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = next(
            each
            for each in state[what].values()
            if each["vm-uuid"] == own(state)["uuid"] and each[key] == number
        )
        return found

    return find


nic, drive, cd, seed, disc, data = (
    device("vif", "device", "0"),
    device("vbd", "userdevice", "0"),
    device("vbd", "userdevice", "1"),
    device("vbd", "userdevice", "2"),
    device("vbd", "userdevice", "3"),
    device("vbd", "userdevice", "4"),
)


def data_lost(machine: Machine) -> None:
    with machine.changing() as state:
        plug = data(state)
        state["vdi"].pop(plug["vdi-uuid"])
        state["vbd"].pop(plug["uuid"])


def disk_lost(machine: Machine) -> None:
    with machine.changing() as state:
        plug = drive(state)
        state["vdi"].pop(plug["vdi-uuid"])
        state["vbd"].pop(plug["uuid"])


def unplugged(machine: Machine) -> None:
    of("vm-shutdown", "--force")(machine)
    with machine.changing() as state:
        state["vbd"].pop(drive(state)["uuid"])


def their_guest(machine_: Machine) -> None:
    with machine_.changing() as state:
        state["vm"] |= by_uuid(machine(STRANGER, "web"))


MEMORY = ("static-min", "static-max", "dynamic-min", "dynamic-max")


def guest_case(name: str, order: Callable[[Path], GuestOrder]) -> Case[Machine, GuestOrder]:
    harms: dict[str, Callable[[Machine], object]] = {
        "it is off": of("vm-shutdown", "--force"),
        "it is suspended": of("vm-suspend"),
        "it is paused": of("vm-pause"),
        "its name is another": of("vm-param-set", "name-label=renamed"),
        "its boot order is another": of("vm-param-set", "HVM-boot-params:order=n"),
        "its firmware is another": of("vm-param-set", "HVM-boot-params:firmware=uefi"),
        "its adapter is another": of("vm-param-set", "platform:vga=cirrus"),
        "it is shown virtualization": of("vm-param-set", "platform:nested-virt=true"),
        "and by the older key": of("vm-param-set", "platform:exp-nested-hvm=1"),
        "its serial port is taken": of("vm-param-set", "platform:hvm_serial=none"),
        "it has none by the older key": of("vm-param-set", "other-config:hvm_serial=none"),
        "it does not start with its host": of("vm-param-set", "other-config:auto_poweron=false"),
        "nothing starts with its host": changing(
            lambda state: next(iter(state["pool"].values()))["other-config"].update(
                auto_poweron="false"
            )
        ),
        "its memory is another": of(
            "vm-memory-limits-set", *(f"{each}=268435456" for each in MEMORY), first="vm-shutdown"
        ),
        "its cores are others": of("vm-param-set", "VCPUs-at-startup=1", first="vm-shutdown"),
        "its MAC is another": changing(lambda state: nic(state).update(MAC="02:00:00:00:00:01")),
        "its NIC is out": changing(lambda state: state["vif"].pop(nic(state)["uuid"])),
        "its disk is out": unplugged,
        "its disk is removed": disk_lost,
        "it is removed": lambda machine: (
            of("vm-destroy", first="vm-shutdown")(machine),
            changing(
                lambda state: [
                    state["vdi"].pop(uuid)
                    for uuid, each in list(state["vdi"].items())
                    if each["name-label"] == label(order(machine.folder))
                ]
            )(machine),
        ),
    }
    if order is guest:
        harms |= {
            "its CD is out": lambda machine: xe("vbd-eject", f"uuid={cd(machine.state)['uuid']}")(
                machine
            ),
            "its seed is out": lambda machine: xe(
                "vbd-eject", f"uuid={seed(machine.state)['uuid']}"
            )(machine),
            "its seed is another guest's": changing(
                lambda state: seed(state).update({"vdi-uuid": cd(state)["vdi-uuid"]})
            ),
            "its seed's drive is removed": changing(
                lambda state: state["vbd"].pop(seed(state)["uuid"])
            ),
            "a further disk is out": changing(lambda state: state["vbd"].pop(data(state)["uuid"])),
            "a further disk is removed": data_lost,
            "a disc is out": lambda machine: xe("vbd-eject", f"uuid={disc(machine.state)['uuid']}")(
                machine
            ),
            "a disc is another": changing(
                lambda state: disc(state).update({"vdi-uuid": cd(state)["vdi-uuid"]})
            ),
        }
    return Case(
        f"xenserver.guest {name}",
        for_guests,
        order,
        asks=ASKS,
        stranger=their_guest,
        edits={
            "memory_mib": 1024,
            "cores": 4,
            "firmware": "uefi",
            "video": "cirrus",
            "boot": ["hd", "cdrom", "network"],
            "nics": [
                replace(NIC, model="e1000"),
                Nic("second", "52:54:00:00:00:0b", "e1000", ""),
            ],
            "autostart": False,
            "nested": True,
            **({"iso": f"{STORE}/other.iso"} if order is guest else {}),
            "seed": f"{STORE}/x-seed-2.iso",
            "no seed" if order is guest else "another seed": {
                "seed": "" if order is guest else f"{STORE}/web-seed-1.iso"
            },
            "discs": [f"{STORE}/other.iso"],
            "disks": [DataDisk("data", 2), DataDisk("logs", 1)],
            "no disks" if order is guest else "other disks": {
                "disks": [] if order is guest else [DataDisk("data", 1)]
            },
            "no discs" if order is guest else "other discs": {
                "discs": [] if order is guest else [f"{STORE}/drivers.iso"]
            },
        },
        one_way={"disk_gib": 6} | ({"disks": [DataDisk("data", 3)]} if order is guest else {}),
        fixed={
            "disk_bus": "XAPI has its own",
            "machine": "and its own board",
            "console": "its screens are XAPI's",
            "ready": "who waits for it asks, not XAPI",
            "store": "where its medium is says its path",
            **({} if order is guest else {"iso": "that of the other case"}),
        },
        harms=harms,
        texts={
            "name": lambda order, text: replace(order, name=text),
        },
        arrived={"name": lambda machine, _: str(own(machine.state)["name-label"])},
        needs={
            "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
            "nics": needs.network(network.DRIVER, mode="isolated", dhcp=False),
        }
        if order is guest
        else {"image": needs.medium("image", ".img", bytes(MIB), medium.DRIVER, STORE)},
        plain=plain,
        patience=PATIENCE,
    )


CASES = [ISOLATED, ISO, IMAGE, guest_case("iso", guest), guest_case("image", from_image)]
