"""Guests, networks and media of XCP-ng and XenServer, by ``xe`` in dom0 (R108-R110).

XAPI's labels are not unique, so what is the lab's is known by its owner: in ``other-config`` (a
guest's, with the guest's own UUID beside it, since a clone that somebody makes of it copies all of
that), in the description of a network, in the label of a disk.

A guest is brought to what is wanted in rounds: look, do what is missing, look again. So one function
says what is missing, for a preview that only tells it and for a repeated try after a cut. It leaves
out guest tools, storage that is shared by several hosts, and qcow2, which XCP-ng 8.3 imports only
with storage that it does not install by itself.
"""

from __future__ import annotations

import re
import struct
import threading
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from components.remote.driver import DriverError, must, refusal
from components.remote.shell import COMMAND_S, Unreachable
from components.remote.upload import PART
from components.remote.waiting import Seen, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from components.remote.driver import Driver, Props
    from components.remote.shell import Shell

TEMPLATE = "Other install media"
"""XAPI's own template of a guest without disks that boots by BIOS or UEFI, from whatever is there."""
MIB = 1 << 20
GIB = 1 << 30
STOP_S = 60.0
"""How long a guest may take to end by itself, seconds."""
START_S = 300.0
SCAN_S = 300.0
STALL_S = 120.0
"""How long an upload may make no progress, seconds."""
IMPORT_S = 4 * 3600.0
"""How long a disk image may take on its way into the storage of an emulated host, seconds."""
FRESH_S = 2.0
"""How long what was seen may be used: the objects of one place look within a second of one another."""
ROUNDS = 8
"""A guest takes four: itself, its settings and disk, the disk in its place, and nothing more to do."""
MOST_NICS = 7
MOST_GIB = 2040
"""XAPI's largest VHD disk (XCP-ng's storage page: 2 TiB without what it notes about it)."""
BRIDGE = "bridge:"
"""Begins what guests call a network that XAPI had already."""
CD_DEVICE = "3"
"""Where XAPI's own tools put a CD drive."""
NIC_MODELS = ("rtl8139", "e1000")
VIDEO = {"vga": "std", "cirrus": "cirrus"}
"""XAPI's ``platform:vga`` by our name."""
BOOT = {"hd": "c", "cdrom": "d", "network": "n"}
"""Letters of ``HVM-boot-params:order``."""
VHD_MARK = b"conectix"
FOREIGN = {
    b"QFI\xfb": ("qcow2", "convert it with `qemu-img convert -O raw`"),
    b"KDMV": ("a VMware disk", "convert it with `qemu-img convert -O raw`"),
    b"vhdxfile": ("VHDX", "convert it with `qemu-img convert -O raw`"),
}
HINTS = {
    "Not enough free memory": "raise memory_mib of the hypervisor, or make its guests smaller",
    "Not enough server memory": "raise memory_mib of the hypervisor, or make its guests smaller",
    "HVM is required": "the outer host does not pass VT-x or AMD-V on: switch nesting on there (R104)",
    "HVM not supported": "the outer host does not pass VT-x or AMD-V on: switch nesting on there "
    "(R104)",
    "SR is full": "raise disk_gib of the hypervisor, or make its guests' disks smaller",
    "Not enough CPUs": "raise cores of the hypervisor",
    "toolstack is still initialising": "it has just been started: wait a minute, then `pulumi up`",
    "Connection refused": "its toolstack is down: run `xe-toolstack-restart` there",
}
"""What to do about a refusal, by words in it."""

CLASSES = {
    "vm": (
        ("is-control-domain=false",),
        (
            *("name-label", "power-state", "memory-static-max", "memory-dynamic-max"),
            *("memory-dynamic-min", "memory-static-min", "VCPUs-max", "VCPUs-at-startup"),
            *("platform", "HVM-boot-params", "other-config"),
        ),
    ),
    "vbd": ((), ("vm-uuid", "vdi-uuid", "empty", "userdevice", "type")),
    "vif": ((), ("vm-uuid", "device", "MAC", "network-uuid")),
    "vdi": (
        ("managed=true",),
        (
            *("name-label", "is-a-snapshot", "sr-uuid", "vbd-uuids", "virtual-size", "location"),
            "other-config",
        ),
    ),
    "network": ((), ("name-label", "name-description", "bridge", "other-config")),
    "pif": (("management=true",), ("network-uuid",)),
    "sr": ((), ("type", "content-type")),
    "pbd": ((), ("sr-uuid", "device-config", "currently-attached")),
    "pool": ((), ("default-SR", "other-config")),
}
"""What is asked of each class of XAPI's objects: filters and fields; the UUID comes by itself."""
LASTING = ("network", "pif", "sr", "pbd")
FIELD = re.compile(r" *([\w-]+) \([ SM]R[OW]\)(?: \[DEPRECATED\])? *: ?(.*)", re.DOTALL)
"""One line of what `xe` lists (xen-api, cli_printer.ml)."""
LABEL = re.compile(r"(.*) \(nestlab ([\w-]+)\)", re.DOTALL)

Row = dict[str, str]


# Asking -----------------------------------------------------------------------------------------


