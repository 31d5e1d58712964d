"""A class of three on this machine's libvirt: up, a look, one from the beginning, one leaves, one joins, away.

Labs of one guest without a system, which only has to run: what is tried is the class, not its guests.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.checkout import UP_S, virsh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.checkout import Checkout, Done

pytestmark = pytest.mark.host


class Class:
    """A class of the checkout, of which no other run has the name."""

    lasts_s = UP_S
    """How long a verb may take, seconds."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.name = f"c{checkout.lab[1:]}"
        self.settings = checkout.root / f"{self.name}.yaml"
        checkout.edit(self._tiny)

    def _tiny(self, lab: dict[str, Any]) -> None:
        del lab["hypervisors"]
        lab["guests"] = {
            "one": {"iso": "ipxe", "memory_mib": 16, "network": "lab", "ready": {"probe": "none"}}
        }

    def has(self, *students: str) -> None:
        """Write the roster."""
        # Of the lab's own range, which no other run is likely to have either.
        first, second, _ = self.checkout.subnets[1].split(".", 2)
        told = {
            "template": self.checkout.stack,
            "subnets": f"{first}.{second}.0.0/16",
            "students": list(students),
        }
        self.settings.write_text(yaml.safe_dump(told))

    def run(self, verb: str, *words: str) -> Done:
        """Run a verb of the class to its end."""
        argv = ("./nestlab", "class", verb, str(self.settings), *words)
        return self.checkout.run(*argv, timeout_s=self.lasts_s)

    def does(self, verb: str, *words: str) -> str:
        """Run one that has to succeed."""
        done = self.run(verb, *words)
        assert done.code == 0, done.said
        return done.said

    def status(self) -> dict[str, Any]:
        """What is of each lab."""
        told = self.does("status", "--json")
        return {each["student"]: each for each in json.loads(told[told.index("{") :])["labs"]}

    def running(self) -> dict[str, str]:
        """The running domains of the class, with what changes when one is started or made anew."""
        return {
            name: virsh("domuuid", name).strip() + virsh("domid", name).strip()
            for name in virsh("list", "--name").split()
            if name.startswith(f"{self.name}-")
        }

    def left(self) -> list[str]:
        """All that is still there of it."""
        found = [each for each in self.checkout.left() if self.name in each]
        for words in (("list", "--all"), ("net-list", "--all"), ("pool-list", "--all")):
            found += [n for n in virsh(*words, "--name").split() if self.name in n]
        found += map(str, (self.checkout.root / "stacks").glob(f"Pulumi.{self.name}.*"))
        state = self.checkout.root / ".nestlab" / "state" / ".pulumi" / "stacks" / "nestlab"
        locks = state.parents[1] / "locks"
        return found + [
            str(each)
            for each in (*state.glob(f"{self.name}.*.json"), *locks.rglob("*.json"))
            if self.name in str(each)
        ]


@pytest.fixture(scope="module")
def group(checkout: Checkout) -> Iterator[Class]:
    made = Class(checkout)
    made.has("ana", "bob", "eva")
    try:
        yield made
    finally:
        made.run("down")


def test_a_class_comes_up_stays_apart_and_goes(group: Class) -> None:
    group.does("up")
    first = group.running()
    assert sorted(first) == [f"{group.name}-{each}-one" for each in ("ana", "bob", "eva")]
    assert {each["state"] for each in group.status().values()} == {"up"}
    addresses = [
        re.search(r"<ip [^>]*address='([0-9.]+)'", virsh("net-dumpxml", f"{group.name}-{each}-lab"))
        for each in ("ana", "bob", "eva")
    ]
    subnets = {each[1] for each in addresses if each}
    assert len(subnets) == 3
    # A student's stack takes every other command.
    done = group.checkout.pulumi("preview", "--stack", f"{group.name}.ana", "--expect-no-changes")
    assert done.code == 0, done.said

    virsh("destroy", f"{group.name}-bob-one")
    assert (found := group.status())["bob"]["state"] == "drift", found["bob"]
    assert "shut off" in found["bob"]["said"][0]
    assert found["ana"]["state"] == found["eva"]["state"] == "up"
    group.does("reset", "bob")
    again = group.running()
    assert again[f"{group.name}-bob-one"] != first[f"{group.name}-bob-one"]
    for each in ("ana", "eva"):
        assert again[f"{group.name}-{each}-one"] == first[f"{group.name}-{each}-one"]

    group.does("suspend", "ana", "bob")
    assert sorted(group.running()) == [f"{group.name}-eva-one"]
    found = {each: one["state"] for each, one in group.status().items()}
    assert found == {"ana": "suspended", "bob": "suspended", "eva": "up"}
    group.does("resume")
    assert {each["state"] for each in group.status().values()} == {"up"}
    again |= {each: group.running()[each] for each in again if "-eva-" not in each}

    group.has("ana", "eva", "zoe")
    assert "bob" in group.does("up"), "who left is told"
    now = group.running()
    assert again.items() <= now.items(), "nobody else's lab was touched"
    assert f"{group.name}-zoe-one" in now
    assert group.status()["bob"]["left"]
    group.does("down", "--left")
    assert group.running().items() == {k: v for k, v in now.items() if "-bob-" not in k}.items()
    group.does("down")
    assert group.left() == []


