"""The CDs that make a cloud image of Debian or Ubuntu a host with VMware Workstation.

One is cloud-init's, made from plain data, since what goes through the engine is that; the other holds
the maker's installation program, which has to be downloaded with an account and is handed out by
nobody else.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from components.media import cloud_init
from components.media.iso import WrongMedium
from components.reach.waiting import say

if TYPE_CHECKING:
    from pathlib import Path

    from components.media.answers import Answers

LABEL = cloud_init.LABEL
TOOLS_LABEL = cloud_init.TOOLS_LABEL
BUNDLE = "workstation.bundle"
"""What the program is called on its CD, whatever its maker calls this version."""
PACKAGES = (
    # qemu-img turns disk images into VMware's format, which Workstation alone can't.
    "qemu-utils",
    # It opens a guest's console.
    "socat",
    # vmware-vmx, which is a virtual machine, is linked with them, with a window or without; a cloud
    # image has none, and `vmrun list` does not miss them (reports on 17.6.3).
    *("libx11-6", "libxext6", "libxi6", "libxtst6", "libxinerama1", "libxcursor1", "libxrandr2"),
    *("libxxf86vm1", "libdrm2"),
)
_SOUND = "apt-get install -y libasound2t64 || apt-get install -y libasound2"
"""Of the same kind; its name became another with Debian 13 and Ubuntu 24.04."""
_NETWORKS = (
    # An installation without a window leaves them out on some systems.
    "test -s /etc/vmware/networking || vmware-networks --postinstall vmware-workstation,0,1",
    "vmware-networks --start || true",
)
"""What makes Workstation's own networks: vmnet0 (bridge), vmnet1 (host-only), vmnet8 (NAT)."""
_TRIAL = """\
trial=$(mktemp -d)
cat > $trial/trial.vmx << 'NESTLAB'
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "nestlab-trial"
guestOS = "other"
memsize = "4"
vmx.allowNested = "TRUE"
NESTLAB
vmrun -T ws start $trial/trial.vmx nogui
vmrun -T ws stop $trial/trial.vmx hard
rm -r $trial"""
"""A machine with nothing in it is started: a host that can't is not up, and says so before any guest."""
_PRODUCT = b"vmware-workstation"
_FOOTER = struct.Struct("<QIII")
_FOOTER_AT = 52
"""A bundle ends with where its parts are: Gentoo's vmware-bundle.eclass reads them so."""
_MOST = 4 << 20
"""Longest list of contents that is looked into, bytes; real ones have some 20 KiB."""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the CD `LABEL`; there are no options."""
    answers.only(())
    setup = cloud_init.workstation(bundle=BUNDLE)
    told = {
        "product": replace(setup, commands=(_SOUND, *setup.commands, *_NETWORKS, _TRIAL)),
        "packages": PACKAGES,
    }
    return cloud_init.files(replace(answers, options=told))


def check_tool(path: Path) -> None:
    """Refuse a file that is no installation bundle of Workstation; warn of one that may be cut short.

    Raises:
        WrongMedium: found, rule, remedy.
    """
    rule = "VMware Workstation is installed by its maker's bundle for Linux"
    remedy = "give VMware-Workstation-Full-*.x86_64.bundle, as Broadcom hands it out"
    try:
        size, start, contents = _contents(path)
    except OSError as why:
        raise WrongMedium(f"{path} can't be read ({why.strerror})", rule, remedy) from why
    if not start.startswith(b"#!"):
        unpack = start.startswith((b"PK", b"\x1f\x8b")) or start[257:262] == b"ustar"
        found = "an archive" if unpack else "no program"
        raise WrongMedium(f"{path} is {found}", rule, "unpack it first" if unpack else remedy)
    if b"<bundle" not in contents:
        # Not refused: nobody promises that the next version ends as those before it did.
        say(
            f"{path} ({size} bytes) does not end as bundles did so far: it may be cut short; its "
            "sha256: in the stack would tell"
        )
    elif _PRODUCT not in contents:
        raise WrongMedium(f"{path} is the bundle of another product", rule, remedy)


def _contents(path: Path) -> tuple[int, bytes, bytes]:
    """Return a bundle's size, its beginning, and the list of its contents; empty where there is none."""
    with path.open("rb") as bundle:
        start = bundle.read(512)
        size = bundle.seek(0, 2)
        if size < len(start) + _FOOTER_AT:
            return size, start, b""
        bundle.seek(size - _FOOTER_AT)
        _, _, length, at = _FOOTER.unpack(bundle.read(_FOOTER.size))
        if not 0 < length <= _MOST or at + length > size:
            return size, start, b""
        bundle.seek(at)
        return size, start, bundle.read(length)
