"""The stand-in for a vCenter, and what the real provider does against it.

A failure here means that tests of labs on vSphere prove less than they say: that the stand-in forgets,
or that the provider's own round is not clean any more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.vcsim import Fault

if TYPE_CHECKING:
    from tests.double.conftest import Project
    from tests.support.vcsim import Vcsim

pytestmark = pytest.mark.double

NO_CHANGE = re.compile(r"Resources:\n +\d+ unchanged\n")

PLACE = """
import pulumi
import pulumi_vsphere as vs

provider = vs.Provider("vcenter", vsphere_server={server!r}, user="root",
    password=pulumi.Output.secret("labpass"), allow_unverified_ssl=True)
opts, look = pulumi.ResourceOptions(provider=provider), pulumi.InvokeOptions(provider=provider)
dc = vs.get_datacenter_output(name="DC0", opts=look).id
store = vs.get_datastore_output(name="LocalDS_0", datacenter_id=dc, opts=look).id
# The pool of a host outside any cluster: of a cluster's, the provider asks by the wrong type.
pool = vs.get_resource_pool_output(name="DC0_H0/Resources", datacenter_id=dc, opts=look).id
net = vs.get_network_output(name="VM Network", datacenter_id=dc, opts=look).id

def guest(name, mac="", memory=512, after=(), **more):
    # The provider writes an address only when a card turns static: never into another's place.
    static = {{"use_static_mac": True, "mac_address": mac}} if mac else {{}}
    return vs.VirtualMachine(name, name=name, resource_pool_id=pool, datastore_id=store, num_cpus=1,
        memory=memory, guest_id="debian10_64Guest", annotation="nestlab lab",
        wait_for_guest_net_timeout=0, wait_for_guest_ip_timeout=0, force_power_off=True,
        network_interfaces=[vs.VirtualMachineNetworkInterfaceArgs(network_id=net,
            adapter_type="vmxnet3", **static)],
        disks=[vs.VirtualMachineDiskArgs(label="disk0", size=1, thin_provisioned=True)],
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=after)), **more)
"""
LAB = (
    PLACE
    + """
iso = vs.File("iso", datacenter="DC0", datastore="LocalDS_0", source_file="live.iso",
    destination_file="nestlab/lab-live.iso", create_directories=True, opts=opts)
folder = vs.Folder("folder", path="lab", type="vm", datacenter_id=dc, opts=opts)
live = guest("live", "00:50:56:01:02:01", {memory}, folder=folder.path, firmware="efi",
    nested_hv_enabled=True, extra_config={{"vmx.allowNested": "TRUE"}})
golden = guest("golden")
base = vs.VirtualMachineSnapshot("base", virtual_machine_uuid=golden.id, snapshot_name="base",
    description="base", memory=False, quiesce=False, opts=opts)
clone = guest("clone", "00:50:56:01:02:03", after=[base], clone=vs.VirtualMachineCloneArgs(
    template_uuid=golden.id, linked_clone=True))
