"""Xen under the laws, on a stub of xl with networkd, dnsmasq's unit and iproute2 beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.kinds.xen import medium, network
from components.kinds.xen.guest import AUTO, folder
from components.reach.orders import DataDisk, Nic, Reservation
from tests.contract import needs
from tests.contract.case import Case
from tests.support.commands import Machine
from tests.support.orders import MAC, OWNER, guest_order, medium_order, network_order
from tests.support.stubs.xen import NETWORKD, STORE, Xen

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder

PATIENCE = {f"components.kinds.xen.guest.{name}": 0.0 for name in ("STOP_S", "GONE_S")}
ASKS = frozenset(
    {
        *("cat", "readlink", "stat", "sha256sum", "xl list"),
        *("systemctl is-active", "systemctl is-enabled"),
        *("ip -o -4 addr show", "ip -j -4 rule show", "ip link show"),
        # What is as it should be they leave so.
        *("networkctl reload", "systemctl enable", "systemctl start"),
    }
)
BRIDGE, SECOND = "nl0123456789", "nl0000000002"
THEIRS = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c09"
DHCP = f"/etc/dnsmasq.d/{BRIDGE}.conf"


def host(at: Path) -> Machine:
    """A host with somebody else's guest, whose bridge is theirs too."""
    machine = Machine(at, Xen)
    for place in (NETWORKD, "/etc/dnsmasq.d", "/etc/xen", "/var/lib/misc", f"{STORE}/theirs"):
        machine.path(place).mkdir(parents=True, exist_ok=True)
    with machine.changing() as state:
        state["links"]["virbr7"] = {"addresses": ["10.1.0.1/24"], "network": ""}
    machine.path(f"{STORE}/theirs/disk.img").write_bytes(b"a disk")
    their_guest(machine, "theirs", THEIRS)
    return machine


def their_guest(machine: Machine, name: str, uuid: str) -> None:
    text = (
        f'name = "{name}"\nuuid = "{uuid}"\ntype = "pv"\nmemory = 128\nvcpus = 1\n'
        'kernel = "/usr/lib/grub-xen/grub-x86_64-xen.bin"\n'
        f'disk = ["file:{STORE}/theirs/disk.img,xvda,w"]\nvif = ["mac=00:16:3e:00:00:01,bridge=virbr7"]\n'
        'on_reboot = "restart"\n'
    )
    machine.path(f"{STORE}/theirs/guest.cfg").write_text(text)
    assert machine.shell().run(["xl", "create", f"{STORE}/theirs/guest.cfg"]).ok


def for_guests(at: Path) -> Machine:
    """A host with two networks, an ISO and a disk image."""
    machine = host(at)
    for bridge, net in ((BRIDGE, "10.78.0"), (SECOND, "10.79.0")):
        network.DRIVER.ensure(
            machine.shell(),
            network_order(
                bridge=bridge, subnet=f"{net}.0/24", gateway=f"{net}.1", reservations=[],
                dhcp_start=f"{net}.2", dhcp_end=f"{net}.254",
            ),
        )  # fmt: skip
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    for number in (1, 2):
        machine.path(f"{STORE}/web-seed-{number}.iso").write_bytes(b"a seed")
    machine.path(f"{STORE}/drivers.iso").write_bytes(b"drivers")
    machine.path(f"{STORE}/base.raw").write_bytes(b"a disk")
    return machine


def plain(contents: dict[str, Any]) -> dict[str, Any]:
    """Without Xen's numbers of domains, and units that are off; folders stay."""
    state, files = contents["state"], contents["files"]
    del state["last"]
    numbers = {number: one["config"]["c_info"]["uuid"] for number, one in state["domains"].items()}
    state["domains"] = {numbers[number]: one for number, one in state["domains"].items()}
    for number, uuid in numbers.items():
        one = state["domains"][uuid]
        one["vifs"] = [each.replace(f"vif{number}.", "vif.") for each in one["vifs"]]
        for each in list(state["links"]):
            if each.startswith(f"vif{number}."):
                named = each.replace(f"vif{number}.", f"vif-{uuid}.")
                state["links"][named] = state["links"].pop(each)
        files = {path.replace(f"/vif{number}.", f"/vif-{uuid}."): it for path, it in files.items()}
    state["units"] = {name: one for name, one in state["units"].items() if any(one.values())}
    return {"state": state, "files": {path: text for path, text in files.items() if text}}


# Networks