def xe(shell: Shell, *words: str, timeout_s: float = COMMAND_S) -> str:
    """Run ``xe`` and return what it printed, without the line break that it adds.

    Raises:
        DriverError: it refused, in its own words and with what to do where that is known.
    """
    for word in words:
        # It sends its words as lines: the rest of this one would be a parameter of its own.
        if "\n" in word or word.endswith("\r"):
            raise DriverError(f"`xe {words[0]}`: {word!r} holds a line break, which xe can't take")
    done = shell.run(["xe", *words], timeout_s=timeout_s)
    if done.ok:
        return done.out.removesuffix("\n")
    lines = f"{done.out}\n{done.err}".split("\n")
    told = " ".join(line.strip() for line in lines if line.strip())
    told = told or f"exit code {done.code} and no word"
    hint = next((f"; {hint}" for mark, hint in HINTS.items() if mark in told), "")
    raise refusal(shell, ["xe", *words], f"{told}{hint}")


def rows(told: str) -> list[Row]:
    """Return the records of a list that `xe` printed."""
    found: list[Row] = []
    last = ""
    # Not splitlines(): a label may hold what Python takes for the end of a line, and `xe` does not.
    for line in told.split("\n"):
        field = FIELD.fullmatch(line)
        if field and field[1] == "uuid" and not line.startswith(" "):
            found.append({})
        if field and found:
            last = field[1]
            found[-1][last] = field[2]
        elif found:
            found[-1][last] += f"\n{line}"
    return [{key: value.rstrip("\n") for key, value in row.items()} for row in found]


def entry(told: str, key: str) -> str:
    """Return what a map field has under ``key``; empty for nothing."""
    found = re.search(rf"(?:^|; ){re.escape(key)}: (.*?)(?:; |$)", told, re.DOTALL)
    return found[1] if found else ""


class Host:
    """What a host has: each class of its objects is asked for once, when it is first needed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self._lock = threading.Lock()
        self._seen: dict[str, list[Row]] = {}

    def again(self) -> Host:
        """Return the host as it is after commands about guests, which leave `LASTING` as it was."""
        fresh = Host(self.shell)
        fresh._seen = {what: found for what, found in self._seen.items() if what in LASTING}
        return fresh

    def all(self, what: str, **wanted: str) -> list[Row]:
        """Return the objects of class ``what`` that have the fields ``wanted``."""
        with self._lock:
            if what not in self._seen:
                filters, fields = CLASSES[what]
                params = f"params=uuid,{','.join(fields)}"
                self._seen[what] = rows(xe(self.shell, f"{what}-list", *filters, params))
        fields_ = {key.replace("_", "-"): value for key, value in wanted.items()}
        return [
            row
            for row in self._seen[what]
            if all(row.get(key) == value for key, value in fields_.items())
        ]

    def pool(self) -> Row:
        """Return its pool, which every host has, alone in it or not."""
        found = self.all("pool")
        if not found:
            raise DriverError(
                f"{self.shell.name}: its toolstack knows no pool, it is not set up yet"
            )
        return found[0]

    def storage(self) -> str:
        """Return the UUID of where disks go: the pool's default, or the local one."""
        known = {row["uuid"] for row in self.all("sr")}
        default = self.pool()["default-SR"]
        if default in known:
            return default
        for kind in ("ext", "lvm"):
            for row in self.all("sr", type=kind):
                return row["uuid"]
        raise DriverError(
            f"{self.shell.name} has no storage for disks: make it with `xe sr-create type=ext "
            "content-type=user device-config:device=/dev/PARTITION name-label=local`"
        )

    def isos(self, folder: str) -> Row | None:
        """Return the connection (PBD) of the ISO repository whose folder is ``folder``."""
        for row in self.all("pbd"):
            if entry(row["device-config"], "location") == folder:
                return row
        return None

    def iso(self, path: str) -> Row | None:
        """Return the ISO that is the file ``path``, as XAPI knows it."""
        file = PurePosixPath(path)
        repository = self.isos(str(file.parent))
        if repository is None:
            return None
        found = self.all("vdi", sr_uuid=repository["sr-uuid"], location=file.name)
        return found[0] if found else None

    def image(self, path: str) -> Row | None:
        """Return the disk that the image ``path`` has been imported as; clones of it are others."""
        name = PurePosixPath(path).name
        for row in self.all("vdi"):
            label = LABEL.fullmatch(row["name-label"])
            mark = entry(row["other-config"], "nestlab")
            if label and label[1] == name and label[2] == mark:
                return row
        return None

    def network(self, called: str) -> str:
        """Return the UUID of the network that guests call ``called``."""
        if called == BRIDGE:
            for pif in self.all("pif"):
                return pif["network-uuid"]
            raise DriverError(f"{self.shell.name} has no network that it is managed by")
        if called.startswith(BRIDGE):
            bridge = called.removeprefix(BRIDGE)
            for row in self.all("network", bridge=bridge):
                return row["uuid"]
            have = ", ".join(sorted(row["bridge"] for row in self.all("network")))
            raise DriverError(f"{self.shell.name} has no bridge {bridge!r}: it has {have}")
        for row in self.all("network", name_label=called):
            if _marks(row):
                return row["uuid"]
        raise DriverError(f"{self.shell.name} has no network {called!r} of the lab any more")


