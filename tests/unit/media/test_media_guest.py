"""What a guest with cloud-init is told: read back as it was meant, whatever the stack file says."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.media import guest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOLD = guest.Configuration(
    user="ana",
    hostname="web",
    keys=["ssh-ed25519 AAAA lab\n", "ssh-ed25519 BBBB ana@home"],
    nics=[guest.Nic("52:54:00:00:00:01", domain="lab.test")],
    instance="0123-web-abcd",
    mark="abcd",
    host_private="PRIVATE\n",
    host_public="ssh-ed25519 CCCC host",
    password="a secret",
)
HOSTILE = (
    "a: b",
    "- x",
    "#c",
    "'",
    '"',
    "{x}",
    "[x]",
    "null",
    "yes",
    "*a",
    "&b",
    "!!python/name:os",
    "a\nb: c",
    "\t",
)


def user_data(told: guest.Configuration) -> dict[str, Any]:
    text = guest.files(told)["/user-data"]
    assert text.startswith("#cloud-config\n"), "cloud-init takes it for something else"
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def test_the_user_has_the_keys_and_the_password_and_nobody_else_is_told_of() -> None:
    told = user_data(TOLD)
    [user] = told["users"]
    assert user["name"] == "ana"
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA lab", "ssh-ed25519 BBBB ana@home"]
    assert told["chpasswd"]["users"][0]["password"] == user["passwd"]
    assert user["passwd"].startswith("$6$")
    assert not any("a secret" in text for text in guest.files(TOLD).values())
    assert told["ssh_keys"] == {"ed25519_private": "PRIVATE\n", "ed25519_public": TOLD.host_public}
    assert (told["hostname"], told["fqdn"]) == ("web", "web.lab.test")


def test_without_a_password_only_keys_open_it() -> None:
    told = user_data(replace(TOLD, password=""))
    assert told["ssh_pwauth"] is False
    assert "chpasswd" not in told
    assert told["users"][0]["lock_passwd"] is True
    assert "passwd" not in told["users"][0]


def test_addresses_are_asked_for_where_they_are_kept_and_told_where_they_are_not() -> None:
    nics = [
        guest.Nic("52:54:00:00:00:01"),
        guest.Nic("52:54:00:00:00:02", "10.78.0.5/24", "10.78.0.1", "lab.test"),
        guest.Nic("52:54:00:00:00:03", "10.79.0.5/24", "10.79.0.1"),
        guest.Nic("52:54:00:00:00:04", "10.80.0.5/24"),
    ]
    read = yaml.safe_load(guest.files(replace(TOLD, nics=nics))["/network-config"])
    first, second, third, alone = read["ethernets"].values()
    assert first == {"match": {"macaddress": "52:54:00:00:00:01"}, "dhcp4": True}
    assert second["addresses"] == ["10.78.0.5/24"]
    assert second["routes"] == [{"to": "0.0.0.0/0", "via": "10.78.0.1"}]
    assert "routes" not in third, "two ways out are none"
    assert alone == {
        "match": {"macaddress": "52:54:00:00:00:04"},
        "dhcp4": False,
        "addresses": ["10.80.0.5/24"],
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=4))
def test_no_command_becomes_a_field_or_another_command(commands: list[str]) -> None:
    commands = [each.replace("\0", "") or "true" for each in commands]
    # What YAML can't carry the bounds of the stack file refuse first.
    commands = [each for each in commands if each.isprintable() or each in HOSTILE] or ["true"]
    # Without a password, which a program would hash each time.
    plain = replace(TOLD, password="")
    told = user_data(replace(plain, commands=commands))
    assert set(told) == set(user_data(replace(plain, commands=["true"])))
    [[shell, option, script]] = told["runcmd"]
    assert (shell, option) == ("sh", "-c")
    assert script.count("\nstep=commands.") >= len(commands)


@pytest.mark.parametrize("more", [{}, {"commands": ["true"]}, {"packages": ["bash"]}])
def test_the_last_that_a_guest_runs_is_sync(more: dict[str, Any]) -> None:
    """Switched off hard before that it would come back with empty host keys, and answer nobody."""
    [command] = user_data(replace(TOLD, **more))["runcmd"]
    assert command[-1].split()[-1] == "sync"


@pytest.mark.parametrize("finishes", [True, False])
def test_a_guest_counts_as_ready_once_what_it_was_told_is_on_its_disk(
    tmp_path: Path, *, finishes: bool
) -> None:
    (tmp_path / "outcome").write_text("done abcd\n")
    for name, script in (("sync", "echo synced >> log"), ("id", "echo ana")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    argv, holds = guest.asked("ana", "abcd", finishes=finishes)
    argv = [word.replace(guest.OUTCOME, "outcome").replace("/run/", "run/") for word in argv]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run(argv, cwd=tmp_path, env=path, capture_output=True, text=True, check=True)
    assert holds in said.stdout
    assert (tmp_path / "log").read_text() == "synced\n"


@pytest.mark.parametrize(
    ("there", "ready"),
    [((), False), (("status.json",), False), (("result.json",), True), (("disabled",), True)],
)
def test_a_guest_is_not_ready_while_cloud_init_may_still_start_its_ssh_server_anew(
    tmp_path: Path, there: Sequence[str], *, ready: bool
) -> None:
    for name in there:
        (tmp_path / name).touch()
    argv, _ = guest.asked("ana", "abcd", finishes=False)
    argv = [
        word.replace("/run/cloud-init", str(tmp_path)).replace("id -un", "true") for word in argv
    ]
    said = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (said.returncode == 0) == ready
    assert ("not ended" in said.stderr) != ready


def test_a_guest_without_cloud_init_is_ready_when_it_answers(tmp_path: Path) -> None:
    argv, _ = guest.asked("ana", "abcd", finishes=False)
    argv = [
        word.replace("/run/cloud-init", f"{tmp_path}/none").replace("id -un", "true")
        for word in argv
    ]
    subprocess.run(argv, check=True)


def test_a_guest_that_is_not_done_yet_says_so() -> None:
    argv, holds = guest.asked("ana", "abcd", finishes=True)
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert holds not in said
    assert "not done yet" in said


def run(tmp_path: Path, told: guest.Configuration) -> str:
    """Run what the guest runs last, with its folder elsewhere; return what it says of it."""
    [[_, _, script]] = user_data(told)["runcmd"]
    script = script.replace("/var/lib/nestlab", str(tmp_path / "own"))
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=False, capture_output=True)
    return (tmp_path / "own" / "outcome").read_text().strip()


@pytest.mark.parametrize("word", HOSTILE)
def test_a_command_is_given_to_a_shell_as_it_was_written(tmp_path: Path, word: str) -> None:
    from shlex import quote  # noqa: PLC0415

    said = run(
        tmp_path,
        replace(TOLD, commands=[f"printf %s {quote(word)} > said", "exit 0", "echo on > last"]),
    )
    assert said == guest.asked("ana", "abcd", finishes=True)[1]
    assert (tmp_path / "said").read_text() == word
    assert (tmp_path / "last").read_text() == "on\n", "`exit 0` ends its own command alone"


def test_the_first_command_that_fails_is_the_last_that_runs_and_is_named(tmp_path: Path) -> None:
    said = run(tmp_path, replace(TOLD, commands=["true", "false; true", "echo on > last"]))
    assert said == "failed at commands.1 of abcd"
    assert not (tmp_path / "last").exists()


STATUS = """\
Package: mawk
Status: install ok installed
Architecture: amd64
Maintainer: nobody
Version: 1
Provides: pattern-scanner (= 1), awk
Recommends: bash-completion
Description: one that is there

