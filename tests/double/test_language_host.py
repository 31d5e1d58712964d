"""The hosts that the engine starts, with the real engine.

A failure here means that students' programs end without their message, or leave processes behind.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, provider_pb2, provider_pb2_grpc
from typing_extensions import override

from tests.double.conftest import children, eventually
from toolchain.bootstrap import paths, pins
from toolchain.engine import environment, golang, lifeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.double.conftest import Project

pytestmark = [
    pytest.mark.double,
    pytest.mark.spread,
    pytest.mark.skipif(
        not environment.built_here(), reason="an official engine brings hosts of its own"
    ),
]

FILES = '''
"""A dynamic provider that keeps a text in a file, imported by reference."""
import pathlib, time
from pulumi import dynamic

class Files(dynamic.ResourceProvider):
    def check(self, olds, news):
        wrong = [] if news["text"] else [dynamic.CheckFailure("text", "is empty")]
        return dynamic.CheckResult(news, wrong)
    def diff(self, id, olds, news):
        return dynamic.DiffResult(
            changes=olds["text"] != news["text"] or olds["path"] != news["path"],
            replaces=["path"] if olds["path"] != news["path"] else [],
            delete_before_replace=True)
    def create(self, props):
        pathlib.Path(props["path"]).write_text(props["text"])
        return dynamic.CreateResult(props["path"], {**props, "size": len(props["text"])})
    def read(self, id, props):
        return dynamic.ReadResult(id, {**props, "text": pathlib.Path(id).read_text()})
    def update(self, id, olds, news):
        pathlib.Path(id).write_text(news["text"])
        return dynamic.UpdateResult({**news, "size": len(news["text"])})
    def delete(self, id, props):
        pathlib.Path(id).unlink()

class File(dynamic.Resource):
    size: object
    def __init__(self, name, path, text):
        super().__init__(Files(), name, {"path": path, "text": text, "size": None})
'''

WAITS = """
import pathlib, pulumi, time
from pulumi import dynamic
from components.reach.interrupt import CANCELLED

class Waits(dynamic.ResourceProvider):
    def create(self, props):
        pathlib.Path(props["begun"]).touch()
        if CANCELLED.wait(60):
            raise pulumi.RunError("stopped while waiting")
        return dynamic.CreateResult("late", props)

class Wait(dynamic.Resource):
    def __init__(self, name, begun):
        super().__init__(Waits(), name, {"begun": begun})
"""


def test_an_empty_program_comes_up(project: Project) -> None:
    assert "1 created" in project.up("")
    assert "1 unchanged" in project.up("")


def test_a_program_sees_its_stack_its_config_and_its_secrets(project: Project) -> None:
    project.pulumi("config", "set", "lab", "small")
    project.pulumi("config", "set", "--secret", "key", "hidden")
    said = project.up("""
import os, pulumi
config = pulumi.Config()
pulumi.export("lab", config.require("lab"))
pulumi.export("key", config.require_secret("key"))
pulumi.export("seen", [pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization(),
                       pulumi.runtime.is_dry_run(), os.path.basename(os.getcwd())])
""")
    assert "small" in said
    assert "hidden" not in said
    assert "[secret]" in said
    outputs = project.pulumi("stack", "output", "--json")
    assert all(word in outputs for word in ("scratch", "dev", "organization", "false", "project"))


def test_a_preview_is_a_dry_run(project: Project) -> None:
    project.write("import pulumi; print('dry', pulumi.runtime.is_dry_run())")
    assert "dry True" in project.pulumi("preview")


def test_what_a_program_prints_is_shown_once(project: Project) -> None:
    said = project.up("""
