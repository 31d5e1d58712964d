"""Stack files that were written to harm, through the real engine, where no other machine can be reached.

All thousand with ``--soak``; in every run a few of each kind, and each trick on YAML readers.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.double.conftest import Project
from tests.support import hostile
from tests.support.checkout import Checkout
from toolchain import environment, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.double

COUNT, SEED = 1000, 10
FEW = 20
STACK = "h"
DEADLINE_S = 60
ALONE = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""In a network of its own, in which there is nobody."""


@dataclass
class Hostiles(Project):
    """A checkout with one stack, whose file is written anew for each preview."""

    salt: str = ""
    """Of the stack's secrets, as the engine wrote it."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Hostiles:
    folder = tmp_path_factory.mktemp("hostile")
    root = Checkout.make(folder / "nestlab").root
    hostile.media(root / "media", SEED)
    (root / ".nestlab").mkdir(exist_ok=True)
    for stack in (root / "stacks").glob("Pulumi.*.yaml"):
        stack.unlink()
    (root / ".venv").symlink_to(paths.VENV)
    own = {
        **{key: os.environ[key] for key in ("NESTLAB_ALLOW", "PATH", "HOME")},
        "PULUMI_BACKEND_URL": f"file://{folder}/state",
        "PULUMI_CONFIG_PASSPHRASE": "scratch",
        hostile.VARIABLE: hostile.CANARY,
    }
    (folder / "state").mkdir()
    made = Hostiles(root, environment.environment(own))
    made.pulumi("stack", "init", STACK)
    written = (root / "stacks" / f"Pulumi.{STACK}.yaml").read_text()
    made.salt = written.partition("encryptionsalt: ")[2].strip()
    return made


def _salted(text: str, salt: str) -> str:
    """Return a stack file's ``text`` with the salt of the stack's own secrets."""
    if text.startswith('{"config"'):
        return f'{{"encryptionsalt": {json.dumps(salt)}, {text[1:]}'
    return f"{text}encryptionsalt: {salt}\n" if text.startswith("config:") else text


def previewed(project: Hostiles, each: hostile.Hostile) -> dict[str, Any]:
    """Return what a preview of ``each`` said, and took."""
    settings = project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
    settings.write_bytes(_salted(each.text, project.salt).encode(errors="surrogatepass"))
    words = ["pulumi", "preview", "--stack", STACK, "--non-interactive", "--color", "never"]
    alone = ALONE if os.geteuid() == 0 and shutil.which("unshare") else ()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.run(
        [*alone, *words],
        cwd=project.folder,
        env=project.variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=DEADLINE_S,
        check=False,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "number": each.number,
        "kind": each.kind,
        "code": done.returncode,
        "said": done.stdout + done.stderr,
        "s": round(time.monotonic() - start, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 2),
        "mib": used.ru_maxrss // 1024,
    }


def wrong(found: dict[str, Any]) -> list[str]:
    said = found["said"]
    reasons = {
        "a traceback": "Traceback (most" in said,
        "a crash of the engine": "panic:" in said or "goroutine " in said,
        "the canary": hostile.CANARY in said,
        f"{len(said)} characters": len(said) > 2 * hostile.SAID and found["code"] != 0,
        f"{found['cpu_s']} s": found["cpu_s"] > hostile.MOST_S,
        f"{found['mib']} MiB": found["mib"] > hostile.MOST_MIB,
        "not a word": found["code"] != 0 and len(said) < len("error: x"),
    }
    return [reason for reason, holds in reasons.items() if holds]


def chosen() -> Iterator[int]:
    """Yield the numbers of those that every run tries: two of each kind."""
    yield from range(FEW)


def _tried(project: Hostiles, numbers: set[int] | None) -> list[dict[str, Any]]:
    every = hostile.files(project.folder / "media", COUNT, SEED)
    return [previewed(project, each) for each in every if numbers is None or each.number in numbers]


def test_a_lab_with_nothing_wrong_is_previewed_there(project: Hostiles) -> None:
    """Or all others would be refused for a reason of the test's own."""
    lab = hostile.base(random.Random(SEED))  # noqa: S311 - not for secrets
    text = json.dumps({"config": {"nestlab:lab": lab}})
    found = previewed(project, hostile.Hostile(0, "none", text, lab))
    assert found["code"] == 0, found["said"]


def test_a_hostile_stack_file_is_refused_by_a_real_preview(project: Hostiles) -> None:
    found = _tried(project, set(chosen()))
    assert [
        (each["number"], each["kind"], bad, each["said"][-800:])
        for each in found
        if (bad := wrong(each))
    ] == []
    assert sum(each["code"] != 0 for each in found) > FEW * 0.6


def test_tricks_on_readers_of_yaml_end_in_words(project: Hostiles) -> None:
    seen = set[str]()
    found = []
    for each in hostile.files(project.folder / "media", COUNT, SEED):
        if each.kind == "tricks" and each.text not in seen:
            seen.add(each.text)
            found.append(previewed(project, each))
    assert [
        (each["number"], bad, each["said"][-800:]) for each in found if (bad := wrong(each))
    ] == []


@pytest.mark.soak
def test_a_thousand_hostile_stack_files_are_refused_by_a_real_preview(project: Hostiles) -> None:
    found = _tried(project, None)
    most = {key: max(each[key] for each in found) for key in ("s", "cpu_s", "mib")}
    refused = sum(each["code"] != 0 for each in found)
    Path(project.folder, "hostile.json").write_text(json.dumps([most, refused, found]))
    print(f"{len(found)} previews, {refused} refused, at most {most}")
    assert [
        (each["number"], each["kind"], bad, each["said"][-800:])
        for each in found
        if (bad := wrong(each))
    ] == []
    assert refused > COUNT * 0.6