def test_pages_hold_their_own_secrets_alone(group: Class) -> None:
    group.has("ana", "bob")
    group.does("up")
    group.does("sheet")
    folder = group.checkout.root / ".nestlab" / "classes" / group.name / "sheets"
    secrets = {}
    for each in ("ana", "bob"):
        words = ("./nestlab", "show", "-s", f"{group.name}.{each}", "--secrets", "--json")
        told = group.checkout.run(*words).said
        secrets[each] = json.loads(told[told.index("{") :])["passwords"]["one"]
    pages = {each.name: each for each in folder.iterdir()}
    assert sorted(pages) == sorted(
        f"{name}.{kind}" for name in ("ana", "bob", "_class") for kind in ("html", "md")
    )
    for name, file in pages.items():
        assert file.stat().st_mode & 0o777 == 0o600
        for each, secret in secrets.items():
            assert (secret in file.read_text()) is name.startswith(each), name
    logs = (group.checkout.root / ".nestlab" / "classes" / group.name / "logs").iterdir()
    assert not any(secret in log.read_text() for log in logs for secret in secrets.values())
    group.does("down")
    assert [each.name for each in folder.iterdir() if not each.name.startswith("_")] == []


VERBS = ("up", "reset", "down")
LASTS_S = {"up": 16.0, "reset": 14.0, "down": 10.0}
"""About how long each takes with this class, seconds: a later moment stops nothing."""
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ALWAYS = {0}


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[] if seed in ALWAYS else [pytest.mark.soak]) for seed in range(20)],
)
def test_a_class_that_was_stopped_goes_on_from_there(
    seed: int, group: Class, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a moment, not a secret
    verb, sent = VERBS[seed % len(VERBS)], chance.choice(SIGNALS)
    moment = chance.uniform(0.2, LASTS_S[verb])
    group.has("ana", "bob", "eva")
    # With snapshots a reset goes back to one, without it takes down and brings up.
    warm = "--warm" if chance.random() < 0.5 else "--no-warm"
    before = {}
    if verb != "up":
        group.does("up", warm)
        before = group.running()
    words = {"up": [warm, "-n", "2"], "reset": ["bob", "eva", "-n", "2"], "down": ["-n", "2"]}[verb]
    output = tmp_path / "output"
    process = group.checkout.start(
        ("./nestlab", "class", verb, str(group.settings), *words), output
    )
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    if process.poll() is None:
        os.kill(process.pid, sent)  # as a service manager does: its own child alone
    code = process.wait(UP_S)
    told = output.read_text()
    case = f"{verb} {' '.join(words)}, {sent.name} after {moment:.1f} s:\n{told}"
    assert "Traceback" not in told, case
    if sent != signal.SIGKILL and code:
        assert code == 130, case
        assert "the same command goes on from there" in told, case
    group.does(verb, *words)
    if verb != "down":
        assert sorted(group.running()) == [
            f"{group.name}-{s}-one" for s in ("ana", "bob", "eva")
        ], case
        found = group.status()
        assert {each["state"] for each in found.values()} == {"up"}, f"{case}\n{found}"
    if verb == "reset":
        ana = f"{group.name}-ana-one"
        assert group.running()[ana] == before[ana], f"ana's lab was touched, {case}"
    group.does("down")
    assert group.left() == [], case
