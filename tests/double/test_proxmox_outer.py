"""A lab whose outer host is a Proxmox VE cluster, from the stack's settings to its last resource.

A failure here is a lab that is spread over nodes that do not share its networks, leaves something behind
on a cluster that others use, or a password that somebody can read.
"""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from components.stackfile.host import NodeSpec
from components.stackfile.nodes import Totals, chosen
from tests.double.test_proxmox import numbers, running, settings
from tests.support import images, standins
from tests.support.pve import Pve
from tests.support.told import lives_with_a_seed, told
from toolchain.bootstrap import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = [pytest.mark.double, pytest.mark.spread]

PROGRAM = """
import pathlib, sys
sys.path.insert(0, {repository!r})
import pulumi
from components import settings
from components.lab import deploy
given = settings.load({data!r}, pathlib.Path({root!r}), "dev", preview=pulumi.runtime.is_dry_run(),
    password=settings.host_password(pulumi.Config("nestlab")))
for name, value in deploy(given.spec, **given.facts).items():
    pulumi.export(name, value)
"""
ROOM = {"memory_mib": 16384, "disk_gib": 100, "cores": 8}
NODES = {"pve1": ROOM | {"memory_mib": 512}, "pve2": ROOM, "pve3": ROOM}


@pytest.fixture
def cluster() -> Iterator[Pve]:
    with Pve(*NODES) as running:
        running.takes("import")
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder with an ISO, a disk image and a template, as small as they can be."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(4096))
    (folder / "disk.qcow2").write_bytes(images.qcow2())
    with tarfile.open(folder / "box.tar.gz", "w:gz"):
        pass
    return folder


