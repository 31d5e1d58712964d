"""What a guest is told about itself: user, keys, host name, packages, commands; cloud-init acts on it.

It reaches the guest on a disc that cloud-init calls NoCloud (`components.media.guest`), and on Windows
cloudbase-init, which reads the same disc and can do less (`components.media.cloudbase_init`). Every text here is
one that no shell, YAML or passwd(5) can read as anything else, or is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from components.stackfile.problems import Problem, refuse
from components.stackfile.values import Flag, SpecModel, matches, text_schema

USER = r"^[a-z_][a-z0-9_-]{0,31}$"
"""useradd(8): 32 characters at most, and what Debian's adduser takes."""
HOSTNAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""RFC 1123 2.1, RFC 1035 2.3.1: a label of 63 characters."""
PACKAGE = r"^[A-Za-z0-9]([A-Za-z0-9+._-]{0,126}[A-Za-z0-9+._])?$"
"""Debian's policy 5.6.1, and capitals and underscores, which RPM's names have; with a hyphen at its end apt-get(8)
removes a package."""
KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
"""sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; no ssh-dss, which sshd takes no more."""
KEY = rf"^({'|'.join(map(re.escape, KEY_TYPES))}) [A-Za-z0-9+/]+={{0,2}}( [^\n]*)?$"
COMMENT = r"[\w.@:+ -]{1,64}"
LONGEST_COMMAND = 2048
"""Bytes; what is longer is a script, and a file of the image."""
MOST_COMMANDS = 64
SYSTEM = frozenset(
    (
        *("root", "daemon", "bin", "sys", "adm", "tty", "disk", "lp", "mail", "news", "uucp"),
        *("man", "proxy", "kmem", "dialout", "fax", "voice", "cdrom", "floppy", "tape", "sudo", "audio"),
        *("dip", "www-data", "backup", "operator", "list", "irc", "src", "shadow", "utmp", "video", "sasl"),
        *("plugdev", "staff", "games", "users", "nogroup", "nobody", "sync", "wheel", "sshd", "messagebus"),
        *("input", "render", "netdev", "crontab", "halt", "shutdown", "systemd-journal"),
        *("systemd-network", "systemd-resolve", "systemd-timesync", "systemd-coredump"),
    )
)  # fmt: skip
"""Users and groups of base-passwd (passwd.master, group.master) and of other systems: an image has them,
and useradd makes no second one."""

DISTRIBUTIONS = "default"
"""The one word in a list of users that is no name (cloudinit/distros/ug_util.py, _normalize_users)."""
LONGEST_WINDOWS_USER, LONGEST_WINDOWS_HOST = 20, 15
"""Of a local user (Microsoft's USER_INFO_1: LM20_UNLEN), and of a computer's NetBIOS name, which cloudbase-init cuts to it."""
WINDOWS = frozenset(
    ("administrator", "guest", "guests", "administrators", "defaultaccount", "wdagutilityaccount", "admin",
     "cloudbase-init", "replicator", "system", "network", "service", "sshd")
)  # fmt: skip
"""Users and groups of Windows, and of cloudbase-init: its `Admin` gets another password from it after ours."""


def _user(value: str) -> str:
    remedy = "take another, such as student"
    rule = (
        "a user's name is 1 to 32 lower-case letters, digits, hyphens and underscores, "
        "begins with a letter or an underscore"
    )
    matches(USER, rule, remedy)(value)
    if value == DISTRIBUTIONS:
        rule = "cloud-init takes that for the user that the image's distribution is made with, debian or ubuntu"
        refuse(Problem("", f"{value!r} given", rule, remedy))
    if value in SYSTEM:
        rule = "every system has a user or a group of that name already"
        refuse(Problem("", f"{value!r} given", rule, remedy))
    return value


def _key(value: str) -> str:
    """Take one line of an ``id_....pub``; never shown, as what is none may be a private key."""
    kind, _, rest = value.partition(" ")
    body, _, comment = rest.partition(" ")
    remedy = "give the line that `cat ~/.ssh/id_ed25519.pub` prints"
    if "PRIVATE KEY" in value:
        rule = "stack files are read by many, and a private key opens all that its owner opens"
        refuse(Problem("", "a private key given (not shown)", rule, remedy))
    if kind not in KEY_TYPES:
        rule = f"a key is one line of OpenSSH's, of type, key and comment; types are {', '.join(KEY_TYPES[:3])} and the like"
        refuse(Problem("", "something else given (not shown)", rule, remedy))
    if not _is_of(kind, body):
        rule = f"that is no whole key of type {kind}"
        refuse(Problem("", f"a damaged key of type {kind} given", rule, remedy))
    if comment and not re.fullmatch(COMMENT, comment, re.ASCII):
        rule = "its comment has at most 64 letters, digits, blanks and any of . @ : + - _"
        refuse(Problem("", "a key with another comment given", rule, "shorten the comment"))
    return value


def _is_of(kind: str, body: str) -> bool:
    """Whether ``body`` is base64 of a key that says itself that it is of ``kind`` (RFC 4253 6.6)."""
    try:
        told = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return False
    size = int.from_bytes(told[:4])
    return told[4 : 4 + size] == kind.encode() and len(told) > 4 + size


def _command(value: str) -> str:
    size = len(value.encode(errors="surrogatepass"))
    if not value.strip():
        refuse(Problem("", "an empty command given", "it would do nothing", "remove it"))
    if size > LONGEST_COMMAND:
        rule = f"a command has at most {LONGEST_COMMAND} bytes"
        refuse(Problem("", f"{size} bytes given", rule, "split it, or put a script into the image"))
    return value


User = Annotated[
    str, AfterValidator(_user), text_schema("Name of a user that the image has not", USER)
]
AuthorizedKey = Annotated[
    str,
    AfterValidator(_key),
    text_schema("A public key: one line of OpenSSH's, such as ~/.ssh/id_ed25519.pub has", KEY),
]
Hostname = Annotated[
    str,
    AfterValidator(
        matches(
            HOSTNAME,
            "a host name is 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends "
            "with a hyphen",
            "rename it; a domain is the network's",
        )
    ),
    WithJsonSchema({"type": "string", "pattern": HOSTNAME}),
]
Package = Annotated[
    str,
    AfterValidator(
        matches(
            PACKAGE,
            "a package's name is letters, digits and any of + . _ -, begins with a letter or digit and ends with no hyphen",
            "give one package's name in each entry, without a version",
        )
    ),
    text_schema("Name of a package of the image's distribution", PACKAGE),
]
ShellCommand = Annotated[
    str,
    AfterValidator(_command),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A command, as sh takes it, on Windows as PowerShell does",
        }
    ),
]


class CloudInitSpec(SpecModel):
    """What cloud-init makes of a guest at its first boot, and anew when something here changes."""

    system: Literal["linux", "windows"] = Field(
        "linux",
        description="What the image is: linux, with cloud-init; windows, with cloudbase-init and its NoCloud service",
    )
    user: User = Field(
        "student",
        description="Who logs in; sudo asks for no password, and on Windows it is an administrator",
    )
    keys: tuple[AuthorizedKey, ...] = Field(
        (), description="Public keys of people that open it beside the lab's own, OpenSSH's lines"
    )
    password: Flag = Field(
        True,
        description="Whether the user has a password, which is generated; `show` has it with SECRETS=1",
    )
    hostname: Hostname | None = Field(
        None, description="Host name, at most 63 characters; default: the guest's name"
    )
    packages: tuple[Package, ...] = Field(
        (), description="Packages that are installed, from where the image takes its own"
    )
    commands: Annotated[tuple[ShellCommand, ...], Field(max_length=MOST_COMMANDS)] = Field(
        (),
        description="Commands that root's sh, on Windows an administrator's PowerShell, runs in order after that, up "
        "to the first that fails",
    )

    @property
    def windows(self) -> bool:
        """Whether cloudbase-init reads it."""
        return self.system == "windows"

    @model_validator(mode="after")
    def _is_of_its_system(self) -> Self:
        wrong = []
        if self.windows and self.packages:
            rule = "Windows has no package manager that cloudbase-init could ask"
            remedy = "install them by commands, or put them into the image"
            wrong.append(Problem("packages", f"{len(self.packages)} given", rule, remedy))
        if self.windows and self.user in WINDOWS:
            rule = "Windows or cloudbase-init has a user or a group of that name already"
            remedy = "take another, such as student"
            wrong.append(Problem("user", f"{self.user!r} given", rule, remedy))
        if self.windows and len(self.user) > LONGEST_WINDOWS_USER:
            rule = f"a user of Windows has at most {LONGEST_WINDOWS_USER} characters"
            wrong.append(Problem("user", f"{self.user!r} given", rule, "shorten it"))
        if self.windows and self.hostname and (why := wrong_computer(self.hostname)):
            given, remedy = f"{self.hostname!r} given", "take another, such as win1"
            wrong.append(Problem("hostname", given, why, remedy))
        if wrong:
            refuse(*wrong)
        return self


def wrong_computer(name: str) -> str:
    """Return why a computer with Windows can't be called ``name``; empty where it can."""
    if len(name) > LONGEST_WINDOWS_HOST:
        return f"Windows' computers have names of at most {LONGEST_WINDOWS_HOST} characters, and more is cut off"
    return "Windows takes no number as the name of a computer" if name.isdecimal() else ""
