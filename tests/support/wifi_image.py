"""The root file system of a machine with Wi-Fi: Debian with its full kernel, which has simulated radios, and libvirt.

The kernel of Debian's images for clouds has no mac80211_hwsim. In it lies what a guest boots there: the same kernel
with a file system in memory that has a DHCP client and an SSH server, as a whole Debian would boot for ten minutes
where an emulated machine emulates another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import machine_image

if TYPE_CHECKING:
    from pathlib import Path

    from toolchain.machine.system import System

SUITE = "bookworm"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "kmod", "iproute2", "openssh-server", "linux-image-amd64"),
    *("hostapd", "wpasupplicant", "iw", "busybox-static", "iputils-ping", "iputils-arping", "nftables"),
    *("libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu", "dnsmasq-base", "iptables"),
    *("qemu-system-x86", "dropbear-bin", "cpio"),
)  # fmt: skip
EXCLUDED = tuple(f"/usr/share/{each}/*" for each in ("doc", "man", "locale", "icons", "help"))
DISK_GIB = 3
GUEST_KERNEL, GUEST_INITRD = "/srv/vmlinuz", "/srv/guest.img"
"""Of a guest. Who may log in is packed behind the second one: the kernel unpacks one archive after the other."""
GUEST_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts
mount -t devpts devpts /dev/pts
insmod /e1000.ko
ip link set lo up
ip link set eth0 up
udhcpc -q -t 30 -T 5 -i eth0 -s /client
chmod -R go= /root
mkdir /etc/dropbear
exec dropbear -R -F -E -s
"""
LEASE_TAKEN = """\
#!/bin/busybox sh
# What a DHCP client does with a lease.
[ "$1" = bound ] || exit 0
ip addr replace $ip/$mask dev $interface
ip route replace default via $router dev $interface metric 600
"""
FILES = {
    "usr/share/guest/init": GUEST_INIT,
    "usr/share/guest/client": LEASE_TAKEN,
    # That of the machine's own connection alone: whoever manages the radios is the test's business.
    "etc/systemd/network/80-user.network": "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\n",
    "etc/ssh/sshd_config.d/test.conf": "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": "wifi\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 wifi\n",
    # Its drivers alone: all of them take 10 s to unpack under emulation.
    "etc/initramfs-tools/initramfs.conf": "MODULES=list\nBUSYBOX=n\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}
CUSTOMIZE = """\
set -eu
chroot "$1" update-initramfs -c -k all >/dev/null
ls "$1"/lib/modules/*/kernel/drivers/net/wireless/mac80211_hwsim.ko >/dev/null
guest="$1/usr/share/guest"
mkdir -p "$guest"/bin "$guest"/proc "$guest"/sys "$guest"/dev "$guest"/etc "$guest"/root/.ssh
chmod 0755 "$guest"/init "$guest"/client
chmod 0700 "$guest"/root "$guest"/root/.ssh
cp "$1"/bin/busybox "$1"/usr/sbin/dropbear "$guest"/bin/
cp "$1"/lib/modules/*/kernel/drivers/net/ethernet/intel/e1000/e1000.ko "$guest"/
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$guest"/etc/passwd
printf '/bin/sh\n' >"$guest"/etc/shells
chroot "$1" ldd /usr/sbin/dropbear | grep -o "/[^ ]*" |
  while read -r library; do
    mkdir -p "$guest$(dirname "$library")"
    cp -L "$1$library" "$guest$library"
  done
chroot "$1" sh -c 'cd /usr/share/guest && find . | cpio --quiet -o -H newc -R 0:0 | gzip >/srv/guest.img'
cp "$1"/boot/vmlinuz-* "$1"/srv/vmlinuz
chmod 0644 "$1"/srv/*
chroot "$1" dpkg-query -W 'linux-image-[0-9]*' hostapd wpasupplicant libvirt-daemon qemu-system-x86 >"$1/versions"
chroot "$1" systemctl --quiet enable systemd-networkd ssh
chroot "$1" systemctl --quiet mask hostapd wpa_supplicant systemd-networkd-wait-online systemd-firstboot \
    man-db.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
rm -rf "$1"/etc/ssh/ssh_host_* "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*
"""
RECIPE = machine_image.Recipe(
    "wifi", SUITE, ("main",), PACKAGES, EXCLUDED, DISK_GIB, FILES, CUSTOMIZE
)


KERNEL = (
    "root=/dev/vda rw console=ttyS0 quiet panic=1 no_timer_check systemd.service_watchdogs=no "
    "systemd.default_timeout_start_sec=1800 systemd.default_device_timeout_sec=1800"
)


def arguments(image: Path) -> list[str]:
    """Return QEMU's of a machine that boots ``image``, the folder that `ensure` returns."""
    boots = ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"), "-append", KERNEL]
    return ["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "1536", *boots]


def ensure(system: System) -> Path:
    """See `machine_image.ensure`."""
    return machine_image.ensure(system, RECIPE)