Package: nginx
Status: deinstall ok config-files
Architecture: amd64
Maintainer: nobody
Version: 1
Description: one that was there
"""


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (["mawk", "awk", "pattern-scanner"], True),
        (["mawk", "bash-completion"], False),
        (["nginx", "mawk"], False),
        (["aw"], False),
        (["installed"], False),
    ],
)
def test_a_package_is_there_if_it_is_installed_and_not_if_one_mentions_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], *, there: bool
) -> None:
    """`apt-get install awk` takes mawk; what failed is not there because another one recommends it."""
    if not shutil.which("dpkg-query"):
        pytest.skip("needs dpkg")
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path))
    said = run(tmp_path, replace(TOLD, packages=names))
    assert said == ("done abcd" if there else "failed at packages of abcd")


def test_rpm_is_asked_who_provides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "mkdir", "sync"):
        (programs / name).symlink_to(shutil.which(name) or name)
    rpm = programs / "rpm"
    rpm.write_text('#!/bin/sh\n[ "$*" = "-q --whatprovides vim" ]\n')
    rpm.chmod(0o755)
    plain = replace(TOLD, password="")
    monkeypatch.setenv("PATH", str(programs))
    assert run(tmp_path, replace(plain, packages=["vim"])) == "done abcd"
    assert run(tmp_path, replace(plain, packages=["vi"])) == "failed at packages of abcd"


def test_a_package_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, replace(TOLD, packages=["bash"], commands=["true"])) == "done abcd"
    said = run(tmp_path, replace(TOLD, packages=["bash", "no-such-package"]))
    assert said == "failed at packages of abcd"
