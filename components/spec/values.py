"""The scalars of a stack file: names, sizes, addresses, files; each refuses in its own words.

Whole numbers and yes/no are strict: ``"4096"`` in quotes is a mistake worth telling, and a lab in
which ``yes`` is sometimes a word is none. Ranges are pydantic's; what they mean is said by
`components.spec.explain`.
"""

from __future__ import annotations

import os
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, urlsplit

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

from components.spec.problems import Problem, choose, listed, refuse, shortened

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
    "qemu+ssh": ("keyfile", "knownhosts", "known_hosts_verify", "no_verify", "sshauth", "socket"),
}
"""What the libvirt provider reads from a URI, by scheme; it ignores the rest without a word."""


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
        "a bridge of the host has at most 15 letters, digits, dots, hyphens or underscores",
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
    path = os.path.expanduser(value)  # noqa: PTH111 - a leading ~ of an unknown user stays as it is
    root = (info.context or {}).get("root")
    return _fits(os.path.normpath(os.path.join(root, path)) if root else path)  # noqa: PTH118 - text in, text out


def _folder(value: str) -> str:
    if not value.startswith("/") or os.path.normpath(value) == "/":
        refuse(
            Problem(
                "",
                f"{value!r} given",
                "the host keeps the lab's disks in a folder of their own, given by its full path",
                "write it like /var/lib/libvirt/nestlab/NAME",
            )
        )
    return _fits(os.path.normpath(value))


def _address(value: object) -> IPv4Address:
    try:
        address = IPv4Address(value if isinstance(value, IPv4Address | str) else "")
    except AddressValueError:
        refuse(
            Problem(
                "",
                f"{value!r} given" if isinstance(value, str | int) else "no text given",
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
        network = value
    else:
        given = f"{value!r} given" if isinstance(value, str | int) else "no text given"
        try:
            network = IPv4Network(value if isinstance(value, str) else "", strict=False)
        except ValueError:
            refuse(Problem("", given, "a subnet is an IPv4 address and a prefix length", example))
        if "/" not in str(value):
            refuse(Problem("", given, "a subnet needs its prefix length", example))
        if network.network_address != IPv4Address(str(value).partition("/")[0]):
            rule = f"that address lies inside the subnet {network}"
            refuse(Problem("", given, rule, f"write {network}"))
    if network.prefixlen not in PREFIXES:
        rule = (
            f"a lab's subnets are /{PREFIXES[0]} to /{PREFIXES[-1]}, room for 13 machines or more"
        )
        refuse(Problem("", f"{str(network)!r} given", rule, example))
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
    allowed = "nestlab speaks to qemu:///system (this machine) and qemu+ssh://USER@HOST/system"
    try:
        parts = urlsplit(value)
        port_is_wrong = parts.port == 0
    except ValueError:
        refuse(Problem("", "something that is no URI given", allowed, "write it like one of these"))
    if "@" in parts.netloc and ":" in parts.netloc.rpartition("@")[0]:
        # Not shown: it holds a password.
        remedy = "use a key, ?keyfile=PATH, or an agent, ?sshauth=agent"
        refuse(Problem("", "a URI with a password given", "stack files are read by many", remedy))
    given = f"{value!r} given"
    if parts.scheme not in _QUERY:
        refuse(Problem("", given, allowed, "choose one of these"))
    if parts.path == "/session":
        rule = "a session's libvirt may make neither bridges nor networks"
        refuse(Problem("", given, rule, "end it with /system"))
    if (
        parts.path != "/system"
        or port_is_wrong
        or bool(parts.hostname) != (parts.scheme == "qemu+ssh")
    ):
        refuse(Problem("", given, allowed, "write it like one of these"))
    for key, _ in parse_qsl(parts.query, keep_blank_values=True):
        if key not in (known := _QUERY[parts.scheme]):
            rule = f"after the ? a {parts.scheme} URI takes {listed(known)}"
            refuse(Problem("", f"{key!r} given", rule, choose(key, known)))
    return value


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
        if not known or not bare.hostname or port_is_wrong or not value.isprintable():
            refuse(Problem("", f"{value!r} given", rule, remedy))
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
