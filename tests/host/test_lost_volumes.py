"""A volume that somebody deleted by hand, on this machine's own libvirt and in a nested KVM host.

A failure here is a machine of which a preview says that all is well while its disk is gone, or one that is made anew
without a word. The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.test_lab import changes
from tests.support.checkout import virsh

if TYPE_CHECKING:
    from tests.support.checkout import Checkout

pytestmark = [pytest.mark.host, pytest.mark.soak]
INSIDE = "nestlab"
"""The pool of a nested host."""


@pytest.fixture(scope="module")
def lab(checkout: Checkout) -> Checkout:
    """The checkout, whose lab has small guests on each layer: with a disk and a disc, and with a disk of an image."""
    image = checkout.root / "tiny.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"]
    subprocess.run(words, check=True, timeout=60)

    def small(lab: dict[str, Any]) -> None:
        lab["media"]["tiny"] = {"path": image.name}
        web = {"iso": "ipxe", "memory_mib": 64, "network": "lab", "disk_gib": 1}
        made = {"image": "tiny", "memory_mib": 64, "network": "lab", "ready": {"probe": "none"}}
        lab["guests"] = {"web": web | {"disks": {"data": 1}}, "db": web, "img": made}
        deep, below = web | {"network": "inner", "memory_mib": 256}, made | {"network": "inner"}
        inside = {"guests": {"deep": deep, "below": below}, "containers": {}}
        lab["hypervisors"]["kvm1"] |= inside

    checkout.edit(small)
    checkout.prepare("toolchain", "host", "image")
    done = checkout.make_target("up")
    assert done.code == 0, done.said
    return checkout


def pool(lab: Checkout) -> str:
    return f"nestlab-{lab.lab}"


def stored(lab: Checkout) -> list[str]:
    return [line.split()[0] for line in virsh("vol-list", pool(lab)).splitlines() if line]


def run_of(lab: Checkout, guest: str) -> str:
    """What another start of ``guest`` changes."""
    return virsh("domid", f"{lab.lab}-{guest}").strip()


def within(lab: Checkout, *words: str) -> str:
    """Run a command on the nested host."""
    done = lab.inside(*words)
    assert done.code == 0, done.said
    return done.said


def mended(lab: Checkout) -> None:
    done = lab.make_target("up", "LOSE=1")
    assert done.code == 0, done.said
    assert set(changes(lab.up())) == {"unchanged"}


def test_a_disk_that_is_gone_is_told_and_its_guest_made_anew_with_consent(lab: Checkout) -> None:
    disk = f"{lab.lab}-web.qcow2"
    before, other = run_of(lab, "web"), run_of(lab, "db")
    virsh("vol-delete", disk, pool(lab))
    said = lab.preview()
    assert f"{disk} of web is not in pool {pool(lab)} any more, and what was on it is lost" in said
    assert changes(said)["to replace"] == 2, said
    asked = lab.make_target("up")
    assert asked.code != 0, "nobody is switched off unasked"
    assert "web: made anew, and what is in it is lost" in asked.said
    assert disk not in stored(lab)
    mended(lab)
    assert disk in stored(lab)
    assert run_of(lab, "web") != before, "it would run on with the file that was deleted"
    assert run_of(lab, "db") == other, "the other one stays as it is"


def test_a_disc_of_two_guests_is_made_again_and_their_disks_stay(lab: Checkout) -> None:
    [disc] = [name for name in stored(lab) if name.startswith("medium-ipxe")]
    before = [run_of(lab, guest) for guest in ("web", "db")]
    virsh("vol-delete", disc, pool(lab))
    said = lab.preview()
    assert f"{disc} of db, web is not in pool" in said, said
    asked = lab.make_target("up")
    assert "db: stopped, made anew and started; a disk it has stays" in asked.said
    mended(lab)
    assert disc in stored(lab)
    assert not set(before) & {run_of(lab, guest) for guest in ("web", "db")}


def test_a_further_disk_is_made_anew_and_the_others_stay(lab: Checkout) -> None:
    disk = f"{lab.lab}-web.data.qcow2"
    virsh("vol-delete", disk, pool(lab))
    said = lab.preview()
    assert f"{disk} of web is not in pool" in said
    assert changes(said)["to replace"] == 2, said
    mended(lab)
    assert disk in stored(lab)


def test_a_pool_that_is_stopped_has_lost_nothing(lab: Checkout) -> None:
    before, held = run_of(lab, "web"), stored(lab)
    virsh("pool-destroy", pool(lab))
    said = lab.preview()
    assert f"pool {pool(lab)} is stopped" in said
    assert "any more" not in said
    done = lab.make_target("up")
    assert done.code == 0, done.said
    assert (stored(lab), run_of(lab, "web")) == (held, before)
    assert set(changes(lab.up())) == {"unchanged"}


def test_a_volume_that_a_refresh_saw_first_is_made_anew_with_its_guest(lab: Checkout) -> None:
    """The state has it no more then, and the engine alone would leave the guest on the file that was deleted."""
    disk, before = f"{lab.lab}-db.qcow2", run_of(lab, "db")
    virsh("vol-delete", disk, pool(lab))
    lab.pulumi("refresh", "--yes", "--skip-preview")
    mended(lab)
    assert disk in stored(lab)
    assert run_of(lab, "db") != before


@pytest.mark.parametrize("guest", ["img", "below"])
def test_an_image_is_sent_again_and_the_disks_that_were_made_from_it_stay(
    guest: str, lab: Checkout
) -> None:
    deep = guest == "below"
    held, domain = (INSIDE, guest) if deep else (pool(lab), f"{lab.lab}-{guest}")
    file = f"{domain}.qcow2"
    listed = within(lab, "virsh", "-q", "vol-list", held) if deep else virsh("vol-list", held)
    rows = dict(line.split() for line in listed.splitlines() if line.strip())
    [image] = [name for name in rows if name.startswith("medium-tiny")]

    def about(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    look = (lambda *words: within(lab, *words)) if deep else about
    disk = look("stat", "-c", "%i %W", rows[file])
    look("virsh", "-q", "-c", "qemu:///system", "vol-delete", image, held)
    said = lab.preview()
    assert f"{image} of {guest} is not in pool {held} any more: `pulumi up` sends it again" in said
    assert "to replace" not in said, "a disk that was made from it would be lost"
    done = lab.make_target("up")
    assert done.code == 0, done.said
    assert look("stat", "-c", "%a", rows[image]).split() == ["600"]
    wanted = hashlib.sha256(Path(lab.root, "tiny.qcow2").read_bytes()).hexdigest()
    assert wanted in look("sha256sum", rows[image])
    assert look("stat", "-c", "%i %W", rows[file]) == disk
    look("virsh", "-q", "-c", "qemu:///system", "destroy", domain)
    assert set(changes(lab.up())) == {"updated", "unchanged"}, "its guest starts from both"
    assert set(changes(lab.up())) == {"unchanged"}


def test_a_disk_inside_a_nested_host_is_told_and_made_anew_there(lab: Checkout) -> None:
    disk, before = "deep.qcow2", run_of(lab, "kvm1")
    within(lab, "virsh", "-q", "-c", "qemu:///system", "vol-delete", disk, INSIDE)
    said = lab.preview()
    assert f"{disk} of deep is not in pool {INSIDE} any more, and what was on it is lost" in said
    assert changes(said)["to replace"] == 2, said
    mended(lab)
    assert disk in within(lab, "virsh", "-q", "-c", "qemu:///system", "vol-list", INSIDE)
    assert run_of(lab, "kvm1") == before


def test_a_nested_host_whose_disk_is_gone_is_made_anew_with_all_in_it(lab: Checkout) -> None:
    disk, before = f"{lab.lab}-kvm1.qcow2", run_of(lab, "kvm1")
    virsh("vol-delete", disk, pool(lab))
    asked = lab.make_target("up")
    assert asked.code != 0
    for name in ("kvm1", "deep", "below"):
        assert f"{name}: made anew, and what is in it is lost" in asked.said
    mended(lab)
    assert run_of(lab, "kvm1") != before
    assert "deep.qcow2" in within(lab, "virsh", "-q", "-c", "qemu:///system", "vol-list", INSIDE)


def test_nothing_of_it_is_left(lab: Checkout) -> None:
    lab.down()
    assert lab.left() == []
