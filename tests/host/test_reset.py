"""A lab goes back to its snapshot in seconds, or is suspended and goes on: both layers, with the time of now.

The tests of this module share one lab and run in the order of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.checkout import virsh

if TYPE_CHECKING:
    from tests.support.checkout import Checkout, Done

# Quarter of an hour under emulation, with its cold half.
pytestmark = [pytest.mark.host, pytest.mark.soak]


class Ended(Exception):
    """A command that was to be killed had ended by then."""


def nestlab(checkout: Checkout, *words: str) -> Done:
    done = checkout.run("./nestlab", *words, timeout_s=600)
    assert done.code == 0, done.said
    return done


def listed(checkout: Checkout) -> dict[str, Any]:
    told = nestlab(checkout, "snapshot", "list", "--json").said
    found: dict[str, Any] = json.loads(told[told.index("{") :])
    return found


def snapshots(checkout: Checkout) -> list[str]:
    return virsh("snapshot-list", f"{checkout.lab}-kvm1", "--name").split()


def marked(checkout: Checkout) -> None:
    """Do in the lab what a student does: a file, a guest that is off, a container that is gone."""
    script = (
        "echo mine >/root/mine; sync; virsh destroy ipxe; lxc-stop -k -n box; date -s 2001-01-01"
    )
    checkout.inside("sh", "-c", script)
    assert checkout.inside("cat", "/root/mine").said.strip() == "mine"


def fresh(checkout: Checkout) -> str:
    """See the lab as it was, at both layers; return random bytes of the nested host's kernel."""
    assert "No such file" in checkout.inside("cat", "/root/mine").said
    assert checkout.inside("virsh", "-q", "list", "--name").said.split() == ["ipxe"]
    assert checkout.inside("lxc-info", "-n", "box", "-sH").said.strip() == "RUNNING"
    gateway = checkout.sheet()["box"]["address"].rpartition(".")[0] + ".1"
    ping = checkout.run("./nestlab", "enter", "box", "--", "ping", "-c1", "-W5", gateway).said
    assert "1 packets received" in ping, ping
    before = time.time()
    told = checkout.inside("sh", "-c", "date +%s.%N; head -c16 /dev/urandom | od -An -tx1").said
    now, noise = told.split(maxsplit=1)
    assert before - 2 < float(now) < time.time() + 2, "its clock is that of now"
    said = checkout.preview()
    assert (
        re.findall(r"\d+ (?!unchanged)\w+$", said.partition("Resources:")[2], re.MULTILINE) == []
    ), said
    return noise


def killed(checkout: Checkout, noted: str, after_s: float, *words: str) -> str:
    """Run a command of nestlab, and kill it ``after_s`` seconds after it has noted what it begins."""
    output = checkout.root / "killed.log"
    running = checkout.start(["./nestlab", *words], output)
    record = checkout.root / ".nestlab" / "snapshots" / "local.json"
    while not json.loads(record.read_text())[noted] and running.poll() is None:
        time.sleep(0.02)
    time.sleep(after_s)
    if running.poll() is not None:
        raise Ended(output.read_text())
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return output.read_text()


def test_a_snapshot_is_taken_and_changes_nothing(checkout: Checkout) -> None:
    nestlab(checkout, "up")
    nestlab(checkout, "snapshot", "take")
    assert listed(checkout)["usable"]
    assert len(snapshots(checkout)) == 1
    kept = list((checkout.root / ".nestlab" / "snapshots").iterdir())
    assert [oct(each.stat().st_mode & 0o777) for each in kept] == ["0o600"]
    fresh(checkout)


def test_nothing_goes_unasked(checkout: Checkout) -> None:
    done = checkout.run("./nestlab", "reset")
    assert done.code == 1
    assert "--lose" in done.said


def test_both_layers_go_back_and_have_the_time_and_randomness_of_now(checkout: Checkout) -> None:
    noise = set()
    for _ in range(2):
        marked(checkout)
        nestlab(checkout, "reset", "--lose")
        noise.add(fresh(checkout))
    assert len(noise) == 2, "what a kernel calls random is not what it was after the last reset"


def test_a_host_that_is_off_goes_back_too(checkout: Checkout) -> None:
    virsh("destroy", f"{checkout.lab}-kvm1")
    said = nestlab(checkout, "reset", "--lose").said
    assert "from the beginning" not in said
    fresh(checkout)


def test_a_take_that_is_killed_leaves_the_old_one(checkout: Checkout) -> None:
    old = listed(checkout)["snapshot"]["name"]
    killed(checkout, "going", 0.2, "snapshot", "take")
    assert listed(checkout)["snapshot"]["name"] == old
    marked(checkout)
    nestlab(checkout, "reset", "--lose")
    fresh(checkout)
    assert snapshots(checkout) == [old], "what the killed one made is gone"
    nestlab(checkout, "snapshot", "take")
    (new,) = snapshots(checkout)
    assert listed(checkout)["snapshot"]["name"] == new != old


@pytest.mark.parametrize("command", [("up",), ("reset", "--lose")], ids=["up", "reset"])
def test_a_reset_that_is_killed_is_gone_on_with(
    checkout: Checkout, command: tuple[str, ...]
) -> None:
    marked(checkout)
    killed(checkout, "resetting", 0.5, "reset", "--lose")
    nestlab(checkout, *command)
    fresh(checkout)