import sys
print("to standard output")
print("to standard error", file=sys.stderr)
""")
    assert said.split("Diagnostics:")[1].count("to standard output") == 1
    assert said.split("Diagnostics:")[1].count("to standard error") == 1


def test_a_bug_shows_its_own_lines_and_no_others_once(project: Project) -> None:
    said = project.up("def deep():\n    return {}['absent']\ndeep()\n", fails=True)
    shown = said.split("Diagnostics:")[1]
    assert shown.count("KeyError: 'absent'") == 1
    assert shown.count("__main__.py") == 2
    assert "runpy" not in shown, "frames of the host only bury the user's own"
    assert "langhost" not in shown
    assert "unhandled error occurred" not in shown, "the engine repeats what it is answered"


def test_a_broken_program_shows_where_it_is_broken(project: Project) -> None:
    shown = project.up("import pulumi\nif True\n    pass\n", fails=True).split("Diagnostics:")[1]
    assert shown.count("SyntaxError") == 1
    assert "line 2" in shown
    assert "runpy" not in shown


def test_a_refusal_is_its_message_alone(project: Project) -> None:
    said = project.up("import pulumi; raise pulumi.RunError('lab.memory: too small')", fails=True)
    shown = said.split("Diagnostics:")[1]
    assert shown.count("lab.memory: too small") == 1
    assert "Traceback" not in shown
    assert "RunError" not in shown


def test_a_program_may_end_itself(project: Project) -> None:
    project.up("import sys; sys.exit()")
    assert "the program ended itself: 3" in project.up("import sys; sys.exit(3)", fails=True)


def test_an_error_in_a_computed_value_is_shown_once(project: Project) -> None:
    program = (
        "import pulumi; pulumi.export('x', pulumi.Output.from_input(1).apply(lambda v: v / 0))"
    )
    shown = project.up(program, fails=True).split("Diagnostics:")[1]
    assert shown.count("ZeroDivisionError") == 1


def test_a_dynamic_resource_lives_its_whole_life(project: Project, tmp_path: Path) -> None:
    (project.folder / "files.py").write_text(FILES)
    kept = tmp_path / "kept"

    def program(path: Path, text: str) -> str:
        return f"""
import pulumi
from files import File
pulumi.export("size", File("kept", {str(path)!r}, {text!r}).size)
"""

    assert "2 created" in project.up(program(kept, "one"))
    assert kept.read_text() == "one"
    assert project.pulumi("stack", "output", "size").strip() == "3"
    assert "2 unchanged" in project.up(program(kept, "one"))
    assert "1 updated" in project.up(program(kept, "three"))
    assert kept.read_text() == "three"
    assert "is empty" in project.up(program(kept, ""), fails=True)
    project.write(program(kept, "three"))
    kept.write_text("changed by hand")
    assert "1 updated" in project.pulumi("refresh", "--yes", "--skip-preview")
    assert "1 updated" in project.up(program(kept, "three"))
    assert "1 replaced" in project.up(program(tmp_path / "moved", "three"))
    assert not kept.exists()
    project.pulumi("destroy", "--yes", "--skip-preview")
    assert not (tmp_path / "moved").exists()


@pytest.mark.parametrize(
    ("raised", "shown", "traced"),
    [
        ("pulumi.RunError('the gate stays shut')", "the gate stays shut", False),
        ("TimeoutError('no answer after 5 s')", "no answer after 5 s", False),
        ("KeyError('bug')", "KeyError: 'bug'", True),
    ],
)
def test_a_failing_dynamic_resource_says_why(
    project: Project, raised: str, shown: str, traced: bool
) -> None:
    provider = f"""
import pulumi
class Fails(dynamic.ResourceProvider):
    def create(self, props):
        raise {raised}
"""
    program = """
from pulumi import dynamic
from providers import Fails
class Failing(dynamic.Resource):
    pass
Failing(Fails(), "fails", {})
"""
    project.write(program, provider)
    said = project.pulumi("up", "--yes", "--skip-preview", fails=True)
    diagnostics = said.split("Diagnostics:")[1]
    assert diagnostics.count(shown) == 1
    assert ("Traceback" in diagnostics) is traced
    assert "Exception calling application" not in diagnostics
    assert "unhandled" not in diagnostics, "the program itself is not to blame"


def test_many_long_waits_do_not_starve_each_other(project: Project, tmp_path: Path) -> None:
    # Each wait ends only once all are under way: with few threads none would.
    provider = f"""
import pathlib, time
class Meets(dynamic.ResourceProvider):
    def create(self, props):
        folder = pathlib.Path({str(tmp_path / "met")!r})
        folder.mkdir(exist_ok=True)
        (folder / props["me"]).touch()
        end = time.monotonic() + 20
        while len(list(folder.iterdir())) < 12:
            if time.monotonic() > end:
                raise TimeoutError("the others never came")
            time.sleep(0.05)
        return dynamic.CreateResult(props["me"], props)
"""
    program = """
from pulumi import dynamic
from providers import Meets
class Meeting(dynamic.Resource):
    pass
for number in range(12):
    Meeting(Meets(), f"m{number}", {"me": str(number)})
"""
    project.write(program, provider)
    assert "13 created" in project.up(program, "--parallel", "16")


STRANGE = """
import pulumi
from pulumi import dynamic
class Harmful(dynamic.ResourceProvider):
    def create(self, props):
        open({sign!r}, "w").close()
        return dynamic.CreateResult("x", props)
    def delete(self, id, props):
        open({sign!r}, "w").close()
class Strange(dynamic.Resource):
    pass
