"""What stands for ``pulumi``: a wrong turn here and no guest is reached, or a signal gets lost."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.unit.toolchain.test_environment import place
from toolchain import environment, paths, wrapper

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = '#!/bin/sh\necho "engine $$ $*"\n'
RECOVER = '#!/bin/sh\necho "recover $NESTLAB_RECOVERING $*"; exit "${RECOVERED:-0}"\n'
STUBS = {
    "ip": '#!/bin/sh\necho "ip $*"\n',
    "id": '#!/bin/sh\necho "${AS:-0}"\n',
    "sudo": '#!/bin/sh\n[ "$*" = "-n true" ] && exit "${PASSWORD:-0}"\necho "sudo $*"\n',
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a wrapper around an engine that tells how it was called."""
    root = tmp_path / "a lab"
    place(root, monkeypatch)
    monkeypatch.setattr(wrapper, "NAMESPACES", tmp_path / "netns")
    for folder in (paths.BIN, paths.VENV / "bin", root / "toolchain", tmp_path / "stubs"):
        folder.mkdir(parents=True)
    (tmp_path / "netns").mkdir()
    scripts = {tmp_path / "stubs" / name: text for name, text in STUBS.items()}
    scripts[tmp_path / "engine"] = ENGINE
    scripts[paths.VENV / "bin" / "python3"] = RECOVER
    scripts[paths.BIN / "pulumi"] = wrapper.pulumi(tmp_path / "engine")
    for file, text in scripts.items():
        file.write_text(text)
        file.chmod(0o755)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    return root


def pulumi(checkout: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    search = f"{checkout.parent / 'stubs'}:{os.environ['PATH']}"
    return subprocess.run(
        [paths.BIN / "pulumi", *words],
        env={"PATH": search, **given},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_becomes_the_engine_so_that_signals_reach_it(checkout: Path) -> None:
    with subprocess.Popen(
        [paths.BIN / "pulumi", "version", "a b"], stdout=subprocess.PIPE, text=True
    ) as running:
        said, _ = running.communicate(timeout=10)
    assert said == f"engine {running.pid} version a b\n", checkout


def test_an_empty_namespace_is_the_machines_own_network(checkout: Path) -> None:
    paths.NETNS.write_text("")
    assert pulumi(checkout, "version").stdout.startswith("engine")


def test_root_enters_the_namespace_of_libvirt(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").touch()
    done = pulumi(checkout, "up", "--yes")
    assert done.stdout == f"ip netns exec labs {paths.BIN}/pulumi up --yes\n"


def test_who_is_inside_already_goes_on(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").symlink_to("/proc/self/ns/net")
    assert pulumi(checkout, "up").stdout.startswith("engine")


def test_others_enter_by_sudo_and_stay_who_they_are(checkout: Path) -> None:
    paths.NETNS.write_text("labs\n")
    (wrapper.NAMESPACES / "labs").touch()
    words = pulumi(checkout, "up", AS="1000").stdout
    assert words.startswith("sudo -n --preserve-env ip netns exec labs setpriv --reuid 1000 ")
    assert words.endswith(f"-- {paths.BIN}/pulumi up\n")


def test_who_may_not_enter_is_told_what_to_do(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    (wrapper.NAMESPACES / "labs").touch()
    done = pulumi(checkout, "up", AS="1000", PASSWORD="1")
    assert done.returncode == 1
    assert "sudo -v" in done.stderr
    assert not done.stdout


def test_a_namespace_that_is_gone_is_named_with_its_remedy(checkout: Path) -> None:
    paths.NETNS.write_text("labs")
    done = pulumi(checkout, "up")
    assert done.returncode == 1
    assert "labs" in done.stderr
    assert "make host" in done.stderr


def killed(checkout: Path, *, left: str = "lock") -> None:
    """Leave what an engine leaves when it is killed."""
    del checkout
    state = paths.STATE / ".pulumi"
    file = {
        "lock": state / "locks" / "organization" / "nestlab" / "local" / "0f.json",
        "pending": state / "stacks" / "nestlab" / "local.json",
    }[left]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"pending_operations": []}' if left == "pending" else "{}")


def asks(checkout: Path, *words: str, **given: str) -> bool:
    """Return whether ``toolchain.recover`` was run before the engine."""
    killed(checkout)
    lines = pulumi(checkout, *words, **given).stdout.splitlines()
    assert lines[-1].startswith("engine")
    if len(lines) > 1:
        assert lines[0] == f"recover yes -P -m toolchain.recover -- {' '.join(words)}"
    return len(lines) > 1


@pytest.mark.parametrize(
    "words",
    [
        ("up",), ("update", "--yes"), ("preview",), ("pre",), ("destroy", "-y"), ("down",), ("dn",),
        ("refresh",), ("import", "a", "b"), ("-C", "folder", "up"), ("--color", "never", "up"),
        ("-v", "9", "--logtostderr", "up", "--stack", "local"), ("--cwd=folder", "up"),
    ],
)  # fmt: skip
def test_what_changes_a_stack_first_puts_a_killed_run_right(
    checkout: Path, words: tuple[str, ...]
) -> None:
    assert asks(checkout, *words)


@pytest.mark.parametrize(
    "words",
    [
        (), ("version",), ("stack", "output"), ("config", "set", "up", "1"), ("-C", "up", "stack"),
        ("up", "--help"), ("cancel",), ("stack", "ls"), ("plugin", "ls"),
    ],
)  # fmt: skip
def test_what_only_looks_starts_no_python(checkout: Path, words: tuple[str, ...]) -> None:
    assert not asks(checkout, *words)


def test_recovering_does_not_recover(checkout: Path) -> None:
    assert not asks(checkout, "refresh", NESTLAB_RECOVERING="yes")


def test_an_operation_that_never_ended_is_put_right_too(checkout: Path) -> None:
    killed(checkout, left="pending")
    assert pulumi(checkout, "up").stdout.startswith("recover yes")


def test_a_recovery_that_fails_stops_the_command(checkout: Path) -> None:
    killed(checkout)
    done = pulumi(checkout, "up", RECOVERED="7")
    assert done.returncode == 7
    assert "engine" not in done.stdout


def test_where_nothing_was_killed_the_engine_runs_at_once(checkout: Path) -> None:
    assert pulumi(checkout, "up").stdout.startswith("engine")


def test_what_the_engine_writes_is_its_users_alone(checkout: Path) -> None:
    (checkout.parent / "engine").write_text("#!/bin/sh\numask\n")
    before = os.umask(0)
    try:
        assert pulumi(checkout, "up").stdout == "0077\n"
    finally:
        os.umask(before)


def test_a_run_that_was_killed_is_seen_in_a_checkout_of_any_name(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "a#b%41?"
    checkout.rename(odd)
    place(odd, monkeypatch)
    paths.ENV_SH.write_text(environment.env_sh(built_here=False))
    (paths.BIN / "pulumi").write_text(wrapper.pulumi(tmp_path / "engine"))
    lock = paths.STATE / ".pulumi" / "locks" / "organization" / "one.json"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert pulumi(odd, "up").stdout.startswith("recover yes ")
