"""`make clean`: it takes back what nestlab made, by name, and never under a lab that stands."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from classroom.template import HEAD
from tests.unit.toolchain.test_environment import place
from tests.unit.toolchain.test_state import DAMAGED, HELD
from toolchain import clean
from toolchain.bootstrap import cache, entries, paths, python_env, ui
from toolchain.image import golden
from toolchain.machine import host

if TYPE_CHECKING:
    from pathlib import Path

HASH = "0123456789ab"
FILES = {
    "bin/pulumi": "", "home/plugins/resource-libvirt-v0.5.4/x": "", "home/workspaces/w.json": "",
    "home/logs/a.log": "", "state/.pulumi/meta.yaml": "", "state/.pulumi/history/nestlab/local/a.json": "",
    "env.sh": "", "passphrase": "", "host.json": "", "netns": "", "golden.json": "", "golden-xen.json": "",
    "sums.json": "", "screens/local.kvm1.png": "", "official.json": "", "media/esxi-3-0123456789ab.iso": "", ".env.sh.4711": "",
    "deployed/local": "0a" * 32, "config/Pulumi.local.yaml": "", "project/Pulumi.yaml": "",
    "locks/stack local": "", "locks/class net1": "", "classes/net1/class.json": "", "classes/net1/logs/ana.log": "",
    "classes/net1/sheets/ana.html": "", "classes/net1/sheets/_class.md": "", "classes/net1/.class.json.4711": "",
    "keys/local/kvm1/.id_ed25519.4711": "", "keys/local/kvm1/.answers-0123456789ab.iso.ab_cd123/tree/x": "",
}  # fmt: skip
CACHE = {
    f"programs/pulumi-3.259.0-{HASH}/pulumi": "",
    f"programs/pulumi-resource-libvirt-0.5.4-{HASH}/pulumi-resource-libvirt": "made before there were lists",
    f"programs/.vcsim-0.54.1-{HASH}.making-abc_123/x": "",
    f"venvs/{HASH}/bin/python3": "",
    f"venvs/{HASH}/lib/python3.11/site-packages/one/__init__.py": "",
    f"venvs/{HASH}/lib/python3.11/site-packages/one/__pycache__/__init__.cpython-311.pyc": "",
    f"images/{HASH}/root.qcow2": "",
    "locks/build": "",
}
THESES = (
    "thesis.txt", ".nestlab/thesis.txt", ".nestlab/home/thesis.txt", ".nestlab/keys/local/thesis.txt",
    ".nestlab/keys/local/kvm1/thesis.txt", ".nestlab/media/my.iso", ".nestlab/screens/mine.txt", ".nestlab/deployed/thesis.txt", ".nestlab/state/thesis/1.txt",
    ".nestlab/classes/thesis.txt", ".nestlab/classes/net1/thesis.txt", ".nestlab/classes/net1/sheets/my page.html",
    "stacks/Pulumi.my.own.yaml",
)  # fmt: skip


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which a lab was, with the shared cache beside it."""
    root = tmp_path / "lab"
    place(root, monkeypatch)
    monkeypatch.setattr(paths, "KEYS", paths.LOCAL / "keys")
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.delenv("NESTLAB_ROOT", raising=False)
    monkeypatch.setattr(golden, "forget", lambda _: None)
    monkeypatch.setattr(host, "stop", lambda _: None)
    write(paths.LOCAL, {name: text for name, text in FILES.items() if not name.startswith("keys/")})
    write(tmp_path / "cache", CACHE)
    for entry in (f"programs/pulumi-3.259.0-{HASH}", f"venvs/{HASH}", f"images/{HASH}"):
        entries.seal(tmp_path / "cache" / entry)
    write(
        tmp_path / "cache",
        {
            f"programs/pulumi-3.259.0-{HASH}/pulumi-language-python": "",
            f"venvs/{HASH}/.complete": "",
        },
    )
    paths.VENV.symlink_to(paths.venvs() / HASH)
    return root


def tree(root: Path) -> set[str]:
    return {str(each.relative_to(root)) for each in root.rglob("*") if not each.is_dir()}


