"""Proxmox VE: answer.toml on a CD of its own, and an installer that looks for it.

The installer gets two files more, none of them secret: the mode, which the vendor's own assistant
writes likewise, and an executable for the first boot (the answers may only say that there is one).
That takes the machine's SSH host key from the answers' CD, so the machine answers from its first
second as the one that was planned.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from components.kinds.proxmox.model import LVM
from components.media.recognise import pairs
from components.media.remaster import Edits, Remaster, other, text

if TYPE_CHECKING:
    from components.media.answers import Answers
    from components.media.iso import Iso

LABEL = "proxmox-ais"
"""By which the installer finds its answers."""
OLDEST = (8, 4)
"""The first release whose answers are written with hyphens, and that can run something at first boot."""
OPTIONS = ("country", "filesystem", "lvm", "mailto", "zfs_raid")
FILESYSTEMS = ("ext4", "xfs", "zfs", "btrfs")
LVM_KEYS = ("hdsize", "swapsize", "maxroot", "maxvz", "minfree")
KEYBOARDS = {
    "de": "de", "de-ch": "de-ch", "dk": "dk", "gb": "en-gb", "us": "en-us", "es": "es", "fi": "fi",
    "fr": "fr", "be": "fr-be", "ca": "fr-ca", "ch": "fr-ch", "hu": "hu", "is": "is", "it": "it",
    "jp": "jp", "lt": "lt", "mk": "mk", "nl": "nl", "no": "no", "pl": "pl", "pt": "pt",
    "br": "pt-br", "se": "se", "si": "si", "tr": "tr",
}  # fmt: skip
"""The installer's name of a layout, by the kernel's."""

MODE = f'mode = "partition"\npartition_label = "{LABEL}"\n'
FIRST_BOOT = f"""\
#!/bin/sh
# Made by nestlab. Takes the planned SSH host key from the answers' CD; run once, at the first boot.
set -eu
umask 077
udevadm settle --timeout=60 || true
cd=$(blkid -L {LABEL} || true)
if [ -z "$cd" ]; then
    echo "nestlab: no CD {LABEL}, so the SSH host keys stay as they are"
    exit 0
fi
at=$(mktemp -d)
mount -t iso9660 -o ro "$cd" "$at"
trap 'umount "$at"; rmdir "$at"' EXIT
install -m 600 "$at/ssh_host_ed25519_key" /etc/ssh/ssh_host_ed25519_key
install -m 644 "$at/ssh_host_ed25519_key.pub" /etc/ssh/ssh_host_ed25519_key.pub
# Does nothing where it does not run yet, as at "before-network".
systemctl --no-block try-restart ssh.service
"""


def files(answers: Answers) -> dict[str, bytes]:
    """Return what is on the CD `LABEL`.

    Options: ``country`` (two letters), ``filesystem``, ``zfs_raid``, ``mailto``, and ``lvm``, a
    mapping of hdsize, swapsize, maxroot, maxvz and minfree in GiB (R124; default: `LVM`).
    """
    return {
        "/answer.toml": _toml(_answer(answers)).encode(),
        "/ssh_host_ed25519_key": answers.host_private.encode(),
        "/ssh_host_ed25519_key.pub": f"{answers.host_public}\n".encode(),
    }


def _answer(answers: Answers) -> dict[str, dict[str, object]]:
    answers.only(OPTIONS)
    keyboard = KEYBOARDS.get(answers.keyboard)
    if keyboard is None:
        raise ValueError(f"keyboard: {answers.keyboard!r} is none of {', '.join(KEYBOARDS)}")
    # The one name for it that the installer takes.
    zone = "UTC" if answers.timezone in {"Etc/UTC", "UTC", "Etc/GMT"} else answers.timezone
    country = answers.option("country", "us")
    if not re.fullmatch(r"[a-z]{2}", country):
        raise ValueError(f"country: {country!r} is not two lower-case letters")
    network: dict[str, object] = {"source": "from-dhcp"}
    if answers.address:
        network = {
            "source": "from-answer",
            "cidr": str(answers.interface),
            "dns": answers.dns,
            "gateway": answers.gateway,
            "filter": {"ID_NET_NAME_MAC": f"*{answers.mac.replace(':', '')}"},
        }
    return {
        "global": {
            "keyboard": keyboard,
            "country": country,
            "fqdn": answers.fqdn,
            "mailto": answers.option("mailto", f"root@{answers.fqdn}"),
            "timezone": zone,
            "root-password-hashed": answers.hashed(),
            "root-ssh-keys": [answers.authorized_key],
            "reboot-on-error": False,
        },
        "network": network,
        "disk-setup": _disk(answers),
        "first-boot": {"source": "from-iso", "ordering": "before-network"},
    }


def _disk(answers: Answers) -> dict[str, object]:
    system = answers.option("filesystem", "ext4")
    if system not in FILESYSTEMS:
        raise ValueError(f"filesystem: {system!r} is none of {', '.join(FILESYSTEMS)}")
    disk: dict[str, object] = {"filesystem": system, "disk-list": [answers.disk]}
    if system == "zfs":
        disk["zfs"] = {"raid": answers.option("zfs_raid", "raid0")}
    elif system == "btrfs":
        disk["btrfs"] = {"raid": "raid0"}
    sizes = answers.options.get("lvm", LVM if system in {"ext4", "xfs"} else {})
    if not isinstance(sizes, dict) or not all(
        key in LVM_KEYS and isinstance(size, int | float) and size >= 0
        for key, size in sizes.items()
    ):
        raise ValueError(f"lvm: it is a size in GiB for some of {', '.join(LVM_KEYS)}")
    if sizes and system not in {"ext4", "xfs"}:
        raise ValueError(f"lvm: {system} has no LVM")
    if sizes:
        disk["lvm"] = {key: float(size) for key, size in sizes.items()}
    return disk


def _toml(tables: dict[str, dict[str, object]]) -> str:
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    # JSON's strings are TOML's, but for one control letter that JSON lets be.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def check(iso: Iso) -> None:
    """Refuse what is no installer of Proxmox VE that can be told its answers."""
    told = pairs(text(iso, "/.cd-info") or text(iso, "/.disk/info") or "")
    remedy = f"give a proxmox-ve_*.iso of {OLDEST[0]}.{OLDEST[1]} or newer"
    product = told.get("PRODUCT") or told.get("PRODUCTLONG", "")
    if product not in {"pve", "Proxmox VE", "Proxmox Virtual Environment"}:
        raise other(iso, "the installer of Proxmox VE is wanted", remedy)
    release = tuple(map(int, re.findall(r"\d+", told.get("RELEASE", ""))[:2]))
    if not iso.find("/auto-installer-capable") or release < OLDEST:
        wanted = "only 8.4 and newer install themselves with all that is told here"
        raise other(iso, wanted, remedy)


def edits(iso: Iso) -> Edits:
    """Let it look for its answers on the CD `LABEL`."""
    del iso
    return Edits(
        {
            "/auto-installer-mode.toml": MODE.encode(),
            "/proxmox-first-boot": FIRST_BOOT.encode(),
        }
    )


REMASTER = Remaster(version=1, check=check, edits=edits)
