"""The engine's environment: sourced by students' shells, and used by every command and test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from toolchain.bootstrap import paths
from toolchain.engine import environment, state

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
PROXIED: list[dict[str, str]] = [
    {"PATH": "/usr/bin:/bin", "https_proxy": "http://proxy:3128"},
    {"PATH": "/usr/bin:/bin", "ALL_PROXY": "socks5://proxy", "no_proxy": "intra.example,::1"},
    {"PATH": "/usr/bin:/bin", "grpc_proxy": "http://p", "NO_PROXY": "a", "no_proxy": "b"},
    {"PATH": "/usr/bin:/bin", "HTTP_PROXY": "http://p", "NO_PROXY": "*", "no_grpc_proxy": "c"},
    {
        "PATH": "/usr/bin:/bin",
        "HTTPS_PROXY": "http://p",
        "no_proxy": "10.0.0.1,127.0.0.1,10.77.0.0/24",
    },
]


def stacks(checkout: Path) -> None:
    (checkout / "stacks").mkdir()
    (checkout / "stacks" / "Pulumi.b.yaml").write_text("lab: {mode: nat, subnet: 10.77.0.0/24}\n")
    (checkout / "stacks" / "Pulumi.a.yaml").write_text("subnet: '192.168.9.0/28' # 10.77.0.0/24\n")
    (checkout / "stacks" / "schema.json").write_text('"10.99.0.0/24"')


@pytest.mark.parametrize("base", PROXIED)
def test_what_is_here_or_in_a_lab_needs_no_proxy(checkout: Path, base: dict[str, str]) -> None:
    stacks(checkout)
    made = environment.environment(base)
    direct = ["localhost", "127.0.0.1", "::1", "10.77.0.0/24", "192.168.9.0/28"]
    for name in ("no_proxy", "NO_PROXY", *(["no_grpc_proxy"] if "no_grpc_proxy" in base else [])):
        told = made[name].split(",")
        assert len(told) == len(set(told))
        assert told == ["*"] or set(direct) <= set(told)
        given = [each for each in base.get(name, "").split(",") if each]
        assert told[: len(given)] == given, "the user's own come first, as they are"
    leading = {name: value for name, value in base.items() if name.lower() in environment.PROXIES}
    assert leading.items() <= made.items(), "downloads and vendors' APIs go where the user says"
    assert "proxy" not in "".join(environment.environment({"PATH": "/bin"})), (
        "nothing where there is none"
    )


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("base", [*BASES, *PROXIED])
def test_the_file_and_the_function_say_the_same(
    checkout: Path, shell: str, base: dict[str, str]
) -> None:
    stacks(checkout)
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
    stacks(checkout)
    for base in ({"PATH": "/usr/bin:/bin"}, *PROXIED):
        once = source(shell, paths.ENV_SH, given=base)
        assert source(shell, paths.ENV_SH, paths.ENV_SH, given=base) == once


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


def test_options_for_plain_commands_are_none_of_ours() -> None:
    theirs = {"PULUMI_OPTION_CWD": "/", "PULUMI_OPTION_OUTPUT": "json", "PULUMI_OPTION_TARGET": "x"}
    theirs["PULUMI_ENABLE_STREAMING_JSON_PREVIEW"] = "true"
    made = environment.environment({"PATH": "/usr/bin", **theirs})
    assert not theirs.keys() & made.keys()
    assert made["PULUMI_OPTION_SKIP_PLUGIN_PRE_INSTALL"] == "true"


@pytest.mark.parametrize("name", environment.INTERPRETER)
def test_what_would_keep_ours_from_starting_or_ending_is_dropped(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path / "lab", monkeypatch)
    assert name not in environment.environment({name: "/nowhere"})
    script = environment.env_sh(built_here=False) + f'echo "${{{name}-dropped}}"'
    done = subprocess.run(
        ["sh", "-c", script], env={name: "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "dropped\n"
