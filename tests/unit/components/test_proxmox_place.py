"""Labs with Proxmox VE around or inside them, as the engine is asked for them.

A failure here means that a lab stands on another node, with other numbers, or with its password in clear.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components import kinds as hypervisors
from components import lab
from components.kinds.proxmox.numbers import CLUSTER_VMIDS, VMIDS, vmids
from components.kinds.proxmox.uploads import uploaded, virtual_gib
from components.stackfile import SpecError, load, plan
from components.stackfile.registry import HOSTS
from tests.support import images
from tests.support.engine import deploy
from tests.unit.components.labs import IDENTITY, PRIVATE, ROOT, answers, up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.engine import Recorder, Registered

ROOM = {"memory_mib": 32768, "disk_gib": 200, "cores": 16}
HOST: dict[str, Any] = {
    "kind": "proxmox",
    "endpoint": "https://pve.example.test:8006",
    "nodes": {"pve1": ROOM},
}
MEDIA = {name: {"path": f"{name}.img"} for name in ("live", "debian", "pve")}
CONTENTS: dict[str, Any] = {
    "media": MEDIA,
    "templates": {"box": {"path": "box.tar.gz"}},
    "networks": {"out": {"mode": "bridge"}, "own": {"mode": "isolated", "subnet": "10.78.0.0/24"}},
    "guests": {
        "live": {"iso": "live", "network": "out"},
        "web": {"image": "debian", "disk_gib": 8, "network": "own"},
        "db": {"image": "debian", "disk_bus": "virtio", "network": "own"},
        "app": {"image": "debian", "network": "own"},
    },
    "containers": {"box": {"template": "box", "network": "own"}},
}


def outer(host: Mapping[str, Any] = HOST, **more: Any) -> Recorder:
    data = {"name": "lab", "host": host, **CONTENTS, **more}
    spec = load(data, root=ROOT, exists=lambda _: True)

    def told(resource: Registered) -> Mapping[str, Any]:
        if resource.type.endswith("FileLegacy"):
            return {"id": f"local:x/{resource.inputs['sourceFile']['fileName']}"}
        return answers(resource)

    return deploy(
        lambda: lab.deploy(
            spec,
            root=ROOT,
            private=PRIVATE,
            accelerator="kvm",
            cores=2,
            golden={},
            password=pulumi.Output.secret("hunter2"),
        ),
        outputs=told,
    )


@pytest.fixture(scope="module")
def engine() -> Recorder:
    return outer()


def test_every_kind_of_outer_host_that_is_made_is_found_by_its_name() -> None:
    for name in HOSTS:
        if (Path(hypervisors.__file__).parent / f"{name}.py").is_file():
            assert callable(hypervisors.outer(name))


def test_everything_stands_on_one_node_by_its_provider(engine: Recorder) -> None:
    provider = engine.named("host-proxmox").urn
    made = [one for one in engine.resources.values() if one.type.startswith("proxmoxve:")]
    assert {one.inputs["nodeName"] for one in made} == {"pve1"}
    assert {one.provider for one in made} == {provider}
    gates = [one for one in engine.resources.values() if "node" in one.inputs]
    assert len(gates) > 8
    assert {one.inputs["node"] for one in gates} == {"pve1"}
    assert not [one for one in engine.resources.values() if "libvirt" in one.type]
    assert engine.named("identity").inputs["uri"] == "", "there is no libvirt to sweep"


def test_a_lab_stays_on_the_node_that_it_was_made_on_unless_the_stack_names_one(
    engine: Recorder,
) -> None:
    """Or one node more in the cluster would make the lab anew (R15 of the faults on b9180d5)."""
    assert engine.named("host-chosen-node").ignore_changes == ("value",)
    named = outer({**HOST, "node": "pve1"})
    assert named.named("host-chosen-node").ignore_changes == ()


def test_the_password_is_a_secret_wherever_it_goes(engine: Recorder) -> None:
    for one in engine.resources.values():
        for key, value in one.inputs.items():
            if "hunter2" in repr(value):
                assert key in one.secret_inputs, f"{one.name}.{key}"
    assert engine.named("host-proxmox").inputs["endpoint"] == "https://pve.example.test:8006/"


def test_a_token_is_given_as_one() -> None:
    engine = outer(HOST | {"user": "lab@pve!nestlab"})
    given = engine.named("host-proxmox")
    assert given.inputs["apiToken"] == "lab@pve!nestlab=hunter2"
    assert "password" not in given.inputs
    assert "apiToken" in given.secret_inputs
    assert engine.named("web-gate").inputs["api"]["user"] == "lab@pve!nestlab"


def test_guests_of_one_image_share_a_template_for_each_bus(engine: Recorder) -> None:
    templates = {
        one.name: one for one in engine.resources.values() if one.inputs.get("template") is True
    }
    assert set(templates) == {
        "host-template-debian-scsi-vm",
        "host-template-debian-virtio-vm",
    }
    scsi = templates["host-template-debian-scsi-vm"]
    assert scsi.inputs["disks"][0]["importFrom"] == "local:x/lab-medium-debian-00000000.qcow2"
    assert scsi.inputs["description"].startswith("nestlab ")
    for name in ("web", "app"):
        made = engine.named(f"{name}-vm")
        assert made.inputs["clone"] == {"vmId": scsi.inputs["vmId"], "full": False}
        assert engine.named("host-template-debian-scsi-gate").urn in made.depends_on
        again = engine.named(f"{name}-gate").inputs["again"]
        assert again == {"clone": scsi.inputs["vmId"], "linked": True}
    assert "clone" not in engine.named("live-vm").inputs
    kept = {one.inputs["vmid"] for one in engine.resources.values() if one.name.endswith("-slot")}
    assert {one.inputs["vmId"] for one in templates.values()} <= kept, "a killed run leaves none"


def test_storages_uplink_and_clones_are_those_of_the_stack() -> None:
    own = {"disks": "ceph", "files": "nfs", "uplink": "vmbr7", "linked": False}
    engine = outer(HOST | own)
    assert engine.named("web-vm").inputs["disks"][0]["datastoreId"] == "ceph"
    assert engine.named("host-medium-live").inputs["datastoreId"] == "nfs"
    assert engine.named("out-gate").inputs["bridge"] == "vmbr7"
    assert engine.named("web-vm").inputs["clone"]["full"] is True
    assert engine.named("web-gate").inputs["again"].get("linked") is None


@pytest.mark.parametrize(
    ("name", "content", "data", "ending"),
    [
        ("noble-server-cloudimg-amd64.img", "import", images.qcow2(), ".qcow2"),
        ("disk.QCOW2", "import", images.qcow2(), ".qcow2"),
        ("disk.qcow2", "import", images.raw(), ".raw"),
        ("disk.bin", "import", bytes(4096), ".raw"),
        ("live.ISO", "iso", images.iso(), ".iso"),
        ("box.tgz", "vztmpl", b"\x1f\x8b" + bytes(64), ".tar.gz"),
        ("box.tar.gz", "vztmpl", b"\xfd7zXZ\0" + bytes(64), ".tar.xz"),
        ("box", "vztmpl", b"(\xb5/\xfd" + bytes(64), ".tar.zst"),
        ("box.tbz", "vztmpl", b"BZh9" + bytes(64), ".tar.bz2"),
        ("box.tar", "vztmpl", bytes(257) + b"ustar", ".tar"),
    ],
)
def test_a_file_is_uploaded_with_the_ending_of_what_is_in_it(
    name: str, content: str, data: bytes, ending: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    assert uploaded(tmp_path / name, content) == ending


def test_files_that_are_not_there_in_a_preview_get_an_ending_that_is_taken(tmp_path: Path) -> None:
    assert uploaded(tmp_path / "a.img", "import") == ".qcow2"
    assert uploaded(tmp_path / "a", "vztmpl") == ".tar.xz"
    assert uploaded(tmp_path / "a", "iso") == ".iso"


def test_numbers_come_from_a_wide_range_on_a_cluster_and_a_small_one_inside() -> None:
    nested: dict[str, Any] = {
        "kind": "proxmox",
        "iso": "pve",
        "network": "out",
        "address": "192.0.2.9",
    }
    nested |= {"guests": {"deep": {"iso": "live", "memory_mib": 256}}}
    data = {"name": "lab", "host": HOST, **CONTENTS, "hypervisors": {"one": nested}}
    made = plan(load(data, root=ROOT, exists=lambda _: True))
    around = vmids("lab", made.place())
    assert all(number in CLUSTER_VMIDS for number in around.values())
    assert len(set(around.values())) == len(around) == 6
    assert all(number in VMIDS for number in vmids("lab", made.place("one")).values())
    other = vmids("other", made.place())
    assert not set(around.values()) & set(other.values())


def test_numbers_inside_a_nested_proxmox_are_those_that_running_labs_have() -> None:
    nested: dict[str, Any] = {"kind": "proxmox", "iso": "pve", "network": "net"}
    nested |= {"guests": {name: {"iso": "live", "memory_mib": 64} for name in ("a", "b")}}
    data = {
        "name": "lab",
        "media": MEDIA,
        "networks": {"net": {"subnet": "10.77.0.0/24"}},
        "hypervisors": {"one": nested},
    }
    made = plan(load(data, root=ROOT, exists=lambda _: True))
    assert vmids("lab", made.place("one")) == {"a": 1213, "b": 3646}


def test_a_nested_proxmox_has_its_discs_its_own_cpu_and_is_asked_where_it_answers() -> None:
    nested = {
        "kind": "proxmox",
        "iso": "pve",
        "network": "out",
        "address": "192.0.2.9",
        "networks": {"inner": {"mode": "bridge"}},
        "guests": {"deep": {"iso": "live", "memory_mib": 256, "network": "inner"}},
    }
    engine = outer(hypervisors={"one": nested}, guests={}, containers={})
    made = engine.named("one-vm").inputs
    assert made["bootOrders"] == ["scsi0", "ide2"]
    assert made["cpu"]["type"] == "host"
    assert made["started"] is False, "its gate adds a CD first"
    gate = engine.named("one-gate")
    assert gate.inputs["config"]["ide0"].endswith(",media=cdrom")
    assert gate.inputs["probe"]["kind"] == "proxmox"
    assert gate.inputs["probe"]["url"] == "https://192.0.2.9:8006"
    deep = engine.named("one-deep-vm")
    assert deep.provider == engine.named("one-proxmox").urn
    assert deep.deleted_with == gate.urn
    assert deep.inputs["nodeName"] == "one"


def test_a_nested_esxi_gets_its_answers_on_an_ide_cd_and_nothing_else() -> None:
    nested = {"kind": "esxi", "iso": "pve", "network": "out", "address": "192.0.2.9"}
    with pytest.raises(SpecError, match=r"one\.machine: 'q35' given.*write machine: pc"):
        outer(hypervisors={"one": nested}, guests={}, containers={})
    engine = outer(hypervisors={"one": nested | {"machine": "pc"}}, guests={}, containers={})
    assert engine.named("one-discs").inputs["kind"] == "esxi"
    assert engine.named("one-gate").inputs["config"]["ide0"].endswith(",media=cdrom")


def test_the_same_lab_on_libvirt_asks_nobody_of_a_cluster() -> None:
    engine = up({"networks": {"net": {"subnet": "10.77.0.0/24"}}})
    assert engine.named("host-libvirt").inputs["uri"] == "qemu:///system"
    assert engine.named("identity").inputs["uri"] == "qemu:///system"
    assert engine.named("identity").outputs["value"] == IDENTITY


@pytest.mark.parametrize(
    ("head", "length", "gib"),
    [
        (b"QFI\xfb" + (3).to_bytes(4) + bytes(16) + (1 << 30).to_bytes(8), 64, 1),
        (b"QFI\xfb" + (3).to_bytes(4) + bytes(16) + ((1 << 30) + 1).to_bytes(8), 64, 2),
        (b"", (1 << 30) * 3, 3),
        (b"", 10, 1),
    ],
    ids=["qcow2", "rounded up", "raw", "tiny"],
)
def test_a_disk_is_as_large_as_its_image(
    head: bytes, length: int, gib: int, tmp_path: Path
) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as handle:
        handle.write(head)
        handle.truncate(length)
    assert virtual_gib(image) == gib
