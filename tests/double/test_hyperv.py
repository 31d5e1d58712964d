"""A lab inside a Hyper-V host with the real engine, over a real sshd; the host is a stub.

What is not real here is Windows: the stub carries out what the one PowerShell program is told. A failure
means that `pulumi up`, by itself or after somebody's hand, does not end where the stack says.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from components.kinds.hyperv.guest import DRIVER as GUEST
from components.kinds.hyperv.medium import DRIVER as MEDIUM
from components.kinds.hyperv.network import DRIVER as NETWORK
from components.media.iso import Iso
from components.reach.orders import GuestOrder, MediumOrder, NetworkOrder
from components.reach.shell import shell_of
from tests.support.commands import Machine
from tests.support.inner import lab_of, program
from tests.support.orders import order
from tests.support.stubs.hyperv import HOST_KEY, VHDX, Hyperv
from tests.support.told import lives_with_a_seed, told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project, Serve

pytestmark = [pytest.mark.double, pytest.mark.spread]

STRANGER = order(
    NetworkOrder,
    {
        "name": "theirs",
        "mode": "isolated",
        "subnet": "10.99.0.0/24",
        "prefix": 24,
        "gateway": "10.99.0.1",
        "owner": "ffffffff-0000-0000-0000-00000000000f",
    },
)


def lab(**guest: Any) -> dict[str, Any]:
    web = {"iso": "one", "memory_mib": 256, "disk_gib": 2, "network": "inner", **guest}
    inside = {
        "iso": "win",
        "networks": {
            "inner": {"mode": "nat", "subnet": "10.78.0.0/24"},
            "uplink": {"mode": "bridge"},
        },
        "guests": {"web": web, "efi": {"iso": "one", "network": "uplink", "firmware": "uefi"}},
    }
    return lab_of("hyperv", inside, media={"win": {"path": "one.iso"}, "one": {"path": "one.iso"}})


def test_a_lab_lives_and_goes(project: Project, sshd: Serve, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "hyperv", Hyperv)
    NETWORK.ensure(machine.shell(), STRANGER)
    before = machine.state
    target = sshd(machine).target("x")
    (tmp_path / "one.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(2048))

    def text(**guest: Any) -> str:
        return program("hyperv", lab(**guest), target, tmp_path)

    def guests() -> dict[str, dict[str, Any]]:
        return {vm["Name"]: vm for vm in machine.state["vms"].values()}

    project.up(text())
    made = guests()
    assert {name: vm["State"] for name, vm in made.items()} == dict.fromkeys(
        ("web", "efi"), "Running"
    )
    assert {name: vm["Generation"] for name, vm in made.items()} == {"web": 1, "efi": 2}
    assert [each["SwitchName"] for each in made["web"]["nics"]] == ["inner"]
    assert "vmconnect.exe localhost web" in project.pulumi("stack", "output", "sheet")

    assert "unchanged" in project.up(text(), "--expect-no-changes")

    said = project.up(text(memory_mib=512))
    assert "web: switched off for its new settings (has 256 MiB, not 512 MiB)" in said
    assert guests()["web"]["Id"] == made["web"]["Id"]
    assert guests()["web"]["MemoryStartup"] == 512 << 20

    with machine.changing() as state:
        state["vms"][made["web"]["Id"]]["State"] = "Saved"
        del state["vms"][made["efi"]["Id"]]
    said = project.pulumi("preview")
    assert "guest web is saved; `pulumi up` mends it" in said
    assert "guest efi is not there any more" in said
    project.up(text(memory_mib=512))
    assert {name: vm["State"] for name, vm in guests().items()} == dict.fromkeys(made, "Running")

    project.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert machine.state | {"made": 0} == before | {"made": 0}, "the stranger's, and nothing else"
    left = [each for each in machine.path("/C:/nestlab").rglob("*") if each.is_file()]
    assert left == []


def test_a_guest_is_told_who_it_is_and_answers_as_that(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "hyperv", Hyperv)
    before = machine.state
    target = sshd(machine).target("x")
    (tmp_path / "one.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(2048))
    image = ["qemu-img", "create", "-q", "-f", "vhdx", str(tmp_path / "base.vhdx"), "64M"]
    subprocess.run(image, timeout=60, check=True)
    address = "10.78.0.20"

    def of(cloud_init: dict[str, Any]) -> str:
        data = lab()
        data["media"]["base"] = {"path": "base.vhdx"}
        web = {"image": "base", "network": [{"network": "inner", "address": address}]}
        data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": cloud_init}}
        return program("hyperv", data, target, tmp_path)

    def drives() -> list[dict[str, Any]]:
        vms = machine.state["vms"].values()
        return [each for vm in vms if vm["State"] == "Running" for each in vm["dvds"]]

    def seed() -> Path | None:
        [path] = [each["Path"] for each in drives()] or [None]
        if path is None:
            return None
        assert "-seed-" in path
        rights = machine.state["rights"]
        assert rights[f"{path}.nestlab-part".lower()] == HOST_KEY, "it holds a key and a password"
        return machine.path("/" + path.replace("\\", "/"))

    def taken_out() -> None:
        with machine.changing() as state:
            [vm] = state["vms"].values()
            vm["dvds"][0]["Path"] = None

    def disk() -> object:
        [vm] = machine.state["vms"].values()
        return vm["drives"]

    with told(address, seed) as guest:
        lives_with_a_seed(project, of, guest, taken_out=taken_out, kept=disk)
    assert machine.state | {"made": 0} == before | {"made": 0}
    left = [each for each in machine.path("/C:/nestlab").rglob("*") if each.is_file()]
    assert left == []


def test_windows_in_a_guest_is_told_what_cloudbase_init_reads(
    project: Project, sshd: Serve, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "hyperv", Hyperv)
    target = sshd(machine).target("x")
    (tmp_path / "one.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(2048))
    image = ["qemu-img", "create", "-q", "-f", "vhdx", str(tmp_path / "base.vhdx"), "64M"]
    subprocess.run(image, timeout=60, check=True)
    address = "10.78.0.21"
    data = lab()
    data["media"]["base"] = {"path": "base.vhdx"}
    web = {"image": "base", "network": [{"network": "inner", "address": address}]}
    told_so = {"system": "windows", "user": "ana", "commands": ["Get-Date"]}
    data["hypervisors"]["x"]["guests"] = {"told": web | {"cloud_init": told_so}}

    def seed() -> Path | None:
        vms = machine.state["vms"].values()
        paths = [each["Path"] for vm in vms if vm["State"] == "Running" for each in vm["dvds"]]
        return machine.path("/" + paths[0].replace("\\", "/")) if paths else None

    with told(address, seed) as guest:
        project.up(program("hyperv", data, target, tmp_path))
        assert set(guest.entered) == {"ana"}
        disc = seed()
        assert disc is not None
        read = yaml.safe_load(Iso(disc).read("/user-data"))
        [user] = read["users"]
        logins = json.loads(project.pulumi("stack", "output", "logins", "--show-secrets", "--json"))
        assert user["passwd"] == logins["told"], "in clear: cloudbase-init takes no hash"
        project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
        project.pulumi("destroy", "--yes", "--skip-preview")


def test_an_image_is_sent_and_cloned_over_ssh(sshd: Serve, tmp_path: Path) -> None:
    shell = shell_of(sshd(Machine(tmp_path / "hyperv", Hyperv)).target("hv1"))
    owner = STRANGER.owner
    file = tmp_path / "base disk.vhdx"
    file.write_bytes(VHDX + bytes(1 << 20))
    fields = {
        "name": "basis ä.vhdx",
        "path": str(file),
        "store": "C:/nestlab",
        "size": file.stat().st_size,
        "owner": owner,
    }
    wanted = order(MediumOrder, fields)
    MEDIUM.ensure(shell, wanted)
    assert MEDIUM.look(shell, wanted).ok
    fields = {
        "name": "klon $(x) ä",
        "memory_mib": 512,
        "cores": 1,
        "firmware": "uefi",
        "boot": ["hd"],
        "image": MEDIUM.called(wanted),
        "autostart": True,
        "store": "C:/nestlab",
        "owner": owner,
    }
    guest = order(GuestOrder, fields)
    GUEST.ensure(shell, guest)
    assert GUEST.look(shell, guest).text == "guest klon $(x) ä is running"
    GUEST.remove(shell, guest)
    MEDIUM.remove(shell, wanted)
