"""The root file system of a machine with a real VirtualBox: Debian unstable.

Debian has VirtualBox in unstable alone (contrib). Its kernel module is compiled while the image is
made, by dkms for the kernel that is in it; the compiler goes away again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import machine_image

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
RECIPE = machine_image.Recipe(
    "virtualbox", SUITE, ("main", "contrib"), PACKAGES, EXCLUDED, DISK_GIB, FILES, CUSTOMIZE
)


def ensure(system: System) -> Path:
    """See `machine_image.ensure`."""
    return machine_image.ensure(system, RECIPE)