"""
)
ONE = PLACE + 'guest("web", "00:50:56:01:02:01")\n'


def test_a_place_starts_empty_with_one_switch(vcsim: Vcsim) -> None:
    assert vcsim.machines() == {}
    assert vcsim.switches() == {"vSwitch0": {"VM Network", "Management Network"}}
    assert not vcsim.has_file("nestlab/lab-live.iso")
    with pytest.raises(AssertionError, match="there is no machine web"):
        vcsim.stop("web")


def test_the_provider_lives_through_a_round_of_its_best_shapes(
    project: Project, vcsim: Vcsim
) -> None:
    (project.folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001")
    project.up(LAB.format(server=vcsim.server, memory=512))
    machines = vcsim.machines()
    assert {name for name, each in machines.items() if each.running} == {"live", "golden", "clone"}
    assert "lab" in vcsim.folders()
    assert vcsim.has_file("nestlab/lab-live.iso")
    live = machines["live"]
    assert (live.firmware, live.nested, live.note) == ("efi", True, "nestlab lab")
    assert (live.macs, live.adapters) == (("00:50:56:01:02:01",), ("VirtualVmxnet3",))
    for words in (("up", "--yes", "--skip-preview"), ("refresh", "--yes", "--skip-preview")):
        said = project.pulumi(*words)
        assert NO_CHANGE.search(said), said
    project.up(LAB.format(server=vcsim.server, memory=768))
    assert vcsim.machines()["live"].memory_mib == 768
    assert NO_CHANGE.search(project.pulumi("up", "--yes", "--skip-preview"))
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert vcsim.machines() == {}
    assert "lab" not in vcsim.folders()
    assert not vcsim.has_file("nestlab/lab-live.iso")


def test_the_provider_sees_nothing_that_is_done_by_hand_until_it_refreshes(
    project: Project, vcsim: Vcsim
) -> None:
    program = ONE.format(server=vcsim.server)
    project.up(program)
    vcsim.stop("web")
    with pytest.raises(Fault, match="PowerOffVM_Task"):
        vcsim.stop("web")
    # Of what is off it does not even learn then: it has no word for it.
    assert NO_CHANGE.search(project.pulumi("refresh", "--yes", "--skip-preview"))
    vcsim.reconfigure("web", "<memoryMB>1024</memoryMB>")
    assert vcsim.machines()["web"].memory_mib == 1024
    assert NO_CHANGE.search(project.up(program))
    vcsim.remove("web")
    assert NO_CHANGE.search(project.up(program))
    said = project.pulumi("destroy", "--yes", "--skip-preview", fails=True)
    assert "cannot locate virtual machine with UUID" in said
    project.pulumi("up", "--yes", "--skip-preview", "--refresh")
    assert vcsim.machines()["web"].running
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert vcsim.machines() == {}


ISO = (
    PLACE
    + """
host = vs.get_host_output(name="DC0_H0", datacenter_id=dc, opts=look).id
security = {{"allow_promiscuous": True, "allow_forged_transmits": True, "allow_mac_changes": {changes}}}
switch = vs.HostVirtualSwitch("switch", name="lab", host_system_id=host, network_adapters=[],
    active_nics=[], standby_nics=[], opts=opts, **security)
group = vs.HostPortGroup("group", name="lab-inner", host_system_id=host,
    virtual_switch_name=switch.name, opts=opts, **security)
net = vs.get_network_output(name=group.name, datacenter_id=dc, opts=look).id
iso = vs.File("iso", datacenter="DC0", datastore="LocalDS_0", source_file="live.iso",
    destination_file="nestlab/lab-live.iso", create_directories=True, opts=opts)
live = guest("live", "00:50:56:01:02:01",
    cdroms=[vs.VirtualMachineCdromArgs(datastore_id=store, path=iso.destination_file)])
"""
)


def test_a_guest_starts_from_an_iso_on_a_switch_of_the_labs_own(
    project: Project, vcsim: Vcsim
) -> None:
    (project.folder / "live.iso").write_bytes(bytes(0x8001) + b"CD001")
    project.up(ISO.format(server=vcsim.server, changes=True))
    assert vcsim.machines()["live"].cdroms == ("[LocalDS_0] nestlab/lab-live.iso",)
    assert vcsim.switches()["lab"] == {"lab-inner"}
    for words in (("up", "--yes", "--skip-preview"), ("refresh", "--yes", "--skip-preview")):
        said = project.pulumi(*words)
        assert NO_CHANGE.search(said), said
    said = project.up(ISO.format(server=vcsim.server, changes=False))
    assert "2 updated" in said
    assert NO_CHANGE.search(project.pulumi("refresh", "--yes", "--skip-preview"))
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert (vcsim.machines(), set(vcsim.switches())) == ({}, {"vSwitch0"})


def test_a_vcenter_refuses_a_second_machine_of_one_name(project: Project, vcsim: Vcsim) -> None:
    project.up((PLACE + 'guest("web")\n').format(server=vcsim.server))
    project.pulumi("state", "delete", "--yes", "--target-dependents", _urn(project))
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    assert "error creating virtual machine: ServerFaultCode: DuplicateName" in said
    vcsim.remove("web")
    project.pulumi("destroy", "--yes", "--skip-preview")


def _urn(project: Project) -> str:
    listed = project.pulumi("stack", "--show-urns")
    return next(word for word in listed.split() if "VirtualMachine::web" in word)
