"""A golden image where libvirt reaches it: volumes of a pool that all checkouts share.

Everything goes through virsh, so that a member of the group libvirt can do it without root. An
upload that was cut off leaves a volume that looks whole; so a last, empty volume ``HASH.whole``
says that the others are, and without it they are uploaded again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from toolchain.bootstrap import cache, paths, ui
from toolchain.machine import daemons

if TYPE_CHECKING:
    from toolchain.machine.system import Result, System

POOL = "nestlab-images"
PLACE = Path("/var/lib/libvirt/nestlab/images")
VERSION = 1
"""Of golden.json's shape; readers refuse another."""
CMDLINE = (
    ("root", "LABEL=root"),
    ("console", "ttyS0"),
    ("net.ifnames", "0"),
    # Emulated processors count time alike, and Linux doubts it: every look at the clock would leave
    # the guest for the emulated HPET (1.2 s of a boot). Under KVM kvm-clock is used all the same.
    ("tsc", "reliable"),
    # Guards against leaks between programs that trust each other here; 0.8 and 0.4 s of a boot.
    ("mitigations", "off"),
    ("init_on_alloc", "0"),
    # AppArmor and its like have no rules in this image; audit no reader.
    ("lsm", "yama"),
    ("audit", "0"),
    ("cryptomgr.notests", "1"),
    # A host that starts again by itself, with its guests, is one that `up` waits for. Stuck is what did
    # nothing for twice the threshold: a minute, as an emulated host may share its cores with many.
    ("panic", "5"),
    ("softlockup_panic", "1"),
    ("watchdog_thresh", "30"),
    # All processors but the first wait until the initrd calls them: see `hold` in the image.
    ("maxcpus", "1"),
    # systemd's steps stay on the console, the kernel's chatter does not: it is slow there.
    ("systemd.show_status", "yes"),
    ("_", "quiet"),
)
"""The kernel arguments a KVM host boots with; the key ``_`` holds words without a value."""
UPLOAD_S = 900.0
"""Deadline for one upload, seconds; half a gigabyte takes 2 on a quiet machine."""
REMEDY = f"Check that libvirt works (`virsh -c {daemons.URI} pool-list`) and that {PLACE.parent} has 1 GB free."
HASH = re.compile(r"[0-9a-f]{12}")
WHOLE, MARK = ".whole", ".begun"
"""Ends the name of an empty volume that says: the image is whole; its upload was begun by us."""
ENDS = (".qcow2", ".vmlinuz", ".initrd", WHOLE, MARK)
SHOWN = 4
"""Users of the image that are named when it has to stay."""


@dataclass(frozen=True)
class Part:
    """One file of the image: what it is called in libvirt, and where it lies in the cache."""

    volume: str
    file: Path
    format: str

    @property
    def path(self) -> Path:
        """Where QEMU reads it."""
        return PLACE / self.volume


def facts_of(variant: str) -> Path:
    """Where labs read of a variant: ``.nestlab/golden.json`` is the nested KVM host's."""
    return paths.LOCAL / ("golden.json" if variant == "kvm" else f"golden-{variant}.json")


def parts(folder: Path) -> dict[str, Part]:
    """The image's files by role; ``folder`` is named by the image's hash.

    Without kernel and initrd the disk boots by itself.
    """
    name = folder.name
    known = {
        "disk": Part(f"{name}.qcow2", folder / "root.qcow2", "qcow2"),
        "kernel": Part(f"{name}.vmlinuz", folder / "vmlinuz", "raw"),
        "initrd": Part(f"{name}.initrd", folder / "initrd", "raw"),
    }
    return {role: part for role, part in known.items() if role == "disk" or part.file.exists()}


def _virsh(system: System, *commands: str, timeout_s: float = 60, stdin: str = "") -> Result:
    """Run virsh commands in one client, as each start of one costs a third of the time there is."""
    return system.run(
        ["virsh", "-q", "-c", daemons.URI, "; ".join(commands)], timeout_s=timeout_s, stdin=stdin
    )


