"""What a vSphere machine is made of, as plain objects of its SDK.

A failure here means that a machine is put right that was right, or is made again as another one.
"""

from __future__ import annotations

from typing import Any

import pytest

from components.gates.codec import read
from components.kinds.vsphere.api import sdk, words
from components.kinds.vsphere.hardware import (
    Wanted,
    again,
    correction,
    definition,
    differences,
    shell,
    while_it_runs,
)

UUID = "6fa5a466-5774-522f-912e-f17932e107b7"
DISK_UUID = "2d4b7901-9456-58bd-8caa-5c05334cf425"
MAC = "00:50:56:01:02:03"
WANTED: dict[str, Any] = {
    "memory_mib": 512,
    "cores": 2,
    "nics": [{"mac": MAC, "model": "vmxnet3", "network": "lab-own"}],
    "cds": ["nestlab/a.iso"],
    "boot": ["hd", "cdrom"],
}


def wanted(change: dict[str, Any] | None = None) -> Wanted:
    """What a machine is to be, as its gate is given it."""
    return read(Wanted, WANTED | (change or {}))


vim = sdk().vim
devices = vim.vm.device


def config() -> Any:
    """A machine that is as wanted."""
    options = vim.vm.BootOptions
    return vim.vm.ConfigInfo(
        name="lab-web",
        uuid=UUID,
        version="vmx-13",
        guestId="otherGuest64",
        annotation="nestlab x",
        firmware="efi",
        nestedHVEnabled=True,
        files=vim.vm.FileInfo(vmPathName="[store] lab-web/lab-web.vmx"),
        flags=vim.vm.FlagInfo(virtualExecUsage="hvAuto"),
        bootOptions=options(
            bootRetryDelay=10000,
            bootOrder=[options.BootableDiskDevice(deviceKey=2000), options.BootableCdromDevice()],
        ),
        extraConfig=[
            vim.option.OptionValue(key="ethernet0.checkMACAddress", value="FALSE"),
            vim.option.OptionValue(key="nvram", value="lab-web.nvram"),
        ],
        hardware=vim.vm.VirtualHardware(
            numCPU=2,
            numCoresPerSocket=2,
            memoryMB=512,
            device=[
                devices.VirtualIDEController(key=200, busNumber=0),
                devices.VirtualKeyboard(key=600),
                devices.ParaVirtualSCSIController(
                    key=1000, busNumber=0, sharedBus="noSharing", controllerKey=100
                ),
                devices.VirtualDisk(
                    key=2000,
                    controllerKey=1000,
                    unitNumber=0,
                    capacityInKB=4194304,
                    backing=devices.VirtualDisk.FlatVer2BackingInfo(
                        fileName="[store] lab-web/lab-web.vmdk",
                        diskMode="persistent",
                        thinProvisioned=True,
                        uuid=DISK_UUID,
                    ),
                ),
                devices.VirtualCdrom(
                    key=3000,
                    controllerKey=200,
                    unitNumber=0,
                    backing=devices.VirtualCdrom.IsoBackingInfo(fileName="[store] nestlab/a.iso"),
                ),
                devices.VirtualVmxnet3(
                    key=4000,
                    macAddress=MAC.upper(),
                    addressType="manual",
                    backing=devices.VirtualEthernetCard.NetworkBackingInfo(
                        deviceName="lab-own", network=vim.Network("network-7")
                    ),
                ),
            ],
        ),
    )


def device(machine: Any, kind: str) -> Any:
    return next(each for each in machine.hardware.device if type(each).__name__.endswith(kind))


def test_a_machine_that_is_as_wanted_is_left_alone() -> None:
    assert differences(config(), wanted()) == []
    assert while_it_runs(config(), wanted())
    spec = correction(config(), wanted(), "store")
    assert (spec.memoryMB, spec.numCPUs, spec.bootOptions) == (None, None, None)
    assert list(spec.deviceChange) == []


