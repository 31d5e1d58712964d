"""What a stack file may name beyond itself: files of this machine, outer hosts, addresses.

A stack file comes from a branch, a colleague, a course; what it may reach is said elsewhere. Who sits at
the keyboard may use the project, their home, and the folders in which media usually lie; more is
listed in ``allow.yaml``. ``NESTLAB_ALLOW`` names another such file, or is ``strict``, for looking at
what somebody else wrote: then the project's own files are all there is.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError
from typing_extensions import override

from components.stackfile.explain import explain
from components.stackfile.files import reason, special
from components.stackfile.places import places
from components.stackfile.problems import Problem, SpecError, refuse
from components.stackfile.reader import Safe
from components.stackfile.values import Bridge, Flag, SpecModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from components.stackfile.host import Entry
    from components.stackfile.lab import LabSpec
    from components.stackfile.places import Place

VARIABLE = "NESTLAB_ALLOW"
STRICT = "strict"
FILE = "nestlab/allow.yaml"
"""In the user's folder for settings, ``$XDG_CONFIG_HOME`` or ~/.config."""
USUAL = (
    "/var/lib/libvirt/images",
    "/var/lib/vz/template",
    "/usr",
    "/srv",
    "/iso",
    "/isos",
    "/mnt",
    "/media",
    "/run/media",
)
"""Folders in which media usually lie; what is in them counts only if everybody may read it."""
KEPT = (".local/share/libvirt/images",)
"""Folders of the home that count although their names begin with a dot."""
SOCKETS = ("/run/libvirt", "/var/run/libvirt", "/run/nestlab")
PRIVATE = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "192.0.2.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
        ),
    )
)
"""Addresses that nobody has on the Internet (RFC 1918, 6598, 5737, 2544)."""
HOST_RULE = r"^([^\s@:/-][^\s:/]*@)?(\*|[A-Za-z0-9*][A-Za-z0-9*._-]*(/\d{1,2})?|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?$"
MOST = 1 << 16
"""Longest allow.yaml, bytes."""


def _host_rule(value: str) -> str:
    if not re.match(HOST_RULE, value):
        rule = "a host is HOST, USER@HOST, HOST:PORT, *.DOMAIN or a subnet"
        refuse(Problem("", f"{value!r} given", rule, "write it like root@pam@pve.example.test"))
    if "*" in value.rpartition("@")[0]:
        rule = "a user is named, or left out for all of them"
        refuse(Problem("", f"{value!r} given", rule, f"write {value.rpartition('@')[2]!r}"))
    subnet = re.sub(r":\d+$", "", value.rpartition("@")[2])
    if "/" in subnet:
        _network(subnet)  # one that is none would match nobody, without a word
    return value


def _network(value: Any) -> str:
    try:
        return str(IPv4Network(value))
    except ValueError:
        rule = "an IPv4 subnet, its bits beyond the prefix 0, is needed"
        refuse(Problem("", "something else given", rule, "write it like 198.51.100.0/24"))


def _folder(value: str) -> str:
    path = os.path.expanduser(value)  # noqa: PTH111 - text in, text out
    if not path.startswith("/") or not path.isprintable():
        rule = "a folder or file is given by its full path; ~ is your home"
        refuse(Problem("", f"{value!r} given", rule, "write it like /srv/isos"))
    # One that is there may be called anything; else it would allow nothing, without a word.
    if re.search(r"[*?\[\]{}$]", path) and not os.path.lexists(path):
        rule = "no pattern and no variable is taken, and there is no file of that very name"
        refuse(Problem("", f"{value!r} given", rule, "name the folder: all that is in it counts"))
    return path


class AllowFile(SpecModel):
    """What ``allow.yaml`` may say."""

    strict: Flag = Field(
        False, description="Whether only the project's own files count beside what is listed here"
    )
    files: tuple[Annotated[str, AfterValidator(_folder)], ...] = Field(
        (), description="Folders and files that a stack may name, beside the usual ones"
    )
    hosts: tuple[Annotated[str, AfterValidator(_host_rule)], ...] = Field(
        (), description="Outer hosts that a stack may name: HOST, USER@HOST, *.DOMAIN, a subnet"
    )
    addresses: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="IPv4 subnets of the outer host's networks, beside the private ones"
    )
    nics: tuple[Bridge, ...] = Field(
        (), description="NICs of the outer host that a stack may name as an uplink, where strict"
    )