def _must(system: System, command: str, *, timeout_s: float = 60, stdin: str = "") -> str:
    done = _virsh(system, command, timeout_s=timeout_s, stdin=stdin)
    if not done.ok:
        raise ui.Problem(f"`virsh {command}` failed: {done.last}.\n{REMEDY}")
    return done.out


def _quoted(word: str) -> str:
    """Quote ``word`` for virsh's own command language."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names(told: str) -> list[str]:
    """Names that virsh printed, one a line and padded: they may have blanks."""
    return [name for line in told.split("\n") if (name := line.strip(" "))]


def _all(system: System, command: str) -> list[tuple[str, str]]:
    """UUID and name of what ``command`` lists: others' names are anybody's, so they are only shown."""
    told = _must(system, f"{command} --uuid --name").split("\n")
    return [
        (uuid, name.strip(" ")) for uuid, _, name in (line.partition(" ") for line in told) if uuid
    ]


def volumes(system: System) -> set[str]:
    """Names of the pool's volumes as they are on the disk now; empty when the pool is not up."""
    told = _virsh(system, f"pool-refresh {POOL}", f"vol-list {POOL}").out
    return {
        words[0]
        for line in told.split("\n")
        if len(words := line.split()) > 1 and words[1].startswith("/")
    }


def publish(system: System, folder: Path, variant: str, root_gib: int) -> None:
    """Give libvirt the image in ``folder`` unless it has it, and write the variant's facts.

    Raises:
        Problem: libvirt refuses; with what it said.
    """
    wanted = parts(folder)
    whole, mark = f"{folder.name}{WHOLE}", f"{folder.name}{MARK}"
    names = {part.volume for part in wanted.values()} | {whole}
    if not names <= volumes(system):
        with cache.locked("image"), ui.step("golden image: hand it to libvirt"):
            ensure_pool(system)
            there = volumes(system)
            if not names <= there:
                if mark not in there:
                    _must(system, f"vol-create {POOL} /dev/stdin", stdin=volume_xml(mark, 0, "raw"))
                for name in sorted(names & there):
                    _must(system, f"vol-delete {name} {POOL}")
                for part in wanted.values():
                    upload(system, part, root_gib)
                _must(system, f"vol-create {POOL} /dev/stdin", stdin=volume_xml(whole, 0, "raw"))
                _must(system, f"vol-delete {mark} {POOL}")
    cache.write(facts_of(variant), json.dumps(description(folder, root_gib), indent=2) + "\n")


def description(folder: Path, root_gib: int) -> dict[str, object]:
    """What a lab has to know of the image, as it reads there."""
    wanted = parts(folder)
    direct = [role for role in ("kernel", "initrd") if role in wanted]
    return {
        "version": VERSION,
        "hash": folder.name,
        "pool": POOL,
        "volume": wanted["disk"].volume,
        **{role: str(wanted[role].path) for role in direct},
        "cmdline": [{"key": key, "value": value} for key, value in CMDLINE] if direct else [],
        "files": {role: str(part.file) for role, part in wanted.items()},
        "root_gib": root_gib,
    }


