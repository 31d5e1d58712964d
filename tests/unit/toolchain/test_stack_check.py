"""A stack is checked whole before anything is built or installed for it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from cli import app
from components import settings
from toolchain import stack_check
from toolchain.bootstrap import paths, ui
from toolchain.doctor import kvm
from toolchain.engine import build
from toolchain.engine.marker import Marker
from toolchain.machine import packages
from toolchain.stack_check import read

GOOD = """\
config:
  nestlab:lab:
    name: local
    networks:
      lab: {mode: nat, subnet: 10.77.0.0/24}
    hypervisors:
      kvm1: {kind: kvm, memory_mib: 4096, network: lab}
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the stack ``local`` in a checkout of its own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "LOCAL", tmp_path / ".nestlab")
    for name in ("__main__.py", "components"):
        (tmp_path / name).touch()
    file = tmp_path / "stacks" / "Pulumi.local.yaml"
    file.parent.mkdir()
    file.write_text(GOOD)
    return file


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of the set-up was begun."""
    begun: list[str] = []

    def began(_: list[str]) -> int:
        begun.append("toolchain")
        raise ui.Problem("the set-up began")

    monkeypatch.setattr(build, "main", began)
    return begun


def up() -> None:
    app.group.main(args=["up"], standalone_mode=False)


def test_a_typo_is_told_before_anything_is_built(stack: Path, reached: list[str]) -> None:
    stack.write_text(GOOD.replace("memory_mib", "memory_mb"))
    with pytest.raises(ui.Problem, match=r"lab\.hypervisors\.kvm1\.memory_mb: .*'memory_mib'"):
        up()
    assert not reached
    stack.write_text(GOOD)
    with pytest.raises(ui.Problem, match="the set-up began"):
        up()


def test_it_is_told_in_the_words_of_a_preview(stack: Path, tmp_path: Path) -> None:
    stack.write_text(
        GOOD.replace("kind: kvm", "kind: kvn").replace("network: lab", "network: labb")
    )
    facts = {"version": 1, "accelerator": "tcg", "cores": 2, "memory_mib": 9000}
    (tmp_path / ".nestlab").mkdir()
    (tmp_path / ".nestlab" / "host.json").write_text(json.dumps(facts))
    with pytest.raises(ui.Problem) as here:
        stack_check.checked("local")
    data = read(stack.read_bytes(), "f")["nestlab:lab"]
    with pytest.raises(pulumi.RunError) as there:
        settings.load(data, tmp_path, "local", preview=True)
    assert str(here.value) == str(there.value)


def test_what_was_deployed_as_it_stands_is_not_read_again(
    stack: Path, reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preview checks it, and what it takes to check it takes a second to import."""
    del stack
    from toolchain import lab  # noqa: PLC0415

    marker = Marker("local")
    marker.file.parent.mkdir(parents=True)
    marker.file.write_text(marker.now)
    monkeypatch.setattr(lab, "_checked", lambda _: pytest.fail("it was read"))
    with pytest.raises(ui.Problem, match="the set-up began"):
        up()
    assert reached


def test_files_that_the_set_ups_packages_bring_may_come_later(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = ["ipxe"]
    monkeypatch.setattr(packages, "missing", lambda _: lacking)
    stack.write_text(f"{GOOD}    media: {{m: {{path: /usr/lib/no/such.iso}}}}\n")
    assert stack_check.checked("local") == ["kvm"]
    lacking.clear()
    with pytest.raises(ui.Problem, match=r"lab\.media\.m\.path.*/usr/lib/no/such\.iso"):
        stack_check.checked("local")
    lacking.append("ipxe")
    stack.write_text(f"{GOOD}    media: {{m: {{path: no/such.iso}}}}\n")
    with pytest.raises(ui.Problem, match=r"lab\.media\.m\.path"):
        stack_check.checked("local")


def test_a_password_in_clear_is_told_at_once(stack: Path) -> None:
    stack.write_text(f"{GOOD}  nestlab:hostPassword: hunter2\n")
    with pytest.raises(ui.Problem, match="in clear") as told:
        stack_check.checked("local")
    assert "hunter2" not in str(told.value)
    stack.write_text(f"{GOOD}  nestlab:hostPassword: {{secure: v1:abc}}\n")
    assert stack_check.checked("local") == ["kvm"]


def test_secrets_in_a_lab_are_left_to_who_can_read_them(stack: Path) -> None:
    stack.write_text(GOOD.replace("name: local", "name: {secure: 'v1:abc'}"))
    assert stack_check.checked("local") == []


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (b"config: [", "can't be read"),
        (b"config: {a: *b}", "can't be read"),
        (b"\xff\xfe", "can't be read|no mapping"),
        (b"x: 1", "no mapping `config`"),
        (b"", "no mapping `config`"),
        (b"[" * 5000, "can't be read"),
    ],
)
def test_what_is_no_stack_file_is_told_as_that(told: bytes, says: str) -> None:
    with pytest.raises(ui.Problem, match=says):
        read(told, "stacks/Pulumi.x.yaml")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("config: {}\n", "`config` has nothing: write it there"),
        (
            GOOD.replace("nestlab:lab", "nestlab:lb"),
            "`config` has nestlab:lb: did you mean it by 'nestlab:lb'?",
        ),
        ("config: {nestlab:lab: }\n", "write the lab's fields there, indented"),
    ],
)
def test_a_stack_without_a_lab_is_told_as_that(stack: Path, told: str, says: str) -> None:
    stack.write_text(told)
    with pytest.raises(ui.Problem) as refused:
        stack_check.checked("local")
    assert re.match(
        r"nestlab:lab (is not|has nothing) .*stacks/Pulumi\.local\.yaml", str(refused.value)
    )
    assert str(refused.value).endswith(says)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            "config:\n  a: 1\n  b: 2\n  a: 3\n",
            "f:4:3: 'a' given, but line 2 has it already: rename",
        ),
        ("config: {a: {b: 1, b: 2}}\n", "f:1:20: 'b' given, but line 1 has it already"),
        ("config: {1: a, '1': b}\n", "f:1:16: '1' given, but line 1 has it already"),
        ("config:\n\ta: 1\n", "f:2:1: a tab given, but YAML is indented with blanks"),
        ("config:\n  a: 1\n   b: 2\n", "f:3:5: this can't be read as YAML: mapping values"),
        ("config: {a: !!bool x}\n", "f:1:13: .*: what stands there is no bool, which it is said"),
        ("config:\n  a: !!timestamp x\n", "f:2:6: .*is no timestamp"),
        ("config: {a: !!float ''}\n", "f:1:13: .*is no float"),
        ("config: {a: !!int x}\n", "f:1:13: .*is no int"),
        ("a:\n  - 1\n b: 2\n", "f:3:2: this can't be read as YAML, while parsing .* of line 1: "),
    ],
)
def test_what_the_engine_would_not_read_is_told_with_its_line(told: str, says: str) -> None:
    with pytest.raises(ui.Problem, match=says):
        read(told.encode(), "f")


