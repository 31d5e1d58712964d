"""Outer hosts of every kind: what they are told by, and on which node of a cluster a lab stands.

A failure here means that a lab moves to another node, which makes it anew, because somebody else
came or went; or that it stands on a node that has no room for it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.findings import resolve_accelerator
from components.kinds.libvirt.host import LibvirtHost
from components.kinds.proxmox.host import ProxmoxHost
from components.kinds.vsphere.host import VsphereHost
from components.stackfile import LabSpec, SpecError, load, plan, totals
from components.stackfile.host import NodeSpec
from components.stackfile.nodes import Totals, chosen, fits, node_of
from components.stackfile.registry import HOSTS

if TYPE_CHECKING:
    from pathlib import Path

NODES = {"pve1": {"memory_mib": 16384, "disk_gib": 200, "cores": 16}}
PROXMOX = {"kind": "proxmox", "endpoint": "https://pve.example.test:8006", "nodes": NODES}
VSPHERE = {
    "kind": "vsphere",
    "server": "vcenter.example.test",
    "datacenter": "Lab DC",
    "datastore": "local store",
    "nodes": {"esx1.example.test": NODES["pve1"]},
}


def lab(host: Any, root: Path, **more: Any) -> LabSpec:
    media = {"live": {"path": "live.iso"}}
    data = {"name": "lab", "host": host, "media": media, **more}
    return load(data, root=root, exists=lambda _: True)


def refusal(host: Any, root: Path, **more: Any) -> list[str]:
    with pytest.raises(SpecError) as refused:
        lab(host, root, **more)
    return [str(problem) for problem in refused.value.problems]


def test_a_host_whose_kind_is_left_out_is_a_machine_with_libvirt(tmp_path: Path) -> None:
    for host in ({}, {"memory_mib": 4096}, {"kind": "libvirt"}):
        assert isinstance(lab(host, tmp_path).host, LibvirtHost)
    assert isinstance(LabSpec(name="lab").host, LibvirtHost)


@pytest.mark.parametrize(
    ("host", "model", "where"),
    [
        (PROXMOX, ProxmoxHost, "https://pve.example.test:8006"),
        (PROXMOX | {"endpoint": "https://10.0.0.1/"}, ProxmoxHost, "https://10.0.0.1"),
        (VSPHERE, VsphereHost, "vcenter.example.test"),
    ],
    ids=["proxmox", "a slash too many", "vsphere"],
)
def test_a_cluster_is_told_by_its_kind(
    host: dict[str, Any], model: type, where: str, tmp_path: Path
) -> None:
    made = lab(host, tmp_path)
    assert isinstance(made.host, model)
    assert made.host.where == where
    assert made.pool_path == plan(made).pool_path == "", "a cluster has no folder for a pool"
    assert resolve_accelerator(made, None) == "kvm", "the doctor has not seen it"


def test_every_kind_is_one_that_holds_nested_hypervisors() -> None:
    assert list(HOSTS) == ["libvirt", "proxmox", "vsphere"]
    for name, kind in HOSTS.items():
        assert kind.name == name
        assert kind.offers.nests
        assert kind.model.model_fields["kind"].annotation is not None


@pytest.mark.parametrize("host", [None, 5, "qemu:///system", []], ids=repr)
def test_a_host_that_is_no_mapping_is_answered_as_ever(host: Any, tmp_path: Path) -> None:
    [line] = refusal(host, tmp_path)
    assert "lab.host: " in line
    assert "a mapping of fields is needed (the outer host)" in line


@pytest.mark.parametrize("field", ["password", "token", "secret", "api_token"])
@pytest.mark.parametrize("host", [PROXMOX, VSPHERE], ids=["proxmox", "vsphere"])
def test_a_secret_in_the_stack_file_is_refused_unseen(
    host: dict[str, Any], field: str, tmp_path: Path
) -> None:
    [line] = refusal(host | {field: "hunter2"}, tmp_path)
    assert line.startswith(f"lab.host.{field}: a secret given, but")
    assert "pulumi config set --secret nestlab:hostPassword" in line
    assert "hunter2" not in line


def test_a_url_with_a_password_is_refused_unseen(tmp_path: Path) -> None:
    [line] = refusal(PROXMOX | {"endpoint": "https://root:hunter2@pve:8006"}, tmp_path)
    assert "hunter2" not in line


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_is_an_endpoint_or_a_problem(tmp_path_factory: Any, text: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        made = lab(PROXMOX | {"endpoint": f"https://{text}"}, root).host.where
    except SpecError as refused:
        made = "https://"
        paths = {problem.path for problem in refused.problems}
        said = str(refused)
    else:
        paths, said = {"lab.host.endpoint"}, "one line"
    assert paths == {"lab.host.endpoint"}
    assert len(said.splitlines()) == 1
    assert made.startswith("https://")
    assert made.count("/") == 2


# Nodes ------------------------------------------------------------------------------------------

SIZES = st.builds(
    NodeSpec,
    memory_mib=st.integers(16, 1 << 20),
    disk_gib=st.integers(0, 4096),
    cores=st.integers(1, 255),
)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
CLUSTERS = st.dictionaries(NAMES, SIZES, min_size=1, max_size=6)
NEEDS = st.builds(
    Totals,
    memory_mib=st.integers(0, 1 << 20),
    disk_gib=st.integers(0, 4096),
    cores=st.integers(0, 255),
)


@given(NAMES, CLUSTERS, NEEDS)
@settings(max_examples=200, deadline=None)
def test_a_lab_never_stands_on_a_node_without_room(
    name: str, nodes: dict[str, NodeSpec], need: Totals
) -> None:
    found = chosen(name, nodes, need)
    rooms = {node for node, size in nodes.items() if fits(size, need)}
    assert found in rooms if rooms else found is None


@given(NAMES, CLUSTERS, NEEDS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_file_does_not_choose(
    name: str, nodes: dict[str, NodeSpec], need: Totals, chance: Any
) -> None:
    shuffled = list(nodes.items())
    chance.shuffle(shuffled)
    assert chosen(name, dict(shuffled), need) == chosen(name, nodes, need)


@given(NAMES, CLUSTERS, NEEDS, NAMES, SIZES)
@settings(max_examples=200, deadline=None)
def test_a_node_more_takes_its_share_and_moves_no_other_lab(
    name: str, nodes: dict[str, NodeSpec], need: Totals, more: str, size: NodeSpec
) -> None:
    before = chosen(name, nodes, need)
    after = chosen(name, {**nodes, more: size}, need)
    assert after in {before, more} or more in nodes


def test_many_labs_spread_as_the_nodes_are_large() -> None:
    nodes = {
        name: NodeSpec(memory_mib=size * 1024, disk_gib=100, cores=8)
        for name, size in (("a", 16), ("b", 32), ("c", 64))
    }
    need = Totals(1024, 10, 2)
    count = Counter(chosen(f"lab-{number}", nodes, need) for number in range(4000))
    for name, share in (("a", 1 / 7), ("b", 2 / 7), ("c", 4 / 7)):
        assert abs(count[name] / 4000 - share) < 0.03


def two(**more: Any) -> dict[str, Any]:
    small = {"memory_mib": 4096, "disk_gib": 40, "cores": 4}
    large = {"memory_mib": 16384, "disk_gib": 200, "cores": 16}
    return PROXMOX | {"nodes": {"pve1": small, "pve2": large}} | more


GUEST: dict[str, Any] = {"iso": "live", "memory_mib": 8192, "disk_gib": 100, "cores": 8}


def test_a_lab_stands_where_it_fits_as_a_whole(tmp_path: Path) -> None:
    made = lab(two(), tmp_path, guests={"big": GUEST})
    assert isinstance(made.host, ProxmoxHost)
    assert node_of(made.name, made.host, totals(made)) == "pve2"
    pinned = lab(two(node="pve1"), tmp_path).host
    assert isinstance(pinned, ProxmoxHost)
    assert node_of("lab", pinned, Totals(0, 0, 0)) == "pve1"


def test_what_fits_on_no_node_is_told_with_all_numbers(tmp_path: Path) -> None:
    guests = {"a": GUEST, "b": GUEST, "c": GUEST}
    [line] = refusal(two(), tmp_path, guests=guests)
    assert line == (
        "lab.host.nodes: pve1 with 4096 MiB, 40 GiB of disk and 4 cores; pve2 with 16384 MiB, 200 GiB "
        "of disk and 16 cores given, but the lab needs 24576 MiB, 300 GiB of disk and 24 cores, and a "
        "lab stands on one node: make the lab smaller, or declare a larger node"
    )


def test_a_pinned_node_is_known_and_has_room(tmp_path: Path) -> None:
    [line] = refusal(two(node="pve9"), tmp_path)
    assert line.startswith("lab.host.node: 'pve9' given, but the nodes that labs may stand on are")
    [line] = refusal(two(node="pve1"), tmp_path, guests={"big": GUEST})
    assert "pve2" not in line
    assert line.endswith("or remove node:")


def test_the_budget_holds_on_a_cluster_too(tmp_path: Path) -> None:
    [line] = refusal(two(memory_mib=4096), tmp_path, guests={"big": GUEST})
    assert line.startswith("lab.host.memory_mib: 4096 MiB given")


# What stands on a cluster -----------------------------------------------------------------------

NESTED: dict[str, Any] = {"kind": "proxmox", "iso": "live"}
BRIDGE: dict[str, Any] = {"out": {"mode": "bridge"}}


def test_a_nested_hypervisor_on_a_cluster_is_on_a_bridge_with_a_fixed_address(
    tmp_path: Path,
) -> None:
    fixed = NESTED | {"network": "out", "address": "192.0.2.9"}
    made = plan(lab(PROXMOX, tmp_path, networks=BRIDGE, hypervisors={"one": fixed}))
    assert made.machine("one").address == "192.0.2.9"
    isolated = {"own": {"mode": "isolated", "subnet": "10.77.0.0/24"}}
    hypervisors = {"one": NESTED | {"network": "own"}}
    [line] = refusal(PROXMOX, tmp_path, networks=isolated, hypervisors=hypervisors)
    assert line.startswith("lab.hypervisors.one.network: 'own' given, but the network ends at")


def test_kinds_that_only_libvirt_boots_do_not_stand_on_a_cluster(tmp_path: Path) -> None:
    fixed = {"kind": "kvm", "network": "out", "address": "192.0.2.9"}
    [line] = refusal(PROXMOX, tmp_path, networks=BRIDGE, hypervisors={"one": fixed})
    assert "boots none of these" in line


def test_containers_stand_on_proxmox_itself_and_on_no_other_outer_host(tmp_path: Path) -> None:
    boxes = {"box": {"template": "box"}}
    more = {"containers": boxes, "templates": {"box": {"path": "box.tar.gz"}}}
    assert lab(PROXMOX, tmp_path, **more).containers
    [line] = refusal(VSPHERE, tmp_path, **more)
    assert "the outer host has no containers: make guests of them" in line
    [line] = refusal({}, tmp_path, **more)
    assert "share the host's kernel" in line


@pytest.mark.parametrize("host", [PROXMOX, VSPHERE], ids=["proxmox", "vsphere"])
def test_a_cluster_translates_no_addresses(host: dict[str, Any], tmp_path: Path) -> None:
    net = {"subnet": "10.77.0.0/24"}
    rest = "but the outer host offers bridge and isolated: choose one of these"
    [line] = refusal(host, tmp_path, networks={"net": net | {"mode": "nat"}})
    assert line == f"lab.networks.net.mode: 'nat' given, {rest}"
    [line] = refusal(host, tmp_path, networks={"net": net})
    assert line == f"lab.networks.net.mode: no mode given, which is 'nat', {rest}"
