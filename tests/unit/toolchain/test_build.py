"""The command ``toolchain``, with a cache that holds everything: no network, nothing built."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolchain.test_environment import place
from toolchain import build, environment, golang, paths, pins, python_env

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = (pins.ENGINE, *pins.PLUGINS, pins.VCSIM)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh checkout beside a cache that holds every program, with no engine on PATH."""
    place(tmp_path / "lab", monkeypatch)
    (tmp_path / "lab").mkdir()
    monkeypatch.setattr(build, "OFFICIAL", paths.LOCAL / "official.json")
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'official'}:/usr/bin:/bin")
    monkeypatch.setattr(python_env, "ensure", lambda: paths.VENV)
    for program in PROGRAMS:
        golang.place(program).parent.mkdir(parents=True)
        golang.place(program).touch(0o755)
    return tmp_path / "lab"


def official(tmp_path: Path, version: str, install: str = "exit 0") -> Path:
    """Put an engine on PATH that writes down each command it gets."""
    engine = tmp_path / "official" / "pulumi"
    engine.parent.mkdir(exist_ok=True)
    engine.write_text(
        f'#!/bin/sh\necho "$*" >>"{tmp_path}/asked"\n'
        f'case $1 in version) echo "{version}" ;; plugin) {install} ;; esac\n'
    )
    engine.chmod(0o755)
    return engine


def asked(tmp_path: Path) -> list[str]:
    log = tmp_path / "asked"
    return log.read_text().splitlines() if log.is_file() else []


@pytest.mark.usefixtures("root")
def test_a_checkout_is_filled_from_the_cache() -> None:
    assert build.main([]) == 0
    for plugin in pins.PLUGINS:
        folder = paths.HOME / "plugins" / f"resource-{plugin.plugin}-v{plugin.version}"
        assert not folder.is_symlink(), "the engine wants a real folder"
        assert (folder / plugin.name).resolve() == golang.place(plugin)
    assert str(golang.place(pins.ENGINE)) in (paths.BIN / "pulumi").read_text()
    for host in build.HOSTS:
        beside = golang.place(pins.ENGINE).parent / host
        # Another place than beside the engine makes it warn at each command.
        assert (paths.BIN / host).resolve() == beside
        assert beside.stat().st_mode & 0o777 == 0o755
    assert paths.ENV_SH.read_text() == environment.env_sh(built_here=True)


def test_state_and_passphrase_are_nobody_elses(root: Path) -> None:
    (root / ".nestlab").mkdir(mode=0o755)
    build.main([])
    assert paths.LOCAL.stat().st_mode & 0o777 == 0o700
    assert paths.STATE.stat().st_mode & 0o777 == 0o700
    assert paths.PASSPHRASE.stat().st_mode & 0o777 == 0o600
    assert len(paths.PASSPHRASE.read_text().strip()) >= 32


def test_a_second_run_changes_nothing_says_nothing_and_starts_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def times() -> dict[Path, int]:
        found = sorted(root.rglob("*"))
        return {file: file.lstat().st_mtime_ns for file in found}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("started a program")

    build.main([])
    before = times()
    capfd.readouterr()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    build.main([])
    assert times() == before
    assert capfd.readouterr() == ("", "")


def test_the_passphrase_outlives_a_lost_file_beside_it(root: Path) -> None:
    build.main([])
    phrase = paths.PASSPHRASE.read_text()
    (root / ".nestlab" / "env.sh").unlink()
    build.main([])
    assert paths.PASSPHRASE.read_text() == phrase


@pytest.mark.usefixtures("root")
def test_a_good_official_engine_is_used_and_brings_its_own_hosts(
    tmp_path: Path,
) -> None:
    build.main([])  # built here before
    engine = official(tmp_path, "v3.300.1")
    build.main([])
    assert f"engine={engine}" in (paths.BIN / "pulumi").read_text()
    assert not any((paths.BIN / host).exists() for host in build.HOSTS)
    assert environment.OFFLINE not in paths.ENV_SH.read_text()
    assert asked(tmp_path) == [
        "version",
        *(
            f"plugin install resource {p.plugin} {p.version}"
            + (
                " --server github://api.github.com/muhlba91/pulumi-proxmoxve"
                if p.plugin == "proxmoxve"
                else ""
            )
            for p in pins.PLUGINS
        ),
    ]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "case",
    [
        ("v3.100.0", "exit 0", pins.PULUMI),
        ("v3.300.0", "exit 1", "libvirt 0.5.4 can't be downloaded"),
        ("nonsense", "exit 0", "nonsense"),
    ],
)
def test_an_official_engine_of_no_use_is_named_once_and_asked_once(
    tmp_path: Path,
    case: tuple[str, str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    version, install, said = case
    engine = official(tmp_path, version, install)
    build.main([])
    told = capsys.readouterr().err
    assert f"{engine} is not used: " in told
    assert said in told
    assert str(golang.place(pins.ENGINE)) in (paths.BIN / "pulumi").read_text()
    before = asked(tmp_path)
    build.main([])
    assert asked(tmp_path) == before
    assert not capsys.readouterr().err
    official(tmp_path, version, install + " # another file")
    build.main([])
    assert len(asked(tmp_path)) > len(before), "a changed engine is looked at again"


@pytest.mark.usefixtures("root")
def test_our_own_wrapper_is_not_taken_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    build.main([])
    assert build.find_official(str(paths.BIN)) is None
    assert build.find_official("::") is None, "the folder one stands in is not asked"
    monkeypatch.setenv("PATH", f"{paths.BIN}:/usr/bin:/bin")
    build.main([])
    assert str(golang.place(pins.ENGINE)) in (paths.BIN / "pulumi").read_text()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (f"v{pins.PULUMI}\n", True), ("3.259.1", True), ("v3.1000.0-alpha.x", True), ("v4.0.0", True),
        ("v3.258.9", False), ("v2.999.0", False), ("", False), ("unknown", False),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers(said: str, *, answer: bool) -> None:
    assert build.new_enough(said) is answer