def test_everything_of_ours_goes_and_nothing_else(checkout: Path) -> None:
    write(paths.LOCAL, FILES)
    assert clean.main(["--forget"]) == 0
    assert tree(checkout) == set()
    assert not paths.LOCAL.exists()
    assert tree(paths.cache()) >= set(CACHE), "the cache is others' too"
    assert clean.main(["--cache"]) == 0
    assert not paths.cache().exists()


def test_the_stack_files_of_students_go(checkout: Path) -> None:
    """As `classroom.template` writes them; one of the user's own with such a name stays."""
    write(checkout, {"stacks/Pulumi.net1.ana.yaml": HEAD, "stacks/Pulumi.local.yaml": HEAD})
    clean.main(["--forget"])
    assert tree(checkout / "stacks") == {"Pulumi.local.yaml"}


def test_files_of_the_users_stay_wherever_they_are(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(paths.LOCAL, FILES)
    mine = dict.fromkeys(THESES, "years of work")
    write(checkout, mine)
    inside = {
        "thesis.txt": "",
        "programs/thesis.txt": "",
        "venvs/mine/bin/python3": "",
        "sub/a.txt": "",
    }
    write(paths.cache(), inside)
    clean.main(["--forget", "--cache"])
    assert tree(checkout) == set(mine)
    assert tree(paths.cache()) == set(inside)
    assert "thesis.txt" in capsys.readouterr().err


def test_a_folder_of_the_users_as_cache_is_left_as_it_was(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del checkout
    home = tmp_path / "home"
    write(home, {"thesis.txt": "", "images/holiday.jpg": "", "programs/game/run": ""})
    (home / "empty").mkdir()
    before = sorted(home.rglob("*"))
    monkeypatch.setenv("NESTLAB_CACHE", str(home))
    clean.main(["--cache"])
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("link", ["programs", "venvs", "images"])
def test_a_link_in_the_cache_is_not_followed(link: str, checkout: Path, tmp_path: Path) -> None:
    del checkout
    write(tmp_path / "elsewhere", {f"{HASH}/thesis.txt": ""})
    cache.remove(paths.cache() / link)
    (paths.cache() / link).symlink_to(tmp_path / "elsewhere")
    clean.main(["--cache"])
    assert tree(tmp_path / "elsewhere") == {f"{HASH}/thesis.txt"}


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_venv_of_the_users_is_neither_replaced_nor_removed(
    kind: str, checkout: Path, tmp_path: Path
) -> None:
    write(tmp_path / "mine", {"bin/python3": "my own"})
    paths.VENV.unlink()
    if kind == "link":
        paths.VENV.symlink_to(tmp_path / "mine")
    elif kind == "folder":
        write(paths.VENV, {"bin/python3": "my own"})
    else:
        paths.VENV.write_text("my own")
    with pytest.raises(ui.Problem, match=r"\.venv is yours.*\nMove it away"):
        python_env.ensure()
    clean.main([])
    assert (paths.VENV if kind == "file" else paths.VENV / "bin/python3").read_text() == "my own"
    assert checkout.exists()


def test_a_link_never_replaces_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"plugins/thesis.txt": ""})
    with pytest.raises(ui.Problem, match="is a folder that nestlab did not make"):
        cache.link(tmp_path / "plugins", tmp_path / "target")
    assert tree(tmp_path) == {"plugins/thesis.txt"}


# Labs that stand --------------------------------------------------------------------------------


def stands(file: str, content: bytes) -> str:
    at = paths.STATE / ".pulumi" / "stacks" / file
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(content)
    before = tree(paths.LOCAL)
    with pytest.raises(ui.Problem) as refused:
        clean.main(["--cache"])
    assert tree(paths.LOCAL) == before, "something was removed under a lab that stands"
    assert "--forget" in str(refused.value)
    return str(refused.value)


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("what", DAMAGED)
def test_a_state_that_can_not_be_read_counts_as_a_lab_that_stands(what: str) -> None:
    assert "stack local (as far as is known: " in stands("nestlab/local.json", DAMAGED[what])


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("file", ["nestlab/local.json.gz", "nestlab/local.json", "local.json.gz"])
def test_a_compressed_state_is_a_state(file: str) -> None:
    assert "stack local (1 resources)" in stands(file, gzip.compress(json.dumps(HELD).encode()))


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("form", ["", ".gz"])
def test_what_a_lab_once_was_is_no_lab_that_stands(form: str) -> None:
    # As PULUMI_DIY_BACKEND_RETAIN_CHECKPOINTS writes it (pkg/backend/diy/state.go, saveCheckpoint).
    once = f"state/.pulumi/stacks/nestlab/local.json{form}.1795730471000000000"
    write(paths.LOCAL, {once: json.dumps(HELD)})
    clean.main([])
    assert not (paths.LOCAL / once).exists()


