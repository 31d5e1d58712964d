"""What is put right after a killed run: locks nobody holds, half-made things, leftover plugins.

A failure here means that after a crash `pulumi up` needs an expert, or that it takes away what is
not this lab's.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from components.gates.uuids import uuid_of
from tests.unit.toolchain.checkpoints import IDENTITY, INNER_PROVIDER, OUTER, Engine, keys, resource
from toolchain.bootstrap import paths, ui
from toolchain.engine import recover, state
from toolchain.engine.child import ATTENDED
from toolchain.machine import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.libvirtd import FakeLibvirt

# Which backend, which stack ---------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "s3://bucket", "https://api.example.test", "postgres://db"])
def test_another_kind_of_backend_is_left_alone(
    url: str, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = held(backend, pid=gone())
    monkeypatch.setenv("PULUMI_BACKEND_URL", url)
    assert recover.main(["--", "up", "-s", "local"]) == 0
    assert lock.exists()


@pytest.mark.parametrize(
    ("words", "stack"),
    [
        (["up", "--stack", "a"], "a"),
        (["up", "-s", "a", "--yes"], "a"),
        (["--stack=a", "up"], "a"),
        (["up", "-s=organization/nestlab/a"], "a"),
        (["up", "--stack"], None),
        (["up", "-sa"], "a"),
        (["--cwd", ".", "up", "-s", "a"], "a"),
        (["up", "--", "--stack", "a"], "other"),
        (["-C", "/", "up", "-s", "a"], None),
        (["up", "-yfs", "a"], "a"),
        (["preview", "-js=a"], "a"),
        (["up", "-ysa"], "a"),
        (["up", "-s", "b", "--stack=a"], "a"),
        (["up", "-m", "-sb", "-s", "a"], "a"),
        (["up", "--message", "--stack=b", "-s", "a"], "a"),
        (["up", "-rys", "a", "-p8"], "a"),
        (["import", "-fstate.json", "-sa"], "a"),
        (["up", "-cs=b"], "other"),
    ],
)
def test_the_stack_on_the_command_line_is_the_one(
    words: list[str], stack: str | None, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    monkeypatch.setenv("PULUMI_STACK", "other")
    assert state.stack_of(words) == stack


@pytest.mark.parametrize(
    ("words", "given", "stack"),
    [
        (["up"], {"STACK": "a"}, "a"),
        (["up", "-s", "b"], {"STACK": "a"}, "b"),
        (["up"], {"CWD": "/"}, None),
        (["-C", ".", "up"], {"CWD": "/", "STACK": "a"}, "a"),
    ],
)
def test_the_engine_takes_options_from_variables_too(
    words: list[str],
    given: dict[str, str],
    stack: str | None,
    backend: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del backend
    monkeypatch.setenv("PULUMI_STACK", "other")
    for name, value in given.items():
        monkeypatch.setenv(f"PULUMI_OPTION_{name}", value)
    assert state.stack_of(words) == stack


@pytest.mark.parametrize(
    ("words", "for_good"),
    [
        (["destroy", "-y"], True),
        (["-v", "9", "--stack=a", "dn"], True),
        (["up", "-m", "down"], False),
        (["up", "-ym", "destroy"], False),
        (["preview", "--message", "destroy"], False),
        (["refresh", "--target", "dn"], False),
        (["destroy", "--preview-only"], False),
        (["destroy", "--preview-only=false"], True),
    ],
)
def test_a_lab_goes_for_good_by_the_command_alone(
    words: list[str], for_good: bool, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    said: list[bool] = []
    monkeypatch.setenv("PULUMI_STACK", "a")
    monkeypatch.setattr(recover, "has_pending", lambda *_: not said)
    monkeypatch.setattr(recover, "finish_pending", lambda *_, for_good: said.append(for_good))
    assert recover.main(["--", *words]) == 0
    assert said == [for_good]


def selection(project: Path) -> Path:
    """Where the engine writes which stack of ``project`` is selected (pkg/workspace/workspace.go)."""
    digest = hashlib.sha1(str(project / "Pulumi.yaml").encode()).hexdigest()  # noqa: S324 - its name
    file = paths.HOME / "workspaces" / f"nestlab-{digest}-workspace.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def test_else_the_environment_says_which_and_else_what_is_selected(
    backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    assert state.stack_of(["up"]) is None
    selection(tmp_path / "another").write_text('{"stack": "not-ours"}')
    assert state.stack_of(["up"]) is None, "a checkout that was moved, or another project"
    selected = selection(tmp_path)
    selected.write_text('{"stack": "organization/nestlab/a"}')
    assert state.stack_of(["up"]) == "a"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert state.stack_of(["up"]) == "a"
    assert state.stack_of(["-C", "..", "up"]) == "a"
    url = os.environ["PULUMI_BACKEND_URL"]
    selected.write_text(
        json.dumps({"stacks": {"file:///other": "x", url: "organization/nestlab/c"}})
    )
    assert state.stack_of(["up"]) == "c", "each backend has its own selection"
    assert state.is_selected("c", url)
    assert not state.is_selected("a", url)
    monkeypatch.setenv("PULUMI_STACK", "b")
    assert state.stack_of(["up"]) == "b"


def test_a_project_is_known_by_the_way_that_led_to_it(
    backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del backend
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("PWD", f"{tmp_path}/link")
    selection(tmp_path / "link").write_text('{"stack": "a"}')
    assert state.stack_of(["up"]) == "a"
    monkeypatch.setenv("PWD", "/")
    assert state.stack_of(["up"]) is None


@pytest.mark.parametrize("broken", ["", "{", '{"stack": ""}', "{}", "[]", '{"stacks": 3}'])
def test_a_broken_selection_is_no_selection(broken: str, backend: Path, tmp_path: Path) -> None:
    del backend
    selection(tmp_path).write_text(broken)
    assert state.stack_of(["up"]) is None


# Locks ------------------------------------------------------------------------------------------


def gone() -> int:
    """Pid of a process that has ended."""
    with subprocess.Popen(["true"]) as child:
        child.wait()
    return child.pid


def held(backend: Path, stack: str = "local", project: str = "nestlab", **other: Any) -> Path:
    folder = backend / "locks" / "organization" / project / stack
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"{uuid4()}.json"
    plain = {"pid": 1, "username": "me", "hostname": socket.gethostname()}
    lock.write_text(json.dumps(plain | other))
    lock.with_name(f"{lock.name}.attrs").write_text("{}")
    return lock


@contextmanager
def program(path: Path, *words: str, **given: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run something that waits, under the name ``path``, with variables more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name a process is known by is that of the link.
    path.symlink_to(os.path.realpath(sys.executable))
    line = [str(path), "-S", "-c", "import time; time.sleep(60)", *words]
    with subprocess.Popen(line, env={**os.environ, **given}) as child:
        try:
            # The kernel names it a moment after it says that it was started, and its words after that.
            while processes.name(child.pid) != path.name[
                :15
            ] or "time.sleep" not in processes.command_line(child.pid):
                time.sleep(0.001)
            yield child
        finally:
            child.kill()


def test_a_lock_of_an_engine_that_is_gone_is_dropped(backend: Path) -> None:
    lock = held(backend, pid=gone())
    assert state.drop_stale("local", backend) == 1
    assert not list(lock.parent.iterdir())


def test_a_lock_of_an_engine_that_works_stays(backend: Path, tmp_path: Path) -> None:
    with program(tmp_path / "bin" / "pulumi") as engine:
        lock = held(backend, pid=engine.pid)
        assert state.drop_stale("local", backend) == 0
        assert state.locks("local", backend) == [lock]
    assert lock.exists()


def test_a_pid_that_another_program_has_by_now_holds_nothing(backend: Path) -> None:
    held(backend, pid=os.getpid())
    assert state.drop_stale("local", backend) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"hostname": "elsewhere"},
        {"stack": "other"},
        {"project": "another"},
    ],
    ids=["another machine", "another stack", "another project"],
)
def test_a_lock_that_is_not_ours_to_judge_stays(other: dict[str, Any], backend: Path) -> None:
    lock = held(backend, pid=gone(), **other)
    assert state.drop_stale("local", backend) == 0
    assert lock.exists()


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"pid": "x", "hostname": 1}', "{}"])
def test_a_lock_that_can_not_be_read_stays_and_is_told(
    broken: str,
    backend: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(state, "stack_of", lambda _: "local")
    monkeypatch.setattr(state, "folder", lambda: backend)
    lock = held(backend)
    lock.write_text(broken)
    assert state.drop_stale("local", backend) == 0
    assert lock.exists()
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    said = capsys.readouterr().err
    assert (str(lock) in said and "`pulumi cancel`" in said) == ("hostname" not in broken)


# Leftover plugins -------------------------------------------------------------------------------


def plugin() -> Path:
    return paths.HOME / "plugins" / "resource-libvirt-v0.5.4" / "pulumi-resource-libvirt"


def test_a_plugin_that_outlives_its_engine_is_ended(backend: Path) -> None:
    del backend
    with program(plugin(), "127.0.0.1:1") as orphan:
        recover.wait_for_orphans()
        assert orphan.wait(5) < 0


def test_a_plugin_whose_engine_works_is_not_touched(backend: Path, tmp_path: Path) -> None:
    del backend
    engine = tmp_path / "pulumi-engine"
    engine.symlink_to(os.path.realpath(sys.executable))
    script = (
        "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]);"
        "print(child.pid, flush=True); sys.stdin.read(); child.kill(); child.wait()"
    )
    plugin().parent.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "/bin/sleep", plugin())
    with subprocess.Popen(
        [engine, "-c", script, plugin(), "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout
        pid = int(running.stdout.readline())
        try:
            recover.wait_for_orphans()
            assert processes.identify(pid), "another stack's deployment was broken"
        finally:
            running.communicate()


def test_somebody_who_reads_a_log_is_not_ended(backend: Path, tmp_path: Path) -> None:
    del backend
    began = time.monotonic()
    with program(tmp_path / "less", f"{paths.HOME}/logs/local.log") as reader:
        recover.wait_for_orphans()
        assert reader.poll() is None
    assert time.monotonic() - began < 5


# Half-made things -------------------------------------------------------------------------------


def test_a_stack_with_nothing_pending_is_not_even_locked(
    engine: Engine, outer: FakeLibvirt, backend: Path
) -> None:
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not engine.touched
    assert not (backend / "locks").exists()
    assert not outer.said


def test_a_stack_that_somebody_works_on_is_not_touched(
    engine: Engine, backend: Path, tmp_path: Path
) -> None:
    engine.pending = [{"resource": resource("domain", "web", name="lab-web"), "type": "creating"}]
    engine.save()
    with program(tmp_path / "pulumi") as running:
        held(backend, pid=running.pid)
        assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not engine.touched


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("state", ["running", "shut off"])
def test_a_domain_that_was_being_made_goes_if_it_is_ours(
    ours: bool, state: str, engine: Engine, outer: FakeLibvirt
) -> None:
    uuid = uuid_of(IDENTITY, "domain", "lab-web") if ours else str(uuid4())
    outer.domain("lab-web", state, uuid)
    engine.recovered(("creating", resource("domain", "web-domain", name="lab-web")))
    assert ("lab-web" in outer.domains) is not ours


@pytest.mark.parametrize("ours", [True, False])
def test_a_network_that_was_being_made_goes_if_it_is_ours(
    ours: bool, engine: Engine, outer: FakeLibvirt
) -> None:
    outer.network("lab-net", uuid=uuid_of(IDENTITY, "network", "lab-net") if ours else str(uuid4()))
    engine.recovered(("creating", resource("network", "net-network", name="lab-net")))
    assert ("lab-net" in outer.networks) is not ours


@pytest.mark.parametrize("ours", [True, False])
def test_a_pool_that_was_being_made_goes_if_it_is_ours_and_takes_no_file_with_it(
    ours: bool, engine: Engine, outer: FakeLibvirt
) -> None:
    outer.pools["nestlab-lab"] = uuid_of(IDENTITY, "pool", "nestlab-lab") if ours else str(uuid4())
    outer.volumes["nestlab-lab"] = ["my-vm.qcow2", "thesis.txt"]
    engine.resources = engine.resources[:-1]
    engine.recovered(("creating", resource("pool", "host-pool", name="nestlab-lab")))
    assert ("nestlab-lab" in outer.pools) is not ours
    assert outer.volumes["nestlab-lab"] == ["my-vm.qcow2", "thesis.txt"]


@pytest.mark.parametrize("kind", ["volume", "seed"])
@pytest.mark.parametrize("pool", ["ours", "a stranger's", "not in the state"])
def test_a_volume_that_was_being_made_goes_if_its_pool_is_ours(
    pool: str, kind: str, engine: Engine, outer: FakeLibvirt
) -> None:
    ours = uuid_of(IDENTITY, "pool", "nestlab-lab")
    outer.pools["nestlab-lab"] = ours if pool != "a stranger's" else str(uuid4())
    outer.volumes["nestlab-lab"] = ["lab-web.qcow2", "other.qcow2"]
    if pool == "not in the state":
        engine.resources = engine.resources[:-1]
    half = resource(kind, "web-disk", name="lab-web.qcow2", pool="nestlab-lab")
    engine.recovered(("creating", half))
    left = ["other.qcow2"] if pool == "ours" else ["lab-web.qcow2", "other.qcow2"]
    assert outer.volumes["nestlab-lab"] == left


def test_what_was_being_made_and_is_not_there_is_forgotten(
    engine: Engine, outer: FakeLibvirt
) -> None:
    before = list(engine.resources)
    after = engine.recovered(
        ("creating", resource("domain", "web-domain", name="lab-web")),
        ("creating", resource("gate", "web-gate", name="web-gate")),
        ("updating", resource("network", "net-network", name="lab-net")),
    )
    assert after["resources"] == before
    assert not outer.commands()


@pytest.mark.parametrize("before", [False, True], ids=["now", "state of an older release"])
@pytest.mark.parametrize("key", ["one-web-domain", "web"], ids=["ours", "another"])
def test_inside_a_nested_host_its_logical_name_makes_a_thing_ours(
    key: str, before: bool, engine: Engine, outer: FakeLibvirt, inner: FakeLibvirt
) -> None:
    keys(paths.KEYS)
    if before:
        provider = engine.resources[2]["inputs"]
        provider["uri"] = provider["uri"].replace("$NESTLAB_KEYS", str(paths.KEYS))
    inner.domain("web", uuid=uuid_of(IDENTITY, "domain", key))
    engine.recovered(("creating", resource("domain", "one-web-domain", INNER_PROVIDER, name="web")))
    assert ("web" in inner.domains) is (key == "web")
    assert not outer.said


def test_a_nested_host_without_its_keys_or_that_is_off_stops_nothing(
    engine: Engine, inner: FakeLibvirt, outer: FakeLibvirt, capsys: pytest.CaptureFixture[str]
) -> None:
    half = resource("domain", "one-web-domain", INNER_PROVIDER, name="web")
    outer.domain("lab-db", uuid=uuid_of(IDENTITY, "domain", "lab-db"))
    other = resource("domain", "db-domain", name="lab-db")
    left = engine.recovered(("creating", half), ("creating", other), whole=False)
    assert [one["resource"] for one in left["pending_operations"]] == [half], "tried again later"
    assert "one-web-domain: 10.77.0.5: its keys are not there" in capsys.readouterr().err
    keys(paths.KEYS)
    inner.down = True
    engine.recovered(("creating", half), command="destroy")
    assert "one-web-domain: libvirt at one: " in capsys.readouterr().err
    assert "lab-db" not in outer.domains, "the rest is put right all the same"


def test_an_outer_host_with_the_users_own_key_is_the_outer_host(
    engine: Engine, outer: FakeLibvirt
) -> None:
    uri = "qemu+ssh://lab@server/system?keyfile=/home/me/.ssh/id&knownhosts=/home/me/.ssh/known"
    engine.resources[1]["inputs"]["uri"] = uri
    outer.domain("lab-web", uuid=uuid_of(IDENTITY, "domain", "lab-web"))
    engine.recovered(("creating", resource("domain", "web-domain", name="lab-web")))
    assert not outer.domains
    # The provider's parameters, and what has virsh's ssh do as they say.
    assert outer.said
    assert all(words[words.index("-c") + 1].startswith(f"{uri}&") for words in outer.said)


def test_what_was_being_deleted_and_is_gone_is_forgotten_everywhere(
    engine: Engine, outer: FakeLibvirt
) -> None:
    domain = resource("domain", "web-domain", name="lab-web")
    keep = f"{OUTER}::keep"
    gate = {
        **resource("gate", "web-gate", name="web-gate"),
        "dependencies": [domain["urn"], keep],
        "propertyDependencies": {"domain": [domain["urn"]], "uri": [keep], "none": None},
        "deletedWith": domain["urn"],
        "replaceWith": [domain["urn"], keep],
    }
    engine.resources += [domain, gate]
    after = engine.recovered(("deleting", domain))
    urns = [one["urn"] for one in after["resources"]]
    assert domain["urn"] not in urns
    assert domain["urn"] not in json.dumps(after), "the engine refuses a state with a loose end"
    [left] = [one for one in after["resources"] if one["urn"] == gate["urn"]]
    assert left["dependencies"] == [keep]
    assert left["propertyDependencies"] == {"domain": [], "uri": [keep], "none": []}
    assert left["replaceWith"] == [keep]
    assert "deletedWith" not in left
    assert not outer.commands()


@pytest.mark.parametrize("kind", ["domain", "network"])
def test_what_was_being_deleted_and_is_still_there_stays_known(
    kind: str, engine: Engine, outer: FakeLibvirt
) -> None:
    outer.domain("lab-x", uuid=uuid_of(IDENTITY, "domain", "lab-x"))
    outer.network("lab-x", uuid=uuid_of(IDENTITY, "network", "lab-x"))
    half = resource(kind, "x", name="lab-x")
    engine.resources.append(half)
    after = engine.recovered(("deleting", half))
    assert half["urn"] in [one["urn"] for one in after["resources"]], "nobody would delete it"
    assert outer.domains
    assert outer.networks


def test_a_state_without_an_identity_or_any_resource_can_be_put_right(
    engine: Engine, outer: FakeLibvirt
) -> None:
    outer.domain("lab-web", uuid=uuid_of(IDENTITY, "domain", "lab-web"))
    engine.resources = engine.resources[1:]
    half = resource("domain", "web-domain", name="lab-web")
    engine.recovered(("creating", half))
    engine.resources = []
    engine.recovered(("creating", half))
    assert outer.domains, "without the identity nothing is known to be ours"


@pytest.mark.parametrize("kind", ["creating", "deleting"])
def test_what_can_not_be_reached_stays_pending_until_it_can(
    kind: str, engine: Engine, inner: FakeLibvirt
) -> None:
    made = resource("domain", "web", INNER_PROVIDER, name="web")
    engine.resources += [made] if kind == "deleting" else []
    after = engine.recovered((kind, made), whole=False)
    assert [one["type"] for one in after["pending_operations"]] == [kind], "its keys are not there"
    folder = paths.KEYS / "local" / "one"
    folder.mkdir(parents=True)
    (folder / "id_ed25519").write_text("key")
    (folder / "known_hosts").write_text("10.77.0.5 ssh-ed25519 AAAA")
    uuid = uuid_of(IDENTITY, "domain", "web")
    inner.domain("web", uuid=uuid) if kind == "creating" else None
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not inner.domains
    assert not state.read(engine.file).pending


def test_what_was_made_since_is_left_alone(engine: Engine, outer: FakeLibvirt) -> None:
    """The engine keeps a creation that was never put right, and has made the thing since then."""
    web = resource("domain", "web-domain", name="lab-web")
    engine.resources += [web]
    outer.domain("lab-web", uuid=uuid_of(IDENTITY, "domain", "lab-web"))
    engine.recovered(("creating", web))
    assert "lab-web" in outer.domains, "somebody's guest was thrown away"
    newer = resource("domain", "web-domain", name="lab-web-2")
    outer.domain("lab-web-2", uuid=uuid_of(IDENTITY, "domain", "lab-web-2"))
    engine.recovered(("creating", newer))
    assert set(outer.domains) == {"lab-web"}, "what was to replace it is half-made"


# The file ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("outer")
@pytest.mark.parametrize("form", [bytes, gzip.compress])
def test_the_state_keeps_its_form_and_what_it_was_is_kept(
    form: Callable[[bytes], bytes], engine: Engine
) -> None:
    engine.form = form
    if form is gzip.compress:
        engine.file.unlink()
        engine.file = engine.file.with_name("local.json.gz")
    engine.recovered(("creating", resource("domain", "web-domain", name="lab-web")))
    raw = engine.file.read_bytes()
    assert json.loads(gzip.decompress(raw) if form is gzip.compress else raw)["version"] == 3
    assert Path(f"{engine.file}.bak").read_bytes() == engine.written
    assert not Path(f"{engine.file}.attrs").exists(), "the checksum in it is another text's"
    assert engine.file.stat().st_mode & 0o077 == 0 or engine.file.stat().st_mode & 0o777 == 0o600
    names = {each.name for each in engine.backend.iterdir()}
    assert names == {"stacks", "locks"}, "half-written files are left"


@pytest.mark.usefixtures("outer")
def test_a_state_that_python_can_not_unpack_is_read_by_the_engine_and_becomes_plain(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = resource("domain", "web-domain", name="lab-web")
    deployment = {
        "resources": engine.resources,
        "pending_operations": [{"resource": half, "type": "creating"}],
    }
    told = {"version": 4, "features": ["x"], "deployment": deployment}
    monkeypatch.setattr(recover, "_pulumi", lambda *_: json.dumps(told))
    packed = engine.file.with_name("local.json.zst")
    engine.file.rename(packed)
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not packed.exists()
    assert Path(f"{packed}.bak").exists()
    found = state.read(engine.file)
    assert found.wrapped["version"] == 4
    assert found.wrapped["features"] == ["x"]
    assert found.wrapped["checkpoint"]["stack"] == "organization/nestlab/local"
    assert found.latest["resources"] == engine.resources
    assert not found.pending


@pytest.mark.usefixtures("outer")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", gzip.compress(b"{}", mtime=0)[:-4]])
def test_a_state_that_is_none_is_left_to_the_engine(content: bytes, engine: Engine) -> None:
    engine.file.write_bytes(content)
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert engine.file.read_bytes() == content


# Under the lock ---------------------------------------------------------------------------------


def test_while_it_works_the_stack_is_locked_as_an_engine_locks_it(
    engine: Engine, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def look(*_: Any) -> bool:
        [lock] = state.locks("local", backend)
        assert lock.parent == backend / "locks" / "organization" / "nestlab" / "local"
        seen.append(json.loads(lock.read_text()))
        assert [each.name for each in lock.parent.iterdir()] == [lock.name], (
            "engines read each file"
        )
        return True

    monkeypatch.setattr(recover, "_finish", look)
    engine.recovered(("creating", resource("domain", "web-domain", name="lab-web")))
    [content] = seen
    assert content["pid"] == os.getpid()
    assert content["hostname"] == socket.gethostname()
    assert set(content) == {"pid", "username", "hostname", "timestamp"}, "lock.go: lockContent"


def test_a_recovery_that_fails_leaves_no_lock(
    engine: Engine, backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(recover, "_finish", fail)
    engine.pending = [{"resource": resource("domain", "web", name="lab-web"), "type": "creating"}]
    engine.save()
    with pytest.raises(KeyboardInterrupt):
        recover.main(["--", "up", "--stack", "local"])
    assert not state.locks("local", backend)
    assert not engine.touched


def test_what_an_engine_did_meanwhile_counts(
    engine: Engine, outer: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = resource("domain", "web-domain", name="lab-web")
    outer.domain("lab-web", uuid=uuid_of(IDENTITY, "domain", "lab-web"))
    engine.pending = [{"resource": half, "type": "creating"}]
    engine.save()
    real = state.held

    @contextmanager
    def late(stack: str, folder: Path) -> Iterator[None]:
        engine.resources, engine.pending = [], []
        engine.save()  # a destroy came and went since the state was looked at
        with real(stack, folder):
            yield

    monkeypatch.setattr(state, "held", late)
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not engine.touched
    assert "lab-web" in outer.domains


def test_two_that_come_at_the_same_moment_both_step_back(
    backend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename
    came: list[Path] = []

    def rename(self: Path, target: Path) -> Path:
        if not came:
            came.append(held(backend))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(state.Locked), state.held("local", backend):
        pytest.fail("two hold it")
    assert state.locks("local", backend) == came


@pytest.mark.parametrize("who", ["another recovery", "a hidden process"])
def test_a_lock_whose_holder_may_be_at_work_stays(
    who: str, backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program(tmp_path / "python3", "-m", "toolchain.engine.recover") as working:
        held(backend, pid=working.pid)
        if who == "a hidden process":
            # As /proc looks to others under the mount option hidepid=2.
            monkeypatch.setattr(processes, "PROC", tmp_path / "nothing")
        assert state.drop_stale("local", backend) == 0


def test_a_recovery_that_outlived_its_shell_is_waited_for_and_what_it_left_is_put_right(
    engine: Engine,
    outer: FakeLibvirt,
    backend: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del outer
    engine.pending = [{"resource": resource("domain", "web", name="lab-web"), "type": "creating"}]
    engine.save()
    monkeypatch.setattr(ui, "QUIET_S", 0)
    with program(tmp_path / "python3", "-m", "toolchain.engine.recover") as working:
        held(backend, pid=working.pid)

        def ends(_: float) -> None:
            assert not engine.touched, "worked beside the other one"
            working.kill()
            working.wait()

        monkeypatch.setattr(time, "sleep", ends)
        assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert f"waiting for process {working.pid}, which puts right" in capsys.readouterr().err
    assert not state.locks("local", backend)
    assert not state.read(engine.file).pending


@pytest.mark.parametrize("command", ["up", "destroy", "refresh", "preview of make's"])
def test_an_engine_that_a_killed_make_left_at_work_is_waited_for(
    command: str,
    backend: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if command.startswith("preview"):
        monkeypatch.setenv(ATTENDED, "yes")
    monkeypatch.setattr(ui, "QUIET_S", 0.1)
    with program(tmp_path / "pulumi", **{ATTENDED: "yes"}) as running:
        lock = held(backend, pid=running.pid)
        threading.Timer(0.6, running.kill).start()
        threading.Timer(1.0, running.wait).start()
        assert recover.main(["--", command.split(maxsplit=1)[0], "--stack", "local"]) == 0
    assert not lock.exists(), "nobody holds it any more"
    assert f"waiting for process {running.pid}, which works on local" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "mark"), [("preview", "yes"), ("up", "no")])
def test_nobody_waits_to_look_or_for_an_engine_that_somebody_looks_after(
    command: str, mark: str, backend: Path, tmp_path: Path
) -> None:
    with program(tmp_path / "pulumi", **{ATTENDED: mark}) as running:
        lock = held(backend, pid=running.pid)
        assert recover.main(["--", command, "--stack", "local"]) == 0
        assert running.poll() is None
    assert lock.exists()


def test_two_recoveries_that_both_stepped_back_leave_nothing_pending(
    engine: Engine, outer: FakeLibvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    del outer
    engine.pending = [{"resource": resource("domain", "web", name="lab-web"), "type": "creating"}]
    engine.save()
    real, refused = state.held, [1]

    @contextmanager
    def once(stack: str, folder: Path) -> Iterator[None]:
        if refused.pop() if refused else None:
            raise state.Locked(stack)
        with real(stack, folder):
            yield

    monkeypatch.setattr(state, "held", once)
    assert recover.main(["--", "up", "--stack", "local"]) == 0
    assert not state.read(engine.file).pending


def test_who_waits_for_another_recovery_can_be_interrupted(
    engine: Engine, backend: Path, tmp_path: Path
) -> None:
    own = Path(state.__file__).parents[2]
    (own / "Pulumi.yaml").resolve(strict=True)
    with program(tmp_path / "python3", "-m", "toolchain.engine.recover") as working:
        lock = held(backend, pid=working.pid)
        command = [
            sys.executable,
            "-P",
            "-m",
            "toolchain.engine.recover",
            "--",
            "up",
            "-s",
            "local",
        ]
        given = os.environ | {"PYTHONPATH": str(own), "NESTLAB_ROOT": str(own)}
        with subprocess.Popen(
            command, cwd=own, env=given, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr
            assert "waiting for process" in waiting.stderr.readline()
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(60) == 130
            assert "Traceback" not in waiting.stderr.read()
    assert lock.exists()
    assert not engine.touched


def test_a_holder_that_nobody_reaps_holds_nothing(backend: Path, tmp_path: Path) -> None:
    with program(tmp_path / "pulumi") as engine:
        held(backend, pid=engine.pid)
        engine.kill()
        while processes.identify(engine.pid):
            time.sleep(0.001)
        assert state.drop_stale("local", backend) == 1


# Guests of Proxmox VE ---------------------------------------------------------------------------

GUESTS = {
    "qemu": "proxmoxve:index/vmLegacy:VmLegacy",
    "lxc": "proxmoxve:index/containerLegacy:ContainerLegacy",
}


def guest(kind: str, number: int, node: str = "pve1") -> dict[str, Any]:
    token = GUESTS[kind]
    inputs = {"vmId": number, "nodeName": node, "name": "web"}
    return {"urn": f"{OUTER}${token}::web-vm", "type": token, "inputs": inputs, "id": str(number)}


def slot(number: float, node: str = "pve1", logical: str = "web-slot") -> dict[str, Any]:
    given = {"vmid": number, "node": node, "kind": "qemu"}
    return {
        "urn": f"{OUTER}${recover.SLOT}::{logical}",
        "type": recover.SLOT,
        "inputs": given,
        "outputs": {**given, "left": False},
    }


@pytest.mark.parametrize("kind", GUESTS)
def test_the_keeper_of_its_number_is_told_of_a_guest_that_was_being_made(
    kind: str, engine: Engine
) -> None:
    others = [slot(4712, logical="other"), slot(4711, "pve2", "elsewhere")]
    engine.resources += [slot(4711.0), *others, {**slot(1), "inputs": {}}]
    after = engine.recovered(("creating", guest(kind, 4711)))
    left = [one["urn"] for one in after["resources"] if (one.get("outputs") or {}).get("left")]
    assert left == [slot(4711)["urn"]]


def test_a_guest_that_was_being_deleted_is_forgotten_and_its_keeper_told(engine: Engine) -> None:
    half = guest("qemu", 4711)
    gate = {**resource("gate", "web-gate", name="web-gate"), "dependencies": [half["urn"]]}
    engine.resources += [slot(4711), half, gate]
    after = engine.recovered(("deleting", half), command="destroy")
    assert half["urn"] not in json.dumps(after), "the provider would fail on what is not there"
    [kept] = [one for one in after["resources"] if one["type"] == recover.SLOT]
    assert kept["outputs"]["left"] is True


def test_a_guest_of_whose_number_there_is_no_keeper_stays_known(engine: Engine) -> None:
    half = guest("qemu", 4711)
    engine.resources += [half]
    after = engine.recovered(("deleting", half), ("updating", half))
    assert half["urn"] in [one["urn"] for one in after["resources"]]


def test_an_update_that_was_cut_off_tells_no_keeper(engine: Engine) -> None:
    engine.resources += [slot(4711)]
    after = engine.recovered(("updating", guest("qemu", 4711)))
    assert not any((one.get("outputs") or {}).get("left") for one in after["resources"])
