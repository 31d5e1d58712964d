"""Guests of Workstation: a folder with a .vmx that is written here and rewritten by VMware.

It is changed only while the guest is off. Whose it is says a file beside it, and the guest's notes
say so too. Snapshots, shared folders, VMware Tools and linked clones (made only of a guest with a
snapshot, and never larger than that) are left out.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.workstation import console as serial
from components.kinds.workstation import data, vmrun
from components.kinds.workstation.names import MAC, NAME, PLUG, bad_store, unquotable
from components.kinds.workstation.vmrun import CLAIMS, COPY_S
from components.kinds.workstation.vmx import (
    DATA,
    DISCS,
    DISK,
    MOST_CORES,
    MOST_NICS,
    NICS,
    SLOTS,
    TRUE,
    disk_in_use,
    has_disk,
    merged,
    parsed,
    same,
    secrets,
    settings,
    unknown,
)
from components.reach.driver import COMMAND_S, Driver, DriverError, foreign, strange
from components.reach.linux_host import WANTS, Unit
from components.reach.orders import GuestOrder
from components.reach.shell import Unreachable
from components.reach.vmx import ill_named
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from components.reach.shell import Shell

START_S = 300.0
STOP_S = 90.0
"""How long a guest may take to shut down before its settings change, seconds; with VMware Tools only."""
OFF_S = 30.0
"""How long VMware may take after a guest's end to write its settings and let go of them, seconds."""
UNIT = "nestlab-workstation"
UNIT_TEXT = """\
[Unit]
Description=VMware Workstation guest %i of nestlab
After=network-online.target vmware.service vmware-networks.service
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
# VMware's settings of root; systemd sets no home for system services.
Environment=HOME=/root
KillMode=process
ExecStart=/usr/bin/vmrun -T ws start {store}/guests/%i/{vmx} nogui

[Install]
WantedBy=multi-user.target
"""

MARK = "nestlab.owner"
VMX = "guest.vmx"
COMPLETE = "disk.complete"
"""Says that the disk was made to its end."""


def folder(wanted: GuestOrder) -> str:
    """Return where everything of a guest lies."""
    return f"{wanted.store}/guests/{wanted.name}"


def _gone(wanted: GuestOrder) -> str:
    """Return where a guest goes before it is removed, so that no half of it is in the way."""
    return f"{wanted.store}/guests/.{wanted.owner}.gone"


@dataclass(frozen=True)
class GuestFolder:
    """A guest's folder as it is."""

    owner: str
    text: str
    """Its .vmx."""
    listed: Mapping[str, str]
    on: bool
    sizes: Mapping[str, int]
    """GiB of its further disks, as they were made."""
    vmx: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vmx", parsed(self.text))

    @property
    def saved(self) -> bool:
        """Whether it was suspended: VMware names the file that it goes on from."""
        return bool(self.vmx.get("checkpoint.vmstate")) and not self.on


