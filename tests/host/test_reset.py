"""A lab goes back to its snapshot in seconds: both layers, with the time of now, and whatever is killed.

The tests of this module share one lab and run in the order of the file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.checkout import virsh

if TYPE_CHECKING:
    from tests.support.checkout import Checkout, Done

# Quarter of an hour under emulation, with its cold half.
pytestmark = [pytest.mark.host, pytest.mark.soak]


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
    assert running.poll() is None, f"it had ended: {output.read_text()}"
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


def test_down_leaves_nothing_of_it(checkout: Checkout) -> None:
    checkout.down()
    assert checkout.left() == []
    assert list((checkout.root / ".nestlab" / "snapshots").iterdir()) == []
    kept = Path("/var/lib/libvirt/qemu/snapshot")
    assert [each for each in kept.glob(f"{checkout.lab}-*") if any(each.iterdir())] == []
