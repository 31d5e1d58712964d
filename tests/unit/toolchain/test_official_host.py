"""What Pulumi's own Python language host runs in the environment, run as it runs it.

From pulumi 3.259.0: ``sdk/python/cmd/pulumi-language-python/main.go`` and ``sdk/python/toolchain/pip.go``.
The host is a Go program that no registry has; without these commands it ends before the program begins.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import analyzer_pb2_grpc, provider_pb2_grpc

from toolchain.bootstrap import paths, pins

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = paths.VENV / "bin" / "python"
DEADLINE_S = 120


def activated() -> dict[str, str]:
    """The environment that the host gives to what it starts: its own, with ``.venv`` activated."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "VIRTUAL_ENV"}}
    search = f"{paths.VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": search, "VIRTUAL_ENV": str(paths.VENV)}


def asked(*words: str, **more: str) -> str:
    done = subprocess.run(
        [PYTHON, *words],
        cwd=paths.ROOT,
        env=activated() | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed() -> dict[str, str]:
    told = json.loads(asked("-m", "pip", "list", "--format", "json"))
    return {package["name"]: package["version"] for package in told}


def test_it_learns_before_each_deployment_what_is_installed() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", pins.LOCK.read_text(), re.MULTILINE))
    # Names as the packages write them: PyYAML, ast_serialize.
    told = {re.sub(r"[-_.]+", "-", name).lower(): v for name, v in installed().items()}
    assert locked.items() <= told.items()


def test_it_learns_which_pip_that_is_and_which_python() -> None:
    assert re.match(r"pip \d+\.\d+", asked("-m", "pip", "--version"))
    assert asked("-m", "pip", "list", "--format", "json", "--not-required")
    assert re.fullmatch(r"Python 3\.\d+\.\d+", asked("--version").strip())


PLUGIN_FILES = """
import importlib.metadata, importlib.util, json, os, sys
result = {}
for name in sys.argv[1:]:
    module = importlib.metadata.distribution(name).metadata["Name"].replace("-", "_")
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = os.path.join(folder, "pulumi-plugin.json")
        if os.path.isfile(file):
            result[name] = file
print(json.dumps(result))
"""
"""What the host finds out for each installed package."""


def test_it_asks_the_engine_for_the_plugins_that_the_set_up_installs() -> None:
    names = [name for name in installed() if name.startswith("pulumi")]
    files: dict[str, str] = json.loads(asked("-c", PLUGIN_FILES, *names))
    plugins: list[dict[str, Any]] = [json.loads(Path(file).read_text()) for file in files.values()]
    wanted = {each["name"]: each["version"] for each in plugins if each["resource"]}
    assert wanted == {plugin.plugin: plugin.version for plugin in pins.PLUGINS}


def test_pulumi_install_finds_everything_there_and_changes_nothing() -> None:
    before = installed()
    # No index: what is not there already would be a failure.
    said = asked("-m", "pip", "install", "-r", "requirements.txt", PIP_NO_INDEX="1")
    assert "Successfully installed" not in said
    assert "Requirement already satisfied: pulumi==" in said
    assert installed() == before


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """A channel to what ``.venv/bin/python`` serves when it is given these words."""
    with subprocess.Popen(
        [PYTHON, *request.param],
        cwd=paths.ROOT,
        env=activated() | {"PYTHONPATH": str(paths.ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout
            port = int(running.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            running.kill()


@pytest.mark.parametrize(
    "served", [["-u", "-m", "pulumi.policy", "127.0.0.1:1", str(paths.ROOT / "policies")]], indirect=True
)  # fmt: skip
def test_the_policy_pack_is_served(served: grpc.Channel) -> None:
    about = analyzer_pb2_grpc.AnalyzerStub(served).GetAnalyzerInfo(empty_pb2.Empty())
    assert about.name == "nestlab"
    assert len(about.policies) > 10


@pytest.mark.parametrize("served", [["-u", "-m", "pulumi.dynamic", "127.0.0.1:1"]], indirect=True)
def test_dynamic_providers_are_served(served: grpc.Channel) -> None:
    stub = provider_pb2_grpc.ResourceProviderStub(served)
    assert stub.GetPluginInfo(empty_pb2.Empty()).version


def test_the_runner_of_plugins_is_there() -> None:
    asked("-c", "import pulumi.run.plugin")