class GuestDriver(Driver[GuestOrder]):
    """Its answer to a glance is that to a look: three commands that are quick.

    That a guest is paused, vmrun does not tell.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "image", "disk_gib", "store", "owner")

    @override
    def problem(self, wanted: GuestOrder) -> str:
        name = wanted.name
        if not NAME.fullmatch(name):
            return (
                f"guest {name!r}: VMware's commands and systemd take it as a path, so it has to have 1 "
                "to 64 ASCII letters, digits and ._- and begin with a letter or digit: rename it"
            )
        console = wanted.console
        texts = [
            (wanted.iso, "medium"),
            (wanted.image, "medium"),
            *((each, "medium") for each in (wanted.seed, *wanted.discs)),
            (console.listen, "address"),
        ]
        found = (unquotable(text, what) for text, what in texts)
        wrong = next(filter(None, found), "") or strange(wanted.owner) or bad_store(wanted)
        wrong = wrong or serial.impossible(wanted.store, name)
        if wrong:
            return wrong
        if unquotable(console.password, ""):
            return "its console's password holds a letter beyond ASCII's printable ones"
        return next(self._unsuited(wanted), "")

    def _too_many(self, wanted: GuestOrder) -> Iterator[str]:
        """Yield of which drives it has more than it has places for."""
        for what, those, places in (
            ("discs", wanted.discs, DISCS),
            ("further disks", wanted.disks, DATA),
        ):
            if len(those) > len(places):
                yield f"{len(those)} {what}: {len(places)} have a place on its SATA controller"

    def _unsuited(self, wanted: GuestOrder) -> Iterator[str]:
        """Yield what of it Workstation does not have."""
        if wanted.disk_bus not in {*SLOTS, ""}:
            yield f"disk_bus {wanted.disk_bus}: Workstation has {', '.join(SLOTS)} here"
        for nic in wanted.nics:
            if nic.model not in {*NICS, ""}:
                yield f"NIC model {nic.model}: Workstation has {', '.join(NICS)}"
            if not MAC.fullmatch(nic.mac):
                yield f"{nic.mac!r} is no MAC"
            if not PLUG.fullmatch(nic.network):
                yield f"{nic.network!r} is no network of Workstation's"
        if len(wanted.nics) > MOST_NICS:
            yield f"{len(wanted.nics)} NICs: Workstation gives a guest {MOST_NICS} at most"
        yield from self._too_many(wanted)
        yield from filter(None, (ill_named(disk.name) for disk in wanted.disks))
        if wanted.cores > MOST_CORES:
            yield f"{wanted.cores} cores: Workstation gives a guest {MOST_CORES} at most"
        if wanted.memory_mib % 4:
            yield f"{wanted.memory_mib} MiB: Workstation gives memory in steps of 4 MiB"

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        name = wanted.name
        found = self._found(shell, wanted)
        if found.owner != wanted.owner or not found.text:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if self._lost(wanted, found):
            return Seen(ok=False, text=f"guest {name}: its disk is not there any more")
        try:
            plugs = self._plugs(wanted, found.listed, shell)
        except DriverError as unplugged:
            return Seen(ok=False, text=str(unplugged))
        if other := self._other(wanted, found, plugs):
            return Seen(ok=False, text=f"guest {name} is not set up as the stack says: {other}")
        if self._starts_with_host(wanted, found) is not wanted.autostart:
            return Seen(ok=False, text=f"guest {name}: whether it starts with its host has changed")
        state = "running" if found.on else "suspended" if found.saved else "off"
        return Seen(ok=found.on, text=f"guest {name} is {state}")

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        found = self._found(shell, wanted)
        if found.owner != wanted.owner:
            self._take(shell, wanted, found)
        plugs = self._plugs(wanted, found.listed, shell)
        lost = self._lost(wanted, found)
        other = "its disk is gone" if lost else self._other(wanted, found, plugs)
        if other:
            data.refuse(wanted, folder(wanted), found.listed, found.sizes)
            found = self._off(shell, wanted, found, other, lost=lost)
            if lost:
                self._make_disk(shell, wanted, found)
            data.fit(shell, wanted, folder(wanted), found.listed, found.sizes)
            self._write(shell, wanted, found, plugs, lost=lost)
            data.drop(shell, wanted, folder(wanted), found.listed)
        if not found.on:
            self._start(shell, wanted)
        self._start_with_host(shell, wanted, found)

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        found = self._found(shell, wanted)
        if found.owner == wanted.owner:
            if found.on:
                self._stop_hard(shell, wanted)
            vmrun.must(shell, "rm", "-rf", "--one-file-system", _gone(wanted))
            # At once: a folder that lost its mark on the way would be taken for a stranger's.
            vmrun.must(shell, "mv", "-T", folder(wanted), _gone(wanted))
        if found.owner in {"", wanted.owner} and self._starts_with_host(wanted, found):
            _unit(wanted).switch(shell, wanted.name, on=False)
        vmrun.must(shell, "rm", "-rf", "--one-file-system", _gone(wanted))

    # What it is

    def _found(self, shell: Shell, wanted: GuestOrder) -> GuestFolder:
        home = folder(wanted)
        marks = {disk.name: f"{home}/{data.mark(disk.name)}" for disk in wanted.disks}
        files = vmrun.read(shell, f"{home}/{MARK}", f"{home}/{VMX}", *marks.values())
        sizes = {name: files.get(path, "").strip() for name, path in marks.items()}
        running = vmrun.run(shell, "list").splitlines()
        return GuestFolder(
            owner=files.get(f"{home}/{MARK}", "").strip(),
            text=files.get(f"{home}/{VMX}", ""),
            listed=vmrun.listed(shell, home, CLAIMS, WANTS),
            on=f"{home}/{VMX}" in running,
            sizes={name: int(size) for name, size in sizes.items() if size.isdigit()},
        )

    def _lost(self, wanted: GuestOrder, found: GuestFolder) -> bool:
        home = folder(wanted)
        needed = {f"{home}/{COMPLETE}", f"{home}/{DISK}"}
        return has_disk(wanted) and not needed <= found.listed.keys()

    def _plugs(self, wanted: GuestOrder, listed: Mapping[str, str], shell: Shell) -> list[str]:
        """Return the networks of its NICs, as their host calls them."""
        plugs = []
        for nic in wanted.nics:
            network = nic.network
            vmnet = vmrun.number(listed, network[3:]) if network.startswith("of ") else network
            if not vmnet:
                raise DriverError(f"guest {wanted.name}: its network is not there on {shell.name}")
            plugs.append(vmnet)
        return plugs

    def _other(self, wanted: GuestOrder, found: GuestFolder, plugs: Sequence[str]) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        has = found.vmx
        for key, value in settings(wanted, plugs, disk_in_use(has), has).items():
            if not same(has.get(key.lower(), ""), value):
                return f"{key} is {has.get(key.lower(), 'not set')!r} and not {value!r}"
        for key in unknown(wanted, has):
            return f"{key} is {TRUE!r}"
        locked = any(has.get(f"remotedisplay.vnc.{key}") for key in ("password", "key"))
        if locked is not bool(secrets(wanted)["RemoteDisplay.vnc.password"]):
            return "whether its screen asks for a password has changed"
        return data.wrong(wanted, folder(wanted), found.listed, found.sizes)

    # What is done to it

    def _take(self, shell: Shell, wanted: GuestOrder, found: GuestFolder) -> None:
        """Mark the guest's folder, which is new or empty, as the owner's."""
        home = folder(wanted)
        inside = [each for each in found.listed if each.startswith(f"{home}/")]
        if any(not each.startswith(f"{home}/{MARK}.") for each in inside):
            raise foreign(shell, home, "rename the guest in the stack, or remove that folder there")
        vmrun.must(shell, "mkdir", "-p", f"{wanted.store}/guests")
        vmrun.must(shell, "mkdir", "-p", "-m", "700", home)
        owner = f"{wanted.owner}\n".encode()
        shell.put(owner, f"{home}/{MARK}", mode=0o600, timeout_s=COMMAND_S)

    def _off(
        self, shell: Shell, wanted: GuestOrder, found: GuestFolder, why: str, *, lost: bool
    ) -> GuestFolder:
        """Return the guest as it is once it is off, for a change."""
        if not found.on and (lost or not found.saved):
            return found
        name = wanted.name
        say(f"{name}: stopped for a change: {why}")
        if found.saved:
            # What it holds in memory would not fit to other hardware; so it goes on, and shuts down.
            self._start(shell, wanted)
        if not lost and self._shuts_down(shell, wanted):
            return self._found(shell, wanted)
        if not lost:
            say(f"{name}: it did not shut down by itself, and is switched off")
        self._stop_hard(shell, wanted)
        return self._found(shell, wanted)

    def _shuts_down(self, shell: Shell, wanted: GuestOrder) -> bool:
        """Ask it to shut down; VMware asks its Tools in the guest, which may not be there."""
        argv = ["vmrun", "-T", "ws", "stop", f"{folder(wanted)}/{VMX}", "soft"]
        with suppress(Unreachable, NotReady):
            shell.run(argv, timeout_s=STOP_S)
            return self._ends(shell, wanted)
        return False

    def _stop_hard(self, shell: Shell, wanted: GuestOrder) -> None:
        argv = ["vmrun", "-T", "ws", "stop", f"{folder(wanted)}/{VMX}", "hard"]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if not self._ends(shell, wanted):
            raise vmrun.refused(shell, argv, done)

    def _ends(self, shell: Shell, wanted: GuestOrder) -> bool:
        """Whether it is off, and VMware done with its settings."""
        home = folder(wanted)
        if f"{home}/{VMX}" in vmrun.run(shell, "list").splitlines():
            return False

        def let_go() -> Seen:
            held = f"{home}/{VMX}.lck" in vmrun.listed(shell, home)
            return Seen(ok=not held, text="VMware has its settings open")

        # A lock that a crash left would be there for ever, and means nothing.
        with suppress(NotReady):
            wait_for(wanted.name, let_go, deadline_s=OFF_S)
        return True

    def _make_disk(self, shell: Shell, wanted: GuestOrder, found: GuestFolder) -> None:
        """Make the disk anew, and clear away what belonged to another one: snapshots, saved memory."""
        home = folder(wanted)
        keep = {home, f"{home}/{MARK}", f"{home}/{VMX}"}
        old = sorted(
            each
            for each in found.listed
            if each.startswith(f"{home}/")
            and each not in keep
            and not each.startswith(f"{home}/{data.OWN}")
        )
        # What says that it is complete goes first.
        old.sort(key=lambda each: not each.endswith(f"/{COMPLETE}"))
        if old:
            vmrun.must(shell, "rm", "-rf", "--one-file-system", *old)
        path, size = f"{home}/{DISK}", wanted.disk_gib
        if wanted.image:
            form = ["-O", "vmdk", "-o", "adapter_type=lsilogic,subformat=monolithicSparse"]
            vmrun.must(shell, "qemu-img", "convert", *form, wanted.image, path, timeout_s=COPY_S)
            if size << 30 > self._capacity(shell, wanted.image):
                vmrun.must(shell, "vmware-vdiskmanager", "-x", f"{size}GB", path, timeout_s=COPY_S)
        else:
            how = ["-c", "-s", f"{size}GB", "-a", "lsilogic", "-t", "0"]
            vmrun.must(shell, "vmware-vdiskmanager", *how, path, timeout_s=COPY_S)
        vmrun.must(shell, "touch", f"{home}/{COMPLETE}")

    def _capacity(self, shell: Shell, image: str) -> int:
        told = vmrun.must(shell, "qemu-img", "info", "--output=json", image)
        return int(json.loads(told)["virtual-size"])

    def _write(
        self,
        shell: Shell,
        wanted: GuestOrder,
        found: GuestFolder,
        plugs: Sequence[str],
        *,
        lost: bool,
    ) -> None:
        vmdk = DISK if lost else disk_in_use(found.vmx)
        new = (
            settings(wanted, plugs, vmdk, found.vmx) | unknown(wanted, found.vmx) | secrets(wanted)
        )
        if lost:
            new["checkpoint.vmState"] = ""
        # A disk that comes back under its name is another one: a snapshot of the old one has gone with it.
        empty = (f"{slot}.fileName" for slot in DATA[len(wanted.disks) :])
        new |= {key: "" for key in empty if found.vmx.get(key.lower())}
        text = merged(found.text, new).encode()
        # For root alone: it holds the password of its screen.
        shell.put(text, f"{folder(wanted)}/{VMX}", mode=0o600, timeout_s=COMMAND_S)

    def _start(self, shell: Shell, wanted: GuestOrder) -> None:
        vmx = f"{folder(wanted)}/{VMX}"
        argv = ["vmrun", "-T", "ws", "start", vmx, "nogui"]
        with vmrun.networks_lock:
            done = shell.run(argv, timeout_s=START_S)
        # A start that was cut off and went on is a start.
        if vmrun.failed(done) and vmx not in vmrun.run(shell, "list").splitlines():
            raise vmrun.refused(shell, argv, done)

    # Whether it starts with its host, for which Workstation on Linux has nothing.

    def _starts_with_host(self, wanted: GuestOrder, found: GuestFolder) -> bool:
        return f"{WANTS}/{_unit(wanted).of(wanted.name)}" in found.listed

    def _start_with_host(self, shell: Shell, wanted: GuestOrder, found: GuestFolder) -> None:
        on = wanted.autostart
        if self._starts_with_host(wanted, found) is not on:
            _unit(wanted).switch(shell, wanted.name, on=on)


def _unit(wanted: GuestOrder) -> Unit:
    return Unit(UNIT, UNIT_TEXT.format(store=wanted.store, vmx=VMX), vmrun.CAUSES)


DRIVER = GuestDriver()
