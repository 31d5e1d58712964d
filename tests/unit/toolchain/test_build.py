"""The command ``toolchain``, with a cache that holds everything: no network, nothing built."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components.stackfile.lab import LabSpec
from components.stackfile.places import places
from tests.support.shipped import STACKS
from tests.unit.toolchain.test_environment import place
from toolchain.bootstrap import entries, paths, pins, python_env, ui
from toolchain.engine import before, build, environment, golang, plugins

PROGRAMS = (pins.ENGINE, *pins.PLUGINS, pins.VCSIM)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh checkout beside a cache that holds every program, with no engine on PATH."""
    place(tmp_path / "lab", monkeypatch)
    (tmp_path / "lab").mkdir()
    monkeypatch.setattr(build, "OFFICIAL", paths.LOCAL / "official.json")
    monkeypatch.setenv("NESTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'official'}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    monkeypatch.setattr(python_env, "ensure", lambda **_: paths.VENV)
    for program in PROGRAMS:
        golang.place(program).parent.mkdir(parents=True)
        golang.place(program).touch(0o755)
        entries.seal(golang.place(program).parent)
    return tmp_path / "lab"


def official(tmp_path: Path, version: str, install: str = "exit 0") -> Path:
    """Put an engine with its hosts on PATH that writes down each command it gets."""
    engine = tmp_path / "official" / "pulumi"
    engine.parent.mkdir(exist_ok=True)
    for name in build.HOSTS:
        (engine.parent / name).touch(0o755)
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
    assert build.main(["--all"]) == 0
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


def test_only_an_engine_built_here_is_kept_from_its_logs(root: Path, tmp_path: Path) -> None:
    logs = root / ".nestlab" / "home" / "logs"
    build.main([])
    assert "pulumi -v=9 --logtostderr" in logs.read_text()
    official(tmp_path, f"v{pins.PULUMI}")
    build.main([])
    assert not logs.exists(), "another version may want it"
    logs.mkdir()
    (tmp_path / "official" / "pulumi").unlink()
    build.main([])
    assert logs.is_dir(), "what an engine has written stays"


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


def forget(*programs: pins.Program) -> None:
    """Take ``programs`` out of the cache."""
    for program in programs:
        golang.place(program).unlink()


def link_of(plugin: pins.Program) -> Path:
    """Where the engine looks for ``plugin``."""
    return paths.HOME / "plugins" / f"resource-{plugin.plugin}-v{plugin.version}" / plugin.name


LIBVIRT, PROXMOX, VSPHERE = pins.PLUGINS
DOWNLOADS = 'mkdir -p "$PULUMI_HOME/plugins/resource-$4-v$5" && : >"$PULUMI_HOME/plugins/resource-$4-v$5/pulumi-resource-$4" && chmod 755 "$PULUMI_HOME/plugins/resource-$4-v$5/pulumi-resource-$4"'


def test_a_good_official_engine_is_used_and_brings_its_own_hosts(
    root: Path, tmp_path: Path
) -> None:
    build.main(["--all"])  # built here before
    engine = official(tmp_path, "v3.300.1")
    build.main(["--all"])
    assert f"engine={engine}" in (paths.BIN / "pulumi").read_text()
    assert not any((paths.BIN / host).exists() for host in build.HOSTS)
    assert environment.OFFLINE not in paths.ENV_SH.read_text()
    assert asked(tmp_path) == ["version"], "the plugins are there already"
    assert root


@pytest.mark.usefixtures("root")
def test_an_official_engine_downloads_what_is_nowhere_yet(tmp_path: Path) -> None:
    forget(*pins.PLUGINS)
    official(tmp_path, "v3.300.1", DOWNLOADS)
    build.main(["--all"])
    assert asked(tmp_path) == [
        "version",
        "plugin install resource libvirt 0.5.4",
        f"plugin install resource proxmoxve 8.3.0 --server {build.SERVERS['proxmoxve']}",
        "plugin install resource vsphere 4.17.0",
    ]
    build.main(["--all"])
    assert len(asked(tmp_path)) == 4, "what is there is not asked for again"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("chosen", ["", "own", "other/.nestlab/home"])
def test_the_plugins_of_the_users_own_pulumi_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    forget(*pins.PLUGINS)
    official(tmp_path, "v3.300.1", "exit 1")
    home = tmp_path / "own" if chosen == "own" else tmp_path / "user" / ".pulumi"
    if chosen:
        # Of these, a shell that has read a checkout's env.sh names that checkout's.
        monkeypatch.setenv("PULUMI_HOME", str(tmp_path / chosen))
    kept = home / "plugins" / f"resource-libvirt-v{LIBVIRT.version}" / LIBVIRT.name
    kept.parent.mkdir(parents=True)
    kept.touch(0o755)
    build.main([])
    assert link_of(LIBVIRT).resolve() == kept
    assert asked(tmp_path) == ["version"]


@pytest.mark.usefixtures("root")
def test_a_plugin_that_is_half_downloaded_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(tmp_path, "v3.300.1")
    home = tmp_path / "user" / ".pulumi" / "plugins"
    kept = home / f"resource-libvirt-v{LIBVIRT.version}" / LIBVIRT.name
    kept.parent.mkdir(parents=True)
    kept.touch(0o755)
    (home / f"resource-libvirt-v{LIBVIRT.version}.partial").touch()
    build.main([])
    assert link_of(LIBVIRT).resolve() == golang.place(LIBVIRT)
    # Whoever removes a plugin from their home later is not left with a link to nothing.
    link_of(LIBVIRT).unlink()
    link_of(LIBVIRT).symlink_to(tmp_path / "gone")
    forget(LIBVIRT)
    built: list[pins.Program] = []
    monkeypatch.setattr(golang, "build", built.extend)
    official(tmp_path, "v3.300.1", DOWNLOADS)
    build.main([])
    assert link_of(LIBVIRT).is_file()
    assert not link_of(LIBVIRT).is_symlink()
    assert not built


@pytest.mark.usefixtures("root")
def test_only_the_plugins_are_built_where_the_official_engine_cannot_download_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(LIBVIRT)
    engine = official(tmp_path, "v3.300.0", "exit 1")
    built: list[pins.Program] = []

    def make(programs: list[pins.Program]) -> None:
        built.extend(programs)
        for program in programs:
            golang.place(program).touch(0o755)

    monkeypatch.setattr(golang, "build", make)
    build.main([])
    assert f"engine={engine}" in (paths.BIN / "pulumi").read_text()
    assert built == [LIBVIRT]
    assert "libvirt 0.5.4 can't be downloaded" in capsys.readouterr().err
    before = asked(tmp_path)
    build.main([])
    assert asked(tmp_path) == before
    assert not capsys.readouterr().err


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "case", [("v3.100.0", pins.PULUMI), ("nonsense", "nonsense"), ("v3.300.0", "pulumi-language-python")]
)  # fmt: skip
def test_an_official_engine_of_no_use_is_named_once_and_asked_once(
    tmp_path: Path,
    case: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    version, said = case
    engine = official(tmp_path, version)
    whole = said != "pulumi-language-python"
    if not whole:
        (engine.parent / said).unlink()
    build.main([])
    told = capsys.readouterr().err
    assert f"{engine} is not used: " in told
    assert said in told
    assert str(golang.place(pins.ENGINE)) in (paths.BIN / "pulumi").read_text()
    before = asked(tmp_path)
    build.main([])
    assert asked(tmp_path) == before
    assert not capsys.readouterr().err
    if whole:
        engine.write_text(engine.read_text() + "# another file\n")
    else:
        (engine.parent / said).touch(0o755)
    build.main([])
    assert len(asked(tmp_path)) > len(before), "a changed engine is looked at again"
    assert (f"engine={engine}" in (paths.BIN / "pulumi").read_text()) is not whole


FOLDER = Path(__file__).parents[3] / "stacks"


@pytest.mark.usefixtures("root")
def test_only_what_the_stack_asks_for_is_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[pins.Program] = []
    monkeypatch.setattr(golang, "build", lambda programs, **_: asked_for.extend(programs))
    shutil.copytree(FOLDER, paths.ROOT / "stacks")
    build.main(["--stack", "local"])
    assert asked_for == [pins.ENGINE, LIBVIRT]
    assert not link_of(PROXMOX).exists()
    asked_for.clear()
    build.main(["--stack", "proxmox"])
    assert asked_for == [pins.ENGINE, LIBVIRT, PROXMOX]
    asked_for.clear()
    build.main(["--all"])
    assert asked_for == [*PROGRAMS]


@pytest.mark.parametrize(
    ("text", "asked_for"),
    [
        ("", (LIBVIRT,)),
        ("# on vsphere or proxmox too\n  kind: kvm  # not proxmox\n", (LIBVIRT,)),
        ("host: {kind: proxmox, endpoint: x}", (LIBVIRT, PROXMOX)),
        ("host:\n  kind:\n    'vsphere'", (LIBVIRT, VSPHERE)),
        ('"kind" : "vsphere", x#y: {kind: proxmox}', pins.PLUGINS),
    ],
)
def test_the_words_of_a_stack_say_which_plugins_it_needs(
    root: Path, text: str, asked_for: tuple[pins.Program, ...]
) -> None:
    (root / "stacks").mkdir()
    (root / "stacks" / "Pulumi.a.yaml").write_text(text)
    assert plugins.of("a") == asked_for
    assert plugins.of("none") == (LIBVIRT,)


@pytest.mark.usefixtures("root")
def test_a_plugin_that_is_not_there_yet_is_told_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (paths.ROOT / "stacks").mkdir()
    (paths.ROOT / "stacks" / "Pulumi.far.yaml").write_text("host: {kind: vsphere}")
    (paths.ROOT / "Pulumi.yaml").write_text("name: nestlab\nruntime: python\n")
    monkeypatch.chdir(paths.ROOT)
    monkeypatch.setattr(paths, "CONFIG", paths.LOCAL / "config")
    build.main([])
    with pytest.raises(ui.Problem, match=r"far asks for vsphere.*\n.*make toolchain STACK=far"):
        before.main(["--", "preview", "--stack", "far"])
    build.main(["--stack", "far"])
    assert before.main(["--", "preview", "--stack", "far"]) == 0


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.name)
def test_each_stack_gets_the_plugins_of_its_places(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = LabSpec.model_validate(yaml.safe_load(file.read_text())["config"]["nestlab:lab"])
    made_by = {"libvirt": LIBVIRT, "kvm": LIBVIRT, "proxmox": PROXMOX, "vsphere": VSPHERE}
    kinds = {place.kind.name if place.kind else lab.host.kind for place in places(lab)}
    monkeypatch.setattr(paths, "ROOT", FOLDER.parent)
    stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
    assert set(plugins.of(stack)) >= {made_by[kind] for kind in kinds & set(made_by)}


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
