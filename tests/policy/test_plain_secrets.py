"""plain-secrets: a failure here leaves a class's passwords in state and logs."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest
from pulumi import FileAsset, StringAsset
from pulumi_policy.secret import Secret

from components.kinds.libvirt import seed
from tests.policy.judging import CONTAINER, UNKNOWN, Res, judge, lab, machine
from toolchain.bootstrap import paths

SEED = "libvirt:index/cloudInitDisk:CloudInitDisk"
OUR_SEED = "pulumi-python:dynamic/nestlab:SeedDisc"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n"
HASH = "$6$rounds=4096$salt$Cn8eSdeJX1r"
SHOWN = "correct-horse"
"""The password in all cases; no message may hold it."""


def res(**props: Any) -> Res:
    return Res("any:index/thing:Thing", "thing", props)


def data(text: str) -> Res:
    return Res("other:index/seed:Seed", "thing", {"userData": text})


PLAIN = [
    res(password=SHOWN),
    res(rootPassword=SHOWN),
    res(api_token=SHOWN),
    res(initialization={"userAccount": {"password": SHOWN}}),
    res(users=[{"name": "a"}, {"name": "b", "passwd": SHOWN}]),
    res(extraConfig={"RemoteDisplay.vnc.password": SHOWN}),
    res(licenseKey="AAAAA-BBBBB-CCCCC"),
    res(privateKey=KEY),
    res(uri=f"qemu+ssh://root:{SHOWN}@192.0.2.1/system"),
    res(source=StringAsset(f"rootpw {SHOWN}\n")),
    data(KEY),
    data(seed.user_data(name="a", authorized="ssh-ed25519 A", host_private=KEY, host_public="B")),
    data(f"#cloud-config\npassword: {SHOWN}\n"),
    Res(OUR_SEED, "thing", {"files": {"/user-data": f"#cloud-config\npassword: {SHOWN}\n"}}),
    Res(OUR_SEED, "thing", {"files": {"/user-data": f"#!/bin/sh\necho root:{SHOWN} | chpasswd\n"}}),
    data(
        f"#cloud-config\nusers:\n  - name: a\n    plain_text_passwd: '{SHOWN}'  # for the class\n"
    ),
    data(f"#cloud-config\nchpasswd:\n  expire: false\n  list: |\n    root:{SHOWN}\n"),
    data(f"#!/bin/sh\necho 'root:{SHOWN}' | chpasswd\n"),
    data(base64.b64encode(f"#cloud-config\npassword: {SHOWN}\n".encode()).decode()),
    data(f"vmaccepteula\nrootpw {SHOWN}\ninstall --firstdisk\n"),
    data(f"rootpw --plaintext {SHOWN}\n"),
    data(f'[global]\nroot-password = "{SHOWN}"\n'),
    data(f"<installation><root-password>{SHOWN}</root-password></installation>"),
    data(f"<AdministratorPassword><Value>{SHOWN}</Value></AdministratorPassword>"),
    data(f"d-i passwd/root-password password {SHOWN}\n"),
    data(f'{{"users": [{{"name": "a", "password": "{SHOWN}"}}]}}'),
    data(f"<graphics type='vnc' passwd='{SHOWN}'/>"),
    res(rootpw=SHOWN),
    res(answers={"rootpw": SHOWN}),
    res(chpasswd={"list": f"root:{SHOWN}"}),
    res(chpasswd={"list": [f"root:{SHOWN}"]}),
    data(f"#cloud-config\nrootpw: {SHOWN}\n"),
    data(f"rootpw={SHOWN}\n"),
    data(f'#cloud-config\nchpasswd: {{list: "root:{SHOWN}"}}\n'),
    data(f"#cloud-config\nchpasswd: {{expire: false, list: [root:{SHOWN}]}}\n"),
    data(f"#cloud-config\nchpasswd: {{users: [{{name: root, password: {SHOWN}}}]}}\n"),
    data(f"runcmd:\n  - usermod -p {SHOWN} root\n"),
    data(f"useradd -m -s /bin/sh --password={SHOWN} a\n"),
    data(f"usermod -p $(openssl passwd -6 -salt x {SHOWN}) root\n"),
    data(f"openssl enc -aes256 -pass pass:{SHOWN}\n"),
    data(f"chpasswd <<< 'root:{SHOWN}'\n"),
    data(f"chpasswd <<EOF\nroot:{SHOWN}\nEOF\n"),
    data(f"echo {SHOWN} | passwd --stdin root\n"),
    data(f"net user Administrator {SHOWN}\n"),
    data(f"NET.EXE USER a {SHOWN} /add\n"),
    data(f'$p = ConvertTo-SecureString "{SHOWN}" -AsPlainText -Force\n'),
    data(f"$p = ConvertTo-SecureString -AsPlainText -Force -String '{SHOWN}'\n"),
    data(f'New-LocalUser -Name a -Password "{SHOWN}"\n'),
    data(f"<Password><PlainText>true</PlainText>\n<Value>{SHOWN}</Value></Password>"),
    data(f"sshpass -p{SHOWN} ssh a\n"),
    data(f"export SSHPASS={SHOWN}\n"),
    data(f"MYSQL_ROOT_PASSWORD={SHOWN} mysqld\n"),
    data(f"mysql -u root -p{SHOWN} -e x\n"),
    data(f"curl -s -u admin:{SHOWN} https://a\n"),
    data(f"curl 'https://a/b?x=1&token={SHOWN}'\n"),
    data(f"curl -H 'Authorization: Bearer {SHOWN}' https://a\n"),
    data(f"git clone https://ghp_{SHOWN.replace('-', '')}@github.com/a/b\n"),
    data(f"machine example.org login me password {SHOWN}\n"),
    data(f"user --name=a --password={SHOWN}\n"),
    Res(CONTAINER, "box", {"wanted": {"command": ["usermod", "-p", SHOWN, "root"]}}),
    Res(CONTAINER, "box", {"wanted": {"command": ["sh", "-c", f"echo root:{SHOWN} | chpasswd"]}}),
]
ANSWERS = {"name": "a", "options": {"licence": "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"}}


def discs(answers: Any) -> Res:
    return Res("pulumi-python:dynamic/nestlab:InstallMedium", "d", {"answers": answers})


def driven(target: Any, password: Any = "") -> Res:
    wanted = {"name": "g", "console": {"type": "vnc", "port": 0, "password": password}}
    return Res(CONTAINER, "g", {"driver": "esxi.guest", "target": target, "wanted": wanted})


PLAIN += [discs(ANSWERS), driven({"host": "192.0.2.1"}), driven(Secret({}), SHOWN)]
MARKED = [
    res(password=Secret(SHOWN)),
    res(initialization=Secret({"userAccount": {"password": SHOWN}})),
    res(users=[{"name": "b", "passwd": Secret(SHOWN)}]),
    Res("other:index/seed:Seed", "thing", {"userData": Secret(f"password: {SHOWN}\n")}),
    res(privateKey=Secret(KEY), publicKey="ssh-ed25519 AAAA"),
    discs(Secret(ANSWERS)),
    discs(UNKNOWN),
    driven(Secret({"host": "192.0.2.1", "private_key": KEY}), Secret(SHOWN)),
    driven(UNKNOWN, UNKNOWN),
]
HARMLESS = [
    res(password=""),
    res(password=UNKNOWN),
    res(password="[secret]"),
    res(passwordHash=HASH, password=HASH),
    res(console={"password": True}, passwordLength=8),
    res(tokens_path="/run/token.txt", keyFile="/root/id", host_key="ssh-ed25519 AAAA"),
    res(uri="qemu+ssh://root@192.0.2.1:22/system?keyfile=/root/id"),
    res(description="Password: ask your teacher"),
    res(source=FileAsset("user-data.yaml")),
    res(__provider=KEY),
    data(f"#cloud-config\nusers:\n  - name: a\n    passwd: {HASH}\n    lock_passwd: true\n"),
    data(f"#cloud-config\nchpasswd:\n  list: |\n    root:{HASH}\n"),
    data("#cloud-config\nchpasswd:\n  list: |\n    root:RANDOM\n  expire: false\n"),
    data("#cloud-config\npassword: ${PASSWORD}\nssh_pwauth: true\n"),
    data(f"rootpw --iscrypted {HASH}\nnetwork --bootproto=dhcp\n"),
    data(f'[global]\nroot-password-hashed = "{HASH}"\n'),
    data(f'<root-password type="hash">{HASH}</root-password>'),
    data("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"),
    data(base64.b64encode(b"#cloud-config\nhostname: lab\n").decode()),
]


@pytest.mark.parametrize("given", PLAIN, ids=range(len(PLAIN)))
def test_a_plain_secret_is_refused_and_never_shown(given: Res) -> None:
    said = judge(given)
    assert set(said) == {"plain-secrets"}
    assert "not marked as secret" in said["plain-secrets"][0]
    assert not any(
        SHOWN in each or "b3Blb" in each or "AAAAA" in each for each in said["plain-secrets"]
    )


@pytest.mark.parametrize("given", [*MARKED, *HARMLESS], ids=range(len(MARKED) + len(HARMLESS)))
def test_a_marked_one_and_what_is_none_passes(given: Res) -> None:
    assert judge(given) == {}


def test_a_mark_covers_its_own_value_alone() -> None:
    (said,) = judge(res(password=Secret(SHOWN), users=[{"password": SHOWN}]))["plain-secrets"]
    assert said.startswith("thing: users.0.password holds ")


def test_a_screens_password_in_a_plain_stylesheet_is_seen() -> None:
    from components.kinds.libvirt.domain_xml import DomainProfile, domain  # noqa: PLC0415

    xml = {"xslt": domain(DomainProfile(uuid="u", console_password=SHOWN))}
    assert set(judge(*lab(machine(xml=xml)))) == {"plain-secrets"}
    assert judge(*lab(machine(xml={"xslt": Secret(xml["xslt"])}))) == {}


def test_without_the_marks_nothing_is_taken_for_marked() -> None:
    import secret_marks  # noqa: PLC0415
    from plain_secrets import PLAIN_SECRETS  # noqa: PLC0415

    from tests.policy.judging import _into, args_of, plain  # noqa: PLC0415

    given = Res("any:index/thing:Thing", "unseen", {"password": SHOWN})
    assert given.urn not in secret_marks.MARKED
    said: dict[str, list[str]] = {}
    PLAIN_SECRETS.validate(args_of(given, plain(given.props), {}), _into(said, "it"))
    assert "leave secret-marks on remediate" in said["it"][0]


UNITS = (
    "a://b:",
    "a://b:a@",
    "chpasswd:\n",
    "chpasswd: {list: [",
    "chpasswd <<E\n",
    "\n",
    " ",
    "{",
    "-",
    "a",
    "a:",
    "a:b |",
    "A_",
    "PASSWORD",
    "password: a #",
    '"token": "',
    "rootpw --a ",
    "usermod -a ",
    "openssl passwd -1 ",
    "net user a ",
    "machine a login b ",
    "<root-password ",
    "<Password>\n",
    "New-LocalUser ",
    "ConvertTo-SecureString -Force ",
    "://ghp_",
    "?token=",
    "-----BEGIN A ",
)
LOOK = """
import sys
import plain_secrets
for unit in sys.argv[1:]:
    plain_secrets._in_text(unit * (72_000 // len(unit)))
"""


def test_no_text_takes_longer_than_it_is_long() -> None:
    # All of them in some three seconds here; one alone took more than a hundred.
    subprocess.run(
        [sys.executable, "-c", LOOK, *UNITS],
        cwd=paths.ROOT / "policies",
        env={"PYTHONPATH": str(paths.ROOT / "policies")},
        timeout=60,
        check=True,
    )


def test_a_text_that_is_too_long_to_be_looked_through_is_refused() -> None:
    assert "plain-secrets" in judge(data("a" * (1 << 21)))
    assert judge(data("a" * (1 << 19))) == {}


@pytest.mark.parametrize(
    "text",
    [
        "usermod -p '$6$salt$hash' root\n",
        "usermod -aG docker me\n",
        "openssl passwd -6 -stdin\n",
        "net user Administrator /active:yes\n",
        "net user a * /add\n",
        "chpasswd: {expire: false}\n",
        "chpasswd: {list: [root:RANDOM]}\n",
        "sshpass -e ssh a\n",
        "PASSWORD=$1\n",
        "PATH=/usr/bin\n",
        "curl -u $USER:$PASS https://a\n",
        "rootpw --iscrypted $6$salt$hash\n",
        "rootpw: '*'\n",
        "https://example.org/a:b/c@d\n",
    ],
)
def test_what_only_looks_like_a_password_passes(text: str) -> None:
    assert judge(data(text)) == {}
