"""Running domains as they are at one moment: kept beside them (snapshots), or in place of them (saved memory).

Both are libvirt's own, which go with the domain (`--snapshots-metadata`, `--managed-save`). Snapshots are
internal ones: they lie in the domain's own disk, which so stays the volume that the provider knows. It is
libvirtd that takes and restores them: who asked for it may be killed meanwhile.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from components.kinds.libvirt.census import SAVED
from components.kinds.libvirt.virsh import Virsh, VirshError, lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from components.reach.shell import Shell

LONG_S = 600.0
"""For memory that goes to a disk, or comes from it, seconds: 16 GiB at 30 MB/s."""
ACTIVE = {"running", "paused"}
"""States of a domain that goes back to a snapshot as it is; any other is switched off before."""
SPARE = 64 << 20
"""Bytes that a domain needs beside its memory: its devices' state, and what it writes meanwhile."""


def at(shell: Shell, uri: str) -> Virsh:
    """Return the libvirt at ``uri`` whose commands ``shell`` runs."""
    return Virsh(shell, uri)


def host_facts(virsh: Virsh) -> dict[str, str]:
    """Return what saved memory is bound to, beside the domain itself: QEMU's version, and the CPU.

    Raises:
        VirshError, Unreachable: libvirt does not say.
    """
    version = re.search(r"hypervisor: *(.+)", virsh.must("version"))
    root = ET.fromstring(virsh.must("capabilities"))  # noqa: S314 - libvirt's own output
    cpu = root.find("host/cpu")
    told = [] if cpu is None else [cpu.findtext("vendor", ""), cpu.findtext("model", "")]
    told += sorted(each.get("name", "") for each in (() if cpu is None else cpu.iter("feature")))
    return {
        "QEMU": version[1].strip() if version else "",
        "CPU": hashlib.sha256("\n".join(told).encode()).hexdigest()[:16],
    }


def changed(virsh: Virsh, domains: Mapping[str, str], name: str) -> str:
    """Return why ``domains`` (UUID by name) can't go back to the snapshot ``name``; empty: they can."""
    for domain, found in ((each, virsh.uuids("domain", each).get(each)) for each in domains):
        if found is None:
            return f"domain {domain} is not defined any more"
        if found != domains[domain]:
            return f"domain {domain} is another one"
        if name not in names(virsh, domain):
            return f"domain {domain} was made anew since, or its snapshot removed"
    return ""


def names(virsh: Virsh, domain: str) -> set[str]:
    """Return the names of all snapshots of ``domain``, anybody's."""
    return {each.strip() for each in lines(virsh.must("snapshot-list", domain, "--name"))}


def hindrance(virsh: Virsh, domains: Iterable[str]) -> str:
    """Return why no snapshot of ``domains`` can be taken; empty: nothing is known to be in the way."""
    for domain in domains:
        facts = virsh.domain(domain)
        if facts is None or facts.state != "running":
            return f"domain {domain} is {facts.state if facts else 'not defined'}"
        root = ET.fromstring(facts.definition)  # noqa: S314 - libvirt's own output
        if root.find("os/loader[@type='pflash']") is not None:
            return f"{domain} has UEFI, whose variables libvirt keeps in no snapshot"
        for disk in root.iterfind("devices/disk[@device='disk']"):
            driver = disk.find("driver")
            form = "" if driver is None else driver.get("type", "")
            if disk.find("readonly") is None and form != "qcow2":
                return f"{domain} has a {form} disk, which holds no snapshot"
    return ""


def size(virsh: Virsh, domains: Sequence[str]) -> tuple[int, int]:
    """Return how many bytes the disks of ``domains`` take now, and how many a snapshot may add at most."""
    told = virsh.must("domstats", "--block", "--balloon", *domains)
    disks = sum(map(int, re.findall(r"block\.\d+\.physical=(\d+)", told)))
    memory = sum(map(int, re.findall(r"balloon\.rss=(\d+)", told))) << 10
    return disks, memory + SPARE * len(domains)


def free(virsh: Virsh, pool: str) -> int | None:
    """Return the bytes that are free in ``pool``; None: libvirt does not say."""
    found = re.search(r"^Available: *(\d+)", virsh.must("pool-info", pool, "--bytes"), re.MULTILINE)
    return int(found[1]) if found else None


