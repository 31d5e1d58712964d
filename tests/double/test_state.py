"""States, locks and stack files of a checkout, with the real engine.

A failure here means that a stack file changes under its owner's hands, that a compressed state counts as
none, or that what puts a killed run right undoes on paper what an engine did meanwhile.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.double.conftest import eventually
from tests.support.checkout import Checkout, Done
from toolchain.bootstrap import paths
from toolchain.engine import environment, recover, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.double, pytest.mark.spread]

PROGRAM = """
import pulumi
from components import waits
lab = pulumi.Config().require_object("lab")
for name in lab["things"]:
    waits.Wait(name, lab["folder"])
pulumi.export("token", pulumi.Output.secret("hidden"))
pulumi.export("sheet", [])
"""
WAITS = """
import pathlib, time
from pulumi import dynamic

class Waits(dynamic.ResourceProvider):
    def create(self, props):
        folder = pathlib.Path(props["folder"])
        (folder / f"{props['name']}-begun").touch()
        while (folder / f"{props['name']}-waits").exists():
            time.sleep(0.05)
        return dynamic.CreateResult(props["name"], props)

class Wait(dynamic.Resource):
    def __init__(self, name, folder):
        super().__init__(Waits(), name, {"name": name, "folder": folder})
"""
HOLDS = """
import pathlib, sys
from toolchain.engine import state
with state.held("local", pathlib.Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""
STACK = """\
# A comment,   with blanks   in it.

config:

  nestlab:lab: {{name: "x",   things: [{}], folder: {}}}  # at its end\r
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A checkout whose program makes things that may take long."""
    with made_at(tmp_path / "lab") as made:
        yield made


@contextmanager
def made_at(root: Path) -> Iterator[Checkout]:
    if not environment.built_here():
        pytest.skip("needs the engine: run `make toolchain`")
    made = Checkout.make(root)
    done = made.run(sys.executable, "-m", "toolchain", "toolchain")
    assert done.code == 0, done.said
    (made.root / "__main__.py").write_text(PROGRAM)
    signs(made).mkdir()
    (made.root / "components" / "waits.py").write_text(WAITS)
    things(made, "one")
    yield made
    for waiting in signs(made).glob("*-waits"):
        waiting.unlink()


def signs(checkout: Checkout) -> Path:
    """Where what is being made says so, and is told to wait."""
    return checkout.root.parent / "signs"


def things(checkout: Checkout, *names: str) -> None:
    text = STACK.format(", ".join(names), json.dumps(str(signs(checkout))))
    checkout.settings.write_bytes(text.encode())


def backend(checkout: Checkout) -> Path:
    return checkout.root / ".nestlab" / "state" / ".pulumi"


def written(checkout: Checkout) -> dict[str, bytes]:
    """Every file that is not nestlab's own."""
    return {
        str(file.relative_to(checkout.root)): file.read_bytes()
        for file in checkout.root.rglob("*")
        if file.is_file()
        and not {".nestlab", ".venv", "__pycache__"} & set(file.relative_to(checkout.root).parts)
    }


FORMS = {"PULUMI_DIY_BACKEND_GZIP": ".gz", "": ""}


@pytest.mark.parametrize("variable", FORMS)
def test_no_command_changes_the_checkout_and_every_form_of_a_state_counts(
    variable: str, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        plain = checkout.environment()
        monkeypatch.setattr(Checkout, "environment", lambda _: plain | {variable: "true"})
    before = written(checkout)
    logs = checkout.root / ".nestlab" / "home" / "logs"
    logs.unlink(missing_ok=True)  # a file, by which an engine built here writes none
    logs.mkdir()
    now = dt.datetime.now(dt.UTC)
    large = [logs / f"stack-{now - dt.timedelta(hours=age):%Y%m%dT%H%M%S}.log" for age in (1, 2, 3)]
    for log in large:
        with log.open("wb") as handle:
            handle.truncate(9 << 20)
    commands = [
        ("stack", "init", "local"), ("preview",), ("up", "--yes"), ("refresh", "--yes"),
        ("stack", "output", "--show-secrets"), ("config",), ("--stack", "local", "preview"),
    ]  # fmt: skip
    for words in commands:
        done = checkout.pulumi(*words)
        assert done.code == 0, f"{words}\n{done.said}"
        assert written(checkout) == before, f"{words} wrote into the checkout"
    assert [log.exists() for log in large] == [True, True, False], (
        "20 MB of the engine's logs are kept"
    )
    file = state.file_of("local", backend(checkout))
    assert file
    assert b"hidden" not in file.read_bytes()
    assert file.name == f"local.json{FORMS[variable]}"
    toolchain = (sys.executable, "-m", "toolchain")
    shown = checkout.run(*toolchain, "show")
    assert shown.code == 0, shown.said
    down = checkout.run(*toolchain, "down")
    assert down.code == 0, down.said
    assert "not up" not in down.said
    assert not state.file_of("local", backend(checkout))
    again = checkout.run(*toolchain, "down")
    assert "the stack local is not up" in again.said
    checkout.pulumi("stack", "init", "local")
    gone = checkout.pulumi("stack", "rm", "--yes")
    assert gone.code == 0, gone.said
    assert written(checkout) == before, "the stack's file went with its state"


REMOVING: list[tuple[tuple[str, ...], dict[str, str]]] = [
    (("destroy", "--yes", "--remove=1"), {}),
    (("destroy", "--yes"), {"PULUMI_OPTION_REMOVE": "true"}),
    (("stack", "--stack", "local", "rm", "--yes"), {}),
    (("destroy", "--yes", "--remove", "--config-file", "../mine.yaml"), {}),
]
NAMING: list[tuple[tuple[str, ...], dict[str, str]]] = [
    (("preview", "-js", "other"), {}),
    (("preview", "--json", "-s", "local", "--stack", "other"), {}),
    (("preview", "--json"), {"PULUMI_OPTION_STACK": "other"}),
]


def test_however_the_engine_is_asked_a_lab_keeps_its_own_file(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkout.environment()

    def asked(words: tuple[str, ...], given: dict[str, str]) -> Done:
        monkeypatch.setattr(Checkout, "environment", lambda _: plain | given)
        return checkout.pulumi(*words)

    other = checkout.settings.with_name("Pulumi.other.yaml")
    other.write_bytes(checkout.settings.read_bytes().replace(b"[one]", b"[two]"))
    (checkout.root.parent / "mine.yaml").write_bytes(checkout.settings.read_bytes())
    before = written(checkout)
    assert asked(("stack", "init", "other", "--no-select"), {}).code == 0
    for words, given in REMOVING:
        assert asked(("stack", "init", "local"), {}).code == 0
        done = asked(words, given)
        assert done.code == 0, done.said
        assert written(checkout) == before, f"{words} {given} took the stack's file along"
        assert not state.file_of("local", backend(checkout))
    assert asked(("stack", "init", "local"), {}).code == 0
    for words, given in NAMING:
        said = asked(words, given).said
        told, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
        names = {
            step["urn"].partition("::")[0] + step["urn"].rpartition("::")[2]
            for step in told["steps"]
        }
        assert {"urn:pulumi:othertwo"} == {n for n in names if n.endswith(("one", "two"))}, words


def start(checkout: Checkout, *words: str) -> subprocess.Popen[bytes]:
    script = '. .nestlab/env.sh && exec pulumi "$@" --non-interactive --color never'
    return checkout.start(["bash", "-c", script, "pulumi", *words], checkout.root / ".output")


def killed(checkout: Checkout) -> dict[str, Any]:
    """Kill an engine while it makes ``one``; return what it left in the state."""
    assert checkout.pulumi("stack", "init", "local").code == 0
    (signs(checkout) / "one-waits").touch()
    run = start(checkout, "up", "--yes", "--skip-preview")
    assert eventually((signs(checkout) / "one-begun").exists, 60)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    (signs(checkout) / "one-waits").unlink()
    found = state.read(backend(checkout) / "stacks" / "nestlab" / "local.json")
    assert [each["type"] for each in found.pending] == ["creating"]
    assert state.locks("local", backend(checkout)), "the engine's lock is left"
    return found.latest


def exported(checkout: Checkout) -> dict[str, Any]:
    done = checkout.run("bash", "-c", ". .nestlab/env.sh && exec pulumi stack export")
    deployment: dict[str, Any] = json.loads(done.said)["deployment"]
    return deployment


def test_two_engines_and_a_recovery_never_work_on_one_stack(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = killed(checkout)
    monkeypatch.setattr(paths, "ROOT", checkout.root)
    monkeypatch.chdir(checkout.root)
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{checkout.root}/.nestlab/state")
    folder = backend(checkout)
    assert state.drop_stale("local", folder) == 1
    # What can't be put right now is still the engine's to know, and it carries on beside it.
    monkeypatch.setattr(recover, "_finish", lambda *_: False)
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert exported(checkout)["pending_operations"] == before["pending_operations"]
    # While the stack is held the next command waits, an engine refuses, and nothing is touched.
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder, "toolchain.engine.recover"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as recovering:
        assert recovering.stdin
        assert recovering.stdout
        assert recovering.stdout.readline() == b"holds\n"
        with monkeypatch.context() as past_the_recovery:
            past_the_recovery.setenv("NESTLAB_RECOVERING", "yes")
            refused = start(checkout, "destroy", "--yes", "--skip-preview", "--stack", "local")
        assert refused.wait(60) != 0
        assert "locked by 1 lock" in (checkout.root / ".output").read_text()
        waiting = start(checkout, "preview")
        assert eventually(
            lambda: "waiting for process" in (checkout.root / ".output").read_text(), 60
        )
        recovering.stdin.close()
        assert waiting.wait(60) == 0, (checkout.root / ".output").read_text()
    # While an engine works the recovery steps back.
    things(checkout, "two")
    (signs(checkout) / "two-waits").touch()
    working = start(checkout, "up", "--yes", "--skip-preview")
    assert eventually((signs(checkout) / "two-begun").exists, 60)
    file = folder / "stacks" / "nestlab" / "local.json"
    held = file.read_bytes()
    monkeypatch.setattr(recover, "_finish", lambda *_: pytest.fail("worked beside an engine"))
    assert recover.main(["--", "destroy", "--stack", "local"]) == 0
    assert file.read_bytes() == held
    (signs(checkout) / "two-waits").unlink()
    assert working.wait(60) == 0, (checkout.root / ".output").read_text()
    monkeypatch.undo()
    checkout.down()
    assert not state.file_of("local", folder)


# Disks ------------------------------------------------------------------------------------------


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    """Mount something, and unmount it whoever is still in there."""
    subprocess.run(["mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", words[-1]], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")


@needs_root
def test_a_full_disk_is_named_and_costs_nothing(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs", root), made_at(root) as checkout:
        assert checkout.pulumi("stack", "init", "local").code == 0
        checkout.up()
        before = state.read(backend(checkout) / "stacks" / "nestlab" / "local.json").wrapped
        things(checkout, "one", "two")
        files = written(checkout)
        fill = root / "fill"
        full(fill)
        toolchain = (sys.executable, "-m", "toolchain")
        commands: list[tuple[str, ...]] = [
            ("bash", "-c", ". .nestlab/env.sh && exec pulumi up --yes --skip-preview")
        ]
        commands += [(*toolchain, "toolchain"), (*toolchain, "show")]
        for words in commands:
            done = run(checkout, tmp_path, *words)
            assert "Traceback" not in done.said, done.said
            assert done.code == 0 or "no space left on device" in done.said.lower(), done.said
            assert words[-1] != commands[0][-1] or done.code != 0
        fill.unlink()
        assert written(checkout) == files
        (backend(checkout).parent.parent / "env.sh").unlink()
        full(fill)
        done = run(checkout, tmp_path, *toolchain, "toolchain")
        assert done.code == 1
        assert "error: " in done.said
        assert "Free some space there" in done.said
        fill.unlink()
        assert state.read(backend(checkout) / "stacks" / "nestlab" / "local.json").wrapped == before
        assert run(checkout, tmp_path, *toolchain, "toolchain").code == 0
        assert "1 created" in checkout.up(), "the next command mends"


@needs_root
def test_a_checkout_on_a_read_only_disk_is_named(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.pulumi("stack", "init", "local").code == 0
    before = written(checkout)
    toolchain = (sys.executable, "-m", "toolchain")
    with (
        mounted("--bind", checkout.root, checkout.root),
    ):
        subprocess.run(["mount", "-o", "remount,bind,ro", checkout.root], check=True)
        for words in [
            ("bash", "-c", ". .nestlab/env.sh && exec pulumi up --yes --skip-preview"),
            (*toolchain, "down"),
        ]:
            done = run(checkout, tmp_path, *words)
            assert done.code != 0, done.said
            assert "read-only" in done.said.lower(), done.said
            assert "Traceback" not in done.said
    assert written(checkout) == before
    checkout.up()


def full(file: Path) -> None:
    """Write zeros until there is no room for one more."""
    with file.open("wb", buffering=0) as handle, suppress(OSError):
        while handle.write(bytes(1 << 12)):
            pass


def run(checkout: Checkout, tmp_path: Path, *words: str) -> Done:
    """Run a command of the checkout whose output goes elsewhere."""
    output = tmp_path / "output"
    with output.open("wb") as handle:
        done = subprocess.run(
            words,
            cwd=checkout.root,
            env=checkout.environment(),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
    return Done(done.returncode, output.read_text(errors="replace"))