Strange(Harmful(), "strange", {{}})
"""


def test_no_code_that_comes_out_of_a_state_is_run(project: Project, tmp_path: Path) -> None:
    """Pulumi's own host would run it; a program's own class is kept in the state as a whole."""
    sign = tmp_path / "ran"
    said = project.up(STRANGE.format(sign=str(sign)), fails=True)
    assert "no class of this project's own modules" in said
    assert not sign.exists()
    # A state from somebody else, as the official host would have left it.
    (project.folder / "files.py").write_text(FILES)
    project.up(f"from files import File\nFile('kept', {str(tmp_path / 'kept')!r}, 'one')\n")
    state = json.loads(project.pulumi("stack", "export"))
    [kept] = [one for one in state["deployment"]["resources"] if one["urn"].endswith("::kept")]
    for properties in (kept["inputs"], kept["outputs"]):
        properties["__provider"] = base64.b64encode(
            pickle.dumps(Opens(str(sign)), protocol=4)
        ).decode()
    (project.folder / "state.json").write_text(json.dumps(state))
    project.pulumi("stack", "import", "--file", "state.json")
    for command in ("refresh", "destroy"):
        said = project.pulumi(command, "--yes", "--skip-preview", fails=True)
        assert "no class of this project's own modules" in said
        assert not sign.exists()


class Opens:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.fixture
def waiting(project: Project, tmp_path: Path) -> Project:
    """A project whose only resource waits for a minute, and says when it has begun."""
    (project.folder / "waits.py").write_text(WAITS)
    project.write(f"from waits import Wait; Wait('long', {str(tmp_path / 'begun')!r})")
    return project


def test_an_interrupt_ends_a_long_create(waiting: Project, tmp_path: Path) -> None:
    with waiting.running("up", "--yes", "--skip-preview") as engine:
        assert eventually((tmp_path / "begun").exists, 20)
        began = time.monotonic()
        os.killpg(engine.pid, signal.SIGINT)
        said, _ = engine.communicate(timeout=30)
    assert time.monotonic() - began < 3
    assert "stopped while waiting" in said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


def test_a_killed_engine_leaves_nothing_running(waiting: Project, tmp_path: Path) -> None:
    pack(waiting.folder / "pack", "advisory")
    with waiting.running("up", "--yes", "--skip-preview", "--policy-pack", "pack") as engine:
        assert eventually((tmp_path / "begun").exists, 20)
        left = children(engine.pid)
        assert len(left) >= 3, "language host, policy pack and dynamic host"
        engine.kill()
    assert eventually(lambda: not any(map(_runs, left)), 3)


@contextmanager
def started(program: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Start ``program`` as the engine does, by a parent to be killed; give parent, pid and port."""
    script = f"'{program}' 127.0.0.1:1 & echo $!; sleep 60"
    with subprocess.Popen(
        ["sh", "-c", script],
        env=environment.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as parent:
        assert parent.stdout
        try:
            yield parent, int(parent.stdout.readline()), int(parent.stdout.readline())
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


@pytest.mark.parametrize("plugin", pins.PLUGINS, ids=lambda plugin: plugin.plugin)
def test_a_killed_engine_leaves_no_plugin_running(plugin: pins.Program) -> None:
    with started(golang.place(plugin)) as (parent, pid, _):
        parent.kill()
        assert eventually(lambda: not _runs(pid), 3)


def test_the_dynamic_host_says_that_it_is_there() -> None:
    with (
        started(paths.BIN / "pulumi-resource-pulumi-python") as (_, _, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        host = provider_pb2_grpc.ResourceProviderStub(channel)
        assert not host.Invoke(provider_pb2.InvokeRequest(tok=lifeline.READY), timeout=60).failures
        with pytest.raises(grpc.RpcError) as refused:
            host.Invoke(provider_pb2.InvokeRequest(tok="pulumi-python:index:other"), timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_program_that_cannot_reach_the_engine_says_so(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("")
    with (
        started(paths.BIN / "pulumi-language-python") as (_, _, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        request = language_pb2.RunRequest(
            project="scratch",
            stack="dev",
            pwd=str(tmp_path),
            monitor_address="127.0.0.1:1",
            info=language_pb2.ProgramInfo(program_directory=str(tmp_path)),
        )
        answer = language_pb2_grpc.LanguageRuntimeStub(channel).Run(request, timeout=60)
    assert "can't reach the engine at 127.0.0.1:1" in answer.error


def test_a_proxy_of_the_users_is_not_asked_for_the_way_to_the_engine(
    project: Project,
) -> None:
    names = (*environment.PROXIES, *map(str.upper, environment.PROXIES))
    project.variables |= dict.fromkeys(names, "http://127.0.0.1:9")
    project.variables["no_grpc_proxy"] = "elsewhere.example"
    project.write(
        "from pulumi import dynamic\n"
        "from providers import Fine\n"
        "class Made(dynamic.Resource): pass\n"
        "Made(Fine(), 'made', {})\n",
        "class Fine(dynamic.ResourceProvider):\n"
        "    def create(self, props):\n"
        "        return dynamic.CreateResult('fine', props)\n",
    )
    assert "2 created" in project.pulumi("up", "--yes", "--skip-preview")


def test_a_killed_engine_leaves_no_child_of_the_language_host(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("import time; print('up', flush=True); time.sleep(60)")
    with (
        started(paths.BIN / "pulumi-language-python") as (parent, host, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        request = language_pb2.RunPluginRequest(
            pwd=str(tmp_path),
            kind="resource",
            env=[f"{name}={value}" for name, value in os.environ.items()],
            info=language_pb2.ProgramInfo(program_directory=str(tmp_path)),
        )
        said = language_pb2_grpc.LanguageRuntimeStub(channel).RunPlugin(request)
        # A child's line may come in pieces: what the pipe held when the host read it.
        read = b""
        while not read.endswith(b"\n"):
            read += next(said).stdout
        assert read == b"up\n"
        left = children(host)
        assert len(left) == 1
        parent.kill()
        assert eventually(lambda: not any(map(_runs, {host, *left})), 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["pulumi-language-python", "pulumi-resource-pulumi-python"])
def test_a_host_that_is_told_to_end_does_so_at_once_and_in_silence(
    name: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [paths.BIN / name, "127.0.0.1:1"],
        env=environment.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as host:
        assert host.stdout
        try:
            assert host.stdout.readline().strip().isdigit()
            began = time.monotonic()
            host.send_signal(number)
            assert host.wait(5) == 0
            assert time.monotonic() - began < 1
            assert not host.stdout.read()
        finally:
            host.kill()


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:  # noqa: PTH123 - a path of the kernel's
            text = handle.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def pack(folder: Path, level: str) -> None:
    """Write a policy pack that minds every stack named ``scratch-dev``."""
    folder.mkdir()
    (folder / "PulumiPolicy.yaml").write_text("runtime: python\n")
    (folder / "__main__.py").write_text(f"""
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy

def minds(args, report):
    if args.name == "minded":
        report("minded: is not allowed here")

PolicyPack("pack", enforcement_level=EnforcementLevel("{level}"), policies=[
    ResourceValidationPolicy(name="no-minded", description="Nothing is minded.", validate=minds),
])
""")


def test_a_mandatory_policy_stops_a_preview(project: Project) -> None:
    pack(project.folder / "pack", "mandatory")
    project.write("import pulumi; pulumi.ComponentResource('a:b:C', 'minded')")
    said = project.pulumi("preview", "--policy-pack", "pack", fails=True)
    assert "minded: is not allowed here" in said
    project.write("import pulumi; pulumi.ComponentResource('a:b:C', 'fine')")
    project.pulumi("preview", "--policy-pack", "pack")


def test_the_questions_about_the_runtime_are_answered(project: Project) -> None:
    said = project.pulumi("about")
    assert "python" in said
    assert "pulumi" in said
    assert "nothing to install" in project.pulumi("install")


def test_what_a_program_logs_for_debugging_is_shown_to_who_asks(project: Project) -> None:
    program = 'import pulumi\npulumi.log.debug("seen by few")\npulumi.log.info("seen by all")'
    said = project.up(program)
    assert "seen by all" in said
    assert "seen by few" not in said
    assert "seen by few" in project.up(program, "--debug")
    project.variables["PULUMI_OPTION_DEBUG"] = "true"
    assert "seen by few" in project.up(program)


def test_it_is_not_even_sent_where_nobody_sees_it(project: Project) -> None:
    program = """
import pulumi
pulumi.log._log = lambda engine, severity, message, *_: print("sent:", message, flush=True)
pulumi.log.debug("to few")
pulumi.log.info("to all")
pulumi.ComponentResource("a:b:C", "c")
"""
    said = project.up(program)
    found = set(re.findall("sent: .*", said))
    assert found == {"sent: to all"}, "those that the SDK says of each resource neither"
    assert "sent: to few" in project.up(program, "-d")


def test_the_engine_goes_on_without_a_folder_for_its_logs(project: Project) -> None:
    logs = paths.HOME / "logs"
    if not logs.is_file():
        pytest.skip("this checkout's engine had its folder before `make toolchain` kept it from it")
    before = logs.read_text()
    assert "1 created" in project.up("")
    assert "log" not in project.pulumi("stack", "ls")
    assert logs.read_text() == before
