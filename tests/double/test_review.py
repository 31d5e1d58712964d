"""A pull request's report on the real engine: what it says is what `pulumi preview --json` says, and no host is asked.

The base branch's stacks stand by stand-ins (`review.stand_in`), as in the first job; the second job posts
to a stand-in of GitHub.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli import app
from components.stackfile import plan
from review import making, markdown, report, sources, stage, stand_in
from tests.support.github import TOKEN, GitHub
from toolchain.bootstrap import paths, ui

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.double

LAB: dict[str, Any] = {
    "name": "lab",
    "media": {"ipxe": {"path": "/usr/lib/ipxe/ipxe.iso"}},
    "networks": {"net": {"subnet": "10.77.0.0/24"}},
    "guests": {"one": {"iso": "ipxe", "memory_mib": 256, "disk_gib": 1, "network": "net"}},
}
BRANCH = "evil/@team;$(touch${IFS}ran)<b>"
HOSTILE = {
    "text": b"config:\n  nestlab:lab: '@everyone [x](https://evil.example) <b>-->'\n",
    "anchors": b"a: &a [1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nconfig: {nestlab:lab: {x: [*b,*b,*b]}}\n",
    "bomb": b"a: &a [x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(20)
    )
    + b"config: {nestlab:lab: {name: *u}}\n",
    "self": b"config: {nestlab:lab: &a {name: *a}}\n",
    "python": b"config: !!python/object/apply:os.system ['touch ran']\n",
    "tab": b"\tconfig: {}\n",
    "nul": b'config:\n  nestlab:lab: "\\0"\n',
    "shadow": b"config: {nestlab:lab: {name: a, media: {m: {path: /etc/shadow}}, guests: {g: {iso: m}}}}\n",
    "reach": b"config: {nestlab:lab: {name: a, host: {uri: 'qemu+ssh://x@127.0.0.1:1/system?keyfile=/etc/shadow'}}}\n",
    "environment": b"environment: [prod]\nconfig: {nestlab:lab: {name: '$(touch ran)'}}\n",
    "clear": b"config: {nestlab:hostPassword: hunter2, nestlab:lab: {name: a}}\n",
    "deep": b"config: {nestlab:lab: " + b"[" * 5000 + b"]" * 5000 + b"}\n",
}
"""Stack files of somebody who means ill, beside a link and names that are none (tests/unit/review)."""


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(root), *words], check=True, capture_output=True)


def lab(**changed: Any) -> bytes:
    return yaml.safe_dump({"config": {"nestlab:lab": LAB | changed}}).encode()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two branches: main, and one in which stacks change, go, move, break, come."""
    if not (paths.BIN / "pulumi").is_file():
        pytest.skip("needs the engine: run `make toolchain`")
    root = tmp_path_factory.mktemp("repository")
    stacks = root / "stacks"
    stacks.mkdir()
    local = (paths.ROOT / "stacks" / "Pulumi.local.yaml").read_bytes()
    (stacks / "Pulumi.local.yaml").write_bytes(local)
    for name in ("goes", "moves", "breaks", "same"):
        (stacks / f"Pulumi.{name}.yaml").write_bytes(lab())
    (stacks / "Pulumi.goes.yaml").write_bytes(
        lab(name="other", networks={"net": {"subnet": "10.79.0.0/24"}})
    )
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "base")
    git(root, "checkout", "-q", "-b", BRANCH)
    (stacks / "Pulumi.local.yaml").write_bytes(local.replace(b"disk_gib: 8", b"disk_gib: 9"))
    (stacks / "Pulumi.goes.yaml").unlink()
    (stacks / "Pulumi.moves.yaml").rename(stacks / "Pulumi.moved.yaml")
    (stacks / "Pulumi.breaks.yaml").write_bytes(lab(guests={"one": {"iso": "none-such"}}))
    (stacks / "Pulumi.same.yaml").write_bytes(b"# a remark\n" + lab())
    (stacks / "Pulumi.link.yaml").symlink_to("/etc/passwd")
    (root / "__main__.py").write_text("open('ran', 'w')\n")
    (root / "components").mkdir()
    (root / "components" / "__init__.py").write_text("open('ran', 'w')\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "head")
    return root


@pytest.fixture(scope="module")
def made(repository: Path) -> report.Report:
    os.environ["NOT_FOR_THE_ENGINE"] = "a-secret-of-somebody"
    return making.made("main", BRANCH, repository, number=7)


def by_name(made: report.Report) -> dict[str, report.Stack]:
    return {each.name: each for each in made.stacks}


def test_each_stack_that_differs_is_told_by_its_fate(made: report.Report, repository: Path) -> None:
    fates = {name: each.fate for name, each in by_name(made).items()}
    assert fates == {
        "local": "changed", "goes": "removed", "moved": "renamed", "breaks": "broken", "link": "broken",
    }  # fmt: skip
    found = by_name(made)
    assert found["moved"].was == "moves"
    assert {each.operation for each in found["moved"].changes} == {"create"}
    assert {each.operation for each in found["goes"].changes} == {"delete"}
    assert any("one: removed, with what is on its disk" in each for each in found["goes"].losses)
    assert "lab.guests.one.iso: " in found["breaks"].refused
    assert "/etc/passwd" not in found["link"].refused
    assert not (repository / "ran").exists()


def test_it_says_what_the_engines_own_preview_says(
    made: report.Report, repository: Path, tmp_path: Path
) -> None:
    """The engine's digest, in its plain form and asked without our reading of it."""
    new = (repository / "stacks" / "Pulumi.local.yaml").read_bytes()
    old = new.replace(b"disk_gib: 9", b"disk_gib: 8")
    with stand_in.serving({"libvirt"}) as providers:
        on = stage.Stage.make(tmp_path / "stage", providers)
        on.standing("local", old)
        (tmp_path / "stage" / "stacks" / "Pulumi.local.yaml").write_bytes(new)
        told = json.loads(on._run("preview", "--json", "--stack", "local").stdout)
        again = on.preview("local", old)
    steps = {
        (each["op"], each["urn"].rpartition("::")[2])
        for each in told["steps"]
        if each["op"] != "same"
    }
    stack = by_name(made)["local"]
    assert {(each.operation, each.name) for each in stack.changes} == steps
    assert ("replace", "kvm1-disk") in steps
    counts = Counter(each.operation for each in stack.changes)
    assert counts | Counter(same=stack.same) == Counter(told["changeSummary"])
    reasons = {
        each["urn"].rpartition("::")[2]: each.get("replaceReasons") for each in told["steps"]
    }
    assert {each.name: each.why for each in stack.changes if each.name == "kvm1-disk"} == {
        "kvm1-disk": reasons["kvm1-disk"]
    }
    assert any("kvm1: made anew, and what is in it is lost (size)" in each for each in stack.losses)
    # What has not changed is told as that: the stand-ins add nothing of their own.
    assert {each["op"] for each in again.steps} == {"same"}
    assert again.judged == []


@pytest.mark.parametrize("stack", ["proxmox", "proxmox-cluster", "vsphere"])
def test_what_has_not_changed_is_not_told_of_a_plugin_that_asks_its_host(
    stack: str, tmp_path: Path
) -> None:
    text = (paths.ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_bytes()
    with stand_in.serving(stage.asked_by(text)) as providers:
        on = stage.Stage.make(tmp_path / "stage", providers)
        on.standing(stack, text)
        told = on.preview(stack, text)
    assert {each["op"] for each in told.steps} == {"same"}


def test_a_stack_that_is_called_as_an_option_is_a_stack(tmp_path: Path) -> None:
    with stand_in.serving({"libvirt"}) as providers:
        for name in ("-x", "--help"):
            on = stage.Stage.make(tmp_path / name, providers)
            on.standing(name, lab())
            assert {each["op"] for each in on.preview(name, lab()).steps} == {"same"}


def test_an_engine_that_takes_too_long_is_told_of_its_stack(tmp_path: Path) -> None:
    on = stage.Stage.make(tmp_path / "stage", "libvirt:1")
    on.deadline_s = 0
    with pytest.raises(ui.Problem, match="more than 0 s"):
        on.standing("slow", None)


def test_a_nic_of_a_host_is_not_looked_for_where_nothing_is_made(tmp_path: Path) -> None:
    there = {"mode": "bridge", "bridge": "no-such-br"}
    made = {"mode": "bridge", "uplink": {"nic": "no-such-nic"}}
    text = lab(networks={"net": made, "other": there})
    with stand_in.serving({"libvirt"}) as providers:
        on = stage.Stage.make(tmp_path / "stage", providers)
        on.standing("lan", text)
        on.preview("lan", text)
        named = {str(each["urn"]).rpartition("::")[2] for each in on.resources("lan")}
    assert {"net-uplink", "other-gate"} <= named


def test_the_bill_and_the_picture_are_of_both_versions(made: report.Report) -> None:
    stack = by_name(made)["local"]
    assert stack.before
    assert stack.after
    assert (stack.before.bill.disk_gib, stack.after.bill.disk_gib) == (8, 9)
    body = markdown.comment(made)
    assert "9 GiB (+1)" in body
    assert body.count("```mermaid") >= 2


def test_what_a_rule_says_is_told_with_the_line_of_its_machine() -> None:
    """An event as the engine 3.259 gave it for a lab of ours, before its secrets were marked."""
    urn = "urn:pulumi:local::nestlab::nestlab:index:OuterHost$libvirt:index/domain:Domain::kvm1-domain"
    said = {
        "resourceUrn": urn,
        "message": "kvm1-domain: xml.xslt holds a screen's password that is not marked as secret\n",
        "policyName": "plain-secrets",
        "enforcementLevel": "mandatory",
    }
    text = (paths.ROOT / "stacks" / "Pulumi.local.yaml").read_bytes()
    told = making._told("local", sources.StackText(text))
    found = making._finding(said, making._lines(text, plan(told.spec("local"))))
    assert text.splitlines()[found.line - 1].strip() == b"kvm1:"
    stack = report.Stack(name="local", fate="changed", findings=[found])
    body = markdown.comment(report.Report(base="a", head="b", stacks=[stack]))
    assert f"yaml&#58;\u2060{found.line}: mandatory, plain&#45;\u2060secrets" in body


def test_hostile_files_change_nothing_but_text(tmp_path: Path) -> None:
    base, head = tmp_path / "base", tmp_path / "head"
    for each in (base, head):
        (each / "stacks").mkdir(parents=True)
    for name, text in HOSTILE.items():
        (head / "stacks" / f"Pulumi.{name}.yaml").write_bytes(text)
    before = sorted(head.rglob("*"))
    found = by_name(making.made(str(base), str(head), paths.ROOT))
    assert {name: each.fate for name, each in found.items()} == dict.fromkeys(HOSTILE, "broken")
    assert all(each.refused for each in found.values())
    assert sorted(head.rglob("*")) == before
    body = markdown.comment(report.Report(base="main", head="b", stacks=list(found.values())))
    assert "hunter2" not in body
    assert "Traceback" not in body
    assert body.count("<") == 1  # the marker's


def test_two_runs_leave_one_comment(
    made: report.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "labs.json"
    file.write_text(made.model_dump_json())
    with GitHub().serving() as github:
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.setenv("GITHUB_API_URL", github.api)
        words = ["review", "post", str(file), "--repository", "o/r", "--commit", "c0ffee"]
        assert app.main(words) == 0
        file.write_text(made.model_copy(update={"stacks": made.stacks[:1]}).model_dump_json())
        assert app.main(words) == 0
        assert len(github.comments) == 1
        assert github.comments[0]["body"].count("\n### ") == 1


def test_the_engine_gets_nothing_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-key")
    on = stage.Stage.make(tmp_path / "stage", "libvirt:1")
    assert not {"a-token", "a-key"} & set(on.variables.values())
    shutil.rmtree(tmp_path / "stage")
