"""The scalars of a stack file: names, sizes, addresses, files; each refuses in its own words.

Whole numbers and yes/no are strict: ``"4096"`` in quotes is a mistake worth telling, and a lab in
which ``yes`` is sometimes a word is none. Ranges are pydantic's; what they mean is said by
`components.stackfile.explain`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)

from components.stackfile.problems import Problem, choose, listed, refuse, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"
"""20 characters, so that ``<lab>-<name>`` stays short; a host name can't end with a hyphen."""
BRIDGE = r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$"
"""15 characters: IFNAMSIZ of the kernel is 16 with the closing zero."""
_DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = rf"^(?=.{{1,253}}$){_DNS_LABEL}(\.{_DNS_LABEL})*$"
"""RFC 1035: 63 characters between two dots, 253 altogether."""
MAC = r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
SHA256 = r"^[0-9a-fA-F]{64}$"
PREFIXES = range(16, 29)
"""Prefix lengths of a lab's subnets: /28 holds a gateway and 13 machines, /16 a whole course."""

_EVERYBODY = IPv4Address("255.255.255.255")
_QUERY = {
    "qemu": ("socket",),
    "qemu+ssh": ("keyfile", "knownhosts", "known_hosts_verify", "sshauth", "socket"),
}
"""What the libvirt provider reads from a URI, by scheme; it ignores the rest without a word.

Without no_verify, whose mere presence switches host keys off, whatever it says.
"""
_WORDS = {"sshauth": ("agent", "privkey"), "known_hosts_verify": ("normal",)}
"""Options whose values are words; "ignore" and "auto" would let any host in."""
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
"""A host's name or address; none begins with a hyphen, which programs would take for an option."""
AUTHORITY = re.compile(
    rf"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,63}})@)?(?P<host>{HOST})(?::(?P<port>[0-9]{{1,5}}))?",
)
PORTS = range(1, 65536)
ELSEWHERE = re.compile(
    r"[a-z][a-z0-9+.-]*://|(json|nbd|fat|file|https?|ftps?|rbd|ssh|iscsi):", re.IGNORECASE
)
"""A URL, or one of the names that QEMU takes for more than a file."""
SHOWN = 60
"""Longest text of a URI quoted in a message, characters."""


@dataclass(frozen=True)
class Later:
    """Mark, in a field's annotation, of a text by which nothing is planned: see `components.stackfile.later`."""

    what: str
    """The field, as messages say it; of a list, one of its words."""
    form: str
    """What it has to be, as messages say it."""
    stands_in: str
    """A text of that form, planned with while it is not known."""