@pytest.mark.usefixtures("checkout")
def test_the_command_that_takes_a_lab_down_is_about_that_lab() -> None:
    said = stands("nestlab/xen.json", json.dumps(HELD).encode())
    assert "Take it down first (`make down STACK=xen`)" in said


@pytest.mark.usefixtures("checkout")
def test_a_lab_of_another_program_is_taken_down_by_that_program() -> None:
    said = stands("thesis/dev.json", json.dumps(HELD).encode())
    assert "stack dev of the program thesis (1 resources)" in said
    assert "Take it down first (`pulumi destroy --stack dev` in the folder of thesis)" in said
    # Its keys tell nothing more; those of one whose state is elsewhere do.
    write(paths.LOCAL, {"keys/thesis~dev~red/kvm1/id_ed25519": "key"})
    assert "keys of its hosts" not in stands("thesis/dev.json", json.dumps(HELD).encode())
    write(paths.LOCAL, {"keys/other~dev~red/kvm1/id_ed25519": "key"})
    said = stands("thesis/dev.json", json.dumps(HELD).encode())
    assert "stack dev of the program other (keys of its hosts are in " in said
    assert "in the folder of thesis, `pulumi destroy --stack dev` in the folder of other" in said


@pytest.mark.usefixtures("checkout")
def test_what_lies_among_the_states_and_is_none_is_told_of() -> None:
    assert "thesis.txt" in stands("nestlab/thesis.txt", b"years of work")


@pytest.mark.usefixtures("checkout")
def test_keys_of_a_host_say_that_its_lab_stands_whatever_backend_knows_it() -> None:
    write(paths.LOCAL, {"keys/class/kvm1/id_ed25519": "key"})
    with pytest.raises(ui.Problem, match=r"stack class \(keys of its hosts are in "):
        clean.main([])
    assert (paths.LOCAL / "keys/class/kvm1/id_ed25519").exists()


@pytest.mark.usefixtures("checkout")
def test_a_users_own_files_among_the_keys_are_no_lab_and_stay() -> None:
    mine = [paths.LOCAL / "keys" / name for name in ("notes.txt", "local/id.txt", "local/kvm1/-x")]
    for file in mine:
        write(paths.LOCAL, {str(file.relative_to(paths.LOCAL)): "mine"})
    assert clean.labs_that_stand() == []
    clean.main([])
    assert [file.read_text() for file in mine] == ["mine"] * len(mine)


@pytest.mark.usefixtures("checkout")
def test_a_lab_in_the_backend_in_force_stands_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "team", {".pulumi/stacks/nestlab/local.json": json.dumps(HELD)})
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}/team")
    with pytest.raises(ui.Problem, match=r"stack local \(1 resources\)"):
        clean.main([])


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('echo \'[{"name": "local", "resourceCount": 3}]\'', r"stack local \(3 resources\)"),
        ('echo \'[{"name": "local"}]\'', r"stack local \(unknown resources\)"),
        ("echo no network >&2; exit 255", "no network\n.*Unset PULUMI_BACKEND_URL"),
    ],
)
def test_another_backend_is_asked_and_one_that_does_not_answer_is_no_empty_one(
    answer: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://labs")
    (paths.BIN / "pulumi").write_text(f"#!/bin/sh\n{answer}\n")
    (paths.BIN / "pulumi").chmod(0o755)
    with pytest.raises(ui.Problem, match=told):
        clean.main([])
    assert paths.PASSPHRASE.exists()
