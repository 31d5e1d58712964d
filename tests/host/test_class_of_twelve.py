"""A class of twelve on this machine's libvirt, each with a nested KVM host, a guest and a container in it.

A failure here is a student who reaches somebody else's lab, or whose lab is touched by what is done to another's. The
tests share one class and run in the order of the file.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from tests.host.test_class import Class
from tests.host.test_closed import ASK, OWN_LOCAL, serving
from tests.support.checkout import virsh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.checkout import Checkout

pytestmark = [pytest.mark.host, pytest.mark.soak]
STUDENTS = tuple(f"s{number:02}" for number in range(1, 13))
ANYWAY = "--anyway"
"""Twelve machines that may have 2 GiB each and never touch a third of that."""
SETTLED_S = 600.0
"""Two cores boot twelve machines, and those that came last are at work a while longer."""
ON_THE_LINK = r"""
busybox ping -c 2 -W 2 ff02::1%eth0 >/dev/null 2>&1
ip -6 neigh show dev eth0 | grep -v FAILED
for a; do busybox arping -q -c 2 -w 3 -I eth0 "$a" && echo "$a"; done
exit 0
"""


class Nested(Class):
    """A class whose labs have two layers."""

    lasts_s = 3000.0  # twelve emulated machines on two cores

    @override
    def _tiny(self, lab: dict[str, Any]) -> None:
        lab["hypervisors"]["kvm1"]["memory_mib"] = 2048
        lab["boot"] = {"ready_s": 600}

    def sheet(self, student: str) -> dict[str, dict[str, Any]]:
        """The connection sheet of a student's lab by machine."""
        told = self.checkout.run("./nestlab", "show", "-s", f"{self.name}.{student}", "--json").said
        rows = json.loads(told[told.index("{") :])["sheet"]
        return {row["name"]: row for row in rows}

    def inside(self, student: str, machine: str, *command: str) -> str:
        """What a command says on a machine of a student's lab, as they enter it."""
        theirs = replace(self.checkout, stack=f"{self.name}.{student}")
        done = theirs.inside(*command, host=machine)
        assert done.code == 0, done.said
        return done.said

    def settled(self) -> None:
        """Wait until each machine of each lab answers in the second or so that a look takes."""
        until = time.monotonic() + SETTLED_S
        while late := {
            each: one["said"] for each, one in self.status().items() if one["state"] != "up"
        }:
            assert time.monotonic() < until, late
            time.sleep(5)

    def answers(self, student: str) -> None:
        """Both layers answer: a packet goes in, and comes back."""
        told = self.inside(student, "kvm1", "virsh", "list", "--name")
        assert "ipxe" in told.split(), "the guest runs"
        assert self.inside(student, "box", "hostname").strip() == "box"
        address = self.sheet(student)["box"]["address"]
        self.inside(student, "kvm1", "busybox", "ping", "-c", "1", "-W", "10", address)


@pytest.fixture(scope="module")
def group(checkout: Checkout) -> Iterator[Nested]:
    checkout.prepare("toolchain", "host", "image")
    made = Nested(checkout)
    made.has(*STUDENTS)
    try:
        yield made
    finally:
        made.run("down")


@pytest.fixture(scope="module")
def listening() -> Iterator[None]:
    with serving():
        yield


def test_it_comes_up_and_both_layers_of_each_lab_answer(group: Nested) -> None:
    group.does("up", ANYWAY)
    assert len(group.running()) == len(STUDENTS)
    group.settled()
    for each in STUDENTS:
        group.answers(each)


