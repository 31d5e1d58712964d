"""A lab inside an ESXi: the real engine over a real sshd, on stand-ins of ESXi's commands and SDK.

A failure here is a guest that is made twice, one that stays off after somebody switched it off, or a
`pulumi up` that changes something each time.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from components.gates import machine as of_machine
from components.gates.api import ask
from components.kinds.esxi.install import PLACE, recipe
from components.kinds.esxi.model import EsxiSpec
from components.reach.shell import LOCAL
from components.reach.vmx import parsed, rendered
from tests.support import inner
from tests.support.commands import Machine
from tests.support.stubs.esxi import Esxi
from tests.support.told import lives_with_a_seed, told
from toolchain.bootstrap import pins
from toolchain.engine import golang

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

STORE = PLACE.store
STRANGERS = {"switch": "vSwitch0", "vlan": "12"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "esxi", Esxi)
    Esxi.furnish(made.path("/vmfs/volumes"))
    with made.changing() as state:
        state["groups"]["strangers"] = STRANGERS
    return made


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    qemu_img = ["qemu-img", "create", "-q", "-f", "vmdk", str(tmp_path / "base.vmdk"), "1G"]
    subprocess.run(qemu_img, timeout=60, check=True)
    return tmp_path


def lab() -> dict[str, Any]:
    inside = {
        "iso": "live",
        "networks": {
            "lan": {"mode": "bridge"},
            "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "network": "lan"},
            "web": {
                "image": "base",
                "disk_gib": 4,
                "network": [{"network": "own"}, {"network": "lan", "model": "e1000e"}],
            },
        },
    }
    media = {"live": {"path": "live.iso"}, "base": {"path": "base.vmdk"}}
    return inner.lab_of("esxi", inside, media=media)


def running(machine: Machine) -> set[str]:
    return {
        vm["vmx"].rpartition("/")[2].removesuffix(".vmx")
        for vm in machine.state["vms"].values()
        if vm["power"] == "Powered on"
    }


def guest(machine: Machine, name: str) -> Path:
    return machine.path(f"{STORE}/guests/{name}/{name}.vmx")


def test_a_lab_in_an_esxi_lives_through_everything(
    project: Project, machine: Machine, media: Path, sshd: Serve
) -> None:
    target = sshd(machine).target("x")
    data = lab()
    project.up(inner.program("esxi", data, target, media))
    assert running(machine) == {"live", "web"}
    web = parsed(guest(machine, "web").read_text())
    assert web["ethernet1.virtualDev"] == "e1000e"
    assert machine.state["groups"][web["ethernet0.networkName"]]["switch"].startswith("nestlab-")
    assert machine.state["groups"][web["ethernet1.networkName"]]["switch"] == "vSwitch0"
    assert machine.path(f"{STORE}/media/live.iso").read_bytes() == (media / "live.iso").read_bytes()

    flat = guest(machine, "web").with_name("web-flat.vmdk")
    assert flat.read_bytes() == (media / "base.vmdk").read_bytes()

    before = machine.state
    for words in (("up", "--yes", "--skip-preview"), ("refresh", "--yes", "--skip-preview")):
        said = project.pulumi(*words)
        assert "unchanged" in said
        assert not any(word in said for word in ("updated", "created", "deleted", "replaced"))
    assert machine.state == before

    # An edit changes just that guest, and keeps its disk.
    flat.write_bytes(b"what was installed")
    data["hypervisors"]["x"]["guests"]["web"]["memory_mib"] = 1024
    said = project.up(inner.program("esxi", data, target, media))
    assert "1 updated" in said
    assert parsed(guest(machine, "web").read_text())["memSize"] == "1024"
    assert flat.read_bytes() == b"what was installed"

    # By hand: all switched off, one removed, a setting changed; then a port group put into a VLAN.
    with machine.changing() as state:
        for vmid, vm in list(state["vms"].items()):
            vm["power"] = "Powered off"
            if vm["vmx"].endswith("/live.vmx"):
                del state["vms"][vmid]
    changed = parsed(guest(machine, "web").read_text()) | {"ethernet0.virtualDev": "e1000"}
    guest(machine, "web").write_text(rendered(changed))
    said = project.pulumi("preview")
    assert "x-live-guest: guest live is not registered any more" in said
    assert "x-web-guest: guest web is not set up as the stack says (ethernet0.virtualDev)" in said
    with machine.changing() as state:
        state["groups"][web["ethernet1.networkName"]]["vlan"] = "7"
    assert "x-lan-network: network lan is on vSwitch0, VLAN 7" in project.pulumi("preview")
    project.pulumi("up", "--yes", "--skip-preview")
    assert running(machine) == {"live", "web"}
    assert parsed(guest(machine, "web").read_text())["ethernet0.virtualDev"] == "vmxnet3"
    assert flat.read_bytes() == b"what was installed"

    project.pulumi("destroy", "--yes", "--skip-preview")
    state = machine.state
    assert state["vms"] == {}
    assert set(state["switches"]) == {"vSwitch0"}
    assert set(state["groups"]) == {"VM Network", "Management Network", "strangers"}
    assert state["groups"]["strangers"] == STRANGERS
    assert list(machine.path(f"{STORE}/guests").iterdir()) == []
    assert list(machine.path(f"{STORE}/media").iterdir()) == []


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, machine: Machine, media: Path, sshd: Serve
) -> None:
    target = sshd(machine).target("x")
    before = machine.state
    address = "10.77.0.50"

    def program(cloud_init: dict[str, Any]) -> str:
        data = lab()
        web = {"image": "base", "network": [{"network": "lan", "address": address}]}
        data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": cloud_init}}
        return inner.program("esxi", data, target, media)

    def vmx() -> dict[str, str]:
        return parsed(guest(machine, "told").read_text())

    def seed() -> Path | None:
        if "told" not in running(machine):
            return None
        found = vmx()
        if found.get("sata0:1.present") != "TRUE":
            return None
        assert found["sata0.present"] == "TRUE"
        disc = machine.path(found["sata0:1.fileName"])
        assert disc.stat().st_mode & 0o077 == 0, "it holds a key and a password"
        return disc

    def taken_out() -> None:
        drive = {"sata0:1.present": "FALSE"}
        guest(machine, "told").write_text(rendered(vmx() | drive))

    flat = guest(machine, "told").with_name("told-flat.vmdk")
    with told(address, seed) as inside:
        lives_with_a_seed(
            project, program, inside, taken_out=taken_out, kept=lambda: flat.stat().st_ino
        )
    assert machine.state["vms"] == before["vms"]
    assert list(machine.path(f"{STORE}/media").iterdir()) == []


@pytest.fixture
def sdk() -> Iterator[str]:
    """The SDK of a stand-alone ESXi, by govmomi's simulator; its root's password is labpass."""
    program = golang.place(pins.VCSIM)
    if not program.is_file():
        pytest.skip("needs vcsim: run `make toolchain`")
    with subprocess.Popen(
        [program, "127.0.0.1:0", "esx"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout
            where = urlsplit(running.stdout.readline().strip()).netloc.rpartition("@")[2]
            yield f"https://{where}"
        finally:
            running.terminate()


def test_its_gate_opens_when_its_commands_and_its_sdk_answer(
    machine: Machine, sshd: Serve, sdk: str
) -> None:
    server = sshd(machine)
    asked = recipe(EsxiSpec(kind="esxi", iso="live", network="lan")).probe

    def seen(password: str, url: str = sdk) -> tuple[bool, str]:
        gate = of_machine.Machine(
            target=LOCAL,
            instance="",
            probe=replace(asked, steady=1, url=url),
            reach=replace(server.target("x"), password=password),
            deadline_s=1.0,
        )
        found = ask(gate)
        return found.ok, found.text

    assert seen("labpass") == (True, "VMware ESXi 6.5.0 build-5969303")
    assert seen("wrong") == (False, f"{sdk} refuses: Login failure")
    closed = "https://127.0.0.1:9"
    assert seen("labpass", closed)[1].startswith(f"{closed} does not answer (")
    machine.reset()
    assert not seen("labpass")[0], "its datastore is not there yet"
