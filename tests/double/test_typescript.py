"""The component package's SDK for TypeScript, made by the engine's own generator, and a program that uses it.

The language host that runs such programs is no Go module of its own, so they are compiled, by `tsc --strict`:
a failure here is a schema whose SDK nobody could use, or inputs that are typed as what they are not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from components.package.schema import schema
from toolchain.bootstrap import paths, pins

if TYPE_CHECKING:
    from pathlib import Path

# The generator is compiled first, and npm's packages come from their registry.
pytestmark = [pytest.mark.double, pytest.mark.soak]

PROGRAM = paths.ROOT / "tests" / "cases" / "outside" / "typescript-lab" / "index.ts"
GENERATOR = paths.ROOT / "tests" / "support" / "sdk" / "main.go"
NEEDED = {"@pulumi/pulumi": pins.PULUMI, "@types/node": "20.19.0", "typescript": "5.9.3"}
OPTIONS = {
    "strict": True,
    "noEmit": True,
    "target": "es2022",
    "module": "nodenext",
    "moduleResolution": "nodenext",
    "skipLibCheck": True,
    "types": ["node"],
    "paths": {"@pulumi/nestlab": ["./nestlab/index.ts"]},
}
GO = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
LONG_S = 900.0


def run(*words: str | Path, at: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=at,
        env=os.environ | GO,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


@pytest.fixture(scope="module")
def modules(pytestconfig: pytest.Config) -> Path:
    """The folder of npm's packages, which pytest's cache keeps for the next run."""
    for program in ("go", "node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    assert pytestconfig.cache
    folder = pytestconfig.cache.mkdir("typescript")
    wanted = json.dumps({"private": True, "dependencies": NEEDED})
    done = folder / "installed.json"
    if not done.is_file() or done.read_text() != wanted:
        (folder / "package.json").write_text(wanted)
        words = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
        told = run(*words, at=folder)
        if told.returncode:
            pytest.skip(f"needs npm's registry: {told.stderr[-300:]}")
        done.write_text(wanted)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory, modules: Path) -> Path:
    """A project with the generated SDK in it."""
    folder = tmp_path_factory.mktemp("typescript")
    engine = paths.ROOT / "toolchain" / "go" / "pulumi"
    words = ("go", "run", "-trimpath", "-tags", "osusergo,grpcnotrace", GENERATOR)
    made = run(*words, folder / "nestlab", at=engine, stdin=json.dumps(schema()))
    assert made.returncode == 0, made.stderr
    (folder / "node_modules").symlink_to(modules)
    files = ["index.ts", "nestlab/index.ts"]
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": files}))
    return folder


def compiled(sdk: Path, program: str) -> str:
    """Return what the compiler says of ``program`` and the SDK."""
    (sdk / "index.ts").write_text(program)
    return run("node", "node_modules/typescript/bin/tsc", "-p", ".", at=sdk).stdout


def test_a_program_and_the_sdk_compile(sdk: Path) -> None:
    assert compiled(sdk, PROGRAM.read_text()) == ""


def test_what_no_component_takes_is_told_by_the_compiler(sdk: Path) -> None:
    program = PROGRAM.read_text()
    said = compiled(sdk, program.replace("memory_mib: 2048", 'memory_mib: "2048"'))
    assert "index.ts" in said
    assert "number" in said
    said = compiled(sdk, program.replace('place: "kvm1", template', 'inside: "kvm1", template'))
    assert "'inside' does not exist" in said
