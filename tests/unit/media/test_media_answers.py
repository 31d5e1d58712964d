"""What a machine is told: anything dangerous is refused, everything else arrives unchanged."""

from __future__ import annotations

import base64
import json
import os
import tomllib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.kinds.esxi import media as esxi
from components.kinds.hyperv import media as windows
from components.kinds.proxmox import media as proxmox
from components.kinds.xenserver import media as xenserver
from components.media import cloud_init
from components.media.iso import NotMade
from tests.unit.media.answers import ECDSA, HOST, LOGIN, PASSWORD, STATIC, answers, opens

if TYPE_CHECKING:
    from pathlib import Path

UNATTEND = "{urn:schemas-microsoft-com:unattend}"
FORMATS = {
    "cloud_init": cloud_init,
    "esxi": esxi,
    "proxmox": proxmox,
    "windows": windows,
    "xenserver": xenserver,
}


def told(kind: str, **changed: Any) -> dict[str, bytes]:
    keys = ECDSA if kind == "esxi" else {}
    files: dict[str, bytes] = FORMATS[kind].files(answers(**keys, **changed))
    return files


def secret(kind: str, files: dict[str, bytes]) -> str:
    """The root password as an independent parser finds it in the answers."""
    if kind == "proxmox":
        found: Any = tomllib.loads(files["/answer.toml"].decode())["global"]["root-password-hashed"]
    elif kind == "xenserver":
        found = ET.fromstring(files["/answerfile.xml"]).findtext("root-password")  # noqa: S314 - ours
    elif kind == "esxi":
        found = next(
            line.split()[2]
            for line in files["/KS.CFG"].decode().splitlines()
            if line.startswith("rootpw --iscrypted ")
        )
    elif kind == "windows":
        tree = ET.fromstring(files["/Autounattend.xml"])  # noqa: S314 - ours
        value = tree.findtext(f".//{UNATTEND}AdministratorPassword/{UNATTEND}Value") or ""
        found = base64.b64decode(value).decode("utf-16-le").removesuffix("AdministratorPassword")
    else:
        users = yaml.safe_load(files["/user-data"])["chpasswd"]["users"]
        found = users[0]["password"]
    return str(found)


PASSWORDS = st.text(min_size=1, max_size=40) | st.sampled_from([
    "'; reboot; '", '"$(reboot)"', "a\\nb", "a\nb", "a\0b", "]]>", "&amp;<root/>", "NESTLAB",
    "%firstboot", "p: !!python/object", "päss\N{GRINNING FACE}wörd 1A", "\ud800", " x ", "#x",
    "\u2028x", "{0}", "$6$x$y",
])  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=25, deadline=None)
@given(password=PASSWORDS)
def test_a_password_opens_the_machine_or_is_refused(kind: str, password: str) -> None:
    if kind == "windows":
        password = f"Aa1{password}Aa1Aa1"
    refusal = ""
    try:
        files = told(kind, password=password)
    except ValueError as why:
        refusal = str(why)
    if refusal:
        assert refusal.startswith("password: ")
        assert len(password) < 4 or password not in refusal
        return
    found = secret(kind, files)
    assert found == password if kind == "windows" else opens(password, found)


NASTY = ["$(id)", "`id`", "a;b", "a b", "a'b", 'a"b', "a\nb", "a\r", "a<b", "a&b", "Ä", "-x", "", "a{0}",
         "a\0", "x" * 300, "machine.lab.test\n", "../x", "${IFS}", "%x"]  # fmt: skip
