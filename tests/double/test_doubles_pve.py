"""The stand-in for Proxmox VE, and what the real provider does against it.

A failure here means that tests of labs in Proxmox prove less than they say: that the stand-in forgets,
or takes what the real API refuses, or that the provider's own round is not clean any more.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from components.kinds.proxmox import api as remote
from components.kinds.proxmox.api import PveError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.double.conftest import Project
    from tests.support.pve import Pve

pytestmark = pytest.mark.double

AT = "nodes/pve1"
NET = "virtio=52:54:00:AA:BB:01,bridge={bridge}"
NO_CHANGE = re.compile(r"Resources:\n +\d+ unchanged\n")

LAB = """
import pulumi
import pulumi_proxmoxve as px

provider = px.Provider("pve", endpoint={url!r}, username="root@pam",
    password=pulumi.Output.secret("secret"), insecure=True)

def options(**more):
    return pulumi.ResourceOptions(provider=provider, **more)

def upload(name, content, path):
    # The same number or name is taken: what is replaced has to go first.
    return px.FileLegacy(name, node_name="pve1", datastore_id="local", content_type=content,
        source_file=px.FileLegacySourceFileArgs(path=path, file_name="lab-" + path),
        opts=options(delete_before_replace=True))

def guest(name, number, disk, **more):
    return px.VmLegacy(name, node_name="pve1", vm_id=number, name=name, stop_on_destroy=True,
        cpu=px.VmLegacyCpuArgs(cores={cores}, type="host"),
        memory=px.VmLegacyMemoryArgs(dedicated=512),
        disks=[px.VmLegacyDiskArgs(interface="scsi0", datastore_id="local-lvm", **disk)],
        opts=options(delete_before_replace=True), **more)

def card(number):
    return [px.VmLegacyNetworkDeviceArgs(bridge="vmbr0", model="virtio",
        mac_address=f"52:54:00:AA:BB:{{number:02X}}")]

iso, image = upload("iso", "iso", "live.iso"), upload("image", "import", "disk.qcow2")
none = px.VmLegacyCdromArgs(file_id="none", interface="ide2")
live = guest("live", 101, {{"size": 8}}, description="nestlab lab", tags=["lab", "nestlab"],
    machine="q35", bios="ovmf", vga=px.VmLegacyVgaArgs(type="std"), network_devices=card(1),
    efi_disk=px.VmLegacyEfiDiskArgs(datastore_id="local-lvm", type="4m"),
    cdrom=px.VmLegacyCdromArgs(file_id=iso.id, interface="ide2"), boot_orders=["scsi0", "ide2"])
golden = guest("golden", 900, {{"size": 2, "import_from": image.id}}, cdrom=none, template=True,
    started=False, on_boot=False)
clone = guest("clone", 102, {{"size": 4}}, cdrom=none, network_devices=card(2),
    clone=px.VmLegacyCloneArgs(vm_id=golden.vm_id, full=False))
box = px.ContainerLegacy("box", node_name="pve1", vm_id=201, started=True, unprivileged=True,
    description="nestlab lab", operating_system=px.ContainerLegacyOperatingSystemArgs(
        template_file_id=upload("template", "vztmpl", "box.tar.gz").id, type="alpine"),
    cpu=px.ContainerLegacyCpuArgs(cores={cores}),
    memory=px.ContainerLegacyMemoryArgs(dedicated=256, swap=0),
    disk=px.ContainerLegacyDiskArgs(datastore_id="local-lvm", size=4),
    features=px.ContainerLegacyFeaturesArgs(nesting=True),
    network_interfaces=[px.ContainerLegacyNetworkInterfaceArgs(name="eth0", bridge="vmbr0",
        mac_address="52:54:00:AA:BB:03")],
    initialization=px.ContainerLegacyInitializationArgs(hostname="box", ip_configs=[
        px.ContainerLegacyInitializationIpConfigArgs(
            ipv4=px.ContainerLegacyInitializationIpConfigIpv4Args(address="dhcp"))]),
    opts=options(delete_before_replace=True))
