"""The engine's environment: sourced by students' shells, and used by every command and test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from toolchain import environment, paths, state

if TYPE_CHECKING:
    from pathlib import Path

DUMP = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
SHELLS = [shell for shell in ("sh", "bash", "zsh", "dash") if shutil.which(shell)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose path has a blank and a quote in it, as a student's may."""
    root = tmp_path / "it's my lab"
    place(root, monkeypatch)
    paths.LOCAL.mkdir(parents=True)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    return root


def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = root / ".nestlab"
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "LOCAL", local)
    monkeypatch.setattr(paths, "VENV", root / ".venv")
    for name, part in {
        "BIN": "bin",
        "HOME": "home",
        "STATE": "state",
        "ENV_SH": "env.sh",
        "PASSPHRASE": "passphrase",
        "NETNS": "netns",
        "KEYS": "keys",
    }.items():
        monkeypatch.setattr(paths, name, local / part)


def source(shell: str, *files: Path, given: dict[str, str]) -> dict[str, str]:
    """Source ``files`` in ``shell`` with only ``given`` set, and return the environment."""
    commands = [f'. "{file}"' for file in files]
    script = "\n".join(["set -eu", *commands, DUMP])
    done = subprocess.run(
        [shell, "-c", script], env=given, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return {
        name: value
        for name, value in found.items()
        if name not in {"_", "PWD", "SHLVL", "OLDPWD", "LC_CTYPE"}
    }


BASES: list[dict[str, str]] = [
    {"PATH": "/usr/bin:/bin"},
    {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/elsewhere"},
    {"PATH": "/usr/bin:/bin", "PULUMI_BACKEND_URL": "s3://lab", "PULUMI_CONFIG_PASSPHRASE": ""},
    {"PATH": "/usr/bin:/bin", "PULUMI_CONFIG_PASSPHRASE_FILE": "/my/own"},
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("base", BASES)
def test_the_file_and_the_function_say_the_same(
    checkout: Path, shell: str, base: dict[str, str]
) -> None:
    assert checkout
    assert source(shell, paths.ENV_SH, given=base) == environment.environment(base)


@pytest.mark.parametrize("base", BASES[2:])
def test_what_the_user_set_stays_in_force(checkout: Path, base: dict[str, str]) -> None:
    assert checkout
    made = environment.environment(base)
    assert {name: made[name] for name in base if name != "PATH"} == {
        name: value for name, value in base.items() if name != "PATH"
    }
    if "PULUMI_CONFIG_PASSPHRASE" in base:
        assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in made, "an empty passphrase is one, too"


def test_the_engine_is_told_all_it_needs(checkout: Path) -> None:
    made = environment.environment({"PATH": "/bin"})
    assert made["PATH"] == f"{checkout}/.nestlab/bin:{checkout}/.venv/bin:/bin"
    assert made["PYTHONPATH"] == str(checkout), "dynamic providers are pickled by reference"
    assert made["PULUMI_BACKEND_URL"] == f"file://{checkout}/.nestlab/state"
    assert made["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{checkout}/.nestlab/passphrase"
    assert made["PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER"] == "true"
    assert made["PULUMI_SKIP_UPDATE_CHECK"] == "true"
    assert "PYTHONDONTWRITEBYTECODE" not in made


def test_plugins_are_fetched_only_where_the_engine_is_the_official_one(checkout: Path) -> None:
    assert checkout
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in environment.environment({})
    paths.BIN.mkdir()
    (paths.BIN / "pulumi-language-python").symlink_to("anywhere")
    assert environment.environment({})["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true" in environment.env_sh(built_here=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_sourcing_twice_changes_nothing(checkout: Path, shell: str) -> None:
    assert checkout
    once = source(shell, paths.ENV_SH, given={"PATH": "/usr/bin:/bin"})
    assert source(shell, paths.ENV_SH, paths.ENV_SH, given={"PATH": "/usr/bin:/bin"}) == once


@pytest.mark.parametrize("shell", SHELLS)
def test_another_checkouts_state_is_not_used(
    checkout: Path, shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkout
    first = paths.ENV_SH
    base = environment.environment({"PATH": "/usr/bin:/bin"})
    place(tmp_path / "other", monkeypatch)
    paths.LOCAL.mkdir(parents=True)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    made = source(shell, first, paths.ENV_SH, given={"PATH": "/usr/bin:/bin"})
    assert made["PULUMI_BACKEND_URL"] == f"file://{tmp_path}/other/.nestlab/state"
    assert made["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{tmp_path}/other/.nestlab/passphrase"
    assert made == environment.environment(base)


@pytest.mark.parametrize("name", ["a#b", "100%41", "what?", "a b+c&d'\"é"])
def test_the_backend_of_a_checkout_of_any_name_is_its_own_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine takes a ``#`` for the end of a path, and ``%41`` for a letter."""
    place(tmp_path / name, monkeypatch)
    url = environment.backend()
    assert unquote(urlsplit(url).path) == str(paths.STATE)
    assert state.folder(url) == paths.STATE / ".pulumi"
    paths.LOCAL.mkdir(parents=True)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    first = environment.environment({"PATH": "/usr/bin:/bin"})
    place(tmp_path / "next", monkeypatch)
    paths.LOCAL.mkdir(parents=True)
    assert environment.environment(first)["PULUMI_BACKEND_URL"] == environment.backend()
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    told = source("sh", paths.ENV_SH, given=first)
    assert told["PULUMI_BACKEND_URL"] == environment.backend(), "it was nobody's choice"
