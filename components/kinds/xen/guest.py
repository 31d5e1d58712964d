"""Guests of Xen: paravirtual ones alone, booted by PV GRUB.

xl remembers no guest that does not run: what a guest is stands in ``guest.cfg`` in a folder of the lab's
own, named by its owner, whose UUID is the domain's too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from components.kinds.xen.network import NICS
from components.kinds.xen.xl import (
    DEVICE,
    FILE,
    GRUB,
    MAC,
    NAME,
    PATH,
    Domain,
    cat,
    domains,
    exists,
    mark,
    must,
    put,
    said,
    unfit,
)
from components.reach.driver import COMMAND_S, Driver, DriverError, refusal, strange
from components.reach.orders import DataDisk, GuestOrder
from components.reach.waiting import NotReady, Seen, say, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from components.reach.shell import Shell

CREATE_S = 600.0
"""Making a domain, seconds: 46 on a busy emulated machine, and each waits for the one before."""
COPY_S = 1800.0
STOP_S = 30.0
"""How long a guest may take to switch itself off before its settings change, seconds."""
DATA = "hijklmno"
"""Letters of further disks, after those of CDs."""
DISCS = "defg"
"""Letters of further CDs, after those of the disk, the ISO and the seed: up to xvdp a disk has its 15 partitions
in any guest (xen-vbd-interface(7))."""
GONE_S = 60.0
"""How long a domain may take to go once it was destroyed, seconds."""
AUTO = "/etc/xen/auto"
"""What xendomains.service creates when the host starts."""


def folder(wanted: GuestOrder) -> str:
    """Return where all of a guest lies."""
    return f"{wanted.store}/guests/{wanted.owner}"


def disks(wanted: GuestOrder) -> list[tuple[str, str, bool]]:
    """Return its disks: device, file, whether it is a CD; PV GRUB looks at them in this order."""
    found = []
    if wanted.image or wanted.disk_gib:
        found.append(("xvda", f"{folder(wanted)}/disk.img", False))
    if wanted.iso:
        found.append(("xvdb", wanted.iso, True))
    if wanted.seed:
        found.append(("xvdc", wanted.seed, True))
    cds = ((f"xvd{letter}", disc, True) for letter, disc in zip(DISCS, wanted.discs, strict=False))
    more = (
        (f"xvd{letter}", data(wanted, disk), False)
        for letter, disk in zip(DATA, wanted.disks, strict=False)
    )
    return [*found, *cds, *more]


def data(wanted: GuestOrder, disk: DataDisk) -> str:
    """Return where a further disk lies."""
    return f"{folder(wanted)}/data-{disk.name}.img"


def configuration(wanted: GuestOrder) -> str:
    """Return what a guest is, as xl reads it (xl.cfg(5)): no value in it needs quoting."""
    drives = [
        f"file:{path},{device}:cdrom,r" if cd else f"file:{path},{device},w"
        for device, path, cd in disks(wanted)
    ]
    nics = [f"mac={nic.mac},bridge={nic.network}" for nic in wanted.nics]
    pairs: dict[str, object] = {
        "name": wanted.name,
        "uuid": wanted.owner,
        "type": "pv",
        "memory": wanted.memory_mib,
        "vcpus": wanted.cores,
        "kernel": GRUB,
        "disk": drives,
        # On one line: xendomains.service looks there for the bridges to wait for.
        **({"vif": nics} if nics else {}),
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_crash": "destroy",
    }
    return mark(wanted) + "".join(f"{key} = {json.dumps(value)}\n" for key, value in pairs.items())


class GuestDriver(Driver[GuestOrder]):
    """PV guests; see `Driver`."""

    replaced_by: ClassVar[tuple[str, ...]] = ("name", "image", "disk_gib", "store", "owner")

    @override
    def problem(self, wanted: GuestOrder) -> str:
        wrong = (
            strange(wanted.owner)
            or unfit(NAME, wanted.name, "guest")
            or unfit(PATH, wanted.store, "folder")
        )
        media = [("iso", wanted.iso), ("image", wanted.image), ("seed", wanted.seed)]
        for what, path in media + [("disc", disc) for disc in wanted.discs]:
            if path:
                wrong = wrong or unfit(PATH, path, what)
        for nic in wanted.nics:
            wrong = wrong or unfit(DEVICE, nic.network, "bridge")
            wrong = wrong or unfit(MAC, nic.mac, "MAC address")
            if nic.model not in {"", "netfront"}:
                wrong = wrong or f"NIC model {nic.model}: Xen's PV guests have netfront"
        if wanted.disk_bus not in {"", "xen"}:
            wrong = wrong or f"disk_bus {wanted.disk_bus}: Xen's PV guests have xen"
        for disk in wanted.disks:
            wrong = wrong or unfit(FILE, disk.name, "disk")
        if len(wanted.disks) > len(DATA):
            wrong = wrong or f"{len(wanted.disks)} further disks: a guest has {len(DATA)} here"
        if len(wanted.discs) > len(DISCS):
            wrong = wrong or f"{len(wanted.discs)} discs: a guest has places for {len(DISCS)} here"
        if not (wanted.iso or wanted.image or wanted.disk_gib):
            wrong = (
                wrong or f"guest {wanted.name}: nothing to boot from: give it an iso or an image"
            )
        return wrong

    @override
    def look(self, shell: Shell, wanted: GuestOrder) -> Seen:
        domain = self._domain(shell, wanted)
        wrong = self._written(shell, wanted, domain) or self._off(shell, wanted, domain)
        return Seen(ok=not wrong, text=wrong or f"guest {wanted.name} is running")

    @override
    def ensure(self, shell: Shell, wanted: GuestOrder) -> None:
        domain = self._domain(shell, wanted)
        if domain is None:
            self._free(shell, wanted)
        settings, new = self._settings(wanted), configuration(wanted)
        has = cat(shell, settings)
        lost, small = self._lost(shell, wanted), self._small(shell, wanted)
        if domain and domain.word in {"dying", "crashed", "shut off"}:
            self._destroy(shell, wanted, domain)
            domain = None
        if domain:
            why = "its disk is gone" if lost else self._other(shell, wanted, domain)
            why = why or next((text for _, text in small), "")
            if why := why or ("" if has in {"", new} else "its settings"):
                say(f"{wanted.name}: stopped for a change: {why}")
                self._stop(shell, wanted, domain)
                domain = None
        if lost:
            self._make_disk(shell, wanted)
        self._fit(shell, wanted, [disk for disk, _ in small])
        if has != new:
            must(shell, "mkdir", "-p", folder(wanted))
            self._drop(shell, wanted)
            put(shell, settings, new)
        self._start_with_host(shell, wanted)
        if domain is None:
            self._create(shell, wanted)
            return
        if domain.word == "paused":
            must(shell, "xl", "unpause", str(domain.number))
        for device, bridge in self._unplugged(shell, wanted, domain):
            must(shell, "ip", "link", "set", "dev", device, "master", bridge)

    @override
    def remove(self, shell: Shell, wanted: GuestOrder) -> None:
        must(shell, "rm", "-f", self._link(wanted))
        domain = self._domain(shell, wanted)
        if domain:
            self._destroy(shell, wanted, domain)
        must(shell, "rm", "-rf", "--one-file-system", folder(wanted))

    # What it is

    def _settings(self, wanted: GuestOrder) -> str:
        return f"{folder(wanted)}/guest.cfg"

    def _link(self, wanted: GuestOrder) -> str:
        return f"{AUTO}/{wanted.owner}.cfg"

    def _list(self, shell: Shell) -> list[Domain]:
        return domains(must(shell, "xl", "list", "-v"))

    def _domain(self, shell: Shell, wanted: GuestOrder) -> Domain | None:
        return next((one for one in self._list(shell) if one.uuid == wanted.owner), None)

    def _written(self, shell: Shell, wanted: GuestOrder, domain: Domain | None) -> str:
        """Say what is wrong with its files, empty for nothing."""
        name, settings = wanted.name, cat(shell, self._settings(wanted))
        if not settings and domain is None:
            return f"guest {name} is not there any more"
        if settings != configuration(wanted):
            return f"guest {name} is not set up as the stack says: its settings were changed"
        if self._lost(shell, wanted):
            return f"guest {name} has lost its disk"
        if small := self._small(shell, wanted):
            return f"guest {name}: {small[0][1]}"
        if self._starts_with_host(shell, wanted) is not wanted.autostart:
            return f"whether guest {name} starts with its host has changed"
        return ""

    def _off(self, shell: Shell, wanted: GuestOrder, domain: Domain | None) -> str:
        """Say what of the domain is not as wanted, empty for nothing."""
        name = wanted.name
        state = domain.word if domain else "shut off"
        if domain is None or state != "running":
            return f"guest {name} is {state}"
        if other := self._other(shell, wanted, domain):
            return f"guest {name} is not set up as the stack says: {other}"
        if unplugged := self._unplugged(shell, wanted, domain):
            return f"guest {name} is not plugged into its network ({unplugged[0][0]})"
        return ""

    def _other(self, shell: Shell, wanted: GuestOrder, domain: Domain) -> str:
        """Say what of the domain is not as wanted, empty for nothing."""
        told = shell.run(["xl", "list", "-l", str(domain.number)])
        if not (told.ok and told.out.strip()):
            # Nothing at all of a domain that went in between, or over a connection that did.
            return f"xl does not say what it is ({said(told)})"
        config = json.loads(told.out)[0]["config"]
        kib = wanted.memory_mib * 1024
        wants: dict[str, object] = {
            "name": wanted.name,
            "cores": wanted.cores,
            "memory (KiB)": kib,
            "most memory (KiB)": kib,
            "disks": [(device, path, not cd) for device, path, cd in disks(wanted)],
            "NICs": [(nic.mac.lower(), nic.network) for nic in wanted.nics],
        }
        about, built = config["c_info"], config["b_info"]
        found: dict[str, object] = {
            "name": about.get("name"),
            "cores": built.get("max_vcpus"),
            "memory (KiB)": built.get("target_memkb"),
            "most memory (KiB)": built.get("max_memkb"),
            "disks": [
                (one.get("vdev"), one.get("pdev_path"), bool(one.get("readwrite")))
                for one in config.get("disks", [])
            ],
            "NICs": [
                (str(one.get("mac")).lower(), one.get("bridge")) for one in config.get("nics", [])
            ],
        }
        return next(
            (
                f"{key}: {found[key]} and not {value}"
                for key, value in wants.items()
                if found[key] != value
            ),
            "",
        )

    def _unplugged(self, shell: Shell, wanted: GuestOrder, domain: Domain) -> list[tuple[str, str]]:
        """Return the NICs that are on no bridge, or another's: one that was made anew has lost them."""
        found = []
        for number, nic in enumerate(wanted.nics):
            device = f"vif{domain.number}.{number}"
            master = shell.run(["readlink", f"{NICS}/{device}/master"]).out.strip()
            if master.rpartition("/")[2] != nic.network:
                found.append((device, nic.network))
        return found

    def _starts_with_host(self, shell: Shell, wanted: GuestOrder) -> bool:
        return shell.run(["readlink", self._link(wanted)]).out.strip() == self._settings(wanted)

    # What is done to it

    def _free(self, shell: Shell, wanted: GuestOrder) -> None:
        """Raise if a domain of somebody else has its name."""
        name = wanted.name
        if any(one.name == name for one in self._list(shell)):
            raise DriverError(
                f"a guest {name} on {shell.name} is not this lab's and is left alone: rename it in the "
                f"stack, or remove it there with `xl destroy {name}`"
            )

    def _complete(self, wanted: GuestOrder) -> str:
        return f"{folder(wanted)}/disk.complete"

    def _lost(self, shell: Shell, wanted: GuestOrder) -> bool:
        """Whether its disk is not there, or was not made to its end."""
        own = [path for device, path, cd in disks(wanted) if not cd and device == "xvda"]
        return not all(exists(shell, path) for path in [*own, *self._marks(wanted, own)])

    def _small(self, shell: Shell, wanted: GuestOrder) -> list[tuple[DataDisk, str]]:
        """Return the further disks that are not there, or too small, and what is wrong with each."""
        found = []
        for disk in wanted.disks:
            path, size = data(wanted, disk), disk.gib << 30
            if not exists(shell, path):
                found.append((disk, f"its disk {disk.name} is not there"))
            elif (has := int(must(shell, "stat", "-c", "%s", path).strip())) < size:
                found.append((disk, f"its disk {disk.name} has {has / (1 << 30):g} GiB"))
        return found

    def _fit(self, shell: Shell, wanted: GuestOrder, disks: Sequence[DataDisk]) -> None:
        """Make further disks, or grow them: sparse files, as the first."""
        for disk in disks:
            must(shell, "mkdir", "-p", folder(wanted))
            must(shell, "truncate", "-s", str(disk.gib << 30), data(wanted, disk))

    def _drop(self, shell: Shell, wanted: GuestOrder) -> None:
        """Remove the further disks that the guest has no more."""
        home, kept = folder(wanted), {data(wanted, disk) for disk in wanted.disks}
        for file in must(shell, "ls", "-A", home).split("\n"):
            if file.startswith("data-") and f"{home}/{file}" not in kept:
                say(f"{wanted.name}: its disk {file[5:].removesuffix('.img')} is removed")
                must(shell, "rm", "-f", f"{home}/{file}")

    def _marks(self, wanted: GuestOrder, own: Sequence[str]) -> list[str]:
        return [self._complete(wanted)] if own else []

    def _make_disk(self, shell: Shell, wanted: GuestOrder) -> None:
        path, size = f"{folder(wanted)}/disk.img", wanted.disk_gib << 30
        must(shell, "mkdir", "-p", folder(wanted))
        # Sparse: a file takes what a guest has written.
        must(shell, "rm", "-f", self._complete(wanted), path)
        if wanted.image:
            copy = ["cp", "--sparse=always", "--reflink=auto", wanted.image, path]
            must(shell, *copy, timeout_s=COPY_S)
            has = int(must(shell, "stat", "-c", "%s", path).strip())
            if size and has > size:
                raise DriverError(
                    f"guest {wanted.name}: its image has {has} bytes, and disk_gib says "
                    f"{wanted.disk_gib} GiB: make it larger, or leave it out"
                )
        if size:
            must(shell, "truncate", "-s", str(size), path)
        must(shell, "touch", self._complete(wanted))

    def _create(self, shell: Shell, wanted: GuestOrder) -> None:
        try:
            must(shell, "xl", "create", self._settings(wanted), timeout_s=CREATE_S)
        except DriverError:
            # A start that was cut off and went on is a start.
            domain = self._domain(shell, wanted)
            if domain is None or domain.word != "running":
                raise

    def _stop(self, shell: Shell, wanted: GuestOrder, domain: Domain) -> None:
        """Let it switch itself off, and do it where it does not."""
        if domain.word == "running":
            # A guest that pays no heed is none of xl's failures.
            shell.run(["xl", "shutdown", str(domain.number)], timeout_s=COMMAND_S)
            if self._went(shell, wanted, STOP_S):
                return
            say(f"{wanted.name}: it did not switch itself off within {STOP_S:g} s")
        self._destroy(shell, wanted, domain)

    def _destroy(self, shell: Shell, wanted: GuestOrder, domain: Domain) -> None:
        argv = ["xl", "destroy", str(domain.number)]
        done = shell.run(argv, timeout_s=COMMAND_S)
        if not self._went(shell, wanted, GONE_S):
            raise refusal(shell, argv, said(done))

    def _went(self, shell: Shell, wanted: GuestOrder, deadline_s: float) -> bool:
        def gone() -> Seen:
            found = self._domain(shell, wanted)
            return Seen(ok=found is None, text=f"guest is {found.word if found else 'gone'}")

        try:
            wait_for(wanted.name, gone, deadline_s=deadline_s)
        except NotReady:
            return False
        return True

    def _start_with_host(self, shell: Shell, wanted: GuestOrder) -> None:
        if not wanted.autostart:
            must(shell, "rm", "-f", self._link(wanted))
        elif not self._starts_with_host(shell, wanted):
            must(shell, "mkdir", "-p", AUTO)
            must(shell, "ln", "-sfn", self._settings(wanted), self._link(wanted))


DRIVER = GuestDriver()