def take(virsh: Virsh, domains: Collection[str], name: str, why: str) -> None:
    """Take the snapshot ``name`` of running ``domains`` at one moment; ``why`` is noted with it.

    Raises:
        VirshError, Unreachable: it could not be; what was taken by then is removed again.
    """
    together = len(domains) > 1
    try:
        # One alone is stopped and goes on by libvirt's own doing.
        for domain in domains if together else ():
            virsh.must("suspend", domain)
        for domain in domains:
            virsh.must("snapshot-create-as", domain, name, "--description", why, timeout_s=LONG_S)
    except BaseException:
        _go_on(virsh, domains)
        drop(virsh, domains, {name})
        raise
    _go_on(virsh, domains)


def _go_on(virsh: Virsh, domains: Collection[str]) -> None:
    for domain in domains:
        if virsh.domain_state(domain) == "paused":
            virsh.must("resume", domain)


def revert(virsh: Virsh, domains: Collection[str], name: str) -> None:
    """Bring ``domains`` back to the snapshot ``name``, and let them run on from there.

    Raises:
        VirshError, Unreachable: one does not go back to it.
    """
    for domain in domains:
        if virsh.domain_state(domain) not in {*ACTIVE, "shut off"}:
            virsh.run("destroy", domain)
        # It belongs to what the disk is now, and the next start would go on from it.
        virsh.must("managedsave-remove", domain)
        virsh.must("snapshot-revert", domain, name, "--paused", timeout_s=LONG_S)
    for domain in domains:
        virsh.must("resume", domain)


def drop(virsh: Virsh, domains: Iterable[str], gone: Collection[str]) -> None:
    """Remove those snapshots of ``domains`` that are called as in ``gone``.

    Raises:
        VirshError, Unreachable: libvirt does not let go of one.
    """
    for domain in domains:
        if virsh.domain_state(domain) is None:
            continue
        for name in sorted(names(virsh, domain) & set(gone)):
            done = virsh.run("snapshot-delete", domain, name, timeout_s=LONG_S)
            if not done.ok and name in names(virsh, domain):
                raise VirshError(f"virsh snapshot-delete at {virsh.host.name}: {done.said}")


def active(virsh: Virsh, domains: Iterable[str]) -> list[str]:
    """Return those of ``domains`` that have memory: they run, or are paused."""
    return [domain for domain in domains if virsh.domain_state(domain) in ACTIVE]


def save(virsh: Virsh, domains: Collection[str]) -> None:
    """Save the memory of ``domains``, which run or are paused, at one moment, and switch them off.

    Raises:
        VirshError, Unreachable: that of one could not be; all go on as they were, but for who was paused.
    """
    try:
        for domain in domains:
            if virsh.domain_state(domain) == "running":
                virsh.must("suspend", domain)
        for domain in domains:
            virsh.must("managedsave", domain, "--running", timeout_s=LONG_S)
    except BaseException:
        wake(virsh, domains)
        raise


def saved(virsh: Virsh, domains: Iterable[str]) -> list[str]:
    """Return those of ``domains`` whose next start goes on from saved memory."""
    there = set(lines(virsh.must(*SAVED)))
    return [domain for domain in domains if domain in there]


def wake(virsh: Virsh, domains: Collection[str], *, lose: bool = False) -> list[str]:
    """Let ``domains`` go on at one moment, those with saved memory from there; who is off without stays so.

    ``lose``: memory that can't be restored is given up, and its domain starts from its disks. Returns which do.

    Raises:
        VirshError, Unreachable: one does not go on; the memory that was saved of it is still there.
    """
    boot = []
    for domain in saved(virsh, domains):
        done = virsh.run("start", domain, "--paused", timeout_s=LONG_S)
        if not done.ok and lose:
            virsh.must("managedsave-remove", domain)
            virsh.must("start", domain, "--paused")
            boot.append(domain)
        elif not done.ok and virsh.domain_state(domain) not in ACTIVE:
            raise VirshError(f"virsh start at {virsh.host.name}: {done.said}")
    for domain in domains:
        if virsh.domain_state(domain) == "paused" and not virsh.run("resume", domain).ok:
            # Its memory is still being saved, by a command that was killed.
            virsh.run("domjobabort", domain)
            _go_on(virsh, [domain])
    return boot


def set_clock(virsh: Virsh, domain: str) -> bool:
    """Set the clock of a machine that has QEMU's guest agent; return whether it has one that did."""
    return virsh.run("domtime", domain, "--now").ok
