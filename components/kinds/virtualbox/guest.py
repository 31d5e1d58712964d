"""Guests of VirtualBox: made, changed while they are off, started, and removed with their disk.

A guest has the owner's UUID as its own, so that it is marked from its first moment. Port forwarding,
snapshots and shared folders are left out.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.virtualbox import console, data, vboxmanage
from components.kinds.virtualbox.hardware import (
    OPTIONS,
    OWN,
    disk,
    drives,
    fits,
    folder,
    impossible,
    settings,
)
from components.kinds.virtualbox.vboxmanage import COPY_S
from components.reach import linux_host, picture
from components.reach.driver import Driver, DriverError, strange
from components.reach.orders import GuestOrder
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.reach.shell import Shell

STOP_S = 60.0
"""How long a guest may take to switch itself off before its settings change, seconds."""
SETTLE_S = 120.0
"""How long a guest may be between two states, seconds: saving gigabytes takes its time."""
# VirtualBox' own service for this needs a database and a user.
UNIT = linux_host.Unit(
    "nestlab-virtualbox",
    """\
[Unit]
Description=VirtualBox guest %i of nestlab
After=network-online.target vboxdrv.service virtualbox.service
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
# VirtualBox' settings of root; systemd sets no home for system services.
Environment=HOME=/root
# VirtualBox' own server is started by the first guest and serves all.
KillMode=process
ExecStart=/usr/bin/VBoxManage startvm %i --type headless

[Install]
WantedBy=multi-user.target
""",
    vboxmanage.CAUSES,
)
INACCESSIBLE = "<inaccessible>"
"""How VirtualBox calls a guest whose settings it can't read."""
OFF = frozenset({"poweroff", "aborted", "teleported"})
SAVED = frozenset({"saved", "aborted-saved"})
ON = frozenset({"running", "paused", "gurumeditation"})


