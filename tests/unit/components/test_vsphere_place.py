"""Labs on a vCenter, as the engine is asked for them.

A failure here means that machines may pretend to be others where no hypervisor needs it, that a lab
stands on another host, or its password in clear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pulumi
import pytest

from components import lab
from components.stackfile import load
from tests.support.engine import deploy
from tests.unit.components.labs import PRIVATE, answers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.engine import Recorder, Registered

ISO = bytes(0x8001) + b"CD001"
ROOM = {"memory_mib": 32768, "disk_gib": 200, "cores": 16}
HOST: dict[str, Any] = {
    "kind": "vsphere",
    "server": "vcenter.example.test",
    "datacenter": "DC",
    "datastore": "store",
    "nodes": {"esx1.example.test": ROOM},
}
NESTED = {
    "kind": "proxmox",
    "iso": "pve",
    "network": "out",
    "address": "192.0.2.9",
    "networks": {"inner": {"mode": "bridge"}},
    "guests": {"deep": {"iso": "live", "memory_mib": 256, "network": "inner"}},
}
CONTENTS: dict[str, Any] = {
    "media": {name: {"path": f"{name}.iso"} for name in ("live", "pve")},
    "networks": {
        "out": {"mode": "bridge"},
        "own": {"mode": "isolated", "subnet": "10.78.0.0/24"},
        "side": {"mode": "bridge", "bridge": "vSwitch7"},
    },
    "guests": {
        "live": {"iso": "live", "network": "side", "memory_mib": 250},
        "web": {
            "iso": "live",
            "disk_gib": 8,
            "disk_bus": "sata",
            "firmware": "uefi",
            "network": [{"network": "own", "mac": "00:50:56:01:02:03", "model": "e1000e"}],
        },
    },
    "hypervisors": {"one": NESTED},
}


def up(root: Path, *, preview: bool = False, **more: Any) -> Recorder:
    data = {"name": "lab", "host": HOST, **CONTENTS, **more}
    spec = load(data, root=root, exists=lambda _: True)

    def told(resource: Registered) -> Mapping[str, Any]:
        known: dict[str, Mapping[str, Any]] = {
            "VsphereNode": {
                "host": "host-1",
                "pool": "resgroup-1",
                "store": "datastore-1",
                "endpoint": "vcenter.example.test",
            },
            "VsphereNetworkGate": {
                "network": resource.inputs.get("group"),
                "network_id": f"network-{resource.name}",
            },
            "VsphereGuestGate": {"answers": "up"},
            "VirtualMachine": {"id": f"uuid-of-{resource.name}"},
        }
        return known.get(resource.type.rpartition(":")[2]) or answers(resource)

    return deploy(
        lambda: lab.deploy(
            spec,
            root=root,
            private=PRIVATE,
            accelerator="kvm",
            cores=2,
            golden={},
            password=pulumi.Output.secret("hunter2"),
        ),
        outputs=told,
        preview=preview,
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    root = tmp_path_factory.mktemp("root")
    (root / "live.iso").write_bytes(ISO + b"one")
    return up(root)


def test_everything_is_made_by_the_vcenter_and_goes_along_to_another_host(
    engine: Recorder,
) -> None:
    provider, node = engine.named("host-vsphere"), engine.named("host-node")
    made = [one for one in engine.resources.values() if one.type.startswith("vsphere:")]
    assert len(made) == 6
    assert {one.provider for one in made} == {provider.urn}
    assert {one.replace_with for one in made} == {(node.urn,)}
    for one in engine.of_type("VirtualMachine"):
        assert one.inputs["hostSystemId"] == "host-1"
        assert one.inputs["resourcePoolId"] == "resgroup-1"
        assert one.inputs["datastoreId"] == "datastore-1"
        assert one.delete_before_replace, "its name is taken until it is gone"
    assert engine.named("identity").inputs["uri"] == "", "there is no libvirt to sweep"


def test_in_a_preview_nobody_is_asked_before_the_host_has_answered(tmp_path: Path) -> None:
    engine = up(tmp_path, preview=True)
    assert engine.named("host-vsphere").inputs["vsphereServer"] == "<unknown>"


def test_the_password_is_a_secret_wherever_it_goes(engine: Recorder) -> None:
    holders = 0
    for one in engine.resources.values():
        for key, value in one.inputs.items():
            if "hunter2" in repr(value):
                holders += 1
                assert key in one.secret_inputs, f"{one.name}.{key}"
    assert holders > 8


def test_only_on_networks_of_nested_hypervisors_may_machines_pretend_to_be_others(
    engine: Recorder,
) -> None:
    words = ("allowPromiscuous", "allowForgedTransmits", "allowMacChanges")
    for name, allowed in (("out", True), ("own", False), ("side", False)):
        gate = engine.named(f"{name}-gate").inputs
        assert [gate[word] for word in words] == [allowed] * 3, name


def test_networks_are_port_groups_on_the_hosts_switch_or_one_of_their_own(
    engine: Recorder,
) -> None:
    out, own, side = (engine.named(f"{name}-gate").inputs for name in ("out", "own", "side"))
    assert (out["switch"], out["own"]) == ("vSwitch0", False)
    assert (side["switch"], side["own"]) == ("vSwitch7", False)
    assert own["own"] is True
    assert own["switch"].startswith("nl")
    assert own["group"].startswith("lab-own-")
    # Only the lab knows these digits: what is called so is its own.
    assert len({each["group"][-8:] for each in (out, own, side)}) == 3


def test_a_guest_is_what_the_stack_says(engine: Recorder) -> None:
    web, gate = engine.named("web-vm").inputs, engine.named("web-gate").inputs
    assert web["firmware"] == "efi"
    assert web["guestId"] == "otherGuest64"
    assert web["nestedHvEnabled"] is False
    assert web["annotation"].startswith("nestlab ")
    assert web["annotation"].endswith(" nestlab:kind=guest")
    [disk] = web["disks"]
    assert (disk["size"], disk["controllerType"], disk["thinProvisioned"]) == (8, "sata", True)
    assert web["sataControllerCount"] == 1
    [nic] = web["networkInterfaces"]
    assert nic == {
        "networkId": "network-own-gate",
        "adapterType": "e1000e",
        "useStaticMac": True,
        "macAddress": "00:50:56:01:02:03",
    }
    assert web["extraConfig"] == {}, "vSphere takes that address by itself"
    assert (web["waitForGuestIpTimeout"], web["waitForGuestNetTimeout"]) == (0, 0)
    assert engine.named("web-vm").replace_on_changes == ("networkInterfaces[*].macAddress",)
    assert gate["uuid"] == "uuid-of-web-vm"
    assert gate["wanted"]["boot"] == ["cdrom", "hd"]
    assert gate["wanted"]["nics"][0]["network"].startswith("lab-own-")


def test_what_vsphere_can_not_do_otherwise_is_rounded_up(engine: Recorder) -> None:
    live = engine.named("live-vm").inputs
    assert live["memory"] == engine.named("live-gate").inputs["wanted"]["memory_mib"] == 252
    assert [disk["size"] for disk in live["disks"]] == [1], "it makes no machine without a disk"
    assert live["extraConfig"] == {"ethernet0.checkMACAddress": "FALSE"}


def test_a_medium_is_uploaded_once_under_a_name_that_tells_its_content(
    engine: Recorder, tmp_path: Path
) -> None:
    [live] = [one for one in engine.of_type("File") if one.name == "host-medium-live"]
    name = live.inputs["destinationFile"]
    assert name.startswith("nestlab/lab-medium-live-")
    for machine in ("live", "web"):
        assert engine.named(f"{machine}-vm").inputs["cdroms"] == [
            {"datastoreId": "datastore-1", "path": name}
        ]
        assert engine.named(f"{machine}-gate").inputs["wanted"]["cds"] == [name]
    (tmp_path / "live.iso").write_bytes(ISO + b"two")
    other = up(tmp_path).named("host-medium-live").inputs["destinationFile"]
    assert other != name


def test_a_nested_hypervisor_sees_a_cpu_that_virtualizes_and_has_both_its_cds(
    engine: Recorder,
) -> None:
    made, gate = engine.named("one-vm"), engine.named("one-gate")
    assert made.inputs["nestedHvEnabled"] is True
    assert made.inputs["annotation"].endswith(" nestlab:kind=proxmox")
    assert made.inputs["guestId"] == "otherLinux64Guest"
    assert made.inputs["networkInterfaces"][0]["adapterType"] == "vmxnet3"
    assert len(made.inputs["cdroms"]) == 1, "the provider knows one drive"
    assert made.ignore_changes == ("cdroms",)
    installer, own = gate.inputs["wanted"]["cds"]
    assert installer.startswith("nestlab/lab-disc-installer-pve-")
    assert own.startswith("nestlab/lab-disc-one-answers-")
    assert gate.inputs["wanted"]["boot"] == ["hd", "cdrom"], "the empty disk is passed over first"
    assert gate.inputs["probe"]["kind"] == "proxmox"
    deep = engine.named("one-deep-vm")
    assert deep.deleted_with == gate.urn
    assert made.urn in deep.replace_with, "its disk is lost with the machine"


def test_a_nested_esxi_is_known_as_one_to_vsphere(tmp_path: Path) -> None:
    nested = {"kind": "esxi", "iso": "pve", "network": "out", "address": "192.0.2.9"}
    engine = up(tmp_path, hypervisors={"one": nested}, guests={})
    assert engine.named("one-vm").inputs["guestId"] == "vmkernel65Guest"
    assert engine.named("one-vm").inputs["disks"][0]["controllerType"] == "sata"
    assert engine.named("one-discs").inputs["kind"] == "esxi", "a CD: vSphere makes no stick"


def test_a_machine_without_a_nic_is_refused(tmp_path: Path) -> None:
    guests = {"alone": {"iso": "live", "memory_mib": 64}}
    with pytest.raises(Exception, match=r"alone.* makes no machine without a NIC"):
        up(tmp_path, guests=guests, hypervisors={})
