"""Stack files that were written to harm, through a user's own command, where no other machine can be reached.

It is the whole of it: the checkout's wrapper, what that asks first, the engine, the program. All thousand
with ``--soak``; in every run a few of each kind, and each trick on YAML readers.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import alone, hostile
from tests.support.checkout import Checkout
from toolchain.engine import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.double

COUNT, SEED = 1000, 10
FEW = 20
STACK = "h"
DEADLINE_S = 300
"""For who is alone on two cores a preview takes two; with others there, what counts is the processor's time."""
CHARACTERS = 2 * hostile.SAID
"""A refusal with the engine's own words around it."""
MOST_STATUS = 125
"""Higher ones are a shell's, about commands that were not there or ended by a signal."""
PREVIEW = '. .nestlab/env.sh && exec pulumi preview --stack "$1" --non-interactive --color never'


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout as `make toolchain` leaves it, with one stack, whose file is written anew for each preview."""
    if not environment.built_here():
        pytest.skip("needs the engine: run `make toolchain`")
    folder = tmp_path_factory.mktemp("hostile")
    made = Checkout.make(folder / "nestlab")
    hostile.media(made.root / "media", SEED)
    for stack in (made.root / "stacks").glob("Pulumi.*.yaml"):
        stack.unlink()
    made.stack = STACK
    # The media may be named, and neither the canary that a link among them leads to nor any host.
    allow = folder / "allow.yaml"
    allow.write_text(json.dumps({"files": [str(made.root / "media")]}))
    made.given = {hostile.VARIABLE: hostile.CANARY, "NESTLAB_ALLOW": str(allow)}
    # With what a hostile file may ask for: what is refused for want of a plugin would prove nothing.
    made.settings.write_text("config:\n  nestlab:lab: {kind: proxmox}\n")
    for command in (
        [sys.executable, "-m", "toolchain", "toolchain", "--stack", STACK],
        ["bash", "-c", f". .nestlab/env.sh && exec pulumi stack init {STACK}"],
    ):
        done = made.run(*command, timeout_s=1200)
        assert done.code == 0, done.said
    return made


def previewed(checkout: Checkout, each: hostile.Hostile) -> dict[str, Any]:
    """Return what a preview of ``each`` said, and took."""
    checkout.settings.write_bytes(each.text.encode(errors="surrogatepass"))
    ran = alone.alone(
        ["bash", "-c", PREVIEW, "preview", STACK],
        cwd=checkout.root,
        env=checkout.environment(),
        deadline_s=DEADLINE_S,
    )
    return {"number": each.number, "kind": each.kind, **vars(ran)}


def wrong(found: dict[str, Any]) -> list[str]:
    said = found["said"]
    reasons = {
        "a traceback": "Traceback (most" in said,
        "a crash of the engine": "panic:" in said or "goroutine " in said,
        "the canary": hostile.CANARY in said,
        f"{len(said)} characters": len(said) > CHARACTERS and found["code"] != 0,
        f"{found['cpu_s']} s": found["cpu_s"] > hostile.MOST_S,
        f"{found['mib']} MiB": found["mib"] > hostile.MOST_MIB,
        f"it reached for {found['reached']}": bool(found["reached"]),
        "not a word": found["code"] != 0 and len(said) < len("error: x"),
        f"status {found['code']}": found["code"] < 0 or found["code"] > MOST_STATUS,
    }
    return [reason for reason, holds in reasons.items() if holds]


def chosen() -> Iterator[int]:
    """Yield the numbers of those that every run tries: two of each kind."""
    yield from range(FEW)


def _tried(checkout: Checkout, numbers: set[int] | None) -> list[dict[str, Any]]:
    found = []
    for each in hostile.files(checkout.root / "media", COUNT, SEED):
        if numbers is None or each.number in numbers:
            found.append(previewed(checkout, each))
            # For whoever reads why, also of a run that was stopped.
            with (checkout.root.parent / "hostile.jsonl").open("a") as log:
                log.write(json.dumps(found[-1]) + "\n")
    return found


def test_a_lab_with_nothing_wrong_is_previewed_there(checkout: Checkout) -> None:
    """Or all others would be refused for a reason of the test's own."""
    lab = hostile.base(random.Random(SEED))  # noqa: S311 - not for secrets
    text = json.dumps({"config": {"nestlab:lab": lab}})
    found = previewed(checkout, hostile.Hostile(0, "none", text, lab))
    assert found["code"] == 0, found["said"]


def test_whoever_is_called_from_there_is_seen(tmp_path: Path) -> None:
    """Or nobody would know that no connection is opened."""
    if not alone.possible():
        pytest.skip("needs root, for a network of its own")
    for called, place in (("loopback, port 9", "127.0.0.1/9"), ("192.0.2.7", "192.0.2.7/80")):
        call = ["timeout", "1", "bash", "-c", f"echo >/dev/tcp/{place}"]
        assert alone.alone(call, cwd=tmp_path, env=os.environ).reached == (called,)
    assert alone.alone(["true"], cwd=tmp_path, env=os.environ).reached == ()


def test_a_file_larger_than_any_stack_never_gets_to_the_engine(checkout: Checkout) -> None:
    """It took the engine 7 s to read."""
    text = json.dumps({"config": {"nestlab:lab": {"guests": ["x"] * 300_000}}})
    found = previewed(checkout, hostile.Hostile(0, "many", text))
    assert found["code"] == 1
    assert "no stack is as large" in found["said"]
    assert found["cpu_s"] < 2


def test_a_mapping_of_more_fields_than_any_never_gets_to_the_engine(checkout: Checkout) -> None:
    """It compares each with each: 12 s."""
    lab = {"name": "h", "guests": {"g": {f"f{n}": n for n in range(30_000)}}}
    text = json.dumps({"config": {"nestlab:lab": lab}})
    found = previewed(checkout, hostile.Hostile(0, "many", text, lab))
    assert found["code"] == 1
    assert "no stack has more than 15000 fields" in found["said"]
    assert found["cpu_s"] < 2


def test_a_hostile_stack_file_is_refused_by_a_real_preview(checkout: Checkout) -> None:
    found = _tried(checkout, set(chosen()))
    assert [
        (each["number"], each["kind"], bad, each["said"][-800:])
        for each in found
        if (bad := wrong(each))
    ] == []
    assert sum(each["code"] != 0 for each in found) > FEW * 0.6


def test_tricks_on_readers_of_yaml_end_in_words(checkout: Checkout) -> None:
    seen = set[str]()
    found = []
    for each in hostile.files(checkout.root / "media", COUNT, SEED):
        if each.kind == "tricks" and each.text not in seen:
            seen.add(each.text)
            found.append(previewed(checkout, each))
    assert [
        (each["number"], bad, each["said"][-800:]) for each in found if (bad := wrong(each))
    ] == []


@pytest.mark.soak
def test_a_thousand_hostile_stack_files_are_refused_by_a_real_preview(checkout: Checkout) -> None:
    found = _tried(checkout, None)
    most = {key: max(each[key] for each in found) for key in ("s", "cpu_s", "mib")}
    refused = sum(each["code"] != 0 for each in found)
    print(f"{len(found)} previews, {refused} refused, at most {most}")
    assert [
        (each["number"], each["kind"], bad, each["said"][-800:])
        for each in found
        if (bad := wrong(each))
    ] == []
    assert refused > COUNT * 0.6
