"""A cloud image that is real: Debian 12 with its own cloud-init, a kernel for PCs and for Xen, and GRUB.

Debian's images for clouds can't be had where only package mirrors are reached, so one is made of the same packages.
It holds no key, no password and no user: whoever gets in was told to it by a seed.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, entries, paths, run
from toolchain.image import disk, image

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.machine.system import System

SUITE = "bookworm"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "iproute2", "openssh-server", "sudo", "cloud-init"),
    *("linux-image-amd64", "grub-pc-bin", "grub-common"),
)
EXCLUDED = tuple(f"/usr/share/{each}/*" for each in ("doc", "man", "locale", "info"))
DISK_GIB = 2
BUILD_S = 600.0
PACK_S = 300.0
FILES = {
    "etc/fstab": "LABEL=root / ext4 rw 0 0\n",
    # It has no languages: cloud-init would fail at the one that it wants by itself.
    "etc/cloud/cloud.cfg.d/90-image.cfg": "datasource_list: [NoCloud, None]\n"
    "locale: false\n"
    "system_info: {network: {renderers: [networkd]}}\n",
    "boot/grub/grub.cfg": "set timeout=0\n"
    'menuentry "Debian" {\n'
    "    linux /boot/vmlinuz root=LABEL=root ro quiet console=hvc0 console=ttyS0\n"
    "    initrd /boot/initrd\n"
    "}\n",
    # Its drivers alone: all of them take 10 s to unpack under emulation.
    "etc/initramfs-tools/initramfs.conf": "MODULES=list\nBUSYBOX=n\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\nxen-blkfront\next4\n",
}
CUSTOMIZE = """\
set -eu
cd "$1"
chroot . update-initramfs -c -k all >/dev/null
mv boot/vmlinuz-* boot/vmlinuz
mv boot/initrd.img-* boot/initrd
rm -f vmlinuz* initrd.img* etc/ssh/ssh_host_* etc/machine-id etc/hostname
: >etc/machine-id
chroot . grub-mkimage -O i386-pc -p /boot/grub -o /boot/grub/core.img \\
    biosdisk ext2 normal configfile linux serial terminal boot
cp usr/lib/grub/i386-pc/boot.img boot/grub/boot.img
chroot . systemctl --quiet enable systemd-networkd ssh
chroot . systemctl --quiet mask man-db.timer apt-daily.timer apt-daily-upgrade.timer \\
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-firstboot.service
rm -rf usr/lib/grub usr/share/grub var/cache/apt/* var/lib/apt/lists/*
"""
RECIPE = 1
"""Raised when code changes what comes out; the texts above count by themselves."""


def digest() -> str:
    """Hash of all that the image is made from: its name in the cache."""
    told = repr((RECIPE, SUITE, PACKAGES, EXCLUDED, DISK_GIB, sorted(FILES.items()), CUSTOMIZE))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def ensure(system: System) -> Path:
    """Return the folder with root.qcow2 and root.raw, which has holes; made unless the cache has it.

    Raises:
        Problem: a program is missing, or a step of the making failed.
    """
    final = paths.images() / f"cloud-{digest()}"
    with cache.locked("cloud-image"):
        if entries.damage(final):
            image.check(system)
            with cache.into_place(final) as making:
                _make(system, making)
    return final


def _make(system: System, making: Path) -> None:
    environment = image.proxies(system) | system.environment()
    root = system.is_root()
    with (making / "overlay.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    (making / "customize").write_text(f"#!/bin/sh\n{CUSTOMIZE}")
    (making / "customize").chmod(0o755)
    sources = image.mirrors(system, SUITE) or [f"deb http://deb.debian.org/debian {SUITE} main"]
    (making / "sources.list").touch(mode=0o600)
    (making / "sources.list").write_text("".join(f"{line}\n" for line in sources))
    run.run(_mmdebstrap(making, root=root), timeout=BUILD_S, env=environment)
    script = f"""set -eu
        cd {shlex.quote(str(making))}
        [ -d root ] || {{ mkdir root; tar -xf root.tar -C root; }}
        mke2fs -q -t ext4 -b {disk.BLOCK} -O {disk.FEATURES} -L root -m 0 \
            -E lazy_itable_init=0,root_owner=0:0 -d root root.raw {DISK_GIB}G"""
    words = ["sh", "-c", script]
    run.run(words if root else ["fakeroot", *words], timeout=PACK_S, env=environment)
    disk.install_loader(system, making)
    convert = ["qemu-img", "convert", "-O", "qcow2", "root.raw", "root.qcow2"]
    convert[-2:] = [str(making / name) for name in convert[-2:]]
    run.run(convert, timeout=PACK_S, env=environment)
    for path in making.iterdir():
        if path.name not in {"root.qcow2", "root.raw"}:
            cache.remove(path)


def _mmdebstrap(making: Path, *, root: bool) -> list[str]:
    over = shlex.quote(str(making / "overlay.tar"))
    # As the golden image's: what it has started and mounted ends with it.
    start = ["setpriv", "--pdeathsig", "KILL" if root else "TERM"]
    if root:
        start += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    settings = ('APT::Install-Recommends "false"', 'Acquire::Languages "none"')
    return [
        *start,
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(("--mode=root", "--format=dir") if root else ("--mode=unshare", "--format=tar")),
        *(f"--aptopt={each}" for each in settings),
        *(f"--dpkgopt=path-exclude={each}" for each in EXCLUDED),
        f"--customize-hook=tar-in {over} /",
        f'--customize-hook={shlex.quote(str(making / "customize"))} "$1"',
        SUITE,
        str(making / ("root" if root else "root.tar")),
        str(making / "sources.list"),
    ]