_shared: dict[str, tuple[float, Host]] = {}
_sharing = threading.Lock()
_repositories: dict[str, threading.Lock] = {}


def glanced(shell: Shell) -> Host:
    """Return what ``shell``'s host has, seen within the last `FRESH_S` seconds, shared by all who ask."""
    with _sharing:
        kept = _shared.get(shell.name)
        if kept is None or time.monotonic() - kept[0] > FRESH_S:
            kept = _shared[shell.name] = (time.monotonic(), Host(shell))
        return kept[1]


def changed(shell: Shell) -> None:
    """Say that something is being changed at the host, so that the next glance is a new one."""
    with _sharing:
        _shared.pop(shell.name, None)


def _repository(shell: Shell) -> threading.Lock:
    """Two media at once must not make two repositories, nor one remove the other's."""
    with _sharing:
        return _repositories.setdefault(shell.name, threading.Lock())


# Names ------------------------------------------------------------------------------------------


def _mark(wanted: Props) -> str:
    return f"nestlab {wanted['owner']}"


def _label(wanted: Props) -> str:
    """Return what tells a disk, or a guest that is half made, from all others."""
    return f"{wanted['name']} ({_mark(wanted)})"


def _marks(row: Row) -> set[str]:
    """Return the owners that a network names."""
    found = {entry(row["other-config"], "nestlab")}
    if row["name-description"].startswith("nestlab "):
        found.add(row["name-description"].removeprefix("nestlab "))
    return found - {""}


def _unfit(what: str, text: str) -> str:
    """Say why XAPI can't take ``text``: its messages are XML, and `xe` sends its words as lines."""
    wrong = [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} or c in "\ufffe\uffff"]
    if wrong:
        return f"{what} {text!r} holds {wrong[0]!r}, which XAPI can't take: remove it"
    return "" if text.strip() else f"{what} is empty, and XAPI shows it to people: give one"


def _owner(wanted: Props) -> str:
    owner = wanted["owner"]
    if re.fullmatch(r"[\w-]+", owner, re.ASCII):
        return ""
    return f"owner {owner!r} is no UUID: it comes from the lab, not from a stack file"


def _strangers(shell: Shell, what: str, command: str, wanted: Props, found: Iterable[Row]) -> None:
    """Refuse a name that somebody else's object has: nobody could tell the two apart."""
    for row in found:
        raise DriverError(
            f"{shell.name} has a {what} {wanted['name']!r} that is not the lab's, {row['uuid']}: "
            f"call it something else (`xe {command}-param-set uuid={row['uuid']} name-label=...`), "
            "or remove it, or rename the one in the stack"
        )


# Networks ---------------------------------------------------------------------------------------


class NetworkDriver:
    """See `components.remote.driver.Driver`.

    Mode isolated is XAPI's internal network, a switch that only guests are on; mode bridge is one of
    those that the host had already, and nothing is made.
    """

    replaced_by: tuple[str, ...] = ("name", "mode", "owner")

    def called(self, wanted: Props) -> str:
        """Return what guests are told: a name, or a bridge that was there already."""
        name: str = wanted["name"]
        return f"{BRIDGE}{wanted['bridge']}" if wanted["mode"] == "bridge" else name

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        if wanted["mode"] not in {"bridge", "isolated"}:
            return f"XAPI makes no network of mode {wanted['mode']!r}: take bridge or isolated"
        if wanted["name"].startswith(BRIDGE):
            return f"a network can't be called {wanted['name']!r}: rename it"
        bridge = _unfit("bridge", wanted["bridge"]) if wanted["bridge"] else ""
        return _unfit("name", wanted["name"]) or bridge or _owner(wanted)

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        return self._seen(Host(shell), wanted)

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: Props) -> Seen:
        name = wanted["name"]
        try:
            if wanted["mode"] == "bridge":
                uuid = host.network(self.called(wanted))
                return Seen(ok=True, text=f"network {name} is {uuid}")
            mine = self._mine(host, wanted)
            if not mine:
                return Seen(ok=False, text=f"network {name} is not there any more")
            if self._settings(mine[0], wanted):
                return Seen(ok=False, text=f"network {name} was renamed, or its mark removed")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        return Seen(ok=True, text=f"network {name} is there")

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        changed(shell)
        host = Host(shell)
        if wanted["mode"] == "bridge":
            host.network(self.called(wanted))
            return
        mine = self._mine(host, wanted)
        if not mine:
            others = host.all("network", name_label=wanted["name"])
            _strangers(shell, "network", "network", wanted, others)
            made = ("network-create", f"name-label={wanted['name']}")
            uuid = xe(shell, *made, f"name-description={_mark(wanted)}").strip()
            mine = [{"uuid": uuid, "name-label": wanted["name"], "other-config": ""}]
            mine[0]["name-description"] = _mark(wanted)
        if settings := self._settings(mine[0], wanted):
            xe(shell, "network-param-set", f"uuid={mine[0]['uuid']}", *settings)

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        changed(shell)
        if wanted["mode"] == "bridge":
            return
        for row in self._mine(Host(shell), wanted):
            xe(shell, "network-destroy", f"uuid={row['uuid']}")

    def _mine(self, host: Host, wanted: Props) -> list[Row]:
        return [row for row in host.all("network") if wanted["owner"] in _marks(row)]

    def _settings(self, row: Row, wanted: Props) -> list[str]:
        settings = []
        if row["name-label"] != wanted["name"]:
            settings.append(f"name-label={wanted['name']}")
        if row["name-description"] != _mark(wanted):
            settings.append(f"name-description={_mark(wanted)}")
        if entry(row["other-config"], "nestlab") != wanted["owner"]:
            settings.append(f"other-config:nestlab={wanted['owner']}")
        return settings