def changing(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        with machine.changing() as state:
            change(state)

    return harm


def without(path: str) -> Callable[[Machine], None]:
    return lambda machine: machine.path(path).unlink()


def written(path: str, old: str, new: str) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        text = machine.path(path).read_text()
        assert old in text
        machine.path(path).write_text(text.replace(old, new))

    return harm


def their_bridge(machine: Machine) -> None:
    with machine.changing() as state:
        state["links"][BRIDGE] = {"addresses": ["10.1.0.1/24"], "network": ""}


def network_case(mode: str, **other: Any) -> Case[Machine, NetworkOrder]:
    elsewhere = {
        "subnet": "10.79.0.0/24",
        "gateway": "10.79.0.1",
        "dhcp_start": "10.79.0.2",
        "dhcp_end": "10.79.0.254",
        "reservations": [Reservation(MAC, "10.79.0.9", "web")],
    }
    return Case(
        f"xen.network {mode}",
        host,
        lambda _: network_order(mode=mode, bridge=BRIDGE),
        asks=ASKS,
        stranger=their_bridge,
        edits={
            "mode": "isolated" if mode == "nat" else "nat",
            "subnet": elsewhere,
            "prefix": {"subnet": "10.78.0.0/25", "prefix": 25, "dhcp_end": "10.78.0.126"},
            "gateway": "10.78.0.200",
            "dhcp": {"dhcp": False, "reservations": []},
            "dhcp_start": "10.78.0.5",
            "dhcp_end": "10.78.0.200",
            "domain": "lab.test",
            "reservations": [Reservation("52:54:00:00:00:0a", "10.78.0.10", "x")],
        },
        harms={
            "its bridge is removed": changing(lambda state: state["links"].pop(BRIDGE)),
            "its address is lost": changing(
                lambda state: state["links"][BRIDGE].update(addresses=[])
            ),
            "its address is another": changing(
                lambda state: state["links"][BRIDGE].update(addresses=["10.78.0.3/24"])
            ),
            **(
                {
                    "its rules are lost": changing(
                        lambda state: state["links"][BRIDGE].update(rules=[])
                    )
                }
                if mode == "isolated"
                else {}
            ),
            "its server is stopped": changing(
                lambda state: state["units"][f"dnsmasq@{BRIDGE}"].update(active=False)
            ),
            "its server does not start with its host": changing(
                lambda state: state["units"][f"dnsmasq@{BRIDGE}"].update(enabled=False)
            ),
            "its server's file is removed": without(DHCP),
            "a lease is another": written(DHCP, "10.78.0.9", "10.78.0.8"),
            "what makes its bridge is removed": without(f"{NETWORKD}/20-{BRIDGE}.netdev"),
            "its settings are removed": without(f"{NETWORKD}/20-{BRIDGE}.network"),
        },
        texts={
            "name": lambda order, text: replace(order, name=text),
            "bridge": lambda order, text: replace(order, bridge=text),
            "domain": lambda order, text: replace(order, domain=text),
            "reservations.name": lambda order, text: replace(
                order, reservations=[Reservation(MAC, "10.78.0.9", text)]
            ),
        },
        arrived={
            "bridge": lambda machine, _: next(
                each for each in machine.state["links"] if each not in {"eth0", "virbr7", "vif1.0"}
            ),
            "domain": lambda machine, order: _line(machine, order, "domain="),
            "reservations.name": lambda machine, order: _line(
                machine, order, f"dhcp-host={MAC},10.78.0.9,"
            ),
        },
        plain=plain,
        patience=PATIENCE,
        **other,
    )


def _line(machine: Machine, order: NetworkOrder, start: str) -> str:
    """Return how the line of dnsmasq's file goes on that begins with ``start``."""
    lines: list[str] = machine.path(f"/etc/dnsmasq.d/{order.bridge}.conf").read_text().split("\n")
    return "\n".join(each.removeprefix(start) for each in lines if each.startswith(start))


# Media


def medium_case(name: str) -> Case[Machine, MediumOrder]:
    content = b"content" * 100

    def order(at: Path) -> MediumOrder:
        (at / name).write_bytes(content)
        return medium_order(at / name, store=STORE)

    def holds(data: bytes) -> Callable[[Machine], object]:
        return lambda machine: machine.path(f"{STORE}/{name}").write_bytes(data)

    ending = Path(name).suffix
    return Case(
        f"xen.medium {ending[1:]}",
        host,
        order,
        asks=ASKS,
        no_stranger="the store is the lab's own",
        fixed=dict.fromkeys(
            ("path", "sha256", "size", "private"), "another content, not a setting"
        ),
        harms={
            "it is removed": without(f"{STORE}/{name}"),
            "half of it is left": holds(content[:50]),
            "another is in its place": holds(content.upper()),
        },
        texts={"name": lambda order, text: replace(order, name=text + ending)},
        arrived={
            "name": lambda machine, order: machine.path(
                medium.DRIVER.called(order)
            ).name.removesuffix(ending)
        },
        sends=lambda machine: [call.command for call in machine.calls].count("put"),
        plain=plain,
        patience=PATIENCE,
    )


# Guests

NIC = Nic(BRIDGE, MAC, "netfront", "10.78.0.9")


def guest(_: Path) -> GuestOrder:
    return replace(
        guest_order(),
        nics=[NIC],
        iso=f"{STORE}/live.iso",
        seed=f"{STORE}/web-seed-1.iso",
        discs=[f"{STORE}/drivers.iso"],
        disks=[DataDisk("data", 1)],
        store=STORE,
        disk_bus="xen",
        disk_gib=1,
    )


HOME = folder(guest(Path()))


def number(state: dict[str, Any]) -> str:
    domains: dict[str, dict[str, Any]] = state["domains"]
    return next(
        number for number, one in domains.items() if one["config"]["c_info"]["uuid"] == OWNER
    )


def with_domain(change: Callable[[dict[str, Any]], object]) -> Callable[[Machine], None]:
    return changing(lambda state: change(state["domains"][number(state)]))


def xl(word: str) -> Callable[[Machine], None]:
    def harm(machine: Machine) -> None:
        assert machine.shell().run(["xl", word, number(machine.state)]).ok

    return harm


def unplugged(machine: Machine) -> None:
    machine.path(f"/sys/class/net/vif{number(machine.state)}.0/master").unlink()


def domain(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = machine.state["domains"][number(machine.state)]["config"]
    return found


GUEST: Case[Machine, GuestOrder] = Case(
    "xen.guest",
    for_guests,
    guest,
    asks=ASKS,
    stranger=lambda machine: their_guest(machine, "web", "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c0a"),
    edits={
        "memory_mib": 768,
        "cores": 4,
        "nics": [replace(NIC, model=""), Nic(SECOND, "52:54:00:00:00:0b", "", "")],
        "iso": "",
        "seed": f"{STORE}/web-seed-2.iso",
        "no seed": {"seed": ""},
        "discs": [f"{STORE}/web-seed-1.iso"],
        "disks": [DataDisk("data", 1), DataDisk("logs", 2)],
        "no disks": {"disks": []},
        "other discs": {"discs": [f"{STORE}/drivers.iso", f"{STORE}/live.iso"]},
        "autostart": False,
    },
    one_way={"disks": [DataDisk("data", 3)]},
    fixed={
        "disk_bus": "PV guests have Xen's own",
        "firmware": "and PV GRUB",
        "machine": "and no board",
        "video": "nor an adapter",
        "boot": "PV GRUB looks at the disk first",
        "console": "text, of xl console",
        "ready": "who waits for it asks, not Xen",
        "nested": "the stack file refuses it: PV guests see no hardware virtualization",
    },
    harms={
        "it is off": xl("destroy"),
        "it is paused": xl("pause"),
        "it has crashed": with_domain(lambda one: one.update(state="---sc-")),
        "it is dying": with_domain(lambda one: one.update(state="-----d")),
        "its memory is another": with_domain(
            lambda one: one["config"]["b_info"].update(target_memkb=1024)
        ),
        "its cores are others": with_domain(
            lambda one: one["config"]["b_info"].update(max_vcpus=1)
        ),
        "its name is another": with_domain(
            lambda one: one["config"]["c_info"].update(name="renamed")
        ),
        "its NIC is out": with_domain(lambda one: one["config"].pop("nics")),
        "its seed is out": with_domain(lambda one: one["config"]["disks"].pop(2)),
        "a disc is out": with_domain(lambda one: one["config"]["disks"].pop(3)),
        "a further disk is out": with_domain(lambda one: one["config"]["disks"].pop()),
        "a further disk is removed": without(f"{HOME}/data-data.img"),
        "a disc is another": with_domain(
            lambda one: one["config"]["disks"][3].update(pdev_path=f"{STORE}/live.iso")
        ),
        "its seed is another guest's": with_domain(
            lambda one: one["config"]["disks"][2].update(pdev_path=f"{STORE}/web-seed-2.iso")
        ),
        "its disks are out": with_domain(lambda one: one["config"].pop("disks")),
        "it is on no bridge": unplugged,
        "its settings are others": written(f"{HOME}/guest.cfg", "vcpus = 2", "vcpus = 3"),
        "its settings are removed": without(f"{HOME}/guest.cfg"),
        "its disk is removed": without(f"{HOME}/disk.img"),
        "its disk is half made": without(f"{HOME}/disk.complete"),
        "it does not start with its host": without(f"{AUTO}/{OWNER}.cfg"),
    },
    texts={
        "name": lambda order, text: replace(order, name=text),
        "nics.mac": lambda order, text: replace(order, nics=[replace(NIC, mac=text)]),
    },
    arrived={
        "name": lambda machine, _: str(domain(machine)["c_info"]["name"]),
        "nics.mac": lambda machine, _: str(domain(machine)["nics"][0]["mac"]),
    },
    needs={
        "iso": needs.medium("iso", ".iso", b"an ISO", medium.DRIVER, STORE),
        "image": needs.medium("image", ".raw", b"a disk", medium.DRIVER, STORE),
        "nics": needs.network(network.DRIVER, "bridge"),
        "store": needs.store(STORE),
    },
    plain=plain,
    patience=PATIENCE,
)
CASES = [
    network_case("nat"),
    network_case("isolated"),
    medium_case("live.iso"),
    medium_case("base.raw"),
    GUEST,
]