@dataclass(frozen=True, slots=True)
class Allowed:
    """What stacks may name on this machine, for whoever runs this."""

    root: str
    """The project's folder."""
    home: str = ""
    """The user's home; empty where it does not count."""
    usual: tuple[str, ...] = ()
    """Folders whose files count if everybody may read them."""
    listed: tuple[str, ...] = ()
    """Folders and files that the user listed: everything in them counts."""
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    """NICs that may be an uplink where ``strict``; else all may."""
    strict: bool = False
    told: str = f"~/.config/{FILE}"
    """The file that says more, for messages."""

    @classmethod
    def read(cls, root: Path, environ: Mapping[str, str]) -> Allowed:
        """Return what the user's file and ``NESTLAB_ALLOW`` say.

        Raises:
            SpecError: the file can't be read, or says something else; nothing is then allowed.
        """
        home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
        folder = environ.get("XDG_CONFIG_HOME", "")
        usual = Path(folder if folder.startswith("/") else f"{home}/.config", FILE)
        chosen = environ.get(VARIABLE, "")
        if chosen == STRICT:
            return cls(root=_real(str(root)), strict=True, told=f"{VARIABLE}, docs/allow.md")
        if chosen and not chosen.startswith("/"):
            rule = f"it is {STRICT!r}, or the full path of a file such as allow.yaml"
            raise SpecError([Problem(VARIABLE, f"{chosen!r} given", rule, "see docs/allow.md")])
        said = _said(Path(chosen) if chosen else usual, needed=bool(chosen))
        # A home that is the root of everything, as some service accounts have, is none.
        own = "" if said.strict or _real(home) == "/" else _real(home)
        return cls(
            root=_real(str(root)),
            home=own,
            usual=() if said.strict else tuple(map(_real, USUAL)),
            listed=tuple(map(_real, said.files)),
            hosts=said.hosts,
            addresses=said.addresses,
            nics=said.nics,
            strict=said.strict,
            told=chosen or str(usual).replace(f"{home}/", "~/", 1),
        )

    def file(self, path: str) -> tuple[str, str] | None:
        """Return rule and remedy where ``path`` may not be named; nothing is opened.

        It is followed to where it leads. Whether it is there is only told of what may be named.
        """
        if not path.isprintable():
            return "a path is printable text", "rename the file"
        real = _real(path)
        add = f"add its folder to files: in {self.told}"
        if _under(real, self.listed):
            return _special(real)
        own = _under(real, [self.root]) or bool(self.home and _under(real, [self.home]))
        if not own and not _under(real, self.usual):
            return self._outside(real != os.path.normpath(path)), f"move it there, or {add}"
        if own and self._hidden(real):
            rule = "files and folders whose names begin with a dot are none of a stack's business"
            return rule, f"move it out of there, or {add}"
        if not own and not _open_to_all(real):
            rule = "only its owner may read it, and it lies outside your home"
            return rule, f"`chmod o+r` it if it is no secret, or {add}"
        return _special(real)

    def _outside(self, link: bool) -> str:
        leads = "it is a link that leads elsewhere, and " if link else ""
        if self.strict:
            return f"{leads}a stack may name the project's own files only here"
        return (
            f"{leads}a stack may name files of the project, of your home and of the usual folders "
            "for media (docs/allow.md)"
        )

    def _hidden(self, real: str) -> bool:
        """Whether something between its own folder and the file has a name that begins with a dot."""
        base = self.root if _under(real, [self.root]) else self.home
        if base == self.home and _under(real, [f"{self.home}/{kept}" for kept in KEPT]):
            return False
        return any(part.startswith(".") for part in Path(real).relative_to(base).parts)

    def key(self, path: str) -> tuple[str, str] | None:
        """Return rule and remedy where ``path`` may not be a key or a list of host keys.

        The user's own lie in ~/.ssh, where no medium may.
        """
        if self.home and _under(_real(path), [f"{self.home}/.ssh"]):
            return _special(_real(path))
        return self.file(path)

    def host(self, entry: Entry) -> tuple[str, str] | None:
        """Return rule and remedy where the outer host ``entry`` may not be named."""
        if any(_admits(rule, entry) for rule in self.hosts):
            return None
        host = f"[{entry.host}]" if ":" in entry.host else entry.host
        name = f"{entry.user}@{host}" if entry.user else host
        rule = "an outer host other than this machine is one that you allow"
        return rule, f"add {name!r} to hosts: in {self.told}"

    def address(self, network: IPv4Network) -> tuple[str, str] | None:
        """Return rule and remedy where ``network`` may be none of the outer host's."""
        known = (*PRIVATE, *map(IPv4Network, self.addresses))
        if any(network.subnet_of(one) for one in known):
            return None
        rule = "these addresses belong to others on the Internet, and this machine would lose them"
        return (
            rule,
            f"take private ones, such as 10.77.0.0/24; or add them to addresses: in {self.told}",
        )

    def uplink(self, nic: str) -> tuple[str, str] | None:
        """Return rule and remedy where ``nic`` may be nobody's uplink."""
        if not self.strict or nic in self.nics:
            return None
        rule = "an uplink changes the host's own network, which only who runs it may ask for"
        return rule, f"add {nic!r} to nics: in {self.told}"

    def problems(self, lab: LabSpec) -> list[Problem]:
        """Return a problem for each thing that ``lab`` names and may not; media are asked one by one."""
        found = []
        for at, path in lab.host.own_files.items():
            judge = self._socket if at == "socket" else self.key
            if refused := judge(path):
                found.append(Problem("lab.host.uri", f"{at} {path!r} given", *refused))
        entry = lab.host.entry
        if entry and (refused := self.host(entry)):
            found.append(Problem(f"lab.host.{entry.at}", f"{entry.host!r} given", *refused))
        outer = next(places(lab))
        for name, network in outer.spec.networks.items():
            if network.subnet and (refused := self.address(network.subnet)):
                at = f"lab.networks.{name}.subnet"
                found.append(Problem(at, f"{str(network.subnet)!r} given", *refused))
        found += self._uplinks(outer)
        for machine in outer.machines():
            for number, nic in enumerate(machine.spec.nics):
                on = outer.spec.networks.get(nic.network)
                if nic.address is None or on is None or on.subnet:
                    continue
                alone = isinstance(machine.spec.network, str)
                at = machine.at + (".address" if alone else f".network.{number}.address")
                if refused := self.address(IPv4Network(nic.address)):
                    found.append(Problem(at, f"{str(nic.address)!r} given", *refused))
        return found

    def _uplinks(self, outer: Place) -> Iterator[Problem]:
        for name, network in outer.spec.networks.items():
            if network.uplink and (refused := self.uplink(network.uplink.nic)):
                at = f"lab.networks.{name}.uplink.nic"
                yield Problem(at, f"{network.uplink.nic!r} given", *refused)

    def _socket(self, path: str) -> tuple[str, str] | None:
        if _under(os.path.normpath(path), [*SOCKETS, *self.listed]):
            return None
        return (
            f"libvirt's sockets lie in {SOCKETS[0]}",
            f"remove it, or add it to files: in {self.told}",
        )