# Media ------------------------------------------------------------------------------------------


class MediumDriver:
    """See `components.remote.driver.Driver`.

    An ISO is a file of a local ISO repository (R108), which its first medium makes and its last one
    takes away. A disk image is imported into the storage, and guests' disks are clones of it that
    share its blocks; the file itself is not kept, dom0 has little room.
    """

    replaced_by: tuple[str, ...] = ("name", "store", "owner")

    def called(self, wanted: Props) -> str:
        """Return its path there, by which guests name it."""
        return f"{wanted['store']}/{wanted['name']}"

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        name = wanted["name"]
        if "/" in name or name in {".", ".."}:
            return f"name {name!r} is no file's: rename the medium"
        if not wanted["store"].startswith("/") or (wrong := _unfit("folder", wanted["store"])):
            return wrong or f"folder {wanted['store']!r} is not absolute"
        if wrong := _unfit("name", name) or _owner(wanted):
            return wrong
        path = Path(wanted["path"])
        return "" if _iso(wanted) or not path.is_file() else _no_disk(path)

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        return self._seen(Host(shell), wanted)

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: Props) -> Seen:
        name = wanted["name"]
        try:
            if not _iso(wanted):
                return self._seen_image(host, wanted)
            if not self._arrived(host.shell, self.called(wanted), wanted):
                return Seen(ok=False, text=f"medium {name} is not there any more, or not whole")
            repository = host.isos(wanted["store"])
            if repository is None or repository["currently-attached"] != "true":
                return Seen(ok=False, text=f"the repository of medium {name} is not attached")
            if host.iso(self.called(wanted)) is None:
                return Seen(ok=False, text=f"medium {name} is a file that XAPI has not seen")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        return Seen(ok=True, text=f"medium {name} is there")

    def _seen_image(self, host: Host, wanted: Props) -> Seen:
        mine = self._mine(host, wanted)
        if not mine:
            return Seen(ok=False, text=f"image {wanted['name']} is not in the storage any more")
        if not any(_noted(row, wanted) for row in mine):
            return Seen(ok=False, text=f"image {wanted['name']} is another one than the stack's")
        return Seen(ok=True, text=f"image {wanted['name']} is there")

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        changed(shell)
        if not _iso(wanted):
            self._import(shell, wanted)
            return
        fresh = self._upload(shell, wanted["store"], wanted)
        with _repository(shell):
            host = Host(shell)
            pbd = host.isos(wanted["store"])
            if pbd is None:
                where = (
                    f"device-config:location={wanted['store']}",
                    "device-config:legacy_mode=true",
                )
                kind = ("name-label=nestlab ISO", "type=iso", "content-type=iso")
                xe(shell, "sr-create", *kind, *where, timeout_s=SCAN_S)
            elif pbd["currently-attached"] != "true":
                xe(shell, "pbd-plug", f"uuid={pbd['uuid']}", timeout_s=SCAN_S)
            host = Host(shell)
            if fresh or host.iso(self.called(wanted)) is None:
                pbd = host.isos(wanted["store"])
                if pbd is None:
                    raise DriverError(f"{shell.name} made no repository for {wanted['store']}")
                xe(shell, "sr-scan", f"uuid={pbd['sr-uuid']}", timeout_s=SCAN_S)
        if Host(shell).iso(self.called(wanted)) is None:
            raise DriverError(
                f"{shell.name} does not take {self.called(wanted)} for an ISO: its repository holds "
                "files whose names end with .iso"
            )

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        changed(shell)
        if _iso(wanted):
            path = self.called(wanted)
            must(shell, ["rm", "-f", path, f"{path}{PART}"])
        else:
            for row in self._mine(Host(shell), wanted):
                xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)
            self._drop(shell, f"{_importing(wanted)}/{wanted['name']}")
        with _repository(shell):
            self._tidy(shell, wanted["store"])

    def _tidy(self, shell: Shell, store: str) -> None:
        """Take the repository away with its last file."""
        pbd = Host(shell).isos(store)
        left = shell.run(["ls", "-A", store]).out.strip()
        if pbd is not None and left:
            xe(shell, "sr-scan", f"uuid={pbd['sr-uuid']}", timeout_s=SCAN_S)
        elif pbd is not None:
            if pbd["currently-attached"] == "true":
                xe(shell, "pbd-unplug", f"uuid={pbd['uuid']}", timeout_s=SCAN_S)
            xe(shell, "sr-forget", f"uuid={pbd['sr-uuid']}")
        if not left:
            _leave(shell, store)

    def _upload(self, shell: Shell, folder: str, wanted: Props) -> bool:
        """Have the medium in ``folder``, whole; return whether it had to be sent."""
        to = f"{folder}/{wanted['name']}"
        if self._arrived(shell, to, wanted) and not _differs(shell, to, wanted):
            return False
        must(shell, ["mkdir", "-p", folder])
        shell.put(Path(wanted["path"]), to, timeout_s=STALL_S)
        if found := _differs(shell, to, wanted):
            must(shell, ["rm", "-f", to])
            raise DriverError(
                f"{wanted['path']} has SHA-256 {found}, and the stack says {wanted['sha256']}: "
                "it is damaged or another file; get it again, or correct the stack"
            )
        return True

    def _arrived(self, shell: Shell, path: str, wanted: Props) -> bool:
        done = shell.run(["stat", "-c", "%s", path])
        return done.ok and done.out.strip() == str(wanted["size"])

    def _import(self, shell: Shell, wanted: Props) -> None:
        """Have the image as a disk in the storage."""
        host, folder = Host(shell), _importing(wanted)
        path = f"{folder}/{wanted['name']}"
        mine = self._mine(host, wanted)
        if any(_noted(row, wanted) for row in mine):
            self._drop(shell, path)
            return
        source = Path(wanted["path"])
        if wrong := _no_disk(source):
            raise DriverError(wrong)
        # Half imported, or another file's; guests' disks that are its clones live on without it.
        for row in mine:
            xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)
        self._upload(shell, folder, wanted)
        form, size = _form(source)
        made = (f"sr-uuid={host.storage()}", f"name-label={_label(wanted)}")
        uuid = xe(shell, "vdi-create", *made, f"virtual-size={size}", "type=user").strip()
        say(f"{shell.name}: importing {wanted['name']} into its storage")
        found = (f"uuid={uuid}", f"filename={path}", f"format={form}")
        xe(shell, "vdi-import", *found, timeout_s=IMPORT_S)
        noted = (f"{key}={value}" for key, value in _notes(wanted).items())
        xe(shell, "vdi-param-set", f"uuid={uuid}", *(f"other-config:{each}" for each in noted))
        self._drop(shell, path)

    def _drop(self, shell: Shell, path: str) -> None:
        """Remove a file that has been imported, or what a cut connection left of it."""
        must(shell, ["rm", "-f", path, f"{path}{PART}"])
        _leave(shell, str(PurePosixPath(path).parent))

    def _mine(self, host: Host, wanted: Props) -> list[Row]:
        return host.all("vdi", name_label=_label(wanted))