def volume_xml(name: str, size: int, form: str) -> str:
    """A volume of ``size`` bytes that QEMU may read whoever it runs as; the image has no secret."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(size)
    target = ET.SubElement(volume, "target")
    ET.SubElement(target, "format", type=form)
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0644"
    return ET.tostring(volume, encoding="unicode")


def upload(system: System, part: Part, root_gib: int) -> None:
    """Make one volume and fill it."""
    size = root_gib << 30 if part.format == "qcow2" else part.file.stat().st_size
    _must(system, f"vol-create {POOL} /dev/stdin", stdin=volume_xml(part.volume, size, part.format))
    command = f"vol-upload {part.volume} {_quoted(str(part.file))} --pool {POOL}"
    _must(system, command, timeout_s=UPLOAD_S)


def ensure_pool(system: System) -> None:
    """Have the pool defined, running and started with libvirt, whatever was left of it.

    Raises:
        Problem: a pool of that name lies elsewhere, or libvirt refuses.
    """
    told = _virsh(system, f"pool-dumpxml {POOL}")
    if told.ok:
        place = ET.fromstring(told.out).findtext("target/path")  # noqa: S314 - libvirt's own words
        if place != str(PLACE):
            raise ui.Problem(
                f"libvirt's pool {POOL} lies in {place}, and labs expect it in {PLACE}.\n"
                f"Remove it (`virsh pool-destroy {POOL}; virsh pool-undefine {POOL}`) and run this again."
            )
    else:
        _must(system, f"pool-define-as {POOL} dir --target {PLACE}")
    if POOL not in _names(_must(system, "pool-list --name")):
        # Makes the folder, and leaves one that is there as it is.
        _must(system, f"pool-build {POOL}")
        _must(system, f"pool-start {POOL}")
    _must(system, f"pool-autostart {POOL}")


def forget(system: System) -> None:
    """Remove the pool and its images, except those that a disk or guest of this machine needs.

    For ``make clean``. Where libvirt does not answer, nothing is done: it is not started for this.

    Raises:
        Problem: libvirt refuses; with what it said.
    """
    asked = _virsh(system, "pool-list --all --name")
    if not asked.ok or POOL not in _names(asked.out):
        return
    ensure_pool(system)
    told = users(system)
    kept: set[str] = set()
    with ui.step("remove the golden image from libvirt"):
        own = _own(volumes(system))
        hashes = {name.split(".")[0] for name in own}
        for name in sorted(hashes):
            if by := [
                user for user, text in told.items() if f"{PLACE}/{name}." in text or not text
            ]:
                kept.add(name)
                shown = ", ".join(by[:SHOWN]) + (", ..." if len(by) > SHOWN else "")
                ui.say(f"golden image {name} stays in libvirt's pool {POOL}: {shown}")
        for name in sorted(own):
            if name.split(".")[0] not in kept:
                _must(system, f"vol-delete {name} {POOL}")
        if not kept:
            _must(system, f"pool-destroy {POOL}")
            # libvirt removes an empty folder only (rmdir); what others put there stays with it.
            left = _virsh(system, f"pool-delete {POOL}")
            _must(system, f"pool-undefine {POOL}")
            if not left.ok:
                ui.say(f"{PLACE} stays: {left.last}")


def _own(names: set[str]) -> set[str]:
    """Those of ``names`` that are parts of an image that was published, or begun to be."""
    begun = {name.removesuffix(MARK) for name in names if name.endswith(MARK)}
    begun |= {name.removesuffix(WHOLE) for name in names if name.endswith(WHOLE)}
    known = {f"{name}{end}" for name in begun if HASH.fullmatch(name) for end in ENDS}
    return names & known


def users(system: System) -> dict[str, str]:
    """Who may need an image -> the XML that tells; empty text where libvirt can't tell."""
    told: dict[str, str] = {}
    running = {uuid for uuid, _ in _all(system, "pool-list")}
    for uuid, pool in _all(system, "pool-list --all"):
        if pool == POOL:
            continue
        if uuid not in running:
            told[f"pool {pool} is inactive, so its disks cannot be asked"] = ""
            continue
        listed = _must(system, f"vol-list {uuid}").split("\n")
        for name in (line.rsplit("/", 1)[-1].strip(" ") for line in listed if "/" in line):
            # One whose name can't be asked for so counts as one that needs it.
            told[f"disk {name} needs it"] = _virsh(
                system, f"vol-dumpxml --vol {_quoted(name)} --pool {uuid}"
            ).out
    for uuid, domain in _all(system, "list --all"):
        told[f"guest {domain} needs it"] = _virsh(system, f"dumpxml {uuid}").out
    return told
