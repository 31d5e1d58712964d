"""What this machine says about KVM: the processor, the kernel's modules, the device and its mode.

Only claims are read here; whether they hold is found out by `toolchain.bootproof`.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.machine import daemons
from toolchain.machine.system import DID_NOT_START

if TYPE_CHECKING:
    from toolchain.machine.system import System

CPUINFO = Path("/proc/cpuinfo")
MODULES = Path("/sys/module")
QEMU_CONF = Path("/etc/libvirt/qemu.conf")

QEMU_USERS = ("libvirt-qemu", "qemu")
"""Whom libvirt runs QEMU as when qemu.conf does not say: Debian and its kin, then the others."""
ACL = "system.posix_acl_access"
MODULE_OF = {"vmx": "kvm_intel", "svm": "kvm_amd"}
"""The kernel module that uses each vendor's extension."""


def flags() -> frozenset[str]:
    """What the first processor can do, as the kernel names it; empty where it does not say."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split() if found else ())


@dataclass(frozen=True)
class Nested:
    """The kernel module that lets guests have guests, and whether it does."""

    module: str
    on: bool


def nested() -> Nested | None:
    """State of the parameter ``nested``; None when neither vendor's module is loaded."""
    for module in MODULE_OF.values():
        try:
            text = (MODULES / module / "parameters/nested").read_text()
        except OSError:
            continue
        return Nested(module, text.strip() in {"Y", "y", "1"})
    return None


@dataclass(frozen=True)
class User:
    """Who runs QEMU for libvirt."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]


def qemu_user() -> User | None:
    """Whom libvirt runs QEMU as; None when libvirt's user does not exist."""
    # Debian keeps qemu.conf from everybody but root; it rarely says anything about the user.
    try:
        conf = QEMU_CONF.read_text()
    except OSError:
        conf = ""
    said = re.search(r'^\s*user\s*=\s*"([^"]+)"', conf, re.MULTILINE)
    for name in [said[1]] if said else QEMU_USERS:
        try:
            entry = (
                pwd.getpwuid(int(name.removeprefix("+")))
                if name.removeprefix("+").isdigit()
                else pwd.getpwnam(name)
            )
        except KeyError:
            continue
        groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)
    return None


@dataclass(frozen=True)
class Access:
    """Whether ``who`` can open /dev/kvm, and whether that was tried or read off its mode."""

    who: str
    opens: bool
    tried: bool


def access(system: System, user: User | None) -> Access:
    """Find out whether ``user`` can open /dev/kvm: by doing it where we may become that user."""
    if user is None:
        who = pwd.getpwuid(os.geteuid()).pw_name
        return Access(who, opens=os.access(daemons.KVM, os.R_OK | os.W_OK), tried=True)
    if system.is_root():
        # As libvirt does: all groups of the user, then the user. The shell opens it read-write.
        become = ["setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), "--init-groups"]
        done = system.run([*become, "sh", "-c", f": <> {daemons.KVM}"], timeout_s=10)
        if done.code != DID_NOT_START:
            return Access(user.name, opens=done.ok, tried=True)
    return Access(user.name, opens=_mode_lets_in(user), tried=False)


def _mode_lets_in(user: User) -> bool:
    found = daemons.KVM.stat()
    if user.uid == found.st_uid:
        needed = 0o600
    elif found.st_gid in user.groups | {user.gid}:
        needed = 0o060
    else:
        needed = 0o006
    return found.st_mode & needed == needed


def barred(folder: Path, user: User) -> Path | None:
    """Return the folder on the way to ``folder`` that ``user`` can't go through; None: there is none.

    What does not exist is nobody's yet. A folder with an access control list is not judged.
    """
    real = folder.resolve()
    for each in (*reversed(real.parents), real):
        try:
            seen, listed = each.stat(), os.listxattr(each)
        except OSError:
            return None
        mine = seen.st_uid == user.uid, seen.st_gid in user.groups | {user.gid}
        needed = stat.S_IXUSR if mine[0] else stat.S_IXGRP if mine[1] else stat.S_IXOTH
        if not (user.uid == 0 or seen.st_mode & needed or ACL in listed):
            return each
    return None