def _iso(wanted: Props) -> bool:
    name: str = wanted["name"]
    return name.endswith(".iso")


def _importing(wanted: Props) -> str:
    """Return where an image waits: beside the ISOs it would be taken for one (SM's ISOSR.py)."""
    return f"{wanted['store']}/import"


def _leave(shell: Shell, folder: str) -> None:
    """Remove ``folder`` if nobody else has anything in it."""
    if shell.run(["test", "-d", folder]).ok:
        must(shell, ["rmdir", "--ignore-fail-on-non-empty", folder])


def _differs(shell: Shell, path: str, wanted: Props) -> str:
    """Return the checksum of ``path`` there if it is not the one that the stack names."""
    if not wanted["sha256"]:
        return ""
    found = must(shell, ["sha256sum", path], timeout_s=IMPORT_S).lstrip("\\").split(" ")[0]
    return found if found != wanted["sha256"].lower() else ""


def _notes(wanted: Props) -> Row:
    """Return what an image that is complete says of itself; its owner comes last."""
    return {
        "nestlab-size": str(wanted["size"]),
        "nestlab-sha256": wanted["sha256"].lower() or "unknown",
        "nestlab": wanted["owner"],
    }


def _noted(row: Row, wanted: Props) -> bool:
    return all(entry(row["other-config"], key) == value for key, value in _notes(wanted).items())


def _no_disk(path: Path) -> str:
    """Say why the file ``path`` can't be imported."""
    try:
        with path.open("rb") as handle:
            head = handle.read(512)
    except OSError as why:
        return f"{path} can't be read: {why.strerror or why}"
    for mark, (what, remedy) in FOREIGN.items():
        if head.startswith(mark):
            return f"{path} is {what}, and XCP-ng imports raw images and dynamic VHD: {remedy}"
    if head.startswith(VHD_MARK) and head[60:64] != b"\0\0\0\3":
        return f"{path} is a VHD that is not complete by itself: merge it with its parent"
    return ""


def _form(path: Path) -> tuple[str, int]:
    """Return format and size of a disk image, as XAPI wants to be told them.

    A VHD that grows begins with a copy of its last 512 bytes, where its size stands at byte 48
    (Virtual Hard Disk Image Format Specification). One of fixed size is a raw image with these 512
    bytes behind it.
    """
    with path.open("rb") as handle:
        head = handle.read(512)
    if head.startswith(VHD_MARK):
        return "vhd", int(struct.unpack_from(">Q", head, 48)[0])
    return "raw", path.stat().st_size


# Guests -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Something of a guest that is not as wanted, and the commands that mend it."""

    text: str
    commands: Sequence[Sequence[str]]
    halted: bool = False
    """Whether the guest must not run meanwhile, or sees the change only when it starts."""


