"""Stacks' names and files: a wrong answer here, and a lab that stands counts as gone."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli import app
from toolchain import lab
from toolchain.bootstrap import ui
from toolchain.doctor import command as doctor
from toolchain.engine import recover, state

RESOURCE = {"urn": "u::guest", "type": "libvirt:index/domain:Domain", "custom": True}
HELD: dict[str, Any] = {"version": 3, "checkpoint": {"latest": {"resources": [RESOURCE]}}}


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stacks' folder of the backend in force."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    folder = tmp_path / ".pulumi" / "stacks" / "nestlab"
    folder.mkdir(parents=True)
    return folder


WRONG_NAMES = [".", "..", "", "a/b", "../x", "a b", "*", "[a]", "a\n", "ä", "x" * 101, "\0"]


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_what_is_no_name_never_becomes_a_path(
    name: str, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    with pytest.raises(ui.Problem, match="is no stack's name"):
        state.named(name)
    for command in ("up", "down", "show"):
        with pytest.raises(ui.Problem, match="is no stack's name"):
            app.group.main(args=[command, "--stack", name], standalone_mode=False)
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: pytest.fail("looked at a path"))
    with pytest.raises(ui.Problem, match="is no stack's name"):
        doctor.main(["--stack", name])
    if name and "/" not in name:  # a name's parts before the last / are those of its owner
        with pytest.raises(ui.Problem, match="is no stack's name"):
            recover.main(["--", "destroy", f"-s={name}"])


@pytest.mark.parametrize("name", ["local", "a.b", "...", ".hidden", "A_1-2", "x" * 100])
def test_other_names_are_the_engines_business(name: str) -> None:
    assert state.named(name) == name


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///x/y", "/x/y"),
        ("file:///a b/c", "/a b/c"),
        ("file:///a%20b%23/c", "/a b#/c"),
        ("file:///x?no_tmp_dir=true", "/x"),
        ("file://~", "~"),
        ("file://~/labs", "~/labs"),
        ("file://./labs", "labs"),
        ("file://labs", "labs"),
    ],
)
def test_a_file_backends_folder_is_where_the_engine_has_it(url: str, path: str) -> None:
    assert state.folder(url) == Path(path).expanduser().absolute() / ".pulumi"


@pytest.mark.parametrize("url", ["", "s3://bucket", "https://api.example.test", "postgres://db"])
def test_other_backends_have_no_folder_here(url: str) -> None:
    assert state.folder(url) is None


@pytest.mark.parametrize("form", state.FORMS)
def test_a_stack_is_there_in_each_form_that_the_engine_writes(form: str, backend: Path) -> None:
    (backend / f"local.json{form}").write_text("x")
    (backend / f"local.json{form}.attrs").touch()
    assert lab.exists("local")
    assert not lab.exists("other")
    (backend / f"local.json{form}").rename(backend / f"local.json{form}.bak")
    assert not lab.exists("local"), "a backup is no stack"


def test_the_newest_of_a_stacks_forms_is_the_one(backend: Path) -> None:
    for age, form in enumerate(state.FORMS):
        file = backend / f"local.json{form}"
        file.write_text("x")
        os.utime(file, (1000 + age, 1000 + age))
        found = state.file_of("local", backend.parent.parent)
        assert found == file
        assert state.stack_in(file) == "local"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_state_is_read_plain_and_compressed(pack: Any, backend: Path) -> None:
    file = backend / "local.json"
    file.write_bytes(pack(json.dumps(HELD).encode()))
    assert [one["urn"] for one in state.read(file).real] == ["u::guest"]


DAMAGED = {
    "empty": b"",
    "cut": json.dumps(HELD).encode()[:40],
    "cut gzip": gzip.compress(json.dumps(HELD).encode())[:-12],
    "damaged gzip": gzip.compress(json.dumps(HELD).encode())[:20] + b"\0" * 40,
    "zstd": b"\x28\xb5\x2f\xfd\x04\x00",
    "no state": b"[]",
    "a number": b"3",
    "no checkpoint": b"{}",
    "null": b'{"checkpoint": null}',
    "latest is a list": b'{"checkpoint": {"latest": [1]}}',
    "resources are no list": b'{"checkpoint": {"latest": {"resources": 3}}}',
    "resources without a type": b'{"checkpoint": {"latest": {"resources": [{"custom": true}]}}}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_can_not_be_read_is_no_empty_state(what: str, backend: Path) -> None:
    file = backend / "local.json"
    file.write_bytes(DAMAGED[what])
    with pytest.raises(state.Unreadable, match=r"local\.json"):
        state.read(file)
