"""A guest with more discs and a further disk on this machine's own libvirt: a real Linux looks into its drives.

A failure here is a disc that its guest does not see, or a further disk that is another after something else changed.
The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from components.media import iso
from tests.host.test_lab import changes
from tests.support import cloud_image
from tests.support.checkout import virsh
from toolchain.machine.system import System

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.checkout import Checkout

pytestmark = [pytest.mark.host, pytest.mark.soak]
BOOT_S = 900
GIB = 1 << 30


@pytest.fixture(scope="module")
def lab(checkout: Checkout) -> Checkout:
    """The checkout, whose lab is one guest of a cloud image with two discs and a further disk."""
    image = checkout.root / "cloud.qcow2"  # in the project, whose files a stack may name
    shutil.copy2(cloud_image.ensure(System()) / "root.qcow2", image)
    for name in ("drivers", "answers"):
        iso.make({"/name": name.encode()}, name.upper(), checkout.root / f"{name}.iso")

    def one(lab: dict[str, Any]) -> None:
        lab["media"] = {name: {"path": f"{name}.iso"} for name in ("drivers", "answers")}
        lab["media"]["cloud"] = {"path": "cloud.qcow2"}
        lab["boot"] = {"ready_s": BOOT_S}
        lab["hypervisors"] = {}
        web = {"image": "cloud", "memory_mib": 512, "network": "lab", "cloud_init": {}}
        lab["guests"] = {"web": web | {"discs": ["drivers", "answers"], "disks": {"data": 1}}}

    checkout.edit(one)
    for target in ("toolchain", "host", "doctor"):
        done = checkout.make_target(target)
        assert done.code == 0, done.said
    return checkout


def guest(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda lab: lab["guests"]["web"].update(fields)


def asked(lab: Checkout, *words: str) -> str:
    done = lab.inside(*words, host="web")
    assert done.code == 0, done.said
    return done.said.strip()


def disk(lab: Checkout) -> tuple[str, int]:
    """The further disk as the guest has it: its device, and its size in bytes."""
    rows = [line.split() for line in asked(lab, "lsblk", "-bdno", "NAME,SIZE,TYPE,RO").splitlines()]
    [(name, size)] = [
        (row[0], int(row[1]))
        for row in rows
        if row[2:] == ["disk", "0"] and int(row[1]) in {GIB, 2 * GIB} and row[0] != "vda"
    ]
    return f"/dev/{name}", size


def labels(lab: Checkout) -> list[str]:
    """What is written on the discs in its drives, in their order."""
    found = asked(lab, "lsblk", "-dno", "NAME,LABEL").splitlines()
    return [line.split()[1] for line in sorted(found) if line.startswith("sr")]


def test_it_sees_both_discs_in_order_and_an_empty_disk(lab: Checkout) -> None:
    done = lab.make_target("up", timeout_s=2 * BOOT_S)
    assert done.code == 0, done.said
    assert labels(lab) == ["DRIVERS", "ANSWERS"]
    device, size = disk(lab)
    assert size == GIB
    asked(lab, "sudo", "sh", "-c", f"echo kept | dd of={device} conv=fsync 2>/dev/null; sync")
    assert set(changes(lab.up())) == {"unchanged"}
    assert "DRIVES" in lab.run("./nestlab", "show").said


def test_it_grows_while_the_guest_runs_and_shrinks_never(lab: Checkout) -> None:
    running = virsh("domid", f"{lab.lab}-web")
    lab.edit(guest(disks={"data": 2}))
    said = lab.up()
    assert virsh("domid", f"{lab.lab}-web") == running, said
    assert disk(lab)[1] == 2 * GIB
    assert set(changes(lab.up())) == {"unchanged"}
    lab.edit(guest(disks={"data": 1}))
    refused = lab.pulumi("preview", "--suppress-progress")
    assert refused.code != 0
    assert "disks don't shrink" in refused.said
    lab.edit(guest(disks={"data": 2}))


def test_it_stays_when_the_guest_is_changed_in_other_things(lab: Checkout) -> None:
    lab.edit(guest(discs=["answers"], memory_mib=640))
    refused = lab.make_target("up")
    assert refused.code != 0, "its domain is made anew, which is asked for"
    assert "web: stopped, made anew and started; a disk it has stays" in refused.said
    done = lab.make_target("up", "LOSE=1", timeout_s=2 * BOOT_S)
    assert done.code == 0, done.said
    assert labels(lab) == ["ANSWERS"]
    device, size = disk(lab)
    assert (size, asked(lab, "sudo", "head", "-c", "4", device)) == (2 * GIB, "kept")


def test_it_goes_with_consent_alone(lab: Checkout) -> None:
    lab.edit(guest(disks={}))
    refused = lab.make_target("up")
    assert refused.code != 0
    assert "web-disk-data: removed, with what is on its disk" in refused.said
    assert f"{lab.lab}-web.data.qcow2" in virsh("vol-list", f"nestlab-{lab.lab}")
    lab.down()
    assert lab.left() == []