class GuestDriver:
    """See `components.remote.driver.Driver`."""

    replaced_by: tuple[str, ...] = ("name", "image", "owner")

    def problem(self, wanted: Props) -> str:
        """See `Driver.problem`."""
        models = sorted({nic["model"] for nic in wanted["nics"]})
        if unknown := [model for model in models if model not in NIC_MODELS]:
            return f"XAPI emulates no NIC {unknown[0]!r}: take {' or '.join(NIC_MODELS)}"
        if len(models) > 1:
            return f"all NICs of a guest are of one model, and {' and '.join(models)} are given"
        if len(wanted["nics"]) > MOST_NICS:
            return f"{len(wanted['nics'])} NICs given, and XAPI gives a guest {MOST_NICS} at most"
        if wanted["video"] not in VIDEO:
            return f"XAPI has no adapter {wanted['video']!r}: take {' or '.join(VIDEO)}"
        if wanted["disk_gib"] > MOST_GIB:
            return f"a disk of {wanted['disk_gib']} GiB given, and its storage ends at {MOST_GIB}"
        return self._unfit(wanted) or self._unanswered(wanted)

    def _unfit(self, wanted: Props) -> str:
        texts = [("name", wanted["name"])]
        texts += [(key, wanted[key]) for key in ("iso", "image") if wanted[key]]
        texts += [("network", nic["network"]) for nic in wanted["nics"]]
        for what, text in texts:
            if wrong := _unfit(what, text):
                return wrong
        for nic in wanted["nics"]:
            if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", nic["mac"], re.ASCII):
                return f"{nic['mac']!r} is no MAC: write it like 52:54:00:12:34:56"
        return _owner(wanted)

    def _unanswered(self, wanted: Props) -> str:
        """Dom0 asks whether a guest answers, and it is not on its internal networks."""
        ready = wanted["ready"]
        mine = [nic for nic in wanted["nics"] if nic["address"] and nic["address"] == ready["host"]]
        if ready["probe"] != "tcp" or not mine or mine[0]["network"].startswith(BRIDGE):
            return ""
        return (
            f"probe tcp asks {ready['host']} on the network {mine[0]['network']!r}, which only guests "
            "are on: set probe: none, or put its NIC with the pinned address on a bridge"
        )

    def look(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.look`."""
        return self._seen(Host(shell), wanted)

    def glance(self, shell: Shell, wanted: Props) -> Seen:
        """See `Driver.glance`."""
        return self._seen(glanced(shell), wanted)

    def _seen(self, host: Host, wanted: Props) -> Seen:
        name = wanted["name"]
        try:
            row = self._find(host, wanted)
            if row is None:
                return Seen(ok=False, text=f"guest {name} is not there any more")
            if steps := self._steps(host, row, wanted):
                found = ", ".join(step.text for step in steps)
                return Seen(ok=False, text=f"guest {name} is not as the stack says: {found}")
        except DriverError as why:
            return Seen(ok=False, text=str(why))
        state = row["power-state"]
        return Seen(ok=state == "running", text=f"guest {name} is {state}")

    def ensure(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.ensure`."""
        changed(shell)
        host = Host(shell)
        for _ in range(ROUNDS):
            host = host.again()
            row = self._find(host, wanted)
            if row is None:
                self._install(host, wanted)
                continue
            if row["power-state"] in {"suspended", "paused"}:
                self._wake(shell, row)
                continue
            steps = self._steps(host, row, wanted)
            if not steps:
                if row["power-state"] == "running":
                    return
                xe(shell, "vm-start", f"uuid={row['uuid']}", timeout_s=START_S)
                return
            if row["power-state"] != "halted" and any(step.halted for step in steps):
                texts = ", ".join(step.text for step in steps if step.halted)
                say(f"guest {wanted['name']} is stopped for a moment: {texts}")
                self._stop(shell, row["uuid"])
            for step in steps:
                for words in step.commands:
                    xe(shell, *words, timeout_s=SCAN_S)
        raise DriverError(f"guest {wanted['name']} on {shell.name} does not stay as it was set up")

    def remove(self, shell: Shell, wanted: Props) -> None:
        """See `Driver.remove`."""
        changed(shell)
        host = Host(shell)
        mine = [*self._marked(host, wanted), *host.all("vm", name_label=_label(wanted))]
        for uuid, state in {row["uuid"]: row["power-state"] for row in mine}.items():
            if state != "halted":
                xe(shell, "vm-shutdown", f"uuid={uuid}", "--force", timeout_s=START_S)
            kept = xe(shell, "snapshot-list", f"snapshot-of={uuid}", "params=uuid", "--minimal")
            for snapshot in filter(None, kept.strip().split(",")):
                xe(shell, "snapshot-destroy", f"uuid={snapshot}", timeout_s=START_S)
            xe(shell, "vm-destroy", f"uuid={uuid}")
        for row in Host(shell).all("vdi", name_label=_label(wanted)):
            # One that is plugged into something belongs to a clone that somebody made.
            if not row["vbd-uuids"]:
                xe(shell, "vdi-destroy", f"uuid={row['uuid']}", timeout_s=SCAN_S)

    # What is there ------------------------------------------------------------------------------

    def _marked(self, host: Host, wanted: Props) -> list[Row]:
        return [
            row
            for row in host.all("vm")
            if entry(row["other-config"], "nestlab") == wanted["owner"]
            and entry(row["other-config"], "nestlab-self") == row["uuid"]
        ]

    def _find(self, host: Host, wanted: Props) -> Row | None:
        """Return the guest, or one that was only just begun."""
        mine = self._marked(host, wanted) or host.all("vm", name_label=_label(wanted))
        return mine[0] if mine else None

    def _steps(self, host: Host, row: Row, wanted: Props) -> list[Step]:
        """Return all that is not as wanted, in the order in which it is to be mended."""
        return [
            *self._settings(host, row, wanted),
            *self._size(row, wanted),
            *self._nics(host, row, wanted),
            *self._cds(host, row, wanted),
            *self._disk(host, row, wanted),
        ]

    def _settings(self, host: Host, row: Row, wanted: Props) -> list[Step]:
        uuid, other = row["uuid"], row["other-config"]
        booting, platform = row["HVM-boot-params"], row["platform"]
        own = "other-config:nestlab"
        # Which guest it is comes first: what is half made keeps its long name until then.
        soon = [
            ("its mark", entry(other, "nestlab-self"), f"{own}-self", uuid),
            ("its mark", entry(other, "nestlab"), own, wanted["owner"]),
            ("its name", row["name-label"], "name-label", wanted["name"]),
            (
                "boot order",
                entry(booting, "order"),
                "HVM-boot-params:order",
                "".join(BOOT[each] for each in wanted["boot"]),
            ),
            (
                "autostart",
                entry(other, "auto_poweron") or "false",
                "other-config:auto_poweron",
                "true" if wanted["autostart"] else "false",
            ),
        ]
        halted = [
            (
                "firmware",
                entry(booting, "firmware") or "bios",
                "HVM-boot-params:firmware",
                wanted["firmware"],
            ),
            ("graphics adapter", entry(platform, "vga"), "platform:vga", VIDEO[wanted["video"]]),
        ]
        if wanted["nics"]:
            found = entry(platform, "nic_type") or NIC_MODELS[0]
            halted.append(("NIC model", found, "platform:nic_type", wanted["nics"][0]["model"]))
        steps = []
        for settings, stops in ((soon, False), (halted, True)):
            wrong = [(text, f"{key}={value}") for text, has, key, value in settings if has != value]
            if wrong:
                text = ", ".join(dict.fromkeys(text for text, _ in wrong))
                command = ("vm-param-set", f"uuid={uuid}", *(word for _, word in wrong))
                steps.append(Step(text, [command], stops))
        pool = host.pool()
        if wanted["autostart"] and entry(pool["other-config"], "auto_poweron") != "true":
            pooled = ("pool-param-set", f"uuid={pool['uuid']}", "other-config:auto_poweron=true")
            steps.append(Step("autostart of its host", [pooled]))
        return steps

    def _size(self, row: Row, wanted: Props) -> list[Step]:
        uuid, steps = row["uuid"], []
        size = str(wanted["memory_mib"] * MIB)
        limits = ("static-min", "dynamic-min", "dynamic-max", "static-max")
        if any(row[f"memory-{each}"] != size for each in limits):
            words = [f"{each}={size}" for each in limits]
            command = ("vm-memory-limits-set", f"uuid={uuid}", *words)
            steps.append(Step("memory", [command], halted=True))
        cores = wanted["cores"]
        most, first = int(row["VCPUs-max"]), int(row["VCPUs-at-startup"])
        if (most, first) != (cores, cores):
            words = [f"VCPUs-max={cores}", f"VCPUs-at-startup={cores}"]
            # The one may never be more than the other, not even for a moment.
            ordered = words if cores >= first else words[::-1]
            steps.append(Step("cores", [("vm-param-set", f"uuid={uuid}", *ordered)], halted=True))
        return steps

    def _nics(self, host: Host, row: Row, wanted: Props) -> list[Step]:
        want = {
            str(number): (nic["mac"].lower(), host.network(nic["network"]))
            for number, nic in enumerate(wanted["nics"])
        }
        steps, kept = [], set()
        for vif in host.all("vif", vm_uuid=row["uuid"]):
            device = vif["device"]
            if want.get(device) == (vif["MAC"].lower(), vif["network-uuid"]):
                kept.add(device)
            else:
                gone = ("vif-destroy", f"uuid={vif['uuid']}")
                steps.append(Step(f"NIC {device}", [gone], halted=True))
        for device, (mac, network) in want.items():
            if device not in kept:
                where = (f"vm-uuid={row['uuid']}", f"device={device}")
                made = ("vif-create", *where, f"network-uuid={network}", f"mac={mac}")
                steps.append(Step(f"NIC {device}", [made], halted=True))
        return steps

    def _cds(self, host: Host, row: Row, wanted: Props) -> list[Step]:
        """Media are changed while a guest runs; only a drive that it never had needs a start."""
        vdi = ""
        if wanted["iso"]:
            found = host.iso(wanted["iso"])
            if found is None:
                raise DriverError(f"{host.shell.name} has no medium {wanted['iso']} any more")
            vdi = found["uuid"]
        drives = sorted(
            host.all("vbd", vm_uuid=row["uuid"], type="CD"), key=lambda each: each["userdevice"]
        )
        steps = []
        if vdi and not drives:
            where = (f"vm-uuid={row['uuid']}", f"device={CD_DEVICE}", "type=CD", "mode=RO")
            steps.append(Step("CD drive", [("vbd-create", *where, f"vdi-uuid={vdi}")], halted=True))
        for number, drive in enumerate(drives):
            wants, full = vdi if number == 0 else "", drive["empty"] != "true"
            if (drive["vdi-uuid"] if full else "") == wants:
                continue
            uuid = f"uuid={drive['uuid']}"
            commands: list[Sequence[str]] = [("vbd-eject", uuid)] if full else []
            if wants:
                commands.append(("vbd-insert", uuid, f"vdi-uuid={wants}"))
            steps.append(Step("medium in its CD drive", commands))
        return steps

    def _disk(self, host: Host, row: Row, wanted: Props) -> list[Step]:
        size = wanted["disk_gib"] * GIB
        plugs = {
            vbd["vdi-uuid"]: vbd["userdevice"]
            for vbd in host.all("vbd", vm_uuid=row["uuid"], type="Disk")
        }
        mine = host.all("vdi", name_label=_label(wanted), is_a_snapshot="false")
        plugged = [vdi for vdi in mine if vdi["uuid"] in plugs]
        if not size and not wanted["image"]:
            if plugged:
                raise DriverError(
                    f"guest {wanted['name']} has a disk, and the stack says none: what is on it "
                    "would be lost; give disk_gib again, or rename the guest to make it anew"
                )
            return []
        if plugged:
            return self._grow(plugged[0], size, wanted)
        loose = [vdi for vdi in mine if not vdi["vbd-uuids"]]
        if not loose:
            return [Step("disk", [self._new_disk(host, size, wanted)])]
        if "0" in plugs.values():
            raise DriverError(
                f"guest {wanted['name']} on {host.shell.name} has a disk in the place of its own "
                f"{loose[0]['uuid']}: detach it (`xe vbd-list vm-uuid={row['uuid']}`)"
            )
        where = (f"vm-uuid={row['uuid']}", "device=0", "type=Disk", "mode=RW", "bootable=true")
        plug = ("vbd-create", *where, f"vdi-uuid={loose[0]['uuid']}")
        return [*self._grow(loose[0], size, wanted), Step("disk", [plug], halted=True)]

    def _grow(self, vdi: Row, size: int, wanted: Props) -> list[Step]:
        has = int(vdi["virtual-size"])
        if size > has:
            command = ("vdi-resize", f"uuid={vdi['uuid']}", f"disk-size={size}")
            return [Step("size of its disk", [command], halted=True)]
        if size and size < has:
            raise DriverError(
                f"the disk of guest {wanted['name']} has {has / GIB:g} GiB and the stack says "
                f"{size // GIB}: disks don't shrink; write disk_gib: {-(-has // GIB)} or more"
                + (", or none for as much as its image has" if wanted["image"] else "")
            )
        return []

    def _new_disk(self, host: Host, size: int, wanted: Props) -> Sequence[str]:
        if not wanted["image"]:
            where = (f"sr-uuid={host.storage()}", f"name-label={_label(wanted)}")
            return ("vdi-create", *where, f"virtual-size={size}", "type=user")
        image = host.image(wanted["image"])
        if image is None:
            raise DriverError(f"{host.shell.name} has no image {wanted['image']} any more")
        if size and size < (has := int(image["virtual-size"])):
            raise DriverError(
                f"guest {wanted['name']}: its image has {has / GIB:g} GiB and the stack says "
                f"{size // GIB}: write disk_gib: {-(-has // GIB)} or more, or none"
            )
        return ("vdi-clone", f"uuid={image['uuid']}", f"new-name-label={_label(wanted)}")

    # Doing --------------------------------------------------------------------------------------

    def _install(self, host: Host, wanted: Props) -> None:
        others = host.all("vm", name_label=wanted["name"])
        _strangers(host.shell, "guest", "vm", wanted, others)
        made = (f"template={TEMPLATE}", f"new-name-label={_label(wanted)}")
        xe(host.shell, "vm-install", *made, timeout_s=START_S)

    def _wake(self, shell: Shell, row: Row) -> None:
        how = "vm-resume" if row["power-state"] == "suspended" else "vm-unpause"
        xe(shell, how, f"uuid={row['uuid']}", timeout_s=START_S)

    def _stop(self, shell: Shell, uuid: str) -> None:
        """Ask the guest to end; one without Xen's tools, or that does not, is switched off."""
        with suppress(Unreachable, DriverError):
            xe(shell, "vm-shutdown", f"uuid={uuid}", timeout_s=STOP_S)
        state = xe(shell, "vm-param-get", f"uuid={uuid}", "param-name=power-state").strip()
        if state != "halted":
            xe(shell, "vm-shutdown", f"uuid={uuid}", "--force", timeout_s=START_S)


DRIVERS: dict[str, Driver] = {
    "network": NetworkDriver(),
    "medium": MediumDriver(),
    "guest": GuestDriver(),
}