class SpecModel(BaseModel):
    """Closed and frozen; defaults are checked, refused values stay out of pydantic's own text.

    Built at first use: importing the models costs nothing to who only wants the plan's types.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,
        defer_build=True,
    )


PATH_BYTES, NAME_BYTES = 4095, 255
"""PATH_MAX and NAME_MAX of Linux, without closing zeros: longer ones name no file of any machine."""


def matches(pattern: str, rule: str, remedy: str) -> Callable[[str], str]:
    """Return a validator of texts that ``pattern`` matches as a whole."""
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(value: str) -> str:
        if not compiled.match(value):
            refuse(Problem("", f"{value!r} given", rule, remedy))
        return value

    return check


def text_schema(description: str, pattern: str) -> WithJsonSchema:
    """Return the JSON schema of a text that ``pattern`` matches."""
    return WithJsonSchema({"type": "string", "pattern": pattern, "description": description})


def _bridge(value: str) -> str:
    return matches(
        BRIDGE,
        "a device of the host has a name of at most 15 letters, digits, dots, hyphens or underscores",
        "give the name that `ip link` shows",
    )(value)


def _mac(value: str) -> str:
    matches(
        MAC,
        "a MAC is six pairs of hexadecimal digits joined by colons",
        "write it like 52:54:00:12:34:56, in quotes",
    )(value)
    if int(value[:2], 16) & 1:
        refuse(
            Problem(
                "",
                f"{value!r} given",
                "an odd first byte marks a multicast address, which no NIC may have",
                "begin it with 52:54:00",
            )
        )
    if not int(value.replace(":", ""), 16):
        rule = "of zeros alone it stands for none, and no switch delivers to it"
        refuse(Problem("", f"{value!r} given", rule, "begin it with 52:54:00"))
    return value.lower()


def _fits(path: str) -> str:
    """Refuse a path that the kernel takes for none, before any file is asked for."""
    size = len(os.fsencode(path))
    if size > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in path.split("/")):
        rule = f"a path has at most {PATH_BYTES} bytes, and {NAME_BYTES} between two slashes"
        refuse(Problem("", f"{shortened(path, 60)!r} given", rule, "correct it"))
    if "\0" in path:
        refuse(Problem("", "a zero byte given", "no path has one", "correct it"))
    return path


def _file(value: str, info: ValidationInfo) -> str:
    if not value.strip():
        refuse(Problem("", "an empty path given", "a file is needed", "give its path"))
    if ELSEWHERE.match(value):
        rule = "media and templates are files of this machine"
        refuse(Problem("", f"{value[:SHOWN]!r} given", rule, "get the file, and give its path"))
    if not value.isprintable():
        refuse(
            Problem("", f"{value[:SHOWN]!r} given", "a path is printable text", "rename the file")
        )
    path = os.path.expanduser(value)  # noqa: PTH111 - a leading ~ of an unknown user stays as it is
    root = (info.context or {}).get("root")
    return _fits(os.path.normpath(os.path.join(root, path)) if root else path)  # noqa: PTH118 - text in, text out


def _folder(value: str) -> str:
    # Of two slashes in front normpath makes two: POSIX lets them mean something else.
    path = os.path.normpath("/" + value.lstrip("/"))
    if not value.startswith("/") or path == "/":
        refuse(
            Problem(
                "",
                f"{value!r} given",
                "the host keeps the lab's disks in a folder of their own, given by its full path",
                "write it like /srv/labs",
            )
        )
    return _fits(path)


def _address(value: object) -> IPv4Address:
    try:
        address = IPv4Address(value if isinstance(value, IPv4Address | str) else "")
    except AddressValueError:
        refuse(
            Problem(
                "",
                f"{value!r} given" if isinstance(value, str | int | float) else "no text given",
                "an IPv4 address is four numbers from 0 to 255 joined by dots",
                "write it like 10.77.0.20",
            )
        )
    if reason := _unusable(address):
        rule = f"{reason} addresses are no machine's"
        refuse(Problem("", f"{str(address)!r} given", rule, "write one like 10.77.0.20"))
    return address


def _subnet(value: object) -> IPv4Network:
    example = "write it like 10.77.0.0/24"
    if isinstance(value, IPv4Network):
        network, given = value, f"{str(value)!r} given"
    else:
        given = f"{value!r} given" if isinstance(value, str | int | float) else "no text given"
        try:
            network = IPv4Network(value if isinstance(value, str) else "", strict=False)
        except ValueError:
            refuse(Problem("", given, "a subnet is an IPv4 address and a prefix length", example))
        if "/" not in str(value):
            refuse(Problem("", given, "a subnet needs its prefix length", example))
        inside = network.network_address != IPv4Address(str(value).partition("/")[0])
        if inside and network.prefixlen in PREFIXES:
            rule = f"that address lies inside the subnet {network}"
            refuse(Problem("", given, rule, f"write {network}"))
    if network.prefixlen not in PREFIXES:
        rule = (
            f"a lab's subnets are /{PREFIXES[0]} to /{PREFIXES[-1]}, room for 13 machines or more"
        )
        refuse(Problem("", given, rule, example))
    if reason := _unusable(network.network_address):
        rule = f"{reason} addresses can't be given to machines"
        remedy = "take a private one, such as 10.77.0.0/24"
        refuse(Problem("", f"{str(network)!r} given", rule, remedy))
    return network


def _unusable(address: IPv4Address) -> str:
    marks = {
        "loopback": address.is_loopback,
        "multicast": address.is_multicast,
        "link-local": address.is_link_local,
        "reserved": address.is_reserved or address in IPv4Network("0.0.0.0/8"),
    }
    return next((name for name, marked in marks.items() if marked), "")


def _listen(value: str) -> str:
    try:
        address = ip_address(value)
        # A zone belongs to addresses that no console listens on, and may hold any text.
        if not (address.is_multicast or address == _EVERYBODY or "%" in value):
            return str(address)
        raise ValueError  # noqa: TRY301 - told as what is no address at all
    except ValueError:
        refuse(
            Problem(
                "",
                f"{value!r} given",
                "a console listens on an address of its host",
                "write 127.0.0.1, or 0.0.0.0 for every address",
            )
        )


def _uri(value: str) -> str:
    """Take a URI to pieces and put it together again, so that everybody who reads it reads the same.

    The provider expands ``$NAME`` in its values, libvirt cuts it at ``;`` too, and neither knows the
    other's rules for what is encoded.
    """
    rule = "nestlab speaks to qemu:///system (this machine) and qemu+ssh://USER@HOST/system"
    like = "write it like one of these"
    scheme, _, rest = value.partition("://")
    address, _, query = rest.partition("?")
    authority, _, path = address.partition("/")
    if "@" in authority and ":" in authority.rpartition("@")[0]:
        # Not shown: it holds a password.
        remedy = "use a key, ?keyfile=PATH, or an agent, ?sshauth=agent"
        refuse(Problem("", "a URI with a password given", "stack files are read by many", remedy))
    if "$" in unquote(unquote(value)):
        # Not shown: what it names may be a secret's name.
        told = "variables of whoever runs it would be put in there"
        refuse(Problem("", "a URI with $ given", told, "write what is meant"))
    given = f"{value[:SHOWN]!r} given"
    if scheme not in _QUERY or not value.isprintable():
        refuse(Problem("", given, rule, "choose one of these"))
    if path == "session":
        told = "a session's libvirt may make neither bridges nor networks"
        refuse(Problem("", given, told, "end it with /system"))
    remote = AUTHORITY.fullmatch(authority) if authority else None
    if (
        path != "system"
        or bool(remote) != (scheme == "qemu+ssh")
        or bool(authority) != bool(remote)
    ):
        refuse(Problem("", given, rule, like))
    if remote and remote["port"] and int(remote["port"]) not in PORTS:
        refuse(Problem("", given, "a port is a number from 1 to 65535", like))
    pairs = [_pair(scheme, word) for word in query.split("&")] if "?" in rest else []
    if len({key for key, _ in pairs}) < len(pairs):
        refuse(Problem("", given, "each of its options is given once", "remove the second one"))
    told = "&".join(f"{key}={quote(text, safe='/,')}" for key, text in pairs)
    return f"{scheme}://{authority}/{path}" + (f"?{told}" if told else "")


def _pair(scheme: str, word: str) -> tuple[str, str]:
    """Return one option of a URI, decoded, if it is one that a stack may give."""
    name, _, encoded = word.partition("=")
    key, text = unquote(name), unquote(encoded)
    known = _QUERY[scheme]
    at = f"{key[:SHOWN]!r} given"
    if key.lower() in {"no_verify", "no_tty", "command", "netcat", "proxy"}:
        rule = "a libvirt over SSH is believed by its host key alone"
        refuse(Problem("", at, rule, "remove it; ?knownhosts=PATH names a file with its key"))
    if key not in known:
        rule = f"after the ? a {scheme} URI takes {listed(known)}"
        refuse(Problem("", at, rule, choose(key[:SHOWN], known)))
    shown = f"{key}={text[:SHOWN]!r} given"
    if not text or not text.isprintable() or re.search(r"[\\;&#]|%[0-9A-Fa-f]{2}", text):
        refuse(Problem("", shown, "its value is plain text", "write it plainly, blanks as %20"))
    if words := _WORDS.get(key):
        if wrong := [one for one in text.split(",") if one not in words]:
            rule = f"{key} takes {listed(words)}"
            refuse(Problem("", shown, rule, choose(wrong[0], words)))
        return key, text
    if text.startswith("~/"):
        text = os.path.expanduser(text)  # noqa: PTH111 - text in, text out
    if not text.startswith("/") or ".." in text.split("/"):
        rule = "a file is given by its full path there; ~ is your home"
        refuse(Problem("", shown, rule, "write the path from / on, without .."))
    return key, text


def endpoint(example: str) -> Callable[[str], str]:
    """Return a validator of ``https://HOST:PORT``, the port may be left out; ``example`` is one."""
    rule = "an API is reached by https://, a host and a port, without a path"

    def check(value: str) -> str:
        remedy = f"write it like {example}"
        try:
            parts = urlsplit(value)
            port_is_wrong = parts.port == 0
        except ValueError:
            refuse(Problem("", "something that is no URL given", rule, remedy))
        if "@" in parts.netloc:
            # Not shown: it may hold a password.
            refuse(Problem("", "a URL with a user given", "stack files are read by many", remedy))
        bare = parts._replace(path=parts.path.rstrip("/"))
        known = (bare.scheme, bare.path, bare.query, bare.fragment) == ("https", "", "", "")
        plain = AUTHORITY.fullmatch(bare.netloc)
        if not known or not plain or port_is_wrong or not value.isprintable():
            refuse(Problem("", f"{value[:SHOWN]!r} given", rule, remedy))
        return bare.geturl()

    return check


