"""What a guest with Windows is told: what cloudbase-init reads, and no text of it that becomes code.

cloudbase-init itself is Windows' own, and can't run here. What it knows is from its source, version 1.1.8:
`cloudbaseinit/metadata/services/nocloudservice.py`, `plugins/common/userdataplugins/cloudconfigplugins`.
"""

from __future__ import annotations

import base64
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.media import cloudbase_init, guest
from tests.unit.media.test_media_guest import HOSTILE, TOLD

MODULES = {
    *("write_files", "set_timezone", "timezone", "set_hostname", "hostname", "ntp", "groups"),
    *("users", "runcmd"),
}
"""Of user-data; others it logs as an error."""
USERS = {"name", "passwd", "ssh_authorized_keys"}


def user_data(told: guest.Configuration) -> dict[str, Any]:
    text = cloudbase_init.files(told)["/user-data"]
    assert text.startswith("#cloud-config\n"), "cloudbase-init takes it for a script"
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def script(told: guest.Configuration) -> str:
    [file] = user_data(told)["write_files"]
    assert file["path"] == cloudbase_init.SETUP
    return str(file["content"])


def placed(told: guest.Configuration) -> dict[str, str]:
    """Return the files that the script gives to sshd."""
    pairs = re.findall(r"@\('([\w.]+)', '([A-Za-z0-9+/=]*)'\)", script(told))
    return {name: base64.b64decode(text).decode() for name, text in pairs}


def run(told: guest.Configuration) -> list[str]:
    [words] = re.findall(r"foreach \(\$command in @\((.*)\)\)", script(told))
    found = re.findall(r"'([A-Za-z0-9+/=]+)'", words)
    assert ", ".join(f"'{each}'" for each in found) == words
    return [base64.b64decode(each).decode("utf-16-le").partition("\n")[2] for each in found]


def test_it_holds_nothing_that_cloudbase_init_does_not_know() -> None:
    read = user_data(replace(TOLD, commands=["Get-Date"]))
    assert read.keys() <= MODULES
    [user] = read["users"]
    assert user.keys() == USERS
    assert read["runcmd"][0].endswith(f"-File {cloudbase_init.SETUP}")
    meta = yaml.safe_load(cloudbase_init.files(TOLD)["/meta-data"])
    assert meta == {"instance-id": TOLD.instance, "local-hostname": TOLD.hostname}
    network = "/network-config"
    assert cloudbase_init.files(TOLD)[network] == guest.files(TOLD)[network]


def test_the_password_is_in_clear_and_without_one_nobody_knows_it() -> None:
    [user] = user_data(TOLD)["users"]
    assert user["passwd"] == TOLD.password
    [user] = user_data(replace(TOLD, password=""))["users"]
    assert "passwd" not in user, "cloudbase-init makes one up"


@pytest.mark.parametrize(
    ("made", "user", "told"),
    [
        ("xAnaB2anaQ7k", "ana", "xA-naB2a-naQ7k"),
        ("xAnaB2cdeQ7k", "eva", "xAnaB2cdeQ7k"),
        ("xAnaB2cdeQ7k", "a", "xAnaB2cdeQ7k"),
        ("aAaaB2cdeQ7k", "aaa", "a-A-aaB2cdeQ7k"),
    ],
)
def test_no_password_holds_the_name_of_its_user(made: str, user: str, told: str) -> None:
    assert cloudbase_init.acceptable(made, user) == told


def test_administrators_enter_by_the_planned_key() -> None:
    assert placed(TOLD) == {
        "ssh_host_ed25519_key": "PRIVATE\n",
        "ssh_host_ed25519_key.pub": f"{TOLD.host_public}\n",
        "administrators_authorized_keys": "ssh-ed25519 AAAA lab\nssh-ed25519 BBBB ana@home\n",
    }
    [user] = user_data(TOLD)["users"]
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA lab", "ssh-ed25519 BBBB ana@home"]


def test_it_says_how_it_went_and_of_which_configuration() -> None:
    assert f"WriteAllText('{cloudbase_init.OUTCOME}', \"$how abcd`n\")" in script(TOLD)
    argv, holds = cloudbase_init.asked("abcd")
    assert holds == "done abcd"
    assert shlex.join(argv) == " ".join(argv), "cmd.exe knows no quotes of sh's"


@pytest.mark.parametrize("word", [*HOSTILE, "'; exit 0 #", "@USER@", "é ü 漢"])
def test_a_command_is_run_as_it_was_written(word: str) -> None:
    assert run(replace(TOLD, commands=["Get-Date", word])) == ["Get-Date", word]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=4))
def test_no_command_changes_the_script_around_it(commands: list[str]) -> None:
    told = replace(TOLD, commands=commands)
    assert run(told) == commands
    text = script(told)
    assert text.isascii(), "Windows PowerShell reads anything else by the machine's code page"
    assert len(text.splitlines()) == len(script(TOLD).splitlines())
    assert not re.search(r"@[A-Z]+@", text)