@pytest.mark.parametrize(
    ("change", "said", "hot"),
    [
        ({"memory_mib": 768}, "has 512 MiB of memory instead of 768", False),
        ({"cores": 1}, "has 2 cores instead of 1", False),
        ({"cds": ["nestlab/b.iso"]}, "does not have the CD nestlab/b.iso", True),
        (
            {"cds": ["nestlab/seed.iso"], "seed": "nestlab/seed.iso"},
            "does not have the CD nestlab/seed.iso",
            False,
        ),
        ({"cds": ["nestlab/a.iso", "b.iso"]}, "does not have the CD b.iso", False),
        ({"boot": ["cdrom", "hd"]}, "does not boot from cdrom, hd", False),
        (
            {"nics": [{"mac": MAC, "model": "vmxnet3", "network": "other"}]},
            f"has its NIC {MAC} on lab-own",
            True,
        ),
        (
            {"nics": [{"mac": "00:50:56:00:00:01", "model": "e1000", "network": "lab-own"}]},
            "has no NIC 00:50:56:00:00:01",
            False,
        ),
    ],
    ids=["memory", "cores", "disc", "seed", "drive", "boot order", "network", "card"],
)
def test_what_is_not_as_wanted_is_told_and_put_right(
    change: dict[str, Any], said: str, hot: bool
) -> None:
    asked = wanted(change)
    assert differences(config(), asked) == [said]
    assert while_it_runs(config(), asked) is hot
    machine = config()
    spec = correction(machine, asked, "store")
    for each in spec.deviceChange:
        if each.operation == "add":
            machine.hardware.device.append(each.device)
    machine.hardware.memoryMB = spec.memoryMB or machine.hardware.memoryMB
    machine.hardware.numCPU = spec.numCPUs or machine.hardware.numCPU
    machine.bootOptions = spec.bootOptions or machine.bootOptions
    assert differences(machine, asked) == [], "edits are made in place"


def test_a_second_drive_takes_a_free_place_and_the_right_datastore() -> None:
    spec = correction(config(), wanted({"cds": ["nestlab/a.iso", "nestlab/b.iso"]}), "store")
    [change] = spec.deviceChange
    assert change.operation == "add"
    assert (change.device.controllerKey, change.device.unitNumber) == (200, 1)
    assert change.device.backing.fileName == "[store] nestlab/b.iso"
    assert change.device.connectable.startConnected


def test_what_is_not_changed_of_the_boot_options_is_said_again() -> None:
    spec = correction(config(), wanted({"boot": ["network", "hd"]}), "store")
    assert spec.bootOptions.bootRetryDelay == 10000
    network, disk = spec.bootOptions.bootOrder
    assert (network.deviceKey, disk.deviceKey) == (4000, 2000)


def test_devices_that_somebody_added_stay() -> None:
    machine = config()
    machine.hardware.device.append(
        devices.VirtualE1000(key=4001, macAddress="00:50:56:00:00:09", addressType="manual")
    )
    assert differences(machine, wanted()) == []
    assert list(correction(machine, wanted(), "store").deviceChange) == []


def test_a_machine_is_made_again_with_what_the_provider_knows_it_by() -> None:
    spec = again(definition(config()))
    assert (spec.name, spec.uuid, spec.annotation) == ("lab-web", UUID, "nestlab x")
    assert (spec.memoryMB, spec.numCPUs, spec.firmware) == (512, 2, "efi")
    assert spec.nestedHVEnabled is True
    assert spec.flags.virtualExecUsage == "hvAuto"
    assert spec.files.vmPathName == "[store]"
    assert [each.key for each in spec.extraConfig] == ["ethernet0.checkMACAddress"]
    assert spec.bootOptions.bootRetryDelay == 10000
    assert not spec.bootOptions.bootOrder, "its devices are other ones then"
    made = {type(each.device).__name__.rpartition(".")[2]: each for each in spec.deviceChange}
    assert set(made) == {
        "ParaVirtualSCSIController",
        "VirtualDisk",
        "VirtualCdrom",
        "VirtualVmxnet3",
    }
    disk = made["VirtualDisk"]
    assert (disk.fileOperation, disk.device.capacityInKB) == ("create", 4194304)
    assert disk.device.backing.uuid == DISK_UUID
    assert disk.device.backing.fileName == "[store]", "never the file that was lost"
    assert disk.device.controllerKey == made["ParaVirtualSCSIController"].device.key
    card = made["VirtualVmxnet3"].device
    assert card.macAddress.lower() == MAC
    assert (card.backing.deviceName, card.backing.network) == ("lab-own", None)


def test_a_machine_that_is_made_to_be_deleted_takes_nobodys_name() -> None:
    spec = shell(definition(config()))
    assert (spec.name, spec.uuid) == (f"lab-web-{UUID}", UUID)
    assert not spec.deviceChange


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (vim.fault.InvalidLogin(msg="Cannot complete login"), "Cannot complete login"),
        (vim.fault.DuplicateName(name="lab-web"), "DuplicateName (lab-web)"),
        (
            vim.fault.InvalidVmConfig(
                msg="Invalid configuration",
                faultMessage=[sdk().vmodl.LocalizableMessage(key="k", message="device 0")],
            ),
            "Invalid configuration (device 0)",
        ),
        (vim.fault.NotFound(msg="two\nlines"), "two lines"),
    ],
    ids=["message", "none", "details", "lines"],
)
def test_a_fault_is_told_in_one_line(fault: Any, said: str) -> None:
    assert words(fault) == said