def lab(cluster: Pve, **more: Any) -> dict[str, Any]:
    host = {
        "kind": "proxmox",
        "endpoint": cluster.url,
        "insecure": True,
        "nodes": NODES,
    }
    return {
        "name": "lab",
        "host": host,
        "media": {"live": {"path": "live.iso"}, "disk": {"path": "disk.qcow2"}},
        "templates": {"box": {"path": "box.tar.gz"}},
        "networks": {
            "out": {"mode": "bridge"},
            "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        },
        "guests": {
            "live": {"iso": "live", "memory_mib": 256, "network": "out"},
            "web": {"image": "disk", "disk_gib": 4, "network": "own"},
        },
        "containers": {"box": {"template": "box", "network": "own", "memory_mib": 128}},
        **more,
    }


def program(data: dict[str, Any], root: Path) -> str:
    return PROGRAM.format(repository=str(paths.ROOT), data=data, root=str(root))


def trusted(project: Project, cluster: Pve) -> None:
    project.pulumi("config", "set", "--secret", "nestlab:hostPassword", cluster.password)


def unchanged(project: Project, data: dict[str, Any], root: Path) -> None:
    """``data`` changes nothing of a lab that stands."""
    project.write(program(data, root))
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")


def own_bridges(cluster: Pve, node: str) -> set[str]:
    return set(cluster.bridges(node)) - {"vmbr0"}


def check_what_is_told(project: Project, cluster: Pve, at: dict[str, int], home: str) -> None:
    """The password is in no state, and the sheet shows screens."""
    state = json.loads(project.pulumi("stack", "export"))["deployment"]
    secret = cluster.password
    assert f'"{secret}"' not in json.dumps(state), "the password stands in the state in clear"
    sheet = json.loads(project.pulumi("stack", "output", "--json"))["sheet"]
    screens = {row["name"]: row["console"] for row in sheet}
    assert screens["web"].endswith(f"/?console=kvm&novnc=1&vmid={at['lab-web']}&node={home}")
    assert screens["box"].startswith(f"{cluster.url.rstrip('/')}/?console=lxc&novnc=1&")


def test_a_lab_on_a_cluster_lives_through_everything(
    project: Project, cluster: Pve, root: Path
) -> None:
    cluster.make_vm(777, "strangers")
    trusted(project, cluster)
    data = lab(cluster)
    home = chosen(
        "lab", {name: NodeSpec(**size) for name, size in NODES.items()}, Totals(1000, 4, 3)
    )
    assert home in {"pve2", "pve3"}, "pve1 has no room"
    away = ({"pve2", "pve3"} - {home}).pop()
    project.write(program(data, root))
    said = project.pulumi("preview")
    for name in ("own-gate", "live-vm", "web-vm", "box-ct", "host-template-disk-scsi-vm"):
        assert name in said, "preview shows the whole tree"
    assert set(numbers(cluster)) == {"strangers"}

    project.pulumi("up", "--yes", "--skip-preview")
    names = {"lab-live", "lab-web", "lab-box"}
    assert running(cluster) == names
    at = numbers(cluster)
    mine = {name: number for name, number in at.items() if name != "strangers"}
    assert {cluster.node_of(number) for number in mine.values()} == {home}
    assert min(mine.values()) >= 100_000, "numbers of their own among all labs' of the cluster"
    assert len(own_bridges(cluster, str(home))) == 1
    assert not own_bridges(cluster, away)
    check_what_is_told(project, cluster, at, str(home))
    project.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    project.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")

    # Switched off and removed by hand.
    before = settings(cluster, at["lab-web"])
    cluster.stop(at["lab-live"])
    cluster.remove(at["lab-web"])
    said = project.pulumi("preview")
    assert f"live-gate: guest {at['lab-live']} is stopped; `pulumi up` mends it" in said
    assert f"web-gate: guest {at['lab-web']} is not there any more" in said
    project.pulumi("up", "--yes", "--skip-preview")
    assert (running(cluster), numbers(cluster)) == (names, at)
    assert settings(cluster, at["lab-web"]) == before

    # An edit changes just that.
    data["guests"]["web"]["memory_mib"] = 1024
    project.up(program(data, root))
    assert cluster.config(at["lab-web"])["memory"] == "1024"

    # A lab that is chosen another node for now stays where it was made.
    data["host"]["nodes"] = NODES | {home: ROOM | {"disk_gib": 1}}
    unchanged(project, data, root)

    # To another node on demand: all of it, and nothing stays behind.
    data["host"]["nodes"] = NODES
    data["host"]["node"] = away
    project.up(program(data, root))
    assert (running(cluster), numbers(cluster)) == (names, at)
    assert {cluster.node_of(number) for number in mine.values()} == {away}
    assert len(own_bridges(cluster, away)) == 1
    assert not own_bridges(cluster, str(home))
    del data["host"]["node"]
    unchanged(project, data, root)

    project.pulumi("destroy", "--yes", "--skip-preview")
    assert (cluster.vms(), cluster.containers()) == ({777: "stopped"}, {})
    assert not own_bridges(cluster, away)
    assert cluster.files() == {}


def test_without_the_hosts_password_up_says_how_it_is_given(
    project: Project, cluster: Pve, root: Path
) -> None:
    data = lab(cluster, guests={}, containers={})
    project.write(program(data, root))
    assert "nestlab:hostPassword is not set" in project.pulumi("preview")
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "run `pulumi config set --secret nestlab:hostPassword --stack dev`" in said
    project.pulumi("config", "set", "nestlab:hostPassword", cluster.password)
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "nestlab:hostPassword stands in the stack file in clear" in said
    assert not cluster.requests


def test_a_nested_proxmox_on_a_cluster_is_made_and_waited_for(
    project: Project, cluster: Pve, root: Path, nobody: str
) -> None:
    iso = standins.proxmox_iso(root)
    trusted(project, cluster)
    nested = {
        "kind": "proxmox",
        "iso": "installer",
        "network": "out",
        "address": nobody,
        "ready_s": 3,
        "networks": {"inner": {"mode": "bridge"}},
        "guests": {"deep": {"iso": "live", "memory_mib": 256, "network": "inner"}},
    }
    media = {"live": {"path": "live.iso"}, "installer": {"path": iso.name}}
    more = {"guests": {}, "containers": {}, "media": media, "hypervisors": {"one": nested}}
    data = lab(cluster, **more)
    project.write(program(data, root))
    said = project.pulumi("preview")
    for name in ("one-vm", "one-gate", "one-proxmox", "one-inner-gate", "one-deep-vm"):
        assert name in said, "preview shows every layer"
    assert not cluster.vms()

    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "lab-one" in numbers(cluster), said
    number = numbers(cluster)["lab-one"]
    assert "one-gate: not ready after" in said
    assert "last seen: " in said
    assert nobody in said.partition("last seen: ")[2].partition("\n")[0]
    node = cluster.node_of(number)
    address = cluster.url.removeprefix("https://").rstrip("/")
    assert f"look at it on {address}: node {node}, guest {number}, Console" in said
    made = cluster.config(number)
    assert made["boot"] == "order=scsi0;ide2", "the empty disk is passed over, then it is full"
    assert made["ide2"].startswith("local:iso/lab-disc-installer-installer.iso")
    assert made["ide0"].startswith("local:iso/lab-disc-one-answers.iso")
    assert "media=cdrom" in made["ide0"]
    assert made["cpu"].startswith("host")
    assert "size=32G" in made["scsi0"]
    assert "bridge=vmbr0" in made["net0"]
    assert running(cluster) == {"lab-one"}
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert (cluster.vms(), cluster.files()) == ({}, {})
    assert not [path for path in (root / ".nestlab" / "keys").rglob("*") if path.is_file()]


def test_what_a_killed_run_left_on_a_cluster_goes_with_the_lab(
    project: Project, cluster: Pve, root: Path
) -> None:
    trusted(project, cluster)
    guests = {"live": {"iso": "live", "memory_mib": 256}}
    project.up(program(lab(cluster, containers={}, guests=guests), root))
    told = json.loads(project.pulumi("stack", "export"))
    lost = {"proxmoxve:index/vmLegacy:VmLegacy", "pulumi-python:dynamic/nestlab:PveGuestGate"}
    resources = told["deployment"]["resources"]
    told["deployment"]["resources"] = [each for each in resources if each["type"] not in lost]
    (project.folder / "state.json").write_text(json.dumps(told))
    project.pulumi("stack", "import", "--file", str(project.folder / "state.json"))
    assert running(cluster) == {"lab-live"}
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert not cluster.vms()


def test_a_guest_is_told_who_it_is_and_entered_straight_from_here(
    project: Project, cluster: Pve, root: Path, tmp_path: Path
) -> None:
    trusted(project, cluster)
    folder = tmp_path / "iso"
    folder.mkdir()
    cluster.within(lambda api: setattr(api, "folder", folder))
    address = "10.99.0.20"

    def of(cloud_init: dict[str, Any]) -> str:
        web = {"image": "disk", "network": [{"network": "out", "address": address}]}
        guests = {"told": web | {"cloud_init": cloud_init}}
        return program(lab(cluster, guests=guests, containers={}), root)

    def config() -> dict[str, Any]:
        return cluster.config(numbers(cluster)["lab-told"])

    def seed() -> Path | None:
        drive = str(config().get("scsi1", "")) if "lab-told" in running(cluster) else ""
        return folder / drive.partition(",")[0].rpartition("/")[2] if drive else None

    with told(address, seed) as guest:
        lives_with_a_seed(
            project,
            of,
            guest,
            taken_out=lambda: cluster.reconfigure(numbers(cluster)["lab-told"], scsi1=None),
            kept=lambda: config()["scsi0"],
        )
    assert (cluster.vms(), cluster.files(), list(folder.iterdir())) == ({}, {}, [])
