"""What one machine is told when it installs itself, checked once for every kind of installer.

Names and addresses are what a shell, XML, TOML or a kickstart can't read as anything else, or are
refused. A password may be almost anything; it leaves here hashed, but for Windows.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import unicodedata
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from components.media.iso import NotMade

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PASSWORD_BYTES = 127
"""UTF-8. Windows takes 127 letters, `openssl passwd` 256 bytes, PAM on old systems 200."""
_OPENSSL_S = 30
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PRIVATE_KEY = (
    r"-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/]+=*\n)+-----END OPENSSH PRIVATE KEY-----\n"
)
_FORMS = {
    "name": (rf"{_LABEL}", "a host name: lower-case letters, digits and hyphens"),
    "fqdn": (rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})+", "a host name with its domain"),
    "mac": (r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", "six pairs of hexadecimal digits joined by colons"),
    "authorized_key": (
        r"(ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+) [A-Za-z0-9+/]+=*( [\w.@:+-]+)?",
        "one line of OpenSSH's, of type, key and at most one word",
    ),
    "host_public": (
        r"(ssh-ed25519|ecdsa-sha2-nistp256) [A-Za-z0-9+/]+=*( [\w.@:+-]+)?",
        "an Ed25519 or ECDSA P-256 key in OpenSSH's one line",
    ),
    "host_private": (
        _PRIVATE_KEY,
        "a private key in OpenSSH's format",
    ),
    "disk": (r"(sd|vd|hd|xvd)[a-z]|nvme[0-9]n[0-9]", "a disk's name, like sda or vda"),
    "timezone": (r"[A-Za-z]+(/[A-Za-z0-9_+-]+){0,2}", "a zone of the tz database, like Etc/UTC"),
    "keyboard": (r"[a-z]{2}(-[a-z]{2,8})?", "a layout's short name, like us or es"),
}
_SECRET = frozenset({"password", "host_private"})


@dataclass(frozen=True)
class _Machine:
    """What every machine is told; holds secrets."""

    name: str
    fqdn: str
    mac: str
    """Of the NIC it is managed by, lower case with colons."""
    password: str = field(repr=False)
    """Of root, or Administrator."""
    authorized_key: str
    host_private: str = field(repr=False)
    """The machine's planned SSH host key, in OpenSSH's format."""
    host_public: str
    address: str | None = None
    """IPv4; None lets DHCP say."""
    prefix: int | None = None
    gateway: str | None = None
    nameserver: str | None = None
    """With an address: its gateway, if not told."""
    disk: str = "sda"
    timezone: str = "Etc/UTC"
    keyboard: str = "us"


@dataclass(frozen=True, kw_only=True)
class Told(_Machine):
    """What a machine is told, as it goes through the engine: not checked yet, nor all known in a preview."""

    disk: str = field()  # or the default of the class above would be its own
    options: dict[str, str]
    """As `Answers.options`."""


@dataclass(frozen=True)
class Answers(_Machine):
    """What a machine is told, checked.

    Raises:
        ValueError: something can't be written into every format, or does not fit together.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    """What one kind alone asks; each says which, and refuses others."""

    def __post_init__(self) -> None:
        for key in ("authorized_key", "host_public"):
            object.__setattr__(self, key, getattr(self, key).strip())
        object.__setattr__(self, "host_private", self.host_private.strip() + "\n")
        for key, (form, what) in _FORMS.items():
            value = getattr(self, key)
            if not re.fullmatch(form, value, re.ASCII):
                shown = "what was given" if key in _SECRET else repr(value)
                raise ValueError(f"{key}: {shown} is not {what}")
        if self.fqdn.partition(".")[0] != self.name:
            raise ValueError(f"fqdn: {self.fqdn!r} does not begin with the name {self.name!r}")
        _check_password(self.password)
        self._check_network()

    def _check_network(self) -> None:
        told = {"prefix": self.prefix, "gateway": self.gateway}
        if self.address is None:
            extra = [key for key, value in told.items() if value is not None]
            if self.nameserver is not None:
                extra.append("nameserver")
            if extra:
                raise ValueError(f"{extra[0]}: not without an address, DHCP tells it")
            return
        for key in ("address", "gateway", "nameserver"):
            value = getattr(self, key)
            try:
                if value is not None:
                    IPv4Address(value)
            except AddressValueError:
                raise ValueError(f"{key}: {value!r} is no IPv4 address") from None
        if self.prefix is None or not 1 <= self.prefix <= 30:  # noqa: PLR2004 - a subnet with hosts
            raise ValueError(f"prefix: {self.prefix!r} is not 1 to 30")
        if self.gateway is None or IPv4Address(self.gateway) not in self.interface.network:
            raise ValueError(f"gateway: {self.gateway!r} is not in {self.interface.network}")

    @property
    def interface(self) -> IPv4Interface:
        """The address with its prefix; only with an address."""
        return IPv4Interface(f"{self.address}/{self.prefix}")

    @property
    def netmask(self) -> str:
        """Of the address, as four numbers."""
        return str(self.interface.netmask)

    @property
    def dns(self) -> str:
        """The name server; the gateway serves names where none is told."""
        return self.nameserver or self.gateway or ""

    @property
    def domain(self) -> str:
        """The fully qualified name without the host's own."""
        return self.fqdn.partition(".")[2]

    def option(self, key: str, default: str) -> str:
        """Return an option that is a word of one line."""
        value = self.options.get(key, default)
        if not isinstance(value, str) or any(unicodedata.category(c) == "Cc" for c in value):
            raise ValueError(f"{key}: it is no text of one line")
        return value

    def only(self, known: Collection[str]) -> None:
        """Refuse options that nobody reads."""
        for key in self.options:
            if key not in known:
                raise ValueError(f"{key}: no such option; there are {', '.join(sorted(known))}")

    def hashed(self) -> str:
        """Return the password as SHA-512 crypt; the same for the same machine."""
        return crypt(self.password, f"{self.fqdn} {self.host_public}")


def crypt(password: str, whose: str) -> str:
    """Return ``password`` as SHA-512 crypt, the same each time for ``whose``: a machine, by its public host key.

    The salt comes from that. It must not come from the password: a salt is no secret, and a plain digest of
    the password would be guessed at full speed.
    """
    salt = base64.b64encode(hashlib.sha256(whose.encode()).digest(), b"./")[:16].decode()
    try:
        done = subprocess.run(
            ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
            input=password + "\n",
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_OPENSSL_S,
            check=False,
        )
    except FileNotFoundError as why:
        raise NotMade("openssl is not installed: install the package openssl") from why
    hashed = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"\$6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}", hashed):
        raise NotMade(f"openssl could not hash a password: {done.stderr.strip()}")
    return hashed


def _check_password(password: str) -> None:
    # Never the password itself: the message ends up on a terminal.
    if not password:
        raise ValueError("password: it is empty")
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in password):
        raise ValueError("password: it holds a line break, another control letter or half a letter")
    if len(password.encode()) > PASSWORD_BYTES:
        raise ValueError(f"password: it is longer than {PASSWORD_BYTES} bytes")