@pytest.mark.usefixtures("listening")
def test_a_students_machine_reaches_nobody_elses_and_nothing_of_the_host(group: Nested) -> None:
    one, other = STUDENTS[0], STUDENTS[1]
    theirs = group.sheet(other)["kvm1"]["address"]
    own, gateway = (
        f"{group.sheet(each)['kvm1']['address'].rpartition('.')[0]}.1" for each in (one, other)
    )
    for each, end in ((one, "77"), (other, "78")):
        group.inside(each, "kvm1", "sh", "-c", OWN_LOCAL, "sh", end)
    said = group.inside(one, "kvm1", "sh", "-c", ON_THE_LINK, "sh", own, theirs, gateway)
    on_the_link = said.splitlines()
    assert on_the_link[-1] == own, "of those asked for by ARP the own gateway alone"
    assert theirs not in said
    assert "fe80:" not in said, "nobody of IPv6 is on its link: libvirt gives the gateway none"
    asked = [own, gateway, theirs, "fe80::78%eth0"]
    seen = group.inside(one, "kvm1", "bash", "-c", ASK, "bash", *asked).splitlines()
    assert set(seen) <= {f"{own} 53", f"{own} ping"}, seen
    assert f"{own} 53" in seen


def test_one_goes_back_to_the_beginning_and_no_other_is_touched(group: Nested) -> None:
    first = group.running()
    group.inside("s03", "kvm1", "touch", "/root/done-by-the-student")
    group.does("reset", "s03")
    assert group.running().keys() == first.keys()
    mine = f"{group.name}-s03-kvm1"
    assert {k: v for k, v in group.running().items() if k != mine} == {
        k: v for k, v in first.items() if k != mine
    }
    group.answers("s03")
    assert "done" not in group.inside("s03", "kvm1", "ls", "/root")


WHO = r"""
cat /etc/machine-id /sys/class/dmi/id/product_uuid /proc/sys/kernel/random/boot_id /etc/hostname
cat /etc/ssh/ssh_host_*_key.pub /root/.ssh/authorized_keys | cut -d' ' -f2
ip -o -4 addr show scope global dev eth0 | tr -s ' ' | cut -d' ' -f4
cat /sys/class/net/eth0/address
virsh domuuid ipxe; virsh dumpxml ipxe | grep -o "mac address=.*"
lxc-info -n box -c lxc.net.0.hwaddr
head -c 16 /dev/urandom | od -An -tx1
lxc-attach -n box -- head -c 16 /dev/urandom | od -An -tx1
"""
"""What a machine and those in it are known by, and what they call random."""


def test_suspended_over_night_all_are_there_in_the_morning(group: Nested) -> None:
    def free() -> int:
        told = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
        return int(told.split()[0]) >> 10

    def lives(student: str) -> str:
        script = "cat /proc/sys/kernel/random/boot_id; pidof qemu-system-x86_64"
        return group.inside(student, "kvm1", "sh", "-c", script)

    before = {each: lives(each) for each in STUDENTS}
    room = free()
    began = time.monotonic()
    group.does("suspend")
    took = time.monotonic() - began
    assert group.running() == {}
    assert {one["state"] for one in group.status().values()} == {"suspended"}
    freed = free() - room
    began = time.monotonic()
    group.does("resume")
    print(f"\n{len(STUDENTS)} labs: suspended in {took:.0f} s, {freed} MiB free by it, "
          f"on in {time.monotonic() - began:.0f} s")  # fmt: skip
    assert freed > 0
    group.settled()
    for each in STUDENTS:
        group.answers(each)
    assert {each: lives(each) for each in STUDENTS} == before, "nothing was booted"


def test_two_labs_share_no_key_no_identity_and_no_random_number(group: Nested) -> None:
    one, other = (group.inside(each, "kvm1", "sh", "-c", WHO).splitlines() for each in STUDENTS[:2])
    assert len(one) == len(other) > 12, one
    same = {line.strip() for line in one} & {line.strip() for line in other}
    assert same == set(), same


def test_two_leave_one_joins_and_in_the_end_nothing_is_left(group: Nested) -> None:
    before = group.running()
    group.has(*STUDENTS[2:], "s13")
    group.does("up", ANYWAY)
    now = group.running()
    assert before.items() <= now.items(), "nobody else's lab was touched"
    group.answers("s13")
    group.does("down", "--left")
    gone = {f"{group.name}-{each}-kvm1" for each in STUDENTS[:2]}
    assert group.running() == {k: v for k, v in now.items() if k not in gone}
    group.does("down")
    assert group.left() == []
    assert group.name not in virsh("list", "--all", "--name")