def test_a_lab_that_was_changed_is_made_anew_and_says_why(checkout: Checkout) -> None:
    checkout.edit(
        lambda lab: lab["hypervisors"]["kvm1"]["containers"].update(
            second={"template": "busybox", "memory_mib": 64, "network": "inner"}
        )
    )
    nestlab(checkout, "up")
    assert "changed since" in listed(checkout)["why"]
    said = nestlab(checkout, "reset", "--lose").said
    assert "from the beginning: the lab was changed since its snapshot was taken" in said
    assert checkout.inside("lxc-info", "-n", "second", "-sH").said.strip() == "RUNNING"
    assert listed(checkout)["usable"], "a new one was taken for the next time"


# Suspended ----------------------------------------------------------------------------------------


def lives(checkout: Checkout) -> str:
    """What tells one run of both layers from another: the host's boot, its guest's QEMU, its container."""
    script = "cat /proc/sys/kernel/random/boot_id; pidof qemu-system-x86_64; lxc-info -n box -pH"
    done = checkout.inside("sh", "-c", script)
    assert done.code == 0, done.said
    return done.said


def suspended(checkout: Checkout) -> bool:
    saved = virsh("list", "--all", "--with-managed-save", "--name").split()
    return f"{checkout.lab}-kvm1" in saved


def states(checkout: Checkout) -> dict[str, str]:
    told = nestlab(checkout, "show", "--json").said
    rows = json.loads(told[told.index("{") :])["sheet"]
    return {row["name"]: row["state"] for row in rows}


@pytest.mark.parametrize("verb", ["resume", "up"])
def test_a_suspended_lab_goes_on_from_where_it_was(checkout: Checkout, verb: str) -> None:
    before = lives(checkout)
    checkout.inside("sh", "-c", "echo unsaved >/run/mine")
    nestlab(checkout, "suspend")
    assert suspended(checkout)
    assert virsh("domstate", f"{checkout.lab}-kvm1").strip() == "shut off", "it takes no memory"
    assert states(checkout)["kvm1"] == "suspended"
    assert "suspended, its memory is saved; `pulumi up` mends it" in checkout.preview()
    assert "no machine of the lab" in nestlab(checkout, "suspend").said
    time.sleep(5)
    nestlab(checkout, verb)
    assert lives(checkout) == before, "nothing was booted, at either layer"
    assert checkout.inside("cat", "/run/mine").said.strip() == "unsaved"
    fresh(checkout)
    assert not suspended(checkout)


@pytest.mark.parametrize("after_s", [0.0, 0.4, 1.5])
@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_one_that_is_killed_is_gone_on_with(checkout: Checkout, verb: str, after_s: float) -> None:
    before = lives(checkout)
    if verb == "resume":
        nestlab(checkout, "suspend")
    with contextlib.suppress(Ended):
        killed(checkout, "suspended", after_s, verb)
    nestlab(checkout, "resume")
    assert lives(checkout) == before
    fresh(checkout)


def test_a_suspended_lab_goes_back_to_its_snapshot(checkout: Checkout) -> None:
    nestlab(checkout, "snapshot", "take")
    marked(checkout)
    nestlab(checkout, "suspend")
    said = nestlab(checkout, "reset", "--lose").said
    assert "from the beginning" not in said
    fresh(checkout)
    assert not suspended(checkout), "its memory is of another disk"


def test_memory_that_can_t_be_used_stays_until_it_is_given_up(checkout: Checkout) -> None:
    """QEMU was exchanged, say: here its file says that it is of another format."""
    before = lives(checkout)
    nestlab(checkout, "suspend")
    saved = Path(f"/var/lib/libvirt/qemu/save/{checkout.lab}-kvm1.save")
    whole = saved.read_bytes()[:20]
    with saved.open("r+b") as handle:
        handle.seek(16)
        handle.write(b"\xff")
    done = checkout.run("./nestlab", "resume")
    assert done.code == 1
    assert "resume --lose" in done.said, done.said
    assert saved.exists()
    with saved.open("r+b") as handle:
        handle.write(whole)
    nestlab(checkout, "resume")
    assert lives(checkout) == before

    nestlab(checkout, "suspend")
    with saved.open("r+b") as handle:
        handle.seek(16)
        handle.write(b"\xff")
    nestlab(checkout, "resume", "--lose")
    nestlab(checkout, "up")
    assert lives(checkout).splitlines()[0] != before.splitlines()[0], "it was booted"
    fresh(checkout)


def test_without_room_nothing_is_suspended(checkout: Checkout) -> None:
    before = lives(checkout)
    folder = "/var/lib/libvirt/qemu/save"
    daemon = subprocess.run(["pidof", "libvirtd"], capture_output=True, text=True, check=True)
    there = ["nsenter", f"--mount=/proc/{daemon.stdout.split()[0]}/ns/mnt"]
    subprocess.run([*there, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    try:
        done = checkout.run("./nestlab", "suspend")
    finally:
        subprocess.run([*there, "umount", folder], check=True)
    assert done.code == 1
    assert "nothing was suspended" in done.said
    assert lives(checkout) == before
    fresh(checkout)


def test_down_leaves_nothing_of_it(checkout: Checkout) -> None:
    nestlab(checkout, "suspend")
    checkout.down()
    assert checkout.left() == []
    assert not suspended(checkout)
    assert list(Path("/var/lib/libvirt/qemu/save").glob(f"{checkout.lab}-*")) == []
    assert list((checkout.root / ".nestlab" / "snapshots").iterdir()) == []
    kept = Path("/var/lib/libvirt/qemu/snapshot")
    assert [each for each in kept.glob(f"{checkout.lab}-*") if any(each.iterdir())] == []
