"""Pins, places and words of the builds: what decides whether a machine builds again, and what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from toolchain import clean
from toolchain.bootstrap import entries, paths, pins
from toolchain.engine import golang

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = (pins.ENGINE, *pins.PLUGINS, pins.VCSIM, pins.YAML)


def test_each_plugin_has_exactly_the_version_of_its_python_sdk() -> None:
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", pins.LOCK.read_text(), re.MULTILINE))
    for plugin in pins.PLUGINS:
        assert locked[f"pulumi-{plugin.plugin}"] == plugin.version
    assert locked["pulumi"] == pins.PULUMI


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_sources_carry_the_checksums_of_all_they_need(program: pins.Program) -> None:
    folder = pins.SOURCES / program.name
    assert (folder / "go.mod").is_file()
    assert (folder / "go.sum").read_text().strip()
    needed = re.search(r"^go (\d+)\.(\d+)", (folder / "go.mod").read_text(), re.MULTILINE)
    assert needed
    assert (int(needed[1]), int(needed[2])) <= pins.GO


@pytest.mark.parametrize("plugin", pins.PLUGINS, ids=lambda program: program.name)
def test_each_plugin_ends_with_its_engine(plugin: pins.Program) -> None:
    folder = pins.SOURCES / plugin.name
    assert "go endWithEngine(os.Getppid())" in (folder / "main.go").read_text()
    shared = (pins.SOURCES / pins.PLUGINS[0].name / "orphan.go").read_text()
    assert (folder / "orphan.go").read_text() == shared, "one text, kept in each module"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pins.Program:
    monkeypatch.setattr(pins, "SOURCES", tmp_path / "go")
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "go" / "small").mkdir(parents=True)
    (tmp_path / "go" / "small" / "main.go").write_text("package main\n")
    return pins.Program("small", "1.2.3", ".", (), 1)


def test_a_program_is_built_again_when_anything_that_went_into_it_changes(
    program: pins.Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = golang.place(program)
    assert first.is_relative_to(tmp_path / "cache")
    assert golang.place(program) == first
    places = {first}
    places.add(golang.place(pins.Program("small", "1.2.4", ".", (), 1)))
    places.add(golang.place(pins.Program("small", "1.2.3", ".", ("-race",), 1)))
    monkeypatch.setattr("platform.machine", lambda: "another")
    places.add(golang.place(program))
    (tmp_path / "go" / "small" / "main.go").write_text("package main // changed\n")
    places.add(golang.place(program))
    assert len(places) == 5


def test_what_is_built_is_not_built_again(
    program: pins.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golang, "_go", lambda: pytest.fail("asked for Go"))
    golang.place(program).parent.mkdir(parents=True)
    golang.place(program).touch()
    entries.seal(golang.place(program).parent)
    golang.build([program])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("write /x: no space left on device", ["disk space", "GOCACHE", "NESTLAB_CACHE"]),
        ("compile: signal: killed", ["memory", "GOMAXPROCS=1"]),
        (
            "verifying github.com/a/b@v1.0.0: checksum mismatch\nSECURITY ERROR",
            ["github.com/a/b v1.0.0", "go.sum", "do not use it"],
        ),
        (
            "go: github.com/a/b@v1.0.0: dial tcp: i/o timeout",
            ["github.com/a/b v1.0.0", "could not be downloaded", "GOPROXY"],
        ),
        ("./main.go:3: undefined: x", ["failed", "undefined: x"]),
    ],
)
def test_a_failed_build_is_explained_with_its_remedy(said: str, words: list[str]) -> None:
    text = golang.explain("the engine", said)
    assert "the engine" in text
    assert all(word in text for word in words), text


STACK = '{{"version": 3, "checkpoint": {{"latest": {{"resources": [{}]}}}}}}'
COMPONENT = '{"urn": "u", "type": "nestlab:a:B", "custom": false}'
PROVIDER = '{"urn": "p", "type": "pulumi:providers:libvirt", "custom": true}'
GUEST = '{"urn": "g", "type": "libvirt:index/domain:Domain", "custom": true}'


def test_only_stacks_with_something_real_in_them_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    assert clean.labs_that_stand() == []
    folder = tmp_path / ".pulumi" / "stacks" / "nestlab"
    folder.mkdir(parents=True)
    (folder / "down.json").write_text(STACK.format(f"{COMPONENT}, {PROVIDER}"))
    (folder / "fresh.json").write_text('{"version": 3, "checkpoint": {"latest": null}}')
    (folder / "local.json").write_text(STACK.format(f"{COMPONENT}, {PROVIDER}, {GUEST}"))
    assert clean.labs_that_stand() == ["stack local (1 resources)"]
