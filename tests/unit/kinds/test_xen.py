"""Xen by xl: guests, networks and media on a stub of it that refuses what it refuses.

A failure here is a guest that is made twice or not mended, a stranger's that is touched, or a name that
ends in xl's settings as something else. A real Xen is in tests/host/test_xen.py.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from components.gates.codec import write
from components.gates.probes import Probe
from components.kinds.xen import guest as guests
from components.kinds.xen import install as kind
from components.kinds.xen.guest import AUTO, GuestDriver, configuration, folder
from components.kinds.xen.medium import DRIVER as MEDIUM
from components.kinds.xen.network import NetworkDriver
from components.kinds.xen.xl import domains
from components.reach.driver import DriverError, driver_of
from components.reach.media import FileMediumDriver
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
from components.stackfile import load
from components.stackfile.problems import SpecError
from tests.support.commands import Machine, every_failure
from tests.support.orders import order
from tests.support.stubs.xen import STORE, Xen
from tests.unit.components.labs import ROOT, up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.engine import Recorder

GUEST, NETWORK = GuestDriver(), NetworkDriver()
OWNER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c01"
NET = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c02"
OTHER = "3f8f6a80-5c4f-4a0b-9f0e-0a6f5d2d1c03"
MAC = "52:54:00:00:00:09"
BRIDGE = "nl0123456789"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "STOP_S", 0.0)
    monkeypatch.setattr(guests, "GONE_S", 0.0)


@pytest.fixture(scope="module")
def machine_(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("xen"), Xen)


@pytest.fixture
def machine(machine_: Machine) -> Machine:
    return new(machine_)


def new(machine: Machine) -> Machine:
    machine.reset()
    for place in ("systemd/network", "dnsmasq.d", "xen"):
        machine.path(f"/etc/{place}").mkdir(parents=True, exist_ok=True)
    return machine


def network(**other: Any) -> NetworkOrder:
    plain: dict[str, Any] = {
        "name": "own",
        "mode": "nat",
        "bridge": BRIDGE,
        "subnet": "10.78.0.0/24",
        "prefix": 24,
        "gateway": "10.78.0.1",
        "dhcp": True,
        "dhcp_start": "10.78.0.2",
        "dhcp_end": "10.78.0.254",
        "domain": "",
        "reservations": [{"mac": MAC, "address": "10.78.0.9", "name": "web"}],
        "owner": NET,
    }
    return order(NetworkOrder, plain | other)


def guest(**other: Any) -> GuestOrder:
    plain: dict[str, Any] = {
        "name": "web",
        "memory_mib": 512,
        "cores": 2,
        "disk_gib": 1,
        "disk_bus": "xen",
        "nics": [{"network": BRIDGE, "mac": MAC, "model": "netfront", "address": "10.78.0.9"}],
        "iso": f"{STORE}/live.iso",
        "image": "",
        "autostart": True,
        "ready": {"probe": "none", "host": "", "port": 0},
        "store": STORE,
        "owner": OWNER,
    }
    return order(GuestOrder, plain | other)


def ready(machine: Machine) -> Machine:
    """Make a host that has a network, an ISO and a disk image for guests."""
    NETWORK.ensure(new(machine).shell(), network())
    machine.path(STORE).mkdir(parents=True)
    machine.path(f"{STORE}/live.iso").write_bytes(b"an ISO")
    machine.path(f"{STORE}/base.raw").write_bytes(b"a disk")
    return machine


def made(machine: Machine, **other: Any) -> Machine:
    GUEST.ensure(ready(machine).shell(), guest(**other))
    return machine


def domain(machine: Machine) -> dict[str, Any]:
    [found] = machine.state["domains"].values()
    return dict(found)


def again(machine: Machine) -> Callable[[], Machine]:
    """Return what makes ``machine`` as it is now, without giving all the commands once more."""
    state, tree = machine.state, machine.folder / "kept"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(machine.folder / "root", tree, symlinks=True)

    def restore() -> Machine:
        machine.reset()
        shutil.copytree(tree, machine.folder / "root", dirs_exist_ok=True, symlinks=True)
        with machine.changing() as found:
            found.clear()
            found.update(state)
        return machine

    return restore


def test_the_three_drivers_are_known_by_their_names() -> None:
    found = [driver_of(f"xen.{what}") for what in ("network", "medium", "guest")]
    assert [type(each) for each in found] == [NetworkDriver, FileMediumDriver, GuestDriver]


def test_what_xl_lists_is_read_without_dom0() -> None:
    told = (
        "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID\n"
        "Domain-0                                     0  1536     2     r-----     210.2 "
        "00000000-0000-0000-0000-000000000000        -                -\n"
        f"web                                          1   256     1     --p---      11.1 {OWNER}"
        "        -                -\n"
        f"(null)                                       2     0     1     ------       0.0 {OTHER}\n"
    )
    found = domains(told)
    assert [(one.name, one.number, one.word) for one in found] == [
        ("web", 1, "paused"),
        ("(null)", 2, "running"),
    ]


# Networks ----------------------------------------------------------------------------------------


def test_a_nat_network_is_a_bridge_whose_dnsmasq_hands_out_the_planned_addresses(
    machine: Machine,
) -> None:
    NETWORK.ensure(machine.shell(), network(domain="lab.test"))
    assert machine.state["links"][BRIDGE]["addresses"] == ["10.78.0.1/24"]
    assert machine.state["units"][f"dnsmasq@{BRIDGE}"] == {"active": True, "enabled": True}
    conf = machine.path(f"/etc/dnsmasq.d/{BRIDGE}.conf").read_text()
    assert f"dhcp-host={MAC},10.78.0.9,web\n" in conf
    assert "domain=lab.test" in conf
    assert "option:router" not in conf
    text = machine.path(f"/etc/systemd/network/20-{BRIDGE}.network").read_text()
    assert "IPMasquerade=ipv4" in text
    assert "prohibit" not in text
    assert NETWORK.look(machine.shell(), network(domain="lab.test")).ok
    assert NETWORK.called(network()) == BRIDGE


def test_a_bridge_that_was_half_set_is_set_again(machine: Machine) -> None:
    """As on a busy host, whose systemd-networkd was told of another network in the middle of this one."""
    with machine.changing() as state:
        state["halves"] = True
    NETWORK.ensure(machine.shell(), network(mode="isolated"))
    assert ["networkctl", "reconfigure", BRIDGE] in [call.words for call in machine.calls]
    assert NETWORK.look(machine.shell(), network(mode="isolated")).ok
    with machine.changing() as state:
        del state["links"][BRIDGE]["rules"][1]
    seen = NETWORK.look(machine.shell(), network(mode="isolated"))
    assert not seen.ok
    assert (
        "is routed: its host has no rule `from all to 10.78.0.0/24 iif lo lookup main`" in seen.text
    )


def test_an_isolated_network_is_routed_nowhere(machine: Machine) -> None:
    NETWORK.ensure(machine.shell(), network(mode="isolated"))
    text = machine.path(f"/etc/systemd/network/20-{BRIDGE}.network").read_text()
    assert "IPMasquerade" not in text
    assert f"IncomingInterface={BRIDGE}\nType=prohibit" in text
    assert "To=10.78.0.0/24\nType=prohibit" in text
    assert (
        "dhcp-option=option:router\n" in machine.path(f"/etc/dnsmasq.d/{BRIDGE}.conf").read_text()
    )


def test_a_strangers_bridge_is_left_alone(machine: Machine) -> None:
    with machine.changing() as state:
        state["links"][BRIDGE] = {"addresses": ["10.1.0.1/24"], "network": ""}
    with pytest.raises(DriverError, match="is not this lab's and is left alone"):
        NETWORK.ensure(machine.shell(), network())
    file = machine.path(f"/etc/systemd/network/20-{BRIDGE}.network")
    file.write_text(f"# nestlab {OTHER}\n")
    with pytest.raises(DriverError, match="is not this lab's and is left alone"):
        NETWORK.ensure(machine.shell(), network())
    NETWORK.remove(machine.shell(), network())
    assert file.read_text() == f"# nestlab {OTHER}\n"
    assert machine.state["links"][BRIDGE]["addresses"] == ["10.1.0.1/24"]


# Media -------------------------------------------------------------------------------------------


def test_a_medium_is_sent_once_and_again_when_it_is_damaged(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "live.iso").write_bytes(b"an ISO")
    wanted = MediumOrder(
        name="live.iso",
        path=str(tmp_path / "live.iso"),
        sha256="",
        size=6,
        store=STORE,
        owner=NET,
    )
    shell = machine.shell()
    every_failure(
        lambda: new(machine),
        lambda it: MEDIUM.ensure(it.shell(), wanted),
        lambda it: MEDIUM.look(it.shell(), wanted).ok or pytest.fail("not there"),
    )
    MEDIUM.ensure(new(machine).shell(), wanted)
    before = len(machine.calls)
    MEDIUM.ensure(shell, wanted)
    assert "put" not in [call.command for call in machine.calls[before:]]
    machine.path(f"{STORE}/live.iso").write_bytes(b"an")
    assert "has 2 bytes" in MEDIUM.glance(shell, wanted).text
    MEDIUM.ensure(shell, wanted)
    assert machine.path(MEDIUM.called(wanted)).read_bytes() == b"an ISO"
    with pytest.raises(DriverError, match="is damaged or another file"):
        MEDIUM.ensure(shell, replace(wanted, sha256="0" * 64))
    MEDIUM.remove(shell, wanted)
    assert not machine.path(f"{STORE}/live.iso").exists()
    assert "raw disks only" in MEDIUM.problem(replace(wanted, name="base.qcow2"))


# Guests ------------------------------------------------------------------------------------------


def test_a_guest_is_made_once_with_all_that_it_has(machine: Machine) -> None:
    made(machine)
    config = domain(machine)["config"]
    assert config["c_info"] == {"type": "pv", "name": "web", "uuid": OWNER}
    assert [(one["vdev"], one["pdev_path"]) for one in config["disks"]] == [
        ("xvda", f"{folder(guest())}/disk.img"),
        ("xvdb", f"{STORE}/live.iso"),
    ]
    assert machine.path(f"{folder(guest())}/disk.img").stat().st_size == 1 << 30
    assert machine.path(f"{AUTO}/{OWNER}.cfg").read_text() == configuration(guest())
    assert GUEST.look(machine.shell(), guest()).ok
    before = len(machine.calls)
    GUEST.ensure(machine.shell(), guest())
    changing = {"put", "mkdir", "rm", "truncate", "touch", "ln"}
    assert not changing & {call.command for call in machine.calls[before:]}
    assert machine.state["last"] == 1


def test_a_disk_from_an_image_is_a_copy_that_grows_and_never_shrinks(machine: Machine) -> None:
    made(machine, image=f"{STORE}/base.raw", iso="", autostart=False)
    disk = machine.path(f"{folder(guest())}/disk.img")
    with disk.open("rb") as handle:
        assert handle.read(6) == b"a disk"
    assert disk.stat().st_size == 1 << 30
    assert not machine.path(f"{AUTO}/{OWNER}.cfg").is_symlink()
    with machine.path(f"{STORE}/base.raw").open("r+b") as handle:
        handle.truncate(3 << 30)
    GUEST.remove(machine.shell(), guest())
    with pytest.raises(DriverError, match="disk_gib says 1 GiB"):
        GUEST.ensure(machine.shell(), guest(image=f"{STORE}/base.raw"))


@pytest.mark.parametrize("polite", [True, False])
def test_a_guest_passes_every_failure(machine_: Machine, polite: bool) -> None:
    other = guest(memory_mib=768, autostart=False, iso="")

    def one(machine: Machine, of: Any) -> None:
        assert GUEST.look(machine.shell(), of).ok
        assert len(machine.state["domains"]) == 1
        assert len(machine.state["links"]) == 3

    def nothing(machine: Machine) -> None:
        assert machine.state["domains"] == {}
        assert not machine.path(folder(guest())).exists()
        assert not machine.path(f"{AUTO}/{OWNER}.cfg").is_symlink()

    ready(machine_)
    with machine_.changing() as state:
        state["polite"] = polite
    fresh = again(machine_)
    if polite:
        every_failure(
            fresh, lambda it: GUEST.ensure(it.shell(), guest()), lambda it: one(it, guest())
        )
    fresh()
    GUEST.ensure(machine_.shell(), guest())
    machine_.path(f"{folder(guest())}/disk.img").write_bytes(b"precious")
    existing = again(machine_)

    def kept(machine: Machine) -> None:
        one(machine, other)
        assert machine.path(f"{folder(guest())}/disk.img").read_bytes() == b"precious"

    every_failure(existing, lambda it: GUEST.ensure(it.shell(), other), kept)
    every_failure(existing, lambda it: GUEST.remove(it.shell(), guest()), nothing)


def _off(machine: Machine) -> str:
    machine.shell().run(["xl", "destroy", "web"])
    return "is shut off"


def _paused(machine: Machine) -> str:
    machine.shell().run(["xl", "pause", "web"])
    return "is paused"


def _crashed(machine: Machine) -> str:
    with machine.changing() as state:
        state["domains"]["1"]["state"] = "---sc-"
    return "is crashed"


def _memory(machine: Machine) -> str:
    with machine.changing() as state:
        state["domains"]["1"]["config"]["b_info"]["target_memkb"] = 1024
    return "memory (KiB): 1024"


def _nic(machine: Machine) -> str:
    with machine.changing() as state:
        del state["domains"]["1"]["config"]["nics"]
    return "NICs: []"


def _name(machine: Machine) -> str:
    with machine.changing() as state:
        state["domains"]["1"]["config"]["c_info"]["name"] = "other"
    return "name: other"


def _settings(machine: Machine) -> str:
    machine.path(f"{folder(guest())}/guest.cfg").write_text("memory = 1\n")
    return "its settings were changed"


def _gone(machine: Machine) -> str:
    machine.shell().run(["xl", "destroy", "web"])
    shutil.rmtree(machine.path(folder(guest())))
    return "is not there any more"


def _disk(machine: Machine) -> str:
    machine.path(f"{folder(guest())}/disk.img").unlink()
    return "has lost its disk"


def _link(machine: Machine) -> str:
    machine.path(f"{AUTO}/{OWNER}.cfg").unlink()
    return "starts with its host"


def _bridge(machine: Machine) -> str:
    machine.shell().run(["ip", "link", "delete", "dev", BRIDGE])
    NETWORK.ensure(machine.shell(), network())
    return "is not plugged into its network (vif1.0)"


@pytest.mark.parametrize(
    "harm",
    [_off, _paused, _crashed, _memory, _nic, _name, _settings, _gone, _disk, _link, _bridge],
)
def test_what_was_done_to_a_guest_by_hand_is_seen_and_mended(
    harm: Callable[[Machine], str], machine: Machine
) -> None:
    made(machine)
    said = harm(machine)
    assert said in GUEST.glance(machine.shell(), guest()).text
    GUEST.ensure(machine.shell(), guest())
    assert GUEST.glance(machine.shell(), guest()).ok
    if harm in {_paused, _link, _bridge}:
        assert machine.state["last"] == 1, "it was not started anew for that"


def test_a_strangers_guest_of_the_same_name_is_left_alone(machine: Machine) -> None:
    made(machine)
    with machine.changing() as state:
        state["domains"]["1"]["config"]["c_info"]["uuid"] = OTHER
    with pytest.raises(DriverError, match="a guest web on stub1 is not this lab's"):
        GUEST.ensure(machine.shell(), guest())
    GUEST.remove(machine.shell(), guest())
    assert domain(machine)["config"]["c_info"]["uuid"] == OTHER


def test_what_xl_refuses_is_told_with_its_cause(machine: Machine) -> None:
    with pytest.raises(
        DriverError, match=r"(?s)Out of memory.*give the hypervisor more memory_mib"
    ):
        made(machine, memory_mib=4096)
    with pytest.raises(DriverError, match=r"(?s)Could not find bridge device nope.*`pulumi up`"):
        made(machine, nics=[{"network": "nope", "mac": MAC, "model": "", "address": ""}])


@pytest.mark.parametrize(
    "wrong",
    [{"name": "7"}, {"name": "a b"}, {"name": "x" * 64}, {"iso": "/a,b"}, {"owner": "x"},
     {"nics": [{"network": "a,b", "mac": MAC, "model": ""}]}, {"disk_bus": "ide"},
     {"nics": [{"network": "a", "mac": MAC, "model": "e1000"}]}, {"iso": "", "disk_gib": 0}],
)  # fmt: skip
def test_a_guest_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    assert not GUEST.problem(guest())
    assert GUEST.problem(guest(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"bridge": "a b"}, {"bridge": "x" * 16}, {"mode": "route"}, {"domain": "a\nb"},
     {"gateway": "x"}, {"reservations": [{"mac": MAC, "address": "10.0.0.1", "name": "a,b"}]}],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    assert not NETWORK.problem(network())
    assert NETWORK.problem(network(**wrong))


# The whole ---------------------------------------------------------------------------------------

LAB: dict[str, Any] = {
    "media": {"live": {"path": "live.iso"}},
    "networks": {"lab": {"subnet": "10.77.0.0/24"}},
    "hypervisors": {
        "xen1": {
            "kind": "xen",
            "network": "lab",
            "networks": {"inner": {"mode": "nat", "subnet": "10.78.0.0/24"}},
            "guests": {"live": {"iso": "live", "memory_mib": 256, "network": "inner"}},
        }
    },
}


@pytest.fixture(scope="module")
def recorded() -> Recorder:
    return up(LAB, accelerator="tcg")


def test_a_xen_host_is_a_clone_of_its_image_that_boots_by_its_own_grub(recorded: Recorder) -> None:
    domain_ = recorded.named("xen1-domain").inputs
    assert domain_["type"] == "qemu"
    assert "kernel" not in domain_
    assert domain_["machine"] == "pc"
    assert "Nehalem" in domain_["xml"]["xslt"]
    disk = recorded.named("xen1-disk").inputs
    assert disk["baseVolumeName"] == "ff5be685eb91.qcow2"
    assert (
        recorded.named("xen1-gate").inputs["probe"]["commands"]
        == write(Probe, kind.PROBE)["commands"]
    )


def test_what_is_in_it_goes_through_its_driver(recorded: Recorder) -> None:
    inner, live = (
        recorded.named("xen1-inner-network").inputs,
        recorded.named("xen1-live-guest").inputs,
    )
    assert inner["driver"] == "xen.network"
    assert inner["wanted"]["bridge"].startswith("nl")
    assert live["driver"] == "xen.guest"
    assert live["wanted"]["nics"][0]["model"] == "netfront"
    assert recorded.named("xen1-live-medium").inputs["wanted"]["store"] == STORE
    [row] = [row for row in recorded.stack_outputs["sheet"] if row["name"] == "live"]
    assert row["enter"] == ["xl", "console", "live"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("memory_mib", 2048, "3072"), ("disk_bus", "sata", "virtio"), ("firmware", "uefi", "bios")],
)
def test_a_host_that_would_not_boot_is_refused(field: str, value: object, said: str) -> None:
    wrong = {**LAB, "hypervisors": {"xen1": {**LAB["hypervisors"]["xen1"], field: value}}}
    with pytest.raises(SpecError, match=said):
        load({"name": "lab", **wrong}, root=ROOT, exists=lambda _: True)
