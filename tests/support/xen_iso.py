"""A stand-in of a Linux installer's ISO that a paravirtual guest of Xen boots, from a golden image's own files.

It has what such a guest needs and an installer's ISO has: ``boot/grub/grub.cfg``, which PV GRUB looks
for, a kernel and an initial RAM disk. The system in it is busybox: it says a marker on the console,
gets an address by DHCP, says that too, and stays. Made once in seconds, without root or a mount.
"""

from __future__ import annotations

import gzip
import re
import subprocess
from typing import TYPE_CHECKING

from components.media import cpio

if TYPE_CHECKING:
    from pathlib import Path

GRUB_CFG = """\
set timeout=0
menuentry "stand-in" {
    linux /live/vmlinuz console=hvc0 quiet
    initrd /live/initrd
}
"""
INIT = """\
#!/bin/busybox sh
busybox mkdir -p /dev /proc
busybox mount -t devtmpfs dev /dev
exec </dev/hvc0 >/dev/hvc0 2>&1
busybox mount -t proc proc /proc
for module in xen-netfront xen-blkfront; do busybox insmod "/$module.ko"; done
echo "{marker}: $(busybox uname -s) boots, $(busybox cat /proc/cmdline)"
for try in 1 2 3 4 5; do
    busybox ip link set eth0 up 2>/dev/null && break
    busybox sleep 1
done
busybox udhcpc -q -f -i eth0 -s /lease -t 60 >/dev/null && echo "{marker}: $(busybox ip -4 -o addr show eth0)"
while :; do busybox sleep 3600; done
"""
LEASE = """\
#!/bin/busybox sh
[ "$1" != bound ] || busybox ip addr add "$ip/$mask" dev "$interface"
"""


def stand_in(disk: Path, folder: Path, marker: str) -> Path:
    """Return an ISO, made in ``folder`` from the golden image ``disk`` (qcow2) of a Xen host.

    ``marker`` begins each line that its guest says.
    """
    raw = folder / "image.raw"
    _run("qemu-img", "convert", "-O", "raw", str(disk), str(raw))
    [version] = re.findall(
        r"/([0-9][^/]*)//$", _debugfs(raw, "ls -p /usr/lib/modules"), re.MULTILINE
    )
    drivers = f"/usr/lib/modules/{version}/kernel/drivers"
    inside = {
        "bin/busybox": _file(raw, "/usr/bin/busybox", folder),
        "xen-netfront.ko": _file(raw, f"{drivers}/net/xen-netfront.ko", folder),
        "xen-blkfront.ko": _file(raw, f"{drivers}/block/xen-blkfront.ko", folder),
        "init": INIT.format(marker=marker).encode(),
        "lease": LEASE.encode(),
    }
    tree = folder / "tree"
    for part in ("boot/grub", "live"):
        (tree / part).mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(GRUB_CFG)
    (tree / "live/vmlinuz").write_bytes(_file(raw, "/boot/vmlinuz", folder))
    (tree / "live/initrd").write_bytes(gzip.compress(cpio.archive(inside), 1))
    raw.unlink()
    iso = folder / "xen-guest.iso"
    _run(
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-R",
        "-J",
        "-V",
        "STANDIN",
        "-o",
        str(iso),
        str(tree),
    )
    return iso


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _debugfs(raw: Path, request: str) -> str:
    return _run("debugfs", "-R", request, str(raw))


def _file(raw: Path, name: str, folder: Path) -> bytes:
    out = folder / "file"
    out.unlink(missing_ok=True)
    _debugfs(raw, f"dump {name} {out}")
    content = out.read_bytes()
    out.unlink()
    assert content, f"{name} is not in the image"
    return content