class GuestDriver(Driver[GuestOrder]):
    """Its answer to a glance is that to a look: two or three commands that are quick."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "image", "disk_gib", "store", "owner")

    @override
    def problem(self, wanted: GuestOrder) -> str:
        name = wanted.name
        if wrong := vboxmanage.unfit(name, f"guest {name!r}") or strange(wanted.owner):
            return wrong
        if wrong := impossible(wanted):
            return wrong
        for path in (wanted.iso, wanted.image, wanted.seed, *wanted.discs, wanted.store):
            if not str(path).isprintable():
                return f"the path {path!r} holds a letter that does not print: rename the medium"
        return ""

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        name = wanted.name
        info = vboxmanage.info(shell, wanted.owner)
        if info is None:
            return Seen(ok=False, text=f"guest {name} is not there any more")
        if disk(wanted) and not shell.run(["test", "-e", disk(wanted)]).ok:
            return Seen(ok=False, text=f"guest {name}: its disk is not there any more")
        try:
            plugs = [self._plug(shell, nic.network) for nic in wanted.nics]
        except DriverError as unplugged:
            return Seen(ok=False, text=f"guest {name}: {unplugged}")
        if other := self._other(wanted, info, plugs) or data.wrong(shell, wanted):
            return Seen(ok=False, text=f"guest {name} is not set up as the stack says: {other}")
        if changed := self._services(shell, wanted):
            return Seen(ok=False, text=f"guest {name}: {changed}")
        state = info.get("VMState", "in an unknown state")
        return Seen(ok=state == "running", text=f"guest {name} is {state}")

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        plugs = [self._plug(shell, nic.network) for nic in wanted.nics]
        info = self._settled(shell, wanted)
        if info and info["name"] == INACCESSIBLE:
            vboxmanage.must(shell, "unregistervm", wanted.owner)
            info = None
        info = info or self._created(shell, wanted)
        lost = self._lost(shell, wanted, info)
        other = self._other(wanted, info, plugs) or data.wrong(shell, wanted)
        if other or lost:
            if info["VMState"] not in OFF:
                say(f"{wanted.name}: stopped for a change: {other or 'its disk is gone'}")
                self._stop(shell, wanted, gently=True)
            if lost:
                self._make_disk(shell, wanted, info)
            data.fit(shell, wanted, dict(vboxmanage.plugged(info)))
            info = vboxmanage.info(shell, wanted.owner) or info
            self._set(shell, wanted, info, plugs)
            data.drop(shell, wanted)
        console.reader(wanted.store).set(shell, wanted.owner, on=True)
        self._start(shell, wanted)
        UNIT.set(shell, wanted.owner, on=wanted.autostart)

    @override
    def picture(self, shell: Shell, wanted: GuestOrder) -> bytes:
        # VBoxManage(1), controlvm.
        words = ("VBoxManage", "controlvm", wanted.owner, "screenshotpng")
        return picture.taken(shell, lambda file: [*words, file])

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        UNIT.set(shell, wanted.owner, on=False)
        console.reader(wanted.store).set(shell, wanted.owner, on=False)
        if self._settled(shell, wanted) is not None:
            self._stop(shell, wanted, gently=False)
            # Not --delete, which takes along whatever somebody has plugged in by hand.
            vboxmanage.must(shell, "unregistervm", wanted.owner)
        elif not shell.run(["test", "-e", folder(wanted)]).ok:
            return
        vboxmanage.close(shell, "disk", f"{folder(wanted)}/disk.vdi")
        data.forget(shell, wanted)
        vboxmanage.plain(shell, "rm", "-rf", "--one-file-system", folder(wanted))

    # What it is

    def _services(self, shell: Shell, wanted: GuestOrder) -> str:
        """Say what its host's services do otherwise than wanted, empty for nothing."""
        if UNIT.starts(shell, wanted.owner) is not wanted.autostart:
            return "whether it starts with its host has changed"
        if not console.reader(wanted.store).starts(shell, wanted.owner):
            return "nobody reads its serial port, where it waits"
        return ""

    def _settled(self, shell: Shell, wanted: GuestOrder) -> dict[str, str] | None:
        """Return what it is once it is in a state that lasts."""
        info: dict[str, str] | None = None

        def lasts() -> Seen:
            nonlocal info
            info = vboxmanage.info(shell, wanted.owner)
            # One that VirtualBox can't read the settings of has none.
            state = info.get("VMState", "poweroff") if info else "poweroff"
            return Seen(ok=state in OFF | SAVED | ON, text=f"guest is {state}")

        try:
            wait_for(wanted.name, lasts, deadline_s=SETTLE_S)
        except NotReady as late:
            raise DriverError(f"{late} on {shell.name}") from None
        return info

    def _plug(self, shell: Shell, network: str) -> tuple[str, str]:
        """Return how a NIC is plugged into ``network``, and into which."""
        how, _, which = network.partition(" ")
        if how == "hostonly":
            which = vboxmanage.remembered(shell, which)
        elif how == "bridged":
            which = which or vboxmanage.uplink(shell)
        if not which:
            raise DriverError(f"its {how} network is not there on {shell.name}")
        return how, which

    def _other(
        self, wanted: GuestOrder, info: Mapping[str, str], plugs: Sequence[tuple[str, str]]
    ) -> str:
        """Say what of it is not as wanted, empty for nothing."""
        for key, _, shown in settings(wanted, plugs):
            if info.get(key) != shown:
                return f"{key} is {info.get(key, 'not set')!r} and not {shown!r}"
        for key in self._more_nics(wanted, info):
            return f"{key} is {info[key]!r} and not 'none'"
        return self._other_drives(wanted, info)

    def _more_nics(self, wanted: GuestOrder, info: Mapping[str, str]) -> list[str]:
        count = len(wanted.nics)
        found = (re.fullmatch(r"nic(\d+)", key) for key in info)
        return [
            number[0]
            for number in found
            if number and int(number[1]) > count and info[number[0]] != "none"
        ]

    def _other_drives(self, wanted: GuestOrder, info: Mapping[str, str]) -> str:
        has = dict(vboxmanage.controllers(info))
        plugged = dict(vboxmanage.plugged(info))
        for drive in drives(wanted):
            controller = drive.controller
            if has.get(controller.name) != controller.shown:
                return f"it has no {controller.shown} controller {controller.name}"
            found = plugged.pop(drive.key, "none")
            if not fits(drive, found, info):
                return f"{drive.key} holds {found} and not {drive.path}"
        return next((f"{key} holds {path}" for key, path in plugged.items()), "")

    # What is done to it

    def _created(self, shell: Shell, wanted: GuestOrder) -> dict[str, str]:
        name, owner = wanted.name, wanted.owner
        if vboxmanage.named(shell, name):
            raise vboxmanage.foreign(
                shell, f"a guest {name}", f"unregistervm {shlex.quote(name)} --delete"
            )
        base = f"{folder(wanted)}/settings"
        # What was cut off before it was registered is in the way; the disk lies beside it.
        vboxmanage.plain(shell, "rm", "-rf", "--one-file-system", base)
        vboxmanage.plain(shell, "mkdir", "-p", base)
        how = ["--ostype", "Other_64", "--uuid", owner, "--basefolder", base, "--register"]
        vboxmanage.must(shell, "createvm", "--name", name, *how)
        info = vboxmanage.info(shell, wanted.owner)
        if info is None:
            raise DriverError(f"guest {name} on {shell.name} is not there after it was made")
        return info

    def _lost(self, shell: Shell, wanted: GuestOrder, info: Mapping[str, str]) -> bool:
        """Whether its disk is not there, or was not made to its end."""
        path = disk(wanted)
        if not path:
            return False
        if not shell.run(["test", "-e", path]).ok:
            return True
        # One that is plugged in was whole.
        plugged = path in dict(vboxmanage.plugged(info)).values()
        return not plugged and not shell.run(["test", "-e", self._complete(wanted)]).ok

    def _complete(self, wanted: GuestOrder) -> str:
        """Return the file that says that the disk was made to its end."""
        return f"{folder(wanted)}/disk.complete"

    def _make_disk(self, shell: Shell, wanted: GuestOrder, info: Mapping[str, str]) -> None:
        path, size = disk(wanted), wanted.disk_gib * 1024
        for key, held in vboxmanage.plugged(info):
            if held == path:
                vboxmanage.unplug(shell, wanted.owner, key)
        vboxmanage.plain(shell, "rm", "-f", self._complete(wanted))
        vboxmanage.close(shell, "disk", path)
        vboxmanage.plain(shell, "rm", "-f", path)
        base = wanted.image
        if not base:
            vboxmanage.must(shell, "createmedium", "disk", "--filename", path, "--size", str(size))
        elif size <= vboxmanage.capacity(shell, base):
            vboxmanage.must(shell, "createmedium", "disk", "--filename", path, "--diffparent", base)
        else:
            # What is linked has its base's size for ever: a larger one is a copy.
            copy = ["clonemedium", "disk", base, path, "--format", "VDI"]
            vboxmanage.must(shell, *copy, timeout_s=COPY_S)
            vboxmanage.must(
                shell, "modifymedium", "disk", path, "--resize", str(size), timeout_s=COPY_S
            )
        vboxmanage.plain(shell, "touch", self._complete(wanted))

    def _set(
        self,
        shell: Shell,
        wanted: GuestOrder,
        info: Mapping[str, str],
        plugs: Sequence[tuple[str, str]],
    ) -> None:
        words = []
        for key, value, shown in settings(wanted, plugs):
            if info.get(key) != shown:
                name, number = re.fullmatch(r"(.*?)(\d*)", key).groups()  # type: ignore[union-attr]
                words += [f"--{OPTIONS.get(name, name)}{number}", *value]
        for key in self._more_nics(wanted, info):
            words += [f"--{key}", "none"]
        if words:
            vboxmanage.must(shell, "modifyvm", wanted.owner, *words)
        if self._other_drives(wanted, info):
            self._set_drives(shell, wanted, info)

    def _set_drives(self, shell: Shell, wanted: GuestOrder, info: Mapping[str, str]) -> None:
        owner, plan = wanted.owner, drives(wanted)
        keep = {drive.key: drive for drive in plan}
        has = dict(vboxmanage.controllers(info))
        needed = {drive.controller.name: drive.controller for drive in plan}
        wrong = {
            name
            for name, shown in has.items()
            if name in OWN and (name not in needed or needed[name].shown != shown)
        }
        held = dict(vboxmanage.plugged(info))
        for key, path in list(held.items()):
            kept = key in keep and fits(keep[key], path, info)
            if not kept or key.rsplit("-", 2)[0] in wrong:
                vboxmanage.unplug(shell, owner, key)
                del held[key]
        for name in wrong:
            vboxmanage.must(shell, "storagectl", owner, "--name", name, "--remove")
        for name, controller in needed.items():
            if name not in has or name in wrong:
                kind = ["--add", controller.bus, "--controller", controller.model]
                vboxmanage.must(shell, "storagectl", owner, "--name", name, *kind)
        for drive in plan:
            if drive.key not in held:
                where = ["--storagectl", drive.controller.name, "--port", str(drive.port)]
                what = ["--device", "0", "--type", drive.kind, "--medium", drive.path]
                vboxmanage.must(shell, "storageattach", owner, *where, *what)

    def _start(self, shell: Shell, wanted: GuestOrder) -> None:
        owner = wanted.owner
        state = (self._settled(shell, wanted) or {}).get("VMState")
        if state == "gurumeditation":
            self._stop(shell, wanted, gently=False)
        elif state == "paused":
            vboxmanage.must(shell, "controlvm", owner, "resume")
        if state not in {"running", "paused"}:
            private = console.folder(wanted.store, owner)
            if not shell.run(["test", "-d", private]).ok:
                vboxmanage.plain(shell, "mkdir", "-p", "-m", "700", private)
            done = vboxmanage.run(shell, "startvm", owner, "--type", "headless")
            now = self._settled(shell, wanted) or {}
            # A start that was cut off and went on is a start.
            if not done.ok and now.get("VMState") != "running":
                words = ["VBoxManage", "startvm", owner, "--type", "headless"]
                raise vboxmanage.refused(shell, words, done)

    def _stop(self, shell: Shell, wanted: GuestOrder, *, gently: bool) -> None:
        owner, name = wanted.owner, wanted.name
        state = (self._settled(shell, wanted) or {}).get("VMState", "poweroff")
        if state in SAVED:
            if gently:
                say(f"{name}: what it had in memory when it was saved is given up")
            vboxmanage.must(shell, "discardstate", owner)
        if state not in ON:
            return
        if gently and state == "running":
            vboxmanage.run(shell, "controlvm", owner, "acpipowerbutton")
            try:
                wait_for(name, lambda: self._is_off(shell, wanted), deadline_s=STOP_S)
            except NotReady:
                say(f"{name}: it did not switch itself off within {STOP_S:g} s")
            else:
                return
        done = vboxmanage.run(shell, "controlvm", owner, "poweroff")
        try:
            wait_for(name, lambda: self._is_off(shell, wanted), deadline_s=STOP_S)
        except NotReady:
            raise vboxmanage.refused(
                shell, ["VBoxManage", "controlvm", owner, "poweroff"], done
            ) from None

    def _is_off(self, shell: Shell, wanted: GuestOrder) -> Seen:
        state = (vboxmanage.info(shell, wanted.owner) or {}).get("VMState", "poweroff")
        return Seen(ok=state in OFF, text=f"guest is {state}")


DRIVER = GuestDriver()