Name = Annotated[
    str,
    AfterValidator(
        matches(
            NAME,
            "a name is 1 to 20 lower-case letters, digits and hyphens, begins with a letter and "
            "does not end with a hyphen",
            "rename it",
        )
    ),
    text_schema("Name: lower-case letters, digits, hyphens", NAME),
]
Whole = Annotated[int, Strict()]
Mib = Annotated[Whole, Field(ge=16, le=1 << 26)]
"""Memory, MiB; below 16 not even a boot loader comes up, and 46 bits of address reach 64 TiB."""
Gib = Annotated[Whole, Field(ge=0, le=1 << 16)]
"""Disk, GiB, to 64 TiB: what a VHDX may have, the largest of the formats beside qcow2 and raw."""
Cores = Annotated[Whole, Field(ge=1, le=255)]
"""Virtual cores; 255 is the most QEMU's machine pc takes."""
Seconds = Annotated[Whole, Field(ge=1, le=7 * 86400)]
"""A wait, seconds, to a week: no installer and no boot takes as long."""
Many = Annotated[Whole, Field(ge=1, le=1 << 20)]
"""A number of things that machines share, cores or turns."""
Port = Annotated[Whole, Field(ge=1, le=65535)]
Flag = Annotated[bool, Strict()]
Mac = Annotated[str, AfterValidator(_mac), WithJsonSchema({"type": "string", "pattern": MAC})]
Bridge = Annotated[
    str, AfterValidator(_bridge), WithJsonSchema({"type": "string", "pattern": BRIDGE})
]
Domain = Annotated[
    str,
    AfterValidator(
        matches(
            DOMAIN,
            "a DNS domain is lower-case letters, digits and hyphens joined by dots",
            "write it like lab.test",
        )
    ),
    WithJsonSchema({"type": "string", "pattern": DOMAIN}),
]
Sha256 = Annotated[
    str,
    AfterValidator(
        matches(
            SHA256,
            "a SHA-256 is 64 hexadecimal digits",
            "take the first word that `sha256sum FILE` prints, in quotes",
        )
    ),
    WithJsonSchema({"type": "string", "pattern": SHA256}),
]
FilePath = Annotated[str, AfterValidator(_file)]
"""A file of this machine; made absolute by `load`, which knows the project's folder."""
Folder = Annotated[str, AfterValidator(_folder)]
"""A folder of the outer host, absolute."""
Listen = Annotated[str, AfterValidator(_listen)]
Uri = Annotated[str, AfterValidator(_uri)]


def _plain(check: Callable[[object], Any]) -> PlainValidator:
    return PlainValidator(check, json_schema_input_type=str)


Address = Annotated[IPv4Address, _plain(_address)]
Subnet = Annotated[IPv4Network, _plain(_subnet)]
