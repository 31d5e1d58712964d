"""The root file system of a machine with a real VirtualBox: Debian unstable, made once into the cache.

Debian has VirtualBox in unstable alone (contrib). Its kernel module is compiled while the image is
made, by dkms for the kernel that is in it; the compiler goes away again. The image holds no secret:
what a machine is to have of its own comes as a systemd credential (`tests.support.emulated`).
"""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from typing import TYPE_CHECKING

from toolchain.bootstrap import cache, entries, paths, run
from toolchain.image import image

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.machine.system import System

SUITE = "sid"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "iproute2", "openssh-server", "qemu-utils", "virtualbox"),
    *("linux-image-amd64", "linux-headers-amd64", "virtualbox-dkms", "gcc", "make"),
)  # fmt: skip
EXCLUDED = tuple(f"/usr/share/{each}/*" for each in ("doc", "man", "locale", "icons", "help"))
DISK_GIB = 8
BUILD_S = 1500.0
PACK_S = 600.0
FILES = {
    # KVM would hold the CPU's extension, which VirtualBox wants for itself.
    "etc/modprobe.d/virtualbox.conf": "blacklist kvm\nblacklist kvm_amd\nblacklist kvm_intel\n",
    "etc/modules-load.d/virtualbox.conf": "vboxdrv\nvboxnetflt\nvboxnetadp\n",
    "etc/systemd/network/80-user.network": "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\n",
    "etc/ssh/sshd_config.d/test.conf": "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": "virtualbox\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 virtualbox\n",
    # That of QEMU's user network; VirtualBox hands out what stands here.
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
}
CUSTOMIZE = """\
set -eu
ls "$1"/lib/modules/*/updates/dkms/vboxdrv.ko* >/dev/null
chroot "$1" dpkg-query -W virtualbox 'linux-image-[0-9]*' systemd >"$1/versions"
chroot "$1" systemctl enable systemd-networkd ssh
chroot "$1" systemctl mask systemd-networkd-wait-online systemd-firstboot man-db.timer apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
rm -rf "$1"/usr/src/* "$1"/usr/lib/gcc* "$1"/usr/libexec/gcc "$1"/etc/ssh/ssh_host_* "$1"/usr/lib/llvm* \
    "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
"""
RECIPE = 1
"""Raised when code changes what comes out; the texts above count by themselves."""


def digest() -> str:
    """Hash of all that the image is made from: its name in the cache."""
    told = repr((RECIPE, SUITE, PACKAGES, EXCLUDED, DISK_GIB, sorted(FILES.items()), CUSTOMIZE))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def ensure(system: System) -> Path:
    """Return the folder with root.qcow2, vmlinuz, initrd and versions; made unless the cache has it.

    Raises:
        Problem: a program is missing, or a step of the making failed.
    """
    final = paths.images() / f"virtualbox-{digest()}"
    with cache.locked("virtualbox"):
        if entries.damage(final):
            image.check(system)
            with cache.into_place(final) as making:
                _make(system, making)
    return final


def mirror(system: System) -> str:
    """Return where this machine's own Debian comes from, or where Debian is for all."""
    suite = image.suite()
    found = [source.split() for source in image.mirrors(system, suite)]
    return next((words[1] for words in found if words[2] == suite), "http://deb.debian.org/debian")


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
    (making / "sources.list").write_text(f"deb {mirror(system)} {SUITE} main contrib\n")
    run.run(_mmdebstrap(making, root=root), timeout=BUILD_S, env=environment)
    script = f"""set -eu
        cd {shlex.quote(str(making))}
        [ -d root ] || {{ mkdir root; tar -xf root.tar -C root; }}
        mv root/boot/vmlinuz-* vmlinuz; mv root/boot/initrd.img-* initrd; mv root/versions versions
        mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0,root_owner=0:0 -d root root.raw {DISK_GIB}G
        qemu-img convert -O qcow2 root.raw root.qcow2"""
    words = ["sh", "-c", script]
    run.run(words if root else ["fakeroot", *words], timeout=PACK_S, env=environment)
    for path in making.iterdir():
        if path.name not in {"root.qcow2", "vmlinuz", "initrd", "versions"}:
            cache.remove(path)


def _mmdebstrap(making: Path, *, root: bool) -> list[str]:
    kept = shlex.quote(str(making / "overlay.tar"))
    # As the golden image's: what it has started and mounted ends with it.
    start = ["setpriv", "--pdeathsig", "KILL" if root else "TERM"]
    if root:
        start += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    settings = (
        'Apt::Install-Recommends "false"',
        'Acquire::Languages "none"',
        'Acquire::Retries "3"',
        # A mirror may keep the suite as it was some time ago.
        'Acquire::Check-Valid-Until "false"',
    )
    return [
        *start,
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root" if root else "--mode=unshare",
        "--format=dir" if root else "--format=tar",
        "--components=main,contrib",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={each}" for each in settings),
        *(f"--dpkgopt=path-exclude={each}" for each in EXCLUDED),
        f"--customize-hook=tar-in {kept} /",
        f'--customize-hook={shlex.quote(str(making / "customize"))} "$1"',
        SUITE,
        str(making / ("root" if root else "root.tar")),
        str(making / "sources.list"),
    ]