def test_a_machine_that_was_copied_and_not_renamed_is_told_before_the_set_up(
    stack: Path, reached: list[str]
) -> None:
    stack.write_text(f"{GOOD}      kvm1: {{kind: kvm, memory_mib: 8192, network: lab}}\n")
    with pytest.raises(ui.Problem, match=r"Pulumi\.local\.yaml:8:7: 'kvm1' given, but line 7 has"):
        up()
    assert not reached


def test_merged_keys_are_not_given_twice() -> None:
    """A merge's own key comes first; a merged mapping is no second one."""
    told = b"config: {b: &b {x: 1}, a: &a {<<: *b, x: 2}, c: {<<: [*a, *b]}}"
    assert read(told, "f") == {"b": {"x": 1}, "a": {"x": 2}, "c": {"x": 2}}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("10:20", "10:20"),
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("True", True),
        ("~", None),
        ("", None),
        ("0x10", 16),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("0b11", 3),
        ("-1_000", -1000),
        ("18446744073709551616", 18446744073709551616.0),
        (f"0x{'f' * 6000}", f"0x{'f' * 6000}"),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2026-11-27", "2026-11-27"),
        ("'12'", "12"),
        ("lab", "lab"),
    ],
)
def test_plain_words_mean_what_they_mean_to_the_engine(word: str, value: Any) -> None:
    """Values of go-yaml 3, resolve_test and decode_test; `tests/double` asks the engine itself."""
    found = read(f"config:\n  a: {word}\n".encode(), "f")["a"]
    assert json.dumps(found) == json.dumps(value)


def test_a_folder_for_disks_that_qemu_cant_get_into_is_refused_before_the_set_up(
    stack: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    reached: list[str],
) -> None:
    # Not in pytest's folder, which lets nobody in itself.
    base = Path(tempfile.mkdtemp(prefix="nestlab-test-"))
    request.addfinalizer(lambda: shutil.rmtree(base))
    closed = base / "home of mine"
    (closed / "disks").mkdir(parents=True)
    for folder in (base, closed / "disks"):
        folder.chmod(0o711)
    told = yaml.safe_load(GOOD)
    told["config"]["nestlab:lab"]["host"] = {"pool_path": str(closed / "disks")}
    stack.write_text(yaml.safe_dump(told))
    somebody = kvm.User("libvirt-qemu", 64055, 64055, frozenset({64055}))
    monkeypatch.setattr(kvm, "qemu_user", lambda: somebody)
    closed.chmod(0o700)
    with pytest.raises(ui.Problem, match=r"^lab\.host\.pool_path: ") as refused:
        up()
    assert f"{closed} lets nobody in but its owner" in str(refused.value)
    assert f"setfacl -m u:libvirt-qemu:x '{closed}'" in str(refused.value)
    assert reached == []
    closed.chmod(0o711)
    with pytest.raises(ui.Problem, match="the set-up began"):
        up()


@pytest.mark.parametrize("alias", ["[%s]", "{<<: [%s]}"])
def test_aliases_that_stand_for_more_than_a_machine_holds_are_refused_unread(alias: str) -> None:
    lines = ["v0: &v0 {name: a}"]
    lines += [f"v{n + 1}: &v{n + 1} {alias % ','.join([f'*v{n}'] * 9)}" for n in range(30)]
    for text in ("\n".join(lines), "config: {nestlab:lab: &a {x: *a}}"):
        with pytest.raises(ui.Problem, match=r"x.yaml .*more than \d+ values"):
            stack_check.read(text.encode(), "x.yaml")


def test_an_alias_that_stands_for_little_is_read() -> None:
    text = b"config: {a: &a {k: 1}, b: {<<: *a, l: 2}, c: [*a, *a]}"
    told = {"a": {"k": 1}, "b": {"k": 1, "l": 2}, "c": [{"k": 1}, {"k": 1}]}
    assert stack_check.read(text, "x.yaml") == told
