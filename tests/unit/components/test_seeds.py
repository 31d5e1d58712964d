"""Guests with cloud_init on the recording engine: seed, way in, and what waits for what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from components.stackfile import SpecError, load, plan
from components.stackfile.registry import KINDS
from tests.unit.components.labs import ROOT, fresh, private, up
from tests.unit.components.test_lab_tree import sheet_of, template

if TYPE_CHECKING:
    from tests.support.engine import Recorder

CLOUD = {"media": {"cloud": {"path": "cloud.raw"}}}
GATES = ("host-web-gate", "host-web-guest")
TOLD = {"image": "cloud", "cloud_init": {"user": "ana", "commands": ["id"]}}


def lab(**guest: Any) -> dict[str, Any]:
    web = {"network": "net"} | TOLD | guest
    return CLOUD | {"networks": {"net": {"subnet": "10.77.0.0/24"}}, "guests": {"web": web}}


def nested(kind: str, **guest: Any) -> dict[str, Any]:
    host = {
        "kind": kind,
        "network": "net",
        "networks": {"inner": {"subnet": "10.78.0.0/24"}},
        "guests": {"web": {"network": "inner"} | TOLD | guest},
    }
    return CLOUD | {"networks": {"net": {"subnet": "10.77.0.0/24"}}, "hypervisors": {"host": host}}


def volume(made: Recorder) -> str:
    [seed] = [one for one in made.of_type("Volume") if "-seed-" in one.name]
    return str(seed.inputs["name"])


def test_a_guest_gets_a_seed_beside_its_disk_and_is_up_when_its_user_logs_in() -> None:
    made = up(lab())
    disc = made.named("web-seed-disc")
    assert disc.inputs["label"] == "cidata"
    assert {"files"} <= disc.secret_inputs, "keys and passwords are secrets"
    gate = made.named("web-gate").inputs
    assert gate["probe"]["kind"] == "ssh"
    assert gate["reach"]["user"] == "ana"
    assert (
        gate["reach"]["host"]
        == plan(load({"name": "lab"} | lab(), root=ROOT, exists=lambda _: True))
        .machine("web")
        .address
    )
    assert "via" not in gate["reach"], "straight from here"
    assert {"reach"} <= made.named("web-gate").secret_inputs
    assert len(made.named("web-domain").inputs["disks"]) == 2
    assert gate["deadlineS" if "deadlineS" in gate else "deadline_s"] == 600


def test_the_sheet_has_user_and_address_and_the_password_is_apart() -> None:
    made = up(lab())
    [row] = json.loads(json.dumps(made.stack_outputs["sheet"]))
    assert (row["user"], row["enter"]) == ("ana", [])
    assert row["serial"][0] == "virsh"
    secret = private(made.named("web-login"))
    assert made.stack_outputs["logins"] == {"web": secret}
    assert secret not in json.dumps(row)


def test_another_configuration_is_another_disc_of_a_new_name_and_the_same_one_is_the_same() -> None:
    first = volume(up(lab()))
    assert volume(fresh(lab())) == first
    others = (
        {"user": "eva"},
        {"hostname": "shop"},
        {"commands": ["true"]},
        {"packages": ["vim"]},
        {"password": False},
    )
    names = {
        volume(up(lab(cloud_init={"user": "ana", "commands": ["id"]} | other))) for other in others
    }
    assert len(names | {first}) == len(others) + 1
    assert volume(up(lab(memory_mib=1024))) == first, "more memory tells it nothing new"


@pytest.mark.parametrize("bus", ["virtio", "scsi", "sata", "ide"])
def test_a_seed_is_on_the_bus_that_the_image_has_a_driver_for(bus: str) -> None:
    disks = up(lab(disk_bus=bus)).named("web-domain").inputs["disks"]
    assert ("volumeId" in disks[1]) == (bus in {"virtio", "scsi"})


@pytest.mark.parametrize(
    ("bus", "machine", "drives"),
    [
        *((bus, "pc", "ide") for bus in ("virtio", "scsi", "sata", "ide")),
        *((bus, "q35", "sata") for bus in ("virtio", "scsi", "sata")),
    ],
)
def test_windows_has_its_seed_on_a_cd_whatever_its_disk_is_on(
    bus: str, machine: str, drives: str
) -> None:
    told = {"system": "windows", "commands": ["Get-Date"]}
    made = up(lab(disk_bus=bus, machine=machine, cloud_init=told))
    [seed] = [one for one in made.named("web-domain").inputs["disks"] if "volumeId" not in one]
    assert "-seed-" in seed["file"]
    found = template(sheet_of(made, "web"), "/domain/devices/disk[2]/target")
    assert found is not None
    assert [each.get("bus") for each in found.iter("target")] == [drives]


@pytest.mark.parametrize("kind", ["kvm", "xen"])
def test_windows_at_any_depth_is_asked_by_words_that_cmd_takes(kind: str) -> None:
    told = {"system": "windows", "user": "ana"}
    made = up(nested(kind, cloud_init=told))
    assert made.named("host-web-seed-disc").inputs["label"] == "cidata"
    [gate] = [made.named(name).inputs for name in made.names() if name in GATES]
    assert (gate["reach"]["user"], gate["reach"]["via"]["name"]) == ("ana", "host")
    [command] = gate["probe"]["commands"]
    assert command["argv"][0] == "powershell.exe"
    assert command["holds"].startswith("done ")


def test_a_windows_is_another_configuration_than_a_linux() -> None:
    linux = volume(up(lab(cloud_init={"user": "ana"})))
    assert volume(up(lab(cloud_init={"user": "ana", "system": "linux"}))) == linux
    assert volume(up(lab(cloud_init={"user": "ana", "system": "windows"}))) != linux


def test_a_guest_two_layers_down_is_reached_through_its_host() -> None:
    gate = up(nested("kvm")).named("host-web-gate").inputs
    assert gate["reach"]["via"]["name"] == "host"
    assert gate["reach"]["host"].startswith("10.78.0.")


def test_xen_uploads_the_seed_closed_and_gives_it_to_the_guest() -> None:
    made = up(nested("xen"))
    [seed] = [one for one in made.of_type("RemoteObject") if "-seed-" in one.name]
    assert seed.inputs["wanted"]["private"] is True
    guest = made.named("host-web-guest").inputs
    assert guest["wanted"]["seed"] == seed.inputs["wanted"]["name"]
    assert guest["reach"]["via"]["name"] == "host"
    assert guest["probe"]["kind"] == "ssh"


def test_who_wants_no_login_waits_as_ever_and_has_a_console() -> None:
    made = up(lab(ready={"probe": "lease"}))
    assert made.named("web-gate").inputs["probe"]["kind"] == "libvirt.lease"
    [row] = made.stack_outputs["sheet"]
    assert row["enter"][0] == "virsh"
    assert row["user"] == "ana"


def test_a_guest_that_is_told_nothing_is_made_as_before() -> None:
    data = lab()
    del data["guests"]["web"]["cloud_init"]
    made = up(data)
    assert not [name for name in made.names() if "seed" in name or "hostkey" in name]
    assert made.named("web-gate").inputs["probe"]["kind"] == "libvirt.lease"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_takes_a_seed_or_the_stack_file_says_that_it_does_not(kind: str) -> None:
    offers = KINDS[kind].offers
    assert ("cloud_init" in offers.fixed) != ("ssh" in offers.probes)


def test_a_network_that_its_own_host_is_not_on_lets_no_login_through() -> None:
    def probe(mode: str) -> str:
        data = {"name": "lab"} | nested("virtualbox")
        data["hypervisors"]["host"] |= {"image": "cloud"}
        data["hypervisors"]["host"]["networks"]["inner"]["mode"] = mode
        return plan(load(data, root=ROOT, exists=lambda _: True)).machine("web").ready.probe

    assert (probe("isolated"), probe("nat")) == ("ssh", "none")


def test_proxmox_has_the_seed_in_a_drive_of_its_own_and_its_guest_waits_for_the_login() -> None:
    data = nested("proxmox")
    data["hypervisors"]["host"] |= {"iso": "cloud"}
    inner = {"mode": "isolated", "subnet": "10.78.0.0/24"}
    data["hypervisors"]["host"]["networks"]["inner"] = inner
    for bus, drive in (("scsi", "scsi1"), ("virtio", "scsi1"), ("sata", "sata1"), ("ide", "ide1")):
        data["hypervisors"]["host"]["guests"]["web"]["disk_bus"] = bus
        made = fresh(data)
        [seed] = made.of_type("PveSeed")
        assert {"closes", "api"} <= seed.secret_inputs
        gate = made.named("host-web-gate").inputs
        assert list(gate["config"]) == [drive]
        assert (gate["probe"]["kind"], gate["reach"]["via"]["name"]) == ("ssh", "host")


@pytest.mark.parametrize("bus", ["scsi", "virtio", "ide"])
def test_proxmox_gives_windows_its_seed_on_sata(bus: str) -> None:
    data = nested("proxmox", disk_bus=bus, cloud_init={"system": "windows"})
    data["hypervisors"]["host"] |= {"iso": "cloud"}
    data["hypervisors"]["host"]["networks"]["inner"]["mode"] = "isolated"
    assert list(up(data).named("host-web-gate").inputs["config"]) == ["sata1"]


def test_vsphere_takes_a_seed_and_refuses_by_name_what_it_can_t_be_told() -> None:
    node = {"memory_mib": 8192, "disk_gib": 100, "cores": 4}
    where = {"server": "vc.test", "datacenter": "dc", "datastore": "disks"}
    host = {"kind": "vsphere", **where, "nodes": {"esx1.test": node}}
    web = {"iso": "cloud", "network": "net", "cloud_init": {}}
    networks = {"net": {"mode": "bridge"}}
    data = {"name": "lab", "host": host, "guests": {"web": web}, "networks": networks} | CLOUD
    assert load(data, root=ROOT, exists=lambda _: True).guests["web"].cloud_init
    data["guests"] = {"web": web | {"agent": True}}
    refused = r"guests\.web\.agent: True given, but .* does not take it"
    with pytest.raises(SpecError, match=refused):
        load(data, root=ROOT, exists=lambda _: True)
