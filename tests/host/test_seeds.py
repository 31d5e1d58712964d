"""Guests that are told who they are, on this machine's own libvirt and two layers down: a real cloud-init acts.

A failure here is a guest that nobody gets into, an address of the sheet that is nobody's, or a change of a
configuration that is lost. The tests share one lab and run in the order of the file.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.host.test_lab import changes
from tests.support import cloud_image
from tests.support.checkout import virsh
from toolchain.machine.system import System

if TYPE_CHECKING:
    from tests.support.checkout import Checkout

pytestmark = [pytest.mark.host, pytest.mark.soak]
BOOT_S = 900
"""cloud-init is Python, and KVM in an emulated machine is slow."""
MARKED = "echo first > /srv/mark"


@pytest.fixture(scope="module")
def lab(checkout: Checkout) -> Checkout:
    """The checkout, whose lab has a guest of one cloud image on each layer."""
    image = checkout.root / "cloud.qcow2"  # in the project, whose files a stack may name
    shutil.copy2(cloud_image.ensure(System()) / "root.qcow2", image)

    def two(lab: dict[str, Any]) -> None:
        lab["media"] = {"cloud": {"path": str(image)}}
        lab["boot"] = {"ready_s": BOOT_S}
        web = {"image": "cloud", "memory_mib": 512, "network": "lab"}
        web["cloud_init"] = {"user": "ana", "hostname": "front", "commands": [MARKED]}
        lab["guests"] = {"web": web}
        deep = {"image": "cloud", "memory_mib": 512, "network": "inner", "cloud_init": {}}
        # Its kernel hangs now and then: KVM in an emulated machine loses timers.
        deep["ready"] = {"reset_s": 300}
        lab["hypervisors"]["kvm1"] |= {"guests": {"deep": deep}, "containers": {}}

    checkout.edit(two)
    checkout.prepare("toolchain", "host", "image")
    return checkout


def asked(lab: Checkout, name: str, *words: str) -> str:
    done = lab.inside(*words, host=name)
    assert done.code == 0, done.said
    return done.said.strip()


def test_both_are_entered_by_their_own_user_through_all_layers(lab: Checkout) -> None:
    done = lab.make_target("up", timeout_s=2 * BOOT_S)
    assert done.code == 0, done.said
    assert asked(lab, "web", "id", "-un") == "ana"
    assert asked(lab, "deep", "id", "-un") == "student"
    assert asked(lab, "deep", "sudo", "id", "-un") == "root"
    assert (asked(lab, "web", "hostname"), asked(lab, "deep", "hostname")) == ("front", "deep")
    for name, row in lab.sheet().items():
        if row["kind"] == "guest":
            assert f" {row['address']}/" in asked(lab, name, "ip", "-4", "-o", "addr"), name
    assert asked(lab, "web", "cat", "/srv/mark") == "first", "up only once its commands ran"


def test_the_sheet_has_their_users_and_their_passwords_open_them(lab: Checkout) -> None:
    plain, told = lab.run("./nestlab", "show"), lab.run("./nestlab", "show", "--secrets", "--json")
    assert "student" in plain.said, plain.said
    logins = json.loads(told.said)["logins"]
    for name, user in (("web", "ana"), ("deep", "student")):
        assert logins[name] not in plain.said
        line = asked(lab, name, "sudo", "grep", f"^{user}:", "/etc/shadow")
        salt, hashed = re.findall(r"\$6\$([^$]+)\$[^:]+", line)[0], line.split(":")[1]
        words = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
        made = subprocess.run(words, input=logins[name], capture_output=True, text=True, check=True)
        assert made.stdout.strip() == hashed, "the password of the sheet is the guest's"


def test_a_second_up_has_nothing_to_do(lab: Checkout) -> None:
    assert set(changes(lab.up())) == {"unchanged"}


def test_a_seed_that_was_taken_away_is_seen_by_a_refresh_and_comes_back(lab: Checkout) -> None:
    """The provider looks at its volumes in no preview; the domain that it can't read then is left in the state."""
    pool = f"nestlab-{lab.lab}"
    # By name and by path.
    seeds = sorted(set(re.findall(rf"{lab.lab}-web-seed-\w+\.img", virsh("vol-list", pool))))
    assert len(seeds) == 1
    virsh("vol-delete", seeds[0], pool)
    said = lab.pulumi("refresh", "--yes", "--skip-preview").said
    assert seeds[0] in said, said
    lab.up()
    assert seeds[0] in virsh("vol-list", pool)
    assert set(changes(lab.up())) == {"unchanged"}


def test_another_configuration_acts_on_the_guest_that_is_there(lab: Checkout) -> None:
    def more(lab: dict[str, Any]) -> None:
        told = lab["guests"]["web"]["cloud_init"]
        told["commands"] = ["cat /srv/mark > /srv/seen"]
        told["hostname"] = "shop"

    lab.edit(more)
    said = lab.preview()
    assert "its configuration changed: it is stopped and started with another seed" in said, said
    done = lab.make_target("up", timeout_s=BOOT_S)
    assert done.code != 0
    assert "a disk it has stays" in done.said, "nobody is stopped unasked"
    done = lab.make_target("up", "LOSE=1", timeout_s=2 * BOOT_S)
    assert done.code == 0, done.said
    assert asked(lab, "web", "hostname") == "shop"
    assert asked(lab, "web", "cat", "/srv/seen") == "first", "its disk is the one it had"
    assert asked(lab, "deep", "id", "-un"), "the other one stays as it is"


def test_a_command_that_fails_is_named_by_the_machine_that_waits(lab: Checkout) -> None:
    def wrong(lab: dict[str, Any]) -> None:
        web = lab["guests"]["web"]
        web["cloud_init"]["commands"] = ["true", "exit 3"]
        web["ready"] = {"deadline_s": 240}

    before = yaml.safe_load(lab.settings.read_text())
    lab.edit(wrong)
    done = lab.make_target("up", "LOSE=1", timeout_s=2 * BOOT_S)
    assert done.code != 0
    assert "failed at commands.1" in done.said, done.said
    lab.settings.write_text(yaml.safe_dump(before, sort_keys=False))


def test_nothing_of_them_is_left(lab: Checkout) -> None:
    lab.down()
    assert lab.left() == []