def _said(file: Path, *, needed: bool) -> AllowFile:
    at = str(file)
    try:
        with file.open("rb") as stream:
            state = os.fstat(stream.fileno())
            data = stream.read(MOST + 1)
    except FileNotFoundError:
        if not needed:
            return AllowFile()
        raise SpecError(
            [Problem(VARIABLE, f"{at!r} given", "there is no such file", "write it, or unset it")]
        ) from None
    except OSError as failed:
        rule = f"it can't be read ({reason(failed)})"
        raise SpecError([Problem(at, "a file given", rule, "let yourself read it")]) from None
    if not stat.S_ISREG(state.st_mode):
        rule = "it is no file"
        raise SpecError([Problem(at, "something else given", rule, "see docs/allow.md")])
    if _others_write(state) or state.st_uid not in {0, os.geteuid()}:
        rule = "it says what a stack may reach, and others may write it"
        raise SpecError([Problem(at, "a file given", rule, "make it yours: chown, `chmod go-w`")])
    try:
        told = yaml.load(data[:MOST], _Once) if len(data) <= MOST else []  # noqa: S506 - a safe one
    except _TwiceError as key:
        rule = "what it says twice counts once, so that the first list would be lost"
        raise SpecError(
            [Problem(f"{at}.{key}", "given twice", rule, "write one list: [a, b]")]
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as broken:
        raise SpecError([Problem(at, "a broken file", *_broken(broken))]) from None
    try:
        return AllowFile.model_validate({} if told is None else told)
    except ValidationError as wrong:
        raise SpecError(explain(wrong, AllowFile, at)) from None


def _broken(error: Exception) -> tuple[str, str]:
    """Return rule and remedy for a file that YAML can't read."""
    if isinstance(error, yaml.MarkedYAMLError) and "alias" in f"{error.context} {error.problem}":
        rule = "what begins with * is a mark of YAML's own, unless it stands between quotes"
        return rule, 'write it like "*.lab.example.org"'
    return "it is no YAML", "see docs/allow.md"


def _others_write(state: os.stat_result) -> bool:
    """Whether somebody else may write a file; a group of the user's own name has nobody else in it."""
    if state.st_mode & stat.S_IWOTH:
        return True
    return bool(state.st_mode & stat.S_IWGRP) and not _alone_in(state.st_gid)


def _alone_in(group: int) -> bool:
    try:
        found, me = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group == me.pw_gid and found.gr_name == me.pw_name and set(found.gr_mem) <= {me.pw_name}


class _Once(Safe):
    """Reads YAML in which no mapping says one thing twice: of two lists the first would be lost."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _TwiceError(key.value)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _TwiceError(Exception):
    """A mapping says one thing twice; the message is its name."""


def _real(path: str) -> str:
    return os.path.realpath(path)


def _under(path: str, folders: Any) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in folders)


def _open_to_all(real: str) -> bool:
    try:
        return bool(Path(real).stat().st_mode & stat.S_IROTH)
    except OSError:
        return True  # what is not there is told as that


def _special(real: str) -> tuple[str, str] | None:
    word = special(real)
    return (f"it is {word}", "give the path of a file on a disk") if word else None


def _admits(rule: str, entry: Entry) -> bool:
    user, at, rest = rule.rpartition("@")
    if at and user != entry.user:
        return False
    port = re.search(r":(\d+)$", rest)
    name = (rest[: port.start()] if port else rest).strip("[]").lower()
    if port and int(port[1]) != entry.port:
        return False
    host = entry.host.lower().strip("[]")
    if "/" in name:
        try:
            return IPv4Address(host) in IPv4Network(name)
        except (AddressValueError, ValueError):
            return False
    return fnmatchcase(host, name)