"""


def client(pve: Pve) -> remote.Pve:
    return remote.Pve(remote.Api(url=pve.url, user=pve.user, password=pve.password, insecure=True))


def make(api: remote.Pve, number: int = 101, **config: Any) -> None:
    api.wait("pve1", api.post(f"{AT}/qemu", vmid=number, name="web", **config), 5)


def start(api: remote.Pve, number: int = 101) -> None:
    api.wait("pve1", api.post(f"{AT}/qemu/{number}/status/start"), 5)


def test_a_guest_is_deleted_with_the_slash_that_the_plugin_writes(pve: Pve) -> None:
    api = client(pve)
    make(api, scsi0="local-lvm:1")
    api.wait("pve1", api.delete(f"{AT}/qemu/101/", purge=1), 5)
    assert pve.requests[-2].path == "/nodes/pve1/qemu/101/"
    assert pve.vms() == {}


def test_what_an_administrator_does_by_hand_is_seen_by_the_api(pve: Pve) -> None:
    api = client(pve)
    make(api, scsi0="local-lvm:1", memory=512)
    start(api)
    pve.stop(101)
    assert api.get(f"{AT}/qemu/101/status/current")["status"] == "stopped"
    pve.reconfigure(101, memory="1024", scsi0=None)
    config = api.get(f"{AT}/qemu/101/config")
    assert config["memory"] == "1024"
    assert "scsi0" not in config
    pve.make_vm(777, "strangers")
    assert {each["vmid"] for each in api.get("cluster/resources", type="vm")} == {101, 777}
    pve.remove(101)
    assert api.find(f"{AT}/qemu/101/config") is None
    assert pve.vms() == {777: "stopped"}


def test_an_upload_is_taken_only_in_the_order_that_the_real_one_reads(
    pve: Pve, tmp_path: Path
) -> None:
    api, to, data = client(pve), f"{AT}/storage/local/upload", b"a disc"
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / "one.iso").write_bytes(data)
    wrong = {"content": "iso", "checksum": sha256, "checksum-algorithm": "sha256"}
    with (tmp_path / "one.iso").open("rb") as file, pytest.raises(PveError, match="Disposition"):
        api.post(to, **wrong, filename=file)
    api.wait("pve1", api.upload(to, "two.iso", data, content="iso", sha256=sha256), 5)
    [there] = api.get(f"{AT}/storage/local/content", content="iso")
    assert there["volid"] == "local:iso/two.iso"


def test_a_disk_grows_and_does_not_shrink(pve: Pve) -> None:
    api = client(pve)
    make(api, scsi0="local-lvm:4")
    api.wait("pve1", api.put(f"{AT}/qemu/101/resize", disk="scsi0", size="6G"), 5)
    assert pve.config(101)["scsi0"].endswith("size=6G")
    with pytest.raises(PveError, match="shrinking disks is not supported"):
        api.put(f"{AT}/qemu/101/resize", disk="scsi0", size="5G")


def test_numbers_stay_numbers_and_a_new_disk_is_allocated_when_a_guest_is_changed(pve: Pve) -> None:
    api = client(pve)
    make(api, cores=1)
    api.put(f"{AT}/qemu/101/config", cores=2, scsi1="local-lvm:3", net0=NET.format(bridge="vmbr0"))
    config = pve.config(101)
    assert (config["cores"], config["net0"]) == (2, NET.format(bridge="vmbr0"))
    assert config["scsi1"] == "local-lvm:vm-101-disk-0,size=3G"
    with pytest.raises(PveError, match="cores"):
        api.put(f"{AT}/qemu/101/config", cores="many")


def test_a_guest_does_not_start_without_kvm_or_its_bridge(pve: Pve) -> None:
    api = client(pve)
    pve.within(lambda inside: setattr(inside, "kvm", False))
    make(api, net0=NET.format(bridge="vmbr9"))
    with pytest.raises(PveError, match="KVM virtualisation configured, but not available"):
        start(api)
    api.put(f"{AT}/qemu/101/config", kvm=0)
    with pytest.raises(PveError, match="bridge 'vmbr9' does not exist"):
        start(api)
    api.post(f"{AT}/network", iface="vmbr9", type="bridge", cidr="10.9.0.1/24")
    assert pve.bridges() == {"vmbr0": True, "vmbr9": False}
    with pytest.raises(PveError, match="bridge 'vmbr9' does not exist"):
        start(api)
    api.wait("pve1", api.put(f"{AT}/network"), 5)
    start(api)
    assert pve.vms() == {101: "running"}


def test_a_bridge_is_made_once_and_goes_when_that_is_applied(pve: Pve) -> None:
    api = client(pve)
    api.post(f"{AT}/network", iface="vmbr9", type="bridge")
    with pytest.raises(PveError, match="interface already exists"):
        api.post(f"{AT}/network", iface="vmbr9", type="bridge")
    api.put(f"{AT}/network")
    api.delete(f"{AT}/network/vmbr9")
    with pytest.raises(PveError, match="interface does not exist"):
        api.get(f"{AT}/network/vmbr9")
    assert pve.bridges() == {"vmbr0": True, "vmbr9": True}
    api.put(f"{AT}/network")
    assert pve.bridges() == {"vmbr0": True}


def test_a_template_is_downloaded_and_a_container_made_from_it_has_an_address(pve: Pve) -> None:
    api = client(pve)
    template = api.get(f"{AT}/aplinfo")[0]["template"]
    api.wait("pve1", api.post(f"{AT}/aplinfo", storage="local", template=template), 5)
    net = "name=eth0,bridge=vmbr0,ip=dhcp"
    volume = f"local:vztmpl/{template}"
    asked = {"ostemplate": volume, "rootfs": "local-lvm:4", "net0": net, "ostype": "debian"}
    api.wait("pve1", api.post(f"{AT}/lxc", vmid=201, start=1, **asked), 5)
    assert pve.containers() == {201: "running"}
    assert pve.config(201)["ostype"] == "debian"
    [_, eth0] = api.get(f"{AT}/lxc/201/interfaces")
    assert eth0["ip-addresses"][0]["ip-address"].startswith("198.51.")


def test_requests_are_refused_as_often_as_asked(pve: Pve) -> None:
    api = client(pve)
    make(api)
    pve.fail("POST", "/status/start", "got timeout", times=1)
    with pytest.raises(PveError, match="got timeout"):
        start(api)
    start(api)
    assert pve.vms() == {101: "running"}


def test_the_provider_lives_through_a_round_of_its_best_shapes(project: Project, pve: Pve) -> None:
    (project.folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001")
    head = b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (1 << 30).to_bytes(8, "big")
    (project.folder / "disk.qcow2").write_bytes(head)
    (project.folder / "box.tar.gz").write_bytes(b"\x1f\x8b")
    project.up(LAB.format(url=pve.url, cores=1))
    assert pve.vms() == {101: "running", 900: "template", 102: "running"}
    assert pve.containers() == {201: "running"}
    assert pve.config(102)["scsi0"].endswith("size=4G")
    assert "import-from" not in pve.config(900)["scsi0"]
    for words in (("up", "--yes", "--skip-preview"), ("refresh", "--yes", "--skip-preview")):
        said = project.pulumi(*words)
        assert NO_CHANGE.search(said), said

    # The provider never looks by itself: what is changed by hand, it learns by refresh alone.
    before = len(pve.requests)
    pve.stop(101)
    assert NO_CHANGE.search(project.up(LAB.format(url=pve.url, cores=1)))
    assert len(pve.requests) == before
    project.up(LAB.format(url=pve.url, cores=2), "--refresh")
    assert pve.vms()[101] == "running"
    assert [pve.config(number)["cores"] for number in (101, 102, 900, 201)] == [2, 2, 2, 2]
    assert NO_CHANGE.search(project.pulumi("up", "--yes", "--skip-preview"))

    pve.remove(102)
    said = project.pulumi("destroy", "--yes", "--skip-preview", fails=True)
    assert "error retrieving VM status: the requested resource does not exist" in said
    project.pulumi("destroy", "--yes", "--skip-preview", "--refresh")
    assert (pve.vms(), pve.containers(), pve.files()) == ({}, {}, {})


def test_the_provider_takes_over_a_strangers_guest_of_the_same_number(
    project: Project, pve: Pve
) -> None:
    """Why a number has to be looked at before a guest is made there (`PveSlot`)."""
    pve.make_vm(101, "strangers", memory="2048")
    project.up(
        LAB.partition("iso, image")[0].format(url=pve.url, cores=1)
        + 'guest("live", 101, {"size": 8}, network_devices=card(1))\n'
    )
    assert pve.vms() == {101: "running"}
    assert pve.config(101)["name"] == "strangers"
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert pve.vms() == {}
