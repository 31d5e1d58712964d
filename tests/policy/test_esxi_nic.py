"""esxi-nic: an ESXi that would install without a network is stopped before it exists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.policy.judging import (
    HYPERVISOR,
    PROXMOX,
    UNKNOWN,
    VSPHERE,
    Res,
    attribute,
    judge,
    lab,
    machine,
    sheet,
)

MODEL = "/domain/devices/interface/model/@type"
VMXNET3 = sheet(attribute(MODEL, "type", "vmxnet3"))


def proxmox(*models: str, **more: Any) -> Res:
    props = {
        "description": "nestlab:kind=esxi",
        "cpu": {"type": "host", "cores": 4},
        "memory": {"dedicated": 8192},
        "disks": [{"interface": "sata0", "size": 40}],
        "networkDevices": [{"bridge": UNKNOWN, "model": model} for model in models],
    }
    return Res(PROXMOX, "esxi", props | more)


def vsphere(*types: str | None, **more: Any) -> Res:
    props = {
        "guestId": "vmkernel8Guest",
        "numCpus": 4,
        "memory": 8192,
        "nestedHvEnabled": True,
        "disks": [{"size": 40}],
        "networkInterfaces": [{"networkId": UNKNOWN, "adapterType": each} for each in types],
    }
    return Res(VSPHERE, "esxi", props | more)


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="esxi")),
        lab(machine(kind="esxi", xml=sheet(attribute(MODEL, "type", "e1000")))),
        lab(machine(kind="esxi", xml=VMXNET3, networkInterfaces=None)),
        lab(machine(kind="esxi", xml=VMXNET3, networkInterfaces=[])),
        lab(
            machine(
                kind="esxi",
                xml=sheet('<xsl:template match="/domain/devices/interface/model"/>'),
            )
        ),
        lab(
            machine(
                description="nestlab:kind=esxi nestlab:version=7.0",
                xml=sheet(attribute(MODEL, "type", "e1000")),
            )
        ),
        lab(machine(disks=[{"file": "/iso/VMware-VMvisor-Installer-8.0U3.iso"}])),
        (proxmox("virtio"),),
        (proxmox("vmxnet3", "e1000e"),),
        (proxmox("", description="", tags=["nestlab-kind-esxi"]),),
        (vsphere("e1000"),),
        (vsphere("vmxnet3", "sriov"),),
        (replace(vsphere("e1000"), under=HYPERVISOR),),
    ],
)
def test_a_nic_without_a_driver_is_refused(stack: tuple[Res, ...]) -> None:
    said = judge(*stack)
    assert set(said) == {"esxi-nic"}
    assert "ESXi" in said["esxi-nic"][0]


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="esxi", xml=VMXNET3)),
        lab(
            machine(
                description="nestlab:kind=esxi nestlab:version=6.7",
                xml=sheet(attribute(MODEL, "type", "e1000")),
            )
        ),
        lab(
            machine(
                description="nestlab:kind=esxi nestlab:version=8.0",
                xml=sheet(attribute(MODEL, "type", "e1000e")),
            )
        ),
        lab(machine(kind="proxmox")),
        lab(machine()),
        (proxmox("vmxnet3"),),
        (proxmox("virtio", description="nestlab:kind=proxmox"),),
        (vsphere("vmxnet3", None),),
        (replace(vsphere("e1000e"), under=HYPERVISOR),),
        (vsphere("e1000", guestId="debian12_64Guest"),),
    ],
)
def test_a_nic_with_a_driver_passes(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


@pytest.mark.parametrize(
    "stack",
    [
        lab(machine(kind="esxi", xml={"xslt": UNKNOWN})),
        lab(machine(kind="esxi", networkInterfaces=UNKNOWN)),
        (proxmox(UNKNOWN),),
        (proxmox(networkDevices=UNKNOWN),),
        (vsphere(UNKNOWN),),
    ],
)
def test_a_nic_that_is_not_known_yet_is_not_judged(stack: tuple[Res, ...]) -> None:
    assert judge(*stack) == {}


def test_the_message_says_which_nic_and_what_would_do() -> None:
    said = judge(proxmox("vmxnet3", "virtio"))["esxi-nic"]
    assert said == ["esxi: NIC 1 is 'virtio'; ESXi has drivers for vmxnet3"]