FIELDS = (
    "name",
    "fqdn",
    "mac",
    "authorized_key",
    "host_private",
    "host_public",
    "address",
    "gateway",
    "nameserver",
    "disk",
    "timezone",
    "keyboard",
)


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=60, deadline=None)
@given(value=st.text(max_size=30) | st.sampled_from(NASTY))
def test_any_other_field_is_harmless_or_refused(field: str, value: str) -> None:
    whole = {**STATIC, field: value}
    if field == "name":
        whole["fqdn"] = f"{value}.lab.test"
    refusal = ""
    try:
        taken = answers(**whole)
    except ValueError as why:
        refusal = str(why)
    if refusal:
        assert refusal.split(":")[0] in {field, "fqdn", "prefix", "gateway"}
        return
    held = getattr(taken, field)
    assert held.strip() == value.strip()
    allowed = "-_./:+=@ \n" if field == "host_private" else "-_./:+=@ "
    assert held.isascii()
    assert all(letter.isalnum() or letter in allowed for letter in held)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fqdn": "other.lab.test"}, "does not begin with the name"),
        ({"address": "10.77.0.20"}, "prefix: None is not 1 to 30"),
        ({**STATIC, "gateway": "10.78.0.1"}, r"not in 10\.77\.0\.0/24"),
        ({**STATIC, "gateway": None}, "gateway: None"),
        ({**STATIC, "prefix": 31}, "prefix: 31"),
        ({"gateway": "10.77.0.1"}, "not without an address"),
        ({"nameserver": "10.77.0.1"}, "not without an address"),
        ({**STATIC, "address": "10.77.0.300"}, "no IPv4 address"),
        ({"password": "x" * 128}, "longer than 127 bytes"),
        ({"password": "é" * 64}, "longer than 127 bytes"),
        ({"host_private": "-----BEGIN RSA PRIVATE KEY-----\nx"}, "host_private: what was given"),
        ({"host_public": LOGIN["public"].replace("ssh-ed25519", "ssh-rsa")}, "Ed25519"),
        ({"authorized_key": f"{LOGIN['public']}\nssh-rsa AAAA x"}, "authorized_key"),
        ({"mac": "52:54:00:12:34:5G"}, "hexadecimal"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answers(**changed)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_option_that_nobody_reads_is_refused_with_those_there_are(kind: str) -> None:
    with pytest.raises(ValueError, match=r"typo: no such option; there are [a-z]"):
        told(kind, options={"typo": "x"})


@pytest.mark.parametrize("kind", FORMATS)
def test_secrets_show_in_no_representation_of_the_answers(kind: str) -> None:
    shown = repr(answers())
    assert PASSWORD not in shown
    assert HOST["private"].splitlines()[2] not in shown
    assert LOGIN["public"].split()[1] in shown, "public ones do"
    assert PASSWORD.encode() not in b"".join(told(kind).values()), "nor as it is in the answers"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_planned_host_key_is_in_the_answers_whole(kind: str) -> None:
    files = told(kind)
    private = HOST["private"].strip() + "\n"
    if kind == "esxi":
        assert ECDSA["host_private"] in files["/KS.CFG"].decode()
    elif kind == "cloud_init":
        keys = yaml.safe_load(files["/user-data"])["ssh_keys"]
        assert keys == {"ed25519_private": private, "ed25519_public": HOST["public"].strip()}
    else:
        assert files["/ssh_host_ed25519_key"].decode() == private
        assert files["/ssh_host_ed25519_key.pub"].decode() == HOST["public"].strip() + "\n"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_machine_gets_the_same_answers(kind: str) -> None:
    assert told(kind) == told(kind)


def test_a_salt_says_nothing_of_the_password_and_differs_by_machine() -> None:
    salts = {
        answers(password=password, name=name, fqdn=f"{name}.lab.test").hashed().split("$")[2]
        for name in ("one", "two")
        for password in ("Secret-1", "Secret-2")
    }
    assert len(salts) == 2


def test_a_password_is_not_among_a_process_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "openssl"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/seen\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(NotMade, match="could not hash"):
        answers().hashed()
    assert PASSWORD not in (tmp_path / "seen").read_text()


def test_without_openssl_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotMade, match="install the package openssl"):
        answers().hashed()


def test_windows_reads_its_addresses_from_json() -> None:
    assert json.loads(told("windows", **STATIC)["/machine.json"]) == {
        "mac": "52-54-00-12-34-56",
        "address": "10.77.0.20",
        "prefix": 24,
        "gateway": "10.77.0.1",
        "dns": "10.77.0.2",
    }
    assert json.loads(told("windows")["/machine.json"])["address"] is None
